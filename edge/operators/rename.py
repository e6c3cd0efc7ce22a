"""`rename`: gives columns other names."""

import polars as pl
from pydantic import Field

from edge.component import Stream
from edge.errors import DefinitionError
from edge.expression import require, reserve
from edge.operators import Operator


class Rename(Operator):
    """Gives columns other names; they stay where they are.

    ```yaml
    rename:
      temp: temperature
      hum: humidity
    ```

    All names change at once, so two columns may swap theirs. A part after it that needs a column
    under its old name, such as the time or the key, says so when the definition is checked.

    Nulls and NaN: kept as they are.

    Cost: nothing per row.
    """

    short = "columns"
    own_memory = True

    columns: dict[str, str] = Field(
        description="The name a column has, and the name it gets.", min_length=1
    )

    def bind(self, columns: pl.Schema, stream: Stream) -> pl.Schema:
        require(self.columns, columns, "rename")
        reserve(self.columns.values(), "rename")
        renamed: dict[str, pl.DataType] = {}
        for name, dtype in columns.items():
            new = self.columns.get(name, name)
            if new in renamed:
                raise DefinitionError(
                    f"rename: two columns would be called {new!r}; drop one of them first"
                )
            renamed[new] = dtype
        return pl.Schema(renamed)

    def process(self, frame: pl.DataFrame) -> pl.DataFrame:
        return frame.rename(self.columns)

"""`select`: keeps the columns named, in the order named."""

import polars as pl
from pydantic import Field

from edge.component import Stream
from edge.errors import DefinitionError
from edge.expression import require
from edge.operators import Operator


class Select(Operator):
    """Keeps only the columns named, in the order named.

    ```yaml
    select: [ts, device, temperature]
    ```

    A part after it that needs a column left out here, such as the time or the key, says so when
    the definition is checked.

    Nulls and NaN: kept as they are.

    Cost: nothing per row.
    """

    short = "columns"
    own_memory = True

    columns: list[str] = Field(description="Names of the columns to keep, in order.", min_length=1)

    def bind(self, columns: pl.Schema, stream: Stream) -> pl.Schema:
        require(self.columns, columns, "select")
        twice = next((name for name in self.columns if self.columns.count(name) > 1), None)
        if twice is not None:
            raise DefinitionError(f"select: column {twice!r} is named twice; name it once")
        return pl.Schema({name: columns[name] for name in self.columns})

    def process(self, frame: pl.DataFrame) -> pl.DataFrame:
        return pl.DataFrame([frame.get_column(name) for name in self.columns])

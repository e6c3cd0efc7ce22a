"""`drop`: leaves out the columns named."""

import polars as pl
from pydantic import Field

from edge.component import Stream
from edge.errors import DefinitionError
from edge.expression import require
from edge.operators import Operator


class Drop(Operator):
    """Leaves out the columns named and keeps all others.

    ```yaml
    drop: [raw, checksum]
    ```

    A part after it that needs a column dropped here, such as the time or the key, says so when
    the definition is checked.

    Nulls and NaN: kept as they are.

    Cost: nothing per row.
    """

    short = "columns"
    own_memory = True

    columns: list[str] = Field(description="Names of the columns to leave out.", min_length=1)

    def bind(self, columns: pl.Schema, stream: Stream) -> pl.Schema:
        require(self.columns, columns, "drop")
        kept = {name: dtype for name, dtype in columns.items() if name not in self.columns}
        if not kept:
            raise DefinitionError("drop: no column would be left; keep at least one")
        return pl.Schema(kept)

    def process(self, frame: pl.DataFrame) -> pl.DataFrame:
        return frame.drop(self.columns)

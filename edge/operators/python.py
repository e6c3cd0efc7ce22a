"""`python`: hands the rows to a Python function of the user."""

import importlib
import importlib.util
from collections.abc import Callable, Mapping, Set
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import polars as pl
from polars.exceptions import PolarsError
from pydantic import Field, PlainSerializer, PrivateAttr, WithJsonSchema

from edge.codec.record import COLUMN_TYPES
from edge.component import PositiveDuration, Stream
from edge.errors import DataError, DefinitionError
from edge.expression import reserve
from edge.operators import Operator
from edge.timeout import Caller

Function = Callable[[Any], Any]


def _name(function: str | Function) -> str:
    if isinstance(function, str):
        return function
    return f"{function.__module__}:{getattr(function, '__qualname__', type(function).__name__)}"


class Python(Operator):
    """Hands the rows to a Python function and goes on with what it returns.

    ```yaml
    python:
      function: press.py:add_risk
      columns: {ts: timestamp, device: str, temperature: float, risk: float}
    ```

    The function takes a batch as a `polars.DataFrame` and returns one; each result row must depend
    on its own row only, because where a batch begins and ends is chance. With `rows: true` it
    takes one row as a dict and returns a dict, None (the row goes) or a list of dicts. What it
    remembers by itself is lost on a restart and is the user's affair: the processor keeps memory
    of its own operators only. Columns starting with `edge_` come in and must go out unchanged;
    with `rows: true` they are not shown and stay with the row.

    An exception fails the batch, which is halved down to the rows that cause it; these are set
    aside as failed. So does a call that takes longer than `timeout`, while the source waits: a loop
    in Python is ended, a call that hangs outside Python (a socket without a timeout) is left behind
    with its thread and its rows, and 64 of those end the process with 1.

    Nulls and NaN: handed over as they are, null as None in a dict.

    Cost: 0.15 ms per batch and the function's own time; `rows: true` costs 2.5 us per row besides,
    a hundred times the price of `derive`.
    """

    quick: ClassVar[bool] = False

    function: Annotated[
        str | Function,
        PlainSerializer(_name, return_type=str),
        WithJsonSchema(
            {"type": "string", "examples": ["press.py:add_risk", "package.module:name"]}
        ),
    ] = Field(
        description="`path/to/file.py:name`, relative to the definition, or `module:name`; "
        "in Python also the function itself."
    )
    rows: bool = Field(False, description="The function takes one row as a dict, not a batch.")
    columns: dict[str, Literal["str", "int", "float", "bool", "json", "timestamp"]] | None = Field(
        None, description="Columns that come out and their types; those that go in if left out."
    )

    timeout: PositiveDuration = Field(
        timedelta(minutes=1), description="How long the function may take for one batch."
    )

    _call: Function = PrivateAttr()
    _caller: Caller = PrivateAttr()
    _out: pl.Schema = PrivateAttr()

    @property
    def _where(self) -> str:
        return f"python {_name(self.function)!r}"

    def bind(self, columns: pl.Schema, stream: Stream) -> pl.Schema:
        self._call = self._load(stream.folder)
        self._caller = Caller(self._where, self.timeout)
        if self.columns is None:
            self._out = columns
            return columns
        reserve(self.columns, self._where)
        declared = {name: COLUMN_TYPES[kind] for name, kind in self.columns.items()}
        kept = {name: dtype for name, dtype in columns.items() if name.startswith("edge_")}
        self._out = pl.Schema(declared | kept)
        return self._out

    def _load(self, folder: Path) -> Function:
        if not isinstance(self.function, str):
            return self.function
        place, _, name = self.function.rpartition(":")
        if not place:
            raise DefinitionError(f"{self._where}: must be file.py:name or module:name")
        try:
            module = (
                _load_file(folder / place)
                if place.endswith(".py")
                else importlib.import_module(place)
            )
        except Exception as error:
            raise DefinitionError(
                f"{self._where}: cannot be loaded: {type(error).__name__}: {error}"
            ) from error
        found = getattr(module, name, None)
        if not callable(found):
            raise DefinitionError(f"{self._where}: there is no function {name!r} in {place}")
        loaded: Function = found
        return loaded

    def process(self, frame: pl.DataFrame) -> pl.DataFrame:
        return self._process_rows(frame) if self.rows else self._process_columns(frame)

    def _process_columns(self, frame: pl.DataFrame) -> pl.DataFrame:
        result = self._caller.call(self._answer, frame)
        if not isinstance(result, pl.DataFrame):
            raise DataError(
                f"{self._where}: must return a polars.DataFrame, got {type(result).__name__}; "
                "a function over single rows needs rows: true"
            )
        self._compare(result.columns, self._out)
        return result.select(self._fitting(name, result.schema[name]) for name in self._out)

    def _answer(self, frame: pl.DataFrame) -> Any:
        try:
            return self._call(frame)
        except Exception as error:
            raise self._failure(error) from error

    def _fitting(self, name: str, got: pl.DataType) -> pl.Expr:
        wanted = self._out[name]
        if got == wanted:
            return pl.col(name)
        widened = (got.is_integer() and wanted.is_integer()) or (
            got.is_float() and wanted.is_float()
        )
        if not widened and got != pl.Null:
            raise DataError(
                f"{self._where}: column {name!r} must be {wanted}, got {got}; cast it in the "
                "function or declare it under columns"
            )
        return pl.col(name).cast(wanted, strict=False)

    def _process_rows(self, frame: pl.DataFrame) -> pl.DataFrame:
        aside = [name for name in frame.columns if name.startswith("edge_")]
        schema = {name: dtype for name, dtype in self._out.items() if name not in aside}
        results, origin = self._caller.call(self._answers, frame.drop(aside), schema.keys())
        try:
            made = pl.DataFrame(results, schema=schema, orient="row", strict=True)
        except (PolarsError, TypeError, ValueError, OverflowError) as error:
            raise DataError(f"{self._where}: returned a row of wrong types: {error}") from error
        return made.hstack(frame.select(aside)[origin]).select(self._out.names())

    def _answers(
        self, frame: pl.DataFrame, names: Set[str]
    ) -> tuple[list[Mapping[str, Any]], list[int]]:
        """The rows that came back, and for each the index of the row it was made of."""
        results: list[Mapping[str, Any]] = []
        origin: list[int] = []
        call = self._call  # attributes of a pydantic model are slow in a loop
        for index, row in enumerate(frame.iter_rows(named=True)):
            try:
                answer = call(row)
            except Exception as error:
                raise self._failure(error) from error
            for made in answer if isinstance(answer, list) else () if answer is None else (answer,):
                if not isinstance(made, dict) or made.keys() != names:
                    self._check_row(made, names)
                results.append(made)
                origin.append(index)
        return results, origin

    def _check_row(self, made: Any, names: Set[str]) -> None:
        if not isinstance(made, Mapping):
            raise DataError(
                f"{self._where}: must return a dict, None or a list of dicts, "
                f"got {type(made).__name__}"
            )
        self._compare(made, names)

    def _failure(self, error: Exception) -> DataError:
        return DataError(f"{self._where}: {type(error).__name__}: {error}")

    def _compare(self, got: Any, wanted: Any) -> None:
        if len(got) == len(wanted) and all(name in got for name in wanted):
            return
        missing = [name for name in wanted if name not in got]
        extra = [name for name in got if name not in wanted]
        faults = [f"{name!r} is missing" for name in missing] + [f"{n!r} is new" for n in extra]
        raise DataError(
            f"{self._where}: returned other columns than declared: {', '.join(faults)}; "
            "declare what comes out under columns"
        )


def _load_file(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"no Python file at {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

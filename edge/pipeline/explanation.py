"""What a bound pipeline does, as plain values: columns after every operator, what sinks receive."""

from collections.abc import Sequence
from typing import Any

import polars as pl

from edge.component import Size, format_duration
from edge.pipeline.binding import Bound, BoundBranch, Stage, kind_of

_WORDS: Sequence[tuple[type[pl.DataType], str]] = (
    (pl.String, "str"),
    (pl.Int64, "int"),
    (pl.Float64, "float"),
    (pl.Boolean, "bool"),
    (pl.Datetime, "timestamp"),
)


def explained(bound: Bound) -> dict[str, Any]:
    """JSON values; columns are mappings of name to type in the words of `record.fields`."""
    pipeline = bound.pipeline
    assert bound.source_columns is not None
    return {
        "name": pipeline.name,
        "identity": pipeline.identity(),
        "outbox": str(pipeline.outbox_folder()),
        "time": bound.stream.time,
        "key": list(bound.stream.key),
        "source": {
            "kind": kind_of(bound.source),
            "acknowledge": pipeline.acknowledge,
            "columns": typed(bound.source_columns),
        },
        "operators": [_stage(stage) for stage in bound.common],
        "sinks": {name: _branch(bound, name, branch) for name, branch in bound.branches.items()},
    }


def typed(columns: pl.Schema) -> dict[str, str]:
    """Name and type of every column; a type that no field can have is in polars' words."""
    return {name: _word(dtype) for name, dtype in columns.items()}


def _word(dtype: pl.DataType) -> str:
    return next((word for kind, word in _WORDS if isinstance(dtype, kind)), str(dtype))


def _stage(stage: Stage) -> dict[str, Any]:
    return {
        "name": stage.name,
        "kind": kind_of(stage.operator),
        "columns": typed(stage.columns),
    }


def _branch(bound: Bound, name: str, branch: BoundBranch) -> dict[str, Any]:
    declared = bound.pipeline.sinks[name]
    roll = declared.rolling()
    identity = {"edge_id": "str"} if declared.identity else {}
    return {
        "kind": kind_of(branch.sink),
        "rejected": name == bound.pipeline.rejected,
        "operators": [_stage(stage) for stage in branch.operators],
        "when": declared.when,
        "roll": {"size": str(Size(roll.size)), "every": format_duration(roll.every)},
        "order": declared.order,
        "priority": declared.priority,
        "columns": identity | typed(branch.columns),
    }

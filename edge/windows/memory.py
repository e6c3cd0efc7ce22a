"""What windows write down, and how it is read again.

A state has numbers, then the keys, then the open windows, as Arrow streams. Of a key that changed
all windows are there; `gone` marks one that was forgotten. Of a list that grows there is what comes
behind the first `saved` values.
"""

import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import polars as pl

from edge.codec import pack, unpack
from edge.windows.kinds import WINDOW

_HEAD = struct.Struct("<qqqq")

Counts = tuple[int, int, int]
"""Rows seen, clock, clock of the last early results."""


class Found(NamedTuple):
    """All that the states say together."""

    counts: Counts
    keys: pl.DataFrame
    windows: pl.DataFrame


def write(counts: Counts, keys: pl.DataFrame, windows: pl.DataFrame) -> bytes:
    """One state; keys with a column `gone`."""
    first = pack(keys)
    return _HEAD.pack(*counts, len(first)) + first + pack(windows)


def read(states: Sequence[bytes], names: Sequence[str], lists: Mapping[str, str]) -> Found:
    """One whole state, then changes. names: of the key columns; lists: the columns of lists that
    grow, and the column that says how much of each was written before."""
    keys, windows = [], []
    counts = 0, 0, 0
    for number, state in enumerate(states):
        *numbers, length = _HEAD.unpack_from(state)
        counts = numbers[0], numbers[1], numbers[2]
        first, rest = state[_HEAD.size :][:length], state[_HEAD.size + length :]
        mark = pl.lit(number).alias("state")
        keys.append(unpack(first).with_columns(mark))
        windows.append(unpack(rest).with_columns(mark))
    last = pl.concat(keys).unique(names, keep="last", maintain_order=True)
    there = last.filter(~pl.col("gone"))
    log = pl.concat(windows)
    held = log.join(there.select(*names, "state"), on=[*names, "state"], nulls_equal=True)
    for name, saved in lists.items():
        held = _with_list(held.drop(name), log, [*names, WINDOW], name, saved)
    return Found(counts, there, held)


def _with_list(
    held: pl.DataFrame, log: pl.DataFrame, place: Sequence[str], name: str, saved: str
) -> pl.DataFrame:
    """Windows with their list, put together from where it last began."""
    begins = pl.col("state").filter(pl.col(saved) == 0).max().over(place)
    pieces = log.filter(pl.col("state") >= begins).sort("state")
    whole = pieces.group_by(place).agg(pl.col(name).explode().drop_nulls())
    return held.join(whole, on=place, how="left", nulls_equal=True)

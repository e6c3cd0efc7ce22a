"""Rows of a batch whose results are too large for one commit: kept until they are worked off."""

import logging
from collections.abc import Awaitable, Callable, Mapping

import polars as pl

from edge.codec import pack, unpack
from edge.outbox.model import WAITING, Kept, Remembered

log = logging.getLogger("edge.waiting")

_MARGIN = 0.75  # rows of one batch are not all of one size

Acknowledge = Callable[[], Awaitable[None]]


class Waiting:
    """Rows that the source has handed over for good, and that operators have not seen yet.

    They lie in the outbox under one name, and every commit that takes rows out of them writes what
    is left again: whatever happens, a row waits or is processed.
    """

    def __init__(self) -> None:
        self.rows: pl.DataFrame | None = None
        self.acknowledge: Acknowledge | None = None
        self._step = 1
        self._told = False

    def packed(self, rows: pl.DataFrame) -> Remembered:
        """What the commit that takes `rows` from the source must remember."""
        return Remembered(WAITING, str(rows.height), True, pack(rows))

    def keep(self, rows: pl.DataFrame, part: float, acknowledge: Acknowledge) -> None:
        """That commit is durable. part: of the rows that one commit takes well."""
        log.log(
            logging.DEBUG if self._told else logging.WARNING,
            "what comes of %d rows is too much for one commit, they go in parts; "
            "raise outbox.max_size or lower batch.rows",
            rows.height,
        )
        self._told = True
        self.rows, self.acknowledge = rows, acknowledge
        self._step = rows.height
        self.take_less(part)

    def next(self) -> pl.DataFrame:
        """The rows to work on now."""
        assert self.rows is not None
        return self.rows.head(self._step)

    def take_less(self, part: float) -> None:
        """The rows of `next` were too many; `part` of them would have been few enough."""
        assert self.rows is not None
        tried = min(self._step, self.rows.height)
        self._step = max(1, min(tried // 2, int(tried * part * _MARGIN)))

    def without(self, count: int) -> Remembered:
        """What the commit of the first `count` rows must remember."""
        assert self.rows is not None
        left = self.rows.slice(count)
        return self.packed(left) if left.height else Remembered(WAITING, "0", True, b"")

    def leave(self, count: int) -> Acknowledge | None:
        """That commit is durable. Gives what is to be told to the source, after the last one."""
        assert self.rows is not None
        left = self.rows.slice(count)
        self.rows = left if left.height else None
        return None if left.height else self.acknowledge

    def restore(self, memory: Mapping[str, Kept], columns: pl.Schema | None) -> None:
        """Take back what was last committed; columns: of the source by the definition of now.

        Nobody is told then: the source repeats what it was not told of, and recognises it.
        """
        self.rows = self.acknowledge = None
        kept = memory.get(WAITING)
        if kept is not None and kept.states[-1]:
            self.rows = _conform(unpack(kept.states[-1]), columns)
            self._step = self.rows.height


def apart(rows: pl.DataFrame, most: int) -> list[pl.DataFrame]:
    """Rows in pieces of at most `most` bytes as they would wait, or of a single row."""
    if rows.height <= 1 or len(pack(rows)) <= most:
        return [rows]
    half = rows.height // 2
    return [*apart(rows.head(half), most), *apart(rows.slice(half), most)]


def _conform(rows: pl.DataFrame, columns: pl.Schema | None) -> pl.DataFrame:
    """Rows from before a change of the definition get its columns: null where they have none."""
    if columns is None or rows.schema == columns:
        return rows
    return rows.select(
        pl.col(name).cast(kind, strict=False)
        if name in rows.columns
        else pl.lit(None, kind).alias(name)
        for name, kind in columns.items()
    )

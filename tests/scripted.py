"""A source and a sink whose behaviour is a list, and a clock whose hands the test moves."""

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from datetime import timedelta
from typing import Any, ClassVar

import polars as pl
from pydantic import PrivateAttr

from edge.clock import Clock
from edge.codec import Record, rows_as_json
from edge.component import Stream
from edge.errors import LinkDown
from edge.outbox.model import Parcel, Reject
from edge.sinks import Encoded, Receipt, Roll, Sink, split_id
from edge.sources import Arrival, Batch, Source

CRASH = "crash"
"""In a script: here the process dies; nothing after it happens until the next start."""


class Crashed(BaseException):
    """The scripted crash. Not an Exception, so that nothing that recovers can catch it."""


class HandClock(Clock):
    """Stands still until told otherwise; a sleep moves it and lets others run."""

    def __init__(self, now: int = 1_700_000_000_000_000) -> None:
        self._now = now
        self._steady = 1000.0

    def now(self) -> int:
        return self._now

    def steady(self) -> float:
        return self._steady

    def advance(self, seconds: float) -> None:
        self._now += round(seconds * 1_000_000)
        self._steady += seconds

    async def sleep(self, seconds: float) -> None:
        self.advance(seconds)
        await asyncio.sleep(0)


def rows(**columns: Sequence[Any]) -> pl.DataFrame:
    """A frame as a source would hand it over."""
    received = pl.lit(1_700_000_000_000_000, pl.Int64).cast(pl.Datetime("us", "UTC"))
    return pl.DataFrame(columns).with_columns(received.alias("edge_received"))


class ScriptedSource(Source):
    """Gives one batch after another from a script of frames, CRASH and rejected payloads.

    Seekable: its position is the index of the next item. Remembers what was acknowledged.
    """

    @property
    def finite(self) -> bool:
        return True

    _script: list[Any] = PrivateAttr(default_factory=list)
    _crashed: set[int] = PrivateAttr(default_factory=set)
    _acknowledged: list[int] = PrivateAttr(default_factory=list)

    @classmethod
    def of(cls, *script: Any) -> "ScriptedSource":
        source = cls()
        source._script.extend(script)
        return source

    @property
    def acknowledged(self) -> list[int]:
        """Indexes of the items that the runner acknowledged, in order."""
        return self._acknowledged

    def bind(
        self, record: Record, stream: Stream, identity: str, batch: Batch, clock: Clock
    ) -> pl.Schema | None:
        return next(item.schema for item in self._script if isinstance(item, pl.DataFrame))

    async def arrivals(self, position: bytes | None) -> AsyncGenerator[Arrival | None, None]:
        yield None
        for index in range(json.loads(position or b"0"), len(self._script)):
            item = self._script[index]
            if item is CRASH:
                if index not in self._crashed:
                    self._crashed.add(index)
                    raise Crashed
                continue
            yield self._arrival(index, item)

    def _arrival(self, index: int, item: pl.DataFrame | Reject) -> Arrival:
        async def acknowledge() -> None:
            self._acknowledged.append(index)

        after = json.dumps(index + 1).encode()
        if isinstance(item, Reject):
            empty = pl.DataFrame(schema=self.bind(*[None] * 5))  # type: ignore[arg-type]
            return Arrival(empty, after, acknowledge, read=1, rejects=[item])
        return Arrival(item, after, acknowledge, read=item.height)


class FlakySink(Sink):
    """Keeps what it is sent; each send does what the next word of its script says.

    `ok`, `down`, `half` (delivers the first half), `refuse` (the first parcel), `nothing` (an empty
    receipt), `wrong` (an error nobody foresaw). When the words are used up every send is ok.
    """

    roll_default: ClassVar[Roll] = Roll(8 * 2**20, timedelta(0))

    _script: list[str] = PrivateAttr(default_factory=list)
    _kept: dict[str, bytes] = PrivateAttr(default_factory=dict)
    _sent: list[str] = PrivateAttr(default_factory=list)

    @classmethod
    def of(cls, *script: str) -> "FlakySink":
        sink = cls()
        sink._script.extend(script)
        return sink

    @property
    def sent(self) -> list[str]:
        """Key of every parcel ever sent, repeats included."""
        return self._sent

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Every row that arrived, parcel by parcel."""
        return [json.loads(line) for body in self._kept.values() for line in body.splitlines()]

    def encode(self, frame: pl.DataFrame) -> Encoded:
        """One parcel of NDJSON."""
        ids = frame["edge_id"]
        first, last = split_id(ids[0]), split_id(ids[-1])
        body = b"\n".join(rows_as_json(frame))
        key = f"{first.path}/{first.outbox}-{first.sequence}-{last.sequence}"
        return Encoded([Parcel(key, first.sequence, last.sequence, frame.height, body)])

    async def send(self, parcels: Sequence[Parcel]) -> Receipt:
        """As the script says."""
        self._sent.extend(parcel.key for parcel in parcels)
        word = self._script.pop(0) if self._script else "ok"
        if word == "down":
            raise LinkDown("the script says down")
        if word == "wrong":
            raise ZeroDivisionError("the script says wrong")
        if word == "nothing":
            return Receipt()
        taken = list(parcels)
        refused = {}
        if word == "half":
            taken = taken[: len(taken) // 2]
        if word == "refuse":
            refused = {taken.pop(0).id: "the script says refuse"}
        for parcel in taken:
            known = self._kept.setdefault(parcel.key, parcel.body)
            assert known == parcel.body, f"{parcel.key} came again with other bytes"
        problem = "half of it" if word == "half" else None
        return Receipt([parcel.id for parcel in taken], refused, problem=problem)

"""Outbox -> sink: rolls entries into parcels, sends them, backs off while the way is shut."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Sequence
from datetime import timedelta

from edge.clock import Clock
from edge.component import format_duration
from edge.errors import LinkDown, OutboxFull, TooLarge
from edge.observation import Observation, Timeline
from edge.outbox import Outbox
from edge.outbox.model import Entry, NewEntry, Parcel, Priority, Refusal
from edge.outbox.packed import sent_size
from edge.roller import Roller
from edge.sinks import Encoded, Receipt, Roll, Sink

log = logging.getLogger("edge.link")

BACK_OFF_BASE = 1.0  # seconds; doubled by every failure, drawn at random below that (full jitter)
BACK_OFF_CAP = 60.0
_PART_FAILURES = 3  # at most 8 s of pause while a part of what is sent arrives
SEND_BYTES = 32 * 2**20  # what one send may hold in memory
MOST_TOLD = 10  # reasons that one time of being down may put into the log
IDLE = 1.0  # seconds until a link with nothing to do looks again; a commit wakes it earlier

_HANDICAP = {"high": 0.0, "normal": 0.05, "low": 0.1}


class Bandwidth:
    """At most `rate` bytes a second over all links of a pipeline; None: as fast as it goes.

    What was sent is paid for afterwards, so that a parcel larger than a second's worth can go.
    While there is debt, links of lower priority look a moment later and so come after the others.
    """

    def __init__(self, rate: int | None, clock: Clock) -> None:
        self._rate = rate
        self._clock = clock
        self._free_at = clock.steady()

    def wait(self, priority: Priority) -> float:
        """Seconds until something may be sent; 0: now."""
        debt = self._free_at - self._clock.steady()
        return debt + _HANDICAP[priority] if debt > 0 else 0.0

    def spend(self, size: int) -> None:
        """`size` bytes go out now."""
        if self._rate:
            self._free_at = max(self._free_at, self._clock.steady()) + size / self._rate


class Link:
    """Carries the rows of one sink from the outbox to its destination, for as long as it takes."""

    def __init__(
        self,
        name: str,
        sink: Sink,
        outbox: Outbox,
        *,
        path: str,
        roll: Roll,
        order: str = "none",
        priority: Priority = "normal",
        live_share: float = 0.7,
        bandwidth: Bandwidth | None = None,
        clock: Clock | None = None,
        chance: random.Random | None = None,
    ) -> None:
        """path is `<site>/<pipeline>/<sink>`, the part of every row's id before the outbox's."""
        self.name = name
        self.sink = sink
        self.roller = Roller(name, sink, outbox, path, roll.size)
        self.up: bool | None = None
        self.observation: Observation | None = None
        self._draining = False
        self._stopping = False
        self._outbox = outbox
        self._roll = roll
        self._order = order
        self._priority = priority
        self._live_share = live_share
        self._clock = clock or Clock()
        self.timeline = Timeline(self._clock)
        self._bandwidth = bandwidth or Bandwidth(None, self._clock)
        self._chance = chance or random.Random()
        self._failures = 0
        self._told: set[str] = set()  # reasons in the log since the link went down
        self._divisor = 1  # of the size to roll, while the outbox has too little room for it
        self._part = 1  # of an entry alone, the rows to roll, while there is too little room for it
        self._try_at = 0.0
        self._live_credit = 0.0
        self._ahead = 0  # parcels rolled for which nothing was sent yet
        self._work = asyncio.Event()

    def appended(self, rolled: bool = False) -> None:
        """New rows were committed; a link that rolls within a second looks at once.

        rolled: they are parcels already.
        """
        if rolled or self._roll.every < timedelta(seconds=IDLE):
            self._work.set()

    def drain(self) -> None:
        """No more rows will come: roll what there is without waiting for more."""
        self._draining = True
        self._work.set()

    def retry(self) -> None:
        """The way may be open again: try at once, whatever pause was drawn."""
        self._try_at = 0.0
        self._work.set()

    def stop(self) -> None:
        """End `run` after what is under way; the backlog stays."""
        self._stopping = True
        self._work.set()

    async def run(self) -> None:
        """Steps until stopped. An error that nobody foresaw backs off like a link that is down."""
        while not self._stopping:
            self._work.clear()
            try:
                wait = await self.step()
            except Exception as error:
                log.exception("sink %r: unexpected error; its rows are kept", self.name)
                with contextlib.suppress(Exception):  # the outbox itself may be what fails
                    await self._shut(f"unexpected {type(error).__name__}: {error}")
                wait = self._try_at - self._clock.steady()
            if self._stopping:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(wait, 0.0)):
                    await self._work.wait()

    async def step(self) -> float:
        """Roll what is due, send what may go. Returns the seconds until there is more to do."""
        next_roll = await self._roll_due()
        shut = self._try_at - self._clock.steady()
        if shut > 0:
            return min(shut, next_roll)
        if (wait := self._bandwidth.wait(self._priority)) > 0:
            return min(wait, next_roll)
        parcels = await self._take()
        self._ahead = max(0, self._ahead - len(parcels)) if parcels else 0
        if not parcels:
            return min(IDLE, next_roll)
        await self._send(parcels)
        return max(0.0, min(self._try_at - self._clock.steady(), next_roll))

    async def _roll_due(self) -> float:
        """Roll while something is due; seconds until something may be.

        What rolled last is sent before more is: rows that come as fast as they can be rolled must
        not keep a link idle that is up.
        """
        every = timedelta(0) if self._draining else self._roll.every
        while True:
            due: float | None = await self._outbox.call(
                "seconds_until_due", self.name, self._roll.size, every
            )
            if due is None:
                return IDLE
            if due > 0:
                return min(due, IDLE)  # rows that come by then may make a parcel, and wake nobody
            if self._ahead >= self.sink.send_limit and self._may_send():
                return 0.0
            if not await self._roll_once():
                return IDLE

    def _may_send(self) -> bool:
        is_open = self._try_at <= self._clock.steady()
        return is_open and self._bandwidth.wait(self._priority) <= 0

    async def _roll_once(self) -> bool:
        size = self._roll.size // self._divisor
        entries: list[Entry] = await self._outbox.call("take_entries", self.name, size)
        if not entries:
            return False
        try:
            encoded, rest, count = await asyncio.to_thread(self.roller.encode, entries, self._part)
            await self._outbox.call(
                "roll", self.name, entries[:count], encoded.parcels, encoded.refused, rest
            )
        except (OutboxFull, TooLarge, MemoryError) as problem:
            log.debug("sink %r: %d entries cannot be rolled: %r", self.name, len(entries), problem)
            if (
                isinstance(problem, TooLarge)
                and len(entries) == 1
                and self._part >= entries[0].rows
            ):
                await self._refuse(entries, encoded, rest, f"too large: {problem}")
                return True
            return self._roll_less(entries, problem)
        finally:
            self._outbox.release_entries(self.name, [entry.id for entry in entries])
        self._divisor, self._part = max(1, self._divisor // 2), max(1, self._part // 2)
        self._ahead += len(encoded.parcels)
        return True

    async def _refuse(
        self, entries: Sequence[Entry], row: Encoded, rest: NewEntry | None, reason: str
    ) -> None:
        """A row of which no parcel will ever fit; the others of its entry stay."""
        log.error("sink %r: a row is refused: %s", self.name, reason)
        gone = [Refusal(parcel.first, parcel.last, parcel.rows, reason) for parcel in row.parcels]
        await self._outbox.call("roll", self.name, entries, (), [*row.refused, *gone], rest)

    def _roll_less(self, entries: Sequence[Entry], problem: Exception) -> bool:
        """Whether less can be rolled next time: fewer entries, then fewer rows of one."""
        if isinstance(problem, OutboxFull):
            return False  # what is rolled must leave first
        if len(entries) > 1:
            self._divisor *= 2
        elif self._part < entries[0].rows:
            self._part *= 2
        elif isinstance(problem, MemoryError):
            raise problem
        else:
            return False
        return True

    async def _take(self) -> list[Parcel]:
        """What goes next: one parcel as a probe while the way is shut, else what a send takes.

        With `order: none` a share of it is the newest, so that live data does not wait behind a
        backlog, and the rest the oldest.
        """
        count = 1 if self.up is False else self.sink.send_limit
        newest = 0
        if self._order == "none":
            self._live_credit += count * self._live_share
            newest = int(self._live_credit)
            self._live_credit -= newest
        parcels: list[Parcel] = []
        try:
            for amount, new in ((newest, True), (count - newest, False)):
                if amount:
                    size = SEND_BYTES - sum(len(parcel.body) for parcel in parcels)
                    parcels += await self._outbox.call(
                        "take_parcels", self.name, amount, newest=new, size=size
                    )
        except BaseException:
            self._outbox.release(self.name, [parcel.id for parcel in parcels])
            raise
        return sorted(parcels, key=lambda parcel: parcel.id)

    async def _send(self, parcels: list[Parcel]) -> None:
        self._bandwidth.spend(sum(sent_size(each.body, each.attributes) for each in parcels))
        try:
            receipt = await self.sink.send(parcels)
            await self._settle(receipt)
        except LinkDown as error:
            await self._shut(str(error))
            return
        finally:  # what is settled is gone; anything else goes again, also if settling failed
            self._outbox.release(self.name, [parcel.id for parcel in parcels])
        self._note_delivered(parcels, receipt)
        await self._judge(receipt)

    def _note_delivered(self, parcels: Sequence[Parcel], receipt: Receipt) -> None:
        if receipt.delivered or receipt.divided:
            self.timeline.delivered()
        if self.observation is not None:
            there = {*receipt.delivered}
            self.observation.sent(self.name, [each for each in parcels if each.id in there])

    async def _settle(self, receipt: Receipt) -> None:
        if receipt.delivered or receipt.refused:
            await self._outbox.call("settle", self.name, receipt.delivered, receipt.refused)
        if receipt.divided:
            with contextlib.suppress(OutboxFull):  # the parcels stay whole and go again
                await self._outbox.call("divide", self.name, receipt.divided)
        reasons = [why for divided in receipt.divided.values() for _, why in divided.refused]
        for reason in {*receipt.refused.values(), *reasons}:
            log.error("sink %r: refused and set aside: %s", self.name, reason)
        if receipt.rekey:
            await self._outbox.call("rekey", self.name, receipt.rekey)

    async def _judge(self, receipt: Receipt) -> None:
        """Whether the way is open, by what became of the parcels."""
        taken = receipt.delivered or any(each.delivered for each in receipt.divided.values())
        if not (taken or receipt.refused or receipt.divided or receipt.rekey or receipt.problem):
            await self._shut("nothing was taken, and no reason was given")
        elif receipt.problem and not taken:
            await self._shut(receipt.problem)
        elif receipt.problem:
            self._failures = min(self._failures, _PART_FAILURES)  # the rest must not wait long
            self._back_off()
            await self._open()
        else:
            self._failures = 0
            await self._open()

    async def _open(self) -> None:
        if self.up is not True:
            await self._outbox.call("set_link", self.name, True, None)
            log.info("sink %r: link is up", self.name)
            self.up = True
            self._told.clear()
        self.timeline.note("up")

    async def _shut(self, reason: str) -> None:
        delay = self._back_off()
        if reason in self._told or len(self._told) >= MOST_TOLD:
            pause = format_duration(timedelta(milliseconds=round(delay * 1000)))
            log.debug("sink %r: still down, next try in %s: %s", self.name, pause, reason)
        else:
            self._told.add(reason)
            how = "still down" if self.up is False else "down"
            log.warning(
                "sink %r: link is %s, rows are kept and tried again: %s", self.name, how, reason
            )
        self.up = False
        self.timeline.note("down", reason)
        await self._outbox.call("set_link", self.name, False, reason)

    def _back_off(self) -> float:
        """Full jitter: a random time below a bound that doubles with every failure, capped."""
        bound = min(BACK_OFF_CAP, BACK_OFF_BASE * 2.0 ** min(self._failures, 16))
        self._failures += 1
        delay = self._chance.uniform(0.05, bound)
        self._try_at = self._clock.steady() + delay
        self.timeline.failed(delay)
        return delay

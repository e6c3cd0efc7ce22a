"""Messages of an SQS queue: received by long polling, kept hidden meanwhile, deleted when told."""

import asyncio
import contextlib
import logging
import random
import threading
from collections import deque
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from edge.aws.claims import Claims, NoBody, is_pointer
from edge.aws.queue import ENTRIES, ID_ATTRIBUTE, find_url, target_of
from edge.aws.service import AwsService
from edge.aws.verdict import Verdict, classify, classify_code
from edge.clock import Clock
from edge.component import Size
from edge.errors import LinkDown

log = logging.getLogger("edge.sources.sqs")

LONG_POLL = 20
"""Seconds that a call waits for a first message (SQS maximum)."""
PATIENCE = 0.9
LANES = 5
"""Calls side by side to delete or extend."""
LONGEST_BACK_OFF = 30.0
LAST_CALLS = 3.0
"""Seconds that what is under way gets when the source is closed."""


class Reception(NamedTuple):
    """How a queue is read; visibility: in seconds."""

    queue: str
    visibility: int
    receivers: int
    in_flight: int
    largest: Size


@dataclass(eq=False, slots=True)
class Message:
    """One message, from the answer that brought it until it is deleted.

    name: `edge_id` where its producer gives one, otherwise the id that SQS gave it. hidden: until
    when on the steady clock nobody else gets it. fault: why there is no body. handed: it was given
    away; owed: it is to be deleted.
    """

    name: str
    body: bytes
    received: int
    attributes: Mapping[str, str]
    group: str | None
    handle: str
    hidden: float
    fault: str | None = None
    handed: bool = False
    owed: bool = False


class Receiver:
    """Receives in the background. Everything runs in one event loop.

    `start` and `leave` bracket each reading; what is owed to the queue goes on until `close`.
    """

    def __init__(
        self, service: AwsService, claims: Claims | None, reception: Reception, clock: Clock
    ) -> None:
        self._service = service
        self._claims = claims
        self._how = reception
        self._clock = clock
        self._url: str | None = None
        self._held: set[Message] = set()
        self._waiting: deque[Message] = deque()
        self._size = 0  # bytes of what waits
        self._owed: deque[Message] = deque()
        self._most, self._largest = 10_000, 2**23
        self._left = threading.Event()
        self._came, self._room = asyncio.Event(), asyncio.Event()
        self._busy, self._owing, self._idle = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._receiving: list[asyncio.Task[None]] = []
        self._keeping: list[asyncio.Task[None]] = []
        self._answered = False
        self._problems: dict[str, str] = {}
        self.received = self.lapsed = 0

    def start(self, rows: int, size: int) -> None:
        """Begin to receive; at most `rows` messages or `size` bytes wait to be gathered."""
        self._most, self._largest = rows, size
        self._left = threading.Event()
        self._receiving = [
            asyncio.create_task(self._receive(index == 0)) for index in range(self._how.receivers)
        ]
        if not self._keeping:
            self._keeping = [asyncio.create_task(work) for work in (self._extend(), self._delete())]

    async def gather(self, rows: int, wait: float, size: int) -> Sequence[Message]:
        """What comes within `wait` seconds of the first; none if none came for a while."""
        self._raise()
        if not self._waiting:
            self._came.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._came.wait(), PATIENCE)
        if not self._waiting:
            return ()
        ends = self._clock.steady() + wait
        while len(self._waiting) < rows and self._size < size:
            left = ends - self._clock.steady()
            if left <= 0:
                break
            await self._clock.sleep(min(left, 0.01))
        found: list[Message] = []
        taken = 0
        while self._waiting and len(found) < rows and taken < size:
            message = self._waiting.popleft()
            message.handed = True
            taken += len(message.body)
            found.append(message)
        self._size -= taken
        self._room.set()
        return found

    def forget(self, messages: Iterable[Message]) -> None:
        """Delete them from the queue, soon, and for as long as it takes."""
        for message in messages:
            message.owed = True
            self._owed.append(message)
        self._idle.clear()
        self._owing.set()

    async def leave(self, last: Iterable[Message] = ()) -> None:
        """Receive no more; what waits, and `last`, others may have at once."""
        self._left.set()
        await _end(self._receiving)
        self._receiving = []
        free = [message for message in last if not message.owed]
        free += [message for message in self._held if not message.handed]
        self._waiting.clear()
        self._size = 0
        self._held.difference_update(free)
        if not self._problems:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(LAST_CALLS):
                    await self._each(self._set_visibility, free, 0)

    async def close(self) -> None:
        """Delete what is owed if that goes quickly; the rest comes again and is recognised."""
        if self._owed and not self._problems:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), LAST_CALLS)
        await _end(self._keeping)
        self._keeping = []

    def status(self) -> Mapping[str, object]:
        """How the queue answers, and how many messages are on their way. JSON values."""
        return {
            "url": self._url or self._how.queue,
            "connected": self._answered and not self._problems,
            "problem": next(iter(self._problems.values()), None),
            "received": self.received,
            "in_flight": len(self._held),
            "lapsed": self.lapsed,
        }

    async def _receive(self, first: bool) -> None:
        """One of several loops; all but the first rest while the queue has little."""
        failures = 0
        while True:
            if not first:
                await self._busy.wait()
            await self._until_room()
            try:
                messages = await self._service.call(partial(self._poll, self._left))
            except Exception as error:
                self._busy.clear()
                self._note("receive", classify(error, target_of(self._how.queue)).problem)
                self._url = None
                if first:
                    await self._pause(failures)
                    failures += 1
                continue
            failures = 0
            self._answered = True
            self._note("receive", None)
            (self._busy.set if len(messages) == ENTRIES else self._busy.clear)()
            self._held.update(messages)
            self.received += len(messages)
            await self._fetch_all(messages)
            self._waiting.extend(messages)
            self._size += sum(len(message.body) for message in messages)
            if messages:
                self._came.set()

    async def _until_room(self) -> None:
        while (
            len(self._waiting) >= self._most
            or self._size >= self._largest
            or len(self._held) >= self._how.in_flight
        ):
            self._room.clear()
            await self._room.wait()

    def _poll(self, left: threading.Event, client: Any) -> list[Message]:
        url = self._place(client)
        asked = self._clock.steady()
        answer = client.receive_message(
            QueueUrl=url,
            MaxNumberOfMessages=ENTRIES,
            # The first answer tells whether all is well, so it is not waited for.
            WaitTimeSeconds=LONG_POLL if self._answered else 0,
            VisibilityTimeout=self._how.visibility,
            MessageAttributeNames=["All"],
            MessageSystemAttributeNames=["MessageGroupId"],
        )
        now = self._clock.now()
        found = [
            _message(each, now, asked + self._how.visibility) for each in answer.get("Messages", ())
        ]
        if left.is_set() and found:  # nobody waits for them any more
            self._set_visibility(found, 0, client)
            return []
        return found

    def _place(self, client: Any) -> str:
        if self._url is None:
            self._url = find_url(self._how.queue, client)
        return self._url

    async def _fetch_all(self, messages: Sequence[Message]) -> None:
        """Bodies that went by the bucket, for as long as it takes.

        The messages that came with one wait for it: in a FIFO queue they may come after it. It is
        not left to come again, for the queue would soon take it for a dead letter.
        """
        large = [message for message in messages if is_pointer(message.attributes)]
        await asyncio.gather(*map(self._fetch, large))

    async def _fetch(self, message: Message) -> None:
        failures = 0
        while message.fault is None:
            try:
                if self._claims is None:
                    raise NoBody("its body is in a bucket; name it as `claim`")
                message.body = await self._claims.fetch(message.body, self._how.largest)
                break
            except NoBody as reason:
                message.fault = str(reason)
            except Exception as error:
                assert self._claims is not None
                self._note("claim", self._claims.problem(error))
                await self._pause(failures)
                failures += 1
        self._note("claim", None)

    async def _extend(self) -> None:
        """Keep what is under way hidden from others."""
        while True:
            await self._clock.sleep(self._how.visibility / 4)
            soon = self._clock.steady() + self._how.visibility / 2
            due = [message for message in self._held if message.hidden < soon]
            await self._try("extend", self._each(self._set_visibility, due, self._how.visibility))

    def _set_visibility(self, messages: Sequence[Message], seconds: int, client: Any) -> None:
        """One call; a message whose handle holds no more is left to come again."""
        entries = [
            {"Id": str(at), "ReceiptHandle": each.handle, "VisibilityTimeout": seconds}
            for at, each in enumerate(messages)
        ]
        until = self._clock.steady() + seconds
        answer = client.change_message_visibility_batch(
            QueueUrl=self._place(client), Entries=entries
        )
        for entry in answer.get("Successful", ()):
            messages[int(entry["Id"])].hidden = until
        for entry in answer.get("Failed", ()):
            if self._judge(entry).fate == "never":
                messages[int(entry["Id"])].hidden = float("inf")
                self.lapsed += 1

    async def _delete(self) -> None:
        failures = 0
        while True:
            await self._owing.wait()
            self._owing.clear()
            while self._owed:
                batch = [self._owed.popleft() for _ in range(min(len(self._owed), ENTRIES * LANES))]
                well = await self._try("delete", self._each(self._delete_some, batch))
                left = [message for message in batch if message in self._held]
                self._owed.extendleft(reversed(left))
                self._room.set()
                failures = 0 if well and not left else failures + 1
                if failures:
                    await self._pause(failures)
            self._idle.set()

    def _delete_some(self, messages: Sequence[Message], client: Any) -> None:
        """One call; what SQS lays on the handle is done: the message comes again."""
        entries = [
            {"Id": str(at), "ReceiptHandle": each.handle} for at, each in enumerate(messages)
        ]
        answer = client.delete_message_batch(QueueUrl=self._place(client), Entries=entries)
        done = [entry["Id"] for entry in answer.get("Successful", ())]
        failures = {entry["Id"]: self._judge(entry) for entry in answer.get("Failed", ())}
        done += [at for at, verdict in failures.items() if verdict.fate == "never"]
        self._held.difference_update([messages[int(at)] for at in done])
        for verdict in failures.values():
            if verdict.fate != "never":
                raise LinkDown(verdict.problem)

    def _judge(self, entry: Mapping[str, Any]) -> Verdict:
        """Why one message of a call failed; `never`: its handle holds no more."""
        return classify_code(
            entry["Code"],
            entry.get("Message", ""),
            target_of(self._how.queue),
            operation="DeleteMessageBatch",
            unknown="parcel",
        )

    async def _each(self, function: Any, messages: Sequence[Message], *args: object) -> None:
        """`function` on ten at a time, several calls side by side; raises the first failure."""
        for start in range(0, len(messages), ENTRIES * LANES):
            some = messages[start : start + ENTRIES * LANES]
            calls = [
                self._service.call(partial(function, some[at : at + ENTRIES], *args))
                for at in range(0, len(some), ENTRIES)
            ]
            for result in await asyncio.gather(*calls, return_exceptions=True):
                if isinstance(result, BaseException):
                    raise result

    async def _try(self, what: str, work: Coroutine[Any, Any, None]) -> bool:
        try:
            await work
        except LinkDown as error:
            self._note(what, str(error))
            return False
        except Exception as error:
            self._note(what, classify(error, target_of(self._how.queue)).problem)
            return False
        self._note(what, None)
        return True

    def _note(self, what: str, problem: str | None) -> None:
        """Each problem is told once, and its end."""
        before = self._problems.pop(what, None)
        if problem is not None:
            self._problems[what] = problem
            if problem != before:
                log.warning("source: %s; it is tried again", problem)
        elif before is not None:
            log.info("source: %s is read again", target_of(self._how.queue).name)

    async def _pause(self, failures: int) -> None:
        longest = min(LONGEST_BACK_OFF, 2.0 ** min(failures, 10))
        await self._clock.sleep(random.uniform(0.05, longest))

    def _raise(self) -> None:
        """A fault of ours in the background is one of who gathers."""
        for task in (*self._receiving, *self._keeping):
            if task.done() and not task.cancelled() and (error := task.exception()):
                for keeping in self._keeping:
                    keeping.cancel()
                self._keeping = []
                raise error


def _message(answer: Mapping[str, Any], now: int, hidden: float) -> Message:
    attributes = {
        name: str(value["StringValue"])
        for name, value in answer.get("MessageAttributes", {}).items()
        if "StringValue" in value
    }
    return Message(
        attributes.get(ID_ATTRIBUTE) or str(answer["MessageId"]),
        answer["Body"].encode(),
        now,
        attributes,
        answer.get("Attributes", {}).get("MessageGroupId"),
        answer["ReceiptHandle"],
        hidden,
    )


async def _end(tasks: Sequence["asyncio.Task[None]"]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

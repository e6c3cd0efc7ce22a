"""One running pipeline as JSON values: what `/state` says of it."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from edge import health
from edge.clock import Clock
from edge.dashboard.definition import shown
from edge.dashboard.diagram import Diagram
from edge.dashboard.history import Filling, Pace
from edge.observation import quantile
from edge.outbox import inspection
from edge.outbox.ledger import equation, sink_part
from edge.runner import Runner
from edge.secrets import Secrets

PATIENCE = 2.0  # seconds that a look at the outbox may take; then what was seen last is shown

Json = dict[str, Any]


class Picture:
    """Looks at a runner from beside it: never waits for it, and holds it up by a millisecond."""

    def __init__(self, runner: Runner, clock: Clock, secrets: Secrets) -> None:
        self.runner = runner
        self.observation = runner.observe()
        self.pace = Pace(clock, self.observation)
        self.seen: Json | None = None
        self.seen_at: float | None = None
        self._clock = clock
        self._filling = Filling()
        self._diagram = Diagram(runner.pipeline)
        self._definition = shown(runner.pipeline, secrets)
        self._looking: asyncio.Task[Json] | None = None
        self._connected: object = None  # the source, and since when
        self._since: float | None = None

    async def sample(self) -> None:
        """Once a second: what rates and the course of the outbox are made of."""
        self.pace.look()
        self._told_source()
        if self._filling.due(self._clock.now() / 1e6):
            await self.look()

    async def look(self) -> None:
        """See how the outbox stands. A disk that hangs keeps nobody waiting."""
        if not self.runner.running:
            return
        if self._looking is None:
            look = self.runner.outbox.call("look", inspection.overview)
            self._looking = asyncio.create_task(look)
        looking = self._looking
        done, _ = await asyncio.wait({looking}, timeout=PATIENCE)
        if not done or self._looking is not looking:  # who else waited for it has seen it
            return
        self._looking = None
        if looking.cancelled() or looking.exception() is not None:
            return
        self.seen = looking.result()
        self.seen_at = now = self._clock.now() / 1e6
        if self._filling.due(now):
            sinks = self.seen["status"]["sinks"].values()
            waiting = sum(sink["buffered_rows"] for sink in sinks)
            self._filling.add(now, self.seen["status"]["outbox"]["bytes"], waiting)

    # -- whether it is well

    def healthy(self) -> bool:
        """Whether it makes progress here, as the health check has it; the link does not count."""
        return self.runner.running and self.runner.silence() < health.STALE

    def ready(self) -> bool:
        """Whether rows can come in."""
        can_come = self.source().get("connected", True) and not self.runner.processing.waits_for
        return self.healthy() and bool(can_come)

    def source(self) -> Mapping[str, Any]:
        """What the source says of itself."""
        return self.runner.pipeline.source.status()

    # -- as JSON

    def values(self) -> Json:
        """All but the newest rows and the definition, which do not change every second."""
        pipeline = self.runner.pipeline
        status: Json = self.seen["status"] if self.seen else _UNSEEN
        links = {name: self._link(name, status) for name in self.runner.links}
        losses = [_loss(each) for each in (self.seen["losses"] if self.seen else ())]
        return {
            "pipeline": pipeline.name,
            "site": pipeline.site,
            "replica": pipeline.replica,
            "running": self.runner.running,
            "healthy": self.healthy(),
            "ready": self.ready(),
            "seen": self.seen_at,
            "waits_for": self.runner.processing.waits_for,
            "silence": round(self.runner.silence(), 1),
            "source": self._told_source(),
            "flow": self._diagram.drawn(
                status["ledger"], self.pace.rates(), self._problems(links, status)
            ),
            "latency": self._latency(),
            "outbox": {
                **status["outbox"],
                "full": self.runner.waits_for_room,
                "when_full": pipeline.outbox.when_full,
                "history": self._filling.points,
            },
            "links": links,
            "sinks": {
                name: {**sink, "refused": _of(losses, sink_part(name), "refused")}
                for name, sink in status["sinks"].items()
            },
            "ledger": [_balance(part, status["ledger"][part]) for part in self._parts(status)],
            "losses": losses,
            "rejects": [_seconds(each, "last") for each in self.seen["rejects"]]
            if self.seen
            else [],
        }

    @property
    def definition(self) -> str | None:
        """Its text, with secrets masked."""
        return self._definition

    def _told_source(self) -> Json:
        """What the source says of itself, with since when it is connected or not."""
        said = dict(self.source())
        if "connected" not in said:
            return said
        if said["connected"] != self._connected:
            self._connected, self._since = said["connected"], self._clock.now() / 1e6
        return said | {"since": self._since}

    def _parts(self, status: Json) -> list[str]:
        """The parts of the ledger in the order in which rows pass them; then those gone since."""
        ledger = status["ledger"]
        known = [stage.id for stage in self._diagram.stages if stage.id in ledger]
        return known + sorted(set(ledger) - {*known, "pipeline"})

    def _link(self, name: str, status: Json) -> Json:
        timeline = self.runner.links[name].timeline
        noted = status["sinks"].get(name, {})
        up, since = self.runner.links[name].up, noted.get("link_since")
        state = {True: "up", False: "down", None: noted.get("link")}[up]
        return {
            "state": state or "not tried",
            "since": since and since / 1e6,
            "why": None if state == "up" else noted.get("link_reason"),
            "next_try": timeline.next_try and timeline.next_try / 1e6,
            "retries": timeline.retries,
            "last_delivery": timeline.last_delivery and timeline.last_delivery / 1e6,
            "timeline": [
                {"at": change.at / 1e6, "state": change.state, "why": change.why}
                for change in timeline.changes
            ],
        }

    def _problems(self, links: Mapping[str, Json], status: Json) -> dict[str, str | None]:
        source = self.source()
        found: dict[str, str | None] = {"source": source.get("problem")}
        if source.get("connected") is False and not found["source"]:
            found["source"] = "not connected"
        for name, link in links.items():
            if link["state"] == "down":
                found[sink_part(name)] = link["why"] or "link is down"
            elif status["sinks"].get(name, {}).get("quarantined_rows"):
                found[sink_part(name)] = "rows were refused"
        return found

    def _latency(self) -> Json:
        counts = self.pace.latencies()
        sinks = {name: _shares(counts[sink_part(name)]) for name in self.runner.links}
        every = [sum(each) for each in zip(*(counts[sink_part(n)] for n in sinks), strict=True)]
        return {
            "durable": _shares(counts["durable"]),
            "delivered": {**_shares(every), "sinks": sinks},
        }


_UNSEEN: Json = {
    "ledger": {},
    "sinks": {},
    "outbox": {"bytes": None, "max_bytes": None, "hours_until_full": None, "disk_problem": None},
}


def _shares(counts: Sequence[int]) -> Json:
    p50, p99 = quantile(counts, 0.5), quantile(counts, 0.99)
    return {"p50": p50, "p99": p99, "count": sum(counts)}


def _balance(part: str, terms: Mapping[str, int]) -> Json:
    left, right = equation(part, terms)
    balanced = sum(left.values()) == sum(right.values())
    return {"part": part, "left": left, "right": right, "balanced": balanced}


def _loss(loss: Mapping[str, Any]) -> Json:
    return _seconds(loss, "first_time", "last_time")


def _seconds(row: Mapping[str, Any], *names: str) -> Json:
    """Microseconds as seconds."""
    return {n: v / 1e6 if n in names and isinstance(v, int) else v for n, v in row.items()}


def _of(losses: Sequence[Json], part: str, kind: str) -> list[Json]:
    return [
        {"reason": each["reason"], "rows": each["rows"], "last": each["last_time"]}
        for each in losses
        if (each["part"], each["kind"]) == (part, kind)
    ]

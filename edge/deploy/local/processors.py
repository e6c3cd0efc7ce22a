"""The containers of a site: what would change, the change itself, and how they stand.

A container keeps what it was made of in a label, so that it is compared with what is wanted and
not with what an engine made of that. In an update the old container is kept, stopped, until the
new one is seen at work.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from edge.deploy.content import UID
from edge.deploy.difference import lines
from edge.deploy.engine import Engine, told
from edge.deploy.local.container import PAGE, Given, Settings, creation, outbox_of, settings
from edge.deploy.workload import STATE, Workload

SITE, REPLICA, MADE_OF = "edge.site", "edge.replica", "edge.made-of"
CRASHES = 3
"""Starts of a new container that may fail before the one before it is started again."""
FORMER, NEXT = "-former", "-next"
_EVERY = 0.2  # seconds between two looks

State = Literal["running", "starting", "crashes", "rolled back", "stopped", "not made"]


class Change(NamedTuple):
    """What is to be done to one container; lines: settings that go (`- `) and come (`+ `)."""

    name: str
    action: Literal["create", "update", "start", "remove"]
    lines: Sequence[str] = ()


class Standing(NamedTuple):
    """How the processor of one replica stands."""

    replica: str
    state: State
    words: str = ""


class Processors:
    """All containers of one site, on one engine."""

    def __init__(
        self,
        engine: Engine,
        workload: Workload,
        given: Given,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = engine.client
        self._engine = engine
        self._workload = workload
        self._site = workload.site
        self._given = given
        self._sleep = sleep

    def changes(self) -> list[Change]:
        """What `apply` would do; reads only."""
        image = self._image()
        found = [Change(each.name, "remove") for each in self._unnamed()]
        for replica in self._workload.pipelines:
            change = self._change(replica, self._wanted(replica, image))
            found += [change] if change else []
        return found

    def apply(self, seconds: float, tell: Callable[[Change], None]) -> list[Standing]:
        """Make the engine have what the site file says; seconds: how long each may take to start.

        Cut off anywhere, it goes on where it stopped when it is run again.
        """
        image = self._image() or self._pull()
        for container in self._unnamed():
            tell(Change(container.name, "remove"))
            self._remove(container)
        standings = []
        for replica in self._workload.pipelines:
            self._resume(replica)
            wanted = self._wanted(replica, image)
            change = self._change(replica, wanted)
            if change:
                tell(change)
            standings.append(self._bring(replica, wanted, change, seconds))
        return standings

    def status(self) -> list[dict[str, Any]]:
        """One mapping per replica: what the engine says, and what the processor says itself."""
        found = []
        for replica in self._workload.pipelines:
            container = self._find(self._site.service(replica))
            state = container.attrs["State"] if container else {}
            running = bool(state.get("Running")) and not state.get("Restarting")
            found.append(
                {
                    "replica": replica,
                    "container": container.name if container else None,
                    "state": state.get("Status", "not made"),
                    "health": (state.get("Health") or {}).get("Status"),
                    "since": state.get("StartedAt" if running else "FinishedAt"),
                    "restarts": container.attrs["RestartCount"] if container else 0,
                    "exit_code": None if running else state.get("ExitCode"),
                    "page": _page(container) if running else None,
                    "pipelines": _own_status(container) if running else None,
                }
            )
        return found

    def logs(self, replica: str | None, since: float, follow: bool) -> Iterator[str]:
        """Lines of the log from `since` (seconds of 1970) on, each behind its replica."""
        names = [replica] if replica else list(self._workload.pipelines)
        found = [(name, self._find(self._site.service(name))) for name in names]
        there = [(name, container) for name, container in found if container is not None]
        return merged(
            {
                name: container.logs(stream=True, follow=follow, since=int(since))
                for name, container in there
            }
        )

    def destroy(self, data: bool, tell: Callable[[str], None]) -> None:
        """Stop and remove the containers; with `data` the volumes of their outboxes too."""
        for container in self._containers():
            tell(f"removes container {container.name}")
            self._remove(container)
        if not data:
            return
        from docker.errors import NotFound

        for replica in self._workload.pipelines:
            name = outbox_of(self._site, replica)
            if name.startswith("/"):
                tell(f"folder {name} stays; remove it if what is in it is not wanted")
                continue
            with told(f"volume {name}"):
                try:
                    self._client.volumes.get(name).remove()
                except NotFound:
                    continue
            tell(f"removes volume {name}")

    # -- one container

    def _wanted(self, replica: str, image: str | None) -> Settings:
        return settings(self._workload, replica, self._given, image or "not here yet")

    def _change(self, replica: str, wanted: Settings) -> Change | None:
        name = self._site.service(replica)
        container = self._find(name) or self._find(name + FORMER)
        if container is None:
            return Change(name, "create", list(lines({}, wanted)))
        found = _made_of(container)
        if found != wanted:
            changed = [key for key in {**found, **wanted} if found.get(key) != wanted.get(key)]
            before, after = ({k: of[k] for k in changed if k in of} for of in (found, wanted))
            return Change(name, "update", list(lines(before, after)))
        if not self._given.known_to(container.attrs["Config"]["Env"]):
            return Change(name, "update", ["~ secrets: other values"])
        return None if container.status == "running" else Change(name, "start")

    def _resume(self, replica: str) -> None:
        """After an `apply` that was cut off: what is half made goes, what ran before is back."""
        name = self._site.service(replica)
        if half := self._find(name + NEXT):
            self._remove(half)
        if self._find(name) is None and (former := self._find(name + FORMER)):
            former.rename(name)

    def _bring(
        self, replica: str, wanted: Settings, change: Change | None, seconds: float
    ) -> Standing:
        name = self._site.service(replica)
        old = self._find(name)
        if change is not None and change.action == "start" and old is not None:
            old.start()
        elif change is not None:
            self._replace(replica, old, wanted)
        standing = self._watch(replica, seconds)
        former = self._find(name + FORMER)
        if former is None:
            return standing
        if standing.state in ("running", "starting"):
            self._remove(former)
            return standing
        self._remove(self._client.containers.get(name))
        former.rename(name)
        former.start()
        return standing._replace(state="rolled back")

    def _replace(self, replica: str, old: Any, wanted: Settings) -> None:
        """The new container is made while the old one runs, and started when that has left."""
        name = self._site.service(replica)
        with told(f"container {name}"):
            self._own_folder(wanted)
            new = self._create(name + NEXT, replica, wanted)
            if old is not None:
                # One of an update that was never seen at work makes way for good.
                if self._find(name + FORMER):
                    self._remove(old)
                else:
                    old.stop(timeout=_made_of(old).get("stop_timeout", 10))
                    old.rename(name + FORMER)
            new.rename(name)
            try:
                new.start()
            except Exception:  # a network or a GPU that is not there: what ran goes on
                new.remove(force=True)
                if former := self._find(name + FORMER):
                    former.rename(name)
                    former.start()
                raise

    def _create(self, name: str, replica: str, wanted: Settings) -> Any:
        labels = {
            SITE: self._site.site,
            REPLICA: replica,
            MADE_OF: json.dumps(wanted, sort_keys=True),
        }
        api = self._client.api
        asked = creation(api, wanted, self._given)
        made = api.create_container(name=name, labels=labels, detach=True, **asked)
        for network in wanted.get("networks", [])[1:]:
            api.connect_container_to_network(made["Id"], network)
        return self._client.containers.get(made["Id"])

    def _own_folder(self, wanted: Settings) -> None:
        """A folder that the engine would make belongs to root; a volume has the image's owner."""
        place = next(iter(wanted["folders"]))
        if place.startswith("/"):
            program = f"import os; os.chown({str(STATE)!r}, {UID}, {UID})"
            self._client.containers.run(
                wanted["image"],
                entrypoint=["python3", "-I", "-c", program],
                volumes={place: wanted["folders"][place]},
                user="0",
                network_mode="none",
                remove=True,
            )

    def _watch(self, replica: str, seconds: float) -> Standing:
        """Until its processor makes progress, or it ended too often."""
        end = time.monotonic() + seconds
        container = self._client.containers.get(self._site.service(replica))
        before = container.attrs["RestartCount"]
        while True:
            container.reload()
            state = container.attrs["State"]
            if container.attrs["RestartCount"] - before >= CRASHES or state["Status"] == "exited":
                said = container.logs(tail=1).decode(errors="replace").strip()
                return Standing(replica, "crashes", f"exit code {state['ExitCode']}; {said}")
            if state["Status"] == "running" and _makes_progress(container):
                return Standing(replica, "running")
            if time.monotonic() >= end:
                return Standing(replica, "starting")
            self._sleep(_EVERY)

    def _remove(self, container: Any) -> None:
        with told(f"container {container.name}"):
            container.stop(timeout=_made_of(container).get("stop_timeout", 10))
            container.remove()

    # -- what is there

    def _find(self, name: str) -> Any:
        from docker.errors import NotFound

        with told(f"container {name}"):
            try:
                found = self._client.containers.get(name)
            except NotFound:
                return None
        return found if found.labels.get(SITE) == self._site.site else None

    def _containers(self) -> list[Any]:
        with told("containers"):
            ours = {"label": f"{SITE}={self._site.site}"}
            found = self._client.containers.list(all=True, filters=ours)
        return [each for each in found if MADE_OF in each.labels]

    def _unnamed(self) -> list[Any]:
        """Of hosts that the site file names no more."""
        return [
            each
            for each in self._containers()
            if each.labels[REPLICA] not in self._workload.pipelines
        ]

    def _image(self) -> str | None:
        from docker.errors import ImageNotFound

        with told(f"image {self._site.image}"):
            try:
                return str(self._client.images.get(self._site.image).id)
            except ImageNotFound:
                return None

    def _pull(self) -> str:
        platform = self._site.architecture and f"linux/{self._site.architecture}"
        return self._engine.pull(self._site.image, platform)


def merged(streams: Mapping[str, Any]) -> Iterator[str]:
    """Lines of several streams of bytes as they come, each behind the name of its stream."""
    import queue
    import threading

    came: queue.Queue[str | None] = queue.Queue(1_000)

    def read(name: str, stream: Any) -> None:
        rest = b""
        for piece in stream:
            *whole, rest = (rest + piece).split(b"\n")
            for line in whole:
                came.put(f"{name} {line.decode(errors='replace')}")
        if rest:
            came.put(f"{name} {rest.decode(errors='replace')}")
        came.put(None)

    for name, stream in streams.items():
        threading.Thread(target=read, args=(name, stream), daemon=True).start()
    left = len(streams)
    while left:
        line = came.get()
        if line is None:
            left -= 1
        else:
            yield line


def _made_of(container: Any) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(container.labels.get(MADE_OF, "{}"))
    return found


def _makes_progress(container: Any) -> bool:
    """Asks the image's own health check; an image without one is well while it runs."""
    from docker.errors import APIError

    test = (container.image.attrs["Config"].get("Healthcheck") or {}).get("Test") or []
    if test[:1] != ["CMD"]:
        return True
    try:
        code, _ = container.exec_run(test[1:])
    except APIError:  # it has just ended
        return False
    return bool(code == 0)


def _page(container: Any) -> str | None:
    """The address of its page on this machine; None where none is published."""
    ports = container.attrs["NetworkSettings"]["Ports"].get(f"{PAGE}/tcp") or []
    return f"http://127.0.0.1:{ports[0]['HostPort']}/" if ports else None


def _own_status(container: Any) -> Any:
    """What `edge status --json` says inside; None where it says nothing."""
    from docker.errors import APIError

    try:
        code, (said, _) = container.exec_run(
            ["python3", "-m", "edge", "status", "--json"], demux=True
        )
    except APIError:
        return None
    return json.loads(said) if code == 0 and said else None

"""Who looks at a processor over HTTP: again and again, as Prometheus and a browser do."""

import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from edge.demo.children import free_port

OFF, ON, SCRAPED, VIEWED = "HTTP off", "HTTP on", "scraped", "watched"
LOOKS = {OFF: None, ON: None, SCRAPED: "metrics", VIEWED: "events"}
"""What is asked for, by how one is looked at; None: nothing."""

_EVENT = b"\nevent: state\n"
_EVERY = 1.0  # seconds from one answer to the next question
_PATIENCE = 2.0  # seconds for an answer


class Heard:
    """What came back to who looks: bytes, and in how many answers or events."""

    def __init__(self) -> None:
        self.bytes = self.answers = 0

    def add(self, piece: bytes) -> None:
        """A piece of an answer."""
        self.bytes += len(piece)
        self.answers += piece.count(_EVENT)


class Look(NamedTuple):
    """arguments: of `edge run`, so that it can be looked at; heard: what was seen so far."""

    arguments: list[str]
    heard: Heard


@contextmanager
def looking(name: str) -> Iterator[Look]:
    """Somebody looks as `name` says, once a second."""
    address, path, heard = f"127.0.0.1:{free_port()}", LOOKS[name], Heard()
    done = threading.Event()
    url = f"http://{address}/{path}"
    thread = threading.Thread(target=_look, args=(url, done, heard))
    if path:
        thread.start()
    try:
        yield Look([] if name == OFF else ["--http", address], heard)
    finally:
        done.set()
        if path:
            thread.join()


def _look(url: str, done: threading.Event, heard: Heard) -> None:
    """Until `done`; a stream is read as it comes, until the server ends it."""
    while not done.wait(_EVERY):
        try:
            with urllib.request.urlopen(url, timeout=_PATIENCE) as answer:
                while (piece := answer.read1(2**16)) and not done.is_set():
                    heard.add(piece)
            heard.answers += not url.endswith("events")
        except OSError:
            continue

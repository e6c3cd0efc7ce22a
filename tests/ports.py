"""Ports of 127.0.0.1 for servers that end and start again."""

import itertools
import os
import random
import socket
from collections.abc import Iterator

# Below those that the kernel gives to outgoing connections, from 32768 on: one of them may be in
# anybody's hands when a server that was away for a second wants its port back.
_PORTS = range(20_000, 32_000)


def free_port() -> int:
    """A port that nobody listens on now, and that nobody else is given."""
    while True:
        port = next(_own)
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def _own_ports() -> Iterator[int]:
    """Those of this process; each process of one test run has others."""
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    own = _PORTS[number :: int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))]
    start = random.SystemRandom().randrange(len(own))
    return itertools.cycle([*own[start:], *own[:start]])


_own = _own_ports()

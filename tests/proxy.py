"""A TCP proxy on this machine that is as unreliable as a test tells it to be."""

import contextlib
import socket
import struct
import threading
from typing import Literal, Self

from tests.ports import free_port

Mode = Literal["up", "refuse", "black_hole", "reset", "lose_answer", "slow"]

_PIECE = 64 * 1024
_STEP = 0.02  # seconds between two pieces of a slow connection


class Proxy:
    """Forwards connections to `target` (host, port) in one of these modes, changed at any time.

    up: bytes pass. refuse: connections are refused, open ones are reset.
    black_hole: connections are taken and nothing passes until the mode changes.
    reset: a connection is reset once `after` bytes of it were passed on to the target.
    lose_answer: what is sent arrives, and the connection is reset when the target answers.
    slow: `rate` bytes a second pass in each direction.

    Use as a context manager. `taken` counts the connections so far.
    """

    def __init__(
        self,
        target: tuple[str, int],
        *,
        thin: bool = False,
        host: str = "127.0.0.1",
        only: str = "",
    ) -> None:
        """thin: with the small buffers of a slow line, so that a sender feels it at once.

        host: the address of this machine on which it listens; only: how the addresses begin from
        which it takes connections.
        """
        self._only = only
        self._target = target
        self._host = host
        self._thin = thin
        self._change = threading.Condition()
        self._mode: Mode = "up"
        self._after = 0
        self._rate = 0
        self._open: set[socket.socket] = set()
        self._closed = False
        self.taken = 0
        self.port = free_port()
        self._listener: socket.socket | None = self._listen()
        self.url = f"http://{host}:{self.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def set(self, mode: Mode, *, after: int = 0, rate: int = 0) -> None:
        """Switch to `mode`, for open connections too."""
        with self._change:
            self._mode, self._after, self._rate = mode, after, rate
            self._change.notify_all()
        if mode == "refuse":
            self._stop_listening()
            self.cut()
        elif self._listener is None:
            self._listener = self._listen()

    def lead_to(self, target: tuple[str, int]) -> None:
        """Connect to another target from now on."""
        self._target = target
        self.cut()

    def cut(self) -> None:
        """Reset all open connections."""
        for connection in list(self._open):
            _reset(connection)

    def close(self) -> None:
        """Stop for good."""
        with self._change:
            self._closed = True
            self._change.notify_all()
        self._stop_listening()
        self.cut()

    def _listen(self) -> socket.socket:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self._thin:
            # With the segments and buffers of loopback the kernel swallows a megabyte at once.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1400)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        listener.bind((self._host, self.port))
        listener.listen(64)
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        return listener

    def _stop_listening(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes the thread in accept
            listener.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, (host, _) = listener.accept()
            except OSError:
                return
            if not host.startswith(self._only):
                near.close()
                continue
            self.taken += 1
            threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        try:
            far = socket.create_connection(self._target)
        except OSError:
            _reset(near)
            return
        self._open |= {near, far}
        back = threading.Thread(target=self._pump, args=(far, near, False), daemon=True)
        back.start()
        self._pump(near, far, True)
        back.join()
        self._open -= {near, far}
        near.close()
        far.close()

    def _pump(self, source: socket.socket, sink: socket.socket, outward: bool) -> None:
        passed = 0
        try:
            while data := source.recv(self._piece()):
                self._wait()
                if self._mode == "reset" and outward and passed + len(data) > self._after:
                    sink.sendall(data[: max(0, self._after - passed)])
                    _reset(source)
                    _reset(sink)
                    return
                if self._mode == "lose_answer" and not outward:
                    _reset(sink)
                    _reset(source)
                    return
                sink.sendall(data)
                passed += len(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            _reset(sink)

    def _piece(self) -> int:
        return max(1, int(self._rate * _STEP)) if self._mode == "slow" else _PIECE

    def _wait(self) -> None:
        with self._change:
            if self._mode == "slow":
                self._change.wait(_STEP)
            self._change.wait_for(lambda: self._mode != "black_hole" or self._closed)


def _reset(connection: socket.socket) -> None:
    """Close so that the other side sees `connection reset`."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RD)
    connection.close()

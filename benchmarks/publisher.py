"""A publisher that costs next to nothing: packets made beforehand, written in large pieces."""

import random
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

from benchmarks.broker import Broker
from benchmarks.processes import Failed
from benchmarks.readings import DEVICES, passes, payload, payloads, spoil, topic

_UNACKNOWLEDGED = 20_000  # well below the 65,535 packet ids
_PIECE = 64 * 1024


class Packets(NamedTuple):
    """`messages` PUBLISH packets of `size` bytes each, one after the other in `data`.

    results: how many of them come out of decoding and filtering.
    """

    data: bytes
    messages: int
    size: int
    qos: int
    results: int


def publish(number: int, body: bytes, qos: int, devices: int = DEVICES) -> bytes:
    """MQTT 3.1.1 PUBLISH of message `number` to the topic of its device (section 3.3)."""
    name = topic(number % devices)
    identifier = (number % 65_535 + 1).to_bytes(2, "big") if qos else b""
    rest = len(name).to_bytes(2, "big") + name + identifier + body
    return bytes([0x30 | qos << 1]) + _length(len(rest)) + rest


@lru_cache(maxsize=3)
def packets(count: int, qos: int, bad_every: int = 0, first: int = 0) -> Packets:
    """`count` readings, from number `first` on; one in `bad_every` is none (0: all are)."""
    numbers = range(first, first + count)
    bad = set(numbers[1::bad_every]) if bad_every else set()
    bodies = islice(payloads(first + count), first, None)
    made = [
        publish(n, spoil(n, body) if n in bad else body, qos)
        for n, body in zip(numbers, bodies, strict=True)
    ]
    results = sum(passes(n) and n not in bad for n in numbers)
    return Packets(b"".join(made), count, len(made[0]), qos, results)


@contextmanager
def flooding(broker: Broker, stream: Packets) -> Iterator[None]:
    """Publish `stream` as fast as the broker takes it while the block runs."""
    with _publishing(lambda link, stop: _flood(link, stream, stop), broker):
        yield


def flood(broker: Broker, stream: Packets) -> None:
    """Publish all of `stream` as fast as the broker takes it."""
    with broker.connect() as link:
        _hello(link)
        _flood(link, stream, threading.Event())


@contextmanager
def steady(
    broker: Broker, rate: int, qos: int, sent: list[float], devices: int = DEVICES
) -> Iterator[None]:
    """Publish `rate` readings a second of `devices` in turn, evenly spread, until the block ends.

    Appends to `sent` when (steady seconds) each message was handed to the kernel.
    """

    def work(link: socket.socket, stop: threading.Event) -> None:
        _trickle(link, rate, qos, sent, devices, stop)

    with _publishing(work, broker):
        yield


@contextmanager
def _publishing(
    work: Callable[[socket.socket, threading.Event], None], broker: Broker
) -> Iterator[None]:
    """Run `work` on a thread with a connected client; what it raises comes out at the end."""
    problems: list[Exception] = []
    stop = threading.Event()

    def guarded(link: socket.socket) -> None:
        try:
            work(link, stop)
        except OSError as error:
            problems.append(error)

    with broker.connect() as link:
        _hello(link)
        thread = threading.Thread(target=guarded, args=(link,))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
    if problems:
        raise Failed(f"publisher: the broker dropped it: {problems[0]}")


def _hello(link: socket.socket) -> None:
    """CONNECT with a clean session and no keep-alive; reads the CONNACK."""
    body = b"\x00\x04MQTT\x04\x02\x00\x00" + b"\x00\x09publisher"
    link.sendall(b"\x10" + _length(len(body)) + body)
    answer = link.recv(4)
    if answer != b"\x20\x02\x00\x00":
        raise Failed(f"publisher: the broker refused the connection with {answer!r}")


def _flood(link: socket.socket, stream: Packets, stop: threading.Event) -> None:
    link.setblocking(False)
    data = memoryview(stream.data)
    written = answered = 0
    owed = 4 * stream.messages if stream.qos else 0  # a PUBACK has 4 bytes
    while (written < len(data) or answered < owed) and not stop.is_set():
        waiting = written // stream.size - answered // 4 if stream.qos else 0
        room = written < len(data) and waiting < _UNACKNOWLEDGED
        readable, writable, _ = select.select([link], [link] if room else [], [], 0.1)
        if readable:
            answered += _read(link)
        if writable:
            written += link.send(data[written : written + _PIECE])


def _trickle(
    link: socket.socket,
    rate: int,
    qos: int,
    sent: list[float],
    devices: int,
    stop: threading.Event,
) -> None:
    noise = random.Random(3)
    group = max(1, rate // 100)  # at most 100 writes a second
    start = time.monotonic()
    number = 0
    while not stop.wait(max(0.0, start + number / rate - time.monotonic())):
        now = time.time_ns() // 1_000_000
        numbers = range(number, number + group)
        made = [publish(n, payload(n, now, noise), qos, devices) for n in numbers]
        link.sendall(b"".join(made))
        sent.extend([time.monotonic()] * group)
        number += group
        while select.select([link], [], [], 0)[0]:
            _read(link)


def _read(link: socket.socket) -> int:
    read = len(link.recv(_PIECE))
    if not read:
        raise ConnectionError("end of stream")
    return read


def _length(number: int) -> bytes:
    """Remaining length, seven bits a byte (MQTT 3.1.1 section 2.2.3)."""
    out = bytearray()
    while True:
        number, low = divmod(number, 128)
        out.append(low | (0x80 if number else 0))
        if not number:
            return bytes(out)

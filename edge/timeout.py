"""Calls a user's function in a thread of its own, and leaves it behind when it takes too long."""

import ctypes
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from datetime import timedelta
from typing import Any, TypeVar

from edge.component import format_duration
from edge.errors import DataError, TooManyFailures

T = TypeVar("T")

MOST_HANGING = 64
"""Calls that may hang at a time; each keeps a thread and the rows it was given."""


class Interrupted(BaseException):
    """Raised inside a call that took too long. No Exception, so that a loop does not catch it."""


class Caller:
    """Calls functions one after the other, all in the same thread as long as none hangs.

    Costs 30 us a call.
    """

    def __init__(self, where: str, limit: timedelta) -> None:
        """where: names the function in messages; limit: how long a call may take."""
        self._where = where
        self._limit = limit
        self._worker: _Worker | None = None
        self._hanging: list[_Worker] = []

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """What the function returns or raises.

        Raises DataError when it takes too long: a loop in Python is then ended, what waits outside
        Python cannot be, and stays behind. Raises TooManyFailures while too many of those hang.
        """
        self._hanging = [worker for worker in self._hanging if worker.is_alive()]
        if len(self._hanging) >= MOST_HANGING:
            raise TooManyFailures(
                f"{self._where}: {MOST_HANGING} calls hang and cannot be ended; correct the "
                "function, it must not wait without a limit"
            )
        worker = self._worker = self._worker or _Worker()
        done: Future[T] = worker.do(function, *args)
        try:
            return done.result(self._limit.total_seconds())
        except TimeoutError as error:
            if done.done() and done.exception() is error:
                raise  # of the function itself
        self._worker = None
        self._hanging.append(worker)
        worker.interrupt()
        raise DataError(
            f"{self._where}: took longer than {format_duration(self._limit)}; correct the "
            "function or raise its timeout"
        )


class _Worker:
    """A thread that does one thing after another. A daemon: the process never waits for it."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="edge-function", daemon=True)
        self._thread.start()

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def do(self, function: Callable[..., T], *args: Any) -> "Future[T]":
        done: Future[T] = Future()

        def work() -> None:
            try:
                result = function(*args)
            except BaseException as error:
                done.set_exception(error)
                if isinstance(error, Interrupted):
                    raise
            else:
                done.set_result(result)

        self._work.put(work)
        return done

    def interrupt(self) -> None:
        """End it at its next step in Python, and for good."""
        ident = ctypes.c_ulong(self._thread.ident or 0)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(Interrupted))

    def _run(self) -> None:
        try:
            while True:
                self._work.get()()
        except Interrupted:
            pass

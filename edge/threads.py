"""Work that would hold up the event loop, in threads."""

import asyncio
import contextlib
import functools
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar

_FEW_ROWS = 1000  # take less than the 0.1 to 0.3 ms of processor time of a change of threads

_P = ParamSpec("_P")
_T = TypeVar("_T")


async def off_loop(
    rows: int | None, work: Callable[_P, _T], *args: _P.args, **options: _P.kwargs
) -> _T:
    """Do columnar work on `rows` rows without holding up the event loop: in a worker thread.

    A batch of few rows is done at once, which costs half as much; None: nobody knows how long the
    work takes, or whether it ever ends.
    """
    if rows is None:
        return await in_thread(work, *args, **options)
    if rows <= _FEW_ROWS:
        return work(*args, **options)
    return await asyncio.to_thread(work, *args, **options)


async def in_thread(work: Callable[_P, _T], *args: _P.args, **options: _P.kwargs) -> _T:
    """Run what may take long in a daemon thread of its own.

    Not asyncio's shared threads: a black hole holds a network call for a minute, a user's function
    may never return. That would starve others of the few there are, and the process would wait
    for it at its end.
    """
    loop = asyncio.get_running_loop()
    task: _Task[_T] = _Task(functools.partial(work, *args, **options), loop.create_future(), loop)
    threading.Thread(target=task.run, name="edge-work", daemon=True).start()
    try:
        return await task.done
    finally:
        # An error holds the frames it came through. Were it held by one of them, what the work had
        # in hand, such as a parcel's bytes, would stay until Python looks for rings among its
        # oldest objects: less than once a day.
        del task


class Worker:
    """A daemon thread on which pieces of work run one after the other, in the order given.

    An executor of the standard library does the same with locks and conditions of its own for each
    piece: a third of the processor time of a small commit, where all caches are cold. The thread
    lives until `close`, or until the process ends: that does not wait for what is under way.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: SimpleQueue[_Task[Any] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._changing = threading.Lock()

    async def call(self, work: Callable[[], _T]) -> _T:
        """Run a piece of work; one whose caller has given up before its turn is left out."""
        loop = asyncio.get_running_loop()
        task: _Task[_T] = _Task(work, loop.create_future(), loop)
        with self._changing:
            if self._closed:
                raise RuntimeError(f"thread {self._name!r} is closed")
            if self._thread is None:
                self._thread = threading.Thread(
                    target=_run_all, args=(self._tasks,), name=self._name, daemon=True
                )
                self._thread.start()
            self._tasks.put(task)
        try:
            return await task.done
        finally:
            del task  # as in `in_thread`

    def close(self) -> None:
        """Take nothing more; what was given is done."""
        with self._changing:  # nothing comes behind the end, where it would wait for ever
            self._closed = True
            self._tasks.put(None)


class _Task(NamedTuple, Generic[_T]):
    """work: what to do. done: who waits for it, on which event loop."""

    work: Callable[[], _T]
    done: asyncio.Future[_T]
    loop: asyncio.AbstractEventLoop

    def run(self) -> None:
        """Do it, and tell the one who waits."""
        error: BaseException | None = None
        result: Any = None
        try:
            result = self.work()
        except BaseException as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self.loop.call_soon_threadsafe(_settle, self.done, error, result)
        del self, error  # as in `in_thread`


def _run_all(tasks: "SimpleQueue[_Task[Any] | None]") -> None:
    while (task := tasks.get()) is not None:
        if not task.done.cancelled():
            task.run()
        del task


def _settle(done: "asyncio.Future[Any]", error: BaseException | None, result: Any) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(result)
    else:
        done.set_exception(error)

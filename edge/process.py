"""Pipelines in one process: signals, start, and the orderly stop of all of them."""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable, Coroutine, Sequence

from edge import health
from edge.errors import DefinitionError, OutboxLocked
from edge.pipeline import Pipeline
from edge.runner import Runner

log = logging.getLogger("edge.process")

Beside = Callable[[Sequence[Runner]], Coroutine[None, None, None]]


async def run(
    pipelines: Sequence[Pipeline], *, once: bool = False, beside: Sequence[Beside] = ()
) -> None:
    """Run pipelines until SIGTERM or SIGINT; with `once` until their finite sources are done.

    beside: run as long as they do, to show how they stand. Raises DefinitionError, OutboxLocked,
    or TooManyFailures after everything has stopped orderly.
    """
    _check_once(pipelines, once)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError, RuntimeError):
            loop.add_signal_handler(number, stop.set)
    runners = [Runner(pipeline, patient=not once) for pipeline in pipelines]
    watching = [asyncio.create_task(each(runners)) for each in beside]
    if path := os.environ.get(health.VARIABLE):
        watching.append(asyncio.create_task(_tell_health(path, runners)))
    results = await asyncio.gather(
        *(_run_one(runner, stop, once) for runner in runners), return_exceptions=True
    )
    for task in watching:
        task.cancel()
    await asyncio.gather(*watching, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


async def _tell_health(path: str, runners: Sequence[Runner]) -> None:
    """Touch the file of the health check as long as every pipeline makes progress."""
    while True:
        if all(runner.running and runner.silence() < health.STALE for runner in runners):
            try:
                health.touch(path)
            except OSError as error:
                log.warning("%s: cannot be touched for the health check: %s", path, error.strerror)
                return
        await asyncio.sleep(health.EVERY)


def _check_once(pipelines: Sequence[Pipeline], once: bool) -> None:
    endless = [pipeline.name for pipeline in pipelines if once and not pipeline.source.finite]
    if endless:
        raise DefinitionError(
            f"--once: the source of {endless[0]!r} never ends by itself; run it without --once"
        )


async def _run_one(runner: Runner, stop: asyncio.Event, once: bool) -> None:
    """One pipeline from open to close; if it fails, the others are stopped too."""
    try:
        await runner.open(stop)
        try:
            async with runner.tap:
                await runner.run(stop, once)
        finally:
            await runner.close()
    except OutboxLocked as locked:
        if not stop.is_set():
            stop.set()
            raise
        log.info("pipeline %r: told to stop while it waited; %s", runner.pipeline.name, locked)
    except BaseException:
        stop.set()
        raise

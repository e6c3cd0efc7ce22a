"""`edge demo --fault`: one thing goes wrong and stays so, to be looked at on the live page."""

import asyncio
import signal
import socket
import sys
from pathlib import Path
from typing import Literal

from rich.console import Console

from edge.demo.children import DemoError, free_port
from edge.demo.hall import MAD, Hall
from edge.demo.stage import Stage, open_stage

Fault = Literal["link", "rubbish", "full"]

PIPELINE = "vibration"
WELL = 8.0
_SMALL = "40MiB"  # an outbox that fills while somebody looks on
_ENOUGH = 0.92  # of it; then it fills as slowly as it may
_BURST = 4096  # characters of a wave form until then

_TOLD = {
    "link": "the link to S3 and SQS is cut",
    "rubbish": f"the sensor of {MAD} sends rubbish",
    "full": "the link to S3 and SQS is cut, and the outbox fills",
}


def main(fault: Fault, out: Path, address: str | None = None, well: float = WELL) -> int:
    """Stage `fault` until Ctrl-C, with files below `out`; 0, or 1 when it cannot be staged.

    address: of the page, HOST:PORT; a free port of 127.0.0.1 where it is None. well: seconds in
    which all is well first, so that there is a before.
    """
    console = Console(stderr=True, highlight=False)
    try:
        address = address or f"127.0.0.1:{free_port()}"
        asyncio.run(_perform(fault, out, address, well, console))
    except DemoError as error:
        print(error, file=sys.stderr)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("demo: stopped; every process it had started is gone")
    return 0


async def _perform(fault: Fault, out: Path, address: str, well: float, console: Console) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    _check_free(address)
    console.print("starting a broker, S3, SQS and a processor on 127.0.0.1")
    around = {"EDGE_HTTP": address}
    if fault == "full":
        around["EDGE_DEMO_OUTBOX"] = _SMALL
    async with open_stage(out, PIPELINE, around) as stage:
        await stage.processor.start()
        hall = Hall(stage.sensor)
        publishing = asyncio.create_task(hall.run())
        console.print(f"look at [bold]http://{address}/[/]; Ctrl-C ends it", soft_wrap=True)
        try:
            await asyncio.sleep(well)
            await _go_wrong(fault, stage, hall, console)
            while not publishing.done():
                stage.processor.must_run()
                await asyncio.sleep(1.0)
            await publishing
        finally:
            publishing.cancel()


def _check_free(address: str) -> None:
    """A processor would wait for its address; here that is somebody else's page."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_server((host, int(port))):
            return
    except (OSError, ValueError, OverflowError) as error:
        raise DemoError(
            f"--http: cannot listen on {address}: {error}; name an address and a free port such as "
            "127.0.0.1:8080, or leave it out"
        ) from error


async def _go_wrong(fault: Fault, stage: Stage, hall: Hall, console: Console) -> None:
    console.print(f"now {_TOLD[fault]}", style="yellow")
    if fault == "rubbish":
        hall.rubbish = True
        return
    stage.link.cut(answers=0)
    if fault == "link":
        return
    wave, hall.wave, hall.rounds = hall.wave, _BURST, 8.0
    while (await asyncio.to_thread(stage.standing)).share < _ENOUGH:
        stage.processor.must_run()
        await asyncio.sleep(0.5)
    hall.wave, hall.rounds = wave, 1.0
    console.print("the outbox is nearly full", style="yellow")

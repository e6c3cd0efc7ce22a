"""The main job on real data with everything embedded: what `edge demo` and `make run` run."""

import asyncio
import signal
import sys
from pathlib import Path

from rich.console import Console

from edge.demo import expected
from edge.demo.children import DemoError
from edge.demo.screen import Screen, table
from edge.demo.stage import checkout, open_stage
from edge.demo.story import Story, verify
from edge.demo.verdict import Check, hint

DATA = "pipelines/data/nab/machine_temperature_system_failure.csv"


def main(out: Path = Path("out/demo"), seconds: float = 25.0) -> int:
    """Play the demo with its files below `out`; 0 if every row arrived once, else 1.

    seconds: in which the sensor publishes its 22,695 readings, eleven weeks of them.
    """
    console = Console(highlight=False)
    try:
        checks = asyncio.run(_perform(out, seconds))
    except DemoError as error:
        print(error, file=sys.stderr)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("demo: stopped; every process it had started is gone", file=sys.stderr)
        return 1
    console.print(table(checks))
    wrong = [check for check in checks if not check.holds]
    if wrong:
        console.print(f"[bold red]{len(wrong)} of these checks do not hold.", hint(checks) or "")
    else:
        console.print("[green]Every row arrived once.")
    _places(console, out)
    return 1 if wrong else 0


async def _perform(out: Path, seconds: float) -> list[Check]:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    series = expected.readings(checkout() / DATA)
    with Screen(len(series)) as screen:
        screen.say("starting a broker, S3, SQS and a processor on 127.0.0.1")
        async with open_stage(out) as stage:
            await Story(stage, screen, series).play(seconds)
            screen.say("reading back what arrived")
            return await asyncio.to_thread(verify, stage, series)


def _places(console: Console, out: Path) -> None:
    console.print(f"""
{out}/s3       the objects of the bucket, as files
{out}/sqs      the messages of the queue, one a line
{out}/state    the outbox
{out}/logs     what the processor, the broker and S3/SQS had to say""")

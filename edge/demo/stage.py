"""Who takes part in the demo: broker, S3 and SQS, the link, the sensor, the processor."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from edge.demo.broker import start_broker
from edge.demo.children import DemoError
from edge.demo.cloud import BUCKET, QUEUE, Cloud
from edge.demo.processor import Processor
from edge.demo.proxy import Proxy
from edge.demo.sensor import Sensor, forget_session
from edge.demo.standing import Standing, read_standing

PIPELINE = "machine-temperature"
ROLL = "2s"  # instead of the definition's minute, so that there is something to see
_FOLDERS = ("broker", "logs", "s3", "sqs", "state")


def checkout() -> Path:
    """The folder with `pipelines/` and `containers/`; raises DemoError outside of a clone."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / "pipelines" / f"{PIPELINE}.yaml").exists():
        raise DemoError(
            "demo: needs the folders pipelines/ and containers/, which are not beside the package; "
            "run it from a clone of the project, with `make run`"
        )
    return folder


@dataclass(frozen=True)
class Stage:
    """All of them, up and running; the processor is not started yet.

    link: to the cloud; field: the network to the broker.
    """

    out: Path
    cloud: Cloud
    link: Proxy
    sensor: Sensor
    field: Proxy
    processor: Processor

    def standing(self) -> Standing:
        """How the processor stands now."""
        return read_standing(self.processor.folder)


@asynccontextmanager
async def open_stage(
    out: Path, pipeline: str = PIPELINE, around: Mapping[str, str] | None = None
) -> AsyncIterator[Stage]:
    """Nothing leaves 127.0.0.1, and nothing stays when the context ends but the files in `out`.

    around: what else the processor finds in its environment.

    Raises DemoError for what is missing on this machine.
    """
    for name in _FOLDERS:
        shutil.rmtree(out / name, ignore_errors=True)
    site = f"demo-{os.getpid()}"
    async with AsyncExitStack() as stack:
        cloud = await Cloud.start(out / "logs" / "moto.log")
        stack.push_async_callback(cloud.close)
        await asyncio.to_thread(cloud.furnish)
        link = Proxy(cloud.port)
        await link.start()
        stack.push_async_callback(link.close)
        url = await _open_broker(stack, out, f"edge-{site}-{pipeline}-0")
        sensor = Sensor(url)
        await sensor.start()
        stack.callback(sensor.close)
        field, url = await _open_field(stack, url)
        processor = _processor(out, pipeline, site, url, link.port, around or {})
        stack.push_async_callback(processor.kill)
        yield Stage(out, cloud, link, sensor, field, processor)


async def _open_broker(stack: AsyncExitStack, out: Path, client_id: str) -> str:
    """The URL of the user's broker or of one of our own."""
    url = os.environ.get("EDGE_DEMO_BROKER")
    if url:
        stack.push_async_callback(asyncio.to_thread, forget_session, url, client_id)
        return url
    configuration = checkout() / "containers" / "mosquitto.conf"
    log = out / "logs" / "mosquitto.log"
    broker, url = await start_broker(configuration, out / "broker", log)
    stack.push_async_callback(broker.kill)
    return url


async def _open_field(stack: AsyncExitStack, url: str) -> tuple[Proxy, str]:
    """The network between broker and processor, and the broker's URL through it."""
    parts = urlsplit(url)
    field = Proxy(parts.port or 1883, parts.hostname or "127.0.0.1")
    await field.start()
    stack.push_async_callback(field.close)
    user, at, _ = parts.netloc.rpartition("@")
    return field, parts._replace(netloc=f"{user}{at}127.0.0.1:{field.port}").geturl()


def _processor(
    out: Path, pipeline: str, site: str, broker: str, port: int, around: Mapping[str, str]
) -> Processor:
    return Processor(
        checkout() / "pipelines" / f"{pipeline}.yaml",
        out / "state" / pipeline,
        out / "logs" / "processor.log",
        {
            "EDGE_SITE": site,
            "EDGE_STATE_DIR": str(out / "state"),
            "EDGE_DEMO_BROKER": broker,
            "EDGE_DEMO_BUCKET": BUCKET,
            "EDGE_DEMO_QUEUE": QUEUE,
            "EDGE_DEMO_ROLL": ROLL,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            **around,
        },
    )

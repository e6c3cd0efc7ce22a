"""Process sensor data where it is made, and forward the results with nothing lost."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge.codec import Record as Record
    from edge.operators import Operator as Operator
    from edge.operators.cast import Cast as Cast
    from edge.operators.compress import Compress as Compress
    from edge.operators.deadband import Deadband as Deadband
    from edge.operators.dedupe import Dedupe as Dedupe
    from edge.operators.derive import Derive as Derive
    from edge.operators.drop import Drop as Drop
    from edge.operators.filter import Filter as Filter
    from edge.operators.join import Join as Join
    from edge.operators.lookup import Lookup as Lookup
    from edge.operators.python import Python as Python
    from edge.operators.rename import Rename as Rename
    from edge.operators.sample import Sample as Sample
    from edge.operators.select import Select as Select
    from edge.operators.window import Window as Window
    from edge.pipeline import Branch as Branch
    from edge.pipeline import Named as Named
    from edge.pipeline import Pipeline as Pipeline
    from edge.pipeline import load as load
    from edge.pipeline import loads as loads
    from edge.pipeline.preview import Preview as Preview
    from edge.sinks import Sink as Sink
    from edge.sinks.cloudwatch import CloudwatchSink as CloudwatchSink
    from edge.sinks.console import ConsoleSink as ConsoleSink
    from edge.sinks.file import FileSink as FileSink
    from edge.sinks.mqtt import MqttSink as MqttSink
    from edge.sinks.s3 import S3Sink as S3Sink
    from edge.sinks.sqs import SqsSink as SqsSink
    from edge.sources import Source as Source
    from edge.sources.dataset import DatasetSource as DatasetSource
    from edge.sources.metrics import MetricsSource as MetricsSource
    from edge.sources.mqtt import MqttSource as MqttSource
    from edge.sources.sqs import SqsSource as SqsSource

__version__ = "0.1.0"

_HOMES = {
    "Pipeline": "edge.pipeline",
    "Branch": "edge.pipeline",
    "Named": "edge.pipeline",
    "load": "edge.pipeline",
    "loads": "edge.pipeline",
    "Preview": "edge.pipeline.preview",
    "Record": "edge.codec",
    "Source": "edge.sources",
    "Operator": "edge.operators",
    "Sink": "edge.sinks",
}
_TABLES = (("edge.sources", "SOURCES"), ("edge.operators", "OPERATORS"), ("edge.sinks", "SINKS"))


def run(*pipelines: "Pipeline", once: bool = False, http: str | None = None) -> None:
    """Run pipelines in this process until SIGTERM or SIGINT.

    once: return when the finite sources have ended and the outboxes are empty. http: the address
    HOST:PORT of the page, the metrics and the health, as `edge run --http` has it; token and
    certificates are those of the environment (EDGE_HTTP_TOKEN and so on). Raises DefinitionError,
    OutboxLocked, or EdgeError when rows keep failing.
    """
    import asyncio
    import os

    process = import_module("edge.process")
    beside = []
    if http is not None:
        secrets = import_module("edge.secrets").secrets_of(pipelines, os.environ)
        beside = import_module("edge.dashboard.beside").dashboards(http, secrets)
    asyncio.run(process.run(pipelines, once=once, beside=beside))


def __getattr__(name: str) -> Any:
    """`Pipeline`, the contracts and every part by its class name, imported when first used."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name[:1].isupper():
        for module, table in _TABLES:
            for target in getattr(import_module(module), table).values():
                home, _, part = target.partition(":")
                if part == name:
                    return getattr(import_module(home), name)
    raise AttributeError(f"module 'edge' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])

"""The state of the process as metrics of Prometheus, by its conventions for names and units."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from edge import __version__
from edge.dashboard.picture import Picture
from edge.observation import BOUNDS, Histogram

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics(Collector):
    """Every series has the label `pipeline`; there is none per key, topic or reason."""

    def __init__(self, pictures: Sequence[Picture]) -> None:
        self._pictures = pictures
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def text(self) -> bytes:
        """As Prometheus reads it."""
        return generate_latest(self._registry)

    def describe(self) -> list[Metric]:
        """Nothing: collecting is asked for."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Every family, over all pipelines."""
        yield InfoMetricFamily("edge", "Version of edge.", {"version": __version__})
        yield from self._process()
        for make in (_source, _stages, _outbox, _sinks, _latencies):
            yield from make(self._pictures)

    def _process(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("edge_running", "1 if it owns its outbox.", labels=_PIPELINE)
        ready = GaugeMetricFamily("edge_ready", "1 if rows can come in.", labels=_PIPELINE)
        silence = GaugeMetricFamily(
            "edge_silence_seconds", "Time since the intake took a step.", labels=_PIPELINE
        )
        for picture in self._pictures:
            name = [picture.runner.pipeline.name]
            up.add_metric(name, float(picture.runner.running))
            ready.add_metric(name, float(picture.ready()))
            silence.add_metric(name, picture.runner.silence())
        yield from (up, ready, silence)


_PIPELINE = ["pipeline"]
_SINK = ["pipeline", "sink"]


def _seen(pictures: Sequence[Picture]) -> Iterator[tuple[str, Picture, Mapping[str, Any]]]:
    for picture in pictures:
        if picture.seen is not None:
            yield picture.runner.pipeline.name, picture, picture.seen["status"]


def _source(pictures: Sequence[Picture]) -> Iterator[Metric]:
    read = CounterMetricFamily("edge_rows_read", "Rows that the source brought.", labels=_PIPELINE)
    rejected = CounterMetricFamily(
        "edge_rows_rejected", "Payloads that did not become rows.", labels=_PIPELINE
    )
    failed = CounterMetricFamily(
        "edge_rows_failed", "Rows that an operator could not process.", labels=_PIPELINE
    )
    unbalanced = GaugeMetricFamily(
        "edge_ledger_imbalances", "Equations of the ledger that do not hold.", labels=_PIPELINE
    )
    for name, _, status in _seen(pictures):
        read.add_metric([name], status["rows_read"])
        rejected.add_metric([name], status["rows_rejected"])
        failed.add_metric([name], status["rows_failed"])
        unbalanced.add_metric([name], len(status["imbalances"]))
    yield from (read, rejected, failed, unbalanced)


def _stages(pictures: Sequence[Picture]) -> Iterator[Metric]:
    rows = CounterMetricFamily(
        "edge_rows",
        "The ledger: rows by stage and what became of them.",
        labels=["pipeline", "stage", "counter"],
    )
    for name, _, status in _seen(pictures):
        for stage, counters in status["ledger"].items():
            for counter, value in counters.items():
                if counter not in ("buffered", "held"):  # these fall again
                    rows.add_metric([name, stage, counter], value)
    yield rows


def _outbox(pictures: Sequence[Picture]) -> Iterator[Metric]:
    used = GaugeMetricFamily("edge_outbox_bytes", "Disk that the outbox uses.", labels=_PIPELINE)
    most = GaugeMetricFamily("edge_outbox_max_bytes", "Its hard cap.", labels=_PIPELINE)
    for name, _, status in _seen(pictures):
        used.add_metric([name], status["outbox"]["bytes"])
        most.add_metric([name], status["outbox"]["max_bytes"] or 0)
    yield from (used, most)


def _sinks(pictures: Sequence[Picture]) -> Iterator[Metric]:
    up = GaugeMetricFamily("edge_link_up", "1 if the last try got through.", labels=_SINK)
    waiting = GaugeMetricFamily("edge_rows_waiting", "Rows not delivered yet.", labels=_SINK)
    size = GaugeMetricFamily("edge_waiting_bytes", "Bytes not delivered yet.", labels=_SINK)
    oldest = GaugeMetricFamily(
        "edge_oldest_row_age_seconds", "Age of the oldest row not delivered; 0: none.", labels=_SINK
    )
    refused = GaugeMetricFamily(
        "edge_rows_quarantined", "Rows that the destination refused.", labels=_SINK
    )
    retries = CounterMetricFamily(
        "edge_link_retries", "Sends after which not everything had arrived.", labels=_SINK
    )
    for name, picture, status in _seen(pictures):
        for sink, values in status["sinks"].items():
            labels = [name, sink]
            waiting.add_metric(labels, values["buffered_rows"])
            size.add_metric(labels, values["buffered_bytes"])
            oldest.add_metric(labels, values["oldest_seconds"] or 0.0)
            refused.add_metric(labels, values["quarantined_rows"])
            if sink in picture.runner.links:
                retries.add_metric(labels, picture.runner.links[sink].timeline.retries)
                if values["link"] is not None:
                    up.add_metric(labels, float(values["link"] == "up"))
    yield from (up, waiting, size, oldest, refused, retries)


def _latencies(pictures: Sequence[Picture]) -> Iterator[Metric]:
    durable = HistogramMetricFamily(
        "edge_durable_latency_seconds", "Arrival of a row to its commit.", labels=_PIPELINE
    )
    commits = HistogramMetricFamily(
        "edge_commit_seconds", "How long a commit took.", labels=_PIPELINE
    )
    delivered = HistogramMetricFamily(
        "edge_delivery_latency_seconds", "Commit of a row to its delivery.", labels=_SINK
    )
    for picture in pictures:
        name, seen = picture.runner.pipeline.name, picture.observation
        durable.add_metric([name], *_buckets(seen.durable))
        commits.add_metric([name], *_buckets(seen.commits))
        for sink, histogram in seen.delivered.items():
            delivered.add_metric([name, sink], *_buckets(histogram))
    yield from (durable, commits, delivered)


def _buckets(histogram: Histogram) -> tuple[list[tuple[str, float]], float]:
    ends = [*(f"{bound:g}" if bound < 1e6 else f"{bound:.0f}" for bound in BOUNDS), "+Inf"]
    totals = map(float, accumulate(histogram.counts))
    return list(zip(ends, totals, strict=True)), histogram.sum

"""What a processor reported of itself last, as its log and CloudWatch have it."""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from edge.deploy.account import Account, absent
from edge.outbox.measures import OF_PIPELINE, OF_SINK, Measure

Numbers = Sequence[Measure]
"""Rows of `edge.outbox.measures`, with `reported_seconds`: how old each is."""

_PAGE = 1_000  # log events
_PAGES = 8  # looked at for numbers, in a log that has much else
_INTERVAL = timedelta(minutes=2)  # in which a processor that runs tells all its numbers
_LATELY = timedelta(minutes=15)
_KEPT = timedelta(days=14)  # for which CloudWatch lists a metric, and keeps points of a minute
_MINUTE, _HOUR = 60, 3600
_AT_ONCE = 500  # queries of GetMetricData


def from_log(account: Account, stream: str) -> tuple[Numbers, datetime | None]:
    """The newest numbers of a log stream, and the time of its newest line; none if there are none.

    Lines that `edge run --log-metrics` writes; all else is passed over.
    """
    asked = {
        "logGroupName": account.site.log_group(),
        "logStreamName": stream,
        "limit": _PAGE,
        "startFromHead": False,
    }
    events: list[Mapping[str, Any]] = []
    with absent("ResourceNotFoundException"):
        for _ in range(_PAGES):
            answer = account.client("logs").get_log_events(**asked)
            events += answer["events"]
            times = [event["timestamp"] for event in events]
            covered = timedelta(milliseconds=max(times, default=0) - min(times, default=0))
            token = answer["nextBackwardToken"]
            if covered >= _INTERVAL or token == asked.get("nextToken"):
                break
            asked["nextToken"] = token
    newest = max((event["timestamp"] for event in events), default=None)
    last = None if newest is None else datetime.fromtimestamp(newest / 1000, UTC)
    return _newest(_logged(event["message"]) for event in events), last


def from_metrics(account: Account, replica: str) -> Numbers:
    """The newest numbers that `cloudwatch` sinks of a replica have delivered, at most 14 days old.

    CloudWatch knows the minute of a number, so it may be up to a minute younger than is told.
    """
    about = {"site": account.site.site, "replica": replica}
    metrics = [
        metric
        for page in account.client("cloudwatch")
        .get_paginator("list_metrics")
        .paginate(Dimensions=[{"Name": name, "Value": value} for name, value in about.items()])
        for metric in page["Metrics"]
        if metric["MetricName"] in (*OF_PIPELINE, *OF_SINK)
        and {*_dimensions(metric)} - {"sink"} == {*about, "pipeline"}
    ]
    now = datetime.now(UTC) + timedelta(minutes=1)  # the end is not looked at
    found = _points(account, metrics, now - _LATELY, now, _MINUTE)
    if not found and metrics:
        heads = [metric for metric in metrics if metric["MetricName"] == "running"]
        hours = _points(account, heads, now - _KEPT, now, _HOUR)
        if hours:
            hour = datetime.fromtimestamp(max(at for _, at, _ in hours), UTC)
            found = _points(account, metrics, hour, hour + timedelta(hours=1), _MINUTE)
    return _newest((_dimensions(metric) | {metric["MetricName"]: v}, at) for metric, at, v in found)


def _points(
    account: Account, metrics: Sequence[Any], start: datetime, end: datetime, period: int
) -> list[tuple[Any, float, float]]:
    """The newest point of each metric that has one: metric, Unix time, value."""
    found = []
    for first in range(0, len(metrics), _AT_ONCE):
        asked = dict(enumerate(metrics[first : first + _AT_ONCE]))
        queries = [
            {
                "Id": f"m{number}",
                "MetricStat": {"Metric": metric, "Period": period, "Stat": "Maximum"},
            }
            for number, metric in asked.items()
        ]
        pages = (
            account.client("cloudwatch")
            .get_paginator("get_metric_data")
            .paginate(
                MetricDataQueries=queries,
                StartTime=start,
                EndTime=end,
                ScanBy="TimestampDescending",
            )
        )
        for result in (result for page in pages for result in page["MetricDataResults"]):
            if result["Values"]:
                metric = asked[int(result["Id"].removeprefix("m"))]
                found.append((metric, result["Timestamps"][0].timestamp(), result["Values"][0]))
    return found


def _dimensions(metric: Mapping[str, Any]) -> dict[str, Any]:
    return {each["Name"]: each["Value"] for each in metric["Dimensions"]}


def _logged(message: str) -> tuple[Mapping[str, Any], float] | None:
    """The numbers of one log line with their Unix time; None where it is another line."""
    try:
        found = json.loads(message)
        return (found, found["_aws"]["Timestamp"] / 1000) if "pipeline" in found else None
    except (ValueError, KeyError, TypeError):
        return None


def _newest(told: Iterable[tuple[Mapping[str, Any], float] | None]) -> Numbers:
    """What is newest of each pipeline and sink, but for sinks that their pipeline has no more."""
    held: dict[tuple[str, str | None], tuple[float, dict[str, Any]]] = {}
    for row, at in filter(None, told):
        key = row["pipeline"], row.get("sink")
        newest, numbers = held.get(key, (at, {}))
        if at > newest:
            numbers = {}  # what is not known now is not what was known before
        if at >= newest:
            numbers |= {name: row[name] for name in (*OF_PIPELINE, *OF_SINK) if name in row}
            held[key] = at, numbers
    heard: dict[str, float] = {}
    for (pipeline, _), (at, _) in held.items():
        heard[pipeline] = max(at, heard.get(pipeline, at))
    now = time.time()
    return [
        {"pipeline": key[0], "sink": key[1], **numbers, "reported_seconds": now - at}
        for key, (at, numbers) in sorted(
            held.items(), key=lambda item: (item[0][0], item[0][1] or "")
        )
        if heard[key[0]] - at <= _INTERVAL.total_seconds()
    ]

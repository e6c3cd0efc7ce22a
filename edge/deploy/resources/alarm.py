"""Alarms of CloudWatch on the numbers of processors."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, ClassVar

from edge.deploy.account import OWNER, Account, absent, code_of
from edge.deploy.resources import Resource, Settings
from edge.deploy.sections import Alarms
from edge.deploy.workload import Workload
from edge.errors import DeployFailed

_OFTEN = 300  # seconds over which a number is looked at that must never be
_DENIED = ("AccessDenied", "AccessDeniedException")


class Alarm(Resource):
    """One alarm; settings: as PutMetricAlarm takes them, but for its name and tags."""

    kind: ClassVar[str] = "alarm"

    def __init__(self, account: Account, name: str, settings: Settings) -> None:
        super().__init__(account, name)
        self._settings = settings

    def wanted(self) -> Settings:
        return self._settings

    def read(self) -> Settings | None:
        found = self._found()
        if found is None:
            return None
        if not self._tagged(found):
            raise DeployFailed(
                f"{self}: is there and not this site's (no tag {OWNER}={self.account.site.site});"
                " delete it, or give the site another id"
            )
        return {name: _ordered(found.get(name)) for name in self._settings}

    def create(self) -> None:
        self._put(Tags=self.account.tags())

    def update(self, changed: Collection[str]) -> None:
        self._put()

    def remove(self) -> None:
        self.account.client("cloudwatch").delete_alarms(AlarmNames=[self.name])

    def is_ours(self) -> bool:
        found = self._found()
        return found is not None and self._tagged(found)

    def _put(self, **more: Any) -> None:
        cloudwatch = self.account.client("cloudwatch")
        cloudwatch.put_metric_alarm(AlarmName=self.name, **self._settings, **more)

    def _found(self) -> Mapping[str, Any] | None:
        answer = self.account.client("cloudwatch").describe_alarms(
            AlarmNames=[self.name], AlarmTypes=["MetricAlarm"]
        )
        return next(iter(answer["MetricAlarms"]), None)

    def _tagged(self, found: Mapping[str, Any]) -> bool:
        return _is_tagged(self.account, found["AlarmArn"])


def alarms_of(account: Account, workload: Workload) -> Sequence[Alarm]:
    """What the section `alarms` asks for: of each host, pipeline and sink."""
    site = account.site
    if site.alarms is None:
        return []
    made = []
    for replica, pipelines in workload.pipelines.items():
        for pipeline in pipelines:
            about = {"site": site.site, "replica": replica, "pipeline": pipeline.name}
            stem = f"{site.service(replica)}-{pipeline.name}"
            found = [*_of_pipeline(site.alarms, about)]
            for sink in pipeline.sinks:
                found += _of_sink(site.alarms, {**about, "sink": sink})
            made += [
                Alarm(account, f"{stem}-{name}", {**_common(site.alarms), **settings})
                for name, settings in found
            ]
    return made


def former_alarms(account: Account, kept: Collection[str]) -> Sequence[Alarm]:
    """Alarms that were made for the site and are not among `kept`."""
    cloudwatch = account.client("cloudwatch")
    pages = cloudwatch.get_paginator("describe_alarms").paginate(
        AlarmNamePrefix=account.site.service(""), AlarmTypes=["MetricAlarm"]
    )
    try:
        found = [alarm for page in pages for alarm in page["MetricAlarms"]]
    except cloudwatch.exceptions.ClientError as error:
        if account.site.alarms is None and code_of(error) in _DENIED:
            return []  # who makes no alarms need not be allowed to look for some
        raise
    return [
        Alarm(account, each["AlarmName"], {})
        for each in found
        if each["AlarmName"] not in kept and _is_tagged(account, each["AlarmArn"])
    ]


def _is_tagged(account: Account, arn: str) -> bool:
    with absent("ResourceNotFoundException", "ResourceNotFound"):
        answer = account.client("cloudwatch").list_tags_for_resource(ResourceARN=arn)
        return account.owns(answer.get("Tags", []))
    return False


def _common(alarms: Alarms) -> dict[str, Any]:
    return {
        "ActionsEnabled": True,
        "AlarmActions": sorted(alarms.notify),
        "OKActions": sorted(alarms.notify),
        "EvaluationPeriods": 1,
        "TreatMissingData": "notBreaching",  # that is told by the alarm on what was read
    }


def _of_pipeline(alarms: Alarms, about: Mapping[str, str]) -> Iterator[tuple[str, Settings]]:
    words = "An equation of the ledger does not hold: see `edge outbox ledger`."
    yield "ledger", _on(alarms, about, words, "Maximum", "imbalances", _OFTEN, 0.0)
    if alarms.no_data is None:
        return
    total = {
        "Namespace": alarms.namespace,
        "MetricName": "rows_read",
        "Dimensions": _dimensions(about),
    }
    read = {"Metric": total, "Period": _seconds(alarms.no_data), "Stat": "Maximum"}
    silent = {
        "AlarmDescription": "No rows were read, or nothing was heard of the processor.",
        "Metrics": [
            {"Id": "came", "Expression": "DIFF(total)", "Label": "came", "ReturnData": True},
            {"Id": "total", "MetricStat": read, "ReturnData": False},
        ],
        "ComparisonOperator": "LessThanOrEqualToThreshold",
        "Threshold": 0.0,
        "TreatMissingData": "breaching",
    }
    yield "no-data", silent


def _of_sink(alarms: Alarms, about: Mapping[str, str]) -> Iterator[tuple[str, Settings]]:
    sink, oldest = about["sink"], alarms.oldest.total_seconds()
    words = "Rows wait longer than they should: `edge status` says why."
    backlog = _on(alarms, about, words, "Minimum", "oldest_seconds", _OFTEN, oldest)
    yield f"{sink}-backlog", backlog
    words, down = "The link to this sink is down: `edge status` says why.", alarms.link_down
    link = _on(alarms, about, words, "Maximum", "link_up", _seconds(down), 1.0)
    yield f"{sink}-link", {**link, "ComparisonOperator": "LessThanThreshold"}


def _on(
    alarms: Alarms,
    about: Mapping[str, str],
    words: str,
    statistic: str,
    metric: str,
    period: int,
    threshold: float,
) -> Settings:
    return {
        "AlarmDescription": words,
        "Namespace": alarms.namespace,
        "MetricName": metric,
        "Dimensions": _dimensions(about),
        "Statistic": statistic,
        "Period": period,
        "ComparisonOperator": "GreaterThanThreshold",
        "Threshold": threshold,
    }


def _dimensions(about: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Name": name, "Value": about[name]} for name in sorted(about)]


def _seconds(span: timedelta) -> int:
    return int(span.total_seconds())


def _ordered(value: Any) -> Any:
    """Lists of which AWS keeps no order, as `wanted` has them."""
    if not isinstance(value, list):
        return value
    if value and isinstance(value[0], Mapping):
        return sorted(
            ({name: _inside(inner) for name, inner in each.items()} for each in value),
            key=lambda each: str(each.get("Name", each.get("Id"))),
        )
    return sorted(value)


def _inside(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {name: _ordered(_inside(inner)) for name, inner in value.items()}

"""Queues of SQS, each with a queue beside it for what no consumer could take."""

import json
from collections.abc import Collection
from typing import Any, ClassVar

from edge.deploy.account import Account, absent
from edge.deploy.resources import Resource, Settings

_MISSING = ("AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist")
_KEPT = str(14 * 86_400)  # seconds: the most that SQS keeps a message
_TRIES = 5


class Queue(Resource):
    """A queue; dead: the queue for what was received too often, None for that one itself.

    A queue that is there and not this site's stays as it is.
    """

    kind: ClassVar[str] = "queue"
    data: ClassVar[bool] = True

    def __init__(self, account: Account, name: str, dead: "Queue | None" = None) -> None:
        super().__init__(account, name)
        self._dead = dead

    def wanted(self) -> Settings:
        settings: dict[str, Any] = {
            "MessageRetentionPeriod": _KEPT,
            "SqsManagedSseEnabled": "true",
        }
        if self.name.endswith(".fifo"):
            settings["FifoQueue"] = "true"
        if self._dead is not None:
            arn = self.account.home.arn("sqs", self._dead.name)
            settings["RedrivePolicy"] = {"deadLetterTargetArn": arn, "maxReceiveCount": _TRIES}
        return settings

    def read(self) -> Settings | None:
        sqs = self.account.client("sqs")
        with absent(*_MISSING):
            url = self._url()
            if not self.is_ours():
                return self.wanted()
            answer = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
            found = dict(answer.get("Attributes", {}))
            if "RedrivePolicy" in found:
                found["RedrivePolicy"] = json.loads(found["RedrivePolicy"])
            return {name: found.get(name) for name in self.wanted()}
        return None

    def create(self) -> None:
        self.account.client("sqs").create_queue(
            QueueName=self.name,
            Attributes=_as_text(self.wanted()),
            tags={tag["Key"]: tag["Value"] for tag in self.account.tags()},
        )

    def update(self, changed: Collection[str]) -> None:
        settings = {name: value for name, value in self.wanted().items() if name in changed}
        sqs = self.account.client("sqs")
        sqs.set_queue_attributes(QueueUrl=self._url(), Attributes=_as_text(settings))

    def remove(self) -> None:
        self.account.client("sqs").delete_queue(QueueUrl=self._url())

    def is_ours(self) -> bool:
        with absent(*_MISSING):
            tags = self.account.client("sqs").list_queue_tags(QueueUrl=self._url()).get("Tags", {})
            return self.account.owns(tags)
        return False

    def _url(self) -> str:
        return str(self.account.client("sqs").get_queue_url(QueueName=self.name)["QueueUrl"])


def dead_letters(name: str) -> str:
    """`alarms` -> `alarms-dead`, `alarms.fifo` -> `alarms-dead.fifo`."""
    bare = name.removesuffix(".fifo")
    return f"{bare}-dead{name[len(bare) :]}"


def _as_text(settings: Settings) -> dict[str, str]:
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in settings.items()
    }

"""What names an SQS queue, and what messages say of themselves: shared by source and sink."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator

from edge.aws.service import region_of_arn
from edge.aws.verdict import Target, WebPage

ENTRIES = 10
"""Messages of one call at most (SQS quota)."""
ID_ATTRIBUTE = "edge_id"
PAYLOAD_SIZE = "ExtendedPayloadSize"
"""Attribute of a message whose body is a pointer; Amazon's extended clients go by it."""
POINTER = "software.amazon.payloadoffloading.PayloadS3Pointer"

_QUEUE = re.compile(r"(?:https?://.+/|arn:[^:]+:sqs:[^:]+:\d+:)?[A-Za-z0-9_-]{1,80}(?:\.fifo)?")
_REGION_IN_URL = re.compile(r"https?://sqs\.([a-z0-9-]+)\.amazonaws\.")


def _check_queue(queue: str) -> str:
    if not _QUEUE.fullmatch(queue):
        raise ValueError(f"must be the name, URL or ARN of a queue, got {queue!r}")
    return queue


QueueName = Annotated[str, AfterValidator(_check_queue)]


def find_url(queue: str, client: Any) -> str:
    """The URL of a queue; raises what boto3 raises."""
    if queue.startswith("http"):
        return queue
    name, owner = queue, {}
    if queue.startswith("arn:"):
        *_, account, name = queue.split(":")
        owner = {"QueueOwnerAWSAccountId": account}
    answer = client.get_queue_url(QueueName=name, **owner)
    if "QueueUrl" not in answer:
        raise WebPage("no URL of the queue")
    return str(answer["QueueUrl"])


def region_of_queue(queue: str) -> str | None:
    """The region that a URL or ARN names."""
    found = _REGION_IN_URL.match(queue)
    return found[1] if found else region_of_arn(queue)


def target_of(queue: str) -> Target:
    """A queue in words of a message."""
    return Target("SQS", f"queue {re.split('[/:]', queue)[-1]!r}")

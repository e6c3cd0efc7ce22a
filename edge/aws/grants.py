"""ARNs of what a part uses, as a policy names them."""

import re
from collections.abc import Sequence

from edge.component import Permission

_SPECIAL = re.compile(r"[*?$]")
_QUEUE_URL = re.compile(r"https?://sqs\.([a-z0-9-]+)\.amazonaws\.[a-z.]+/(\d{12})/(.+)")


def objects_arn(bucket: str, prefix: str) -> str:
    """All objects whose key starts with `prefix`; bucket: a name, or the ARN of an access point."""
    place = f"{bucket}/object" if bucket.startswith("arn:") else f"arn:{{partition}}:s3:::{bucket}"
    return f"{place}/{_literal(prefix)}*"


def queue_arn(queue: str, region: str | None) -> str:
    """The ARN of a queue named by name, URL or ARN; region: of one that is only named."""
    if queue.startswith("arn:"):
        return queue
    account, name = "{account}", queue.rpartition("/")[2]
    if found := _QUEUE_URL.fullmatch(queue):
        region, account, name = found[1], found[2], found[3]
    return f"arn:{{partition}}:sqs:{region or '{region}'}:{account}:{name}"


def for_key(key: str, region: str | None) -> Permission:
    """What encrypting with a KMS key takes; key: an id, an alias or an ARN of either."""
    actions = ("kms:GenerateDataKey", "kms:Decrypt")
    place = f"arn:{{partition}}:kms:{region or '{region}'}:{{account}}"
    if key.startswith("arn:"):
        place, _, key = key.rpartition(":")
    if key.startswith("alias/"):  # no resource of a policy can be an alias
        return Permission(
            actions, f"{place}:key/*", {"ForAnyValue:StringEquals": {"kms:ResourceAliases": key}}
        )
    return Permission(actions, f"{place}:key/{key.removeprefix('key/')}")


def assumed(role_arn: str | None, wanted: Sequence[Permission]) -> Sequence[Permission]:
    """What the task's own role needs: only to assume the other one, where there is one."""
    return [Permission(("sts:AssumeRole",), role_arn)] if role_arn else wanted


def _literal(text: str) -> str:
    """Text of which a policy takes no character for a wildcard or a variable."""
    return _SPECIAL.sub(lambda found: f"${{{found[0]}}}", text)

"""Bodies of messages that went by a bucket, fetched by the pointers in their place."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import orjson
from pydantic import Field, StringConstraints

from edge.aws.grants import assumed, objects_arn
from edge.aws.queue import PAYLOAD_SIZE, POINTER
from edge.aws.service import AwsService, region_of_arn
from edge.aws.verdict import Target, classify
from edge.component import Permission, Size
from edge.errors import EdgeError

OLD_PAYLOAD_SIZE = "SQSLargePayloadSize"  # of Amazon's extended client 1.x
_POINTERS = {POINTER, "com.amazon.sqs.javamessaging.MessageS3Pointer"}


class NoBody(EdgeError):
    """The body of a message can never be had; says why."""


def is_pointer(attributes: Mapping[str, str]) -> bool:
    """Whether a message with these attributes holds a pointer in place of its body."""
    return PAYLOAD_SIZE in attributes or OLD_PAYLOAD_SIZE in attributes


class Claims(AwsService):
    """A bucket in which bodies of messages are, and no other: a message cannot name one itself."""

    service: ClassVar[str] = "s3"

    bucket: Annotated[
        str, StringConstraints(pattern=r"^(arn:[A-Za-z0-9/:._-]+|[A-Za-z0-9._-]{3,255})$")
    ] = Field(description="Name of the bucket, or ARN of an access point.")
    prefix: str = Field("", description="What every key starts with, such as `events/`.")

    async def fetch(self, pointer: bytes, largest: Size) -> bytes:
        """The body; NoBody where there can be none, otherwise what boto3 raises."""
        bucket, key = _place(pointer)
        if bucket != self.bucket or not key.startswith(self.prefix):
            raise NoBody(
                f"its body is at s3://{bucket}/{key}, not below s3://{self.bucket}/{self.prefix};"
                " correct `claim`"
            )
        return await self.call(lambda client: self._get(key, largest, client))

    def _get(self, key: str, largest: Size, client: Any) -> bytes:
        try:
            answer = client.get_object(Bucket=self.bucket, Key=key)
        except client.exceptions.NoSuchKey:
            raise NoBody(f"its body s3://{self.bucket}/{key} is gone") from None
        with answer["Body"] as body:
            if answer["ContentLength"] > largest:
                size = Size(answer["ContentLength"])
                raise NoBody(f"its body has {size}, the limit is {largest} (max_payload)")
            found: bytes = body.read()
        return found

    def permissions(self, path: str) -> Sequence[Permission]:
        """To get what is below the prefix."""
        if not self.asks_aws():
            return ()
        wanted = [Permission(("s3:GetObject",), objects_arn(self.bucket, self.prefix))]
        return assumed(self.role_arn, wanted)

    def _region(self) -> str | None:
        return self.region or region_of_arn(self.bucket)

    def problem(self, error: Exception) -> str:
        """What an error of `fetch` means; one that is a fault of ours is raised again."""
        return classify(error, Target("S3", f"bucket {self.bucket!r}")).problem


def _place(pointer: bytes) -> tuple[str, str]:
    try:
        name, place = orjson.loads(pointer)
        if name in _POINTERS:
            return str(place["s3BucketName"]), str(place["s3Key"])
    except (ValueError, TypeError, LookupError):
        pass
    raise NoBody("it says that its body is in a bucket, but is no pointer to it")

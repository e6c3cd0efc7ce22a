"""Objects in an S3 bucket, each put exactly once under a key of its own."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlencode

from pydantic import Field, StringConstraints

from edge.aws import AwsService, Target, WebPage, region_of_arn
from edge.aws.grants import assumed, for_key, objects_arn
from edge.component import Permission
from edge.errors import LinkDown

Bucket = Annotated[
    str, StringConstraints(pattern=r"^(arn:[A-Za-z0-9/:._-]+|[A-Za-z0-9._-]{3,255})$")
]

_DIGEST = "sha256"


class ObjectStore(AwsService):
    """Options of a bucket and of what is put there."""

    service: ClassVar[str] = "s3"

    bucket: Bucket = Field(description="Name of the bucket, or ARN of an access point.")
    prefix: str = Field("", description="What every key starts with, such as `readings/`.")
    kms_key: str | None = Field(None, description="KMS key (id or ARN) to encrypt with.")
    storage_class: str | None = Field(None, description="Storage class, such as STANDARD_IA.")
    expected_bucket_owner: str | None = Field(
        None, description="Account that must own the bucket; a put into another's is refused."
    )
    tags: Mapping[str, str] = Field(
        default_factory=dict, description="Tags of every object.", max_length=10
    )
    checksum: Literal["when_supported", "when_required"] = Field(
        "when_supported",
        description="`when_required` for S3-compatible stores that do not know CRC32 headers.",
    )
    conditional: bool = Field(
        True, description="false for stores without If-None-Match: a repeat then writes it over."
    )

    def put(self, key: str, body: bytes, content_type: str, client: Any) -> bool:
        """Put an object where none is; False if the key is taken by other bytes.

        True also where an earlier put of the same has arrived. Raises what boto3 raises, LinkDown.
        """
        digest = hashlib.sha256(body).hexdigest()
        try:
            answer = client.put_object(
                Key=key,
                Body=body,
                ContentType=content_type,
                Metadata={_DIGEST: digest},
                **self._put_options(),
            )
        except client.exceptions.ClientError as error:
            if error.response["Error"].get("Code") != "PreconditionFailed":
                raise
            return self._is_there(key, digest, client)
        if "ETag" not in answer:
            raise WebPage("no ETag")
        return True

    def _is_there(self, key: str, digest: str, client: Any) -> bool:
        """What a taken key means: mostly that the answer to an earlier put was lost."""
        try:
            head = client.head_object(Key=key, **self._place())
        except client.exceptions.ClientError as error:
            if error.response["Error"].get("Code") == "403":
                # Not ours to read, but the outbox id in the key is nobody else's.
                return True
            if error.response["Error"].get("Code") == "404":
                raise LinkDown(f"key {key!r} came and went; it is tried again") from error
            raise
        return bool(head["Metadata"].get(_DIGEST) == digest)

    def permissions(self, path: str) -> Sequence[Permission]:
        """To put and compare objects below `<prefix><path>/`, and what their options take."""
        if not self.asks_aws():
            return ()
        actions = ["s3:PutObject", "s3:GetObject"] + ["s3:PutObjectTagging"] * bool(self.tags)
        wanted = [Permission(tuple(actions), objects_arn(self.bucket, f"{self.prefix}{path}/"))]
        if self.kms_key:
            wanted.append(for_key(self.kms_key, self._region()))
        return assumed(self.role_arn, wanted)

    def _region(self) -> str | None:
        return self.region or region_of_arn(self.bucket)

    def _settings(self) -> Mapping[str, Any]:
        return {"request_checksum_calculation": self.checksum}

    def _put_options(self) -> Mapping[str, Any]:
        options = dict(self._place())
        if self.conditional:
            options["IfNoneMatch"] = "*"
        if self.storage_class:
            options["StorageClass"] = self.storage_class
        if self.kms_key:
            options |= {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": self.kms_key}
        if self.tags:
            options["Tagging"] = urlencode(self.tags)
        return options

    def _place(self) -> Mapping[str, Any]:
        place = {"Bucket": self.bucket}
        if self.expected_bucket_owner:
            place["ExpectedBucketOwner"] = self.expected_bucket_owner
        return place

    @property
    def target(self) -> Target:
        """What a call was for, in words of a message."""
        return Target("S3", f"bucket {self.bucket!r}")

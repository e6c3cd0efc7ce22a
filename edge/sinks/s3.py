"""Objects in an S3 bucket, one per parcel, each put exactly once under a key of its own."""

import asyncio
import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlencode

from pydantic import Field, StringConstraints

from edge.aws import AwsService, Target, WebPage, classify, region_of_arn
from edge.errors import LinkDown
from edge.outbox.model import Parcel
from edge.outbox.packed import sent_bytes
from edge.sinks import Receipt
from edge.sinks.partition import Partitioned
from edge.sinks.receipt import join, receipt_for

Bucket = Annotated[
    str, StringConstraints(pattern=r"^(arn:[A-Za-z0-9/:._-]+|[A-Za-z0-9._-]{3,255})$")
]

_DIGEST = "sha256"

# Compressed files carry the type of the compression and no Content-Encoding: with it some clients
# unpack silently and others do not. Readers such as Athena go by the ending of the key.
_CONTENT_TYPES = {
    ".gz": "application/gzip",
    ".zst": "application/zstd",
    ".parquet": "application/vnd.apache.parquet",
    ".csv": "text/csv; charset=utf-8",
    ".json": "application/json",
    ".ndjson": "application/x-ndjson",
}
_ANYTHING = "application/octet-stream"


class S3Sink(AwsService, Partitioned):
    """Puts one object per parcel: ndjson, csv, parquet or json, with Hive partitions.

    ```yaml
    s3:
      bucket: plant-lake
      prefix: readings/
      format: parquet
      partition: [date]
    ```

    An object is put only where none is (`If-None-Match`), and carries the SHA-256 of its bytes, so
    a repeat after a lost answer leaves one object. Needs s3:PutObject on the prefix; with
    s3:GetObject a key that is taken can be looked at.
    """

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

    async def send(self, parcels: Sequence[Parcel]) -> Receipt:
        """Put the parcels, side by side if no order is kept; LinkDown if none was settled."""
        if self._ordered:
            return await self._send_in_turn(parcels)
        return join(await asyncio.gather(*map(self._send_one, parcels), return_exceptions=True))

    def _prefix(self) -> str:
        return self.prefix

    def _region(self) -> str | None:
        return self.region or region_of_arn(self.bucket)

    def _settings(self) -> Mapping[str, Any]:
        return {"request_checksum_calculation": self.checksum}

    async def _send_one(self, parcel: Parcel) -> Receipt:
        try:
            return await self.call(functools.partial(self._put, parcel))
        except Exception as error:
            return receipt_for(classify(error, self._target()), [parcel])

    def _put(self, parcel: Parcel, client: Any) -> Receipt:
        body = b"".join(sent_bytes(parcel.body, parcel.attributes))
        digest = hashlib.sha256(body).hexdigest()
        try:
            answer = client.put_object(
                Key=parcel.key,
                Body=body,
                ContentType=_CONTENT_TYPES.get(PurePosixPath(parcel.key).suffix, _ANYTHING),
                Metadata={_DIGEST: digest},
                **self._put_options(),
            )
        except client.exceptions.ClientError as error:
            if error.response["Error"].get("Code") != "PreconditionFailed":
                raise
            return self._taken(parcel, digest, client)
        if "ETag" not in answer:
            raise WebPage("no ETag")
        return Receipt([parcel.id])

    def _taken(self, parcel: Parcel, digest: str, client: Any) -> Receipt:
        """What a taken key means: mostly that the answer to an earlier put was lost."""
        try:
            head = client.head_object(Key=parcel.key, **self._place())
        except client.exceptions.ClientError as error:
            if error.response["Error"].get("Code") == "403":
                # Not ours to read, but the outbox id in the key is nobody else's.
                return Receipt([parcel.id])
            if error.response["Error"].get("Code") == "404":
                raise LinkDown(f"key {parcel.key!r} came and went; it is tried again") from error
            raise
        if head["Metadata"].get(_DIGEST) == digest:
            return Receipt([parcel.id])
        return Receipt(rekey=[parcel.id])

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

    def _target(self) -> Target:
        return Target("S3", f"bucket {self.bucket!r}")

"""Buckets of S3: encrypted, closed to the public, swept of uploads that never ended."""

from collections.abc import Collection
from typing import Any, ClassVar

from edge.deploy.account import absent
from edge.deploy.resources import Resource, Settings

_RULE = "edge-unfinished-uploads"
_DAYS = 7
_CLOSED = (
    "BlockPublicAcls",
    "IgnorePublicAcls",
    "BlockPublicPolicy",
    "RestrictPublicBuckets",
)


class Bucket(Resource):
    """A bucket; one that is there and not this site's stays as it is."""

    kind: ClassVar[str] = "bucket"
    data: ClassVar[bool] = True

    def wanted(self) -> Settings:
        return {"closed": True, "encrypted": True, "unfinished_uploads": f"deleted after {_DAYS} d"}

    def read(self) -> Settings | None:
        s3 = self.account.client("s3")
        with absent("404", "NoSuchBucket"):
            s3.head_bucket(Bucket=self.name)
            if not self.is_ours():
                return self.wanted()
            swept = any(rule.get("ID") == _RULE for rule in self._rules(s3))
            return {
                "closed": self._is_closed(s3),
                "encrypted": self._is_encrypted(s3),
                "unfinished_uploads": self.wanted()["unfinished_uploads"] if swept else None,
            }
        return None

    def create(self) -> None:
        # With its tag in the same call: cut off after it, the bucket is known as ours.
        configuration: dict[str, Any] = {"Tags": self.account.tags()}
        if self.account.site.region != "us-east-1":  # which must not be named
            configuration["LocationConstraint"] = self.account.site.region
        self.account.client("s3").create_bucket(
            Bucket=self.name, CreateBucketConfiguration=configuration
        )
        self.update(list(self.wanted()))

    def update(self, changed: Collection[str]) -> None:
        s3 = self.account.client("s3")
        if "closed" in changed:
            s3.put_public_access_block(
                Bucket=self.name, PublicAccessBlockConfiguration=dict.fromkeys(_CLOSED, True)
            )
        if "encrypted" in changed:
            rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
            s3.put_bucket_encryption(
                Bucket=self.name, ServerSideEncryptionConfiguration={"Rules": [rule]}
            )
        if "unfinished_uploads" in changed:
            ours = {
                "ID": _RULE,
                "Status": "Enabled",
                "Filter": {"Prefix": ""},
                "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": _DAYS},
            }
            s3.put_bucket_lifecycle_configuration(
                Bucket=self.name, LifecycleConfiguration={"Rules": [*self._rules(s3), ours]}
            )

    def remove(self) -> None:
        s3 = self.account.client("s3")
        for page in s3.get_paginator("list_object_versions").paginate(Bucket=self.name):
            found = [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
            objects = [{"Key": each["Key"], "VersionId": each["VersionId"]} for each in found]
            if objects:
                s3.delete_objects(Bucket=self.name, Delete={"Objects": objects, "Quiet": True})
        s3.delete_bucket(Bucket=self.name)

    def is_ours(self) -> bool:
        with absent("NoSuchTagSet", "NoSuchBucket"):
            tags = self.account.client("s3").get_bucket_tagging(Bucket=self.name)["TagSet"]
            return self.account.owns(tags)
        return False

    def _rules(self, s3: Any) -> list[dict[str, Any]]:
        with absent("NoSuchLifecycleConfiguration"):
            answer = s3.get_bucket_lifecycle_configuration(Bucket=self.name)
            return list(answer.get("Rules", ()))
        return []

    def _is_closed(self, s3: Any) -> bool:
        with absent("NoSuchPublicAccessBlockConfiguration"):
            answer = s3.get_public_access_block(Bucket=self.name)["PublicAccessBlockConfiguration"]
            return all(answer.get(name) for name in _CLOSED)
        return False

    def _is_encrypted(self, s3: Any) -> bool:
        with absent("ServerSideEncryptionConfigurationNotFoundError"):
            answer = s3.get_bucket_encryption(Bucket=self.name)
            return bool(answer["ServerSideEncryptionConfiguration"]["Rules"])
        return False

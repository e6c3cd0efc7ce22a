"""What tasks stand on: the cluster, the repository of the image, the log group."""

from collections.abc import Collection
from typing import ClassVar

from edge.deploy.account import Account, absent
from edge.deploy.resources import Resource, Settings


class Cluster(Resource):
    """An ECS cluster, which several sites may share: made where it is missing, never removed."""

    kind: ClassVar[str] = "cluster"
    data: ClassVar[bool] = True

    def wanted(self) -> Settings:
        return {"status": "ACTIVE"}

    def read(self) -> Settings | None:
        answer = self.account.client("ecs").describe_clusters(clusters=[self.name])
        found = [each for each in answer["clusters"] if each["status"] != "INACTIVE"]
        return {"status": found[0]["status"]} if found else None

    def create(self) -> None:
        self.account.client("ecs").create_cluster(clusterName=self.name)

    def update(self, changed: Collection[str]) -> None:
        """It is being made or deleted by somebody; the next step says what does not work."""

    def remove(self) -> None:
        """Other sites may use it."""

    def is_ours(self) -> bool:
        return False


class Repository(Resource):
    """The repository of the image in ECR; a tag that was pushed is never moved."""

    kind: ClassVar[str] = "repository"
    data: ClassVar[bool] = True

    def wanted(self) -> Settings:
        return {"imageTagMutability": "IMMUTABLE", "scanOnPush": True}

    def read(self) -> Settings | None:
        if not self.is_ours():
            return self.wanted() if self._arn() else None
        answer = self.account.client("ecr").describe_repositories(repositoryNames=[self.name])
        found = answer["repositories"][0]
        return {
            "imageTagMutability": found["imageTagMutability"],
            "scanOnPush": found.get("imageScanningConfiguration", {}).get("scanOnPush", False),
        }

    def create(self) -> None:
        self.account.client("ecr").create_repository(
            repositoryName=self.name,
            imageTagMutability="IMMUTABLE",
            imageScanningConfiguration={"scanOnPush": True},
            tags=self.account.tags(),
        )

    def update(self, changed: Collection[str]) -> None:
        ecr = self.account.client("ecr")
        if "imageTagMutability" in changed:
            ecr.put_image_tag_mutability(repositoryName=self.name, imageTagMutability="IMMUTABLE")
        if "scanOnPush" in changed:
            ecr.put_image_scanning_configuration(
                repositoryName=self.name, imageScanningConfiguration={"scanOnPush": True}
            )

    def remove(self) -> None:
        self.account.client("ecr").delete_repository(repositoryName=self.name, force=True)

    def is_ours(self) -> bool:
        if (arn := self._arn()) is None:
            return False
        return self.account.owns(
            self.account.client("ecr").list_tags_for_resource(resourceArn=arn)["tags"]
        )

    def has(self, version: str) -> bool:
        """Whether the image is there; version: its tag or digest."""
        name = "imageDigest" if version.startswith("sha256:") else "imageTag"
        with absent("ImageNotFoundException", "RepositoryNotFoundException"):
            self.account.client("ecr").describe_images(
                repositoryName=self.name, imageIds=[{name: version}]
            )
            return True
        return False

    def _arn(self) -> str | None:
        with absent("RepositoryNotFoundException"):
            ecr = self.account.client("ecr")
            answer = ecr.describe_repositories(repositoryNames=[self.name])
            return str(answer["repositories"][0]["repositoryArn"])
        return None


class LogGroup(Resource):
    """The log group in CloudWatch."""

    kind: ClassVar[str] = "log group"
    data: ClassVar[bool] = True

    def __init__(self, account: Account, name: str, days: int) -> None:
        super().__init__(account, name)
        self._days = days

    def wanted(self) -> Settings:
        return {"retentionInDays": self._days}

    def read(self) -> Settings | None:
        logs = self.account.client("logs")
        for page in logs.get_paginator("describe_log_groups").paginate(
            logGroupNamePrefix=self.name
        ):
            for group in page["logGroups"]:
                if group["logGroupName"] == self.name:
                    return {"retentionInDays": group.get("retentionInDays")}
        return None

    def create(self) -> None:
        logs = self.account.client("logs")
        logs.create_log_group(
            logGroupName=self.name, tags={tag["Key"]: tag["Value"] for tag in self.account.tags()}
        )
        self.update(["retentionInDays"])

    def update(self, changed: Collection[str]) -> None:
        logs = self.account.client("logs")
        logs.put_retention_policy(logGroupName=self.name, retentionInDays=self._days)

    def remove(self) -> None:
        self.account.client("logs").delete_log_group(logGroupName=self.name)

    def is_ours(self) -> bool:
        if self.read() is None:
            return False
        arn = self.account.home.arn("logs", f"log-group:{self.name}")
        answer = self.account.client("logs").list_tags_for_resource(resourceArn=arn)
        return self.account.owns(answer["tags"])

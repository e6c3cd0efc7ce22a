"""Roles of IAM, each with one policy of its own."""

import json
from collections.abc import Collection
from typing import Any, ClassVar

from edge.deploy.account import OWNER, Account, absent
from edge.deploy.resources import Resource, Settings
from edge.deploy.roles import Document, trust
from edge.errors import DeployFailed

_POLICY = "edge"


class Role(Resource):
    """A role that tasks of the site take; policy None: it may do nothing."""

    kind: ClassVar[str] = "role"

    def __init__(self, account: Account, name: str, policy: Document | None) -> None:
        super().__init__(account, name)
        self._policy = policy

    def wanted(self) -> Settings:
        return {"trust": trust(self.account.home), "policy": self._policy}

    def read(self) -> Settings | None:
        iam = self.account.client("iam")
        with absent("NoSuchEntity"):
            role = iam.get_role(RoleName=self.name)["Role"]
            if not self.account.owns(role.get("Tags", [])):
                raise DeployFailed(
                    f"{self}: is there and not this site's (no tag {OWNER}={self.account.site.site}"
                    "); delete it, or give the site another id"
                )
            return {"trust": role["AssumeRolePolicyDocument"], "policy": self._read_policy(iam)}
        return None

    def create(self) -> None:
        self.account.client("iam").create_role(
            RoleName=self.name,
            AssumeRolePolicyDocument=json.dumps(trust(self.account.home)),
            Description=f"edge at site {self.account.site.site}",
            Tags=self.account.tags(),
        )
        self.update(["policy"])

    def update(self, changed: Collection[str]) -> None:
        iam = self.account.client("iam")
        if "trust" in changed:
            document = json.dumps(trust(self.account.home))
            iam.update_assume_role_policy(RoleName=self.name, PolicyDocument=document)
        if "policy" in changed and self._policy is None:
            with absent("NoSuchEntity"):
                iam.delete_role_policy(RoleName=self.name, PolicyName=_POLICY)
        elif "policy" in changed:
            document = json.dumps(self._policy)
            iam.put_role_policy(RoleName=self.name, PolicyName=_POLICY, PolicyDocument=document)

    def remove(self) -> None:
        iam = self.account.client("iam")
        with absent("NoSuchEntity"):
            iam.delete_role_policy(RoleName=self.name, PolicyName=_POLICY)
        iam.delete_role(RoleName=self.name)

    def is_ours(self) -> bool:
        with absent("NoSuchEntity"):
            role = self.account.client("iam").get_role(RoleName=self.name)["Role"]
            return self.account.owns(role.get("Tags", []))
        return False

    def _read_policy(self, iam: Any) -> Any:
        with absent("NoSuchEntity"):
            answer = iam.get_role_policy(RoleName=self.name, PolicyName=_POLICY)
            return answer["PolicyDocument"]
        return None

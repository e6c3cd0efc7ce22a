"""What a site is made of in AWS: the contract of one resource."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import Any, ClassVar

from edge.deploy.account import Account

Settings = Mapping[str, Any]


class Resource(ABC):
    """One thing in AWS: how it should be, how it is, and the calls that make it so.

    Whatever was done before, or was cut off, `read` tells what is left to do: nothing is remembered
    elsewhere.
    """

    kind: ClassVar[str]
    data: ClassVar[bool] = False
    """Whether it holds what a user would miss; then only `destroy --data` removes it."""

    def __init__(self, account: Account, name: str) -> None:
        self.account = account
        self.name = name

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"

    @abstractmethod
    def wanted(self) -> Settings:
        """How it should be."""

    @abstractmethod
    def read(self) -> Settings | None:
        """How it is, in the keys of `wanted`; None if it is not there. Changes nothing.

        Raises DeployFailed where something is in its place that is not this site's.
        """

    @abstractmethod
    def create(self) -> None:
        """Make it. One call makes it ours; if more follow, `read` tells which are missing."""

    @abstractmethod
    def update(self, changed: Collection[str]) -> None:
        """Make what is there as it should be; changed: the keys that differ."""

    @abstractmethod
    def remove(self) -> None:
        """Delete it, with all it holds; called only where it is there and ours."""

    def is_ours(self) -> bool:
        """Whether it is there and was made for this site."""
        return self.read() is not None

"""The AWS account that a site is deployed to: its clients, and errors as a person needs them."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from edge.aws.unreachable import explain, shortened
from edge.clock import Clock
from edge.deploy.roles import Home
from edge.deploy.site import Site
from edge.errors import DeployFailed

OWNER = "edge:site"
"""Tag of everything that is made for a site; what has it not is never changed or deleted."""
_PAUSE = 3.0  # seconds between two calls
_DENIED = ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthorizationError")
_CREDENTIALS = ("ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId")

T = TypeVar("T")


class Account:
    """Clients for one site, made when first needed.

    session: a boto3 session; by default one with the credentials of the environment and `profile`.
    """

    def __init__(
        self,
        site: Site,
        profile: str | None = None,
        session: Any = None,
        clock: Clock | None = None,
    ) -> None:
        self.site = site
        self.clock = clock or Clock()
        self._profile = profile
        self._session = session

    @functools.cached_property
    def home(self) -> Home:
        """Partition, region and account. Raises DeployFailed where it is not the site's account."""
        with told("who deploys"):
            identity = self.client("sts").get_caller_identity()
        partition, account = identity["Arn"].split(":")[1], str(identity["Account"])
        if self.site.account not in (None, account):
            raise DeployFailed(
                f"the credentials are those of account {account}, the site is in"
                f" {self.site.account}; use others, or correct `account`"
            )
        return Home(partition, self.site.region, account)

    @functools.cache  # noqa: B019  a few clients for the life of a command
    def client(self, service: str) -> Any:
        """The boto3 client of `service` in the site's region."""
        from botocore.config import Config

        with told(f"a client for {service}"):
            if self._session is None:
                self._session = open_session(self._profile)
            config = Config(retries={"mode": "standard", "total_max_attempts": 5})
            return self._session.client(service, region_name=self.site.region, config=config)

    def patiently(
        self, call: Callable[[], T], passes: Callable[[Exception], bool], seconds: float
    ) -> T:
        """Call again for `seconds`, as long as it fails for what passes by itself."""
        end = self.clock.steady() + seconds
        while True:
            try:
                return call()
            except Exception as error:
                if self.clock.steady() >= end or not passes(error):
                    raise
            self.clock.pause(_PAUSE)

    def tags(self, name: str = "Key", value: str = "Value") -> list[dict[str, str]]:
        """The tags of what is made; services differ in how they spell theirs."""
        return [{name: OWNER, value: self.site.site}]

    def owns(self, tags: Any) -> bool:
        """Whether something with these tags was made for this site; tags: a list, or a mapping."""
        if isinstance(tags, list):
            pairs = (
                (tag.get("Key", tag.get("key")), tag.get("Value", tag.get("value"))) for tag in tags
            )
            tags = dict(pairs)
        return bool(tags.get(OWNER) == self.site.site)


def open_session(profile: str | None) -> Any:
    """A boto3 session with the credentials of the environment, or of a profile."""
    import boto3

    return boto3.Session(profile_name=profile)


def code_of(error: Exception) -> str:
    """The code of an answer of AWS; empty for any other error."""
    return str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))


@contextmanager
def absent(*codes: str) -> Iterator[None]:
    """Swallow the answers that say something is not there."""
    from botocore.exceptions import ClientError

    try:
        yield
    except ClientError as error:
        if code_of(error) not in codes:
            raise


@contextmanager
def told(what: str) -> Iterator[None]:
    """Raise DeployFailed, in words for people, for what boto3 raises while it does `what`."""
    from botocore.exceptions import BotoCoreError, ClientError, ProfileNotFound

    try:
        yield
    except ClientError as error:
        raise DeployFailed(f"{what}: {_answer(error)}") from error
    except ProfileNotFound as error:
        raise DeployFailed(f"{what}: {error}; correct --profile or AWS_PROFILE") from error
    except BotoCoreError as error:
        if "Credentials" in type(error).__name__ or "Token" in type(error).__name__:
            raise DeployFailed(
                f"{what}: there are no credentials ({error}); set AWS_PROFILE, or log in"
            ) from error
        reason = explain(error)
        raise DeployFailed(f"{what}: {reason.what}; {reason.remedy}") from error


def _answer(error: Any) -> str:
    code, operation = code_of(error), error.operation_name
    message = shortened(str(error.response.get("Error", {}).get("Message", "")))
    if code in _DENIED:
        return f"{operation} is not allowed ({code}: {message}); docs/deploy.md has the policy"
    if code in _CREDENTIALS:
        return f"the credentials are not accepted ({code}); log in again, or set AWS_PROFILE"
    return f"{operation} failed ({code}: {message}); mend it and run the command again"

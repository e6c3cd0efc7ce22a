"""Lazily made boto3 clients, with the credentials of the moment.

boto3 costs 160 ms and 30 MB, and making a client already asks for credentials, which fails while
the link is away: so both wait for the first call, which backs off and tries again by itself.
"""

import functools
import io
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

from pydantic import Field, PrivateAttr

from edge import heap
from edge.aws.frames import let_go, let_go_of_try
from edge.aws.verdict import WebPage, rejects_credentials
from edge.component import Component
from edge.threads import in_thread

T = TypeVar("T")
S = TypeVar("S", bound="AwsService")

CONNECT_TIMEOUT = 5  # seconds; also for each piece of a body
READ_TIMEOUT = 30


class AwsService(Component):
    """Options of a part that talks to one AWS service, and its client."""

    service: ClassVar[str]
    """boto3's name of the service: `s3`, `sqs`."""

    endpoint_url: str | None = Field(
        None, description="Another address of the service: a VPC endpoint, MinIO, LocalStack."
    )
    region: str | None = Field(
        None, description="AWS region; default AWS_DEFAULT_REGION, AWS_REGION, or the profile's."
    )
    profile: str | None = Field(None, description="Profile of the AWS configuration files.")
    role_arn: str | None = Field(
        None, description="Role to assume with the credentials found, refreshed by itself."
    )
    _client: Any = PrivateAttr(None)
    _keys: object = PrivateAttr(None)
    _rejected: bool = PrivateAttr(False)
    _making: threading.Lock = PrivateAttr(default_factory=threading.Lock)

    async def call(self, function: Callable[[Any], T]) -> T:
        """`function(client)` in a thread; raises what boto3 raises, also for making the client."""
        try:
            return await in_thread(lambda: self._with_client(function))
        except Exception as error:
            let_go(error)
            raise

    async def close(self) -> None:
        """Release the connections."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def asks_aws(self) -> bool:
        """Whether the service is AWS's own, and not a store beside the processor."""
        return self.endpoint_url is None or "amazonaws." in self.endpoint_url

    def lend(self, part: S) -> S:
        """`part` with this one's region, profile and role, where it names none of its own."""
        ours = {"region": part._region() or self._region()}
        if not (part.profile or part.role_arn):
            ours |= {"profile": self.profile, "role_arn": self.role_arn}
        return part.model_copy(update=ours)

    def _region(self) -> str | None:
        return self.region

    def _settings(self) -> Mapping[str, Any]:
        """What the part adds to botocore's Config."""
        return {}

    def _with_client(self, function: Callable[[Any], T]) -> T:
        try:
            client = self._ready_client()
            found = function(client)
        except Exception as error:
            self._rejected = rejects_credentials(error)
            raise
        self._rejected = False
        return found

    def _ready_client(self) -> Any:
        with self._making:
            if self._rejected:
                self._look_up_again()
            session = _session(self.profile, self.role_arn, self._region())
            _keys_of(session)
            if self._client is None:
                self._keys = _keys_of(_session(self.profile, None, self._region()))
                self._client = _make_client(
                    session, self.service, self.endpoint_url, self._settings()
                )
            return self._client

    def _look_up_again(self) -> None:
        """Forget the client if there are other keys by now, as when their file was replaced.

        Neither a client nor a session ever looks up again what it has found, or has not; to make
        both anew at every try would cost 3 % of a core.
        """
        source = _session(self.profile, None, self._region())
        source._session._credentials = None
        if _keys_of(source) == self._keys:
            return
        self._client = None
        if self.role_arn:
            _new_session.cache_clear()


_session_lock = threading.Lock()


def _session(profile: str | None, role_arn: str | None, region: str | None) -> Any:
    """One session for all parts with the same account: they share service models and credentials.

    Sessions are not thread-safe, clients are.
    """
    with _session_lock:
        return _new_session(profile, role_arn, region or _region_of_environment())


def _keys_of(session: Any) -> object:
    """The credentials of the moment, renewed if it is time; None if there are none.

    Raises CredentialRetrievalError for what makes no sense: botocore trusts whoever gives them, and
    where a portal answers for the ECS agent it fails with whatever error it happens to be.
    """
    from botocore.exceptions import CredentialRetrievalError

    try:
        credentials = session.get_credentials()
        return credentials and credentials.get_frozen_credentials()
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise CredentialRetrievalError(
            provider="whoever gives them", error_msg=f"not understood, {error!r}"
        ) from error


def region_of_arn(name: str) -> str | None:
    """`arn:aws:sqs:eu-west-1:1234:plant` -> `eu-west-1`; None for anything else."""
    parts = name.split(":")
    return parts[3] or None if parts[0] == "arn" and len(parts) > 4 else None


def _region_of_environment() -> str | None:
    # boto3 does not look at AWS_REGION, the one that ECS sets.
    return os.environ.get("AWS_DEFAULT_REGION") or os.environ.get("AWS_REGION")


@functools.cache
def _new_session(profile: str | None, role_arn: str | None, region: str | None) -> Any:
    import boto3

    from edge.aws.models import ModelFiles

    if role_arn is None:
        session = boto3.Session(profile_name=profile, region_name=region)
    else:
        source = _new_session(profile, None, region)
        session = boto3.Session(botocore_session=_assume(source, role_arn), region_name=region)
    session._session.get_component("data_loader").file_loader = ModelFiles()
    _watch(session)
    return session


def _watch(session: Any) -> None:
    for service in ("s3", "sqs", "sts", "cloudwatch"):
        # Before botocore: it follows the redirect of a portal until the stack ends.
        session.events.register_first(f"needs-retry.{service}", _check_who_answers)
        session.events.register(f"needs-retry.{service}", let_go_of_try)


def _assume(source: Any, role_arn: str) -> Any:
    """A botocore session whose credentials come from AssumeRole and renew themselves."""
    import botocore.session
    from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials
    from botocore.exceptions import NoCredentialsError

    credentials = source.get_credentials()
    if credentials is None:
        raise NoCredentialsError
    fetcher = AssumeRoleCredentialFetcher(
        functools.partial(source.client, config=_config({})),
        credentials,
        role_arn,
        extra_args={"RoleSessionName": "edge"},
    )
    session = botocore.session.get_session()
    session._credentials = DeferredRefreshableCredentials(
        refresh_using=fetcher.fetch_credentials, method="assume-role"
    )
    return session


def _make_client(
    session: Any, service: str, endpoint_url: str | None, settings: Mapping[str, Any]
) -> Any:
    with _session_lock:
        client = session.client(service, endpoint_url=endpoint_url, config=_config(settings))
    client.meta.events.register(f"before-send.{service}", _send_in_pieces)
    heap.give_back()  # reading the models has left 6 MB
    return client


def _config(settings: Mapping[str, Any]) -> Any:
    from botocore.config import Config

    # The link owns the back-off; a second attempt only mends a connection the far side has closed.
    retries = {"mode": "standard", "total_max_attempts": 2}
    return Config(
        connect_timeout=CONNECT_TIMEOUT, read_timeout=READ_TIMEOUT, retries=retries, **settings
    )


def _send_in_pieces(request: Any, **_: Any) -> None:
    # A body of bytes goes out in one `sendall`, which has the connect timeout for all of it: a full
    # call to SQS (1 MiB) would never leave over less than 200 kB/s. A stream goes in pieces of
    # 16 KiB, each with its own timeout; bodies for S3 botocore makes streams by itself.
    if isinstance(request.body, bytes | bytearray):
        request.body = io.BytesIO(request.body)


_REQUEST_IDS = ("x-amz-request-id", "x-amzn-requestid")


def _check_who_answers(
    response: tuple[Any, Mapping[str, Any]] | None, operation: Any, **_: Any
) -> None:
    """Raise WebPage for an answer that a captive portal or a proxy gave in the name of AWS.

    Such a page may come with any status, 200 and an ETag included. AWS and stores like it name the
    request they answer, and show no HTML.
    """
    if response is None:
        return
    http, parsed = response
    if any(name in http.headers for name in _REQUEST_IDS):
        return
    status, code = http.status_code, str(parsed.get("Error", {}).get("Code", ""))
    html = http.headers.get("content-type", "").startswith("text/html")
    page = html and (http.content or operation.http.get("method") == "HEAD")
    if page or (300 <= status < 400 and code in ("", str(status))):
        raise WebPage(f"HTTP {status}")

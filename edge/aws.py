"""Lazily made boto3 clients, and which AWS error means `try again`, `ask a person` or `never`.

boto3 costs 160 ms and 30 MB, and making a client already asks for credentials, which fails while
the link is away: so both wait for the first call, which backs off and tries again by itself.
"""

import functools
import io
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

from pydantic import Field, PrivateAttr

from edge.component import Component, in_thread

T = TypeVar("T")

CONNECT_TIMEOUT = 5  # seconds; also for each piece of a body
READ_TIMEOUT = 30

Fate = Literal["again", "blocked", "never"]
"""again: passes by itself; blocked: kept and tried again, but a person has to act; never: this very
parcel can never be taken."""


class Verdict(NamedTuple):
    """What an error means. problem reads `what is wrong (code); what to do`."""

    fate: Fate
    cause: str
    problem: str


class Target(NamedTuple):
    """What a call was for, in words of a message: `Target("SQS", "queue 'plant-alarms'")`."""

    service: str
    name: str


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
    _making: threading.Lock = PrivateAttr(default_factory=threading.Lock)

    async def call(self, function: Callable[[Any], T]) -> T:
        """`function(client)` in a thread; raises what boto3 raises, also for making the client."""
        return await in_thread(lambda: self._with_client(function))

    async def close(self) -> None:
        """Release the connections."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _region(self) -> str | None:
        return self.region

    def _settings(self) -> Mapping[str, Any]:
        """What the part adds to botocore's Config."""
        return {}

    def _with_client(self, function: Callable[[Any], T]) -> T:
        from botocore.exceptions import NoCredentialsError

        with self._making:
            if self._client is None:
                session = _session(self.profile, self.role_arn, self._region())
                self._client = _make_client(
                    session, self.service, self.endpoint_url, self._settings()
                )
            client = self._client
        try:
            return function(client)
        except NoCredentialsError:
            # A client made without credentials never looks for them again.
            self._client = None
            raise


_session_lock = threading.Lock()


def _session(profile: str | None, role_arn: str | None, region: str | None) -> Any:
    """One session for all parts with the same account: they share service models and credentials.

    Sessions are not thread-safe, clients are.
    """
    with _session_lock:
        return _new_session(profile, role_arn, region or _region_of_environment())


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

    session = boto3.Session(profile_name=profile, region_name=region)
    if role_arn is None:
        return session
    return boto3.Session(botocore_session=_assume(session, role_arn), region_name=region)


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


_CAUSES: Mapping[str, tuple[Fate, str]] = {
    "link": ("again", "{service} cannot be reached for {name} ({code})"),
    "busy": ("again", "{service} is busy and put off {name} ({code})"),
    "credentials": (
        "again",
        "{service} has no valid credentials for {name} ({code}); they are asked for again, look at"
        " the task role, the profile or the environment if this lasts",
    ),
    "clock": (
        "again",
        "{service} does not accept the time of this machine for {name} ({code});"
        " set its clock, best by NTP",
    ),
    "access": (
        "blocked",
        "{service} refused access to {name} ({code}); grant {action} to the task role",
    ),
    "key": (
        "blocked",
        "{service} cannot use the encryption key of {name} ({code}); enable the key and grant"
        " kms:GenerateDataKey and kms:Decrypt on it to the task role",
    ),
    "missing": (
        "blocked",
        "{service} has no {name} ({code}); create it, or correct its name, region or account",
    ),
    "region": ("blocked", "no region is set for {name}; set `region` or AWS_REGION"),
    "settings": (
        "blocked",
        "{service} refused {name} ({code}: {message}); correct the options or the destination",
    ),
    "parcel": ("never", "{service} can never take it ({code}: {message})"),
}

_BY_CODE: Mapping[str, str] = {
    code: cause
    for cause, codes in {
        "link": "IncompleteBody BadDigest XAmzContentSHA256Mismatch InvalidDigest BadChecksum"
        " RequestTimeout RequestTimeoutException InternalError InternalFailure InternalServerError"
        " ServiceUnavailable ServiceUnavailableException 500 502 503 504",
        "busy": "Throttling ThrottlingException ThrottledException RequestThrottled"
        " RequestThrottledException TooManyRequestsException RequestLimitExceeded SlowDown"
        " BandwidthLimitExceeded PriorRequestNotComplete LimitExceededException KmsThrottled"
        " ConditionalRequestConflict OperationAborted 429",
        "credentials": "ExpiredToken ExpiredTokenException RequestExpired InvalidToken"
        " InvalidClientTokenId UnrecognizedClientException InvalidAccessKeyId AuthFailure"
        " TokenRefreshRequired MissingAuthenticationToken IncompleteSignature",
        "clock": "RequestTimeTooSkewed RequestInTheFuture SignatureDoesNotMatch InvalidSignature"
        " InvalidSignatureException",
        "access": "AccessDenied AccessDeniedException AllAccessDisabled AccountProblem Forbidden"
        " InvalidSecurity NotSignedUp OptInRequired UnauthorizedAccess 401 403",
        "key": "KmsAccessDenied KmsDisabled KmsInvalidState KmsInvalidKeyUsage KmsNotFound"
        " KmsOptInRequired KMSAccessDeniedException DisabledException KMSInvalidStateException",
        "missing": "NoSuchBucket NonExistentQueue QueueDoesNotExist QueueDeletedRecently"
        " ResourceNotFoundException 404",
        "parcel": "EntityTooLarge KeyTooLong KeyTooLongError InvalidMessageContents"
        " BatchRequestTooLong",
    }.items()
    for code in codes.split()
}

_PERMISSIONS = {
    "PutObject": "s3:PutObject",
    "HeadObject": "s3:GetObject",
    "SendMessageBatch": "sqs:SendMessage",
    "GetQueueUrl": "sqs:GetQueueUrl",
    "AssumeRole": "sts:AssumeRole",
}


def classify(error: Exception, target: Target) -> Verdict:
    """What a failed call means for what was sent.

    An error that is neither AWS's nor the network's is a fault of ours and is raised again.
    """
    from botocore import exceptions as boto
    from botocore.parsers import ResponseParserError  # a captive portal answered with a web page

    if isinstance(error, boto.ClientError):
        return _classify_answer(error, target)
    if isinstance(error, boto.NoRegionError):
        return _verdict("region", "NoRegionError", target)
    name = type(error).__name__
    if isinstance(error, _local_mistakes()):
        return _verdict("settings", name, target, str(error))
    if isinstance(error, _lacking_credentials()) or "credentials are still expired" in str(error):
        # ECS serves expired task credentials with HTTP 200 while its agent is offline: then boto3
        # raises a bare RuntimeError.
        return _verdict("credentials", name, target)
    if isinstance(error, boto.BotoCoreError | ResponseParserError | OSError):
        return _verdict("link", name, target)
    raise error


def classify_code(
    code: str, message: str, target: Target, *, operation: str = "", unknown: str = "settings"
) -> Verdict:
    """What an error code of AWS means; `unknown` is the cause of a code that no table has."""
    short = code.replace("#", ".").rpartition(".")[2]
    cause = _BY_CODE.get(short, unknown)
    if code.startswith("KMS.") and short not in _BY_CODE:
        cause = "key"
    action = _PERMISSIONS.get(operation, "the permission")
    return _verdict(cause, short, target, message, action)


def _classify_answer(error: Any, target: Target) -> Verdict:
    answer = error.response.get("Error", {})
    status = str(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))
    if error.operation_name == "AssumeRole":
        target = Target("STS", f"the role for {target.name}")
    unknown = "link" if status.startswith("5") else _BY_CODE.get(status, "settings")
    return classify_code(
        str(answer.get("Code", status)),
        str(answer.get("Message", "")),
        target,
        operation=error.operation_name,
        unknown=unknown,
    )


def _verdict(
    cause: str, code: str, target: Target, message: str = "", action: str = "the permission"
) -> Verdict:
    fate, text = _CAUSES[cause]
    problem = text.format(
        service=target.service, name=target.name, code=code, message=message, action=action
    )
    return Verdict(fate, cause, problem)


def _local_mistakes() -> tuple[type[Exception], ...]:
    """What boto3 refuses before anything is sent, because of options or configuration files."""
    from botocore import exceptions as boto

    return (
        boto.ParamValidationError,
        boto.ProfileNotFound,
        boto.ConfigNotFound,
        boto.ConfigParseError,
        boto.InvalidConfigError,
        boto.InvalidRegionError,
        boto.InvalidEndpointConfigurationError,
        boto.UnsupportedS3ConfigurationError,
        boto.InvalidDNSNameError,
        boto.EndpointProviderError,
        ValueError,  # `Invalid endpoint: ...`
    )


def _lacking_credentials() -> tuple[type[Exception], ...]:
    from botocore import exceptions as boto

    return (
        boto.NoCredentialsError,
        boto.PartialCredentialsError,
        boto.CredentialRetrievalError,
        boto.TokenRetrievalError,
        boto.MetadataRetrievalError,
        boto.NoAuthTokenError,
        boto.SSOError,
        boto.LoginError,
        boto.UnknownCredentialError,
    )

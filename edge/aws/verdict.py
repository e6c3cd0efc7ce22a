"""Which error of AWS means `try again`, `ask a person` or `never`, and what to say of it."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from edge.aws.unreachable import explain, shortened
from edge.errors import EdgeError

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


class WebPage(EdgeError):
    """Something that is not AWS answered with a page for people."""


_CAUSES: Mapping[str, tuple[Fate, str]] = {
    "link": ("again", "{service} cannot be reached for {name}: {message} ({code}); {action}"),
    "page": (
        "again",
        "{service} cannot be reached for {name}: what answers is not AWS ({code}); a captive"
        " portal or a proxy is in between: log in to it, or correct endpoint_url and HTTPS_PROXY",
    ),
    "trouble": (
        "again",
        "{service} has trouble of its own with {name} ({code}); look at its health if this lasts",
    ),
    "busy": (
        "again",
        "{service} is busy and put off {name} ({code}); raise its quota, or lower link.bandwidth,"
        " if this lasts",
    ),
    "credentials": (
        "again",
        "{service} does not accept the credentials for {name} ({code}); they are looked up again,"
        " check the task role, the profile or the environment if this lasts",
    ),
    "no credentials": (
        "again",
        "there are no credentials for {name} ({code}); give the task a role, set `profile`, or set"
        " AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    ),
    "provider": (
        "again",
        "there are no credentials for {name} now: {message} ({code}); they are asked for again,"
        " check the ECS agent, or what else gives them, if this lasts",
    ),
    "expired": (
        "again",
        "the credentials for {name} have expired and those that came in their place too ({code});"
        " check the link of the ECS agent and the clock of this machine",
    ),
    "signature": (
        "again",
        "{service} does not accept the signature for {name} ({code}); check the secret access key"
        " and the clock of this machine, and whether a proxy changes requests",
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
        "trouble": "IncompleteBody BadDigest XAmzContentSHA256Mismatch InvalidDigest BadChecksum"
        " RequestTimeout RequestTimeoutException InternalError InternalFailure InternalServerError"
        " ServiceUnavailable ServiceUnavailableException 500 502 503 504",
        "busy": "Throttling ThrottlingException ThrottledException RequestThrottled"
        " RequestThrottledException TooManyRequestsException RequestLimitExceeded SlowDown"
        " BandwidthLimitExceeded PriorRequestNotComplete LimitExceededException KmsThrottled"
        " ConditionalRequestConflict OperationAborted 429",
        "credentials": "ExpiredToken ExpiredTokenException RequestExpired InvalidToken"
        " InvalidClientTokenId UnrecognizedClientException InvalidAccessKeyId AuthFailure"
        " TokenRefreshRequired MissingAuthenticationToken IncompleteSignature",
        "clock": "RequestTimeTooSkewed RequestInTheFuture",
        "signature": "SignatureDoesNotMatch InvalidSignature InvalidSignatureException",
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

# How a query service words what S3 calls RequestTimeTooSkewed.
_SKEWED = ("Signature expired", "Signature not yet current")

_PERMISSIONS = {
    "PutObject": "s3:PutObject",
    "HeadObject": "s3:GetObject",
    "GetObject": "s3:GetObject",
    "SendMessageBatch": "sqs:SendMessage",
    "ReceiveMessage": "sqs:ReceiveMessage",
    "DeleteMessageBatch": "sqs:DeleteMessage",
    "ChangeMessageVisibilityBatch": "sqs:ChangeMessageVisibility",
    "GetQueueUrl": "sqs:GetQueueUrl",
    "PutMetricData": "cloudwatch:PutMetricData",
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
    name = type(error).__name__
    if isinstance(error, WebPage | ResponseParserError):
        return _verdict("page", str(error) if isinstance(error, WebPage) else name, target)
    if isinstance(error, boto.NoRegionError):
        return _verdict("region", name, target)
    if isinstance(error, boto.NoCredentialsError | boto.PartialCredentialsError):
        return _verdict("no credentials", name, target)
    if isinstance(error, _failed_providers()):
        return _verdict("provider", name, target, shortened(str(error)))
    if isinstance(error, _local_mistakes()):
        return _verdict("settings", name, target, str(error))
    if "credentials are still expired" in str(error):
        # ECS serves expired task credentials with HTTP 200 while its agent is offline: then boto3
        # raises a bare RuntimeError.
        return _verdict("expired", name, target)
    if isinstance(error, boto.BotoCoreError | OSError):
        reason = explain(error)
        return _verdict("link", name, target, reason.what, reason.remedy)
    raise error


def rejects_credentials(error: Exception) -> bool:
    """Whether the credentials in use are missing or wrong, so that others should be looked up."""
    from botocore.exceptions import ClientError, NoCredentialsError

    if isinstance(error, ClientError):
        return _BY_CODE.get(error.response["Error"].get("Code", "")) == "credentials"
    return isinstance(error, NoCredentialsError)


def classify_code(
    code: str, message: str, target: Target, *, operation: str = "", unknown: str = "settings"
) -> Verdict:
    """What an error code of AWS means; `unknown` is the cause of a code that no table has."""
    short = code.replace("#", ".").rpartition(".")[2]
    cause = _BY_CODE.get(short, unknown)
    if cause == "signature" and message.startswith(_SKEWED):
        cause = "clock"
    if code.startswith("KMS.") and short not in _BY_CODE:
        cause = "key"
    action = _PERMISSIONS.get(operation, "the permission")
    return _verdict(cause, short, target, message, action)


def _classify_answer(error: Any, target: Target) -> Verdict:
    answer = error.response.get("Error", {})
    status = str(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))
    if error.operation_name == "AssumeRole":
        target = Target("STS", f"the role for {target.name}")
    unknown = "trouble" if status.startswith("5") else _BY_CODE.get(status, "settings")
    return classify_code(
        str(answer.get("Code") or status),
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
        service=target.service,
        name=target.name,
        code=code,
        message=shortened(message),
        action=action,
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


def _failed_providers() -> tuple[type[Exception], ...]:
    from botocore import exceptions as boto

    return (
        boto.CredentialRetrievalError,
        boto.TokenRetrievalError,
        boto.MetadataRetrievalError,
        boto.NoAuthTokenError,
        boto.SSOError,
        boto.LoginError,
        boto.UnknownCredentialError,
    )

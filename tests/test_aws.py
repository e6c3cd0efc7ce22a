"""Which AWS error means what, and clients that are made when, and as often as, they are needed."""

import asyncio
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta

import orjson
import pytest
from botocore import exceptions as boto
from botocore.loaders import Loader
from botocore.parsers import ResponseParserError

from edge.aws import AwsService, Target, Verdict, WebPage, classify, classify_code
from edge.aws import service as aws
from edge.aws.models import ModelFiles
from edge.sinks.s3 import S3Sink
from edge.sinks.sqs import SqsSink
from tests.agent import Agent
from tests.cloud import Cloud, Failure
from tests.portal import Portal
from tests.proxy import Proxy

TARGET = Target("SQS", "queue 'plant-alarms'")


def answer(code: str, status: int = 400, operation: str = "SendMessageBatch") -> boto.ClientError:
    response = {
        "Error": {"Code": code, "Message": "words of AWS"},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return boto.ClientError(response, operation)


def answers(codes: str) -> list[boto.ClientError]:
    return [answer(code) for code in codes.split()]


PASSES = [
    boto.EndpointConnectionError(endpoint_url="https://x"),
    boto.ConnectTimeoutError(endpoint_url="https://x"),
    boto.ReadTimeoutError(endpoint_url="https://x"),
    boto.ConnectionClosedError(endpoint_url="https://x"),
    boto.ProxyConnectionError(proxy_url="http://p", error="x"),
    boto.SSLError(endpoint_url="https://x", error="x"),
    boto.NoCredentialsError(),
    boto.PartialCredentialsError(provider="env", cred_var="x"),
    boto.CredentialRetrievalError(provider="container-role", error_msg="x"),
    boto.MetadataRetrievalError(error_msg="x"),
    RuntimeError("Credentials were refreshed, but the refreshed credentials are still expired."),
    ResponseParserError("a web page"),
    ConnectionResetError(104, "reset"),
    *answers(
        "ExpiredToken ExpiredTokenException RequestExpired UnrecognizedClientException"
        " InvalidClientTokenId InvalidAccessKeyId RequestTimeTooSkewed SignatureDoesNotMatch"
        " InvalidSignatureException Throttling ThrottlingException RequestThrottled SlowDown"
        " KmsThrottled KMS.ThrottlingException TooManyRequestsException RequestTimeout BadDigest"
        " InternalError ServiceUnavailable ConditionalRequestConflict OperationAborted"
    ),
    answer("500", 500),
    answer("NobodyKnows", 503),
    answer("NobodyKnows", 429),
]
WAITS_FOR_A_PERSON = [
    boto.NoRegionError(),
    boto.ProfileNotFound(profile="x"),
    boto.ParamValidationError(report="x"),
    ValueError("Invalid endpoint: x"),
    *answers(
        "AccessDenied AccessDeniedException AllAccessDisabled NoSuchBucket NobodyKnows"
        " AWS.SimpleQueueService.NonExistentQueue com.amazonaws.sqs#QueueDoesNotExist"
        " KmsAccessDenied KmsDisabled KMS.DisabledException KMS.NotFoundException KMS.Unheard"
        " InvalidBucketName PermanentRedirect InvalidRequest InvalidArgument"
    ),
    answer("403", 403),
    answer("NobodyKnows", 404),
]
NEVER = [
    *answers(
        "EntityTooLarge KeyTooLongError InvalidMessageContents BatchRequestTooLong"
        " AWS.SimpleQueueService.BatchRequestTooLong"
    )
]


@pytest.mark.parametrize("error", PASSES, ids=str)
def test_what_passes_by_itself_is_tried_again(error: Exception) -> None:
    assert classify(error, TARGET).fate == "again"


@pytest.mark.parametrize("error", WAITS_FOR_A_PERSON, ids=str)
def test_a_wrong_setting_keeps_the_rows(error: Exception) -> None:
    assert classify(error, TARGET).fate == "blocked"


@pytest.mark.parametrize("error", NEVER, ids=str)
def test_only_what_lies_in_the_parcel_refuses_it(error: Exception) -> None:
    assert classify(error, TARGET).fate == "never"


def test_an_error_of_our_own_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        classify(ZeroDivisionError(), TARGET)


def test_a_message_says_what_is_wrong_and_what_to_do() -> None:
    assert classify(answer("AccessDenied"), TARGET) == Verdict(
        "blocked",
        "access",
        "SQS refused access to queue 'plant-alarms' (AccessDenied);"
        " grant sqs:SendMessage to the task role",
    )
    assert classify(answer("AWS.SimpleQueueService.NonExistentQueue"), TARGET).problem == (
        "SQS has no queue 'plant-alarms' (NonExistentQueue);"
        " create it, or correct its name, region or account"
    )
    assert classify(boto.NoRegionError(), TARGET).problem == (
        "no region is set for queue 'plant-alarms'; set `region` or AWS_REGION"
    )
    assert classify(answer("AccessDenied", operation="AssumeRole"), TARGET).problem == (
        "STS refused access to the role for queue 'plant-alarms' (AccessDenied);"
        " grant sts:AssumeRole to the task role"
    )


def test_an_unknown_code_of_one_entry_is_judged_by_whose_fault_it_is() -> None:
    assert classify_code("Strange", "", TARGET, unknown="parcel").fate == "never"
    assert classify_code("Strange", "", TARGET, unknown="busy").fate == "again"
    assert classify_code("KmsAccessDenied", "", TARGET, unknown="parcel").fate == "blocked"


class Queues(AwsService):
    """A part that lists queues."""

    service = "sqs"


def list_queues(part: Queues) -> int:
    async def go() -> int:
        try:
            answered = await part.call(lambda client: client.list_queues())
        finally:
            await part.close()
        return len(answered.get("QueueUrls", ()))

    return asyncio.run(go())


def verdict(part: Queues) -> Verdict:
    try:
        list_queues(part)
    except Exception as error:
        return classify(error, TARGET)
    raise AssertionError("the call went well")


def test_importing_a_part_does_not_import_boto3() -> None:
    code = "import edge.aws, edge.sinks.s3, edge.sinks.sqs, sys; sys.exit('boto3' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_client_is_made_once(cloud: Cloud) -> None:
    part = Queues(endpoint_url=cloud.url)

    async def twice() -> list[int]:
        try:
            return [await part.call(id) for _ in range(2)]
        finally:
            await part.close()

    first, second = asyncio.run(twice())
    assert first == second


@pytest.mark.parametrize(
    "sink", [S3Sink(bucket="lake"), SqsSink(queue="alarms")], ids=["s3", "sqs"]
)
def test_a_sink_gives_its_connections_back(cloud: Cloud, sink: AwsService) -> None:
    async def use_and_close() -> bool:
        client = await sink.call(lambda client: client)
        await sink.close()
        return client is not await sink.call(lambda client: client)

    assert asyncio.run(use_and_close())


def test_many_calls_at_once_share_one_client(cloud: Cloud) -> None:
    part = Queues(endpoint_url=cloud.url)

    async def many() -> set[int]:
        try:
            return set(await asyncio.gather(*(part.call(id) for _ in range(8))))
        finally:
            await part.close()

    assert len(asyncio.run(many())) == 1


def test_credentials_that_come_later_are_found(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = Queues(endpoint_url=cloud.url)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    assert verdict(part).fate == "again"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    assert list_queues(part) == 0


@pytest.mark.parametrize("role", [None, "arn:aws:iam::123456789012:role/edge"])
def test_replaced_keys_are_found_by_every_part(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, role: str | None
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", cloud.url)
    parts = [Queues(endpoint_url=cloud.url, role_arn=role) for _ in range(2)]

    async def ask(part: Queues) -> str | None:
        try:
            await part.call(lambda client: client.list_queues())
        except Exception as error:
            return classify(error, TARGET).cause
        return None

    async def go() -> list[str | None]:
        found = [await ask(part) for part in parts]
        cloud.fail("ListQueues", *[Failure("InvalidClientTokenId", 403)] * 4)
        found += [await ask(part) for part in parts * 2]
        made = [part._client for part in parts]
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "new")
        cloud.key = None if role else "new"
        found += [await ask(part) for part in parts]
        assert all(part._client is not old for part, old in zip(parts, made, strict=True))
        for part in parts:
            await part.close()
        return found

    assert asyncio.run(go()) == [None] * 2 + ["credentials"] * 4 + [None] * 2


def test_aws_region_is_enough(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    assert verdict(Queues(endpoint_url=cloud.url)).problem.startswith("no region is set")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    assert list_queues(Queues(endpoint_url=cloud.url)) == 0


def test_a_page_for_a_head_is_no_answer_of_aws(credentials: None) -> None:
    async def ask(sink: S3Sink) -> None:
        try:
            await sink.call(lambda client: client.head_object(Bucket="lake", Key="a"))
        finally:
            await sink.close()

    with Portal(403) as portal, pytest.raises(WebPage):
        asyncio.run(ask(S3Sink(bucket="lake", endpoint_url=portal.url)))


@pytest.mark.parametrize("status", [302, 403])
def test_a_page_instead_of_a_role_is_no_answer_of_aws(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    with Portal(status, Location="http://portal.example") as portal:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", portal.url)
        role = "arn:aws:iam::123456789012:role/edge"
        assert verdict(Queues(endpoint_url=cloud.url, role_arn=role)).cause == "page"


def test_a_profile_that_is_not_there_is_named(cloud: Cloud) -> None:
    found = verdict(Queues(endpoint_url=cloud.url, profile="nobody"))
    assert found.fate == "blocked"
    assert "nobody" in found.problem


def test_a_role_is_assumed_and_refreshed(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", cloud.url)
    role = "arn:aws:iam::123456789012:role/edge"
    cloud.fail("AssumeRole", Failure("AccessDenied", 403))
    part = Queues(endpoint_url=cloud.url, role_arn=role)
    assert "grant sts:AssumeRole" in verdict(part).problem
    assert list_queues(part) == 0
    assert cloud.calls["AssumeRole"] == 2


@pytest.fixture
def agent(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[Agent]:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setattr("botocore.utils.ContainerMetadataFetcher.SLEEP_TIME", 0)
    with Agent() as server:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", server.url)
        yield server


def test_expired_credentials_served_with_200_are_waited_out(cloud: Cloud, agent: Agent) -> None:
    part = Queues(endpoint_url=cloud.url)
    agent.left = timedelta(hours=-1)
    assert verdict(part).fate == "again"
    agent.left = timedelta(hours=6)
    assert list_queues(part) == 0


def test_an_agent_without_credentials_is_waited_for(cloud: Cloud, agent: Agent) -> None:
    part = Queues(endpoint_url=cloud.url)
    agent.status = 503
    assert verdict(part).fate == "again"
    agent.status = 200
    assert list_queues(part) == 0


@pytest.fixture
def proxy(cloud: Cloud) -> Iterator[Proxy]:
    with Proxy(("127.0.0.1", cloud.port)) as made:
        yield made


@pytest.mark.parametrize("mode", ["refuse", "black_hole", "reset", "lose_answer"])
def test_a_bad_line_passes_by_itself(
    proxy: Proxy, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aws, "READ_TIMEOUT", 0.5 if mode == "black_hole" else 30)
    part = Queues(endpoint_url=proxy.url)
    proxy.set(mode)  # type: ignore[arg-type]
    assert verdict(part).fate == "again"
    monkeypatch.setattr(aws, "READ_TIMEOUT", 30)
    proxy.set("up")
    assert list_queues(part) == 0


def test_a_thin_line_only_needs_time(
    cloud: Cloud, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aws, "CONNECT_TIMEOUT", 1.0)
    queue = cloud.make_queue("q")
    proxy.set("slow", rate=500_000)
    part = Queues(endpoint_url=proxy.url)
    body = "x" * 1_000_000
    started = time.monotonic()

    async def go() -> None:
        try:
            await part.call(lambda client: client.send_message(QueueUrl=queue, MessageBody=body))
        finally:
            await part.close()

    asyncio.run(go())
    assert time.monotonic() - started > 1
    assert len(cloud.messages("q")) == 1


@pytest.mark.parametrize("service", ["s3", "sqs", "sts", "cloudwatch"])
def test_what_is_known_of_a_service_lacks_nothing_but_words(service: str) -> None:
    """Of `endpoints`, rules and the model, with the same content as botocore itself reads."""
    lean, full = (Loader(file_loader=files) for files in (ModelFiles(), None))
    assert lean.load_data("endpoints") == full.load_data("endpoints")
    for kind in ("service-2", "endpoint-rule-set-1", "paginators-1"):
        read = full.load_service_model(service, kind)
        kept = lean.load_service_model(service, kind)
        assert orjson.dumps(kept) == re.sub(
            rb'"documentation":"(\\.|[^"\\])*"', b'"documentation":""', orjson.dumps(read)
        )


def test_a_missing_description_of_a_service_is_none() -> None:
    assert ModelFiles().load_file("nowhere") is None

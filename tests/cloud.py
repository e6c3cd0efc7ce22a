"""S3, SQS and STS over HTTP on 127.0.0.1: moto's server, as strict as AWS where moto is lenient.

Tests ask for the fixture `cloud` of conftest.py.
"""

import base64
import contextlib
import gzip
import hashlib
import io
import itertools
import json
import re
import socket
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Self

import boto3
import moto.sqs.models
from moto.cloudwatch.models import cloudwatch_backends
from moto.core import DEFAULT_ACCOUNT_ID
from moto.moto_api._internal import moto_api_backend
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from moto.s3.exceptions import S3ClientError
from moto.s3.responses import S3Response
from moto.s3.utils import compute_checksum
from moto.sqs.exceptions import (
    BatchEntryIdsNotDistinct,
    BatchRequestTooLong,
    SQSException,
    TooManyEntriesInBatchRequest,
)
from moto.sqs.models import Message, Queue, SQSBackend, sqs_backends
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

REGION = "eu-west-1"
ACCOUNT = DEFAULT_ACCOUNT_ID
_ADMIN = "admin"
"""The access key of the tests' own clients."""
FIFO_MEMORY = 300.0
"""Seconds for which a FIFO queue knows a deduplication id, also after the message is deleted."""

_SKEW = 300.0
"""Seconds that a request's time may differ; S3 allows 900, others 300."""

_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Failure(NamedTuple):
    """An error answer: code, HTTP status, and the words with it."""

    code: str
    status: int = 400
    words: str = ""


class Cloud:
    """One server for many tests; `reset` between them."""

    def __init__(self) -> None:
        _make_strict(self)
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server(
            "127.0.0.1", 0, self._serve, threaded=True, request_handler=MotoRequestHandler
        )
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._client = threading.local()
        self._counting = threading.Lock()
        self.port: int = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        self._clear()

    def _clear(self) -> None:
        self.calls: Counter[str] = Counter()
        self.illegal_fails_call: Failure | None = None  # otherwise its entry alone
        self.refuse_entry: Callable[[str], Failure | None] = lambda body: None
        self.key: str | None = None  # the only access key that is taken
        self.ahead = 0.0  # seconds that its clock is ahead of the clients'
        self.later = 0.0  # seconds that the FIFO memory is ahead of the clock
        self.metrics_clock: Callable[[], float] = time.time  # by which points are too old
        self._failures: dict[str, list[Failure | None]] = {}
        self._always: dict[str, Failure] = {}
        self._remembered: dict[tuple[str, str], float] = {}
        self._numbers = itertools.count(1)
        self._taking = threading.Lock()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def reset(self) -> None:
        """Forget buckets, queues, failures and counts."""
        moto_api_backend.reset()
        self._clear()

    def fail(
        self, operation: str, *failures: Failure | None, always: Failure | None = None
    ) -> None:
        """Answer the next calls of `operation` (`PutObject`) with `failures`, then `always`.

        None lets a call pass.
        """
        self._failures[operation] = list(failures)
        if always:
            self._always[operation] = always

    def mend(self) -> None:
        """Fail no more."""
        self._failures.clear()
        self._always.clear()

    @contextlib.contextmanager
    def tls(self, certificate: Path, key: Path) -> Iterator[int]:
        """The same over TLS, on the port that it gives."""
        server = make_server(
            "127.0.0.1",
            0,
            self._serve,
            threaded=True,
            request_handler=MotoRequestHandler,
            ssl_context=(str(certificate), str(key)),
        )
        threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            server.server_close()

    def client(self, service: str) -> Any:
        """A client of the test's own, straight to the server."""
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=_ADMIN,
            aws_secret_access_key="test",
        )

    def make_bucket(self, name: str) -> None:
        """An empty bucket."""
        place = {"LocationConstraint": REGION}
        self.client("s3").create_bucket(Bucket=name, CreateBucketConfiguration=place)

    def objects(self, bucket: str) -> dict[str, bytes]:
        """All objects by key."""
        client = self.client("s3")
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
        return {key: client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}

    def make_queue(self, name: str, **attributes: str) -> str:
        """An empty queue; returns its URL."""
        if name.endswith(".fifo"):
            attributes["FifoQueue"] = "true"
        url: str = self.client("sqs").create_queue(QueueName=name, Attributes=attributes)[
            "QueueUrl"
        ]
        return url

    def messages(self, queue: str) -> list[dict[str, Any]]:
        """All messages of a queue, taken out of it, in order, as `receive_message` shows them."""
        held = sqs_backends[ACCOUNT][REGION].get_queue(queue)
        with self._taking:
            taken, held._messages = held._messages, []
        return [_shown(message) for message in taken]

    def points(self, namespace: str) -> list[tuple[str, dict[str, str], float, float]]:
        """All points of CloudWatch, repeats too: name, dimensions, Unix time, value."""
        return [
            (each.name, {d.name: d.value for d in each.dimensions}, _unix(each), each.value)
            for each in cloudwatch_backends[ACCOUNT][REGION].metric_data
            if each.namespace == namespace
        ]

    def waiting(self, queue: str) -> int:
        """How many messages a queue has, hidden ones included."""
        return len(sqs_backends[ACCOUNT][REGION].get_queue(queue)._messages)

    def _serve(self, environ: Any, start_response: Any) -> Any:
        request = Request(environ)
        self._client.socket = environ.get("werkzeug.socket")
        environ["wsgi.input"] = io.BytesIO(request.get_data())  # read here and there
        operation = _operation(request)
        with self._counting:
            self.calls[operation] += 1
            waiting = self._failures.get(operation)
            failure = waiting.pop(0) if waiting else self._always.get(operation)
        failure = failure or self._key_failure(request) or self._clock_failure(request)
        if operation == "PutMetricData":
            failure = failure or _metric_failure(_metric_data(request), self.metrics_clock())
        if failure is None:
            return self._app(environ, start_response)
        return _error_answer(request, failure)(environ, start_response)

    def _key_failure(self, request: Request) -> Failure | None:
        signed = request.headers.get("Authorization", "")
        known = any(f"Credential={key}/" in signed for key in (self.key, _ADMIN))
        return None if known or self.key is None else Failure("InvalidAccessKeyId", 403)

    def _clock_failure(self, request: Request) -> Failure | None:
        """What AWS says of a request that was signed at another time than its own."""
        signed = request.headers.get("X-Amz-Date")
        if not signed or not self.ahead:
            return None
        moment = datetime.strptime(signed, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
        if abs(time.time() + self.ahead - moment) < _SKEW:
            return None
        if "X-Amz-Target" in request.headers:
            return Failure(
                "InvalidSignatureException",
                403,
                "Signature expired: 20260501T120000Z is now earlier than 20260501T125500Z",
            )
        return Failure("RequestTimeTooSkewed", 403)

    def is_left_alone(self) -> bool:
        """Whether the client of the call under way has closed its connection."""
        try:
            return bool(self._client.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b"")
        except BlockingIOError:
            return False
        except OSError:
            return True

    def send_batch(self, backend: Any, queue_name: str, entries: Any) -> Any:
        """SendMessageBatch as AWS does it; moto's walks the whole queue for every message."""
        queue = backend.get_queue(queue_name)
        size = sum(map(_size, entries.values()))
        if size > queue.maximum_message_size:
            raise BatchRequestTooLong(size)
        if len(entries) > 10:
            raise TooManyEntriesInBatchRequest(len(entries))
        if len({entry["Id"] for entry in entries.values()}) < len(entries):
            raise BatchEntryIdsNotDistinct("twice")
        sent: list[Message] = []
        failed: list[dict[str, Any]] = []
        for entry in entries.values():
            if failure := self._entry_failure(entry["MessageBody"]):
                failed.append(_entry_error(entry["Id"], failure))
            else:
                sent.append(self._take(queue, entry))
        return sent, failed

    def _take(self, queue: Any, entry: Any) -> Message:
        message = Message(str(uuid.uuid4()), entry["MessageBody"])
        message.user_id = entry["Id"]  # type: ignore[attr-defined]
        message.message_attributes = entry["MessageAttributes"]
        message.group_id = entry.get("MessageGroupId")
        message.mark_sent(delay_seconds=0)
        with self._taking:
            if queue.fifo_queue:
                message.deduplication_id = entry["MessageDeduplicationId"]
                message.sequence_number = f"{next(self._numbers):020}"
                name = (queue.queue_arn, entry["MessageDeduplicationId"])
                if self._remembered.get(name, -FIFO_MEMORY) > self._now() - FIFO_MEMORY:
                    return message
                self._remembered[name] = self._now()
            queue._messages.append(message)
        return message

    def _entry_failure(self, body: str) -> Failure | None:
        if not _ILLEGAL.search(body):
            return self.refuse_entry(body)
        if self.illegal_fails_call:
            raise SQSException(self.illegal_fails_call.code, "by the test")
        return Failure("InvalidMessageContents")

    def _now(self) -> float:
        return time.monotonic() + self.later


def _unix(datum: Any) -> float:
    moment: datetime = datum.timestamp
    return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()


def _metric_data(request: Request) -> list[dict[str, Any]]:
    body = request.get_data()
    if request.headers.get("Content-Encoding") == "gzip":
        body = gzip.decompress(body)
    assert len(body) <= 10**6
    data: list[dict[str, Any]] = json.loads(body)["MetricData"]
    return data


def _metric_failure(data: list[dict[str, Any]], now: float) -> Failure | None:
    """What AWS refuses of points, and moto takes."""
    code = "InvalidParameterValueException"
    if len(data) > 1000:
        return Failure(
            code, 400, "The collection MetricData must not have a size greater than 1000."
        )
    for number, datum in enumerate(data, 1):
        where = f"The parameter MetricData.member.{number}"
        if datum["Timestamp"] < now - 14 * 86_400:
            words = "Timestamp must specify a time no more than two weeks in the past."
            return Failure(code, 400, f"{where}.{words}")
        if datum["Timestamp"] > now + 2 * 3600:
            words = "Timestamp must specify a time within two hours of now."
            return Failure(code, 400, f"{where}.{words}")
        for dimension in datum.get("Dimensions", ()):
            if not dimension["Value"].isascii() or not dimension["Value"].strip():
                return Failure(code, 400, f"{where}.Dimensions holds what is no ASCII text.")
    return None


def _operation(request: Request) -> str:
    if target := request.headers.get("X-Amz-Target"):
        return str(target.rpartition(".")[2])
    if request.headers.get("Content-Type", "").startswith("application/x-www-form-urlencoded"):
        return str(request.form.get("Action", "?"))
    kind = "Object" if request.path.strip("/").count("/") else "Bucket"
    return {"PUT": "Put", "HEAD": "Head", "GET": "Get"}.get(request.method, request.method) + kind


def _error_answer(request: Request, failure: Failure) -> Response:
    text = failure.words or f"{failure.code} by the test"
    if "X-Amz-Target" in request.headers:
        body = json.dumps({"__type": f"com.amazonaws.sqs#{failure.code}", "message": text})
        return Response(body, failure.status, content_type="application/x-amz-json-1.0")
    body = f"<Error><Code>{failure.code}</Code><Message>{text}</Message></Error>"
    if "Action" in request.form:
        body = f"<ErrorResponse>{body}</ErrorResponse>"
    return Response(body, failure.status, content_type="application/xml")


def _entry_error(entry_id: str, failure: Failure) -> dict[str, Any]:
    text = f"{failure.code} by the test"
    sender = failure.status < 500
    return {"Id": entry_id, "SenderFault": sender, "Code": failure.code, "Message": text}


def _shown(message: Message) -> dict[str, Any]:
    shown: dict[str, Any] = {"MessageId": message.id, "Body": message.body, "Attributes": {}}
    if message.message_attributes:
        shown["MessageAttributes"] = message.message_attributes
    if message.group_id:
        shown["Attributes"]["MessageGroupId"] = message.group_id
    return shown


def _size(entry: Any) -> int:
    """What AWS counts: body and every attribute's name, type and value, in UTF-8."""
    size = len(entry["MessageBody"].encode())
    for name, value in (entry.get("MessageAttributes") or {}).items():
        size += len(name) + len(value["DataType"]) + len(value.get("StringValue", "").encode())
    return size


_lenient_put = S3Response.put_object
_racy_delete = Queue.delete_message
_blind_receive = SQSBackend.receive_message
_loose_extend = SQSBackend.change_message_visibility_batch
_one_put = threading.Lock()
_now = moto.sqs.models.unix_time_millis
_moment = threading.local()


@contextlib.contextmanager
def _one_moment() -> Iterator[None]:
    """Of moto's queues, for this thread: what shows again meanwhile shows after it."""
    _moment.now = _now()
    try:
        yield
    finally:
        del _moment.now


def _make_strict(cloud: Cloud) -> None:
    def send(backend: Any, queue_name: str, entries: Any) -> Any:
        return cloud.send_batch(backend, queue_name, entries)

    def put(response: Any) -> Any:
        _check_digests(response.headers, response.body or b"")
        with _one_put:  # If-None-Match must not be looked at twice before either is there
            return _lenient_put(response)

    def delete(queue: Any, handle: str) -> None:
        with cloud._taking:  # it copies the queue without what is deleted: others must wait
            _racy_delete(queue, handle)

    def receive(backend: Any, queue: str, count: int, wait: int, *options: Any) -> Any:
        # A long poll of moto's never sees that a FIFO group is free again, takes messages for a
        # client that is gone, and two at once take both of one group. A group whose messages show
        # again it gives from its last one on, also where they do so while it looks.
        # What a test has left asking gets nothing of the next one's queue of that name.
        held = backend.get_queue(queue)
        ends = time.monotonic() + wait
        while True:
            with cloud._taking, _one_moment():
                if backend.get_queue(queue) is not held:
                    return []
                held.pending_messages.difference_update(held.messages)
                found = _blind_receive(backend, queue, count, 0, *options)
            if found or time.monotonic() > ends or cloud.is_left_alone():
                return found
            time.sleep(0.02)

    def extend(backend: Any, queue: str, entries: Any) -> Any:
        with cloud._taking, _one_moment():  # or a call takes the later half of a group
            return _loose_extend(backend, queue, entries)

    moto.sqs.models.unix_time_millis = lambda: getattr(_moment, "now", None) or _now()
    Queue.delete_message = delete  # type: ignore[method-assign]
    SQSBackend.change_message_visibility_batch = extend  # type: ignore[method-assign]
    SQSBackend.receive_message = receive  # type: ignore[method-assign]
    SQSBackend.send_message_batch = send  # type: ignore[method-assign]
    S3Response.put_object = put  # type: ignore[method-assign]


def _check_digests(headers: Any, body: bytes) -> None:
    wrong = False
    if given := headers.get("Content-MD5"):
        wrong = base64.b64decode(given) != hashlib.md5(body).digest()
    for name in ("crc32", "crc32c", "sha1", "sha256"):
        if given := headers.get(f"x-amz-checksum-{name}"):
            made = compute_checksum(body, algorithm=name.upper())
            wrong |= given != (made.decode() if isinstance(made, bytes) else made)
    if wrong:
        raise S3ClientError("BadDigest", "The digest you specified did not match what we received")

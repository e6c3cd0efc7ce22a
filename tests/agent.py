"""The credential endpoint of the ECS agent, as well or ill as a test tells it to be."""

import json
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self


class Agent(ThreadingHTTPServer):
    """Serves credentials that hold for `left`; `status` and `body` replace what it answers.

    Use as a context manager.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.mend()
        self.url = f"http://127.0.0.1:{self.server_port}/v2/credentials/id"

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=[0.02], daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def mend(self) -> None:
        """All is well from now on."""
        self.left = timedelta(minutes=5)  # so that every call asks anew
        self.status = 200
        self.body: bytes | None = None

    def hang_up(self) -> None:
        """End every connection without an answer from now on."""
        self.status = 0

    def credentials(self) -> bytes:
        """The answer of a healthy agent."""
        until = datetime.now(UTC) + self.left
        return json.dumps(
            {
                "RoleArn": "arn:aws:iam::123456789012:role/edge",
                "AccessKeyId": "test",
                "SecretAccessKey": "test",
                "Token": "test",
                "Expiration": until.strftime("%Y-%m-%dT%H:%M:%SZ"),
            }
        ).encode()


class _Answers(BaseHTTPRequestHandler):
    server: Agent

    def do_GET(self) -> None:
        if not self.server.status:
            return
        body = self.server.credentials() if self.server.body is None else self.server.body
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass

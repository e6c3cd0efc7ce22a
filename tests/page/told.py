"""A server that tells the page what a test wants it to hear."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from edge.dashboard.page import find

State = dict[str, Any]


class Told:
    """Serves the page, and as its events whatever `tell` was given last. Use `telling`."""

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._number = 0
        self._state: State | None = None
        self._closed = False
        self._refuses = False
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._answer)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/"

    def tell(self, state: State) -> None:
        """From now on the page hears this, with the time running on."""
        with self._change:
            self._state, self._number = state, self._number + 1
            self._change.notify_all()

    def refuse(self) -> None:
        """From now on nobody may look, as after a restart with another token."""
        with self._change:
            self._refuses = True
            self._change.notify_all()

    def serve(self) -> None:
        self._server.serve_forever(poll_interval=0.05)

    def close(self) -> None:
        with self._change:
            self._closed = True
            self._change.notify_all()
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, *arguments: Any) -> BaseHTTPRequestHandler:
        told = self

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/events":
                    told._events(self)
                    return
                found = find(self.path.removeprefix("/page/") if self.path != "/" else "index.html")
                self.send_response(200 if found else 404)
                self.send_header("content-type", found[1] if found else "text/plain")
                self.end_headers()
                self.wfile.write(found[0] if found else b"")

            def log_message(self, *_: object) -> None:
                pass

        return Answer(*arguments)

    def _events(self, answer: BaseHTTPRequestHandler) -> None:
        answer.send_response(401 if self._refuses else 200)
        answer.send_header("content-type", "text/event-stream")
        answer.end_headers()
        seen = 0
        while True:
            with self._change:
                if seen == self._number:
                    self._change.wait(1.0)
                if self._closed or self._refuses:
                    return
                seen, state = self._number, self._state
            if state is not None:
                state["process"]["now"] += 1.0
                data = f"id: {seen}\nevent: state\ndata: {json.dumps(state)}\n\n"
                try:
                    answer.wfile.write(data.encode())
                except OSError:
                    return
                if state["partial"]:  # told once
                    for pipeline in state["pipelines"]:
                        pipeline["newest"]["rows"] = []


@contextmanager
def telling(state: State | None = None) -> Iterator[Told]:
    """Until the block ends."""
    told = Told()
    thread = threading.Thread(target=told.serve)
    thread.start()
    try:
        if state is not None:
            told.tell(state)
        yield told
    finally:
        told.close()
        thread.join()

"""A captive portal: whatever it is asked, it answers with a page for people."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

PAGE = (
    b"<!DOCTYPE html><html><head><title>Welcome</title></head><body>Log in, please.</body></html>"
)


class Portal(ThreadingHTTPServer):
    """Answers whatever it is asked with a page. Use as a context manager."""

    def __init__(self, status: int, **headers: str) -> None:
        super().__init__(("127.0.0.1", 0), _Page)
        self.status = status
        self.headers = headers
        self.address = ("127.0.0.1", self.server_port)
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=[0.02], daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, *_: object) -> None:
        """A client that hangs up is none."""


class _Page(BaseHTTPRequestHandler):
    server: Portal
    protocol_version = "HTTP/1.1"

    def handle_expect_100(self) -> bool:
        self.close_connection = True
        self._answer(0)
        return False

    def _answer(self, most: int = 2**20) -> None:
        self.rfile.read(min(most, int(self.headers.get("Content-Length", 0))))
        self.send_response(self.server.status)
        for name, value in self.server.headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Type", "text/html")
        self.send_header("Connection", "close")
        self.send_header("Content-Length", str(len(PAGE)))
        self.end_headers()
        self.wfile.write(PAGE)

    do_GET = do_PUT = do_POST = do_HEAD = _answer

    def log_message(self, format: str, *args: object) -> None:
        pass

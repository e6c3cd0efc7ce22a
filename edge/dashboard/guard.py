"""Who may look, and what a browser may do with what it gets: before any page is asked."""

import hashlib
import hmac
import ipaddress
from collections.abc import MutableMapping
from http.cookies import SimpleCookie
from typing import Any

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

OPEN = ("/healthz", "/readyz")
"""One word each, for probes that know no token."""

_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
_TOKEN_NEEDED = """A token is needed: a program sends it as `Authorization: Bearer TOKEN`,
a browser opens /?token=TOKEN once.
"""


class Guard:
    """Nothing can be changed through it: only GET and HEAD are answered.

    With a token, who shows it may look: as a bearer token, or as the cookie that a browser gets for
    it. Without one the server listens on loopback, where a page of elsewhere whose name resolves
    to this machine (DNS rebinding) gives itself away by its Host header.
    """

    def __init__(self, app: ASGIApp, token: str | None, open_to_all: bool, secure: bool) -> None:
        """open_to_all: who gets as far as here has shown a client certificate."""
        self._app = app
        self._token = token
        self._check_host = token is None and not open_to_all
        self._secure = secure
        digest = hmac.new((token or "").encode(), b"edge dashboard", hashlib.sha256).hexdigest()
        # Browsers tell cookies of one machine apart by name only, not by port.
        self._cookie, self._proof = f"edge_{digest[:8]}", digest[8:]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                _protect(message)
            await send(message)

        answer = self._refusal(scope) or self._app
        await answer(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if scope["method"] not in ("GET", "HEAD"):
            return PlainTextResponse("Read only.\n", 405, {"allow": "GET, HEAD"})
        if self._check_host and not _is_this_machine(headers.get("host", "")):
            return PlainTextResponse("Open it under the name of this machine.\n", 421)
        if self._token is None or scope["path"] in OPEN:
            return None
        if scope["path"] == "/" and (shown := QueryParams(scope["query_string"]).get("token")):
            return self._let_in() if _same(shown, self._token) else _turned_away()
        return None if self._knows(headers, self._token) else _turned_away()

    def _knows(self, headers: Headers, token: str) -> bool:
        scheme, _, shown = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return _same(shown.strip(), token)
        cookie = SimpleCookie(headers.get("cookie", "")).get(self._cookie)
        return cookie is not None and _same(cookie.value, self._proof)

    def _let_in(self) -> Response:
        """The token leaves the address, and the browser keeps what cannot be turned into it."""
        answer = RedirectResponse("/", 303)
        answer.set_cookie(
            self._cookie, self._proof, httponly=True, samesite="strict", secure=self._secure
        )
        return answer


def _protect(message: MutableMapping[str, Any]) -> None:
    headers = MutableHeaders(scope=message)
    for name, value in _HEADERS.items():
        headers[name] = value


def _turned_away() -> Response:
    return PlainTextResponse(_TOKEN_NEEDED, 401, {"www-authenticate": 'Bearer realm="edge"'})


def _same(shown: str, expected: str) -> bool:
    return hmac.compare_digest(shown.encode(), expected.encode())


def _is_this_machine(host: str) -> bool:
    """Whether a Host header names loopback, whatever its port: it may be forwarded."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
    name = name.strip("[]").lower()
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False

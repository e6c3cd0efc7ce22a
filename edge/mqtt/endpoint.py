"""Where a broker is and how to be let in: the options that everything on MQTT shares."""

import socket
import ssl
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr, field_validator, model_validator

from edge.component import Component, PositiveDuration
from edge.errors import LinkDown

CONNECT_TIMEOUT = 10.0
_RECEIVE_BUFFER = 4 * 2**20
_PORTS = {"mqtt": 1883, "mqtts": 8883}


def _protocol(value: object) -> str:
    text = {"5.0": "5", "3.1": "3.1.1", "4": "3.1.1"}.get(str(value), str(value))
    if text not in ("5", "3.1.1"):
        raise ValueError(f"must be 5 or 3.1.1, got {value!r}")
    return text


class Endpoint(Component):
    """Options of a connection to a broker."""

    url: str = Field(
        description="`mqtt://host:port` (port 1883), or `mqtts://host:port` with TLS (port 8883)",
        examples=["mqtt://localhost:1883"],
    )
    username: str | None = Field(default=None, description="Name the broker knows the client by")
    password: SecretStr | None = Field(default=None, description="Its password; never printed")
    ca: Path | None = Field(
        default=None, description="PEM file to trust instead of the system's certificates"
    )
    certificate: Path | None = Field(default=None, description="PEM file of the client certificate")
    key: Path | None = Field(
        default=None, description="PEM file of its key, when it is not in the same file"
    )
    client_id: str | None = Field(
        default=None,
        min_length=1,
        max_length=65_535,
        description="Name of the session at the broker; default `edge-<site>-<pipeline>-<replica>`",
    )
    protocol: Annotated[Literal["5", "3.1.1"], BeforeValidator(_protocol)] = Field(
        default="5", description="MQTT version: 5 or 3.1.1"
    )
    keepalive: PositiveDuration = Field(
        default=timedelta(seconds=60),
        description="Longest silence before the other side is asked whether it is there",
    )

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.username is not None or parts.password is not None:
            # The address is logged and shown; a password in it would be too.
            raise ValueError("must not hold a user name or password; use username and password")
        if parts.scheme not in _PORTS or not parts.hostname:
            raise ValueError(f"must be mqtt://host:port or mqtts://host:port, got {url!r}")
        if parts.path not in ("", "/") or parts.query or parts.fragment:
            raise ValueError(f"must end after the port, got {url!r}")
        try:
            port = parts.port
        except ValueError:
            port = 0
        if port == 0:
            raise ValueError(f"must have a port between 1 and 65535, got {url!r}")
        return url

    @field_validator("keepalive")
    @classmethod
    def _check_keepalive(cls, span: timedelta) -> timedelta:
        if not 1 <= span.total_seconds() <= 65_535:
            raise ValueError("must be between 1s and 65535s")
        return span

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if not self.secure and (self.ca or self.certificate or self.key):
            raise ValueError("ca, certificate and key need a url that starts with mqtts://")
        if self.key and not self.certificate:
            raise ValueError("key needs certificate")
        if self.password is not None and self.username is None:
            raise ValueError("password needs username")
        return self

    @property
    def secure(self) -> bool:
        """Whether the connection uses TLS."""
        return self.url.startswith("mqtts:")

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.url)
        return parts.hostname or "", parts.port or _PORTS[parts.scheme]

    def connect(self, folder: Path) -> socket.socket:
        """A connected socket. Blocks; relative paths start at `folder`.

        Raises OSError or LinkDown.
        """
        context = self._context(folder) if self.secure else None
        host, _ = self.address
        plain = socket.create_connection(self.address, timeout=CONNECT_TIMEOUT)
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            _widen(plain)
            return context.wrap_socket(plain, server_hostname=host) if context else plain
        except BaseException:
            plain.close()
            raise

    def _context(self, folder: Path) -> ssl.SSLContext:
        for option in ("ca", "certificate", "key"):
            path = getattr(self, option)
            if path and not (folder / path).is_file():
                raise LinkDown(f"{option}: no file at {folder / path}")
        try:
            context = ssl.create_default_context(cafile=folder / self.ca if self.ca else None)
        except ssl.SSLError as error:
            raise LinkDown(f"ca: holds no certificate in PEM form, got {self.ca}") from error
        if self.certificate:
            key = folder / self.key if self.key else None
            try:
                context.load_cert_chain(folder / self.certificate, key)
            except ssl.SSLError as error:
                raise LinkDown(
                    "certificate: must hold a PEM certificate, and it or `key` the key that "
                    f"belongs to it, got {self.certificate}"
                ) from error
        return context


def _widen(sock: socket.socket) -> None:
    # What the broker sends while a batch is processed must fit into the kernel's buffer. Setting
    # its size ends autotuning (socket(7), tcp(7)), so only where the limit leaves room.
    try:
        most = int(Path("/proc/sys/net/core/rmem_max").read_text())
    except (OSError, ValueError):
        return
    if most >= _RECEIVE_BUFFER:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)

"""Where the dashboard listens and who may look: checked before any pipeline opens."""

import ipaddress
import os
import re
import ssl
import tempfile
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from secrets import token_hex
from typing import NamedTuple

from edge.errors import DefinitionError

_ADDRESS = re.compile(r"(?P<host>\[[0-9a-fA-F:.%]+\]|[^:\s\[\]]+):(?P<port>\d{1,5})")
_SHORTEST = 16  # characters of a token that nobody guesses
_NEEDS = ("starlette", "uvicorn", "prometheus_client")


class Settings(NamedTuple):
    """host, port: where to listen, 0 for any free port. token: who shows it may look."""

    host: str
    port: int
    token: str | None = None
    tls: ssl.SSLContext | None = None

    @property
    def by_certificate(self) -> bool:
        """Whether only who has a certificate gets as far as to ask."""
        return self.tls is not None and self.tls.verify_mode == ssl.CERT_REQUIRED

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def settings(
    address: str,
    *,
    token: str | None = None,
    token_file: Path | None = None,
    certificate: Path | None = None,
    key: Path | None = None,
    client_ca: Path | None = None,
) -> Settings:
    """What `--http` and its companions say. Raises DefinitionError for what is not safe.

    token_file: holds the token; made with a new one where it does not exist, OSError where that
    cannot be. client_ca: only who has a certificate of this authority gets in.
    """
    _check_installed()
    found = _ADDRESS.fullmatch(address)
    if not found or int(found["port"]) > 65535:
        raise DefinitionError(
            f"--http: must be an address and a port such as 127.0.0.1:8080, got {address!r}"
        )
    if token_file is not None and token is None:
        token = _token_of(token_file)
    if token is not None and len(token) < _SHORTEST:
        raise DefinitionError(
            f"EDGE_HTTP_TOKEN: must have at least {_SHORTEST} characters, got {len(token)}; "
            "`openssl rand -hex 16` makes one"
        )
    tls = _tls(certificate, key, client_ca)
    made = Settings(found["host"].strip("[]"), int(found["port"]), token, tls)
    if not (made.loopback or token or client_ca):
        raise DefinitionError(
            f"--http: {made.host} can be reached from other machines, and everybody there could "
            "look; set EDGE_HTTP_TOKEN, or EDGE_HTTP_TOKEN_FILE (made where there is none), or "
            "--http-client-ca, or listen on 127.0.0.1"
        )
    return made


def _check_installed() -> None:
    if missing := [name for name in _NEEDS if find_spec(name) is None]:
        raise DefinitionError(
            f"--http: {', '.join(missing)} is not installed; pip install 'PATH-OF-THE-CLONE[http]'"
        )


def _token_of(file: Path) -> str:
    """What the file holds; a new token where there is none, whole or not at all."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        number, made = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}-")  # for us alone
        try:
            with os.fdopen(number, "w") as text:
                text.write(token_hex(16) + "\n")
                text.flush()
                os.fsync(number)
            with suppress(FileExistsError):  # another processor was first: its token it is
                os.link(made, file)
        finally:
            os.unlink(made)
    return file.read_text().strip()


def _tls(
    certificate: Path | None, key: Path | None, client_ca: Path | None
) -> ssl.SSLContext | None:
    if certificate is None:
        if key or client_ca:
            raise DefinitionError("--http-key and --http-client-ca need --http-certificate")
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise DefinitionError(
            f"--http-certificate: {certificate} and {key or 'no key'} cannot be used: {error}; "
            "both must be PEM files of one pair"
        ) from error
    if client_ca is not None:
        try:
            context.load_verify_locations(client_ca)
        except (OSError, ssl.SSLError) as error:
            raise DefinitionError(
                f"--http-client-ca: {client_ca} cannot be used: {error}; must be a PEM file"
            ) from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context

"""Nothing listens beyond this machine without a token or a certificate."""

import errno
import ssl
from pathlib import Path
from typing import Any

import pytest

from edge.dashboard.settings import settings
from edge.errors import DefinitionError
from tests.certificates import Certificates

TOKEN = "0123456789abcdef"


@pytest.mark.parametrize("address", ["127.0.0.1:0", "127.9.9.9:80", "localhost:8080", "[::1]:8080"])
def test_this_machine_may_look_without_a_token(address: str) -> None:
    assert settings(address).token is None


@pytest.mark.parametrize("address", ["0.0.0.0:8080", "[::]:8080", "192.168.1.7:80", "plant:80"])
def test_other_machines_need_a_token(address: str) -> None:
    with pytest.raises(DefinitionError, match="everybody there could look; set EDGE_HTTP_TOKEN"):
        settings(address)
    assert settings(address, token=TOKEN).token == TOKEN


@pytest.mark.parametrize(
    "address", ["8080", "127.0.0.1", ":80", "::1:80", "a:b", "127.0.0.1:65536"]
)
def test_an_address_is_a_host_and_a_port(address: str) -> None:
    with pytest.raises(DefinitionError, match=r"such as 127\.0\.0\.1:8080, got "):
        settings(address)


def test_a_token_that_can_be_guessed_is_refused() -> None:
    with pytest.raises(DefinitionError, match="at least 16 characters, got 5"):
        settings("0.0.0.0:80", token="admin")


def test_a_token_file_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "state" / "http-token"
    made = settings("0.0.0.0:80", token_file=file).token
    assert made is not None
    assert len(made) == 32
    assert file.stat().st_mode & 0o777 == 0o600
    assert settings("0.0.0.0:80", token_file=file).token == made
    assert settings("0.0.0.0:80", token=TOKEN, token_file=file).token == TOKEN


def test_a_token_file_that_cannot_be_made_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        settings("0.0.0.0:80", token_file=tmp_path / "http-token")
    assert [*tmp_path.iterdir()] == []


def test_an_empty_token_file_lets_nobody_in(tmp_path: Path) -> None:
    file = tmp_path / "http-token"
    file.touch()
    with pytest.raises(DefinitionError, match="at least 16 characters, got 0"):
        settings("0.0.0.0:80", token_file=file)


def test_a_client_certificate_is_asked_for(tmp_path: Path) -> None:
    made = Certificates(tmp_path)
    files: dict[str, Any] = {"certificate": made.server, "key": made.server_key}
    with pytest.raises(DefinitionError, match="EDGE_HTTP_TOKEN"):
        settings("0.0.0.0:80", **files)
    given = settings("0.0.0.0:80", **files, client_ca=made.ca)
    assert given.tls is not None
    assert given.tls.verify_mode == ssl.CERT_REQUIRED
    assert given.by_certificate


def test_files_that_are_no_certificates_are_refused(tmp_path: Path) -> None:
    rubbish = tmp_path / "rubbish.pem"
    rubbish.write_text("rubbish")
    with pytest.raises(DefinitionError, match=r"--http-certificate: .*rubbish\.pem.*PEM files"):
        settings("127.0.0.1:80", certificate=rubbish, key=rubbish)
    with pytest.raises(DefinitionError, match="need --http-certificate"):
        settings("127.0.0.1:80", client_ca=rubbish)

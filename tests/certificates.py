"""Certificates of a test's own authority: a server's for localhost, and a client's."""

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Certificates:
    """PEM files in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca, self.ca_key = folder / "ca.pem", folder / "ca.key"
        self.server, self.server_key = folder / "server.pem", folder / "server.key"
        self.client, self.client_key = folder / "client.pem", folder / "client.key"
        authority_key = ec.generate_private_key(ec.SECP256R1())
        authority = _signed("edge test authority", authority_key, None, authority_key)
        _write(authority, authority_key, self.ca, self.ca_key)
        self._authority = authority, authority_key
        self.issue("localhost", self.server, self.server_key)
        self.issue("sensor", self.client, self.client_key)

    def issue(self, name: str, path: Path, key_path: Path, since: float = -0.1) -> None:
        """A certificate for `name` that holds for a day, `since` so many days from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        _write(_signed(name, key, *self._authority, since=since), key, path, key_path)

    @property
    def mosquitto(self) -> str:
        """Configuration lines of a listener that wants a client certificate."""
        return (
            f"cafile {self.ca}\ncertfile {self.server}\nkeyfile {self.server_key}\n"
            "require_certificate true"
        )


def _signed(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    authority: x509.Certificate | None,
    authority_key: ec.EllipticCurvePrivateKey,
    since: float = -0.1,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    start = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=since)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(authority.subject if authority else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    )
    return builder.sign(authority_key, hashes.SHA256())


def _write(
    certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey, path: Path, key_path: Path
) -> None:
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )

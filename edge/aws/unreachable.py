"""Why AWS cannot be reached: what the network says, and what to do about it."""

import ssl
from collections.abc import Iterator
from errno import ECONNREFUSED, EHOSTUNREACH, ENETUNREACH
from socket import gaierror
from typing import NamedTuple
from urllib.parse import urlsplit

# Of OpenSSL's x509_vfy.h.
_NOT_YET_VALID, _EXPIRED, _OTHER_NAMES = 9, 10, (62, 64)
_BETWEEN = "a captive portal or a proxy that opens TLS is in between: log in to it"


class Reason(NamedTuple):
    """What is wrong, and what to do."""

    what: str
    remedy: str


def explain(error: Exception) -> Reason:
    """The reason behind an exception of botocore's that is not an answer of AWS."""
    from botocore import exceptions as boto

    known = getattr(error, "kwargs", {})
    place = _place(str(known.get("endpoint_url", "")))
    match error:
        case boto.ProxyConnectionError():
            return _proxy(known)
        case boto.SSLError():
            return _tls(error, place)
        case boto.EndpointConnectionError():
            return _no_connection(error, place)
        case boto.ConnectTimeoutError():
            return Reason(
                f"{place} does not answer", "check network, firewall, endpoint_url and HTTPS_PROXY"
            )
        case boto.ReadTimeoutError():
            return Reason(
                f"{place} was reached, but did not answer in time",
                "the line is broken or too slow, check the network if this lasts",
            )
        case boto.ConnectionClosedError():
            return Reason(f"the connection to {place} broke", "check the network if this lasts")
    return Reason(shortened(str(error)) or type(error).__name__, "check the network if this lasts")


def shortened(text: str, most: int = 200) -> str:
    """One line of at most `most` characters: others' words may be a whole page."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 3] + "..."


def _place(url: str) -> str:
    return urlsplit(url).netloc or "the service"


def _proxy(known: dict[str, object]) -> Reason:
    said = str(known.get("error"))
    name = f"the proxy {known.get('proxy_url')}"  # user and password are masked by botocore
    if "407" in said:
        return Reason(f"{name} wants a name and a password", "put them into HTTPS_PROXY")
    if "Tunnel connection failed" in said:
        answer = shortened(said.partition("Tunnel connection failed: ")[2].rstrip("')"))
        return Reason(f"{name} lets nothing through ({answer})", "look at its rules")
    return Reason(f"{name} cannot be reached", "start it, or correct HTTPS_PROXY")


def _tls(error: Exception, place: str) -> Reason:
    known = list(causes(error))
    found = next((each for each in known if isinstance(each, ssl.SSLCertVerificationError)), None)
    other_name = any(isinstance(each, _other_name()) for each in known)
    if other_name or (found and found.verify_code in _OTHER_NAMES):
        return Reason(f"{place} shows the certificate of somebody else", _BETWEEN)
    if found is None:
        return Reason(f"{place} does not speak TLS as it should", _BETWEEN)
    if found.verify_code == _NOT_YET_VALID:
        return Reason(
            f"the certificate of {place} is not valid yet by the clock of this machine",
            "set its clock, best by NTP",
        )
    if found.verify_code == _EXPIRED:
        return Reason(
            f"the certificate of {place} has expired by the clock of this machine",
            "check the clock, then who renews the certificate",
        )
    return Reason(
        f"{place} shows a certificate that nobody trusted here has signed",
        f"{_BETWEEN}, or set AWS_CA_BUNDLE to the authority that is to be trusted",
    )


def _other_name() -> type[Exception]:
    from urllib3.util.ssl_match_hostname import CertificateError  # it compares names by itself

    return CertificateError


def _no_connection(error: Exception, place: str) -> Reason:
    number = next((e.errno for e in causes(error) if isinstance(e, OSError) and e.errno), None)
    if any(isinstance(each, gaierror) for each in causes(error)):
        return Reason(
            f"the name {place} is not found", "check the network, its name server and endpoint_url"
        )
    if number == ECONNREFUSED:
        return Reason(f"{place} refuses connections", "check endpoint_url, firewall and service")
    if number in (EHOSTUNREACH, ENETUNREACH):
        return Reason(f"no way leads to {place}", "check the network")
    return Reason(f"{place} cannot be connected to", "check the network")


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error and all that led to it: botocore and urllib3 wrap one into the other."""
    waiting: list[object] = [error]
    seen: set[int] = set()
    while waiting:
        each = waiting.pop()
        if not isinstance(each, BaseException) or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        kwargs = getattr(each, "kwargs", None) or {}
        waiting += [*each.args, each.__cause__, each.__context__, kwargs.get("error")]

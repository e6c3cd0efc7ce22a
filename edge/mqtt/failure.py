"""Why a connection failed: what the system says, in a sentence that ends with what to do."""

import re
import ssl
from errno import EHOSTUNREACH, ENETUNREACH
from socket import gaierror

# Of OpenSSL's x509_vfy.h.
_NOT_YET_VALID, _EXPIRED = 9, 10
_WRONG_HOST = (62, 64)
_NUMBERS = re.compile(r"^\[[^]]*\] |^_ssl\.c:\d+: | \(_ssl\.c:\d+\)$")
_ALERTS = {
    "CERTIFICATE_REQUIRED": "the broker asks for one, set certificate and key",
    "HANDSHAKE_FAILURE": "the broker may ask for a certificate, set certificate and key",
    "UNKNOWN_CA": "the broker does not trust our certificate",
    "BAD_CERTIFICATE": "the broker does not trust our certificate",
    "CERTIFICATE_EXPIRED": "our certificate is too old for the broker",
    "WRONG_VERSION_NUMBER": "does that port speak TLS?",
}


def explain(error: OSError, secure: bool) -> str:
    """The sentence for an attempt to connect; secure: it was with TLS."""
    said = spoken(error)
    match error:
        case ssl.SSLCertVerificationError(verify_code=code) if code in _WRONG_HOST:
            return f"{said}; use a name of that certificate in url"
        case ssl.SSLCertVerificationError(verify_code=code) if code == _EXPIRED:
            return f"{said}; check the clock of this machine, then renew the broker's certificate"
        case ssl.SSLCertVerificationError(verify_code=code) if code == _NOT_YET_VALID:
            return f"{said} by the clock of this machine; set it, best by NTP"
        case ssl.SSLCertVerificationError():
            return f"{said}; set ca to the certificate of the broker's authority"
        case ssl.SSLEOFError() | ConnectionResetError() | ConnectionAbortedError():
            speaks = "speak TLS" if secure else "speak MQTT, without TLS"
            return f"{said} while connecting; does that port {speaks}?"
        case ConnectionRefusedError():
            return f"{said}; is the broker running on that host and port?"
        case gaierror():
            return f"the host is not found: {said}; check url and the name server"
        case TimeoutError():
            return f"{said} while connecting; check host, port, network and firewalls"
        case OSError(errno=number) if number in (EHOSTUNREACH, ENETUNREACH):
            return f"{said}; check the network"
    return said


def spoken(error: OSError) -> str:
    """The system's own words without its numbers; an alert of TLS with what it asks for."""
    said = _NUMBERS.sub("", _NUMBERS.sub("", error.strerror or str(error))).rstrip(".")
    reason = error.reason or "" if isinstance(error, ssl.SSLError) else ""
    remedy = next((text for alert, text in _ALERTS.items() if reason.endswith(alert)), None)
    return f"{said}; {remedy}" if remedy else said


def is_alert(error: BaseException | None) -> bool:
    """Whether the other side gave a reason, in TLS."""
    return isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or "")

"""The dashboard as what runs beside pipelines, by an address and what the environment says."""

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from edge.dashboard.settings import settings
from edge.secrets import Secrets

if TYPE_CHECKING:
    from edge.dashboard.server import Dashboard

log = logging.getLogger("edge.dashboard")


def dashboards(
    address: str,
    secrets: Secrets,
    certificate: Path | None = None,
    key: Path | None = None,
    client_ca: Path | None = None,
) -> "list[Dashboard]":
    """One that listens on `address`; none where the file of its token cannot be made or read.

    What is left out is that of EDGE_HTTP_CERTIFICATE, EDGE_HTTP_KEY and EDGE_HTTP_CLIENT_CA; the
    token is that of EDGE_HTTP_TOKEN or EDGE_HTTP_TOKEN_FILE. Raises DefinitionError for what is
    not safe.
    """
    file = _file("TOKEN_FILE")
    try:
        given = settings(
            address,
            token=os.environ.get("EDGE_HTTP_TOKEN") or None,
            token_file=file,
            certificate=certificate or _file("CERTIFICATE"),
            key=key or _file("KEY"),
            client_ca=client_ca or _file("CLIENT_CA"),
        )
    except OSError as error:  # a full disk must not keep a processor from starting
        log.error("http: is off, %s cannot be made or read: %s", file, error.strerror)
        return []
    from edge.dashboard.server import Dashboard  # settings has said by now what is not installed

    return [Dashboard(given, secrets)]


def _file(name: str) -> Path | None:
    value = os.environ.get(f"EDGE_HTTP_{name}")
    return Path(value) if value else None

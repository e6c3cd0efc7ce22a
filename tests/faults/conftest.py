"""Fixtures of the tests of faults."""

import pytest

from edge.aws import service as aws


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short timeouts, and boto3 tries again at once."""
    monkeypatch.setattr(aws, "CONNECT_TIMEOUT", 0.3)
    monkeypatch.setattr(aws, "READ_TIMEOUT", 0.3)
    backoff = "botocore.retries.standard.ExponentialBackoff.delay_amount"
    monkeypatch.setattr(backoff, lambda *_: 0.0)
    monkeypatch.setattr("botocore.utils.ContainerMetadataFetcher.SLEEP_TIME", 0)

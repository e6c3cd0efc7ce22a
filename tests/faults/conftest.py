"""Fixtures of the tests of faults."""

import pytest
from urllib3.util.wait import wait_for_read


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """boto3 tries again at once."""
    backoff = "botocore.retries.standard.ExponentialBackoff.delay_amount"
    monkeypatch.setattr(backoff, lambda *_: 0.0)
    monkeypatch.setattr("botocore.utils.ContainerMetadataFetcher.SLEEP_TIME", 0)
    monkeypatch.setattr("urllib3.util.wait_for_read", _briefly)


def _briefly(sock: object, _: float) -> bool:
    """How long boto3 waits for `100 Continue` before it sends the body all the same."""
    return bool(wait_for_read(sock, 0.1))

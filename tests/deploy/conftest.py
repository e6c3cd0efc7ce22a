"""Fixtures of the tests of deployments."""

import pytest

from tests.cloud import Cloud
from tests.deploy.aws import Aws


@pytest.fixture
def aws(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Aws:
    """An account with nothing in it, which whatever is tested finds by its environment."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", cloud.url)
    made = Aws(cloud)
    monkeypatch.setattr("edge.deploy.account.open_session", made.session)
    return made

"""Fixtures that several test modules share."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.search import examples

if TYPE_CHECKING:
    from tests.cloud import Cloud
    from tests.engine import Engine

settings.register_profile("edge", examples(100))
settings.load_profile("edge")

LONGEST = ("test_soak.py", "test_kills.py", "test_power.py", "test_offline.py", "test_demo.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest ones first, so that at the end nobody waits for one of them alone."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Whatever a test needs can be installed, so in CI one that was skipped has failed."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def cloud_server() -> "Iterator[Cloud]":
    from tests.cloud import Cloud  # moto costs a second, only for those who need it

    with Cloud() as cloud:
        yield cloud


@pytest.fixture(scope="session")
def engine() -> "Iterator[Engine]":
    """A real Docker engine."""
    from tests.engine import running  # half a second, only for those who need it

    with running() as engine:
        yield engine


@pytest.fixture
def cloud(cloud_server: "Cloud", credentials: None) -> "Iterator[Cloud]":
    """S3, SQS and STS over HTTP, empty, with credentials for them in the environment."""
    cloud_server.reset()
    yield cloud_server
    cloud_server.mend()


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keys and a region in the environment, nothing of this machine's own AWS configuration."""
    from edge.aws import service as aws

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    settings = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    aws._new_session.cache_clear()
    yield
    aws._new_session.cache_clear()

"""The hybrid example on a real engine: each row once, whatever happened."""

from pathlib import Path

from edge.deploy.site import load_site
from edge.deploy.validate import check_target
from edge.deploy.workload import load_workload
from tests.cloud import Cloud
from tests.containers.conftest import Image
from tests.containers.hybrid import SITES, Hybrid, parts, story
from tests.engine import Engine


def test_each_row_of_the_share_is_in_the_cloud_once(
    engine: Engine, image: Image, cloud: Cloud, tmp_path: Path
) -> None:
    with Hybrid(engine, image.tag, cloud, tmp_path) as hybrid:
        found = story(hybrid, lambda words: None)
        claims = hybrid.cloud.objects("inspection-claims")
    assert set(found) == parts()
    assert set(found.values()) == {1}
    assert len(claims) == 1  # the one that no message can hold


def test_the_same_files_are_for_a_host_and_for_fargate() -> None:
    for name, target in (("share-collector", "ecs-anywhere"), ("share-aggregator", "fargate")):
        site = load_site(SITES / f"{name}.yaml", {})
        assert site.target == target
        check_target(site)
        asked = {action for each in load_workload(site).permissions() for action in each.actions}
        assert {"s3:GetObject"} < asked

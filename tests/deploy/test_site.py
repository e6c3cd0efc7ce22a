"""A site file is read as a definition is: every fault at once, with its line and the remedy."""

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from edge.deploy.site import load_site, site_schema
from edge.deploy.validate import check_target
from edge.deploy.workload import load_workload
from edge.errors import DefinitionError
from edge.pipeline.document import parse
from tests.deploy.sites import SITE, write

WRONG = [
    ("edge: 1", "edge: 2", ":1: edge: must be 1, got 2"),
    ("site: osaka", "site: Osaka", ":2: site: must be 1 to 32 characters of a-z, 0-9 and -"),
    ("region: eu-west-1", "region: europe", ":3: region: must be an AWS region such as"),
    ('"123456789012"\n', "123456789012\n", ":4: account: must be text, got 123456789012; quote it"),
    ("cluster: plants", "cluster: a b", ":5: cluster: must be the name of an ECS cluster"),
    ("target: ecs-anywhere", "target: ecs", ":6: target: must be 'ecs-anywhere', 'ec2',"),
    ("edge:1.4.2", "edge", ":7: image: must be an image with a tag or a digest"),
    ("edge:1.4.2", "edge:latest", ":7: image: must have a tag that is never moved"),
    ("[press.yaml]", "[]", ":8: pipelines: must not be empty"),
    ("names: [gw-1]", "names: [gw-1, gw-1]", ":9: hosts: two hosts have one name"),
    ("names: [gw-1]", "names: [gw-1], count: 2", ":9: hosts: must have names or a count, got both"),
    ("cpu: 256", "cpu: 1", ":10: resources.cpu: must be at least 128, got 1"),
    ("memory: 256MiB", "memory: 1MiB", ":10: resources.memory: must be at least 128MiB"),
    ("PLANT: osaka", "EDGE_SITE: a", ":11: environment.EDGE_SITE: 'EDGE_SITE' is set by the depl"),
    ("PLANT: osaka", "AWS_SECRET_ACCESS_KEY: a", "is a credential; leave it out"),
    ("PLANT: osaka", "MQTT_PASSWORD: a", ":11: environment.MQTT_PASSWORD: is among the secrets"),
    (
        '"arn:aws:ssm:eu-west-1:123456789012:parameter/mqtt"',
        "pass",
        ":12: secrets.MQTT_PASSWORD: mu",
    ),
    ("mode: bridge", "mode: nat", ":13: network.mode: must be 'bridge', 'host', 'none' or"),
    ("retention: 30d", "retention: 31d", ":14: logs.retention: must be one of 1d, 3d,"),
    ("outbox: /var/lib/edge", "outbox: var", ":15: outbox: must be an absolute path such as"),
    (
        "outbox: /var/lib/edge",
        "outbox: /var/lib/ecs/edge",
        ":15: outbox: must not lie in /var/lib/e",
    ),
    ("stop_timeout: 60s", "stop_timeout: 60", ":16: stop_timeout: must be a duration such as"),
    ("container: /in", "container: in", ":17: mounts.0.container: must be an absolute path"),
    ("queues, buckets", "queue", ":18: create.1: must be 'repository', 'queues' or 'buckets'"),
    ("cluster: plants", "clustr: plants", ":5: no option is called 'clustr'; did you mean"),
    ("cluster: plants", "load_balancers: []", ":5: load_balancers: has nothing to lead to"),
    ("site: osaka\n", "", ":1: site: is missing; add `site:`"),
    ("gw-1", '"${HOST}"', ":9: hosts.names.0: the environment has no HOST; set it"),
]


@pytest.mark.parametrize(("old", "new", "words"), WRONG, ids=[new for _, new, _ in WRONG])
def test_one_wrong_field_is_one_line_with_its_place(
    tmp_path: Path, old: str, new: str, words: str
) -> None:
    assert old in SITE
    file = write(tmp_path, SITE.replace(old, new, 1))

    with pytest.raises(DefinitionError) as raised:
        load_site(file, {})

    (line,) = str(raised.value).splitlines()
    assert line.startswith(f"{file}")
    assert words in line


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    text = SITE.replace("region: eu-west-1", "region: x").replace("cpu: 256", "cpu: 1")
    with pytest.raises(DefinitionError) as raised:
        load_site(write(tmp_path, text), {})
    assert [fault.line for fault in raised.value.faults] == [3, 10]


def test_the_sites_that_come_with_the_project_can_be_deployed() -> None:
    for file in Path("deploy/sites").glob("*.yaml"):
        site = load_site(file, {})
        assert site == load_site(file.stem, {})
        check_target(site)
        assert load_workload(site).permissions()


def test_a_host_runs_what_its_attributes_say(tmp_path: Path) -> None:
    text = SITE.replace("names: [gw-1]", "count: 2, where: 'attribute:rack == a'")
    site = load_site(write(tmp_path, text.replace("region:", "architecture: arm64\nregion:")), {})

    assert site.hosts.replicas() == ("0", "1")
    assert site.service("1") == "edge-osaka-1"
    assert site.constraint("1") == (
        "attribute:site == osaka and attribute:replica == 1"
        " and attribute:ecs.cpu-architecture == arm64 and (attribute:rack == a)"
    )


def test_the_schema_takes_and_refuses_what_the_loader_does() -> None:
    schema = site_schema()
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    for text in (SITE, *(file.read_text() for file in Path("deploy/sites").glob("*.yaml"))):
        values = json.loads(json.dumps(parse("site.yaml", text, {})[0].values))
        assert [error.message for error in validator.iter_errors(values)] == []
    for old, new, _ in WRONG[:8]:
        values = parse("site.yaml", SITE.replace(old, new, 1), {})[0].values
        assert not validator.is_valid(values) or "latest" in new

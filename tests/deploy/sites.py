"""A site to test with: its file, its pipelines."""

from collections.abc import Mapping
from pathlib import Path

from edge.deploy.site import Site, load_site

PIPELINE = """\
edge: 1
name: press
site: ${EDGE_SITE:-local}
replica: ${EDGE_REPLICA:-0}
source:
  mqtt:
    url: mqtt://broker.plant:1883
    topics: ["plant/{line}/temperature"]
    username: edge
    password: ${MQTT_PASSWORD:-none}
record: {fields: {temperature: float}}
sinks:
  lake:
    s3: {bucket: plant-lake, prefix: readings/}
  alarms:
    when: temperature > 80
    sqs: {queue: plant-alarms}
"""

SITE = """\
edge: 1
site: osaka
region: eu-west-1
account: "123456789012"
cluster: plants
target: ecs-anywhere
image: 123456789012.dkr.ecr.eu-west-1.amazonaws.com/edge:1.4.2
pipelines: [press.yaml]
hosts: {names: [gw-1]}
resources: {cpu: 256, memory: 256MiB}
environment: {PLANT: osaka}
secrets: {MQTT_PASSWORD: "arn:aws:ssm:eu-west-1:123456789012:parameter/mqtt"}
network: {mode: bridge}
logs: {retention: 30d}
outbox: /var/lib/edge
stop_timeout: 60s
mounts: [{host: /srv/data, container: /in}]
create: [repository, queues, buckets]
"""


NUMBERS = """\
edge: 1
name: numbers
site: ${EDGE_SITE:-local}
replica: ${EDGE_REPLICA:-0}
source:
  metrics: {every: 1m}
record: {key: [site, replica, pipeline, sink]}
sinks:
  cloud:
    cloudwatch: {namespace: edge}
"""

ALARMS = "alarms: {notify: ['arn:aws:sns:eu-west-1:123456789012:plant']}\n"
MEASURED = SITE.replace("[press.yaml]", "[press.yaml, numbers.yaml]") + ALARMS
"""The site with alarms, and the pipeline that puts numbers there."""


def write(folder: Path, site: str = SITE, pipeline: str = PIPELINE) -> Path:
    """The site file, with its pipeline beside it."""
    (folder / "press.yaml").write_text(pipeline)
    (folder / "numbers.yaml").write_text(NUMBERS)
    file = folder / "osaka.yaml"
    file.write_text(site)
    return file


def make(folder: Path, changes: Mapping[str, str] = {}, pipeline: str = PIPELINE) -> Site:
    """The site with some of its text replaced."""
    text = SITE
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    return load_site(write(folder, text, pipeline), {})

"""What a real processor costs while its links are down, fault by fault.

`python -m tests.faults.idle [--seconds 20] [FAULT...]` starts `edge run` with a sink for S3 and one
for SQS, lets each fault last, and prints the share of a core; 1 if one is above 2 %.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cloud import Cloud
from tests.faults.test_link import FAULTS, Fault
from tests.faults.way import BUCKET, QUEUE, Way
from tests.processor import Processor

LIMIT = 0.02
ROWS = 1000
DEFINITION = """
name: idle
source: {{dataset: {{path: readings.ndjson}}}}
record: {{fields: {{n: int}}}}
sinks:
  lake: {{s3: {{bucket: {bucket}, endpoint_url: '{url}'}}, roll: {{size: 1MiB, every: 1s}}}}
  alarms: {{sqs: {{queue: {queue}, endpoint_url: '{url}'}}}}
outbox: {{path: idle}}
"""


@contextmanager
def nothing(_: Way) -> Iterator[None]:
    yield


CASES = {
    "none": Fault(nothing, ""),
    "name server gone": Fault(nothing, "", "http://cloud.invalid"),
    # The others are reached by a name of AWS, which only the tests' own process leads elsewhere.
    **{name: fault for name, fault in FAULTS.items() if fault.by not in ("name", "tls")},
}


def spent(process: int) -> float:
    """Seconds of processor time so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(name: str, folder: Path, cloud: Cloud, seconds: float) -> float:
    """Share of a core, from five seconds after both links went down."""
    fault = CASES[name]
    with pytest.MonkeyPatch.context() as patch:
        for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(key, "test")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        away = fault.by.startswith("http:")
        cloud.make_queue(QUEUE)
        with Way("s3", folder, cloud, patch, "http" if away else fault.by) as way:
            url = fault.by if away else way.url
            (folder / "readings.ndjson").write_text(
                "".join(f'{{"n": {number}}}\n' for number in range(ROWS))
            )
            definition = folder / "idle.yaml"
            definition.write_text(DEFINITION.format(bucket=BUCKET, queue=QUEUE, url=url))
            with fault.block(way), Processor(definition).running(b"source has ended") as process:
                time.sleep(5)
                before, since = spent(process.pid), time.monotonic()
                time.sleep(seconds)
                return (spent(process.pid) - before) / (time.monotonic() - since)


def main() -> int:
    """A line for each fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("faults", nargs="*", default=list(CASES))
    parser.add_argument("--seconds", type=float, default=20)
    arguments = parser.parse_args()
    shares = {}
    with Cloud() as cloud:
        for name in arguments.faults:
            cloud.reset()
            with tempfile.TemporaryDirectory() as folder:
                shares[name] = measure(name, Path(folder), cloud, arguments.seconds)
            print(f"{shares[name]:6.2%}  {name}", flush=True)
    return int(max(shares.values()) > LIMIT)


if __name__ == "__main__":
    sys.exit(main())

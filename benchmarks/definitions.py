"""The definitions the product runs here, written for each measurement."""

from pathlib import Path
from typing import NamedTuple

from benchmarks.readings import FIELDS, OPERATORS, ROW_FIELDS, WINDOWS

NEVER = "{size: 1GiB, every: 1h}"
AT_ONCE = "{size: 8MiB, every: 1s}"
"""Values of `roll`: entries stay what they are, or are rolled as soon as there is time."""
FIRST_PARCEL = 30.0
"""Seconds at 5,000 readings a second; it is made after 25 and tried, which imports boto3 once."""


class Definition(NamedTuple):
    """One MQTT pipeline into a bucket at `bucket_port` of this machine.

    roll: when entries become parcels; empty: the sink's default. form: of the objects.
    """

    name: str
    broker_port: int
    qos: int
    bucket_port: int = 1  # tcpmux: nobody listens, the link is down
    roll: str = ""
    form: str = "ndjson"
    max_size: str = "2GiB"

    def write(self, folder: Path) -> Path:
        """The definition as a file in `folder`."""
        path = folder / f"{self.name}.yaml"
        path.write_text(self._text())
        return path

    def _text(self) -> str:
        return f"""\
edge: 1
name: {self.name}
source:
  mqtt:
    url: mqtt://127.0.0.1:{self.broker_port}
    topics:
      - plant/{{line}}/{{device}}/values
    qos: {self.qos}
record:
  format: json
  time: ts
  key: device
  fields:
{FIELDS}
{OPERATORS}
sinks:
  lake:
    s3:
      bucket: bench
      prefix: readings/
      format: {self.form}
      compression: zstd
      region: eu-west-1
      endpoint_url: http://127.0.0.1:{self.bucket_port}
{f"    roll: {self.roll}" if self.roll else ""}
outbox: {{max_size: {self.max_size}}}
"""


def dataset(folder: Path, rows: Path, results: Path, windows: bool) -> Path:
    """A definition that reads the file `rows` and writes NDJSON files below `results`."""
    return _files(
        folder, "dataset", f"{{path: {rows}}}", WINDOWS if windows else OPERATORS, results
    )


def followed(folder: Path, rows: Path, results: Path) -> Path:
    """The same without windows, of every file that comes into the folder `rows`; rolled at once."""
    source = f"{{path: {rows}, follow: true}}"
    return _files(folder, "followed", source, OPERATORS, results, f"    roll: {AT_ONCE}")


def _files(
    folder: Path, name: str, source: str, operators: str, results: Path, roll: str = ""
) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(f"""\
edge: 1
name: {name}
source:
  dataset: {source}
record:
  format: json
  time: ts
  key: device
  fields:
{ROW_FIELDS}
{operators}
sinks:
  results:
    file:
      path: {results}
      format: ndjson
{roll}
outbox: {{max_size: 2GiB}}
""")
    return path

"""The arm64 image makes the same bytes of the same rows as that of amd64: `make test-arm64`."""

import sys
import tempfile
from pathlib import Path

from tests.containers.conftest import build
from tests.engine import NAME, Engine, running

DEFINITION = """
name: same
site: test
source: {dataset: {path: rows.csv}}
record: {format: csv, time: time, key: device}
operators:
  - derive: {half: value / 2, known: "value > 0"}
  - window: {size: 10m, aggregate: {mean: AVG(value), peak: MAX(value), rows: COUNT(*)}}
sinks:
  lines: {file: {path: out}, roll: {size: 64MiB, every: 1h}, identity: false}
  columns: {file: {path: out, format: parquet}, roll: {size: 64MiB, every: 1h}, identity: false}
"""


def main() -> int:
    """Build both, run both on the same file, compare what they wrote; 1 if it differs."""
    with running() as engine, tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        folder.chmod(0o755)
        rows = ["time,device,value"]
        rows += [
            f"2026-05-01T{n // 3600:02}:{n // 60 % 60:02}:{n % 60:02}Z,d{n % 7},{n * 0.37 % 50:.3f}"
            for n in range(20_000)
        ]
        (folder / "rows.csv").write_text("\n".join(rows) + "\n")
        (folder / "same.yaml").write_text(DEFINITION)
        (folder / "out").mkdir()  # what is written is mounted over it
        results = {name: _results(engine, name, folder) for name in ("amd64", "arm64")}
    first, second = results.values()
    for name, result in results.items():
        sizes = ", ".join(f"{path} {len(body)} bytes" for path, body in result.items())
        print(f"{name}: {sizes}")
    print("the same bytes" if first == second else "DIFFERENT BYTES")
    return int(not first or first != second)


def _results(engine: Engine, architecture: str, folder: Path) -> dict[str, bytes]:
    """What the image of `architecture` writes, by sink and format."""
    tag = f"{NAME}{architecture}:1"
    build(
        engine,
        tag,
        engine.base(architecture),
        "--platform",
        f"linux/{architecture}",
        "--python",
        "3.11",  # of Debian 12
        str(folder / "same.yaml"),
    )
    found = engine.client.images.get(tag)
    assert found.attrs["Architecture"] == architecture, found.attrs["Architecture"]
    with tempfile.TemporaryDirectory() as made:
        out = Path(made)
        out.chmod(0o777)
        mounts = {
            str(folder): {"bind": "/pipelines", "mode": "ro"},
            str(out): {"bind": "/pipelines/out", "mode": "rw"},
        }
        engine.client.containers.run(
            tag,
            ["run", "--once", "/pipelines/same.yaml"],
            name=f"{NAME}{architecture}",
            volumes=mounts,
            network_mode="none",
            platform=f"linux/{architecture}",
            remove=True,
        )
        files = sorted(path for path in out.rglob("*") if path.is_file())
        return {f"{_sink(path, out)}{path.suffix}": path.read_bytes() for path in files}


def _sink(path: Path, out: Path) -> str:
    return path.relative_to(out).parts[2]


if __name__ == "__main__":
    sys.exit(main())

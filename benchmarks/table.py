"""The table: what was measured, beside its baseline of the same run and the bar it has to reach."""

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Literal, NamedTuple

from benchmarks.broker import mosquitto_version


class Bar(NamedTuple):
    """What a row has to reach: its value, or its ratio to the baseline."""

    sense: Literal["at least", "at most"]
    limit: float
    of: Literal["value", "ratio"] = "value"


class Row(NamedTuple):
    """One line of the table.

    values: what each round measured, in `unit`; the row's value is their median.
    baselines: what `baseline` measured in the same rounds; the row's ratio is the median of
        value / baseline. broker: name of the broker configuration; empty where none runs.
    problem: why nothing could be measured.
    """

    benchmark: str
    measure: str
    unit: str
    values: Sequence[float] = ()
    baseline: str = ""
    baselines: Sequence[float] = ()
    bar: Bar | None = None
    broker: str = ""
    problem: str = ""

    @property
    def value(self) -> float | None:
        """Median of the rounds."""
        return median(self.values) if self.values else None

    @property
    def ratio(self) -> float | None:
        """Median of the ratios, each taken within one round: the machine drifts between rounds."""
        return median(self.ratios) if self.ratios else None

    @property
    def ratios(self) -> list[float]:
        """Value / baseline of each round; empty without a baseline."""
        if not self.values or not self.baselines or not all(self.baselines):
            return []
        return [a / b for a, b in zip(self.values, self.baselines, strict=True)]

    @property
    def verdict(self) -> str:
        """`pass`, `miss`, `failed` (not measured) or empty (no bar)."""
        if self.problem:
            return "failed"
        measured = self.value if self.bar and self.bar.of == "value" else self.ratio
        if self.bar is None or measured is None:
            return ""
        above = measured >= self.bar.limit
        reached = above if self.bar.sense == "at least" else measured <= self.bar.limit
        return "pass" if reached else "miss"


_MANY = 10  # rounds
_HEAD = ("benchmark", "broker", "measured", "value", "baseline", "ratio", "bar", "")


def render(rows: Sequence[Row], machine: dict[str, Any]) -> str:
    """The table as Markdown that lines up in a terminal, under a line that names the machine."""
    cells = [_HEAD, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(_HEAD))]
    lines = [_line(line, widths) for line in cells]
    lines.insert(1, "|".join(["", *("-" * (width + 2) for width in widths), ""]))
    kind = ", ".join(f"{name} {value}" for name, value in machine.items())
    return "\n".join([f"Machine: {kind}", "", *lines, *_problems(rows)])


def write_json(path: Path, rows: Sequence[Row], machine: dict[str, Any]) -> None:
    """The same as JSON, every round's value included."""
    listed = [
        {**row._asdict(), "bar": row.bar and row.bar._asdict()}
        | {"value": row.value, "ratio": row.ratio, "verdict": row.verdict}
        for row in rows
    ]
    path.write_text(json.dumps({"machine": machine, "rows": listed}, indent=2) + "\n")


def describe_machine(folder: Path) -> dict[str, Any]:
    """The kind of machine this is, as far as it moves the numbers; `folder` is on the disk used."""
    info = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in info if "model name" in line), "unknown")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    disk = ["stat", "--file-system", "--format=%T", str(folder)]
    return {
        "kind": platform.machine(),
        "processor": model,
        "cores": os.cpu_count(),
        "memory": f"{memory / 1e9:.0f} GB",
        "kernel": platform.release(),
        "disk": subprocess.run(disk, capture_output=True, text=True).stdout.strip(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "mosquitto": mosquitto_version(),
        **{name: version(name) for name in ("polars", "paho-mqtt")},
    }


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.benchmark,
        row.broker,
        row.measure,
        "" if row.value is None else f"{_number(row.value)} {row.unit}",
        f"{row.baseline} {_number(median(row.baselines))}" if row.baselines else "",
        _ratio(row.ratios),
        _bar(row),
        row.verdict,
    )


def _ratio(ratios: Sequence[float]) -> str:
    """The median; of many rounds with its quartiles, and as fine as they let it be."""
    if not ratios:
        return ""
    if len(ratios) < _MANY:
        return f"{median(ratios):.2f}"
    low, middle, high = quantiles(ratios, n=4)
    return f"{middle:.3f} ({low:.3f}-{high:.3f})"


def _bar(row: Row) -> str:
    if row.bar is None:
        return ""
    sign = "≥" if row.bar.sense == "at least" else "≤"
    if row.bar.of == "ratio":
        return f"ratio {sign} {row.bar.limit:.3g}"
    return f"{sign} {_number(row.bar.limit)} {row.unit}"


def _number(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}" if abs(value) >= 100 else f"{value:.3g}"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(c.ljust(w) for c, w in zip(cells, widths, strict=True)) + " |"


def _problems(rows: Sequence[Row]) -> list[str]:
    told = list(dict.fromkeys(f"{row.benchmark}: {row.problem}" for row in rows if row.problem))
    return ["", *told] if told else []

"""A processor that polars cannot run on is told before polars dies of it."""

import os
import subprocess
import sys
from pathlib import Path

from edge import cpu

OWN = "/proc/cpuinfo"


def without(flag: str, target: Path) -> Path:
    text = (
        "processor : 0\nflags\t\t: fpu pni ssse3 fma cx16 sse4_1 sse4_2 movbe popcnt pclmulqdq avx"
    )
    text += " bmi1 bmi2 avx2 abm\n"
    target.write_text(text.replace(f" {flag} ", " "))
    return target


def test_what_is_missing_has_polars_names(tmp_path: Path) -> None:
    assert cpu.missing(without("nothing", tmp_path / "all")) == []
    assert cpu.missing(without("avx2", tmp_path / "old")) == ["avx2"]
    assert cpu.missing(without("cx16", tmp_path / "older")) == ["cmpxchg16b"]


def test_where_nobody_can_tell_nothing_is_missing(tmp_path: Path) -> None:
    (tmp_path / "arm").write_text("processor : 0\nFeatures : fp asimd\n")
    assert cpu.missing(tmp_path / "arm") == []
    assert cpu.missing(tmp_path / "none") == []


def test_a_command_on_such_a_processor_ends_with_the_remedy(tmp_path: Path) -> None:
    cpuinfo = without("avx2", tmp_path / "cpuinfo")
    script = f"mount --bind {cpuinfo} {OWN} && exec {sys.executable} -m edge list"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert "lacks avx2" in done.stderr
    assert "--cpu compat" in done.stderr

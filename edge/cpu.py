"""Whether this processor can run the machine code of the installed polars."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")

_RUNTIMES = ("_polars_runtime_compat", "_polars_runtime_64", "_polars_runtime_32")
"""In the order in which polars looks for them."""
_AS_LINUX_SAYS = {
    "sse3": "pni",
    "sse4.1": "sse4_1",
    "sse4.2": "sse4_2",
    "cmpxchg16b": "cx16",
    "lzcnt": "abm",
}


def missing(cpuinfo: Path = CPUINFO) -> list[str]:
    """What polars needs and the processor lacks, as `avx2`; empty where nobody can tell.

    Costs no import of polars, which would die of an illegal instruction.
    """
    needed = _needed()
    try:
        text = cpuinfo.read_text(encoding="ascii", errors="replace")
    except OSError:
        return []
    lines = [line for line in text.splitlines() if line.startswith("flags")]
    if not lines:  # not x86-64: there polars needs nothing that could be missing
        return []
    present = set(lines[0].partition(":")[2].split())
    return [name for name in needed if _AS_LINUX_SAYS.get(name, name) not in present]


def _needed() -> list[str]:
    for name in _RUNTIMES:
        if find_spec(name) is not None:
            flags = str(import_module(name).BUILD_FEATURE_FLAGS).split(",")
            return [flag[1:] for flag in flags if flag.startswith("+") and flag != "+crt-static"]
    return []

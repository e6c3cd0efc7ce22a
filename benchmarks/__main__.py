"""Runs the benchmarks named on the command line, or all, and prints one table."""

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks import backlog, dataset, drain, flood, outage, steady, storage, watched
from benchmarks.plan import Plan
from benchmarks.table import Row, describe_machine, render, write_json

BENCHMARKS: Mapping[str, Callable[[Plan], list[Row]]] = {
    "qos0": flood.qos0,
    "qos1": flood.qos1,
    "window": flood.window,
    "rejects": flood.rejects,
    "tap": flood.tap,
    "steady": steady.steady_load,
    "devices": steady.devices,
    "idle": steady.idle,
    "http": watched.watched,
    "keys": watched.keys,
    "dataset": dataset.whole_file,
    "windows": dataset.windows,
    "storage": storage.at_rest,
    "offline": outage.offline,
    "drain": drain.drain,
    "backlog": backlog.backlog,
}
_NAMES = ", ".join(BENCHMARKS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1 if something could not be measured; a missed bar is a result, not a failure."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(BENCHMARKS):
        parser.error(f"no benchmark is called {', '.join(unknown)}; known are {_NAMES}")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="edge-bench-", dir=options.folder) as folder:
        machine = describe_machine(Path(folder))
        plan = Plan(
            _thousands(options.messages),
            options.rounds,
            options.seconds,
            Path(folder),
            options.hours,
            round(options.backlog * 2**30),
        )
        for name in options.names or BENCHMARKS:
            print(f"{name}: {BENCHMARKS[name].__doc__}", file=sys.stderr)
            rows += BENCHMARKS[name](plan)
    print(render(rows, machine))
    if options.json:
        write_json(options.json, rows, machine)
    return 1 if any(row.problem for row in rows) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="What edge costs, beside what else one could run."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {_NAMES}; default: all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the table as JSON")
    parser.add_argument(
        "--messages", type=int, default=500_000, help="of a flood (default: %(default)s)"
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="turns of each contender (default: %(default)s)"
    )
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="of a steady load (default: %(default)s)"
    )
    parser.add_argument(
        "--hours",
        type=float,
        default=2.4,
        help="of an outage; 24 takes 10 min (default: %(default)s)",
    )
    parser.add_argument(
        "--backlog", type=float, default=2.0, help="at a start, in GiB (default: %(default)s)"
    )
    parser.add_argument(
        "--folder", type=Path, default=Path("/var/tmp"), help="on a disk (default: %(default)s)"
    )
    return parser


def _thousands(messages: int) -> int:
    """The hand-written loop commits every 1000 and would never show the rest."""
    return max(1, round(messages / 1000)) * 1000


if __name__ == "__main__":
    sys.exit(main())

"""What takes its time says how far it is; Ctrl-C leaves things right; the shell knows what fits."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edge.outbox import inspection
from tests.cli.conftest import Edge
from tests.cli.terminal import on_a_terminal

EDGE = str(Path(sys.executable).parent / "edge")


@pytest.fixture
def full(press: Path) -> Path:
    """The outbox of a pipeline whose files cannot be written: three rows wait for two sinks."""
    (press.parent / "out").write_text("a file is no folder")
    (press.parent / "hot").write_text("a file is no folder")
    command = [sys.executable, "-m", "edge", "run", press.name]
    with subprocess.Popen(command, cwd=press.parent, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert any(b"the source has ended" in line for line in process.stderr)
        process.send_signal(signal.SIGINT)
        process.stderr.read()
    assert process.returncode == 0
    return press


def test_on_a_terminal_a_copy_and_a_check_show_how_far_they_are(full: Path) -> None:
    held = inspection.held(full.parent / "state" / "press")
    assert held >= 2
    for words, what in (
        (("export", full.name, "copy"), "copies"),
        (("verify", full.name), "checks"),
    ):
        shown = on_a_terminal(sys.executable, "-m", "edge", "outbox", *words).decode()
        assert what in shown
        assert f"{held}/{held}" in shown


def test_elsewhere_they_show_nothing_that_moves(edge: Edge, full: Path) -> None:
    done = edge("outbox", "verify", full)
    assert done.code == 0
    assert done.err.count("\n") == 1


def test_a_copy_that_is_cut_off_leaves_whole_files_only(full: Path, tmp_path: Path) -> None:
    def cut(count: int) -> None:
        raise KeyboardInterrupt

    outbox = full.parent / "state" / "press"
    with pytest.raises(KeyboardInterrupt):
        inspection.export(outbox, tmp_path / "copy", cut)
    [file] = [path for path in (tmp_path / "copy").rglob("*") if path.is_file()]
    assert not file.name.endswith(".part")
    written = inspection.export(outbox, tmp_path / "copy")
    assert written["entries"] + written["parcels"] == inspection.held(outbox)


def test_ctrl_c_says_that_nothing_is_half_done(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        # Short sleeps: a signal just before a wait without end would not be noticed in it.
        "import sys, time\n"
        "print('here', file=sys.stderr, flush=True)\n"
        "while True:\n    time.sleep(0.05)\n"
    )
    command = [sys.executable, "-m", "edge", "check", "slow.py"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "here\n"
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
    assert said.startswith("stopped; what was done stays, nothing is half done")
    assert process.returncode == 1


def test_ctrl_c_while_modules_are_still_read_is_no_traceback(tmp_path: Path) -> None:
    interrupted = (
        "import sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'edge.cli':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "from importlib.metadata import entry_points\n"
        "[edge] = entry_points(group='console_scripts', name='edge')\n"
        "edge.load()()\n"
    )
    done = subprocess.run([sys.executable, "-c", interrupted], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


def offered(folder: Path, line: str) -> set[str]:
    """What bash would offer at the end of `line`."""
    asked = {"_EDGE_COMPLETE": "complete_bash", "COMP_WORDS": line}
    environment = {**os.environ, **asked, "COMP_CWORD": str(len(line.split(" ")) - 1)}
    done = subprocess.run([EDGE], cwd=folder, env=environment, capture_output=True, text=True)
    return set(done.stdout.split())


def test_the_shell_is_offered_commands_sinks_parts_and_sites(full: Path) -> None:
    folder = full.parent
    (folder / "deploy" / "sites").mkdir(parents=True)
    (folder / "deploy" / "sites" / "press-shop.yaml").write_text("")
    assert {"run", "status", "test"} <= offered(folder, "edge ")
    assert offered(folder, "edge outbox retry press.yaml ") == {"lake", "hot"}
    assert offered(folder, "edge outbox retry press.yaml l") == {"lake"}
    assert offered(folder, "edge outbox drop none.yaml ") == set()
    assert offered(folder, "edge describe dead") == {"deadband"}
    assert offered(folder, "edge list op") == {"operators"}
    assert offered(folder, "edge deploy plan pr") == {"press-shop"}
    assert offered(folder, "edge new x --from ") == {"mqtt", "dataset", "sqs"}

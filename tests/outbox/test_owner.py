import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from edge.errors import DefinitionError, OutboxLocked
from edge.outbox.owner import Owner, filesystem, refuse_network_disk
from tests.outbox.conftest import OpenOutbox

MOUNTS = """\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 27 0:40 / /srv rw - tmpfs tmpfs rw
31 30 0:41 / /srv/far\\040away rw,relatime shared:5 - nfs4 server:/export rw
"""


def test_a_second_owner_waits_and_then_is_told_who_has_it(
    open_outbox: OpenOutbox, folder: Path
) -> None:
    open_outbox()
    attempt = (
        "import sys; from pathlib import Path; from edge.outbox.owner import Owner;"
        "Owner(Path(sys.argv[1]) / 'lock').take(0.2)"
    )
    done = subprocess.run(
        [sys.executable, "-c", attempt, str(folder)], capture_output=True, text=True
    )
    assert done.stderr.splitlines()[-1] == (
        f"edge.errors.OutboxLocked: outbox {folder}: another process owns it, got pid {os.getpid()}"
        " after 0.2 s; stop that one, or give this pipeline its own `outbox.path`"
    )


def test_who_gives_up_does_not_wait_longer_and_hears_how_long_it_was(
    open_outbox: OpenOutbox, folder: Path
) -> None:
    open_outbox()
    asked = iter([False, False, True])
    with pytest.raises(OutboxLocked) as caught:
        Owner(folder / "lock").take(90, lambda: next(asked))
    told = re.search(r"after (\S+) s; stop that one", str(caught.value))
    assert told
    assert 0.1 <= float(told[1]) < 90


def test_the_next_owner_gets_it_after_close(open_outbox: OpenOutbox) -> None:
    first = open_outbox()
    with pytest.raises(OutboxLocked):
        open_outbox()
    first.close()
    assert open_outbox().id == first.id


def test_network_disks_are_refused() -> None:
    with pytest.raises(DefinitionError, match="local disk, got /srv/far away/x on nfs4"):
        refuse_network_disk(Path("/srv/far away/x"), MOUNTS)
    refuse_network_disk(Path("/srv/near"), MOUNTS)


def test_the_longest_mount_point_counts(tmp_path: Path) -> None:
    assert filesystem(Path("/srv/near"), MOUNTS) == "tmpfs"
    assert filesystem(Path("/var/lib"), MOUNTS) == "ext4"
    assert filesystem(tmp_path, Path("/proc/self/mountinfo").read_text())

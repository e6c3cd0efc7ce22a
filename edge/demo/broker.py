"""Mosquitto on this machine with `containers/mosquitto.conf` as it is."""

import os
import shutil
from pathlib import Path

from edge.demo.children import Child, DemoError, free_port


async def start_broker(configuration: Path, folder: Path, log: Path) -> tuple[Child, str]:
    """A broker on a free port that keeps its sessions in `folder`; the child and its URL.

    configuration: its absolute path.

    Raises DemoError when Mosquitto is not installed.
    """
    program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        raise DemoError(
            "demo: needs a broker, but there is no mosquitto on this machine; "
            "run apt-get install mosquitto, or set EDGE_DEMO_BROKER=mqtt://host:port"
        )
    _furnish(folder)
    port = free_port()
    # Without a listener it takes connections from this machine only, and with no
    # persistence_location it writes where it stands: the configuration needs no other line.
    command = [program, "-c", str(configuration), "-p", str(port)]
    child = await Child.start("mosquitto", command, log, folder=folder)
    try:
        await child.listening(port)
    except BaseException:
        await child.kill()
        raise
    return child, f"mqtt://127.0.0.1:{port}"


def _furnish(folder: Path) -> None:
    folder.mkdir(parents=True)
    if os.geteuid() == 0:  # Mosquitto becomes the user `mosquitto`, which could write nothing here
        shutil.chown(folder, "mosquitto", "mosquitto")

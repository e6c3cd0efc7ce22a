"""A real Docker engine: the one that runs here, else one started for the tests and removed after.

Tests ask for the fixture `engine` of conftest.py. What they make has a name that starts with
`NAME`, so that an engine that was here before is left as it was.
"""

import contextlib
import fcntl
import hashlib
import io
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import docker
from docker.errors import DockerException, NotFound

RUN = os.environ.get("PYTEST_XDIST_TESTRUNUID", f"{os.getpid():x}")[:8]
"""The same in all processes of one run of the tests."""
NAME = f"edge-test-{RUN}-"
# Sockets have short names, so not below the long folders of pytest.
FOLDER = Path(f"/var/tmp/edge-docker-{RUN}")
"""There while the engine is used; where processes of one run tell each other something."""
SUITE = "bookworm"
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), "amd64")
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edge-tests"

_SBIN = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
_UNWANTED = ("./var/cache/apt/", "./var/lib/apt/lists/", "./usr/share/doc/", "./proc/", "./dev/")
_STARTED: list["subprocess.Popen[bytes]"] = []
_HELP = "start one, or run the tests as root where `make docker` was done"


class Engine:
    """A client of it (`client`), and where it listens (`host`), for a program's DOCKER_HOST."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.client = docker.DockerClient(host, timeout=120)

    def base(self, architecture: str = ARCHITECTURE) -> str:
        """The image that ours are built on: Debian with Python and nothing else; its tag."""
        tag = f"{NAME}base:{SUITE}-{architecture}"
        try:
            self.client.images.get(tag)
        except NotFound:
            with tempfile.TemporaryFile(dir="/var/tmp") as packed:
                pack(debian(architecture), tag, architecture, packed)
                self.client.images.load(packed)
        return tag

    def clean(self) -> None:
        """Remove everything of the tests: containers, networks, volumes, images."""
        for container in self.client.containers.list(all=True, filters={"name": NAME}):
            _gone(container.remove, force=True, v=True)
        for network in self.client.networks.list(filters={"name": NAME}):
            _gone(network.remove)
        for volume in self.client.volumes.list(filters={"name": NAME}):
            _gone(volume.remove)
        for image in self.client.images.list(filters={"reference": f"{NAME}*"}):
            for tag in image.tags:  # the same image may have the tag of another run
                if tag.startswith(NAME):
                    _gone(self.client.images.remove, tag, force=True)


def pack(archive: Path, tag: str, architecture: str, target: IO[bytes]) -> None:
    """An image of one layer as `docker load` takes it; `docker import` knows but this machine's."""
    with archive.open("rb") as opened:
        layer = f"sha256:{hashlib.file_digest(opened, 'sha256').hexdigest()}"
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Env": ["PATH=/usr/local/bin:/usr/bin:/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [layer]},
        "history": [{"created": "2026-01-01T00:00:00Z", "created_by": "debootstrap"}],
    }
    manifest = [{"Config": "config.json", "RepoTags": [tag], "Layers": ["layer.tar"]}]
    with tarfile.open(fileobj=target, mode="w") as packed:
        for name, content in (("config.json", config), ("manifest.json", manifest)):
            body = json.dumps(content).encode()
            member = tarfile.TarInfo(name)
            member.size = len(body)
            packed.addfile(member, io.BytesIO(body))
        packed.add(archive, "layer.tar")
    target.seek(0)


def _gone(remove: Any, *arguments: Any, **options: Any) -> None:
    with contextlib.suppress(NotFound):
        remove(*arguments, **options)


@contextlib.contextmanager
def running() -> Iterator[Engine]:
    """An engine as long as the block runs; one for all that run tests at the same time."""
    folder = FOLDER
    folder.mkdir(exist_ok=True)
    with (folder / "users").open("a") as users, (folder / "change").open("a") as change:
        fcntl.flock(users, fcntl.LOCK_SH)
        fcntl.flock(change, fcntl.LOCK_EX)
        own = folder / "docker.sock"
        there = None if own.exists() else _there()
        try:
            engine = there or _own(folder)
            fcntl.flock(change, fcntl.LOCK_UN)
            try:
                yield engine
            finally:
                engine.client.close()
        finally:
            fcntl.flock(change, fcntl.LOCK_EX)
            if _last(users):
                if own.exists():
                    _stop(folder)
                elif there:
                    there.clean()
                    there.client.close()
                shutil.rmtree(folder)


def _last(users: IO[str]) -> bool:
    fcntl.flock(users, fcntl.LOCK_UN)
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _there() -> Engine | None:
    """One that runs already, where DOCKER_HOST or the default says."""
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    return Engine(host) if _answers(host) else None


def _own(folder: Path) -> Engine:
    """The one in `folder`, started if it does not run."""
    host = f"unix://{folder}/docker.sock"
    if not (folder / "docker.sock").exists():
        assert os.getuid() == 0, f"no Docker engine answers and only root can start one; {_HELP}"
        daemon = shutil.which("dockerd", path=_SBIN)
        assert daemon, f"no Docker engine answers and none is installed; {_HELP}"
        _start(daemon, host, folder)
        _forward("-I", folder)
    return Engine(host)


def _start(daemon: str, host: str, folder: Path) -> None:
    command = [
        daemon,
        f"--host={host}",
        f"--data-root={folder}/data",
        f"--exec-root={folder}/exec",
        f"--pidfile={folder}/pid",
        # Apart from another engine on this machine: neither its bridge nor its firewall rules, nor
        # its names in a containerd that both use. Ports are published by docker-proxy alone.
        "--bridge=none",
        "--iptables=false",
        "--ip6tables=false",
        f"--default-address-pool=base={_pool(folder)},size=24",
        f"--containerd-namespace={folder.name}",
        f"--containerd-plugins-namespace=plugins-{folder.name}",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "PATH": _SBIN},
            start_new_session=True,  # not ended by the Ctrl-C that ends the tests
        )
    deadline = time.monotonic() + 60
    while not _answers(host):
        said = (folder / "log").read_text()[-3000:]
        assert process.poll() is None, f"dockerd has ended: {said}"
        assert time.monotonic() < deadline, f"dockerd does not answer: {said}"
        time.sleep(0.05)
    _STARTED.append(process)


def _answers(host: str) -> bool:
    if host.startswith("unix://"):  # asked first: the SDK leaves a socket open where nobody answers
        with socket.socket(socket.AF_UNIX) as asking:
            if asking.connect_ex(host.removeprefix("unix://")):
                return False
    try:
        engine = Engine(host)
    except (DockerException, OSError):
        return False
    try:
        return bool(engine.client.ping())
    except (DockerException, OSError):
        return False
    finally:
        engine.client.close()


def _stop(folder: Path) -> None:
    """Also one that another process of the same run has started."""
    number = int((folder / "pid").read_text())
    os.kill(number, signal.SIGTERM)
    deadline = time.monotonic() + 60
    while (folder / "pid").exists():  # it removes that at its very end
        assert time.monotonic() < deadline, (folder / "log").read_text()[-3000:]
        time.sleep(0.05)
    for process in _STARTED:
        process.wait(10)
    _forward("-D", folder)
    _unmount(folder)


def _pool(folder: Path) -> str:
    """The networks of one engine, hardly those of another."""
    return f"10.{128 + zlib.crc32(folder.name.encode()) % 100}.0.0/16"


def _forward(change: str, folder: Path) -> None:
    """Let the firewall of another engine pass what our containers say to each other."""
    if iptables := shutil.which("iptables", path=_SBIN):
        rule = ["FORWARD", "-s", _pool(folder), "-d", _pool(folder), "-j", "ACCEPT"]
        subprocess.run([iptables, "--wait", change, *rule], check=True)


def _unmount(folder: Path) -> None:
    """What dockerd leaves mounted at its end: the network namespaces."""
    mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for place in reversed(mounted):
        if place.startswith(f"{folder}/"):
            subprocess.run(["umount", "--lazy", place], check=True)


def debian(architecture: str) -> Path:
    """Debian with Python as one archive of files, made once and kept in the user's cache folder."""
    CACHE.mkdir(parents=True, exist_ok=True)
    archive = CACHE / f"{SUITE}-{architecture}.tar"
    with archive.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not archive.exists():
            _debootstrap(architecture, archive)
    return archive


def _debootstrap(architecture: str, archive: Path) -> None:
    """Takes less than a minute; of another architecture several, its programs are emulated."""
    with tempfile.TemporaryDirectory(prefix="edge-debian-", dir="/var/tmp") as folder:
        command = ["debootstrap", f"--arch={architecture}", "--variant=minbase"]
        command += ["--include=python3,ca-certificates", SUITE, f"{folder}/root"]
        environment = {**os.environ, "PATH": _SBIN}
        try:
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        finally:
            _unmount(Path(folder))
        with tarfile.open(f"{folder}/archive.tar", "w") as packed:
            packed.add(f"{folder}/root", ".", filter=_wanted)
        shutil.move(f"{folder}/archive.tar", archive)


def _wanted(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if member.name.startswith(_UNWANTED) else member

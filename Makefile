# What a fresh Debian machine needs, then the everyday commands.
PYTHON ?= python3
BIN := .venv/bin
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

.PHONY: run test check bench clean

run: .venv/ready mosquitto   ## the main job on real data, no cloud account
	$(BIN)/edge demo

test: .venv/ready mosquitto disks faketime chromium docker  ## everything
	$(BIN)/pytest -n 2 --dist worksteal $(ARGS)

check: .venv/ready           ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: .venv/ready mosquitto ## one table: what it costs, beside the baselines
	$(BIN)/python -m benchmarks $(ARGS)

.venv/ready: pyproject.toml
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
	  { $(SUDO) apt-get update -qq && $(SUDO) apt-get install -qq python3-venv; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

.PHONY: test-arm64
test-arm64: .venv/ready docker emulation  ## the arm64 image makes the same bytes as that of amd64
	$(BIN)/python -m tests.containers.arm64

.PHONY: hybrid
hybrid: .venv/ready docker   ## from a share to the cloud, in two containers that are cut off, killed and stopped
	$(BIN)/python -m tests.containers.hybrid

.PHONY: container-bars
container-bars: .venv/ready docker  ## from the start of a container to its first row on disk
	$(BIN)/python -m tests.containers.bars

.PHONY: emulation
emulation:
	@command -v qemu-aarch64-static >/dev/null || \
	  { $(SUDO) apt-get update -qq && $(SUDO) apt-get install -qq --no-install-recommends qemu-user-static binfmt-support; }
	@[ -e /proc/sys/fs/binfmt_misc/status ] || $(SUDO) mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
	@[ -e /proc/sys/fs/binfmt_misc/qemu-aarch64 ] || $(SUDO) update-binfmts --enable qemu-aarch64

.PHONY: mosquitto
mosquitto:
	@command -v mosquitto >/dev/null || [ -x /usr/sbin/mosquitto ] || \
	  { $(SUDO) apt-get update -qq && $(SUDO) apt-get install -qq --no-install-recommends mosquitto; }
	@command -v mosquitto_sub >/dev/null || \
	  { $(SUDO) apt-get update -qq && $(SUDO) apt-get install -qq --no-install-recommends mosquitto-clients; }

.PHONY: disks
disks:                       # what tests/faults make file systems with
	@command -v fusermount3 >/dev/null && command -v mkfs.ext4 >/dev/null || \
	  { $(SUDO) apt-get update -qq && $(SUDO) apt-get install -qq --no-install-recommends fuse3 e2fsprogs; }

.PHONY: faketime
faketime:                    # a wall clock that tests can set, for one process
	@ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1 || \
	  { $(SUDO) apt-get update -qq && $(SUDO) apt-get install -qq --no-install-recommends libfaketime; }

.PHONY: chromium
chromium:                    # what tests/page look at the live page with
	@[ -x /usr/bin/chromium ] || \
	  { $(SUDO) apt-get update -qq && $(SUDO) apt-get install -qq --no-install-recommends chromium; }

.PHONY: docker
docker:                      # an engine where none runs, and what its base image is made with
	@command -v dockerd >/dev/null || [ -x /usr/sbin/dockerd ] || docker info >/dev/null 2>&1 || \
	  { $(SUDO) apt-get update -qq && $(SUDO) apt-get install -qq --no-install-recommends docker.io iptables; }
	@command -v debootstrap >/dev/null || [ -x /usr/sbin/debootstrap ] || \
	  { $(SUDO) apt-get update -qq && $(SUDO) apt-get install -qq --no-install-recommends debootstrap; }

clean:
	rm -rf .venv var out .mypy_cache .ruff_cache .pytest_cache

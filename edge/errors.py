"""Every exception the package raises, and who may catch it.

A message reads `where: what is wrong, got what; what to do`.
"""

from collections.abc import Sequence
from typing import NamedTuple


class EdgeError(Exception):
    """Base of everything the package raises on purpose."""


class Fault(NamedTuple):
    """One thing that is wrong with a definition.

    `path` is the dotted place inside the definition (`operators.2.window.size`), `line` is counted
    from 1 and None where there is no file.
    """

    path: str
    message: str
    file: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.file and self.line else self.file
        return ": ".join(part for part in (place, self.path, self.message) if part)


class DefinitionError(EdgeError):
    """A definition or an argument is wrong. Caught by the command line, which exits with 2.

    Holds every fault that was found, so that a user mends a file in one go.
    """

    def __init__(self, *faults: Fault | str) -> None:
        self.faults: Sequence[Fault] = [
            fault if isinstance(fault, Fault) else Fault("", fault) for fault in faults
        ]
        super().__init__("\n".join(map(str, self.faults)))


class FileFault(DefinitionError):
    """A file that a definition names is not there or not fit, and may be later as it should.

    A processor that runs for long waits for it; all else treats it as its base.
    """


class DataError(EdgeError):
    """These rows cannot be processed. The runner rejects them with the reason and goes on."""


class TooManyFailures(EdgeError):
    """More rows fail in operators than can be set aside: the definition is wrong, not the data.

    Ends the process with 1, at its last commit.
    """


class LinkDown(EdgeError):
    """The destination or broker cannot be reached now. The link backs off and tries again."""


class DeployFailed(EdgeError):
    """AWS refused a step of a deployment, or what it started does not run. Running it again goes on
    where it stopped."""


class OutboxFull(EdgeError):
    """The outbox has no room left under its cap. The runner applies the declared policy."""


class TooLarge(EdgeError):
    """Something that would not fit into an empty outbox either; waiting for room is no use.

    part: of a batch, as a number below 1, which would fit well.
    """

    def __init__(self, message: str, part: float = 0.0) -> None:
        super().__init__(message)
        self.part = part


class OutboxLocked(EdgeError):
    """Another process owns the outbox. The command line exits with 3."""

"""The text of a definition as everybody who may look is shown it: with its secrets masked."""

import re
from pathlib import Path

from edge.pipeline import Pipeline
from edge.secrets import MASK, Secrets

_LONG = 200_000  # characters of a definition that are shown
# What stands behind such a key is masked whatever it is: a default of a variable that is set
# otherwise now is no secret that the process knows.
_KEYED = re.compile(
    r"""(?im)(\w*(?:password|passwd|secret|token|credential)\w*["']?[ \t]*[:=][ \t]*)"""
    r"""("[^"\n]*"|'[^'\n]*'|\$\{[^}\n]*\}|[^\s,}\])#][^,}\])\n]*)"""
)


def shown(pipeline: Pipeline, secrets: Secrets) -> str | None:
    """What its file says now; None where it was made in Python, or the file is gone."""
    if pipeline.file is None:
        return None
    try:
        text = Path(pipeline.file).read_text(errors="replace")[:_LONG]
    except OSError:
        return None
    return _KEYED.sub(lambda found: found[1] + MASK, secrets.masked(text))

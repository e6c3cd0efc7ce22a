"""The files of the page: those of this folder, and uPlot, which draws its chart."""

import mimetypes
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

CHART = {"uplot.js": "uplot.iife.min.js", "uplot.css": "uplot.min.css"}
"""What the page calls the files of uPlot, and what the package `youplot`, which has them, does.

Without that package the page says that the chart is missing and shows the rest. Should it leave
PyPI, the same two files come into our wheel when it is built, from uPlot's own npm package (MIT);
the test that knows their hash stays. No package for Python that carries uPlot or a chart library
of this size is kept better.
"""

_KINDS = (".html", ".js", ".css", ".svg")


@cache
def find(name: str) -> tuple[bytes, str] | None:
    """A file of the page and its media type; None where there is no such file."""
    if not name.endswith(_KINDS):
        return None
    if name in CHART:
        content = _of_uplot(CHART[name])
    else:
        listed = (file for file in files(__name__).iterdir() if file.name == name)
        content = next((file.read_bytes() for file in listed), None)
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return None if content is None else (content, kind)


def _of_uplot(name: str) -> bytes | None:
    """Read without importing the package, which would load what makes charts in Python."""
    spec = find_spec("youplot")
    for folder in (spec.submodule_search_locations if spec else None) or ():
        file = Path(folder, "vendor", name)
        if file.is_file():
            return file.read_bytes()
    return None

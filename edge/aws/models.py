"""What botocore knows of services, as read from its files."""

import gzip
from contextlib import suppress
from typing import Any

import orjson
from botocore.loaders import JSONFileLoader

_OPENING = ((".json", open), (".json.gz", gzip.open))


class ModelFiles(JSONFileLoader):  # type: ignore[misc]
    """Reads them into half the memory: plain dicts, and without the text for people.

    For S3 alone that text and the order of keys, which dicts keep anyway, take 4 MB.
    """

    def load_file(self, file_path: str) -> Any:
        """The content of a file named without its ending; None if there is none."""
        for ending, opening in _OPENING:
            with suppress(FileNotFoundError), opening(file_path + ending, "rb") as file:
                return _without_text(orjson.loads(file.read()))
        return None


def _without_text(value: Any) -> Any:
    """`value` itself, changed in place; some of the keys must be there."""
    if isinstance(value, dict):
        if isinstance(value.get("documentation"), str):
            value["documentation"] = ""
        for inner in value.values():
            _without_text(inner)
    elif isinstance(value, list):
        for inner in value:
            _without_text(inner)
    return value

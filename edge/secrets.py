"""What must never be shown: passwords and tokens that a processor knows, masked in any text."""

import re
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote

from pydantic import BaseModel, SecretStr

MASK = "***"

_NAMED = re.compile(r"(PASSWORD|PASSWD|SECRET|TOKEN|SECRET_ACCESS_KEY)$", re.IGNORECASE)
_SHORTEST = 4  # characters; a shorter one would mask words that are none
_SHORTEST_GUESSED = 8  # of a variable of which only the name says that it is secret
_IN_TEXT = re.compile(
    r"(?<=://)[^/\s:@]*:[^/\s@]+(?=@)"  # user and password of a URL
    r"|(?<=X-Amz-Signature=)\w+|(?<=X-Amz-Security-Token=)[^&\s'\"]+|(?<=Signature=)[0-9a-f]{64}"
)


class Secrets:
    """Masks what it knows, and what looks like a secret in any URL or signed request."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        """values: secrets in clear text; those under four characters are left out."""
        kept = {form for value in values if len(value) >= _SHORTEST for form in _forms(value)}
        longest_first = sorted(kept, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, longest_first))) if kept else None

    def masked(self, text: str) -> str:
        """The text with `***` in place of every secret."""
        if self._known is not None:
            text = self._known.sub(MASK, text)
        return _IN_TEXT.sub(MASK, text)


def secrets_of(parts: Iterable[BaseModel], environment: Mapping[str, str]) -> Secrets:
    """Secret options of `parts` and of all they are made of, and variables named like secrets."""
    guessed = (
        value
        for name, value in environment.items()
        if _NAMED.search(name) and len(value) >= _SHORTEST_GUESSED
    )
    return Secrets([*guessed, *(value for part in parts for value in _inside(part))])


def _inside(value: object) -> Iterator[str]:
    if isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _inside(getattr(value, name))
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _inside(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _inside(each)


def _forms(secret: str) -> set[str]:
    """A secret as it is, as `repr` shows it, and as a URL has it."""
    return {secret, repr(secret)[1:-1], quote(secret, safe="")}

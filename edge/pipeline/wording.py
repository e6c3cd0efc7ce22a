"""What pydantic found wrong, in the words of this project: `must be ..., got ...`."""

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_core import ErrorDetails

from edge.pipeline.binding import Place

_LONGEST_SHOWN = 60
_MESSAGES = {
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "must be a whole number of at most 64 bits",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "set_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "path_type": "must be a path",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "multiple_of": "must be a multiple of {multiple_of}",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "string_pattern_mismatch": "must match {pattern}",
    "string_too_long": "must have at most {max_length} characters",
    "string_too_short": "must have at least {min_length} characters",
    "too_long": "must have at most {max_length} entries",
    "too_short": "must have at least {min_length} entries",
    "is_instance_of": "must be a {class}",
    "callable_type": "must be a function",
}


def described(
    error: ValidationError, model: type[BaseModel], values: Any = None
) -> Iterator[tuple[Place, str, Place]]:
    """Place and message of every fault, and the place whose line it stands in.

    `values` is what was validated, where it came from a file: places then name only what is there.
    Alternatives of one value (`int` or `str`) become one message, and an option that is missing
    because its name is misspelt is not told twice.
    """
    found: dict[Place, list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False):
        place = tuple(detail["loc"])
        if values is not None:
            place = _written(place, values, detail["type"] == "missing")
        if detail["type"] != "default_factory_not_called":
            found.setdefault(place, []).append(detail)
    meant = {
        (*place[:-1], _nearest(place[-1], _options(_model_at(model, details[0]["loc"][:-1]))))
        for place, details in found.items()
        if details[0]["type"] == "extra_forbidden"
    }
    for place, details in found.items():
        if details[0]["type"] == "extra_forbidden":
            yield place[:-1], _unknown(details[0], model), place
        elif details[0]["type"] != "missing" or place not in meant:
            yield place, _joined([_message(detail, model) for detail in details]), place


def unknown(name: object, known: Sequence[str]) -> str:
    """What to say of an option that does not exist."""
    near = _nearest(name, known)
    hint = f"did you mean {near!r}?" if near else "known are " + ", ".join(sorted(known))
    return f"no option is called {name!r}; {hint}"


def _nearest(name: object, known: Sequence[str]) -> str | None:
    return next(iter(get_close_matches(str(name), known, 1)), None)


def shown(value: object) -> str:
    """A value as a user would write it, cut short."""
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple | set):
        return "a list" if value else "an empty list"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def _written(place: Place, values: Any, keep_last: bool) -> Place:
    """`place` without what pydantic adds: union members, and options a short form leaves out."""
    kept: list[str | int] = []
    for step in place[:-1] if keep_last else place:
        inside = isinstance(values, Mapping) and step in values
        if inside or (isinstance(values, list) and step in range(len(values))):
            values = values[step]
            kept.append(step)
    return (*kept, place[-1]) if keep_last else tuple(kept)


def _message(detail: ErrorDetails, model: type[BaseModel]) -> str:
    kind = detail["type"]
    if kind == "missing":
        return f"is missing; add `{detail['loc'][-1]}:`"
    if kind in ("value_error", "assertion_error"):
        return str(detail["ctx"]["error"]) if "ctx" in detail else detail["msg"]
    if kind == "string_type" and isinstance(detail["input"], int | float):
        return f"must be text, got {shown(detail['input'])}; quote it"
    if kind.startswith("too_short") and detail["ctx"].get("min_length") == 1:
        return f"must not be empty, got {shown(detail['input'])}"
    template = _MESSAGES.get(kind)
    limits = {name: _number(value) for name, value in detail.get("ctx", {}).items()}
    said = template.format(**limits) if template else _turned(detail["msg"])
    got = "a secret" if _is_secret(model, detail["loc"]) else shown(detail["input"])
    return f"{said}, got {got}"


def _number(limit: Any) -> Any:
    return f"{limit:g}" if isinstance(limit, float) else limit


def _turned(message: str) -> str:
    text = message.replace("Input should be", "must be").replace("Value should", "must")
    return text[:1].lower() + text[1:]


def _joined(messages: list[str]) -> str:
    """`must be a number, got 'x'` and `must be text, got 'x'` as one."""
    heads = list(dict.fromkeys(message.rpartition(", got ")[0] for message in messages))
    if len(set(messages)) == 1 or not all(heads):
        return messages[0]
    return " or ".join(heads) + messages[0][len(messages[0].rpartition(", got ")[0]) :]


def _unknown(detail: ErrorDetails, model: type[BaseModel]) -> str:
    return unknown(detail["loc"][-1], _options(_model_at(model, detail["loc"][:-1])))


def _options(model: type[BaseModel]) -> list[str]:
    """What can be written; fields left out of dumps are set by the loader."""
    fields = model.model_fields.items()
    return [field.alias or name for name, field in fields if not field.exclude]


def _is_secret(model: type[BaseModel], place: Place) -> bool:
    owner = _model_at(model, place[:-1])
    field = owner.model_fields.get(str(place[-1])) if place else None
    return field is not None and SecretStr in _types_in(field.annotation)


def _model_at(model: type[BaseModel], place: Place) -> type[BaseModel]:
    """The model whose option stands at `place`, as far down as it can be told."""
    for step in place:
        field = model.model_fields.get(str(step))
        inner = _types_in(field.annotation) if field else []
        models = [kind for kind in inner if isinstance(kind, type) and issubclass(kind, BaseModel)]
        model = models[0] if models else model
    return model


def _types_in(annotation: Any) -> list[Any]:
    """The annotation and all it is made of: `SecretStr | None` has `SecretStr`."""
    return [annotation, *(kind for part in get_args(annotation) for kind in _types_in(part))]

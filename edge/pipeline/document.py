"""YAML text as plain values, each with its line: 1.2 core scalars, `${NAME}`, no repeated keys."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import yaml

from edge.errors import DefinitionError, Fault
from edge.pipeline.binding import Place, dotted

MOST_VALUES = 50_000  # what aliases may unfold a file to; a definition has some hundred
_LONGEST = 2**20

_INT = re.compile(r"[-+]?[0-9]+\Z|0o[0-7]+\Z|0x[0-9a-fA-F]+\Z")
_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z"
    r"|[-+]?\.(?:inf|Inf|INF)\Z|\.(?:nan|NaN|NAN)\Z"
)
_VARIABLE = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}|\$\{")
_UNFIT = re.compile("[\0\ud800-\udfff]")  # in no path, topic or file: half a character, and the end
_TAG = "tag:yaml.org,2002:"
_EXPRESSIONS = ("derive", "aggregate")
_SECOND_COLON = "a second ': ' in one line; quote the text, or start a new line"
_TOO_FAR_IN = "a key further in than the line above, which has no ':' at its end; align the two"
_OPEN = (
    "that is not closed, or a comma or quote is missing in it; texts with : { } [ ] , need quotes"
)
_SYNTAX = (
    # what the parser says, what it means to a reader, whether the line is where the thing starts
    ("'\\t'", "a tab cannot indent; use spaces", False),
    ("single document", "must hold one definition, got a second one after '---'", False),
    ("mapping values are not allowed", _SECOND_COLON, False),
    ("got '{'", "within { } and [ ] a text with { needs quotes", False),
    ("expected ',' or '}'", f"a {{ {_OPEN}", True),
    ("expected ',' or ']'", f"a [ {_OPEN}", True),
    (
        "found '<block mapping start>'",
        "a key that is not in the column of the keys above; start all of one level in one column",
        False,
    ),
    (
        "found '<block sequence start>'",
        "a dash that is not in the column of the dashes above; start a list's items in one column",
        False,
    ),
    ("found '?'", "a key among the items of a list; give it a dash, or move it out", False),
    ("found '-'", "a dash among keys; give each line above a dash too, or indent this one", False),
    ("found '<scalar>'", "text after a closing quote or bracket; quote the whole value", False),
    ("could not find expected ':'", "a line that is neither `key: value` nor `- item`", True),
    ("end of stream", "a quote that is never closed", True),
    ("scanning a block scalar", "a value cannot start with > or |; quote it", False),
    ("cannot start any token", "a value cannot start with % @ or `; quote it", False),
    ("unknown escape", "a backslash in double quotes; use single quotes", False),
)


class _Loader(yaml.SafeLoader):
    """YAML 1.2 core scalars: `on`, `1:30` and `2024-01-01` are text.

    Only composes: values are made by `_Builder`, which keeps the lines.
    """

    yaml_implicit_resolvers = {
        None: [
            (_TAG + "null", re.compile(r"(?:~|null|Null|NULL|)\Z")),
            (_TAG + "bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z")),
            (_TAG + "int", _INT),
            (_TAG + "float", _FLOAT),
        ]
    }


class Document(NamedTuple):
    """What a file says: plain values, and the line of every place."""

    file: str
    values: dict[str, Any]
    lines: Mapping[Place, int]


def parse(
    file: str, text: str, environment: Mapping[str, str], first: str = "name"
) -> tuple[Document, list[Fault]]:
    """The document in `text` and what is wrong with it; `file` is only named.

    first: the key that a file of this sort starts with, for who writes his first one.

    Raises DefinitionError where no values can be read at all.
    """
    if len(text) > _LONGEST:
        raise DefinitionError(Fault("", f"must be at most 1 MiB, got {len(text)} characters", file))
    try:
        root = yaml.compose(text, Loader=_Loader)
        if root is None:
            raise DefinitionError(
                Fault("", f"is empty; start with `edge: 1` and a `{first}:`", file)
            )
        builder = _Builder(file, environment)
        values = builder.build(root, ())
    except yaml.MarkedYAMLError as error:
        raise DefinitionError(_syntax_fault(file, error)) from error
    except yaml.reader.ReaderError as error:
        raise DefinitionError(
            Fault("", f"has a character that YAML forbids, got {chr(error.character)!r}", file)
        ) from error
    except RecursionError:
        raise DefinitionError(Fault("", "is nested too deeply", file)) from None
    if not isinstance(values, dict):
        message = f"must be a mapping that starts with `edge: 1`, got {_sort(root)}"
        raise DefinitionError(Fault("", message, file, root.start_mark.line + 1))
    return Document(file, values, builder.lines), builder.faults


class _Builder:
    """Turns YAML nodes into values, noting lines and faults."""

    def __init__(self, file: str, environment: Mapping[str, str]) -> None:
        self.lines: dict[Place, int] = {}
        self.faults: list[Fault] = []
        self._file = file
        self._environment = environment
        self._left = MOST_VALUES
        self._around: list[yaml.Node] = []

    def build(self, node: yaml.Node, place: Place) -> Any:
        self._left -= 1
        self.lines.setdefault(place, node.start_mark.line + 1)
        if self._left < 0:
            raise DefinitionError(
                Fault("", f"aliases unfold to more than {MOST_VALUES} values", self._file)
            )
        if any(node is outer for outer in self._around):
            self._note(place, "is an alias of what it lies in; write it out")
            return None
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, place)
        self._around.append(node)
        built = (
            self._mapping(node, place)
            if isinstance(node, yaml.MappingNode)
            else [self.build(item, (*place, index)) for index, item in enumerate(node.value)]
        )
        self._around.pop()
        return built

    def _mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, item in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._note(place, f"a key must be text, got {_sort(key)}", key)
                continue
            name = self._text(str(key.value), place)
            inner = (*place, name)
            if name in values:
                first = self.lines[inner]
                self._note(place, f"{name!r} is there twice, first in line {first}", key)
                continue
            self.lines[inner] = key.start_mark.line + 1
            values[name] = self.build(item, inner)
            if values[name] is None and _holds_expressions(place):
                self._note(inner, _no_expression(node, list(values)), key)
        return values

    def _scalar(self, node: yaml.ScalarNode, place: Place) -> Any:
        text = str(node.value)
        match node.tag.removeprefix(_TAG):
            case "null":
                return None
            case "bool":
                return text.lower() == "true"
            case "int":
                return _whole_number(text)
            case "float":
                return float(re.sub(r"\.(?=[iInN])", "", text))
            case "str":
                return self._text(_VARIABLE.sub(lambda m: self._variable(m, place), text), place)
        self._note(place, f"must be a plain value, got the tag {node.tag!r}", node)
        return None

    def _text(self, text: str, place: Place) -> str:
        if unfit := _UNFIT.search(text):
            self._note(place, f"has a character that no text can have, got {unfit[0]!r}")
        return text

    def _variable(self, match: re.Match[str], place: Place) -> str:
        name, default = match[1], match[2]
        if match[0] == "$${":
            return "${"
        if name is None:
            self._note(place, "must be ${NAME} or ${NAME:-default}; write $${ for a plain ${")
            return ""
        value = self._environment.get(name)
        if default is not None:
            return value or default
        if value is None:
            remedy = f"set it, or give a default with ${{{name}:-...}}"
            self._note(place, f"the environment has no {name}; {remedy}")
            return match[0]
        return value

    def _note(self, place: Place, message: str, node: yaml.Node | None = None) -> None:
        line = node.start_mark.line + 1 if node else self.lines.get(place)
        self.faults.append(Fault(dotted(place), message, self._file, line))


def _holds_expressions(place: Place) -> bool:
    *_, outer, inner = ("", "", *place)
    return inner in _EXPRESSIONS or (inner == "columns" and outer in _EXPRESSIONS)


def _no_expression(node: yaml.MappingNode, names: list[str]) -> str:
    """In `{a: ROUND(x, 1)}` YAML splits at the comma: `a` is cut short and `1)` has no value."""
    if node.flow_style and len(names) > 1:
        cut = node.value[len(names) - 2]
        text = f"{cut[1].value}, {names[-1]}"
        return f"must be an expression, got nothing; {text!r} before it: quote it, it has a comma"
    return "must be an expression, got nothing; if one was cut here, quote it, it has a comma"


def _whole_number(text: str) -> int | str:
    digits = text.lstrip("+-")
    if digits[:2] in ("0o", "0x"):
        return int(text, 0)
    return int(text) if len(digits) <= 1000 else text


def _sort(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    return "a list" if isinstance(node, yaml.SequenceNode) else repr(node.value)


def _syntax_fault(file: str, error: yaml.MarkedYAMLError) -> Fault:
    found = f"{error.context or ''}, {error.problem or 'cannot be read'}".removeprefix(", ")
    words, at_start = next(
        ((words, at_start) for part, words, at_start in _SYNTAX if part in found), (found, False)
    )
    mark = error.problem_mark or error.context_mark
    if at_start and error.context_mark:
        mark = error.context_mark
    elif words is _SECOND_COLON and not _has_colon_before(error.problem_mark):
        words = _TOO_FAR_IN
    return Fault("", f"is not YAML: {words}", file, mark.line + 1 if mark else None)


def _has_colon_before(mark: Any) -> bool:
    """Whether another `: ` stands in the line, before the one at `mark`."""
    start = mark.buffer.rfind("\n", 0, mark.pointer) + 1
    return ": " in mark.buffer[start : mark.pointer]

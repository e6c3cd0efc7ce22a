"""JSON Schema of a whole definition, every part's options under its key."""

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from inspect import cleandoc
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from edge.component import Component, format_duration
from edge.errors import DefinitionError
from edge.pipeline.document import parse
from edge.pipeline.example import ExampleFile
from edge.pipeline.model import Pipeline
from edge.pipeline.parts import KINDS, OPERATOR, SINK, SOURCE, Kind

Schema = dict[str, Any]

_REFERENCE = "#/$defs/"
_EXAMPLE = re.compile(r"^```yaml\n(.*?)^```", re.DOTALL | re.MULTILINE)
_VARIABLE: Schema = {"type": "string", "pattern": r"\$\{", "description": "${NAME}"}
_SCALARS = ("integer", "number", "boolean")
_MANY = ("properties", "$defs", "patternProperties")
_INNER = ("items", "additionalProperties", "propertyNames", "anyOf", "oneOf", "allOf")


class _Generator(GenerateJsonSchema):
    """Defaults that JSON cannot hold are left out without a warning."""

    ignored_warning_kinds = {"non-serializable-default", "skipped-choice"}

    def encode_default(self, dft: Any) -> Any:
        """A duration as it is written: `1m`, not `PT1M`."""
        return format_duration(dft) if isinstance(dft, timedelta) else super().encode_default(dft)


def definition_schema() -> Schema:
    """Draft 2020-12. Every scalar may also be text with `${NAME}` in it."""
    parts = {kind.word: dict(_usable(kind)) for kind in KINDS}
    models: list[type[BaseModel]] = [Pipeline, *(p for of in parts.values() for p in of.values())]
    references, schema = models_json_schema(
        [(model, "validation") for model in models], schema_generator=_Generator
    )
    definitions: dict[str, Schema] = schema["$defs"]

    def one_of(kind: Kind, beside: Mapping[str, Any], title: str, says: str) -> Schema:
        found = parts[kind.word]
        options = {
            name: _told(part, name)
            | _optional(part, {"$ref": references[part, "validation"]["$ref"]})
            for name, part in found.items()
        }
        return {
            "title": title,
            "description": says,
            "type": "object",
            "properties": {**options, **beside},
            "additionalProperties": False,
            "oneOf": [{"required": [name]} for name in found],
        }

    top = definitions.pop(_name(references[Pipeline, "validation"]))
    properties = top["properties"]
    named = definitions["Named"]["properties"]
    branch = definitions["Branch"]["properties"]
    says = properties["source"]["description"]
    acknowledge = {"acknowledge": properties.pop("acknowledge")}
    properties["source"] = one_of(SOURCE, acknowledge, "Source", says)
    says = definitions["Named"]["description"]
    definitions["Named"] = one_of(OPERATOR, {"name": named["name"]}, "Operator", says)
    del branch["sink"]
    says = definitions["Branch"]["description"]
    definitions["Branch"] = one_of(SINK, branch, "Sink", says)
    for name in ("folder", "file"):
        del properties[name]
    properties["sinks"]["additionalProperties"] = False
    for contract in ("Source", "Operator", "Sink"):
        definitions.pop(contract, None)
    whole = {"$schema": "https://json-schema.org/draft/2020-12/schema", **top, "$defs": definitions}
    whole["title"] = "edge pipeline"
    allowed: Schema = _with_variables(whole)
    return allowed


def file_schema(model: type[BaseModel], title: str, unwritten: Collection[str] = ()) -> Schema:
    """Draft 2020-12, of a file that is one model; `unwritten` fields are set by who reads it."""
    schema = model.model_json_schema(schema_generator=_Generator)
    for name in unwritten:
        del schema["properties"][name]
    whole = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": title}
    allowed: Schema = _with_variables(whole)
    return allowed


def tests_schema() -> Schema:
    """Draft 2020-12, of a file of tests beside a definition."""
    return file_schema(ExampleFile, "edge tests")


def part_schema(part: type[BaseModel]) -> Schema:
    """The JSON Schema of the options of one part or section, written out in full."""
    schema = part.model_json_schema(schema_generator=_Generator)
    definitions = schema.get("$defs", {})
    for form in schema.get("anyOf", ()):
        long = definitions.get(form.get("$ref", "").removeprefix(_REFERENCE), form)
        if "properties" in long:
            return {**long, "$defs": definitions}
    return schema


def option_type(option: Schema, schema: Schema) -> str:
    """The type of one option in a few words: `integer`, `text | list`, `a | b`."""
    if "$ref" in option:
        name = option["$ref"].removeprefix(_REFERENCE)
        return option_type(schema["$defs"][name], schema)
    if "enum" in option:
        return " | ".join(map(str, option["enum"]))
    if "const" in option:
        return str(option["const"])
    for key in ("anyOf", "oneOf", "allOf"):
        if key in option:
            kinds = [option_type(inner, schema) for inner in option[key]]
            return " | ".join(dict.fromkeys(kind for kind in kinds if kind != "null"))
    if option.get("examples"):
        return f"such as {' or '.join(map(str, option['examples']))}"
    words = {"string": "text", "object": "mapping", "array": "list"}
    kind = str(option.get("type", "any"))
    return words.get(kind, kind)


def _usable(kind: Kind) -> Iterator[tuple[str, type[Component]]]:
    """All parts but those of other packages that cannot be imported here."""
    for name in kind.names():
        with suppress(DefinitionError):
            yield name, kind.find(name)


def _optional(part: type[Component], reference: Schema) -> Schema:
    """`console:` with nothing after it is a part with its defaults."""
    needs = any(field.is_required() for field in part.model_fields.values())
    return reference if needs else {"anyOf": [reference, {"type": "null"}]}


def _told(part: type[Component], name: str) -> Schema:
    """What a part does, in one line, and the example of its docstring."""
    text = cleandoc(part.__doc__ or name)
    told: Schema = {"description": text.partition("\n")[0]}
    if example := _EXAMPLE.search(text):
        document, _ = parse(name, example[1], {})
        told["examples"] = [document.values.get(name)]
    return told


def _name(reference: Mapping[str, Any]) -> str:
    return str(reference["$ref"]).removeprefix(_REFERENCE)


def _with_variables(node: Any) -> Any:
    """The schema, with `${NAME}` allowed wherever it takes a scalar that is not any text."""
    if isinstance(node, list):
        return [_with_variables(inner) for inner in node]
    if not isinstance(node, dict):
        return node
    made = dict(node)
    for key in _MANY:
        if key in made:
            made[key] = {name: _with_variables(inner) for name, inner in made[key].items()}
    for key in _INNER:
        if key in made:
            made[key] = _with_variables(made[key])
    if not _is_narrow(made):
        return made
    outside = {key: made.pop(key) for key in ("description", "default", "title") if key in made}
    return {**outside, "anyOf": [made, _VARIABLE]}


def _is_narrow(node: Schema) -> bool:
    kinds = node.get("type")
    kinds = kinds if isinstance(kinds, list) else [kinds]
    if "enum" in node or "const" in node or any(kind in _SCALARS for kind in kinds):
        return True
    return "string" in kinds and ("pattern" in node or "format" in node)

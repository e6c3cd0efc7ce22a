"""The JSON Schema takes and refuses what the loader takes and refuses."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from edge.deploy.site import site_schema
from edge.pipeline.parts import KINDS
from edge.pipeline.schema import definition_schema
from edge.pipeline.schema import tests_schema as schema_of_tests
from tests.pipeline.press import FILE, GOOD


def test_the_schema_takes_what_the_loader_takes() -> None:
    from edge.pipeline.document import parse

    schema = definition_schema()
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    for text in (GOOD, *(file.read_text() for file in Path("pipelines").glob("*.yaml"))):
        document, _ = parse(FILE, text, {})
        values = json.loads(json.dumps(document.values))
        assert [error.message for error in validator.iter_errors(values)] == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("edge: 1", "edge: 2"),
        ("  mqtt:\n", "  mqt:\n"),
        ("    retained: once", "    retained: sometimes"),
        ("  - filter: temperature > 0", "  - filtr: temperature > 0"),
        ("    roll: {size: 8MiB, every: 60s}", "    roll: {size: 8}"),
        ("    wait: 50ms", "    wait: 50"),
    ],
)
def test_the_schema_refuses_what_the_loader_refuses(old: str, new: str) -> None:
    from edge.pipeline.document import parse

    document, _ = parse(FILE, GOOD.replace(old.strip(), new.strip()), {})
    assert not Draft202012Validator(definition_schema()).is_valid(document.values)


def test_the_schema_takes_files_as_they_are_written_with_their_variables() -> None:
    """As an editor does, which replaces none."""
    validator = Draft202012Validator(definition_schema())
    files = [
        *Path("pipelines").glob("*.yaml"),
        *Path("edge/project/template").glob("*/pipelines/*"),
    ]
    for file in [file for file in files if file.suffix == ".yaml"]:
        values = yaml.load(file.read_text().replace("@name@", "plant"), yaml.BaseLoader)
        values = json.loads(json.dumps(values))
        wrong = [each.json_path for each in validator.iter_errors(_typed(values))]
        assert wrong == [], file


def _typed(value: Any) -> Any:
    """Scalars as YAML 1.2 reads them, without times: no file here needs more."""
    if isinstance(value, dict):
        return {name: _typed(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_typed(inner) for inner in value]
    if value == "":
        return None
    try:
        return json.loads(value)
    except ValueError:
        return value


SCHEMAS = {"definition": definition_schema, "tests": schema_of_tests, "site": site_schema}


def properties(node: Any) -> Iterator[tuple[str, Any]]:
    """Every property of a schema, wherever it stands."""
    if isinstance(node, list):
        node = dict(enumerate(node))
    if not isinstance(node, dict):
        return
    if isinstance(node.get("properties"), dict):
        yield from node["properties"].items()
    for inner in node.values():
        yield from properties(inner)


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_editors_can_say_what_every_property_means(schema: Callable[[], Any]) -> None:
    whole = schema()

    def says(node: Any) -> object:
        named = whole["$defs"].get(str(node.get("$ref", "")).rpartition("/")[2], {})
        return node.get("description") or named.get("description")

    found = [*properties(whole)]
    assert len(found) > 15
    assert [name for name, node in found if not says(node)] == []


def test_every_part_has_an_example_that_its_schema_takes() -> None:
    whole = definition_schema()
    for kind, place in (
        ("source", whole["properties"]["source"]),
        ("operator", whole["$defs"]["Named"]),
        ("sink", whole["$defs"]["Branch"]),
    ):
        known = next(each for each in KINDS if each.word == kind)
        for name in known.table:
            [example] = place["properties"][name]["examples"]
            schema = {**place["properties"][name], "$defs": whole["$defs"]}
            wrong = [error.message for error in Draft202012Validator(schema).iter_errors(example)]
            assert wrong == [], name

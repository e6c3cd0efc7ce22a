"""The JSON Schema takes and refuses what the loader takes and refuses."""

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from edge.pipeline.schema import definition_schema
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

"""list and describe: which parts there are, what each does, and with which options."""

import json

import pytest

from tests.cli.conftest import Edge


def test_list_names_every_part_with_what_it_does(edge: Edge) -> None:
    done = edge("list")

    assert done.code == 0
    assert "Sends rows as JSON messages to an SQS queue." in done.out
    assert {"mqtt", "filter", "s3"} <= {line.split()[0] for line in done.out.splitlines()[1:]}


@pytest.mark.parametrize(("kind", "first"), [("sources", "mqtt"), ("sink", "file")])
def test_list_can_be_narrowed_to_a_kind(edge: Edge, kind: str, first: str) -> None:
    assert edge("list", kind).out.splitlines()[1].split()[0] == first
    parts = json.loads(edge("list", kind, "--json").out)
    assert {part["kind"] for part in parts} == {kind.removesuffix("s")}


def test_a_kind_that_does_not_exist_is_refused(edge: Edge) -> None:
    done = edge("list", "widgets")
    assert done.code == 2
    assert done.err == "list: must be sources, operators or sinks, got 'widgets'\n"


def test_describe_prints_docstring_and_options(edge: Edge) -> None:
    done = edge("describe", "deadband")

    assert done.code == 0
    assert done.out.startswith("operator deadband\n\n")
    assert "heartbeat" in done.out
    options = json.loads(edge("describe", "sink.sqs", "--json").out)["sink"]["options"]
    assert options["required"] == ["queue"]


def test_describe_tells_a_source_and_a_sink_of_one_name_apart(edge: Edge) -> None:
    both = edge("describe", "mqtt").out
    assert both.index("source mqtt\n") < both.index("sink mqtt\n")
    one = edge("describe", "sink.mqtt").out
    assert one.startswith("sink mqtt\n\nPublishes rows")
    assert "source mqtt" not in one


def test_describe_knows_the_nearest_name(edge: Edge) -> None:
    done = edge("describe", "dedband")
    assert done.code == 2
    assert done.err == "no part is called 'dedband'; did you mean 'deadband'?\n"


def test_describe_knows_the_sections_of_a_definition(edge: Edge) -> None:
    done = edge("describe", "record")

    assert done.out.startswith("section record\n\nHow a payload becomes rows.\n")
    assert "rows      text" in done.out
    assert json.loads(edge("describe", "roll", "--json").out)["section"]["options"]["properties"]


def test_a_default_is_written_as_in_a_definition(edge: Edge) -> None:
    words = {line.split("  ")[0]: line for line in edge("describe", "mqtt").out.splitlines()}

    assert " 1m " in words["keepalive"]
    assert " 7d " in words["session_expiry"]

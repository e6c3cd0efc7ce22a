"""The house is as its plan says: layers, names, sizes, help, and imports that do nothing."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import typer

from edge.cli import application
from edge.pipeline import loads
from edge.pipeline.parts import KINDS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "edge"
FILES = sorted(PACKAGE.rglob("*.py"))

# Each may import its own row and those below it.
LAYERS = [
    {"cli", "demo", "plugin", "__main__"},
    {"process"},
    {"runner", "examples", "dashboard", "deploy", "project"},
    {"processing", "waiting"},
    {"flow", "rejected"},
    {"tap"},
    {"pipeline", "link", "promises"},
    {"outcome", "roller"},
    {"sources", "operators", "sinks"},
    {"table"},
    {"mqtt", "aws", "lines", "dataset"},
    {"codec", "expression", "keyed", "observation", "origin", "timeout", "windows"},
    {"newest", "outbox"},
    {"component"},
    {"cpu", "health", "heap", "secrets", "small", "threads"},
    {"errors", "clock"},
]
DEPTH = {name: depth for depth, layer in enumerate(LAYERS) for name in layer}
PARTS = [(kind, name) for kind in KINDS for name in kind.table]
EMPTY_WORDS = {
    "utils",
    "util",
    "helpers",
    "common",
    "base",
    "manager",
    "handler",
    "factory",
    "impl",
}


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(file): file for file in FILES}


def is_typing_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def imports(node: ast.AST, lazy: bool) -> Iterator[str]:
    """Modules of the package imported below `node`; with `lazy` those inside functions too."""
    for child in ast.iter_child_nodes(node):
        if is_typing_only(child) or (not lazy and isinstance(child, ast.FunctionDef)):
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names if alias.name.startswith("edge."))
        elif isinstance(child, ast.ImportFrom) and (child.module or "").split(".")[0] == "edge":
            assert child.module is not None
            for alias in child.names:
                inner = f"{child.module}.{alias.name}"
                yield inner if inner in MODULES else child.module
        yield from imports(child, lazy)


def top(module: str) -> str:
    return [*module.split("."), ""][1]


def test_imports_point_down() -> None:
    wrong = [
        f"{module} imports {target}"
        for module, file in MODULES.items()
        for target in imports(ast.parse(file.read_text()), lazy=True)
        if module != "edge" and target != "edge" and DEPTH[top(target)] < DEPTH[top(module)]
    ]
    assert wrong == []


def test_no_module_waits_for_itself() -> None:
    graph = {
        module: set(imports(ast.parse(file.read_text()), lazy=False)) - {module}
        for module, file in MODULES.items()
    }
    list(TopologicalSorter(graph).static_order())


def test_parts_do_not_import_each_other() -> None:
    for kind, _ in PARTS:
        modules = {target.partition(":")[0] for target in kind.table.values()}
        for module in modules:
            tree = ast.parse(MODULES[module].read_text())
            assert not modules & set(imports(tree, lazy=True)), module


@pytest.mark.parametrize(("kind", "name"), PARTS, ids=[name for _, name in PARTS])
def test_name_file_and_class_of_a_part_agree(kind, name) -> None:  # type: ignore[no-untyped-def]
    suffix = "" if kind.word == "operator" else kind.word.title()
    words = "".join(word.title() for word in name.split("-"))
    file = name.replace("-", "_")
    assert kind.table[name] == f"edge.{kind.word}s.{file}:{words}{suffix}"


def examples(text: str) -> list[str]:
    return re.findall(r"```yaml\n(.*?)```", inspect.cleandoc(text), re.DOTALL)


AROUND = {
    "source": "source: {mqtt: {url: mqtt://localhost, topics: ['a/{device}']}}",
    "operator": "operators: []",
    "sink": "sinks: {out: {console: {}}}",
}


def around(word: str, example: str) -> str:
    """A whole definition of which `example` is one part."""
    indented = example.strip().replace("\n", "\n    ")
    given = {
        "source": f"source:\n    {indented}",
        "operator": f"operators:\n  - {indented}",
        "sink": f"sinks:\n  out:\n    {indented}",
    }
    return "name: example\n" + "\n".join({**AROUND, word: given[word]}.values())


@pytest.mark.parametrize(("kind", "name"), PARTS, ids=[name for _, name in PARTS])
def test_every_part_says_what_it_does_and_shows_an_example_that_loads(kind, name) -> None:  # type: ignore[no-untyped-def]
    part = kind.find(name)
    text = part.__doc__ or ""
    assert re.fullmatch(r"[A-Z].*[.:]", text.splitlines()[0]), text
    found = examples(text)
    assert found, f"{part.__name__} has no example in its docstring"
    for example in found:
        loads(around(kind.word, example), "example.yaml", {})


@pytest.mark.parametrize(("kind", "name"), PARTS, ids=[name for _, name in PARTS])
def test_every_option_of_a_part_says_what_it_means(kind, name) -> None:  # type: ignore[no-untyped-def]
    silent = [
        option for option, field in kind.find(name).model_fields.items() if not field.description
    ]
    assert silent == []


def commands(group: object, path: str = "edge") -> Iterator[tuple[str, object]]:
    for name, command in getattr(group, "commands", {}).items():
        yield f"{path} {name}", command
        yield from commands(command, f"{path} {name}")


def test_every_command_and_every_option_has_help() -> None:
    found = dict(commands(typer.main.get_command(application())))
    assert {"edge run", "edge check", "edge status", "edge outbox ls"} <= set(found)
    for path, command in found.items():
        assert command.help, path  # type: ignore[attr-defined]
        for option in command.params:  # type: ignore[attr-defined]
            assert option.help, f"{path} {option.name}"


@pytest.mark.parametrize("file", FILES, ids=[module_of(file) for file in FILES])
def test_a_file_has_one_idea(file: Path) -> None:
    text = file.read_text()
    assert len(text.splitlines()) <= 400
    assert file.stem not in EMPTY_WORDS
    first = (ast.get_docstring(ast.parse(text)) or "").partition("\n\n")[0]
    assert first.endswith((".", ":")), "the module says in one sentence what it is"


WATCHED = """
import sys, threading, importlib
did = []
def watch(event, arguments):
    if event.startswith(("socket.", "subprocess.", "sqlite3.connect", "os.system", "os.mkdir")):
        did.append(event)
    if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        did.append(f"open {arguments[0]}")
sys.dont_write_bytecode = True
import uuid, polars, boto3, paho.mqtt.client  # what others do is theirs
sys.addaudithook(watch)
threads = threading.active_count()
for name in sys.argv[1:]:
    importlib.import_module(name)
assert threading.active_count() == threads, "a thread was started"
assert not did, did
"""


def python(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_no_module_does_work_when_it_is_imported() -> None:
    python(WATCHED, *(module for module in MODULES if not module.endswith("__main__")))


def loaded_by(module: str) -> set[str]:
    names = python(f"import sys, {module}; print(' '.join(sys.modules))")
    return {name.partition(".")[0] for name in names.split()}


def test_what_is_heavy_is_imported_when_it_is_needed() -> None:
    assert not {"polars", "pydantic", "boto3", "paho"} & loaded_by("edge")
    assert not {"polars", "pydantic", "boto3", "paho", "yaml"} & loaded_by("edge.cli")
    assert not {"boto3", "paho", "moto", "typer"} & loaded_by("edge.pipeline")
    assert not {"boto3", "paho", "moto"} & loaded_by("edge.runner")


def test_editors_and_type_checkers_know_every_public_name() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    [block] = [node for node in tree.body if is_typing_only(node)]
    named = {
        alias.name
        for node in ast.walk(block)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    edge = importlib.import_module("edge")
    assert named == {*edge._HOMES, *(kind.find(name).__name__ for kind, name in PARTS)}


def test_the_public_names_are_there() -> None:
    edge = importlib.import_module("edge")
    for name in ("Pipeline", "Source", "Operator", "Sink", "run", "Branch", "load", "Record"):
        assert getattr(edge, name)
    for kind, name in PARTS:
        part = kind.find(name)
        assert getattr(edge, part.__name__) is part
    with pytest.raises(AttributeError, match="has no attribute 'Sensor'"):
        edge.Sensor  # noqa: B018

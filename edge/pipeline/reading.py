"""A definition file, YAML or Python, as a `Pipeline`; every fault of the file at once."""

import os
import runpy
import sys
import traceback
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from edge.component import Component
from edge.errors import DefinitionError, Fault
from edge.pipeline.binding import Place, dotted, line_of
from edge.pipeline.document import Document, parse
from edge.pipeline.model import Branch, Named, Pipeline
from edge.pipeline.parts import OPERATOR, SINK, SOURCE, Kind
from edge.pipeline.wording import described, shown, unknown

Model = TypeVar("Model", bound=BaseModel)

_BESIDE_SOURCE = ("acknowledge",)
_BESIDE_OPERATOR = ("name",)
_BESIDE_SINK = tuple(name for name in Branch.model_fields if name != "sink")
_NOT_WRITTEN = {
    "acknowledge": "is an option of the source; write it below `source:`",
    "folder": "is the folder of this file; leave it out",
    "file": "is this file; leave it out, a sink to files stands below `sinks:`",
    "sources": "is reserved; a pipeline has one `source:`",
}


def load(file: Path | str, environment: Mapping[str, str] | None = None) -> Pipeline:
    """The pipeline defined in a `.py` file (as `pipeline = Pipeline(...)`) or a YAML file.

    environment: what `${NAME}` means, by default that of the process. Opens nothing but the file.
    Raises DefinitionError with every fault, each with its line.
    """
    if Path(file).suffix == ".py" and os.path.isfile(file):
        return _load_python(Path(file))
    text = read_text(file)
    return loads(text, str(file), environment)


def loads(text: str, file: str, environment: Mapping[str, str] | None = None) -> Pipeline:
    """As `load`, from YAML text; `file` names it in messages and says where paths start."""
    document, faults = parse(file, text, os.environ if environment is None else environment)
    return _Reader(document, faults).pipeline()


def is_test_file(file: Path) -> bool:
    """Whether it is `press-line.test.yaml`, tests of a definition and none itself."""
    return file.suffix in (".yaml", ".yml") and file.stem.endswith(".test")


def definition_files(paths: Sequence[Path]) -> list[Path]:
    """Files as they are, and every *.yaml of a folder but those of tests; each once."""
    found: dict[str, Path] = {}
    for path in paths:
        inside = [path]
        if path.is_dir():
            inside = sorted(file for file in path.glob("*.yaml") if not is_test_file(file))
        if not inside:
            raise DefinitionError(f"{path}: has no *.yaml; put definitions there, or mount them")
        for file in inside:
            found.setdefault(os.path.realpath(file), file)
    return list(found.values())


def read_text(file: Path | str) -> str:
    """The text of a file that a user named. Raises DefinitionError where there is none."""
    path = Path(file)
    try:
        if path.is_dir():
            raise DefinitionError(Fault("", "must be a file, got a folder", str(file)))
        if not path.exists():
            raise DefinitionError(Fault("", _not_there(path), str(file)))
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"must be UTF-8, got other bytes at {error.start}; save it as UTF-8"
        raise DefinitionError(Fault("", message, str(file))) from error
    except OSError as error:
        raise DefinitionError(Fault("", f"cannot be read: {error.strerror}", str(file))) from error


class _Reader:
    """Makes the parts of one document, and notes what is wrong on the way."""

    def __init__(self, document: Document, faults: list[Fault]) -> None:
        self._document = document
        self._faults = faults
        self._broken: set[str] = set()
        self._unreadable = [fault.path for fault in faults]

    def pipeline(self) -> Pipeline:
        written = self._document.values
        values = {name: value for name, value in written.items() if name not in _NOT_WRITTEN}
        for name in _NOT_WRITTEN:
            if name in written:
                self._note((name,), _NOT_WRITTEN[name])
        for name, read in (
            ("source", self._source),
            ("operators", self._common),
            ("sinks", self._sinks),
        ):
            if name in written:
                del values[name]
                faults = len(self._faults)
                values |= read(written[name])
                if len(self._faults) > faults:
                    self._broken.add(name)
        if "sinks" in self._broken:  # what names a sink cannot be judged
            for name in ("rejected", "tests"):
                values.pop(name, None)
        place = {"folder": Path(self._document.file).parent, "file": self._document.file}
        pipeline = self._make(Pipeline, values | place, (), self._broken)
        if self._faults or pipeline is None:
            raise DefinitionError(*sorted(self._faults, key=lambda fault: fault.line or 0))
        pipeline._lines = self._document.lines
        return pipeline

    def _source(self, section: Any) -> dict[str, Any]:
        part, beside = self._part(SOURCE, section, ("source",), _BESIDE_SOURCE)
        return {**beside, "source": part} if part else beside

    def _common(self, section: Any) -> dict[str, Any]:
        return {"operators": self._operators(("operators",), section)}

    def _operators(self, place: Place, section: Any) -> tuple[Named, ...]:
        if not isinstance(section, list):
            message = f"must be a list of operators, each after a dash, got {shown(section)}"
            self._note(place, message)
            return ()
        made = [self._operator((*place, index), item) for index, item in enumerate(section)]
        return tuple(named for named in made if named)

    def _operator(self, place: Place, section: Any) -> Named | None:
        part, beside = self._part(OPERATOR, section, place, _BESIDE_OPERATOR)
        return self._make(Named, {"operator": part, **beside}, place) if part else None

    def _sinks(self, section: Any) -> dict[str, Any]:
        if not isinstance(section, Mapping) or not section:
            self._note(("sinks",), f"must be a mapping of names to sinks, got {shown(section)}")
            return {}
        made = {name: self._branch(("sinks", name), item) for name, item in section.items()}
        return {"sinks": {name: branch for name, branch in made.items() if branch}}

    def _branch(self, place: Place, section: Any) -> Branch | None:
        part, values = self._part(SINK, section, place, _BESIDE_SINK)
        if "operators" in values:
            values["operators"] = self._operators((*place, "operators"), values["operators"])
        if part is None:
            return self._make(Branch, values, place, broken=("sink",))
        return self._make(Branch, {**values, "sink": part}, place)

    def _part(
        self, kind: Kind, section: Any, place: Place, beside: Sequence[str]
    ) -> tuple[Component | None, dict[str, Any]]:
        """The one part that `section` names, and the options that stand beside it."""
        if not isinstance(section, Mapping):
            some = ", ".join(kind.names()[:4])
            message = f"must be a mapping that names one {kind.word} such as {some}"
            self._note(place, f"{message}, got {shown(section)}")
            return None, {}
        options = {name: value for name, value in section.items() if name in beside}
        names = [key for key in section if key not in beside]
        name = self._name_of_part(kind, names, place)
        if name is None:
            return None, options
        try:
            model = kind.find(name)
        except DefinitionError as error:
            self._note(place, error.faults[0].message, (*place, name))
            return None, options
        given = {} if section[name] is None else section[name]
        for key in names:
            if key != name and key in model.model_fields and isinstance(given, Mapping):
                message = f"{key!r} is an option of {name!r}; indent it below `{name}:`"
                self._note(place, message, (*place, key))
                given = {**given, key: section[key]}
            elif key != name:
                self._note(place, unknown(key, beside), (*place, key))
        return self._make(model, given, (*place, name), beside=beside), options

    def _name_of_part(self, kind: Kind, names: list[str], place: Place) -> str | None:
        known = [name for name in names if kind.has(name)]
        if len(known) > 1:
            self._note(place, f"must name one {kind.word}, got {' and '.join(known)}; split them")
            return None
        if not names:
            self._note(place, f"names no {kind.word}; give it one of {', '.join(kind.names())}")
            return None
        return known[0] if known else names[0]

    def _make(
        self,
        model: type[Model],
        values: Any,
        place: Place,
        broken: Collection[str] = (),
        beside: Collection[str] = (),
    ) -> Model | None:
        """`model` with these options, or None with its faults noted; `broken` ones are known.

        `beside`: options that stand beside the part and not below it.
        """
        try:
            return model.model_validate(values)
        except ValidationError as error:
            for inner, message, line in described(error, model, values):
                if not inner and line:  # an option that is not known
                    message = _misplaced(line[0], place, beside) or message
                if inner[:1] not in [(name,) for name in broken]:
                    whole, line = self._written(inner), self._written(line)
                    self._note((*place, *whole), message, (*place, *line))
        except DefinitionError as error:
            for fault in error.faults:
                steps = fault.path.split(".") if fault.path else ()
                inside = [int(step) if step.isdigit() else step for step in steps]
                self._note((*place, *inside), fault.message)
        return None

    def _written(self, inner: Place) -> Place:
        """`acknowledge` is an option of the pipeline that is written below `source`."""
        return ("source", *inner) if inner == _BESIDE_SOURCE else inner

    def _note(self, place: Place, message: str, line: Place | None = None) -> None:
        """Note a fault, unless the value is known to be wrong. `line`: whose line it stands in."""
        path = dotted(place)
        known = any(f"{inner}.".startswith(f"{path}.") for inner in self._unreadable)
        if not known or (line is not None and line != place):
            number = line_of(place if line is None else line, self._document.lines)
            self._faults.append(Fault(path, message, self._document.file, number))


def _misplaced(name: object, place: Place, beside: Collection[str]) -> str | None:
    """What to say of an option that is known elsewhere."""
    if name in beside:
        return f"{name!r} stands beside {place[-1]!r}, not below it; move it out"
    if not place and name in _BESIDE_SINK:
        return f"{name!r} is an option of a sink; indent it below the sink's name"
    return None


def _load_python(path: Path) -> Pipeline:
    folder = str(path.parent.resolve())
    sys.path.insert(0, folder)  # a definition may import what lies beside it
    try:
        found = runpy.run_path(str(path)).get("pipeline")
    except ValidationError as error:
        faults = [Fault(dotted(place), text) for place, text, _ in described(error, Pipeline)]
        raise DefinitionError(
            *(fault._replace(file=str(path), line=_line_in(path, error)) for fault in faults)
        ) from error
    except DefinitionError as error:
        raise DefinitionError(
            *(fault._replace(file=str(path)) for fault in error.faults)
        ) from error
    except (Exception, SystemExit) as error:
        fault = Fault("", f"raises {error!r}", str(path), _line_in(path, error))
        raise DefinitionError(fault) from error
    finally:
        sys.path.remove(folder)
    if not isinstance(found, Pipeline):
        message = f"must define `pipeline = Pipeline(...)`, got {shown(found)}"
        raise DefinitionError(Fault("pipeline", message, str(path)))
    folder_given = "folder" in found.model_fields_set
    update = {"file": str(path)} | ({} if folder_given else {"folder": path.parent})
    return found.model_copy(update=update)


def _line_in(path: Path, error: BaseException) -> int | None:
    if isinstance(error, SyntaxError):
        return error.lineno
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame.lineno for frame in reversed(frames) if frame.filename == str(path)), None)


def _not_there(path: Path) -> str:
    if path.is_symlink():
        return "is a link to a file that is not there"
    around = [other.name for other in path.parent.glob("*")] if path.parent.is_dir() else []
    near = get_close_matches(path.name, around, 1)
    hint = f"; did you mean {str(path.parent / near[0])!r}?" if near else ""
    return f"there is no such file{hint}"

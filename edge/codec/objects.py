"""JSON payloads -> columns: all together in polars, and one by one in Python where that fails."""

from collections.abc import Callable, Mapping, Sequence
from itertools import compress
from typing import NamedTuple

import orjson
import polars as pl

from edge.codec.judge import Judge, Misfit
from edge.codec.record import COLUMN_TYPES, FieldSpec
from edge.codec.rows import Raw, not_utf8, shown

MANY = 1000
"""Payloads from which on `read_ndjson` takes less: a fifth for each, and 0.1 ms more for a call."""
_ORIGIN, _ELEMENT = "edge_origin", "edge_element"
_BOM = b"\xef\xbb\xbf"
_EXACT = 2.0**53  # whole numbers below are told apart in a float
# Numbers are asked for in the type that loses nothing: fractions of a second in a float, whole
# microseconds and nanoseconds as integers. Polars refuses what is of another kind.
_RAW_TYPES: Mapping[str, pl.DataType] = {
    **COLUMN_TYPES,
    "timestamp": pl.String(),
    "timestamp_s": pl.Float64(),
    "timestamp_ms": pl.Float64(),
    "timestamp_us": pl.Int64(),
    "timestamp_ns": pl.Int64(),
}
_FAILURES = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)


_Texts = dict[int, bytes]
"""Payloads by number, in order, each on one line."""


class _Loose(NamedTuple):
    """How `json_decode` reads: its type, and the columns made of it; the last one tells doubt."""

    type: pl.Struct
    leaves: Sequence[pl.Expr]


class ObjectReader:
    """Reads JSON objects into one column per field.

    A payload gives the same rows or the same reject whatever came with it. Polars reads a batch in
    one call and refuses all of it for one bad value. Then the batch is screened: orjson finds what
    is no JSON object, polars reads the rest with nulls in place of misfits, and only rows with
    nulls are looked at in Python. Of a key that occurs twice polars takes the first value.
    """

    def __init__(self, fields: Mapping[str, FieldSpec], rows: str | None) -> None:
        self._names = list(fields)
        self._steps = {name: field.steps(name) for name, field in fields.items()}
        self._rows = tuple(rows.split(".")) if rows else ()
        self._judge = Judge(fields, rows)
        self._has_json = any(field.type == "json" for field in fields.values())
        self._texts = [name for name, field in fields.items() if field.type in ("str", "timestamp")]
        types = {self._steps[name]: _RAW_TYPES[field.type] for name, field in fields.items()}
        if self._rows:
            types = {**types, self._rows: pl.List(pl.Struct(_schema(types)))}
        self._schema = _schema(types)
        self._loose = None if self._rows else self._loosely(types, fields)

    def read(self, payloads: Sequence[bytes]) -> Raw:
        """One row per payload, or per element of the array that `rows` names."""
        joined = b"\n".join(payloads)
        if not self._has_json and _is_plain(joined) and joined.count(b"\n") == len(payloads) - 1:
            frame = self._decode(payloads, joined) if len(payloads) < MANY else None
            if frame is not None:
                return self._raw(frame)
            frame = self._parse(joined, len(payloads))
            if frame is not None:
                return self._without_misread(frame, payloads, joined)
        return self._screen(payloads)

    def read_lines(self, block: bytes) -> Raw | None:
        """Lines of a file in one go, blank ones skipped; None where one of them misfits."""
        if self._has_json or not _is_plain(block):
            return None
        frame = self._parse(block)
        if frame is None or (self._nests(block, frame.height) and self._misread(frame) is not None):
            return None
        return self._raw(frame)

    def _loosely(
        self, types: Mapping[tuple[str, ...], pl.DataType], fields: Mapping[str, FieldSpec]
    ) -> "_Loose | None":
        if self._has_json or any(field.type == "timestamp_ns" for field in fields.values()):
            return None
        whole = [name for name, steps in self._steps.items() if types[steps] == pl.Int64()]
        floats = {
            steps: pl.Float64() if kind == pl.Int64() else kind for steps, kind in types.items()
        }
        leaves = []
        for name, steps in self._steps.items():
            leaf = _leaf(steps)
            leaves.append(
                (leaf.cast(pl.Int64, strict=False) if name in whole else leaf).alias(name)
            )
        values = [_leaf(self._steps[name]) for name in whole]
        inexact = [(value.abs() >= _EXACT) | (value != value.floor()) for value in values]
        doubt = pl.any_horizontal(inexact) if inexact else pl.lit(False)
        return _Loose(pl.Struct(_schema(floats)), [*leaves, doubt.alias(_ORIGIN)])

    def _decode(self, payloads: Sequence[bytes], joined: bytes) -> pl.DataFrame | None:
        """As `_parse`, cheaper for small batches; None where it fails or may have misread a value.

        `json_decode` takes 4.7 for 4, true for 1 and null for what is above 64 bits. So whole
        numbers are read as floats that must be exact, and where true or false stand it is not used.
        """
        if self._loose is None or b"true" in joined or b"false" in joined:
            return None
        try:
            texts = pl.Series(payloads, dtype=pl.Binary).cast(pl.String)
            objects = texts.str.json_decode(self._loose.type)
        except _FAILURES:
            return None
        if len(objects) != len(payloads) or objects.null_count():
            return None
        frame = objects.struct.unnest().select_seq(self._loose.leaves)
        return None if frame.drop_in_place(_ORIGIN).any() else frame

    def _parse(
        self, joined: bytes, count: int | None = None, strict: bool = True
    ) -> pl.DataFrame | None:
        """Lines as one column per field; None when polars cannot read them, or not `count` lines.

        Not strict: a value that misfits is null.
        """
        try:
            nested = pl.read_ndjson(joined, schema=self._schema, ignore_errors=not strict)
        except _FAILURES:
            return None
        return self._flatten(nested) if count in (None, nested.height) else None

    def _flatten(self, nested: pl.DataFrame) -> pl.DataFrame:
        """One column per field; with `rows` also the payload of each row and whether it is null."""
        leaves = [_leaf(steps).alias(name) for name, steps in self._steps.items()]
        if not self._rows:
            plain = all(steps == (name,) for name, steps in self._steps.items())
            return nested if plain else nested.select_seq(leaves)
        nested = nested.with_row_index(_ORIGIN).select(
            _ORIGIN, _leaf(self._rows).alias(_ELEMENT), *leaves
        )
        length = pl.col(_ELEMENT).list.len()
        rows = nested.filter((length > 0) | length.is_null()).explode(_ELEMENT)
        inner = ((name, _leaf((_ELEMENT, *steps))) for name, steps in self._steps.items())
        return rows.select(
            *(pl.coalesce(leaf, name).alias(name) for name, leaf in inner),
            _ORIGIN,
            pl.col(_ELEMENT).is_null(),
        )

    def _raw(self, frame: pl.DataFrame, rejects: Mapping[int, str] | None = None) -> Raw:
        origin = frame[_ORIGIN] if _ORIGIN in frame.columns else None
        fields = frame if frame.columns == self._names else frame.select(self._names)
        return Raw(fields, origin, rejects or {})

    def _misread(self, frame: pl.DataFrame) -> pl.Series | None:
        """Mask of rows that polars may have misread without a word; None if there is none.

        An array or object becomes text in a text column, an element that is null becomes a row.
        """
        doubts = [pl.col(_ELEMENT)] if self._rows else []
        doubts += [pl.col(name).str.starts_with(mark) for name in self._texts for mark in "{["]
        if not doubts:
            return None
        mask = frame.select_seq(pl.any_horizontal(doubts).fill_null(False)).to_series()
        return mask if mask.any() else None

    def _nests(self, joined: bytes, count: int) -> bool:
        """Whether `count` objects may hold arrays or objects; if not, none is misread."""
        return bool(self._rows) or b"[" in joined or joined.count(b"{") != count

    def _without_misread(
        self, frame: pl.DataFrame, payloads: Sequence[bytes], joined: bytes
    ) -> Raw:
        doubts = self._misread(frame) if self._nests(joined, len(payloads)) else None
        if doubts is None:
            return self._raw(frame)
        rejects: dict[int, str] = {}
        frame = _numbered(frame, range(len(payloads)))
        for index in frame[_ORIGIN].filter(doubts).unique():
            try:
                self._judge.rewrite_first(payloads[index])
            except Misfit as misfit:
                rejects[index] = str(misfit)
        return self._raw(frame.filter(~frame[_ORIGIN].is_in(list(rejects))), rejects)

    def _screen(self, payloads: Sequence[bytes]) -> Raw:
        """A batch in which something is wrong: its good payloads, and the others' reasons."""
        rejects: dict[int, str] = {}
        texts = _objects(payloads, rejects)
        frames: list[pl.DataFrame] = []
        if self._has_json:
            texts = self._rewritten(texts, self._judge.rewrite, rejects)
        else:
            frames, suspects = self._read_leniently(texts)
            texts = self._rewritten(suspects, self._judge.rewrite_first, rejects)
        frames += self._read_exactly(texts, rejects)
        whole = pl.concat(frames) if frames else self._nothing()
        return self._raw(whole.sort(_ORIGIN, maintain_order=True), rejects)

    def _rewritten(
        self, texts: _Texts, rewrite: Callable[[bytes], bytes], rejects: dict[int, str]
    ) -> _Texts:
        rewritten: _Texts = {}
        for number, text in texts.items():
            try:
                rewritten[number] = rewrite(text)
            except Misfit as misfit:
                rejects[number] = str(misfit)
        return rewritten

    def _read_leniently(self, texts: _Texts) -> tuple[list[pl.DataFrame], _Texts]:
        """Rows of the payloads that polars reads as they stand, and the payloads in doubt.

        Halved only for what orjson takes and polars does not.
        """
        if not texts:
            return [], {}
        frame = self._parse(b"\n".join(texts.values()), len(texts), strict=False)
        if frame is not None:
            return self._divided(_numbered(frame, list(texts)), texts)
        if len(texts) == 1:
            return [], texts
        (left, doubts), (right, more) = map(self._read_leniently, _halves(texts))
        return left + right, doubts | more

    def _divided(self, frame: pl.DataFrame, texts: _Texts) -> tuple[list[pl.DataFrame], _Texts]:
        misread = self._misread(frame)
        doubted = set(frame[_ORIGIN].filter(misread)) if misread is not None else set()
        empty = [name for name in self._names if frame[name].null_count()]
        if empty:
            doubted |= self._with_lost_values(frame, empty, texts)
        if not doubted:
            return [frame], {}
        kept = frame.filter(~frame[_ORIGIN].is_in(list(doubted)))
        return [kept], {number: texts[number] for number in sorted(doubted)}

    def _with_lost_values(
        self, frame: pl.DataFrame, names: Sequence[str], texts: _Texts
    ) -> set[int]:
        """Payloads with a value where polars gave null."""
        flags = frame.select(_ORIGIN, *(pl.col(name).is_null() for name in names))
        flags = flags.filter(pl.any_horizontal(names))
        if self._rows:
            return set(flags[_ORIGIN])
        lost = set()
        for number, *nulls in flags.iter_rows():
            absent = set(compress(names, nulls))
            if not self._judge.lacks(orjson.loads(texts[number]), absent):
                lost.add(number)
        return lost

    def _read_exactly(self, texts: _Texts, rejects: dict[int, str]) -> list[pl.DataFrame]:
        """Rows of payloads that Python has checked and written anew."""
        if not texts:
            return []
        frame = self._parse(b"\n".join(texts.values()), len(texts))
        if frame is not None:
            return [_numbered(frame, list(texts))]
        if len(texts) == 1:
            rejects.update(dict.fromkeys(texts, "payload cannot be read"))
            return []
        left, right = _halves(texts)
        return self._read_exactly(left, rejects) + self._read_exactly(right, rejects)

    def _nothing(self) -> pl.DataFrame:
        return _numbered(self._flatten(pl.DataFrame(schema=self._schema)), [])


def _is_plain(joined: bytes) -> bool:
    """Whether polars reads it as what it is: not compressed, no lone surrogates.

    It would inflate what begins like gzip, zstd or zlib, and turn a lone surrogate into NUL.
    """
    if joined[:1] not in (b"{", b" ", b"\t"):
        return False
    return b"\\" not in joined or not (b"\\ud" in joined or b"\\uD" in joined)


def _objects(payloads: Sequence[bytes], rejects: dict[int, str]) -> _Texts:
    """The payloads that are JSON objects; the others go to `rejects`."""
    texts = dict(enumerate(payloads))
    loads = orjson.loads
    odd = []
    for number, payload in enumerate(payloads):
        try:
            if type(loads(payload)) is not dict or b"\n" in payload:
                odd.append(number)
        except orjson.JSONDecodeError:
            odd.append(number)
    for number in odd:
        try:
            texts[number] = _object(payloads[number])
        except Misfit as misfit:
            rejects[number] = str(misfit)
            del texts[number]
    return texts


def _object(payload: bytes) -> bytes:
    """A JSON object on one line, without a byte order mark. Raises Misfit."""
    text = payload.removeprefix(_BOM)
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise Misfit(not_utf8(text) or f"payload is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise Misfit(f"payload must be a JSON object, got {shown(value)}")
    # In valid JSON a line break stands only where a blank may stand.
    return text.replace(b"\n", b" ")


def _halves(texts: _Texts) -> tuple[_Texts, _Texts]:
    items = list(texts.items())
    half = len(items) // 2
    return dict(items[:half]), dict(items[half:])


def _schema(types: Mapping[tuple[str, ...], pl.DataType]) -> dict[str, pl.DataType]:
    """Types by place -> nested structs."""
    first = {steps[0]: types[steps] for steps in types if len(steps) == 1}
    nested: dict[str, dict[tuple[str, ...], pl.DataType]] = {}
    for steps, kind in types.items():
        if len(steps) > 1:
            nested.setdefault(steps[0], {})[steps[1:]] = kind
    structs = {name: pl.Struct(_schema(inner)) for name, inner in nested.items()}
    return {steps[0]: {**first, **structs}[steps[0]] for steps in types}


def _leaf(steps: Sequence[str]) -> pl.Expr:
    leaf = pl.col(steps[0])
    for step in steps[1:]:
        leaf = leaf.struct.field(step)
    return leaf


def _numbered(frame: pl.DataFrame, indices: Sequence[int]) -> pl.DataFrame:
    """`frame` with the payload number of each row, `indices` being those of its payloads."""
    numbers = pl.Series(_ORIGIN, indices, dtype=pl.UInt32)
    if _ORIGIN in frame.columns:
        return frame.with_columns(numbers.gather(frame[_ORIGIN]).alias(_ORIGIN))
    return frame.with_columns(numbers)

"""The ledger: durable counters that must balance, the list of losses, the rejected payloads."""

import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from edge.outbox.model import Loss, Reject
from edge.outbox.schema import Damage

REJECTED_ROWS = 1_000
REJECTED_BYTES = 4 * 2**20
_PAYLOAD_LIMIT = 64 * 2**10
_LOSSES = 1_000
_MERGE_WITHIN = 3_600_000_000  # losses of one kind and reason less than an hour apart are one line
_REASON_LIMIT = 300
_REASONS_PER_COMMIT = 20
_CAUSE = re.compile(r"payload is not [^:]+|.+?(?=, got )", re.DOTALL)  # what follows varies

_SAME_LOSS = """
UPDATE loss SET rows = rows + :rows, bytes = bytes + :bytes, last_time = :now,
    first = min(coalesce(first, :first), coalesce(:first, first)),
    last = max(coalesce(last, :last), coalesce(:last, last))
WHERE part = :part AND kind = :kind AND reason = :reason AND last_time > :since
"""
_NEW_LOSS = """
INSERT INTO loss (part, kind, reason, rows, bytes, first, last, first_time, last_time)
VALUES (:part, :kind, :reason, :rows, :bytes, :first, :last, :now, :now)
"""

SOURCE_OUT = ("rejected", "redelivered", "retained", "taken")
SINK_IN = ("appended", "summaries")
SINK_OUT = ("delivered", "buffered", "thinned", "dropped", "refused", "damaged")


class Gone(NamedTuple):
    """An entry or parcel that was taken out, for the ledger: its rows lie in `first`..`last`."""

    first: int
    last: int
    rows: int
    bytes: int
    reason: str = ""


def sink_part(sink: str) -> str:
    """The ledger's name of a sink; the colon keeps it apart from `<branch>/<operator>`."""
    return f"sink:{sink}"


def add(db: sqlite3.Connection, counts: Mapping[tuple[str, str], int]) -> None:
    """Add to counters, by (part, counter)."""
    db.executemany(
        "INSERT INTO ledger VALUES (?, ?, ?) "
        "ON CONFLICT DO UPDATE SET value = value + excluded.value",
        [(*name, number) for name, number in counts.items() if number],
    )


def read(db: sqlite3.Connection) -> dict[str, dict[str, int]]:
    """Every counter, by part; `buffered` of the sinks is read from what is there."""
    counters: dict[str, dict[str, int]] = {}
    for part, counter, value in db.execute("SELECT part, counter, value FROM ledger"):
        if not (isinstance(part, str) and isinstance(counter, str) and isinstance(value, int)):
            raise Damage(f"table ledger: has {part!r}, {counter!r}, {value!r}")
        counters.setdefault(part, {})[counter] = value
    for name, rows in db.execute("SELECT name, entry_rows + parcel_rows + rescue_rows FROM sink"):
        counters.setdefault(sink_part(name), {})["buffered"] = rows
    return counters


def value(db: sqlite3.Connection, part: str, counter: str) -> int:
    """One counter."""
    found = db.execute(
        "SELECT value FROM ledger WHERE part = ? AND counter = ?", (part, counter)
    ).fetchone()
    return found[0] if found else 0


def imbalances(counters: Mapping[str, Mapping[str, int]]) -> list[str]:
    """The equations that do not hold, as sentences; empty when every row is accounted for."""
    faults = []
    for part, values in counters.items():
        left, right = equation(part, values)
        if sum(left.values()) != sum(right.values()):
            faults.append(f"{part}: {_terms(left)} is not {_terms(right)}")
    return faults


def equation(part: str, values: Mapping[str, int]) -> tuple[dict[str, int], dict[str, int]]:
    """What must be equal, as the terms of both sides."""
    if part == "source":
        return {"read": values.get("read", 0)}, {n: values.get(n, 0) for n in SOURCE_OUT}
    if part == "pipeline":  # rows that failed before any operator counted them
        return {}, {}
    if part.startswith("sink:"):
        return {n: values.get(n, 0) for n in SINK_IN}, {n: values.get(n, 0) for n in SINK_OUT}
    left = {n: values.get(n, 0) for n in ("in", "created")}
    return left, {n: number for n, number in values.items() if n not in left}


def _terms(numbers: Mapping[str, int]) -> str:
    return " + ".join(f"{name} {number}" for name, number in numbers.items()) or "0"


def lose(db: sqlite3.Connection, losses: Iterable[Loss], now: int) -> None:
    """Add to the list of losses; what happens again soon for the same reason stays one line."""
    for loss in losses:
        line = {**loss._asdict(), "reason": loss.reason[:_REASON_LIMIT], "now": now}
        found = db.execute(_SAME_LOSS, {**line, "since": now - _MERGE_WITHIN})
        if not found.rowcount:
            db.execute(_NEW_LOSS, line)
            _bound_losses(db)


def _bound_losses(db: sqlite3.Connection) -> None:
    """Past the limit, the older half becomes one line per part and kind."""
    if db.execute("SELECT count(*) FROM loss").fetchone()[0] <= _LOSSES:
        return
    middle = db.execute("SELECT id FROM loss ORDER BY id LIMIT 1 OFFSET ?", (_LOSSES // 2,))
    (bound,) = middle.fetchone()
    merged = db.execute(
        "SELECT min(id), part, kind, 'several reasons', sum(rows), sum(bytes), min(first), "
        "max(last), min(first_time), max(last_time) FROM loss WHERE id < ? GROUP BY part, kind",
        (bound,),
    ).fetchall()
    db.execute("DELETE FROM loss WHERE id < ?", (bound,))
    db.executemany("INSERT INTO loss VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", merged)


def note(db: sqlite3.Connection, sink: str, kind: str, gone: Sequence[Gone], now: int) -> None:
    """Ledger rows that left a sink undelivered: the counter `kind`, and a line of the losses."""
    part = sink_part(sink)
    add(db, {(part, kind): sum(item.rows for item in gone)})
    lines = (Loss(part, kind, g.rows, g.bytes, g.reason, g.first, g.last) for g in gone)
    lose(db, lines, now)


def regain(db: sqlite3.Connection, part: str, reason: str, rows: int, size: int) -> None:
    """Take rows off the list of losses again: a refused parcel gets another try."""
    for number, there in db.execute(
        "SELECT id, rows FROM loss WHERE part = ? AND kind = 'refused' "
        "AND reason IN (?, 'several reasons') ORDER BY id DESC",
        (part, reason[:_REASON_LIMIT]),
    ).fetchall():
        taken = min(rows, there)
        db.execute(
            "UPDATE loss SET rows = rows - ?, bytes = max(0, bytes - ?) WHERE id = ?",
            (taken, size, number),
        )
        rows -= taken
        if not rows:
            break
    db.execute("DELETE FROM loss WHERE rows = 0 AND part = ? AND kind = 'refused'", (part,))


def reject(db: sqlite3.Connection, rejects: Sequence[Reject], now: int) -> None:
    """Keep the latest rejected payloads (their first 64 KiB), and list them as losses by cause."""
    rows: Counter[tuple[str, str, str]] = Counter()
    sizes: Counter[tuple[str, str, str]] = Counter()
    for item in rejects:
        if item.listed:
            continue
        what = ("pipeline", "failed") if item.failed else ("source", "rejected")
        line = (*what, cause(item.reason.splitlines()[-1] if item.failed else item.reason))
        if line not in rows and len(rows) >= _REASONS_PER_COMMIT:
            line = (*what, "several reasons")
        rows[line] += 1
        sizes[line] += len(item.payload)
    lose(db, [Loss(*line[:2], rows[line], sizes[line], line[2]) for line in rows], now)
    db.executemany(
        "INSERT INTO rejected (time, reason, topic, size, payload) VALUES (?, ?, ?, ?, ?)",
        [
            (now, item.reason[:_REASON_LIMIT], item.topic, size, item.payload)
            for item, size in keepable(rejects)
        ],
    )
    _bound_rejected(db)


def cause(reason: str) -> str:
    """What many rejected payloads have in common: the reason without what each one had instead."""
    found = _CAUSE.match(reason)
    return found[0] if found else reason


def keepable(rejects: Sequence[Reject]) -> list[tuple[Reject, int]]:
    """The latest rejects that the table has room for, payloads cut, with their whole size."""
    kept: list[tuple[Reject, int]] = []
    left = REJECTED_BYTES
    for item in rejects[: -REJECTED_ROWS - 1 : -1]:
        payload = item.payload[:_PAYLOAD_LIMIT]
        left -= len(payload)
        if left < 0:
            break
        kept.append((item._replace(payload=payload), len(item.payload)))
    return kept[::-1]


def _bound_rejected(db: sqlite3.Connection) -> None:
    db.execute(
        "DELETE FROM rejected WHERE id <= (SELECT max(id) FROM rejected) - ?", (REJECTED_ROWS,)
    )
    (size,) = db.execute("SELECT coalesce(sum(length(payload)), 0) FROM rejected").fetchone()
    while size > REJECTED_BYTES:
        oldest, length = db.execute(
            "SELECT id, length(payload) FROM rejected ORDER BY id LIMIT 1"
        ).fetchone()
        db.execute("DELETE FROM rejected WHERE id = ?", (oldest,))
        size -= length

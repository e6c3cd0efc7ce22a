"""Rows -> messages with their topics, many to a parcel, and what became of each of them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import orjson
import polars as pl

from edge.codec import compress, rows_as_json
from edge.mqtt.template import LONGEST, Template
from edge.outbox.model import Divided, Parcel, Refusal
from edge.outbox.packed import PACKED, sent_bytes
from edge.sinks import Encoded

Payload = Literal["json", "value"]
"""json: the row as an object; value: the column `value` alone."""

VALUE = "value"
_LONGEST_PAYLOAD = 2**28 - 1 - LONGEST - 2**10
"""Bytes that any packet has room for (MQTT 5, 2.1.4)."""
_SHORT = LONGEST // 4
_BYTES = 2**20
MESSAGES = 1000
"""Messages of one parcel at most."""


class Published(NamedTuple):
    """One message: sequence number of its row, topic, payload."""

    sequence: int
    topic: str
    payload: str


def make_publications(
    frame: pl.DataFrame, template: Template, form: Payload, identity: bool
) -> Encoded:
    """Parcels of up to 1,000 messages or 1 MiB; the body is a JSON array with a line for each.

    A parcel's key is the id of its first row.
    """
    ids = frame["edge_id"]
    stem = ids[0][: ids[0].rindex("-") + 1]
    sequences = ids.str.slice(len(stem)).cast(pl.Int64).to_list()
    payloads = _values(frame) if form == "value" else _rows(frame, identity)
    refused, lines = [], []
    for message in zip(sequences, template.topics(frame).to_list(), payloads, strict=True):
        if reason := _unfit(message[1], message[2]):
            refused.append(Refusal(message[0], message[0], 1, reason))
        else:
            lines.append((message[0], orjson.dumps(message)))
    return Encoded([_parcel(stem, part) for part in _cut(lines)], refused)


def messages_of(parcel: Parcel) -> Sequence[Published]:
    """What a parcel holds. Raises ValueError when it was made for a sink of another kind."""
    try:
        found = orjson.loads(b"".join(sent_bytes(parcel.body, parcel.attributes)))
        messages = [Published(*message) for message in found]
    except (ValueError, TypeError) as error:
        raise ValueError("the parcel holds no MQTT messages") from error
    if not all(map(_is_message, messages)):
        raise ValueError("the parcel holds no MQTT messages")
    return messages


def divide(
    parcel: Parcel, messages: Sequence[Published], taken: set[int], refused: Mapping[int, str]
) -> Divided:
    """Places of messages that have arrived, and of those that never will, each with its reason.

    `messages` is what the parcel holds; what is in neither waits as a smaller parcel.
    """
    rest = [each for place, each in enumerate(messages) if place not in taken | refused.keys()]
    by_reason: dict[str, list[Published]] = {}
    for place, reason in refused.items():
        by_reason.setdefault(reason, []).append(messages[place])
    stem = parcel.key[: parcel.key.rindex("-") + 1]
    return Divided(
        delivered=len(taken),
        refused=[(_piece(stem, part), reason) for reason, part in by_reason.items()],
        rest=_piece(stem, rest) if rest else None,
    )


def _piece(stem: str, messages: Sequence[Published]) -> Parcel:
    return _parcel(stem, [(message.sequence, orjson.dumps(tuple(message))) for message in messages])


def _parcel(stem: str, lines: Sequence[tuple[int, bytes]]) -> Parcel:
    first, last = lines[0][0], lines[-1][0]
    body = b"[" + b",\n".join(line for _, line in lines) + b"]\n"
    return Parcel(f"{stem}{first}", first, last, len(lines), compress(body, "zstd"), PACKED)


def _cut(lines: Sequence[tuple[int, bytes]]) -> Iterator[Sequence[tuple[int, bytes]]]:
    start = size = 0
    for index, (_, line) in enumerate(lines):
        if index > start and (index - start == MESSAGES or size + len(line) > _BYTES):
            yield lines[start:index]
            start, size = index, 0
        size += len(line)
    if lines:
        yield lines[start:]


def _rows(frame: pl.DataFrame, identity: bool) -> list[str]:
    rows = rows_as_json(frame if identity else frame.drop("edge_id"))
    return [row.decode() for row in rows]


def _values(frame: pl.DataFrame) -> list[str]:
    """Text as it is, anything else as in JSON; null where the column is not there."""
    if VALUE not in frame.columns:  # rows from before a change of the definition
        return ["null"] * frame.height
    column = frame[VALUE]
    if column.dtype == pl.String:
        return column.fill_null("null").to_list()
    start = len(f'{{"{VALUE}":')
    return [row[start:-1].decode() for row in rows_as_json(frame.select(VALUE))]


def _unfit(topic: str, payload: str) -> str | None:
    """Why no broker can take a message; None if one may."""
    if len(topic) > _SHORT and (size := len(topic.encode())) > LONGEST:
        return f"topic of {size} bytes; MQTT has room for {LONGEST}"
    if len(payload) > _SHORT and (size := len(payload.encode())) > _LONGEST_PAYLOAD:
        return f"message of {size} bytes; MQTT has room for {_LONGEST_PAYLOAD}"
    return None


def _is_message(message: Published) -> bool:
    return (
        isinstance(message.sequence, int)
        and isinstance(message.topic, str)
        and isinstance(message.payload, str)
    )

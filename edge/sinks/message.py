"""Rows -> messages: JSON bodies that SQS accepts, their sizes and their groups."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence

import polars as pl

from edge.aws.queue import ID_ATTRIBUTE
from edge.codec import rows_as_json
from edge.outbox.model import Parcel, Refusal
from edge.sinks import Encoded, split_id

LARGEST = 2**20
"""Bytes of a message at most, in any queue (SQS quota since 2025-08)."""

ID_TYPE = "String"

# SQS allows #x9 #xA #xD #x20-D7FF E000-FFFD 10000-10FFFF. JSON has escaped what is below #x20, a
# column cannot hold lone surrogates; these two are left.
_ILLEGAL = {
    char.encode(): escaped for char, escaped in (("\ufffe", b"\\ufffe"), ("\uffff", b"\\uffff"))
}
_SUSPECT = "\ufffe".encode()[:2]
_LEGAL_GROUP = r"^[!-~]{1,128}$"


def overhead(key: str) -> int:
    """Bytes that the id of a message adds to what counts against a queue's limit."""
    return len(ID_ATTRIBUTE) + len(ID_TYPE) + len(key.encode())


def make_messages(
    frame: pl.DataFrame,
    groups: pl.Series | None,
    pack: int | None,
    identity: bool,
    largest: int = LARGEST,
) -> Encoded:
    """A parcel per row of `frame`, or per `pack` bytes of rows of one group, oldest first.

    A row of more than `largest` bytes is refused. The key of a parcel is the id of its first row,
    its attribute `group` the row's value in `groups`.
    """
    extra = overhead(frame.item(-1, "edge_id")) if identity else 0
    messages = _messages(frame, groups, identity)
    fits = messages["size"] <= largest - extra
    refused = [] if fits.all() else _refusals(messages.filter(~fits), extra, largest)
    messages = messages.filter(fits) if refused else messages
    if pack is None:
        return Encoded(list(_single(messages)), refused)
    parts = messages.partition_by("group", maintain_order=True)
    parcels = [parcel for part in parts for parcel in _packed(part, pack - extra)]
    return Encoded(sorted(parcels, key=lambda parcel: parcel.first), refused)


def group_names(frame: pl.DataFrame, by: Sequence[str]) -> pl.Series:
    """The message group of every row: its key, hashed where SQS does not allow its characters.

    Without key columns all rows are one group, named after the sink.
    """
    if not by:
        return pl.repeat(split_id(frame.item(0, "edge_id")).path, frame.height, eager=True)
    key = pl.concat_str([_group_part(name, frame) for name in by], separator="/")
    names = frame.select(key.alias("group"))["group"]
    unfit = names.filter(~names.str.contains(_LEGAL_GROUP)).unique()
    return names.replace(unfit, pl.Series([_hashed(name) for name in unfit], dtype=pl.String))


def _group_part(name: str, frame: pl.DataFrame) -> pl.Expr:
    if name not in frame.columns:  # rows from before a change of the definition
        return pl.repeat("null", pl.len(), dtype=pl.String)
    return pl.col(name).cast(pl.String).fill_null("null")


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _messages(frame: pl.DataFrame, groups: pl.Series | None, identity: bool) -> pl.DataFrame:
    """One message per row: id, sequence, body (Binary), size (of the body), group (or null)."""
    ids = frame["edge_id"]
    bodies = rows_as_json(frame if identity else frame.drop("edge_id"))
    bodies = [_legal(body) if _SUSPECT in body else body for body in bodies]
    return pl.DataFrame(
        {
            "id": ids,
            "sequence": ids.str.slice(ids[0].rindex("-") + 1).cast(pl.Int64),
            "body": pl.Series(bodies, dtype=pl.Binary),
            "size": pl.Series(map(len, bodies), dtype=pl.Int64),
            "group": pl.repeat(None, len(ids), dtype=pl.String, eager=True)
            if groups is None
            else groups,
        }
    )


def _legal(body: bytes) -> bytes:
    for character, escaped in _ILLEGAL.items():
        body = body.replace(character, escaped)
    return body


def _single(messages: pl.DataFrame) -> Iterator[Parcel]:
    attributes = {group: _attributes(group) for group in messages["group"].unique()}
    columns = (messages[name].to_list() for name in ("id", "sequence", "body", "group"))
    for key, sequence, body, group in zip(*columns, strict=True):
        yield Parcel(key, sequence, sequence, 1, body, attributes[group])


def _packed(messages: pl.DataFrame, limit: int) -> Iterator[Parcel]:
    """JSON arrays of as many rows as `limit` bytes hold; a larger row goes alone."""
    attributes = _attributes(messages.item(0, "group"))
    ids, sequences, bodies = (messages[name].to_list() for name in ("id", "sequence", "body"))
    ends = (messages["size"] + 1).cum_sum()  # each row with its comma or closing bracket
    start = before = 0
    while start < len(ids):
        end = max(start + 1, ends.search_sorted(before + limit - 1, side="right"))
        body = b"[" + b",".join(bodies[start:end]) + b"]"
        yield Parcel(
            ids[start], sequences[start], sequences[end - 1], end - start, body, attributes
        )
        start, before = end, ends[end - 1]


def _attributes(group: str | None) -> Mapping[str, str]:
    return {} if group is None else {"group": group}


def _refusals(messages: pl.DataFrame, extra: int, largest: int) -> Sequence[Refusal]:
    return [
        Refusal(sequence, sequence, 1, f"message of {size + extra} bytes; a queue takes {largest}")
        for sequence, size in messages.select("sequence", "size").iter_rows()
    ]

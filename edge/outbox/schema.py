"""The tables of the outbox file, and connections to it that forget nothing in a power cut."""

import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path
from urllib.parse import quote

from edge.errors import DefinitionError

FILE = "outbox.sqlite"
VERSION = 1  # another one has other tables, or it is taken for a flipped bit
PAGE_SIZE = 2048
"""Of a new file. A commit writes whole pages, six or more of them for little in each."""

TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE sink (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,
    next_sequence INTEGER NOT NULL DEFAULT 1,
    entries INTEGER NOT NULL DEFAULT 0, entry_rows INTEGER NOT NULL DEFAULT 0,
    entry_size INTEGER NOT NULL DEFAULT 0, entry_bytes INTEGER NOT NULL DEFAULT 0,
    parcels INTEGER NOT NULL DEFAULT 0, parcel_rows INTEGER NOT NULL DEFAULT 0,
    parcel_bytes INTEGER NOT NULL DEFAULT 0,
    refused_parcels INTEGER NOT NULL DEFAULT 0, refused_rows INTEGER NOT NULL DEFAULT 0,
    refused_bytes INTEGER NOT NULL DEFAULT 0,
    rescue_rows INTEGER NOT NULL DEFAULT 0,
    link TEXT NOT NULL DEFAULT 'down', link_since INTEGER, link_reason TEXT
);
CREATE TABLE ledger (
    part TEXT, counter TEXT, value INTEGER NOT NULL, PRIMARY KEY (part, counter)
) WITHOUT ROWID;
CREATE TABLE memory (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, shape TEXT NOT NULL, whole INTEGER NOT NULL,
    crc INTEGER NOT NULL, body BLOB NOT NULL
);
CREATE TABLE entry (
    id INTEGER PRIMARY KEY, sink INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
    rows INTEGER NOT NULL, size INTEGER NOT NULL, time INTEGER NOT NULL, crc INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX entry_by_sink ON entry (sink, id);
CREATE TABLE parcel (
    id INTEGER PRIMARY KEY, sink INTEGER NOT NULL, state TEXT NOT NULL, key TEXT NOT NULL,
    first INTEGER NOT NULL, last INTEGER NOT NULL, rows INTEGER NOT NULL, time INTEGER NOT NULL,
    reason TEXT, attributes TEXT NOT NULL, crc INTEGER NOT NULL, body BLOB NOT NULL
);
CREATE INDEX parcel_by_sink ON parcel (sink, state, first);
CREATE TABLE loss (
    id INTEGER PRIMARY KEY, part TEXT NOT NULL, kind TEXT NOT NULL, reason TEXT NOT NULL,
    rows INTEGER NOT NULL, bytes INTEGER NOT NULL, first INTEGER, last INTEGER,
    first_time INTEGER NOT NULL, last_time INTEGER NOT NULL
);
CREATE INDEX loss_by_part ON loss (part, kind, reason);
CREATE TABLE rejected (
    id INTEGER PRIMARY KEY, time INTEGER NOT NULL, reason TEXT NOT NULL, topic TEXT,
    size INTEGER NOT NULL, payload BLOB NOT NULL
);
CREATE TABLE request (
    id INTEGER PRIMARY KEY, time INTEGER NOT NULL, action TEXT NOT NULL, sink TEXT NOT NULL,
    parcels TEXT, answer TEXT
);
"""


class Damage(sqlite3.DatabaseError):
    """What SQLite read without complaint cannot be what was written."""


# A flipped bit must end in a wrong checksum, not in a decoding error.
_forgiving = partial(str, encoding="utf-8", errors="replace")


def connect(path: Path, wal_limit: int) -> sqlite3.Connection:
    """A writing connection; the file and its tables are created when missing.

    wal_limit: the WAL is checkpointed when a commit leaves it longer than this, in bytes.
    Raises sqlite3.DatabaseError when the file is damaged, DefinitionError when another version of
    the product wrote it (the file is left untouched).
    """
    db = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
    db.text_factory = _forgiving
    try:
        refuse_others(db, path)
        for pragma in (
            f"page_size={PAGE_SIZE}",  # these two count only for a new file
            "auto_vacuum=INCREMENTAL",
            "journal_mode=WAL",
            "synchronous=FULL",
            "secure_delete=OFF",  # Debian builds SQLite with it on: 1.7 times the bytes written
            "cache_size=-4096",
            "temp_store=MEMORY",  # only VACUUM uses it; a container has no folder for it
            "cell_size_check=ON",
            f"wal_autocheckpoint={wal_limit // PAGE_SIZE}",
            f"journal_size_limit={wal_limit}",
        ):
            db.execute("PRAGMA " + pragma).fetchall()
        if not _tables(db):
            _create(db)
        elif user_version(db) != VERSION:
            db.execute(f"PRAGMA user_version={VERSION}")
    except BaseException:
        db.close()
        raise
    return db


def connect_to_rescue(path: Path) -> sqlite3.Connection:
    """A connection to a damaged file that was set aside; raises when its tables are not known."""
    if not path.exists():
        raise sqlite3.OperationalError(f"{path}: there is no such file")
    db = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    db.text_factory = _forgiving
    try:
        db.execute("PRAGMA query_only=ON")
        db.execute("SELECT 1 FROM meta, sink, ledger, entry, parcel, memory LIMIT 0")
        db.execute("PRAGMA cell_size_check=ON")
    except sqlite3.Error:
        db.close()
        raise
    return db


def connect_to_read(path: Path) -> sqlite3.Connection:
    """A connection of another process that only looks. Keep it short: it holds the WAL."""
    mode = "mode=ro" if path.with_name(path.name + "-wal").exists() else "mode=ro&immutable=1"
    db = sqlite3.connect(f"file:{quote(str(path))}?{mode}", uri=True, isolation_level=None)
    db.text_factory = _forgiving
    return db


def user_version(db: sqlite3.Connection) -> int:
    """The version of the tables; 0 in a new file."""
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    return version


def refuse_others(db: sqlite3.Connection, path: Path) -> None:
    """Raise DefinitionError for a file of another version, or of somebody else. Only looks."""
    found = user_version(db)
    if found == VERSION or not (tables := _tables(db)) or tables == _own_tables():
        return  # with our tables another version is a flipped bit
    if found < 1:
        raise DefinitionError(
            f"outbox {path.parent}: {path.name} is no outbox, it has other tables; move it away or "
            "choose another `outbox.path`"
        )
    age, until = ("a newer", "") if found > VERSION else ("an older", " until it is empty")
    raise DefinitionError(
        f"outbox {path.parent}: was written by {age} version, got schema {found}, this one knows "
        f"{VERSION}; run the {age.split()[1]} version{until} or choose another `outbox.path`"
    )


def is_being_made(db: sqlite3.Connection) -> bool:
    """Whether the file is there and its tables are about to be."""
    return not user_version(db) and not _tables(db)


def _tables(db: sqlite3.Connection) -> list[str]:
    found = db.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name")
    return [text for (text,) in found]


def _own_tables() -> list[str]:
    with closing(sqlite3.connect(":memory:")) as model:
        model.executescript(TABLES)
        return _tables(model)


def _create(db: sqlite3.Connection) -> None:
    db.executescript(f"BEGIN IMMEDIATE; {TABLES} PRAGMA user_version={VERSION}; COMMIT;")


# What the tables constrain is never tried: a broken constraint is an id or a value that was hidden.
_DAMAGE = (
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_FORMAT,
    sqlite3.SQLITE_CONSTRAINT,
)


def is_damage(error: sqlite3.Error) -> bool:
    """Whether SQLite says that the content of the file is not what it wrote."""
    if isinstance(error, Damage):
        return True
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return False
    # An IOERR short read is a file that was cut; a missing table is a lost schema page.
    lost = isinstance(error, sqlite3.OperationalError) and str(error).startswith("no such ")
    return code & 0xFF in _DAMAGE or code == sqlite3.SQLITE_IOERR_SHORT_READ or lost


def is_full(error: sqlite3.Error, *, strictly: bool = False) -> bool:
    """Whether the disk (or, if not `strictly`, a write that it refused) stopped a statement."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return False
    return code & 0xFF == sqlite3.SQLITE_FULL or (
        not strictly and code & 0xFF == sqlite3.SQLITE_IOERR
    )

"""The store of a sweep: one SQLite file, written as points finish, shared between sweeps.

The file is in WAL mode and every batch of points is one transaction, so a process killed at any
moment loses nothing that was stored, and readers and other sweeps go on meanwhile.
"""

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from simulator.simulate import VERSION
from sparseloom.sweeps.evaluate import Outcome
from sparseloom.sweeps.points import Point
from sparseloom.sweeps.spec import SweepSpec
from workloads.canonical import canonical

__all__ = ["SCHEMA", "Row", "Store", "check_place", "is_store", "open_store"]

SCHEMA: Final = 2
"""Layout of the file; grows when a table or what is measured of a point changes."""

PATIENCE_S: Final = 60.0
"""How long to wait for another writer."""

_MAGIC: Final = b"SQLite format 3\0"
_TABLES: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE sweeps (digest TEXT PRIMARY KEY, name TEXT NOT NULL, spec TEXT NOT NULL);
CREATE TABLE points (
    digest TEXT PRIMARY KEY, point TEXT NOT NULL, metrics TEXT, error TEXT,
    seconds REAL NOT NULL);
CREATE TABLE members (
    sweep TEXT NOT NULL, point TEXT NOT NULL, PRIMARY KEY (sweep, point)) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One finished point: its parameters as plain values, and metrics or the reason for none."""

    digest: str
    point: dict[str, Any]
    metrics: dict[str, float | int] | None
    error: str | None
    seconds: float


def is_store(path: Path) -> bool:
    """Whether `path` is an SQLite file."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


@dataclass(frozen=True, slots=True)
class Store:
    """An open store; see `open_store`."""

    path: Path
    connection: sqlite3.Connection = field(repr=False)

    def known(self, digests: Iterable[str]) -> set[str]:
        """Return which of `digests` are finished, failures included."""
        wanted = set(digests)
        rows = self.connection.execute("SELECT digest FROM points")
        return {digest for (digest,) in rows if digest in wanted}

    def begin(self, spec: SweepSpec) -> str:
        """Note that `spec` runs on this store, as its latest sweep; returns its digest."""
        digest = spec.digest()
        with self.connection:
            self.connection.execute(
                "INSERT OR REPLACE INTO sweeps VALUES (?, ?, ?)",
                (digest, spec.name, json.dumps(canonical(spec))),
            )
        return digest

    def claim(self, sweep: str, digests: Iterable[str]) -> None:
        """Note that points belong to `sweep`, whoever computes them."""
        with self.connection:
            self.connection.executemany(
                "INSERT OR IGNORE INTO members VALUES (?, ?)", ((sweep, d) for d in digests)
            )

    def add(self, outcomes: Iterable[tuple[str, Point, Outcome]]) -> None:
        """Store finished points; one that another sweep has stored meanwhile is left as it is."""
        rows = [
            (
                digest,
                json.dumps(_flat(point)),
                json.dumps(outcome.metrics) if outcome.metrics is not None else None,
                outcome.error,
                outcome.seconds,
            )
            for digest, point, outcome in outcomes
        ]
        with self.connection:
            self.connection.executemany("INSERT OR IGNORE INTO points VALUES (?, ?, ?, ?, ?)", rows)

    def forget_failures(self, sweep: str) -> None:
        """Drop the failed points of `sweep`, so that they run again."""
        with self.connection:
            self.connection.execute(
                "DELETE FROM points WHERE error IS NOT NULL AND digest IN "
                "(SELECT point FROM members WHERE sweep = ?)",
                (sweep,),
            )

    def count(self, *, failed: bool = False) -> int:
        """Return the number of finished points, or of those that failed."""
        where = "error IS NOT NULL" if failed else "error IS NULL"
        (number,) = self.connection.execute(f"SELECT COUNT(*) FROM points WHERE {where}").fetchone()
        return int(number)

    def sweeps(self) -> dict[str, dict[str, Any]]:
        """Return the specification of every sweep by digest, the one begun last at the end."""
        rows = self.connection.execute("SELECT digest, spec FROM sweeps ORDER BY rowid")
        return {digest: json.loads(spec) for digest, spec in rows}

    def rows(self, sweep: str | None = None) -> Iterator[Row]:
        """Yield the finished points, of one sweep or of all, in order of their digest."""
        query = "SELECT digest, point, metrics, error, seconds FROM points"
        arguments: tuple[str, ...] = ()
        if sweep is not None:
            query += " WHERE digest IN (SELECT point FROM members WHERE sweep = ?)"
            arguments = (sweep,)
        for digest, point, metrics, error, seconds in self.connection.execute(
            query + " ORDER BY digest", arguments
        ):
            yield Row(
                digest=digest,
                point=json.loads(point),
                metrics=json.loads(metrics) if metrics else None,
                error=error,
                seconds=seconds,
            )


def _flat(point: Point) -> dict[str, Any]:
    """Return a point as one flat row: what a table's columns are."""
    workload = point.workload
    return {
        "workload": workload.source,
        **{f"workload.{key}": value for key, value in sorted(workload.options.items())},
        "phase": workload.phase,
        "method": workload.method,
        "sparsity": point.sparsity,
        "arch": point.base,
        "mapper": point.mapper,
        "minimise": point.minimise,
        **dict(sorted(point.parameters.items())),
    }


def _check(path: Path, connection: sqlite3.Connection) -> bool:
    """Return whether the file has its tables; raise ValueError if they are not this layout's."""
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    meta = dict(connection.execute("SELECT key, value FROM meta")) if "meta" in names else {}
    if names and "schema" not in meta:
        raise ValueError(f"{str(path)!r} is an SQLite file, but not the store of a sweep")
    if meta and meta["schema"] != str(SCHEMA):
        raise ValueError(
            f"Store {str(path)!r} has layout {meta['schema']}, written by sparseloom "
            f"{meta.get('version', '?')}; this version has layout {SCHEMA}: export it with that "
            "version (`sparseloom report STORE --out DIR`), or sweep into a new file"
        )
    return bool(names)


def _busy(error: sqlite3.DatabaseError) -> bool:
    """Whether another connection holds a lock; the low byte is the code without its detail."""
    return error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY


def _make(path: Path, connection: sqlite3.Connection) -> None:
    """Make the tables unless they are there, as one step for every other process."""
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        if not _check(path, connection):
            for table in _TABLES.split(";"):  # `executescript` would commit each
                connection.execute(table)
            meta = (("schema", str(SCHEMA)), ("version", VERSION))
            connection.executemany("INSERT INTO meta VALUES (?, ?)", meta)
    deadline = time.monotonic() + PATIENCE_S
    while True:  # SQLite does not wait for others' locks on a change of the journal's mode
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if not _busy(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def check_place(path: Path, *, create: bool = False) -> None:
    """Raise ValueError if there is no store at `path`, nor could be one if `create`."""
    if path.is_dir():
        raise ValueError(f"Store {str(path)!r} is a folder; a store is a file")
    if not create and not path.is_file():
        raise ValueError(f"Store {str(path)!r} does not exist; `sparseloom sweep` makes one")
    if path.is_file() and path.stat().st_size and not is_store(path):
        raise ValueError(f"{str(path)!r} is not the store of a sweep")
    if not path.absolute().parent.is_dir():
        raise ValueError(f"Store {str(path)!r} cannot be: its folder does not exist")


@contextmanager
def open_store(path: Path, *, create: bool = False) -> Iterator[Store]:
    """Yield the store in `path`, made if `create`, and close it afterwards.

    Raises ValueError for a file that is missing, no store, or of another layout.
    """
    check_place(path, create=create)
    try:
        connection = sqlite3.connect(path, timeout=PATIENCE_S)
    except sqlite3.DatabaseError as error:
        raise ValueError(f"Store {str(path)!r} cannot be opened: {error}") from None
    try:
        if not _check(path, connection) and not create:
            raise ValueError(f"Store {str(path)!r} is empty; `sparseloom sweep` fills it")
        if create:
            _make(path, connection)
            connection.execute("PRAGMA synchronous = NORMAL")
        yield Store(path, connection)
    except sqlite3.DatabaseError as error:
        if _busy(error):
            raise ValueError(
                f"Store {str(path)!r} was kept locked by another process for {PATIENCE_S:.0f} s; "
                "what was stored stays: run the same command again"
            ) from None
        raise ValueError(
            f"Store {str(path)!r} cannot be read or written: {error}; if it is damaged, move it "
            "away and sweep again"
        ) from None
    finally:
        connection.close()

"""The stores that the whole service is tested with: each real, and looked at from outside of the service."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from tests.real.judge import Found, read_store
from tests.real.processes import wait_until
from tests.real.stack import RealStack
from tests.real.tables import TABLES, Table

from vectide.jobs.executor import SystemClock
from vectide.ports import Deadline, Scannable, Store, Stored
from vectide.stores.chroma import ChromaStore
from vectide.stores.lancedb import LanceDbStore
from vectide.stores.qdrant import QdrantStore
from vectide.stores.weaviate import WeaviateStore
from vectide.testing.qdrant_server import QdrantServer

PATIENCE_S = 180.0
PAGE = 500
#: What does not change for so long has come to rest.
QUIET_S = 1.0


class Target(ABC):
    """One store: ``kind``, and the ``variables`` by which the service is told of it."""

    def __init__(self, kind: str, variables: Mapping[str, str]) -> None:
        self.kind = kind
        self.variables = {"VECTIDE_STORE__KIND": kind, **variables}

    @abstractmethod
    def read(self, table: Table) -> list[Found]:
        """Every point of the table's collection."""

    @abstractmethod
    def come_to_rest(self) -> None:
        """Wait until nothing changes it any more that a killed service has sent."""


class Database(Target):
    """PostgreSQL, by plain SQL, as any user of the database could read it."""

    def __init__(self, stack: RealStack, name: str) -> None:
        with psycopg.connect(stack.postgres.dsn, autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {name}".encode())
        dsn = make_conninfo(stack.postgres.dsn, dbname=name)
        super().__init__("pgvector", {"VECTIDE_STORE__DSN": dsn})
        self._link = psycopg.connect(dsn, autocommit=True)

    def close(self) -> None:
        self._link.close()

    def read(self, table: Table) -> list[Found]:
        return read_store(self._link, table)

    def come_to_rest(self) -> None:
        others = (
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        wait_until("the store is left alone", lambda: not self._link.execute(others).fetchall(), PATIENCE_S)


class Scanned(Target):
    """Another store, by a scan of its own client."""

    def __init__(self, kind: str, store: Store, variables: Mapping[str, str]) -> None:
        super().__init__(kind, variables)
        assert isinstance(store, Scannable)
        self._store = store

    def read(self, table: Table) -> list[Found]:
        return [_found(table, point) for point in self._points(table)]

    def come_to_rest(self) -> None:
        before: list[Any] = []

        def is_still() -> bool:
            nonlocal before
            now = [
                (point.id, point.text_hash, point.stamp) for table in TABLES for point in self._points(table)
            ]
            now.sort(key=lambda one: one[0])
            still, before = now == before, now
            if not still:
                time.sleep(QUIET_S)
            return still

        wait_until("the store is left alone", is_still, PATIENCE_S)

    def _points(self, table: Table) -> Sequence[Stored]:
        found: list[Stored] = []
        cursor: str | None = None
        while True:
            deadline = Deadline.after(SystemClock(), PATIENCE_S)
            page, cursor = self._store.scan(table.name, cursor, PAGE, deadline, vectors=True)
            found += page
            if cursor is None:
                return found


def _found(table: Table, point: Stored) -> Found:
    assert point.text is not None
    assert point.vector is not None
    ahead = point.stamp is not None and point.stamp.ahead
    vector = np.asarray(point.vector, dtype=np.float32)
    return Found(table.key_of(json.loads(point.row.key)), point.text, point.metadata, vector, ahead)


# --- each of them ---------------------------------------------------------------------------------------

MakeTarget = Callable[[pytest.FixtureRequest, RealStack], Iterator[Target]]


def pgvector(_request: pytest.FixtureRequest, stack: RealStack) -> Iterator[Target]:
    with closing(Database(stack, "stream_vectors")) as target:
        yield target


def qdrant(_request: pytest.FixtureRequest, _stack: RealStack) -> Iterator[Target]:
    with QdrantServer() as server, closing(QdrantStore(server.url)) as store:
        yield Scanned("qdrant", store, {"VECTIDE_STORE__URL": server.url})


def chroma(request: pytest.FixtureRequest, _stack: RealStack) -> Iterator[Target]:
    server = request.getfixturevalue("chroma_server")
    database = server.new_database()
    with closing(ChromaStore(server.url, database=database)) as store:
        yield Scanned(
            "chroma", store, {"VECTIDE_STORE__URL": server.url, "VECTIDE_STORE__DATABASE": database}
        )


def lancedb(request: pytest.FixtureRequest, _stack: RealStack) -> Iterator[Target]:
    folder: Path = request.getfixturevalue("tmp_path")
    with closing(LanceDbStore(str(folder / "lance"))) as store:
        yield Scanned("lancedb", store, {"VECTIDE_STORE__URL": str(folder / "lance")})


def weaviate(request: pytest.FixtureRequest, _stack: RealStack) -> Iterator[Target]:
    server = request.getfixturevalue("weaviate_server")
    with closing(WeaviateStore(server.url)) as store:
        yield Scanned("weaviate", store, {"VECTIDE_STORE__URL": server.url})


_TARGETS: Mapping[str, MakeTarget] = {
    "pgvector": pgvector,
    "qdrant": qdrant,
    "chroma": chroma,
    "lancedb": lancedb,
    "weaviate": weaviate,
}
#: The parameters of a fixture that makes each of them in turn; but for the first they are for the night.
EVERY_TARGET = [pytest.param(kind, marks=[pytest.mark.nightly] * (kind != "pgvector")) for kind in _TARGETS]


@contextmanager
def open_target(kind: str, request: pytest.FixtureRequest, stack: RealStack) -> Iterator[Target]:
    """The store, empty."""
    yield from _TARGETS[kind](request, stack)

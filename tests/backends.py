"""The stores that tests run against: each kind with a way to make one.

A new store adds a function here and a line in BACKENDS; a test fails until it has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass

import pytest

from vectide.ports import Store
from vectide.stores.pgvector import PgVectorStore
from vectide.stores.qdrant import QdrantStore
from vectide.testing.postgres import EmbeddedPostgres
from vectide.testing.qdrant_server import QdrantServer
from vectide.testing.store import MemoryStore


@dataclass(frozen=True)
class Backend:
    """One store under test. ``reopen`` gives a second client of the same server."""

    store: Store
    reopen: Callable[[], AbstractContextManager[Store]]


MakeBackend = Callable[[pytest.FixtureRequest], AbstractContextManager[Backend]]


@contextmanager
def memory(request: pytest.FixtureRequest) -> Iterator[Backend]:
    store = MemoryStore()

    @contextmanager
    def reopen() -> Iterator[Store]:
        store.close()
        yield store

    yield Backend(store, reopen)


@contextmanager
def pgvector(request: pytest.FixtureRequest) -> Iterator[Backend]:
    server: EmbeddedPostgres = request.getfixturevalue("postgres")
    schema: str = request.getfixturevalue("schema")

    def connect() -> closing[PgVectorStore]:
        return closing(PgVectorStore(server.dsn, schema=schema))

    with connect() as store:
        yield Backend(store, connect)


@contextmanager
def qdrant(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Qdrant's own engine behind its REST interface."""
    with QdrantServer() as server:

        def connect() -> closing[QdrantStore]:
            return closing(QdrantStore(server.url))

        with connect() as store:
            yield Backend(store, connect)


BACKENDS: dict[str, MakeBackend] = {"memory": memory, "pgvector": pgvector, "qdrant": qdrant}

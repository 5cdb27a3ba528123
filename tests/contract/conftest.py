"""The stores that the contract suite runs against: each kind with a way to make one.

A new store adds a function here and a line in BACKENDS; a test fails until it has.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass

import pytest

from vectide.ports import CollectionSpec, Deadline, Store
from vectide.stores.pgvector import PgVectorStore
from vectide.testing.postgres import EmbeddedPostgres
from vectide.testing.store import MemoryStore


class SystemClock:
    """The real time."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000


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


BACKENDS: dict[str, MakeBackend] = {"memory": memory, "pgvector": pgvector}


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """One PostgreSQL with pgvector for all tests; each test uses its own schema."""
    with EmbeddedPostgres(tcp_port=0) as server:
        yield server


_schemas = itertools.count()


@pytest.fixture
def schema() -> str:
    """The name of a schema that no other test uses."""
    return f"test_{next(_schemas)}"


@pytest.fixture(params=sorted(BACKENDS))
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Each store in turn, with nothing in it."""
    with BACKENDS[request.param](request) as made:
        yield made


@pytest.fixture
def backends() -> dict[str, MakeBackend]:
    """All stores that the suite runs against, by kind."""
    return BACKENDS


@pytest.fixture
def deadline() -> Deadline:
    """Generous: for calls that are not about time."""
    return Deadline.after(SystemClock(), 60)


@pytest.fixture
def deadline_in() -> Callable[[float], Deadline]:
    """Makes a deadline that many seconds from now."""
    return lambda seconds: Deadline.after(SystemClock(), seconds)


@pytest.fixture
def store(backend: Backend, deadline: Deadline) -> Store:
    """Each store in turn with an empty collection ``items`` of 4 dimensions, metric cosine."""
    backend.store.prepare(CollectionSpec("items", 4, "test/model/4"), deadline)
    return backend.store

"""What the contract tests share: stores that are empty, and deadlines."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator

import pytest
from tests.backends import BACKENDS, EVERY_BACKEND, Backend, MakeBackend

from vectide.ports import CollectionSpec, Deadline, Store
from vectide.testing.postgres import EmbeddedPostgres

# The suites' assertions are to show what they compared, as those of test modules do.
pytest.register_assert_rewrite(
    "vectide.testing.embedder_suite", "vectide.testing.store_suite", "vectide.testing.swap_suite"
)


class SystemClock:
    """The real time."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000


#: (kind of store, test of the suite) -> why that store cannot keep this promise. One that it keeps after all
#: fails, and so does one that names no test.
WAIVERS: dict[tuple[str, str], str] = {}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Waived tests have to fail."""
    for item in items:
        if isinstance(item, pytest.Function) and hasattr(item, "callspec"):
            reason = WAIVERS.get((str(item.callspec.params.get("backend")), item.originalname))
            if reason is not None:
                item.add_marker(pytest.mark.xfail(reason=reason, strict=True))


@pytest.fixture
def waivers() -> dict[tuple[str, str], str]:
    """What some stores cannot promise."""
    return WAIVERS


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


@pytest.fixture(params=EVERY_BACKEND)
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

"""The stack, once per session: started, kept in a folder of its own, stopped whatever happens."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TypeVar

import pytest
from tests.real.jars import StackUnavailable, fetch, fetch_avro, fetch_mariadb
from tests.real.lab import Lab
from tests.real.mariadb import MariaDb
from tests.real.processes import free_port
from tests.real.scaling import find_prometheus
from tests.real.stack import Broker, Connect, RealStack, Registry

from vectide.testing.postgres import EmbeddedPostgres

T = TypeVar("T")

#: Set to 1 where something that is missing must not pass as a skip.
MUST_RUN = "VECTIDE_REAL_MUST_RUN"
_folder = pytest.StashKey[Path]()
_failed = pytest.StashKey[bool]()
LOG_LINES = 40


def _needed(what: str, get: Callable[[], T]) -> T:
    """What a test cannot do without; where it cannot be had the test is skipped, or fails."""
    try:
        return get()
    except StackUnavailable as missing:
        if os.environ.get(MUST_RUN) == "1":
            pytest.fail(f"{what} must run here: {missing}")
        pytest.skip(f"no {what}: {missing}")


def _more_plugins() -> Iterator[Path]:
    """The plugins of the tests that need more than PostgreSQL, where they can be had."""
    for fetch_more in (fetch_avro, fetch_mariadb):
        with suppress(StackUnavailable):
            yield fetch_more().plugins


@pytest.fixture(scope="session")
def real_stack(request: pytest.FixtureRequest) -> Iterator[RealStack]:
    """A broker, a Connect worker and a PostgreSQL with logical decoding."""
    jars = _needed("real stack", fetch)
    plugins = tuple(_more_plugins())
    stash = request.config.stash
    folder = stash[_folder] = Path(tempfile.mkdtemp(prefix="vectide-real-"))
    with ExitStack() as running:
        postgres = running.enter_context(EmbeddedPostgres(tcp_port=free_port(), wal_level="logical"))
        broker = running.enter_context(Broker(jars, folder / "kafka"))
        database = {
            "DATABASE_HOST": "127.0.0.1",
            "DATABASE_PORT": str(postgres.port),
            "DATABASE_PASSWORD": postgres.password,
        }
        connect = running.enter_context(Connect(jars, folder / "connect", broker, plugins, database))
        yield RealStack(postgres, broker, connect, folder, jars)
    if not stash.get(_failed, False):
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def registry(real_stack: RealStack) -> Iterator[Registry]:
    """A schema registry."""
    avro = _needed("registry", fetch_avro)
    with Registry(real_stack.jars, avro, real_stack.folder / "registry") as running:
        yield running


@pytest.fixture(scope="module")
def mariadb(real_stack: RealStack) -> Iterator[MariaDb]:
    """A MariaDB server whose binary log has whole rows."""
    binaries = _needed("MariaDB", fetch_mariadb)
    with MariaDb(binaries, real_stack.folder / "mariadb") as running:
        yield running


@pytest.fixture
def lab(real_stack: RealStack, request: pytest.FixtureRequest) -> Iterator[Lab]:
    number = request.node.name.encode().hex()[-16:]
    made = Lab(real_stack, f"lab{number}")
    yield made
    made.close()


@pytest.fixture(scope="session")
def prometheus_program() -> Path:
    """The program of Prometheus."""
    return _needed("Prometheus", find_prometheus)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure shows the end of every log, and where the whole of them is."""
    report = yield
    folder = item.config.stash.get(_folder, None)
    if report.failed and folder is not None:
        item.config.stash[_failed] = True
        for log in sorted(folder.glob("*/*.log")):
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
            report.sections.append((f"end of {log}", "\n".join(lines[-LOG_LINES:])))
    return report

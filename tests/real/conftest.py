"""The stack, once per session: started, kept in a folder of its own, stopped whatever happens."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.real.jars import StackUnavailable, fetch
from tests.real.processes import free_port
from tests.real.stack import Broker, Connect, RealStack

from vectide.testing.postgres import EmbeddedPostgres

#: Set to 1 where a missing Java or Maven must not pass as a skip.
MUST_RUN = "VECTIDE_REAL_MUST_RUN"
_folder = pytest.StashKey[Path]()
_failed = pytest.StashKey[bool]()
LOG_LINES = 40


@pytest.fixture(scope="session")
def real_stack(request: pytest.FixtureRequest) -> Iterator[RealStack]:
    """A broker, a Connect worker and a PostgreSQL with logical decoding."""
    try:
        jars = fetch()
    except StackUnavailable as missing:
        if os.environ.get(MUST_RUN) == "1":
            pytest.fail(f"the real stack must run here: {missing}")
        pytest.skip(f"no real stack: {missing}")
    stash = request.config.stash
    folder = stash[_folder] = Path(tempfile.mkdtemp(prefix="vectide-real-"))
    with ExitStack() as running:
        postgres = running.enter_context(EmbeddedPostgres(tcp_port=free_port(), wal_level="logical"))
        broker = running.enter_context(Broker(jars, folder / "kafka"))
        connect = running.enter_context(Connect(jars, folder / "connect", broker))
        yield RealStack(postgres, broker, connect, folder, jars)
    if not stash.get(_failed, False):
        shutil.rmtree(folder, ignore_errors=True)


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

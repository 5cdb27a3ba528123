"""The embedded PostgreSQL: starts anywhere, keeps what it was given, leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from vectide.testing.postgres import EmbeddedPostgres


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user may enter."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        yield Path(made)


def test_a_given_data_directory_keeps_its_content_and_password(folder: Path) -> None:
    with EmbeddedPostgres(folder / "data") as server:
        password = server.password
        with psycopg.connect(server.dsn) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 7 AS n")
    with EmbeddedPostgres(folder / "data", tcp_port=0) as server:
        assert server.password == password
        with psycopg.connect(server.tcp_dsn) as connection:
            assert connection.execute("SELECT n FROM kept").fetchone() == (7,)


def test_it_can_be_the_source_of_change_data_capture() -> None:
    with EmbeddedPostgres(tcp_port=0, wal_level="logical", settings={"max_connections": "15"}) as server:
        with psycopg.connect(server.tcp_dsn) as connection:
            assert connection.execute("SHOW wal_level").fetchone() == ("logical",)
            assert connection.execute("SHOW max_connections").fetchone() == ("15",)
            connection.execute("SELECT pg_create_logical_replication_slot('s', 'pgoutput')")


def test_nothing_is_left_when_it_closes(postgres: EmbeddedPostgres) -> None:
    with EmbeddedPostgres() as server:
        pid, data_dir = server.pid, server.data_dir
        assert pid is not None
        assert psutil.pid_exists(pid)
        assert data_dir.exists()
    assert not psutil.pid_exists(pid)
    assert not data_dir.parent.exists()


def test_it_can_be_closed_after_it_was_killed() -> None:
    with EmbeddedPostgres() as server:
        server.kill()
        assert server.pid is None
    server.close()


def test_it_ends_with_the_process_that_started_it(folder: Path) -> None:
    program = (
        "from vectide.testing.postgres import EmbeddedPostgres\n"
        f"server = EmbeddedPostgres({str(folder / 'data')!r})\n"
        "server.start()\n"
        "print(server.pid, flush=True)\n"
        "input()\n"
    )
    with subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(folder)},
    ) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert psutil.pid_exists(pid)
        process.send_signal(signal.SIGKILL)
    with EmbeddedPostgres(folder / "data"):  # waits for the other to end
        assert not psutil.pid_exists(pid)


def test_a_server_that_cannot_start_says_why() -> None:
    began = time.monotonic()
    with pytest.raises(RuntimeError, match="no_such_setting"):
        EmbeddedPostgres(settings={"no_such_setting": "1"}).__enter__()
    assert time.monotonic() - began < 20

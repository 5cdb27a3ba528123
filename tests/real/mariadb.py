"""A MariaDB server as a plain process on a loopback port, and a Debezium connector for it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.real.jars import MariaDbBinaries, StackError
from tests.real.processes import Child, accepts_connections, free_port
from tests.real.stack import START_TIMEOUT_S, converters, start_with_new_ports

DATABASE = "shop"
USER, PASSWORD = "app", "app"
STATEMENT_TIMEOUT_S = 120.0

_CONFIG = """[mysqld]
datadir={folder}/data
socket={folder}/socket
pid-file={folder}/pid
port={port}
bind-address=127.0.0.1
skip-name-resolve
skip-ssl
server-id=1
log-bin=binlog
binlog_format=ROW
binlog_row_image=FULL
binlog_row_metadata=FULL
character-set-server=utf8mb4
innodb_buffer_pool_size=64M
innodb_flush_log_at_trx_commit=0
lc-messages-dir={server}/share
character-sets-dir={server}/share/charsets
init-file={folder}/init.sql
"""
#: Read at every start; one statement a line.
_INIT = f"""CREATE DATABASE IF NOT EXISTS {DATABASE};
CREATE USER IF NOT EXISTS {USER}@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';
GRANT ALL ON *.* TO {USER}@'127.0.0.1';
"""


class MariaDb(AbstractContextManager["MariaDb"]):
    """One server with an empty database, where every statement commits by itself."""

    def __init__(self, binaries: MariaDbBinaries, folder: Path):
        self._server = binaries.server
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "init.sql").write_text(_INIT, encoding="utf-8")
        # It refuses to be root unless it is told to.
        self._as_root = ["--user=root"] if os.geteuid() == 0 else []
        self._config = folder / "my.cnf"
        self.port = 0
        self._write_config()
        self._install()
        self.child = start_with_new_ports(self._start)

    def _write_config(self) -> None:
        text = _CONFIG.format(folder=self._folder, port=self.port, server=self._server)
        self._config.write_text(text, encoding="utf-8")

    def _install(self) -> None:
        script = ["bash", str(self._server / "scripts" / "mariadb-install-db")]
        script += [f"--defaults-file={self._config}", f"--basedir={self._server}", "--skip-test-db"]
        script += ["--auth-root-authentication-method=normal", *self._as_root]
        with Child("mariadb-install", script, self._folder) as installing:
            if installing.wait(START_TIMEOUT_S) != 0:
                raise StackError(f"MariaDB's system tables:\n{installing.log_tail()}")

    def _start(self) -> Child:
        self.port = free_port()
        self._write_config()
        command = [str(self._server / "bin" / "mariadbd"), f"--defaults-file={self._config}", *self._as_root]
        child = Child("mariadb", command, self._folder)
        try:
            child.wait_ready("listens", lambda: accepts_connections(self.port), START_TIMEOUT_S)
        except BaseException:
            child.kill()
            raise
        return child

    def run(self, statements: Sequence[str]) -> None:
        """Run the statements one after the other, in one session. Raises :class:`StackError`."""
        self._ask("".join(f"{statement};\n" for statement in statements))

    def rows(self, query: str) -> list[dict[str, Any]]:
        """The answers of a query for one column of JSON objects."""
        return [json.loads(line) for line in self._ask(query).splitlines()]

    def _ask(self, script: str) -> str:
        command = [str(self._server / "bin" / "mariadb"), "--no-defaults", "--skip-ssl", "--batch", "--raw"]
        command += ["--skip-column-names", "--default-character-set=utf8mb4", "-h127.0.0.1"]
        command += [f"-P{self.port}", f"-u{USER}", f"-p{PASSWORD}", DATABASE]
        ran = subprocess.run(  # noqa: S603
            command, input=script.encode(), capture_output=True, timeout=STATEMENT_TIMEOUT_S, check=False
        )
        if ran.returncode != 0:
            raise StackError(f"MariaDB refused: {ran.stderr.decode(errors='replace')[-1000:]}")
        return ran.stdout.decode()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.child.stop()


@dataclass(frozen=True, slots=True)
class MariaDbConnector:
    """One Debezium source over some tables. ``server_id`` is its own among all that read the binary log;
    ``registry`` the address of a registry, for Avro instead of JSON."""

    name: str
    server_id: int
    tables: tuple[str, ...]
    schemas: bool = False
    registry: str = ""

    def topic(self, table: str) -> str:
        return f"{self.name}.{DATABASE}.{table}"

    def config(self, server: MariaDb, bootstrap: str) -> dict[str, str]:
        """What Kafka Connect is told."""
        return {
            "connector.class": "io.debezium.connector.mariadb.MariaDbConnector",
            "tasks.max": "1",
            "database.hostname": "127.0.0.1",
            "database.port": str(server.port),
            "database.user": USER,
            "database.password": PASSWORD,
            "database.ssl.mode": "disable",
            "database.server.id": str(self.server_id),
            "database.include.list": DATABASE,
            "table.include.list": ",".join(f"{DATABASE}.{table}" for table in self.tables),
            "topic.prefix": self.name,
            "schema.history.internal.kafka.bootstrap.servers": bootstrap,
            "schema.history.internal.kafka.topic": f"history.{self.name}",
            "poll.interval.ms": "50",
            "topic.creation.default.partitions": "1",
            "topic.creation.default.replication.factor": "1",
            **converters(schemas=self.schemas, registry=self.registry),
        }

"""A table of products, its events on a broker, its vectors in PostgreSQL, and ``vectide run`` in between."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import psycopg
from confluent_kafka import Consumer, TopicPartition

from vectide.core.model import Record
from vectide.testing.broker import BrokerProcess, produce, read_topic
from vectide.testing.postgres import EmbeddedPostgres
from vectide.testing.recordings import read_recording

RECORDINGS = Path(__file__).parent.parent / "data" / "recordings"
TIMEOUT_S = 30.0
DIMENSIONS = 64
#: The source block of events, but for their table, as far as it tells an envelope and where it comes from.
SOURCE = {"connector": "postgresql", "name": "shop", "ts_ms": 1795243356331, "db": "shop", "schema": "public"}

_numbers = itertools.count(1)


def until(condition: Callable[[], Any], what: str, timeout_s: float = TIMEOUT_S) -> None:
    """Wait for a condition; fails saying for what. One that is dear to ask is asked less often, so that who
    is waited for gets most of the processor."""
    give_up_s = time.monotonic() + timeout_s
    while True:
        asked_s = time.monotonic()
        if condition():
            return
        now_s = time.monotonic()
        assert now_s < give_up_s, f"waited {timeout_s:g} s for {what}"
        time.sleep(min(max(0.02, 3 * (now_s - asked_s)), 0.1))


@dataclass
class Shop:
    """One table with names of its own: topic, dead-letter topic, collection and group."""

    broker: BrokerProcess
    postgres: EmbeddedPostgres
    number: int = field(default_factory=lambda: next(_numbers))

    def __post_init__(self) -> None:
        self.topic = f"shop{self.number}.public.products"
        self.dlq = f"shop{self.number}.dlq"
        self.table = f"products{self.number}"
        self.group = f"shop{self.number}"
        self.broker.create_topic(self.topic)
        self.broker.create_topic(self.dlq)

    def tables(self, **changes: Any) -> str:
        """The tables file, as JSON."""
        table = {
            "source": self.topic,
            "embed": {"columns": ["name", "description"]},
            "metadata": ["category", "in_stock"],
        }
        return json.dumps({self.table: table | changes})

    def environment(self, **changes: str | None) -> dict[str, str]:
        """The variables that ``vectide`` needs here, with these changes (None: without that one)."""
        given: dict[str, str | None] = {
            "VECTIDE_KAFKA__BOOTSTRAP_SERVERS": self.broker.bootstrap,
            "VECTIDE_KAFKA__GROUP_ID": self.group,
            "VECTIDE_KAFKA__EXTRA": json.dumps({"group.protocol": "consumer", "fetch.wait.max.ms": 10}),
            # What is sent to the provider is compared with what has to be, without any help.
            "VECTIDE_CACHE__KIND": "off",
            "VECTIDE_EMBEDDER__KIND": "hashing",
            "VECTIDE_EMBEDDER__DIMENSIONS": str(DIMENSIONS),
            "VECTIDE_STORE__KIND": "pgvector",
            "VECTIDE_STORE__DSN": self.postgres.tcp_dsn,
            "VECTIDE_DLQ__TOPIC": self.dlq,
            "VECTIDE_HTTP__PORT": "0",
            "VECTIDE_LIMITS__COMMIT_INTERVAL_S": "0.1",
            "VECTIDE_TABLES": self.tables(),
        }
        return {name: value for name, value in {**given, **changes}.items() if value is not None}

    # --- events -----------------------------------------------------------------------------------------

    def upsert(self, id_: int, name: str, op: str = "c", **columns: Any) -> Record:
        row = {"id": id_, "name": name, "description": None, "category": "misc", "in_stock": True, **columns}
        return self._event(id_, {"before": None, "after": row, "op": op})

    def of_table(self, schema: str, table: str, **columns: Any) -> Record:
        """An insert of another table, which came to this topic under its own name."""
        record = self.upsert(1, "routed", **columns)
        value = json.loads(record.value or b"")
        value["source"] |= {"schema": schema, "table": table}
        return replace(record, value=json.dumps(value).encode())

    def delete(self, id_: int) -> Record:
        return self._event(id_, {"before": {"id": id_}, "after": None, "op": "d"})

    def raw(self, value: bytes, key: bytes = b'{"id": 0}') -> Record:
        return Record(self.topic, 0, -1, key, value)

    def recorded(self, name: str) -> list[Record]:
        """The records of a recording, as if they were of this table."""
        records = read_recording(RECORDINGS / f"{name}.jsonl")
        return [
            Record(self.topic, 0, -1, record.key, record.value, record.headers, record.timestamp_ms)
            for record in records
        ]

    def produce(self, *records: Record) -> None:
        produce(self.broker.bootstrap, records)

    def _event(self, id_: int, envelope: dict[str, Any]) -> Record:
        source = {**SOURCE, "table": "products"}
        value = {"source": source, "ts_ms": 1795243356331, **envelope}
        return Record(self.topic, 0, -1, json.dumps({"id": id_}).encode(), json.dumps(value).encode())

    # --- what became of them ----------------------------------------------------------------------------

    def stored(self) -> dict[int, str]:
        """The texts in the store by id; empty while there is no collection."""
        return {key: text for key, text, _ in self._points()}

    def metadata(self) -> dict[int, dict[str, Any]]:
        return {key: metadata for key, _, metadata in self._points()}

    def exists(self) -> bool:
        """Whether the collection has been made."""
        with psycopg.connect(self.postgres.dsn) as link:
            found = link.execute("SELECT to_regclass(%s)", [f"public.{self.table}"]).fetchone()
        assert found is not None
        return found[0] is not None

    def _points(self) -> list[tuple[int, str, dict[str, Any]]]:
        query = f"SELECT row_key, text, metadata FROM public.{self.table}"  # noqa: S608 (a name of ours)
        with psycopg.connect(self.postgres.dsn) as link:
            try:
                found = link.execute(query).fetchall()
            except psycopg.errors.UndefinedTable:
                return []
        return [(json.loads(key)["id"], text, metadata) for key, text, metadata in found]

    def letters(self) -> list[Record]:
        return read_topic(self.broker.bootstrap, self.dlq)

    def committed(self) -> int:
        """The group's committed offset; negative when there is none."""
        return self.committed_by(self.group)

    def committed_by(self, group: str) -> int:
        """The committed offset of the group of another shop."""
        config = {"bootstrap.servers": self.broker.bootstrap, "group.id": group, "log_level": 0}
        with closing(Consumer(config)) as consumer:
            (found,) = consumer.committed([TopicPartition(self.topic, 0)], timeout=10)
        return int(found.offset)


# --- the service ----------------------------------------------------------------------------------------


class Running:
    """``vectide run``: the process, its log and its HTTP surface."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        outside = {name: value for name, value in os.environ.items() if not name.startswith("VECTIDE_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "vectide", "run"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**outside, **environment},
            text=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, name="stderr-reader")
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))

    # --- log --------------------------------------------------------------------------------------------

    @property
    def log(self) -> list[dict[str, Any]]:
        """The structured lines so far."""
        return [json.loads(line) for line in list(self.lines) if line.startswith("{")]

    @property
    def told(self) -> list[str]:
        """The lines for people, without their ``vectide: ``."""
        return [line.removeprefix("vectide: ") for line in self.lines if line.startswith("vectide: ")]

    def events(self, name: str) -> list[dict[str, Any]]:
        return [line for line in self.log if line["event"] == name]

    # --- HTTP -------------------------------------------------------------------------------------------

    def get(self, path: str) -> tuple[int, str]:
        """Status and body; waits until the service listens."""
        self._until(lambda: self.events("listening"), "the service to listen")
        port = self.events("listening")[0]["port"]
        connection = HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        except (OSError, HTTPException) as error:
            return 0, str(error)
        finally:
            connection.close()

    def readiness(self) -> tuple[int, dict[str, Any]]:
        status, body = self.get("/readyz")
        return status, json.loads(body) if status else {}

    def state(self) -> tuple[int, str, str]:
        """Status of the readiness, the state and its reason."""
        status, body = self.readiness()
        return status, body.get("state", ""), body.get("reason", "")

    def until_ready(self) -> None:
        self._until(lambda: self.readiness()[0] == 200, "the service to be ready")

    def _until(self, condition: Callable[[], Any], what: str) -> None:
        """Wait, but not for a process that has ended."""
        until(lambda: self.process.poll() is not None or condition(), what)
        assert self.process.poll() is None, f"vectide ended with {self.process.returncode}: {self.lines}"

    # --- end --------------------------------------------------------------------------------------------

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """The exit code; all lines are there afterwards."""
        code = self.process.wait(TIMEOUT_S)
        self._reader.join(TIMEOUT_S)
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()


@contextmanager
def running(environment: Mapping[str, str]) -> Iterator[Running]:
    """``vectide run`` with these variables; killed at the end if it still runs."""
    process = Running(environment)
    try:
        yield process
    finally:
        process.close()


def refused(environment: Mapping[str, str]) -> tuple[int, Sequence[str]]:
    """Exit code and lines of a ``vectide run`` that is expected to end by itself."""
    with running(environment) as process:
        return process.wait(), process.told

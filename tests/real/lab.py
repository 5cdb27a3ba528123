"""A topic, a table and the service on the real broker, with a provider that can be told to fail."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from typing import Any

import psycopg
from confluent_kafka import Producer
from psycopg.conninfo import make_conninfo
from tests.chaos.account import differences, on_the_way, read_store
from tests.chaos.history import History, Message, Table
from tests.real.processes import wait_until
from tests.real.service import Kafka, Service
from tests.real.stack import RealStack

from vectide.testing.embedding_server import EmbeddingServer

PATIENCE_S = 120.0
PROBE = "dimension"
#: New partitions and topics are to be seen soon, not after half a minute.
SOON = {"topic.metadata.refresh.interval.ms": 1000, "session.timeout.ms": 6000}
WIDE = Table(
    "wide", 8, chunked=False, settings={"embed": {"template": "{title}\n\n{body}"}, "store_text": True}
)


class Lab:
    """One topic, one table, and the service between them."""

    def __init__(self, stack: RealStack, name: str):
        self.stack, self.name = stack, name
        self.topic, self.letters = f"{name}.things", f"{name}.letters"
        self.kafka = Kafka(stack.broker.bootstrap)
        self.kafka.create_topic(self.letters)
        with psycopg.connect(stack.postgres.dsn, autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {name}".encode())
        self.dsn = make_conninfo(stack.postgres.dsn, dbname=name)
        self.store = psycopg.connect(self.dsn, autocommit=True)
        self.provider = EmbeddingServer(dimensions=32, latency_ms=20, record_texts=True)
        self._services: list[Service] = []

    def service(self, tables: Mapping[str, Any] | None = None, **more: str) -> Service:
        """A running ``vectide run``."""
        wanted = tables or {
            "things": {"source": self.topic, "embed": {"columns": ["name"]}, "store_text": True}
        }
        environment = {
            "VECTIDE_KAFKA__BOOTSTRAP_SERVERS": self.stack.broker.bootstrap,
            "VECTIDE_KAFKA__GROUP_ID": self.name,
            "VECTIDE_KAFKA__EXTRA": json.dumps(SOON),
            # What is sent to the provider is compared with what has to be, without any help.
            "VECTIDE_CACHE__KIND": "off",
            "VECTIDE_EMBEDDER__KIND": "openai",
            "VECTIDE_EMBEDDER__MODEL": "hashing",
            "VECTIDE_EMBEDDER__BASE_URL": self.provider.url,
            "VECTIDE_EMBEDDER__API_KEY": "unused",
            "VECTIDE_EMBEDDER__DIMENSIONS": "32",
            "VECTIDE_STORE__KIND": "pgvector",
            "VECTIDE_STORE__DSN": self.dsn,
            "VECTIDE_DLQ__TOPIC": self.letters,
            "VECTIDE_TABLES": json.dumps(wanted),
            **more,
        }
        folder = self.stack.folder / f"{self.name}-{len(self._services)}"
        service = Service({name: value for name, value in environment.items() if value}, folder)
        self._services.append(service)
        service.start()
        return service

    def produce(self, rows: Iterable[int], partition: int = 0, **extra: object) -> None:
        """An insert of each row."""
        producer = self.producer(**extra)
        for row in rows:
            self.insert(producer, row, partition)
        assert producer.flush(30) == 0

    def producer(self, **extra: object) -> Producer:
        return Producer({"bootstrap.servers": self.stack.broker.bootstrap, "log_level": 0, **extra})

    def insert(self, producer: Producer, row: int, partition: int = 0) -> None:
        value = {"before": None, "after": {"id": row, "name": f"thing {row}"}, "source": {}, "op": "c"}
        producer.produce(
            self.topic, json.dumps(value).encode(), json.dumps({"id": row}).encode(), partition=partition
        )

    def rows(self) -> set[int]:
        """Those that the store holds."""
        try:
            found = self.store.execute("SELECT row_key FROM things").fetchall()
        except psycopg.errors.UndefinedTable:
            return set()
        return {json.loads(key)["id"] for (key,) in found}

    def wait_for(self, rows: Iterable[int]) -> None:
        wanted = set(rows)
        wait_until(f"{len(wanted)} rows are stored", lambda: self.rows() == wanted, PATIENCE_S)

    def paid(self) -> list[str]:
        return [text for text in self.provider.answered_texts() if text != PROBE]

    def close(self) -> None:
        for service in self._services:
            service.close()
        self.provider.close()
        self.store.close()
        self.kafka.close()


class Wide:
    """Mixed changes on eight partitions, and what must come of them."""

    def __init__(self, lab: Lab, rows: int = 300):
        self.lab = lab
        lab.kafka.create_topic(lab.topic, WIDE.partitions)
        self.history = History(7, rows=rows, poison=False, tables=(WIDE,))
        self.tables = {WIDE.name: {**WIDE.settings, "metadata": ["price"], "source": lab.topic}}
        self._producer = lab.producer()

    def happen(self, count: int) -> None:
        """That many things at once: the first ``rows`` of them are inserts."""
        for message in self.history.events(count):
            self._produce(message)
        assert self._producer.flush(30) == 0

    def go_on(self, seconds: float, per_s: int = 150) -> None:
        start_s, done = time.monotonic(), 0
        while (now_s := time.monotonic()) < start_s + seconds:
            more = int((now_s - start_s) * per_s) - done
            done += more
            for message in self.history.events(more):
                self._produce(message)
            self._producer.poll(0)
            time.sleep(0.02)
        assert self._producer.flush(30) == 0

    def _produce(self, message: Message) -> None:
        headers: Any = list(message.headers)
        self._producer.produce(self.lab.topic, message.value, message.key, message.partition, headers=headers)

    def settled(self) -> bool:
        return self.lab.kafka.lag(self.lab.name, [self.lab.topic]) == 0

    def complaints(self) -> list[str]:
        store = read_store(self.lab.store, (WIDE,), vectors=True)
        return [*differences(self.history, store)]

    def on_the_way(self) -> int:
        """Texts that were paid for and are not stored."""
        asked = [(self.lab.topic, partition) for partition in range(WIDE.partitions)]
        found = self.lab.kafka.committed(self.lab.name, asked)
        committed = {(WIDE.name, partition): offset for (_, partition), offset in found.items()}
        store = read_store(self.lab.store, (WIDE,))
        return len(on_the_way(self.history, self.lab.provider.texts(), committed, store))

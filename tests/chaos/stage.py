"""Everything around the service that is not the service: a broker, a PostgreSQL, a provider, and the proxies
through which the service reaches them."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import psycopg
from confluent_kafka import KafkaError, Producer
from confluent_kafka import Message as Delivered
from psycopg.conninfo import make_conninfo
from tests.chaos.history import POISON, TABLES, Message
from tests.chaos.toxiproxy import Proxy, Toxiproxy
from tests.real.jars import Jars, StackError
from tests.real.processes import free_port
from tests.real.service import Kafka
from tests.real.stack import Broker

from vectide.testing.embedding_contract import Vectorise
from vectide.testing.embedding_server import DEFAULT_VECTORS, EmbeddingServer, Fault
from vectide.testing.postgres import EmbeddedPostgres

DIMENSIONS: Final = 32
#: How long the broker waits for a member that says nothing.
SESSION_S: Final = 6.0
PROVIDER_TIMEOUT_S: Final = 5.0


class Servers(AbstractContextManager["Servers"]):
    """What all runs share."""

    def __init__(self, jars: Jars, toxiproxy: Path, folder: Path):
        with ExitStack() as running:
            self.folder = folder
            self.toxiproxy = running.enter_context(Toxiproxy(toxiproxy, folder / "toxiproxy"))
            self.postgres = running.enter_context(EmbeddedPostgres(tcp_port=free_port(), durable=True))
            self.broker = running.enter_context(Broker(jars, folder / "kafka"))
            self.kafka = Kafka(self.broker.bootstrap)
            running.callback(self.kafka.close)
            self.to_broker = self.toxiproxy.add(
                "kafka", self.broker.behind_proxy, port=self.broker.proxy_port
            )
            self.to_store = self.toxiproxy.add("store", f"127.0.0.1:{self.postgres.port}")
            self._running = running.pop_all()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.close()


class Stage(AbstractContextManager["Stage"]):
    """What one run has for itself: topics, a database, a provider."""

    def __init__(
        self,
        servers: Servers,
        seed: int,
        dimensions: int = DIMENSIONS,
        vectors: Vectorise | str = DEFAULT_VECTORS,
    ):
        self.servers = servers
        self._dimensions = dimensions
        self.name = f"chaos{seed}"
        self.dead_letters = f"{self.name}.dlq"
        self.group = self.name
        # Both group protocols; the broker has the session's time for the newer one.
        self._protocol = (
            {"group.protocol": "consumer"} if seed % 2 else {"session.timeout.ms": int(SESSION_S * 1000)}
        )
        for table in TABLES:
            servers.kafka.create_topic(self.topic(table.name), table.partitions)
        servers.kafka.create_topic(self.dead_letters)
        with psycopg.connect(servers.postgres.dsn, autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {self.name}".encode())
        self.dsn = make_conninfo(servers.postgres.dsn, dbname=self.name)
        self.provider = EmbeddingServer(
            dimensions=dimensions, latency_ms=30, record_texts=True, vectors=vectors
        )
        self.refuse_poison()
        self.to_provider: Proxy = servers.toxiproxy.add(
            f"provider-{self.name}", f"127.0.0.1:{self.provider.port}"
        )
        self._producer = Producer(
            {"bootstrap.servers": servers.broker.bootstrap, "acks": "all", "log_level": 0}
        )
        self._refused: list[str] = []

    def topic(self, table: str) -> str:
        return f"{self.name}.{table}"

    @property
    def topics(self) -> list[str]:
        return [self.topic(table.name) for table in TABLES]

    def refuse_poison(self) -> None:
        """What the provider is told at first, and again whenever its other faults are over."""
        self.provider.plan(Fault("status", marker=POISON, status=400, type="invalid_request_error"))

    def environment(self) -> dict[str, str]:
        """Of ``vectide run``: everything through the proxies, else as little as possible."""
        password, port = self.servers.postgres.password, self.servers.to_store.port
        tables = {table.name: {**table.settings, "source": self.topic(table.name)} for table in TABLES}
        return {
            "VECTIDE_KAFKA__BOOTSTRAP_SERVERS": self.servers.broker.through_proxy,
            "VECTIDE_KAFKA__GROUP_ID": self.group,
            "VECTIDE_KAFKA__EXTRA": json.dumps(self._protocol),
            # What is sent to the provider is compared with what has to be, without any help.
            "VECTIDE_CACHE__KIND": "off",
            "VECTIDE_EMBEDDER__KIND": "openai",
            "VECTIDE_EMBEDDER__MODEL": "hashing",
            "VECTIDE_EMBEDDER__BASE_URL": f"http://127.0.0.1:{self.to_provider.port}/v1",
            "VECTIDE_EMBEDDER__API_KEY": "unused",
            "VECTIDE_EMBEDDER__DIMENSIONS": str(self._dimensions),
            "VECTIDE_EMBEDDER__TIMEOUT_S": str(PROVIDER_TIMEOUT_S),
            "VECTIDE_STORE__KIND": "pgvector",
            "VECTIDE_STORE__DSN": f"postgresql://postgres:{password}@127.0.0.1:{port}/{self.name}",
            "VECTIDE_STORE__TIMEOUT_S": "5",
            "VECTIDE_DLQ__TOPIC": self.dead_letters,
            "VECTIDE_LIMITS__GRACE_S": "20",
            "VECTIDE_TABLES": json.dumps(tables),
        }

    def produce(self, message: Message) -> None:
        """Hand over one record. Raises :class:`StackError` when the broker has refused an earlier one."""
        headers: Any = list(message.headers)
        while True:
            try:
                self._producer.produce(
                    self.topic(message.table.name),
                    value=message.value,
                    key=message.key,
                    partition=message.partition,
                    headers=headers,
                    on_delivery=self._delivered,
                )
                break
            except BufferError:  # it takes as many at a time
                self._producer.poll(0.1)
        self._producer.poll(0)
        if self._refused:
            raise StackError(f"the broker refused a record: {self._refused[0]}")

    def flush(self) -> None:
        """Wait until the broker has all records."""
        if self._producer.flush(60):
            raise StackError("the broker does not take the records")

    def _delivered(self, error: KafkaError | None, message: Delivered) -> None:
        if error is not None:
            self._refused.append(str(error))

    def connect(self) -> psycopg.Connection[Any]:
        """To the store, past the proxy."""
        return psycopg.connect(self.dsn, autocommit=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.to_provider.remove()
        self.provider.close()

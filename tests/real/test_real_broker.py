"""What only a real broker shows: markers of transactions, topics that change, a broker that dies, and
what a provider's bad minutes cost on many partitions."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import psycopg
import pytest
from confluent_kafka import Producer
from psycopg.conninfo import make_conninfo
from tests.chaos.account import Bill, differences, on_the_way, read_store
from tests.chaos.history import History, Message, Table
from tests.real.processes import wait_until
from tests.real.service import Kafka, Service
from tests.real.stack import RealStack

from vectide.testing.embedding_server import EmbeddingServer, Fault

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

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


@pytest.fixture
def lab(real_stack: RealStack, request: pytest.FixtureRequest) -> Iterator[Lab]:
    number = request.node.name.encode().hex()[-16:]
    made = Lab(real_stack, f"lab{number}")
    yield made
    made.close()


# --- what is in the log ---------------------------------------------------------------------------------


def test_aborted_transactions_are_not_applied_and_their_markers_are_no_lag(lab: Lab) -> None:
    """Case 118; and invariant 1: offsets have holes."""
    lab.kafka.create_topic(lab.topic)
    service = lab.service()
    producer = lab.producer(**{"transactional.id": lab.name})
    producer.init_transactions(30)
    for rows, ends in ((range(10), "commit"), (range(100, 110), "abort"), (range(10, 20), "commit")):
        producer.begin_transaction()
        for row in rows:
            lab.insert(producer, row)
        (producer.commit_transaction if ends == "commit" else producer.abort_transaction)(30)
    lab.wait_for(range(20))

    def no_lag() -> bool:
        readings = service.readings()
        return readings is not None and (readings.lag, readings.in_flight) == (0, 0)

    wait_until("nothing is left behind the last marker", no_lag, PATIENCE_S)
    assert service.stop() == 0
    assert lab.kafka.lag(lab.name, [lab.topic]) <= 1  # the last marker


def test_retention_that_took_records_is_told(lab: Lab) -> None:
    """Case 111: what is gone is counted and named, the rest is applied."""
    lab.kafka.create_topic(lab.topic)
    lab.produce(range(20))
    service = lab.service()
    lab.wait_for(range(20))
    assert service.stop() == 0
    lab.produce(range(20, 60))
    lab.kafka.delete_before(lab.topic, 0, 40)
    again = lab.service()
    lab.wait_for([*range(20), *range(40, 60)])
    assert again.sample("vectide_source_errors_total", cause="records_lost") == 1
    assert "records_lost" in again.child.log_text()


def test_offsets_beyond_the_end_lose_nothing(lab: Lab) -> None:
    """A topic that was cut back, or a group that was moved by hand."""
    lab.kafka.create_topic(lab.topic)
    lab.produce(range(10))
    lab.kafka.move_group(lab.name, lab.topic, 0, 500)
    lab.service()
    lab.wait_for(range(10))
    lab.produce(range(10, 15))
    lab.wait_for(range(15))
    wait_until("the commits follow", lambda: lab.kafka.lag(lab.name, [lab.topic]) == 0, PATIENCE_S)


# --- topics that change ---------------------------------------------------------------------------------


def test_added_partitions_are_read_from_their_beginning(lab: Lab) -> None:
    lab.kafka.create_topic(lab.topic)
    lab.service()
    lab.produce(range(10))
    lab.wait_for(range(10))
    lab.kafka.add_partitions(lab.topic, 3)
    lab.produce(range(10, 20), partition=2)
    lab.produce(range(20, 30), partition=1)
    lab.wait_for(range(30))


def test_a_topic_created_again_is_another_log(lab: Lab) -> None:
    """Its offsets begin anew, and none of its changes is taken for an old one."""
    lab.kafka.create_topic(lab.topic)
    service = lab.service()
    lab.produce(range(50))
    lab.wait_for(range(50))
    lab.kafka.delete_topic(lab.topic)
    lab.kafka.create_topic(lab.topic)
    lab.produce(range(40, 60))
    lab.wait_for(range(60))
    wait_until("it commits", lambda: lab.kafka.lag(lab.name, [lab.topic]) == 0, PATIENCE_S)
    assert service.stop() == 0


# --- a broker that dies ---------------------------------------------------------------------------------


def test_a_broker_that_is_killed_and_comes_back_is_only_a_pause(lab: Lab) -> None:
    lab.kafka.create_topic(lab.topic)
    service = lab.service()
    lab.produce(range(100))
    lab.wait_for(range(100))
    lab.stack.broker.kill()
    try:
        wait_until("it says so", lambda: service.state() == "waiting", PATIENCE_S)
    finally:
        lab.stack.broker.start_again()
    lab.produce(range(100, 200))
    lab.wait_for(range(200))
    wait_until("it runs", lambda: service.state() == "running", PATIENCE_S)
    wait_until("it commits", lambda: lab.kafka.lag(lab.name, [lab.topic]) == 0, PATIENCE_S)
    assert sorted(lab.paid()) == sorted({f"thing {row}" for row in range(200)})
    assert service.stop() == 0


# --- a provider's bad minutes ---------------------------------------------------------------------------


def test_a_call_that_outlasts_the_poll_interval_costs_no_membership(lab: Lab) -> None:
    """Case 110."""
    lab.kafka.create_topic(lab.topic)
    extra = {**SOON, "max.poll.interval.ms": 7000}
    service = lab.service(VECTIDE_KAFKA__EXTRA=json.dumps(extra))
    lab.produce([0])
    lab.wait_for([0])
    lab.provider.plan(Fault("delay", times=1, every_s=10.0))
    lab.produce([1])
    lab.wait_for([0, 1])
    assert lab.paid() == ["thing 0", "thing 1"]
    for outcome in ("lost", "revoked"):
        assert service.sample("vectide_partition_assignments_total", outcome=outcome) == 0


class Wide:
    """Mixed changes on eight partitions, and what must come of them."""

    def __init__(self, lab: Lab):
        self.lab = lab
        lab.kafka.create_topic(lab.topic, WIDE.partitions)
        self.history = History(7, rows=300, poison=False, tables=(WIDE,))
        self.tables = {WIDE.name: {**WIDE.settings, "metadata": ["price"], "source": lab.topic}}
        self._producer = lab.producer()

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


@pytest.mark.parametrize("status", [429, 500])
def test_five_bad_seconds_of_a_provider_cost_nothing(lab: Lab, status: int) -> None:
    """Case 124: exact, and hardly a call is refused: all workers wait together."""
    wide = Wide(lab)
    lab.service(wide.tables, VECTIDE_KAFKA__EXTRA="")
    wide.go_on(3)
    headers = {"Retry-After": "1"} if status == 429 else {}
    lab.provider.plan(Fault("status", status=status, headers=headers, for_s=5.0))
    wide.go_on(8)
    wait_until("everything is committed", wide.settled, PATIENCE_S)
    assert wide.complaints() == []
    assert Bill().in_vain(wide.history, lab.paid()) == 0
    assert lab.kafka.ends([lab.letters]) == {(lab.letters, 0): 0}
    refused = lab.provider.stats().statuses[str(status)]
    concurrency, waits = 8, 6
    assert 0 < refused <= concurrency * waits


def test_a_killed_process_is_back_at_work_within_15_seconds(lab: Lab) -> None:
    """With the default settings, in the middle of mixed changes."""
    wide = Wide(lab)
    service = lab.service(wide.tables, VECTIDE_KAFKA__EXTRA="")
    wide.go_on(4)
    os.kill(service.child.pid, signal.SIGKILL)
    killed_s = time.monotonic()
    service.child.wait(10)
    on_the_way = wide.on_the_way()
    behind = lab.kafka.lag(lab.name, [lab.topic])
    assert behind > 0
    lab.service(wide.tables, VECTIDE_KAFKA__EXTRA="")
    wait_until("it works", lambda: lab.kafka.lag(lab.name, [lab.topic]) < behind, PATIENCE_S)
    back_s = time.monotonic() - killed_s
    wide.go_on(2)
    wait_until("everything is committed", wide.settled, PATIENCE_S)
    assert wide.complaints() == []
    assert Bill().in_vain(wide.history, lab.paid()) <= on_the_way
    assert back_s < 15

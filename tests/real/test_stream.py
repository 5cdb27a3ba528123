"""The whole service on a real Kafka, Kafka Connect, Debezium and PostgreSQL, killed while it works.

Invariants 1, 2, 3, 5, 7 and 14 where only real parts can show them.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import psycopg
import pytest
from confluent_kafka import Message
from psycopg.conninfo import make_conninfo
from tests.real.jars import StackError
from tests.real.judge import differences, read_store, should_be, wasted, worth_embedding
from tests.real.processes import wait_until
from tests.real.service import Kafka, Readings, Service
from tests.real.stack import Connector, RealStack
from tests.real.tables import BARRIER, DOCS, ORDER_LINES, PRODUCTS, TABLES, RowId, Table
from tests.real.workload import Workload

from vectide.deadletters import PREFIX
from vectide.testing.embedding_server import EmbeddingServer

SEED = int(os.environ.get("VECTIDE_REAL_SEED", "20260114"))
DIMENSIONS = 64
GROUP = "vectide-real"
DEAD_LETTERS = "stream.dlq"
KILLS = 3
TRANSACTIONS = 3000
QUIET_TRANSACTIONS = 600
#: For every condition that is waited for: far beyond what a slow, shared machine needs.
PATIENCE_S = 180.0
#: Sent once at every start, to learn how long the vectors are.
PROBE = "dimension"

#: Two connectors, so that both spellings of JSON and different partition counts pass through one service.
SHOP = Connector(
    "mall",
    database="source",
    tables=(PRODUCTS.name, ORDER_LINES.name, BARRIER),
    schemas=True,
    partitions=3,
    partitions_of={ORDER_LINES.name: 2},
)
WIKI = Connector("wiki", database="source", tables=(DOCS.name, BARRIER), schemas=False, partitions=1)
TOPICS = {
    PRODUCTS.name: SHOP.topic(PRODUCTS.name),
    ORDER_LINES.name: SHOP.topic(ORDER_LINES.name),
    DOCS.name: WIKI.topic(DOCS.name),
}


def _environment(stack: RealStack, source_dsn: str, store_dsn: str, embedder_url: str) -> dict[str, str]:
    tables = {
        table.name: {
            "source": TOPICS[table.name],
            "collection": table.name,
            "store_text": True,
            **table.settings,
        }
        for table in TABLES
    }
    return {
        "VECTIDE_KAFKA__BOOTSTRAP_SERVERS": stack.broker.bootstrap,
        "VECTIDE_KAFKA__GROUP_ID": GROUP,
        # A killed member holds its partitions for this long.
        "VECTIDE_KAFKA__EXTRA": json.dumps({"session.timeout.ms": 6000, "heartbeat.interval.ms": 1000}),
        # What is sent to the provider is compared with what has to be, without any help.
        "VECTIDE_CACHE__KIND": "off",
        "VECTIDE_EMBEDDER__KIND": "openai",
        "VECTIDE_EMBEDDER__MODEL": "hashing",
        "VECTIDE_EMBEDDER__BASE_URL": embedder_url,
        "VECTIDE_EMBEDDER__API_KEY": "unused",
        "VECTIDE_EMBEDDER__DIMENSIONS": str(DIMENSIONS),
        "VECTIDE_EMBEDDER__BATCH_ITEMS": "32",
        "VECTIDE_EMBEDDER__CONCURRENCY": "2",
        "VECTIDE_EMBEDDER__LINGER_MS": "100",
        "VECTIDE_STORE__KIND": "pgvector",
        "VECTIDE_STORE__DSN": store_dsn,
        "VECTIDE_SOURCE__DSN": source_dsn,
        "VECTIDE_DLQ__TOPIC": DEAD_LETTERS,
        "VECTIDE_LIMITS__GRACE_S": "30",
        "VECTIDE_TABLES": json.dumps(tables),
    }


@dataclass(slots=True)
class Summary:
    """What was done, for whoever reads the output of the run."""

    seed: int = SEED
    started_s: float = field(default_factory=time.monotonic)
    lines: list[str] = field(default_factory=list)

    def add(self, line: str) -> None:
        self.lines.append(f"{time.monotonic() - self.started_s:6.1f} s  {line}")

    def __str__(self) -> str:
        return "\n".join([f"real stack, seed {self.seed}", *self.lines])


class Scene:
    """The source, the service and the store of one test, and the steps that the test is told in."""

    def __init__(self, stack: RealStack, server: EmbeddingServer, summary: Summary):
        self.stack, self.server, self.summary = stack, server, summary
        with psycopg.connect(stack.postgres.dsn, autocommit=True) as admin:
            for database in ("source", "stream_vectors"):
                admin.execute(f"CREATE DATABASE {database}".encode())
        self.source = psycopg.connect(make_conninfo(stack.postgres.dsn, dbname="source"))
        source_dsn = make_conninfo(stack.postgres.tcp_dsn, dbname="source")
        self._store_dsn = make_conninfo(stack.postgres.dsn, dbname="stream_vectors")
        self.store = psycopg.connect(self._store_dsn, autocommit=True)
        self.kafka = Kafka(stack.broker.bootstrap)
        self.kafka.create_topic(DEAD_LETTERS)
        environment = _environment(stack, source_dsn, self._store_dsn, server.url)
        self.service = Service(environment, stack.folder / "vectide")
        self.workload = Workload(self.source, SEED)
        self._sent_before: Counter[str] = Counter()

    def close(self) -> None:
        self.service.close()
        self.kafka.close()
        self.store.close()
        self.source.close()

    # --- steps -------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Start both connectors, and wait for the topics of the snapshot."""
        for connector in (SHOP, WIKI):
            self.stack.connect.create(connector, self.stack.postgres)
        wait_until("the topics are there", lambda: self.kafka.exist(list(TOPICS.values())), PATIENCE_S)

    def kill_at_work(self, after_texts: int) -> None:
        """Change rows until the service has sent that many texts more and is busy, then kill it."""
        target = len(self.server.texts()) + after_texts

        def busy() -> Readings | None:
            self.workload.run(3)
            readings = self.service.readings()
            if readings is None or len(self.server.texts()) < target:
                return None
            return readings if readings.in_flight and readings.lag else None

        readings = wait_until(f"the service is busy after {target} texts", busy, PATIENCE_S, every_s=0.01)
        self.service.kill()
        lag = self.kafka.lag(GROUP, list(TOPICS.values()))
        self.summary.add(
            f"killed with {readings.in_flight} in flight, lag {readings.lag} "
            f"({lag} by the broker), {len(self.server.texts())} texts sent so far"
        )
        assert lag > 0

    def settle(self) -> None:
        """Wait until the connectors have passed everything, and the service has committed all of it."""
        self._pass_barrier()
        topics = list(TOPICS.values())

        def unsettled() -> str:
            readings, lag = self.service.readings(), self.kafka.lag(GROUP, topics)
            return "" if readings == Readings(0, 0) and lag == 0 else f"{readings}, lag {lag} by the broker"

        try:
            wait_until("everything is committed", lambda: not unsettled(), PATIENCE_S)
        except StackError as error:
            raise StackError(f"{error}: {unsettled()}\n{self.service.child.log_tail()}") from error

    def _pass_barrier(self) -> None:
        """A connector confirms a commit to the source when it sees the next one: hence two of them."""
        row = self.source.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
        assert row is not None
        for _ in range(2):
            self.source.execute("INSERT INTO barrier DEFAULT VALUES")
            self.source.commit()

        def passed() -> bool:
            answer = self.source.execute(
                "SELECT bool_and(confirmed_flush_lsn > %s::pg_lsn) FROM pg_replication_slots "
                "WHERE database = current_database()",
                row,
            ).fetchone()
            self.source.commit()
            return answer == (True,)

        wait_until("the connectors have passed the barrier", passed, PATIENCE_S)

    # --- accounts ----------------------------------------------------------------------------------------

    def texts_sent(self) -> Counter[str]:
        """The texts of rows sent since this was last asked."""
        now = Counter(text for text in self.server.texts() if text != PROBE)
        sent = now - self._sent_before
        self._sent_before = now
        return sent

    def texts_stored(self) -> dict[RowId, str]:
        """The text of every row in the store, once the dead service's last transactions have ended."""
        others = "SELECT 1 FROM pg_stat_activity WHERE datname = 'stream_vectors' AND pid <> pg_backend_pid()"
        wait_until("the store is left alone", lambda: not self.store.execute(others).fetchall(), PATIENCE_S)
        return {
            (table.name, point.key): point.text
            for table in TABLES
            for point in read_store(self.store, table)
            if not point.ahead  # what came before that text may still have to be embedded
        }

    def dead_letters(self) -> list[str]:
        """Each as its key and why. None is expected: what an update lacks, the store has, or a later change
        of the row makes up for, even when all is replayed."""
        return [
            f"{_brief(letter.key())}: {_header(letter, 'cause')} at {_header(letter, 'offset')}"
            for letter in self.kafka.messages([DEAD_LETTERS])
        ]

    def complaints(self, table: Table) -> list[str]:
        wanted = should_be(self.source, table, DIMENSIONS)
        return differences(wanted, read_store(self.store, table))


def _brief(key: bytes | None) -> str:
    event = json.loads(key or b"{}")
    return str(event.get("payload", event))


def _header(letter: Message, name: str) -> str:
    """One of the headers that the service added."""
    headers = dict(letter.headers() or [])
    value = headers.get(f"{PREFIX}{name}")
    return value.decode() if isinstance(value, bytes) else str(value)


@pytest.fixture
def scene(real_stack: RealStack, capsys: pytest.CaptureFixture[str]) -> Iterator[Scene]:
    summary = Summary()
    with EmbeddingServer(dimensions=DIMENSIONS, latency_ms=60, record_texts=True) as server:
        scene = Scene(real_stack, server, summary)
        try:
            yield scene
        finally:
            scene.close()
            with capsys.disabled():
                print(f"\n{summary}")


@pytest.mark.real
@pytest.mark.timeout(900)  # the first run on a machine also fetches the jars
def test_the_store_equals_the_source_whatever_is_killed(scene: Scene) -> None:
    chance = random.Random(SEED)  # noqa: S311
    workload, summary = scene.workload, scene.summary
    workload.create_tables()
    summary.add(f"{workload.seed_rows(products=1500, docs=300, order_lines=400)} rows before the snapshot")
    scene.connect()
    summary.add("connectors run")
    stored: dict[RowId, str] = {}
    waste: list[str] = []

    def start() -> None:
        scene.texts_sent()
        scene.service.start()

    def close_account(what: str) -> None:
        """Everything sent since the start was worth it, given what was stored at that moment."""
        sent = scene.texts_sent()
        worth = worth_embedding(workload.held, stored)
        found = wasted(sent, worth + Counter(workload.ahead()))
        summary.add(f"{what}: {sent.total()} texts sent, {len(found)} of them in vain")
        waste.extend(found)

    start()
    for _ in range(KILLS):
        workload.run(TRANSACTIONS // (KILLS + 1) - 50)
        scene.kill_at_work(after_texts=chance.randint(100, 500))
        close_account("until the kill")
        stored = scene.texts_stored()
        workload.run(50)
        start()
    workload.run(TRANSACTIONS // (KILLS + 1))
    scene.settle()
    close_account("until settled")

    workload.run_quiet(QUIET_TRANSACTIONS)
    scene.settle()
    quiet = scene.texts_sent()
    summary.add(f"{QUIET_TRANSACTIONS} transactions that change no text: {quiet.total()} texts sent")

    exit_code = scene.service.stop()
    stored = scene.texts_stored()
    scene.kafka.rewind(GROUP, list(TOPICS.values()))
    start()
    scene.settle()
    close_account(f"stopped with exit code {exit_code}, everything replayed")
    scene.service.stop()

    events = scene.kafka.census(list(TOPICS.values()))
    letters = scene.dead_letters()
    summary.add(f"events {dict(events)}, dead letters {len(letters)}")
    summary.add(f"transactions {dict(workload.kinds)}")
    complaints = {table.name: scene.complaints(table) for table in TABLES}
    summary.add(f"differences { ({name: len(found) for name, found in complaints.items()}) }")

    assert {name: found[:10] for name, found in complaints.items() if found} == {}
    assert waste[:10] == []
    assert letters[:10] == []
    assert (quiet, exit_code) == (Counter(), 0)
    assert set(workload.kinds) == {"seed", *Workload.KINDS, *Workload.QUIET_KINDS}
    assert min(events[kind] for kind in ("r", "c", "u", "d", "tombstone", "unavailable")) > 0

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
from tests.real.judge import differences, should_be, wasted, worth_embedding
from tests.real.processes import wait_until
from tests.real.service import Kafka, Readings, Service
from tests.real.stack import Connector, RealStack
from tests.real.tables import BARRIER, DOCS, ORDER_LINES, PRODUCTS, TABLES, RowId, Table
from tests.real.targets import EVERY_TARGET, Target, open_target
from tests.real.workload import Workload

from vectide.deadletters import PREFIX
from vectide.testing.embedding_server import EmbeddingServer

SEED = int(os.environ.get("VECTIDE_REAL_SEED", "20260114"))
DIMENSIONS = 64
#: For every condition that is waited for: far beyond what a slow, shared machine needs.
PATIENCE_S = 180.0
#: Sent once at every start, to learn how long the vectors are.
PROBE = "dimension"


@dataclass(frozen=True, slots=True)
class Length:
    """How much happens: ``rows`` before the snapshot (products, docs, order lines), then transactions."""

    rows: tuple[int, int, int]
    transactions: int
    quiet: int
    kills: int


FULL = Length(rows=(1500, 300, 400), transactions=3000, quiet=600, kills=3)
#: Enough for everything to happen once more with another store.
SHORT = Length(rows=(500, 100, 130), transactions=1200, quiet=200, kills=2)


@dataclass(frozen=True, slots=True)
class Names:
    """What one scene calls its own: each finds the parts of the others in the same cluster."""

    target: str

    @property
    def source(self) -> str:
        """The source database."""
        return f"source_{self.target}"

    @property
    def group(self) -> str:
        return f"vectide-real-{self.target}"

    @property
    def dead_letters(self) -> str:
        return f"stream.{self.target}.dlq"

    @property
    def connectors(self) -> tuple[Connector, Connector]:
        """Two, so that both spellings of JSON and different partition counts pass through one service."""
        shop = Connector(
            f"mall{self.target}",
            database=self.source,
            tables=(PRODUCTS.name, ORDER_LINES.name, BARRIER),
            schemas=True,
            partitions=3,
            partitions_of={ORDER_LINES.name: 2},
        )
        wiki_tables = (DOCS.name, BARRIER)
        wiki = Connector(
            f"wiki{self.target}", database=self.source, tables=wiki_tables, schemas=False, partitions=1
        )
        return shop, wiki

    @property
    def topics(self) -> dict[str, str]:
        """Of each table."""
        shop, wiki = self.connectors
        return {
            PRODUCTS.name: shop.topic(PRODUCTS.name),
            ORDER_LINES.name: shop.topic(ORDER_LINES.name),
            DOCS.name: wiki.topic(DOCS.name),
        }


def _environment(
    stack: RealStack, names: Names, target: Target, source_dsn: str, embedder_url: str
) -> dict[str, str]:
    tables = {
        table.name: {
            "source": names.topics[table.name],
            "collection": table.name,
            "store_text": True,
            **table.settings,
        }
        for table in TABLES
    }
    return {
        "VECTIDE_KAFKA__BOOTSTRAP_SERVERS": stack.broker.bootstrap,
        "VECTIDE_KAFKA__GROUP_ID": names.group,
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
        **target.variables,
        "VECTIDE_SOURCE__DSN": source_dsn,
        "VECTIDE_DLQ__TOPIC": names.dead_letters,
        "VECTIDE_LIMITS__GRACE_S": "30",
        "VECTIDE_TABLES": json.dumps(tables),
    }


@dataclass(slots=True)
class Summary:
    """What was done, for whoever reads the output of the run."""

    target: str
    seed: int = SEED
    started_s: float = field(default_factory=time.monotonic)
    lines: list[str] = field(default_factory=list)

    def add(self, line: str) -> None:
        self.lines.append(f"{time.monotonic() - self.started_s:6.1f} s  {line}")

    def __str__(self) -> str:
        return "\n".join([f"real stack, {self.target}, seed {self.seed}", *self.lines])


class Scene:
    """The source, the service and the store of one test, and the steps that the test is told in."""

    def __init__(self, stack: RealStack, target: Target, server: EmbeddingServer, summary: Summary):
        self.stack, self.target, self.server, self.summary = stack, target, server, summary
        self.names = names = Names(target.kind)
        self.topics = list(names.topics.values())
        with psycopg.connect(stack.postgres.dsn, autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {names.source}".encode())
        self.source = psycopg.connect(make_conninfo(stack.postgres.dsn, dbname=names.source))
        self.kafka = Kafka(stack.broker.bootstrap)
        self.kafka.create_topic(names.dead_letters)
        source_dsn = make_conninfo(stack.postgres.tcp_dsn, dbname=names.source)
        environment = _environment(stack, names, target, source_dsn, server.url)
        self.service = Service(environment, stack.folder / f"vectide-{target.kind}")
        self.workload = Workload(self.source, SEED)
        self._sent_before: Counter[str] = Counter()
        self._connected: list[Connector] = []

    def close(self) -> None:
        self.service.close()
        self.kafka.close()
        for connector in self._connected:
            self._disconnect(connector)
        self.source.close()

    # --- steps -------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Start both connectors, and wait for the topics of the snapshot."""
        for connector in self.names.connectors:
            self.stack.connect.create(connector, self.stack.postgres)
            self._connected.append(connector)
        wait_until("the topics are there", lambda: self.kafka.exist(self.topics), PATIENCE_S)

    def _disconnect(self, connector: Connector) -> None:
        """The server has room for the slots of so many connectors only."""
        self.stack.connect.remove(connector.name)
        drop = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"

        def dropped() -> bool:
            self.source.rollback()
            self.source.execute(f"{drop} WHERE slot_name = %s AND NOT active".encode(), [connector.slot])
            left = self.source.execute(
                "SELECT 1 FROM pg_replication_slots WHERE slot_name = %s", [connector.slot]
            ).fetchall()
            self.source.commit()
            return not left

        wait_until(f"{connector.slot} is dropped", dropped, PATIENCE_S)

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
        lag = self.kafka.lag(self.names.group, self.topics)
        self.summary.add(
            f"killed with {readings.in_flight} in flight, lag {readings.lag} "
            f"({lag} by the broker), {len(self.server.texts())} texts sent so far"
        )
        assert lag > 0

    def settle(self) -> None:
        """Wait until the connectors have passed everything, and the service has committed all of it."""
        self._pass_barrier()

        def unsettled() -> str:
            readings, lag = self.service.readings(), self.kafka.lag(self.names.group, self.topics)
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
        self.target.come_to_rest()
        return {
            (table.name, point.key): point.text
            for table in TABLES
            for point in self.target.read(table)
            if not point.ahead  # what came before that text may still have to be embedded
        }

    def dead_letters(self) -> list[str]:
        """Each as its key and why. None is expected: what an update lacks, the store has, or a later change
        of the row makes up for, even when all is replayed."""
        return [
            f"{_brief(letter.key())}: {_header(letter, 'cause')} at {_header(letter, 'offset')}"
            for letter in self.kafka.messages([self.names.dead_letters])
        ]

    def complaints(self, table: Table) -> list[str]:
        wanted = should_be(self.source, table, DIMENSIONS)
        return differences(wanted, self.target.read(table))


def _brief(key: bytes | None) -> str:
    event = json.loads(key or b"{}")
    return str(event.get("payload", event))


def _header(letter: Message, name: str) -> str:
    """One of the headers that the service added."""
    headers = dict(letter.headers() or [])
    value = headers.get(f"{PREFIX}{name}")
    return value.decode() if isinstance(value, bytes) else str(value)


@pytest.fixture(params=EVERY_TARGET)
def scene(
    request: pytest.FixtureRequest, real_stack: RealStack, capsys: pytest.CaptureFixture[str]
) -> Iterator[Scene]:
    summary = Summary(request.param)
    with (
        open_target(request.param, request, real_stack) as target,
        EmbeddingServer(dimensions=DIMENSIONS, latency_ms=60, record_texts=True) as server,
    ):
        scene = Scene(real_stack, target, server, summary)
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
    length = FULL if scene.target.kind == "pgvector" else SHORT
    workload.create_tables()
    summary.add(f"{workload.seed_rows(*length.rows)} rows before the snapshot")
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
    for _ in range(length.kills):
        workload.run(length.transactions // (length.kills + 1) - 50)
        scene.kill_at_work(after_texts=chance.randint(100, 500))
        close_account("until the kill")
        stored = scene.texts_stored()
        workload.run(50)
        start()
    workload.run(length.transactions // (length.kills + 1))
    scene.settle()
    close_account("until settled")

    workload.run_quiet(length.quiet)
    scene.settle()
    quiet = scene.texts_sent()
    summary.add(f"{length.quiet} transactions that change no text: {quiet.total()} texts sent")

    exit_code = scene.service.stop()
    stored = scene.texts_stored()
    scene.kafka.rewind(scene.names.group, scene.topics)
    start()
    scene.settle()
    close_account(f"stopped with exit code {exit_code}, everything replayed")
    scene.service.stop()

    events = scene.kafka.census(scene.topics)
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

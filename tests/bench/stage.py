"""What both sides play on: one broker, one provider, one PostgreSQL; and how a run on it is measured."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import psycopg
from confluent_kafka import Producer
from psycopg import sql
from psycopg.conninfo import make_conninfo
from tests.bench.sides import DEAD_LETTERS, DIMENSIONS, ROOT, Course, Side
from tests.bench.workload import Message, Shown
from tests.real.jars import Jars, StackError
from tests.real.processes import Child, wait_until
from tests.real.service import Kafka
from tests.real.stack import Broker

from vectide.testing.embedding_server import RemoteControl
from vectide.testing.postgres import EmbeddedPostgres

PATIENCE_S = 300.0
#: How often the broker is asked how far a side has committed.
LOOK_EVERY_S = 0.02


class WrongResult(Exception):
    """A side was quick, and its store is not what it should be."""


class Stage:
    """Started once; every run gets a topic, a consumer group and a database of its own."""

    def __init__(self, jars: Jars, folder: Path) -> None:
        self._folder = folder
        self._runs = 0
        self._open = ExitStack()
        try:
            # A checkpoint in one side's run and not in the other's would be luck.
            settings = {"max_wal_size": "8GB", "checkpoint_timeout": "1h", "shared_buffers": "256MB"}
            self._postgres = self._open.enter_context(EmbeddedPostgres(settings=settings))
            self._broker = self._open.enter_context(Broker(jars, folder / "kafka"))
            self._provider = self._open.enter_context(self._start_provider())
        except BaseException:
            self._open.close()
            raise
        self._url = self._provider.log_text().split()[0]
        self.provider = RemoteControl(self._url)
        self.kafka = Kafka(self._broker.bootstrap)
        self.kafka.create_topic(DEAD_LETTERS)
        self._producer = Producer(
            {
                "bootstrap.servers": self._broker.bootstrap,
                "linger.ms": 1,
                "batch.size": 1 << 20,
                "log_level": 0,
            }
        )

    def _start_provider(self) -> Child:
        command = [sys.executable, "-m", "vectide.testing.embedding_server", "--dimensions", str(DIMENSIONS)]
        command += ["--vectors", "tests.bench.workload:quick_vector"]
        child = Child("provider", command, self._folder, {**os.environ, "PYTHONPATH": str(ROOT)})
        child.wait_ready("prints its address", lambda: child.log_text().endswith("\n"), 60)
        return child

    def __enter__(self) -> Stage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kafka.close()
        self._open.close()

    @contextmanager
    def run(
        self,
        side: Side,
        latency_ms: float,
        partitions: int = 1,
        provider_items: int | None = None,
        *,
        indexed: bool = True,
    ) -> Iterator[Run]:
        """The side at work on a topic without records. Its database is dropped afterwards."""
        self._runs += 1
        name = f"run{self._runs}"
        self.provider.set_latency_ms(latency_ms)
        folder = self._folder / f"{name}-{side.name}"
        folder.mkdir()
        with psycopg.connect(self._postgres.dsn, autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {name}".encode())
            admin.execute("CHECKPOINT")
            dsn = make_conninfo(self._postgres.dsn, dbname=name)
            bootstrap = self._broker.bootstrap
            course = Course(name, folder, bootstrap, self._url, dsn, provider_items, indexed)
            self.kafka.create_topic(course.topic, partitions)
            with side.start(course) as child:
                yield Run(side, course, child, self.kafka, self._producer, partitions)
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@dataclass(slots=True)
class Run:
    """One side on its course."""

    side: Side
    course: Course
    child: Child
    kafka: Kafka
    producer: Producer
    partitions: int
    _ends: dict[tuple[str, int], int] = field(default_factory=dict)

    def follow(self, messages: Sequence[Message]) -> float:
        """Produce the messages and wait until the side has committed them; seconds from the first to then."""
        started_s = time.perf_counter()
        for message in messages:
            self.send(message)
        self.producer.flush()
        ends = self.kafka.ends([self.course.topic])

        def done() -> bool:
            if self.child.exit_code is not None:
                raise StackError(f"{self.side.name} ended:\n{self.child.log_tail()}")
            committed = self.kafka.committed(self.course.group, ends)
            return all(committed.get(at, 0) >= end for at, end in ends.items())

        wait_until(f"{self.side.name} has committed everything", done, PATIENCE_S, LOOK_EVERY_S)
        return time.perf_counter() - started_s

    def send(self, message: Message) -> None:
        """Produce one message; flushed by the caller."""
        partition = message.row % self.partitions
        while True:
            try:
                self.producer.produce(self.course.topic, message.value, message.key, partition)
                return
            except BufferError:
                self.producer.poll(0.1)

    def trickle(self, messages: Sequence[Message], per_s: float) -> list[float]:
        """Produce at this rate; seconds from each to the moment when the store shows its row, in order."""
        sent_s: dict[int, float] = {}
        with self._shown_rows() as shown_s:
            begin_s = time.perf_counter()
            for number, message in enumerate(messages):
                time.sleep(max(0.0, begin_s + number / per_s - time.perf_counter()))
                sent_s[message.row] = time.perf_counter()
                self.send(message)
                self.producer.poll(0)
            self.producer.flush()
            wait_until("the store shows every row", lambda: sent_s.keys() <= shown_s.keys(), 60)
            return [shown_s[row] - sent_s[row] for row in sent_s]

    @contextmanager
    def _shown_rows(self) -> Iterator[dict[int, float]]:
        """When each row was last committed to the table, as a listener to the database hears it."""
        shown_s: dict[int, float] = {}
        over = threading.Event()
        with psycopg.connect(self.course.dsn, autocommit=True) as database:
            database.execute(_tell(self.side.row_id))
            database.execute("LISTEN shown")

            def listen() -> None:
                while not over.is_set():
                    for told in database.notifies(timeout=0.1):
                        shown_s[int(told.payload)] = time.perf_counter()

            thread = threading.Thread(target=listen, name="listener")
            thread.start()
            try:
                yield shown_s
            finally:
                over.set()
                thread.join()

    def verify(self, expected: dict[int, Shown]) -> None:
        """Raises :class:`WrongResult` unless the table holds exactly this."""
        query = sql.SQL("SELECT {}, text, metadata FROM products").format(sql.SQL(self.side.row_id))
        with psycopg.connect(self.course.dsn) as database:
            found = {id_: (text, metadata) for id_, text, metadata in database.execute(query)}
        if found != expected:
            wrong = [id_ for id_ in found.keys() | expected.keys() if found.get(id_) != expected.get(id_)]
            raise WrongResult(
                f"{self.side.name}: {len(wrong)} rows are wrong, {sorted(wrong)[:5]} for example"
            )


def _tell(row_id: str) -> bytes:
    """Every row that a commit brings is told to whoever listens, by the server."""
    of_new = row_id.replace("row_key", "NEW.row_key") if "row_key" in row_id else f"NEW.{row_id}"
    return (
        "CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$BEGIN PERFORM pg_notify('shown', ({of_new})::text); RETURN NULL; END$$;"
        "CREATE TRIGGER tell AFTER INSERT OR UPDATE ON products FOR EACH ROW EXECUTE FUNCTION tell()"
    ).encode()

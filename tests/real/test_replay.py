"""``vectide dlq`` on a real broker: letters are listed, shown and replayed while two services run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from confluent_kafka import Producer
from tests.real.processes import wait_until
from tests.real.service import Kafka, Service
from tests.real.stack import RealStack

pytestmark = pytest.mark.real

TOPIC = "replay.public.things"
DLQ = "replay.letters"
ROWS = 40


@dataclass(frozen=True, slots=True)
class Shop:
    """A table of things, events of which the test writes itself."""

    stack: RealStack

    def environment(self, types: dict[str, str] | None = None) -> dict[str, str]:
        table = {"source": TOPIC, "embed": {"columns": ["name"]}, "types": types or {}}
        return {
            "VECTIDE_KAFKA__BOOTSTRAP_SERVERS": self.stack.broker.bootstrap,
            "VECTIDE_KAFKA__GROUP_ID": "replay",
            "VECTIDE_EMBEDDER__KIND": "hashing",
            "VECTIDE_EMBEDDER__DIMENSIONS": "16",
            "VECTIDE_STORE__KIND": "pgvector",
            "VECTIDE_STORE__DSN": self.stack.postgres.tcp_dsn,
            "VECTIDE_DLQ__TOPIC": DLQ,
            "VECTIDE_HTTP__PORT": "0",
            "VECTIDE_LIMITS__COMMIT_INTERVAL_S": "0.2",
            "VECTIDE_TABLES": json.dumps({"things": table}),
        }

    def vectide(self, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
        """Exit code of a verb, and what it printed as JSON lines."""
        outside = {name: value for name, value in os.environ.items() if not name.startswith("VECTIDE_")}
        ran = subprocess.run(  # noqa: S603 (our own interpreter and module)
            [sys.executable, "-m", "vectide", *arguments, "--json"],
            env={**outside, **self.environment()},
            capture_output=True,
            text=True,
            check=False,
        )
        assert not ran.stderr, ran.stderr
        return ran.returncode, [json.loads(line) for line in ran.stdout.splitlines()]

    def produce(self, *changes: tuple[int, str | None]) -> None:
        """Upserts (id, name) and deletes (id, None)."""
        producer = Producer({"bootstrap.servers": self.stack.broker.bootstrap, "log_level": 0})
        source = {"connector": "postgresql", "ts_ms": 1795243356331, "db": "shop", "table": "things"}
        for id_, name in changes:
            after = None if name is None else {"id": id_, "name": name}
            event = {"source": source, "op": "c" if after else "d", "before": None, "after": after}
            key = json.dumps({"id": id_}).encode()
            producer.produce(TOPIC, json.dumps(event).encode(), key, partition=id_ % 3)
        assert producer.flush(20) == 0

    def stored(self) -> dict[int, str]:
        with psycopg.connect(self.stack.postgres.tcp_dsn) as link:
            found = link.execute("SELECT row_key, text FROM public.things").fetchall()
        return {json.loads(key)["id"]: text for key, text in found}


@pytest.fixture
def kafka(real_stack: RealStack) -> Iterator[Kafka]:
    asker = Kafka(real_stack.broker.bootstrap)
    yield asker
    asker.close()


def run(shop: Shop, folder: Path, types: dict[str, str] | None = None) -> Service:
    folder.mkdir()
    service = Service(shop.environment(types), folder)
    service.start()
    return service


def test_letters_are_replayed_by_the_owners_of_their_partitions(
    real_stack: RealStack, kafka: Kafka, tmp_path: Path
) -> None:
    shop = Shop(real_stack)
    kafka.create_topic(TOPIC, 3)
    kafka.create_topic(DLQ)
    kafka.create_topic(f"{DLQ}.replay")
    shop.produce(*((id_, f"thing {id_}") for id_ in range(ROWS)))
    strict = run(shop, tmp_path / "strict", {"name": "numeric(10,2)"})
    try:
        wait_until("everything is put aside", lambda: kafka.lag("replay", [TOPIC]) == 0 or None, 60)
    finally:
        strict.stop()
        strict.close()
    code, listed = shop.vectide("dlq", "list", "--cause", "bad_value")
    assert (code, len(listed)) == (0, ROWS)
    shop.produce((1, "thing 1, changed"), (2, None))
    services = [run(shop, tmp_path / name) for name in ("one", "two")]
    try:
        wait_until("what is newer is applied", lambda: kafka.lag("replay", [TOPIC]) == 0 or None, 60)
        code, replayed = shop.vectide("dlq", "replay")
        assert code == 0, Counter((line["outcome"], line["reason"]) for line in replayed)
        outcomes = [line["outcome"] for line in replayed]
        assert sorted(set(outcomes)) == ["superseded", "written"]
        assert outcomes.count("superseded") == 2
        wanted = {id_: f"thing {id_}" for id_ in range(ROWS) if id_ != 2} | {1: "thing 1, changed"}
        assert shop.stored() == wanted
        code, again = shop.vectide("dlq", "replay")
        assert code == 0
        assert {line["outcome"] for line in again} == {"replayed_before", "superseded"}
    finally:
        for service in services:
            service.stop()
            service.close()

"""``vectide topics`` on a real broker: what it makes is as recommended, and takes what it is for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from tests.real.processes import wait_until
from tests.real.service import Kafka
from tests.real.stack import RealStack

pytestmark = pytest.mark.real


@pytest.fixture
def kafka(real_stack: RealStack) -> Iterator[Kafka]:
    asker = Kafka(real_stack.broker.bootstrap)
    yield asker
    asker.close()


def topics(stack: RealStack, prefix: str, *options: str) -> tuple[int, Any]:
    """Exit code of ``vectide topics --json`` and what it printed. Its topics begin with ``prefix``."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith("VECTIDE_")}
    environment = {
        "VECTIDE_KAFKA__BOOTSTRAP_SERVERS": stack.broker.bootstrap,
        "VECTIDE_KAFKA__GROUP_ID": "topics",
        "VECTIDE_EMBEDDER__KIND": "hashing",
        "VECTIDE_STORE__KIND": "pgvector",
        "VECTIDE_STORE__DSN": "postgresql://nobody@localhost/nothing",
        "VECTIDE_DLQ__TOPIC": f"{prefix}.letters",
        "VECTIDE_TABLES": json.dumps({"t": {"source": f"{prefix}.things", "embed": {"columns": ["name"]}}}),
    }
    ran = subprocess.run(  # noqa: S603 (our own interpreter and module)
        [sys.executable, "-m", "vectide", "topics", "--json", *options],
        env={**outside, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.returncode, json.loads(ran.stdout) if ran.stdout else ran.stderr


def test_missing_topics_of_ours_are_made_as_recommended(real_stack: RealStack, kafka: Kafka) -> None:
    code, found = topics(real_stack, "made")
    assert code == 1, found
    assert [state["missing"] for state in found["topics"]] == [True, True, True]
    kafka.create_topic("made.things", 3)
    code, made = topics(real_stack, "made", "--create")
    assert code == 0, made
    assert [state["created"] for state in made["topics"]] == [False, True, True]
    wait_until("the topic is known", lambda: kafka.exist(["made.letters"]) or None, 20)
    code, found = topics(real_stack, "made", "--create")
    source, letters, replays = found["topics"]
    assert code == 0
    assert source["found"] == [{"name": "made.things", "partitions": 3}]
    assert letters["found"] == [{"name": "made.letters", "partitions": 1}]
    for ours in (letters, replays):
        assert (ours["created"], ours["unlike"]) == (False, [])


def test_a_topic_that_is_set_up_otherwise_is_told(real_stack: RealStack, kafka: Kafka) -> None:
    for name in ("other.things", "other.letters"):
        kafka.create_topic(name)
    code, found = topics(real_stack, "other")
    assert code == 0
    unlike = {one["property"]: one["is"] for one in found["topics"][1]["unlike"]}
    assert unlike == {
        "retention.ms": "604800000",
        "message.timestamp.type": "CreateTime",
        "max.message.bytes": "1048588",
    }


def test_what_the_cluster_refuses_is_told_and_not_made(real_stack: RealStack, kafka: Kafka) -> None:
    kafka.create_topic("refused.things")
    code, told = topics(real_stack, "refused", "--create", "--replication-factor", "5")
    assert code == 3
    assert "the topic refused.letters cannot be created" in told
    assert not kafka.exist(["refused.letters"])

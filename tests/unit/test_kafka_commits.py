"""A log that begins anew: its first position is committed by name, since bare commits never go back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from tests.pipeline.pump import Counters, Events

from vectide.core import signals
from vectide.jobs.executor import SystemClock
from vectide.ports import AdapterError
from vectide.sources.kafka_commits import Commits
from vectide.sources.kafka_health import KafkaHealth

T = ("topic", 0)
NO_OFFSET: int = KafkaError._NO_OFFSET  # noqa: SLF001 (the client's own name of it)


class Client:
    """What the client does with commits: a bare one leaves out what is not beyond the last of them."""

    def __init__(self, committed: int) -> None:
        self.committed = committed
        self.stored = -1
        self.refuses = 0

    def store_offsets(self, offsets: Sequence[TopicPartition]) -> None:
        self.stored = offsets[0].offset

    def commit(self, offsets: Sequence[TopicPartition] | None = None, *, asynchronous: bool) -> None:
        if offsets is not None:
            if self.refuses:
                self.refuses -= 1
                raise KafkaException(KafkaError(KafkaError.REBALANCE_IN_PROGRESS))
            self.committed = offsets[0].offset
        elif self.stored > self.committed:
            self.committed = self.stored
        else:
            raise KafkaException(KafkaError(NO_OFFSET))


def commits_of(client: Client, telemetry: Counters) -> Commits:
    consumer = cast(Any, client)
    return Commits(consumer, SystemClock(), telemetry, Events(), KafkaHealth(), patience_s=0.3)


def test_a_log_that_begins_anew_is_committed_from_there_and_commits_follow() -> None:
    client = Client(committed=50)
    commits = commits_of(client, Counters())
    commits.restart(T, 0)
    assert client.committed == 0
    commits.store({T: 20})
    commits.confirm({T: 20})
    assert client.committed == 20


def test_a_beginning_that_is_refused_is_told_and_made_up_for_before_anything_counts_as_committed() -> None:
    client, telemetry = Client(committed=50), Counters()
    client.refuses = 2
    commits = commits_of(client, telemetry)
    commits.restart(T, 0)
    assert telemetry.counts[signals.COMMITS, "failed"] == 1
    commits.store({T: 20})
    commits.rewound(T)
    commits.confirm({T: 20})
    assert client.committed == 20


def test_a_beginning_that_stays_refused_is_a_failed_commit() -> None:
    client = Client(committed=50)
    client.refuses = 1000
    commits = commits_of(client, Counters())
    commits.restart(T, 0)
    commits.store({T: 20})
    with pytest.raises(AdapterError):
        commits.confirm({T: 20})
    assert client.committed == 50

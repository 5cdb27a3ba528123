"""Keeps asking the cluster about the ends of our logs and about our topics, without ever waiting."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from vectide.ports import Clock, Partition
from vectide.sources.kafka_admin import KafkaTopics
from vectide.sources.kafka_errors import About, about
from vectide.sources.kafka_health import CLUSTER, KafkaHealth

#: How often the ends of the logs are asked for: by itself, and when somebody looks at them. The client's own
#: statistics will not do: they stand still while a partition is paused.
ENDS_EVERY_S: Final = 5.0
ENDS_LOOKED_AT_EVERY_S: Final = 1.0
#: How often the subscribed topics are looked for. The newer group protocol does not tell of missing ones.
TOPICS_EVERY_S: Final = 10.0


class KafkaWatch:
    """Owned by the polling thread. ``topics`` are the names that should exist."""

    def __init__(self, admin: KafkaTopics, health: KafkaHealth, clock: Clock, topics: Sequence[str]) -> None:
        self._admin = admin
        self._health = health
        self._clock = clock
        self._topics = topics
        self._topics_due_s = clock.monotonic()
        self._ends_asked_s = clock.monotonic()
        self._failures_when_asked = 0

    def soon(self) -> None:
        """There are new partitions: ask for their ends at the next look."""
        self._ends_asked_s = self._clock.monotonic() - ENDS_EVERY_S

    def look(self, partitions: Collection[Partition]) -> None:
        """Ask what is due, take in what was answered."""
        now = self._clock.monotonic()
        if now >= self._ends_asked_s + ENDS_EVERY_S:
            self._ask_ends(partitions)
        if now >= self._topics_due_s:
            self._topics_due_s = now + TOPICS_EVERY_S
            self._admin.ask_topics(self._topics)
        for topic, error in self._admin.heard_of_topics().items():
            if error is None:
                self._health.exists(topic)
            elif about(error) is About.TOPIC:
                self._health.failed(topic, error)

    def ends(self, partitions: Collection[Partition]) -> Mapping[Partition, int]:
        """The ends of these partitions as last heard; absent where nothing was heard yet."""
        if self._clock.monotonic() >= self._ends_asked_s + ENDS_LOOKED_AT_EVERY_S:
            self._ask_ends(partitions)
        return {partition: end for partition, end in self._admin.ends().items() if partition in partitions}

    def _ask_ends(self, partitions: Collection[Partition]) -> None:
        self._ends_asked_s = self._clock.monotonic()
        # An answer may have lain here since before the cluster failed.
        asked_since = self._failures_when_asked == self._health.times(CLUSTER)
        if self._admin.ask_ends(partitions) and asked_since:
            self._health.recovered(CLUSTER)
        self._failures_when_asked = self._health.times(CLUSTER)

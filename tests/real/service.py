"""``vectide run`` as its user runs it: one process, configured by the environment alone."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import ClassVar

from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec
from confluent_kafka.cimpl import NewPartitions, NewTopic
from prometheus_client.parser import text_string_to_metric_families
from tests.real.jars import StackError
from tests.real.processes import Child, free_port, wait_until

IN_FLIGHT = "vectide_in_flight_records"
UNAVAILABLE = b'"__debezium_unavailable_value"'
LAG = "vectide_lag_records"
#: What a broker answers while it makes its topic for offsets, or reads it.
NO_COORDINATOR_YET = (
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
)


@dataclass(frozen=True, slots=True)
class Readings:
    """What the process says about itself: records in flight, records between committed and end."""

    in_flight: int
    lag: int


class Service:
    """The process, through kills and restarts. Every start has its own log and HTTP port."""

    COMMAND: ClassVar = (sys.executable, "-m", "vectide", "run")

    def __init__(self, environment: Mapping[str, str], folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        outside = {name: value for name, value in os.environ.items() if not name.startswith("VECTIDE_")}
        self._environment = {**outside, **environment}
        self._folder = folder
        self._starts = 0
        self._child: Child | None = None

    @property
    def child(self) -> Child:
        if self._child is None:
            raise StackError("vectide has not been started")
        return self._child

    @property
    def port(self) -> int:
        """Of its HTTP."""
        return self._port

    def start(self) -> None:
        """Start it; returns at once."""
        self._starts += 1
        self._port = free_port()
        environment = {**self._environment, "VECTIDE_HTTP__PORT": str(self._port)}
        self._child = Child(f"vectide-{self._starts}", self.COMMAND, self._folder, environment)

    def kill(self) -> None:
        """SIGKILL: no farewell of any kind."""
        self.child.kill()

    def stop(self, grace_s: float = 40.0) -> int:
        """SIGTERM; returns the exit code."""
        return self.child.stop(grace_s)

    def close(self) -> None:
        """Whatever state it is in: gone afterwards."""
        if self._child is not None:
            self._child.kill()

    def state(self) -> str:
        """What it says of itself on ``/metrics``; empty while that does not answer."""
        for family in text_string_to_metric_families(self._get("/metrics") or ""):
            for sample in family.samples:
                if sample.name == "vectide_state" and sample.value == 1:
                    return sample.labels["state"]
        return ""

    def sample(self, metric: str, **labels: str) -> float:
        """The sum of the samples of a metric that have these labels; 0 without any."""
        families = text_string_to_metric_families(self._get("/metrics") or "")
        return sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == metric and labels.items() <= sample.labels.items()
        )

    def readings(self) -> Readings | None:
        """From ``/metrics``; None while it does not answer. Raises :class:`StackError` with its last log
        lines when the process has ended."""
        if self.child.exit_code is not None:
            raise StackError(f"vectide ended with {self.child.exit_code}:\n{self.child.log_tail(60)}")
        text = self._get("/metrics")
        if text is None:
            return None
        totals = dict.fromkeys((IN_FLIGHT, LAG), 0.0)
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name in totals:
                    totals[sample.name] += sample.value
        return Readings(in_flight=int(totals[IN_FLIGHT]), lag=int(totals[LAG]))

    def _get(self, path: str) -> str | None:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=5)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            text = response.read().decode()
            return text if response.status == 200 else None
        except (OSError, HTTPException):
            return None
        finally:
            connection.close()


class Kafka:
    """What the broker itself says; never what the service believes."""

    def __init__(self, bootstrap: str):
        self._bootstrap = bootstrap
        self._admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
        self._askers: dict[str, Consumer] = {}

    def create_topic(self, name: str, partitions: int = 1) -> None:
        for future in self._admin.create_topics([NewTopic(name, partitions, 1)]).values():
            future.result(20)

    def exist(self, topics: Sequence[str]) -> bool:
        return set(topics) <= set(self._admin.list_topics(timeout=20).topics)

    def ends(self, topics: Sequence[str]) -> dict[tuple[str, int], int]:
        """The end offset of every partition."""
        known = self._admin.list_topics(timeout=20).topics
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        asked = {
            TopicPartition(topic, partition): latest
            for topic in topics
            for partition in known[topic].partitions
        }
        answers = self._admin.list_offsets(asked, isolation_level=IsolationLevel.READ_UNCOMMITTED)
        return {(at.topic, at.partition): future.result(20).offset for at, future in answers.items()}

    def committed(self, group: str, partitions: Collection[tuple[str, int]]) -> dict[tuple[str, int], int]:
        """The group's committed offset of each of these partitions that has one."""
        if group not in self._askers:  # the admin client can crash while the broker chooses a coordinator
            self._askers[group] = self._consumer(group)
        asked = [TopicPartition(topic, partition) for topic, partition in partitions]

        def answer() -> list[TopicPartition] | None:
            try:
                return self._askers[group].committed(asked, timeout=20)
            except KafkaException as error:
                if error.args[0].code() not in NO_COORDINATOR_YET:
                    raise
                return None

        known = wait_until(f"group {group} has a coordinator", answer, 60)
        return {(at.topic, at.partition): at.offset for at in known if at.offset >= 0}

    def lag(self, group: str, topics: Sequence[str]) -> int:
        """Records between the group's commits and the ends."""
        ends = self.ends(topics)
        committed = self.committed(group, ends)
        return sum(end - committed.get(at, 0) for at, end in ends.items())

    def add_partitions(self, topic: str, total: int) -> None:
        for future in self._admin.create_partitions([NewPartitions(topic, total)]).values():
            future.result(20)

    def delete_topic(self, topic: str) -> None:
        """Returns when it is gone."""
        for future in self._admin.delete_topics([topic]).values():
            future.result(20)
        wait_until(f"{topic} is gone", lambda: not self.exist([topic]), 20)

    def delete_before(self, topic: str, partition: int, offset: int) -> None:
        """What retention does."""
        for future in self._admin.delete_records([TopicPartition(topic, partition, offset)]).values():
            future.result(20)

    def move_group(self, group: str, topic: str, partition: int, offset: int) -> None:
        """Commit that offset for a group without members."""
        asked = [ConsumerGroupTopicPartitions(group, [TopicPartition(topic, partition, offset)])]
        for future in self._admin.alter_consumer_group_offsets(asked).values():
            future.result(20)

    def rewind(self, group: str, topics: Sequence[str]) -> None:
        """Commit the very beginning for a group without members."""
        partitions = [TopicPartition(topic, partition, 0) for topic, partition in self.ends(topics)]
        asked = [ConsumerGroupTopicPartitions(group, partitions)]
        for future in self._admin.alter_consumer_group_offsets(asked).values():
            future.result(20)

    def census(self, topics: Sequence[str]) -> Counter[str]:
        """How many change events of each kind the topics hold; ``unavailable`` are those (of any kind) that
        lack an unchanged value."""
        counted: Counter[str] = Counter()
        for message in self.messages(topics):
            counted.update(_kinds(message.value()))
        return counted

    def messages(self, topics: Sequence[str]) -> Iterator[Message]:
        """Everything up to the present ends."""
        ends = self.ends(topics)
        reader = self._consumer("reader")
        try:
            for (topic, partition), end in ends.items():
                reader.assign([TopicPartition(topic, partition, 0)])
                position = 0
                while position < end:
                    message = reader.poll(20)
                    if message is None or message.error() is not None:
                        raise StackError(f"cannot read {topic}: {message and message.error()}")
                    position = (message.offset() or 0) + 1
                    yield message
        finally:
            reader.close()

    def close(self) -> None:
        """No calls after this."""
        for asker in self._askers.values():
            asker.close()
        del self._admin

    def _consumer(self, group: str) -> Consumer:
        """Not a member of the group: it never subscribes."""
        return Consumer({"bootstrap.servers": self._bootstrap, "group.id": group, "log_level": 0})


def _kinds(value: bytes | None) -> Iterator[str]:
    if value is None:
        yield "tombstone"
        return
    event = json.loads(value)
    yield event.get("payload", event)["op"]
    if UNAVAILABLE in value:
        yield "unavailable"

"""What the cluster says about topics and their ends, without being a member of the group."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future, wait
from typing import Any, Final, cast

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin import OffsetSpec as OffsetSpec  # type: ignore[attr-defined]

from vectide.core.failures import Failure, Kind
from vectide.core.model import Record
from vectide.ports import AdapterError, Deadline, Partition
from vectide.sources.kafka_errors import About, about, error_of, refused

_EARLIEST: Final = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
_LATEST: Final = OffsetSpec.latest()  # type: ignore[no-untyped-call]
#: How long a question about log ends may take before it is asked again.
ENDS_TIMEOUT_S: Final = 5.0
#: How long an assignment waits to learn the identity of its logs.
LOG_ID_TIMEOUT_S: Final = 2.0
#: What a broker older than 2.8 answers when asked for a topic's id.
_NO_ID: Final = "AAAAAAAAAAAAAAAAAAAAAA"
#: Properties for consumers only, which other clients would complain about.
_CONSUMER_ONLY: Final = re.compile(
    r"group\.|session\.timeout|heartbeat\.|max\.poll|fetch\.|queued\.|partition\.assignment|auto\.offset"
    r"|enable\.auto|enable\.partition\.eof|isolation\.level|allow\.auto\.create|check\.crcs|auto\.commit"
)


def admin_config(config: Mapping[str, str]) -> dict[str, str]:
    """The consumer's configuration less what other clients would complain about."""
    return {name: value for name, value in config.items() if not _CONSUMER_ONLY.match(name)}


def record_of(message: Message) -> Record:
    """A delivered message as the record it is, byte for byte."""
    headers = cast("list[tuple[str, bytes | None]] | None", message.headers())
    return Record(
        topic=cast(str, message.topic()),
        partition=cast(int, message.partition()),
        offset=cast(int, message.offset()),
        key=message.key(),
        value=message.value(),
        headers=tuple(headers) if headers else (),
        timestamp_ms=message.timestamp()[1],
    )


def is_pattern(topic: str) -> bool:
    """Whether a subscribed topic is a regular expression (it starts with ``^``)."""
    return topic.startswith("^")


def matches(topic: str, subscribed: str, *, whole: bool) -> bool:
    """Whether ``topic`` is what ``subscribed`` names or, when that is a regular expression, finds.

    ``whole``: the expression must match the whole name. Brokers demand that in the newer group protocol; in
    the classic one the client looks for it at the name's beginning.
    """
    if not is_pattern(subscribed):
        return topic == subscribed
    return bool((re.fullmatch if whole else re.match)(subscribed, topic))


class KafkaTopics:
    """Questions about topics. Safe to use from any thread.

    ``config`` is the consumer's own configuration, callbacks left out. Nothing is asked before the first
    question. Questions that wait raise :class:`AdapterError` when the cluster cannot be reached or refuses.
    """

    def __init__(self, config: Mapping[str, str]) -> None:
        self._config = dict(config)
        # Its connections fail together with the consumer's, which tells.
        settings: dict[str, Any] = {"log_level": "0", **admin_config(config), "error_cb": self._on_error}
        self._open = contextlib.ExitStack()
        self._admin = self._open.enter_context(AdminClient(settings))
        #: Why connections are refused; the questions themselves only time out.
        self._refusal: KafkaError | None = None
        committed = config.get("isolation.level") != "read_uncommitted"
        self._isolation = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
        self._whole = config.get("group.protocol", "").lower() == "consumer"
        self._topics_asked: dict[str, Future[Any]] = {}
        self._asked: dict[Partition, Future[Any]] = {}
        self._ends: dict[Partition, int] = {}
        self._partition_counts: dict[str, int] = {}

    def close(self) -> None:
        """Close the connections; nothing may be asked afterwards."""
        self._open.close()

    # --- topics ----------------------------------------------------------------------------------------

    def names(self, deadline: Deadline) -> frozenset[str]:
        """Every topic that we may know of. Asks for all: a question for one may create it."""
        return frozenset(self._partitions(deadline))

    def missing(self, topics: Sequence[str], deadline: Deadline) -> Sequence[str]:
        """Those of ``topics`` that do not exist or may not be described; regular expressions never miss."""
        known = self.names(deadline)
        return [topic for topic in topics if not is_pattern(topic) and topic not in known]

    def matching(self, topics: Sequence[str], deadline: Deadline) -> Sequence[str]:
        """The topics that exist and that ``topics``, names or regular expressions, stand for; sorted."""
        known = self.names(deadline)
        return sorted(
            name for name in known if any(matches(name, topic, whole=self._whole) for topic in topics)
        )

    def partitions(self, topic: str, deadline: Deadline) -> Sequence[Partition]:
        """The topic's partitions; none when it does not exist or may not be described."""
        return [(topic, number) for number in self._partitions(deadline).get(topic, ())]

    def partition_counts(self, deadline: Deadline) -> Mapping[str, int]:
        """How many partitions every topic has that we may know of."""
        return {name: len(numbers) for name, numbers in self._partitions(deadline).items()}

    def bounds(
        self, partitions: Sequence[Partition], deadline: Deadline
    ) -> Mapping[Partition, tuple[int, int]]:
        """The first offset kept and the end of each partition; raises when one of them is not told."""
        lows = self._offsets(partitions, _EARLIEST, deadline)
        highs = self._offsets(partitions, _LATEST, deadline)
        for topic, number in partitions:
            if (topic, number) not in lows or (topic, number) not in highs:
                detail = f"{topic}[{number}]: no answer about where it begins and ends"
                raise AdapterError(Failure(Kind.TRANSIENT, "timed_out", detail))
        return {partition: (lows[partition], highs[partition]) for partition in partitions}

    def log_ids(self, topics: Collection[str]) -> Mapping[str, str]:
        """The identity of each topic's log: its id, so that a topic created again is another log.

        Its name where the broker has no ids or does not answer in time: an old id could be the wrong log.
        Never raises, returns after :data:`LOG_ID_TIMEOUT_S` at the latest.
        """
        ids = {topic: topic for topic in topics}
        for topic in topics:
            self._partition_counts.pop(topic, None)
        if not topics:
            return ids
        with contextlib.suppress(KafkaException):
            futures = self._admin.describe_topics(
                TopicCollection(list(topics)), request_timeout=LOG_ID_TIMEOUT_S
            )
            done, _late = wait(futures.values(), timeout=LOG_ID_TIMEOUT_S)
            for topic, future in futures.items():
                if future in done and future.exception() is None:
                    topic_id = str(future.result().topic_id)
                    self._partition_counts[topic] = len(future.result().partitions)
                    ids[topic] = topic if topic_id == _NO_ID else topic_id
        return ids

    def partition_count(self, topic: str) -> int | None:
        """How many partitions the topic had when :meth:`log_ids` last asked; None without an answer."""
        return self._partition_counts.get(topic)

    def ask_topics(self, topics: Sequence[str]) -> None:
        """Ask whether these exist; :meth:`heard_of_topics` has the answers later. Never blocks."""
        if not topics or self._topics_asked:
            return
        with contextlib.suppress(KafkaException):
            self._topics_asked = self._admin.describe_topics(
                TopicCollection(list(topics)), request_timeout=ENDS_TIMEOUT_S
            )

    def heard_of_topics(self) -> Mapping[str, KafkaError | None]:
        """The answers since the last call: None for a topic that exists. Never blocks."""
        heard = {topic: future for topic, future in self._topics_asked.items() if future.done()}
        for topic in heard:
            del self._topics_asked[topic]
        return {topic: _error_in(future) for topic, future in heard.items()}

    # --- log ends --------------------------------------------------------------------------------------

    def ask_ends(self, partitions: Collection[Partition]) -> bool:
        """Ask for the ends of these partitions; :meth:`ends` has the answers later. Never blocks.

        Returns whether the cluster has answered an earlier question since the last call.
        """
        self._admin.poll(0)  # what its connections report would pile up else
        answered = self._collect()
        self._ends = {partition: end for partition, end in self._ends.items() if partition in partitions}
        wanted = [partition for partition in partitions if partition not in self._asked]
        if not wanted:
            return answered
        question = {TopicPartition(*partition): _LATEST for partition in wanted}
        with contextlib.suppress(KafkaException):
            futures = self._admin.list_offsets(
                question, isolation_level=self._isolation, request_timeout=ENDS_TIMEOUT_S
            )
            self._asked |= {(asked.topic, asked.partition): future for asked, future in futures.items()}
        return answered

    def ends(self) -> Mapping[Partition, int]:
        """The ends heard so far of the partitions last asked for. Never blocks."""
        self._collect()
        return dict(self._ends)

    def _collect(self) -> bool:
        answered = False
        for partition, future in list(self._asked.items()):
            if future.done():
                del self._asked[partition]
                if future.exception() is None:
                    self._ends[partition] = future.result().offset
                    answered = True
        return answered

    # --- samples ---------------------------------------------------------------------------------------

    def sample(self, topics: Sequence[str], per_partition: int, deadline: Deadline) -> Sequence[Record]:
        """Up to ``per_partition`` of the newest records of every partition, in order per partition.

        Joins no group and commits nothing. What has not arrived at the deadline is left out; topics that do
        not exist have no records.
        """
        known = self._partitions(deadline)
        wanted = [(topic, number) for topic in topics for number in known.get(topic, ())]
        starts = self._starts(wanted, per_partition, deadline)
        if not starts:
            return []
        consumer = Consumer(
            self._config
            | {"enable.auto.commit": "false", "enable.partition.eof": "true", "auto.offset.reset": "earliest"}
            | {"log_level": "0"}
        )
        with contextlib.closing(consumer):
            consumer.assign([TopicPartition(*partition, start) for partition, start in starts.items()])
            return _read_to_ends(consumer, set(starts), deadline)

    def _starts(
        self, wanted: Sequence[Partition], per_partition: int, deadline: Deadline
    ) -> Mapping[Partition, int]:
        """Where to start reading so that ``per_partition`` records remain; empty partitions left out."""
        lows = self._offsets(wanted, _EARLIEST, deadline)
        highs = self._offsets(wanted, _LATEST, deadline)
        return {
            partition: max(lows[partition], high - per_partition)
            for partition, high in highs.items()
            if lows.get(partition, high) < high
        }

    def _offsets(
        self, wanted: Sequence[Partition], spec: OffsetSpec, deadline: Deadline
    ) -> Mapping[Partition, int]:
        if not wanted:
            return {}
        question = {TopicPartition(*partition): spec for partition in wanted}
        remaining_s = deadline.remaining_s()
        futures = self._admin.list_offsets(question, request_timeout=remaining_s)
        done, _late = wait(futures.values(), timeout=remaining_s)
        return {
            (asked.topic, asked.partition): future.result().offset
            for asked, future in futures.items()
            if future in done and future.exception() is None
        }

    def _on_error(self, error: KafkaError) -> None:
        if about(error) is About.CLUSTER:
            self._refusal = error

    def _partitions(self, deadline: Deadline) -> Mapping[str, Sequence[int]]:
        try:
            found = self._admin.list_topics(timeout=deadline.remaining_s())
        except KafkaException as exception:
            self._refusal = None
            self._admin.poll(0)
            raise refused(self._refusal or error_of(exception)) from exception
        return {
            name: sorted(topic.partitions)
            for name, topic in found.topics.items()
            if topic.error is None or about(topic.error) is not About.TOPIC
        }


def _error_in(future: Future[Any]) -> KafkaError | None:
    exception = future.exception()
    return error_of(exception) if isinstance(exception, KafkaException) else None


def _read_to_ends(consumer: Consumer, still_open: set[Partition], deadline: Deadline) -> Sequence[Record]:
    found: list[Record] = []
    while still_open and not deadline.passed:
        message = consumer.poll(min(0.5, deadline.remaining_s()))
        if message is None:
            continue
        error = message.error()
        if error is None:
            found.append(record_of(message))
        elif (subject := about(error)) is About.END:
            still_open.discard((cast(str, message.topic()), cast(int, message.partition())))
        elif subject in (About.CLUSTER, About.FATAL):
            raise refused(error)
    return found

"""Reading stretches of partitions from outside: no group, no commits, up to an end that is known before."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import cast

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from vectide.core.failures import Failure, Kind
from vectide.core.model import Record
from vectide.ports import AdapterError, Clock, Deadline, Partition
from vectide.sources.kafka_admin import KafkaTopics, record_of
from vectide.sources.kafka_config import consumer_config
from vectide.sources.kafka_errors import About, about, error_of, refused

#: A stretch of a partition: the first offset, and the one behind the last.
Stretch = tuple[int, int]

#: Never joined; the client wants a name to assign partitions under.
_GROUP = "vectide.reader"


class KafkaReader:
    """``extra`` are librdkafka properties of the operator. Raises ValueError when they cannot be used.

    Not for several threads at a time. Every question raises :class:`AdapterError` when the cluster refuses
    or does not answer in time.
    """

    def __init__(self, *, bootstrap_servers: str, extra: Mapping[str, str], clock: Clock) -> None:
        self._config = consumer_config(bootstrap_servers, _GROUP, extra)
        self._clock = clock
        try:
            self._topics = KafkaTopics(self._config)
        except KafkaException as exception:
            raise ValueError(f"the Kafka properties are refused: {error_of(exception).str()}") from exception

    def close(self) -> None:
        """Close the connections; nothing may be asked afterwards."""
        self._topics.close()

    def __enter__(self) -> KafkaReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def partitions(self, topic: str, deadline: Deadline) -> Sequence[Partition]:
        """The topic's partitions, none when there is no such topic or it is hidden from us."""
        return self._topics.partitions(topic, deadline)

    def log_id(self, topic: str) -> str:
        """The identity of the topic's log: its id, else its name. Never raises."""
        return self._topics.log_ids([topic])[topic]

    def bounds(self, partitions: Iterable[Partition], deadline: Deadline) -> Mapping[Partition, Stretch]:
        """What each partition holds now: from the first offset kept to the end."""
        return self._topics.bounds(list(partitions), deadline)

    def read(self, wanted: Mapping[Partition, Stretch], *, patience_s: float) -> Iterator[Record]:
        """The records of these stretches, in order per partition.

        Every stretch must end where the partition has come to already. What retention has removed of it is
        passed over. Raises :class:`AdapterError` when nothing arrives for ``patience_s``.
        """
        ends = {partition: end for partition, (start, end) in wanted.items() if start < end}
        if not ends:
            return
        own = {"enable.auto.commit": "false", "auto.offset.reset": "earliest", "log_level": "0"}
        with contextlib.closing(Consumer(self._config | own)) as consumer:
            consumer.assign([TopicPartition(*partition, wanted[partition][0]) for partition in ends])
            yield from self._read(consumer, ends, patience_s)

    def _read(self, consumer: Consumer, ends: dict[Partition, int], patience_s: float) -> Iterator[Record]:
        give_up = Deadline.after(self._clock, patience_s)
        while ends:
            message = consumer.poll(min(0.5, give_up.remaining_s()))
            if message is not None:
                if message.error() is None:
                    give_up = Deadline.after(self._clock, patience_s)
                if _is_wanted(message, ends):
                    yield record_of(message)
            elif give_up.passed:
                names = ", ".join(f"{topic}[{number}]" for topic, number in ends)
                raise AdapterError(Failure(Kind.TRANSIENT, "timed_out", f"{names}: no records arrive"))


def _is_wanted(message: Message, ends: dict[Partition, int]) -> bool:
    """Whether the message is a record of a stretch. Stretches that end with it leave ``ends``; raises for
    errors that do not pass."""
    partition = (cast(str, message.topic()), cast(int, message.partition()))
    end, offset = ends.get(partition), cast(int, message.offset())
    error = message.error()
    if error is not None:
        subject = about(error)
        if subject is About.END:
            if end is not None and offset >= end:
                del ends[partition]
        elif subject not in (About.ENVIRONMENT, About.UNREACHABLE):
            raise refused(error)
        return False
    if end is None:
        return False  # its stretch is over, and the client reads on
    if offset >= end - 1:
        del ends[partition]
    return offset < end

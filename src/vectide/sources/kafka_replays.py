"""The replay topic: requests and answers come in through a thread of their own, and answers go out.

Every replica reads the whole topic, outside of the group, from where requests may still be valid. The topic
need not exist: then there is nothing to do, until it does.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Mapping, Sequence
from typing import Final, cast

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from vectide.core.replays import VALID_S, Answer, Request, read
from vectide.ports import AdapterError, Clock, Deadline, Log, LogReader
from vectide.sources.kafka_config import consumer_config
from vectide.sources.kafka_errors import About, about, cause_of, error_of, refused
from vectide.sources.kafka_reader import KafkaReader
from vectide.sources.kafka_sender import KafkaSender

#: How long the thread waits before it looks again for a topic that is missing or refused.
RETRY_S: Final = 20.0
_ASK_S: Final = 10.0
_POLL_S: Final = 0.5
_CLOSE_S: Final = 2.0
_RECENT: Final = 1000
#: What has arrived and was not taken; more waits in Kafka.
_MOST_HELD: Final = 20_000


class KafkaReplays:
    """Implements :class:`vectide.ports.ReplayDesk`. ``extra`` are librdkafka properties of the operator.
    Raises ValueError when they cannot be used."""

    def __init__(
        self, *, bootstrap_servers: str, topic: str, extra: Mapping[str, str], clock: Clock, log: Log
    ) -> None:
        self.topic = topic
        self._clock = clock
        self._log = log
        self._config = consumer_config(bootstrap_servers, "vectide.replays", extra)
        self._reader = KafkaReader(bootstrap_servers=bootstrap_servers, extra=extra, clock=clock)
        self._listener = KafkaReader(bootstrap_servers=bootstrap_servers, extra=extra, clock=clock)
        self._sender = KafkaSender(self._config, topic)
        self._arrived: queue.Queue[Request | Answer] = queue.Queue(_MOST_HELD)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="replays", daemon=True)
        #: Where to go on reading each partition.
        self._positions: dict[int, int] = {}
        self._told = ""

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    @property
    def logs(self) -> LogReader:
        return self._reader

    def take(self) -> Sequence[Request | Answer]:
        """What has arrived since the last call. Never blocks."""
        taken: list[Request | Answer] = []
        with contextlib.suppress(queue.Empty):
            while True:
                taken.append(self._arrived.get_nowait())
        return taken

    def answer(self, answers: Sequence[Answer], deadline: Deadline) -> None:
        """Returns when the broker has confirmed the answers; raises :class:`AdapterError` else."""
        self._sender.send([answer.to_bytes() for answer in answers], deadline)

    def close(self) -> None:
        """Stop listening; gives up after two seconds."""
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join(_CLOSE_S)
        self._sender.close()
        if not self._thread.is_alive():
            self._listener.close()
            self._reader.close()

    # --- the thread -------------------------------------------------------------------------------------

    def _listen(self) -> None:
        while not self._closing.is_set():
            try:
                self._follow()
            except AdapterError as error:
                self._tell(error.failure.cause)
            except KafkaException as exception:
                self._tell(cause_of(error_of(exception)))
            self._closing.wait(RETRY_S)

    def _tell(self, cause: str) -> None:
        if cause != self._told:
            self._told = cause
            self._log.warning("replays_not_heard", topic=self.topic, cause=cause)

    def _follow(self) -> None:
        """Read on until there is trouble, or the end of it all. Returns when there is no such topic."""
        partitions = self._listener.partitions(self.topic, Deadline.after(self._clock, _ASK_S))
        if not partitions:
            return
        own = {"enable.auto.commit": "false", "auto.offset.reset": "earliest", "log_level": "0"}
        with contextlib.closing(Consumer(self._config | own)) as consumer:
            consumer.assign(self._starts(consumer, [number for _, number in partitions]))
            behind = {number for _, number in partitions}
            backlog: list[Request | Answer] = []
            while not self._closing.is_set():
                message = consumer.poll(_POLL_S)
                if message is None:
                    continue
                heard = self._heard(message, behind)
                if behind:
                    backlog += heard
                else:
                    # Requests that were answered long ago need not be looked into again.
                    for one in _unanswered(backlog) + heard:
                        self._put(one)
                    backlog = []
                    self._told = ""

    def _starts(self, consumer: Consumer, numbers: Sequence[int]) -> list[TopicPartition]:
        since_ms = self._clock.wall_ms() - int(VALID_S * 1000)
        fresh = [number for number in numbers if number not in self._positions]
        asked = [TopicPartition(self.topic, number, since_ms) for number in fresh]
        for part in consumer.offsets_for_times(asked, timeout=_ASK_S) if asked else []:
            low, high = consumer.get_watermark_offsets(part, timeout=_ASK_S)
            # Negative: nothing is so new. Some are read nevertheless: those that are too old are known by
            # their time, and the end could have moved meanwhile.
            self._positions[part.partition] = part.offset if part.offset >= 0 else max(low, high - _RECENT)
        return [TopicPartition(self.topic, number, self._positions[number]) for number in numbers]

    def _heard(self, message: Message, behind: set[int]) -> list[Request | Answer]:
        number, offset = cast(int, message.partition()), cast(int, message.offset())
        error = message.error()
        if error is not None:
            subject = about(error)
            if subject is About.END:
                behind.discard(number)
            elif subject not in (About.ENVIRONMENT, About.UNREACHABLE):
                raise refused(error)
            return []
        self._positions[number] = offset + 1
        heard = read(message.value(), message.timestamp()[1])
        return [] if heard is None else [heard]

    def _put(self, one: Request | Answer) -> None:
        while not self._closing.is_set():
            with contextlib.suppress(queue.Full):
                self._arrived.put(one, timeout=_POLL_S)
                return


def _unanswered(heard: Sequence[Request | Answer]) -> list[Request | Answer]:
    answered = {one.id for one in heard if isinstance(one, Answer)}
    return [one for one in heard if isinstance(one, Request) and one.id not in answered]

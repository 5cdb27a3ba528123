"""Small records of ours, written and confirmed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from vectide.core.failures import Failure, Kind
from vectide.ports import AdapterError, Deadline
from vectide.sources.kafka_admin import admin_config
from vectide.sources.kafka_errors import error_of, refused

_POLL_S: Final = 0.05
_NOT_FOR_US: Final = frozenset({"transactional.id"})


class KafkaSender:
    """``config`` is the configuration of a consumer. Nothing is asked before the first send."""

    def __init__(self, config: Mapping[str, str], topic: str) -> None:
        wished = {name: value for name, value in admin_config(config).items() if name not in _NOT_FOR_US}
        self._config = {**wished, "acks": "all", "linger.ms": "0", "message.timeout.ms": "15000"}
        self._config["log_level"] = "0"
        self.topic = topic
        self._producer: Producer | None = None

    def send(self, values: Sequence[bytes], deadline: Deadline) -> None:
        """Returns when the broker has confirmed all of them, in their order in one partition at least; raises
        :class:`AdapterError` else (some may have been written)."""
        producer = self._producer = self._producer or Producer(self._config)
        reports: list[KafkaError | None] = []

        def report(error: KafkaError | None, _message: Message) -> None:
            reports.append(error)

        try:
            for value in values:
                producer.produce(self.topic, value=value, on_delivery=report)
                producer.poll(0)
        except KafkaException as exception:
            raise refused(error_of(exception)) from exception
        except BufferError:
            raise AdapterError(Failure(Kind.TRANSIENT, "queue_full", self.topic)) from None
        while len(reports) < len(values) and not deadline.passed:
            producer.poll(_POLL_S)
        for error in reports:
            if error is not None:
                raise refused(error)
        if len(reports) < len(values):
            raise AdapterError(Failure(Kind.TRANSIENT, "timed_out", f"{self.topic}: no answer"))

    def close(self) -> None:
        """Drop what was not confirmed."""
        if self._producer is not None:
            self._producer.purge(in_queue=True, in_flight=True)

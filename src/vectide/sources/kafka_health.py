"""What is wrong between us and the cluster, now: kept by subject, forgotten when the subject works again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

from confluent_kafka import KafkaError

from vectide.core.failures import Failure, Kind
from vectide.sources.kafka_errors import failure_of

#: Subjects that are no topic. Parentheses are illegal in topic names.
GROUP: Final = "(group)"
CLUSTER: Final = "(cluster)"
_MISSING: Final = frozenset({"unknown_topic_or_part", "unknown_topic", "unknown_topic_id"})


class KafkaHealth:
    """Current failures: subject (a topic, :data:`GROUP` or :data:`CLUSTER`) -> what is wrong with it."""

    def __init__(self) -> None:
        self._failures: dict[str, Failure] = {}
        self._sticky: set[str] = set()
        #: How often each subject failed so far: what was asked before a failure proves nothing after it.
        self._times: Counter[str] = Counter()

    @property
    def failures(self) -> Mapping[str, Failure]:
        """A copy, to be read at leisure."""
        return dict(self._failures)

    @property
    def ill(self) -> bool:
        """Whether anything is wrong."""
        return bool(self._failures)

    def times(self, subject: str) -> int:
        """How often the subject has failed so far."""
        return self._times[subject]

    def failed(
        self, subject: str, error: KafkaError, *, operator: bool | None = None, sticky: bool = False
    ) -> None:
        """Something is wrong with the subject. ``sticky``: delivering again does not prove it right.

        What needs an operator is not replaced by what does not: refused credentials are followed by "all
        brokers are down".
        """
        self._times[subject] += 1
        failure = failure_of(error, operator=operator)
        known = self._failures.get(subject)
        if known is not None and known.kind is Kind.OPERATOR and failure.kind is not Kind.OPERATOR:
            return
        self._failures[subject] = failure
        if sticky:
            self._sticky.add(subject)

    def recovered(self, subject: str, *, afresh: bool = False) -> None:
        """The subject works. ``afresh``: it starts anew, whatever was wrong."""
        if afresh:
            self._sticky.discard(subject)
        if subject not in self._sticky:
            self._failures.pop(subject, None)

    def exists(self, topic: str) -> None:
        """The topic can be described, which proves nothing but that it is there."""
        failure = self._failures.get(topic)
        if failure is not None and failure.cause in _MISSING:
            del self._failures[topic]

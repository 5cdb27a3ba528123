"""The configuration of the Kafka consumer: our defaults, the operator's wishes, and what must stay."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

#: What the operator may not change, because offsets would be committed that nobody settled (invariant 1), or
#: settled ones would never be. Values are what they must be.
FIXED: Final[Mapping[str, str]] = {
    "enable.auto.commit": "false",
    "enable.auto.offset.store": "false",
    "enable.partition.eof": "true",
}
#: Named by variables of their own.
_ELSEWHERE: Final[Mapping[str, str]] = {
    "bootstrap.servers": "VECTIDE_KAFKA__BOOTSTRAP_SERVERS",
    "metadata.broker.list": "VECTIDE_KAFKA__BOOTSTRAP_SERVERS",
    "group.id": "VECTIDE_KAFKA__GROUP_ID",
}

_PREFETCH_KBYTES: Final = 16_384
_DEFAULTS: Final[Mapping[str, str]] = {
    "client.id": "vectide",
    # A fresh group reads everything. A reset of an old one is noticed and reported by the source.
    "auto.offset.reset": "earliest",
    "isolation.level": "read_committed",
    "allow.auto.create.topics": "false",
    # A broker that hangs is given up after this time; a commit at the stop must not wait for it for a minute.
    "socket.timeout.ms": "20000",
    # New partitions and new topics of a pattern are seen within this time.
    "topic.metadata.refresh.interval.ms": "30000",
    # Prefetch is memory outside the budgets; it need only cover a round trip. `fetch.wait.max.ms` stays at
    # its 500 ms: a broker answers a waiting fetch as soon as there is one byte.
    "queued.min.messages": "10000",
    "queued.max.messages.kbytes": str(_PREFETCH_KBYTES),
    "fetch.max.bytes": str(_PREFETCH_KBYTES * 1024),
}
#: Without these a killed member's partitions stand still for 45 s. Brokers decide it for the newer protocol.
_CLASSIC: Final[Mapping[str, str]] = {
    "session.timeout.ms": "10000",
    "heartbeat.interval.ms": "3000",
    "partition.assignment.strategy": "cooperative-sticky",
}


def consumer_config(bootstrap_servers: str, group_id: str, extra: Mapping[str, str]) -> dict[str, str]:
    """The consumer's properties, callbacks left out. ``extra`` are the operator's.

    Raises ValueError naming the property when ``extra`` has one that it may not have, or says nothing.
    """
    for name, value in extra.items():
        _check(name, value)
    config = {"bootstrap.servers": bootstrap_servers, "group.id": group_id, **_DEFAULTS}
    if extra.get("group.protocol", "classic").lower() != "consumer":
        config.update(_CLASSIC)
    if "message.max.bytes" in extra or "fetch.message.max.bytes" in extra:
        # The client refuses a fetch limit below these; left out, it adapts.
        del config["fetch.max.bytes"]
    return {**config, **extra, **FIXED}


def _check(name: str, value: str) -> None:
    if name in _ELSEWHERE:
        raise ValueError(f"{name} is set by {_ELSEWHERE[name]}, not among the extra properties")
    fixed = FIXED.get(name)
    if fixed is not None and value.strip().lower() != fixed:
        raise ValueError(f"{name} must stay {fixed}: else offsets are committed that are not settled")
    if name == "partition.assignment.strategy" and value.strip() != "cooperative-sticky":
        raise ValueError(f"{name} must stay cooperative-sticky: partitions are handed over one by one")


def check_topics(topics: Sequence[str]) -> None:
    """Raises ValueError when there is nothing to subscribe to, or a pattern is not a regular expression."""
    if not topics:
        raise ValueError("there is no topic to subscribe to")
    for topic in topics:
        try:
            re.compile(topic if topic.startswith("^") else "")
        except re.error as error:
            raise ValueError(f"{topic} is not a regular expression: {error}") from error

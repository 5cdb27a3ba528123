"""What the service needs of a Kafka cluster: its topics, how ours should be set up, and the least rights."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

#: What a letter's headers may add to a record.
HEADERS_BYTES: Final = 65_536
#: What brokers take when a topic says nothing else.
DEFAULT_MESSAGE_BYTES: Final = 1_048_588
DAY_MS: Final = 86_400_000
LETTERS_KEPT_MS: Final = 30 * DAY_MS

_META: Final = re.compile(r"[.^$*+?()\[\]{}|\\]")
_ESCAPED: Final = re.compile(r"\\([^A-Za-z0-9])")


class Role(Enum):
    """What a topic is for. The source's topics are made by Debezium, the others are ours."""

    SOURCE = "source"
    DEAD_LETTERS = "dead_letters"
    REPLAYS = "replays"

    @property
    def is_ours(self) -> bool:
        return self is not Role.SOURCE


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic that must exist. ``config`` is recommended; values that are numbers of
    :data:`AT_LEAST` are lower limits."""

    name: str
    role: Role
    config: Mapping[str, str] = field(default_factory=dict)

    def unlike(self, found: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
        """Where what was ``found`` is not as recommended: (property, found, recommended)."""
        for name, wanted in self.config.items():
            value = found.get(name)
            if value is not None and not _does(name, value, wanted):
                yield name, value, wanted


#: Properties of which more is as good; a negative number is no limit.
AT_LEAST: Final = frozenset({"retention.ms", "max.message.bytes"})


def _does(name: str, found: str, wanted: str) -> bool:
    if name in AT_LEAST:
        try:
            return int(found) < 0 or int(found) >= int(wanted)
        except ValueError:
            return False
    return found == wanted


def dead_letter_topic(name: str, largest_message_bytes: int = DEFAULT_MESSAGE_BYTES) -> Topic:
    """``largest_message_bytes``: what the source's topics take.

    Letters keep the time of their record, which may be long ago: retention must count from when the letter
    was written. And they must not be compacted: there may be several of one key.
    """
    return Topic(
        name,
        Role.DEAD_LETTERS,
        {
            "cleanup.policy": "delete",
            "retention.ms": str(LETTERS_KEPT_MS),
            "message.timestamp.type": "LogAppendTime",
            "max.message.bytes": str(largest_message_bytes + HEADERS_BYTES),
        },
    )


def replay_topic(name: str) -> Topic:
    """Requests and answers are small. They are kept as long as letters, so that it is known which were
    replayed."""
    return Topic(
        name,
        Role.REPLAYS,
        {
            "cleanup.policy": "delete",
            "retention.ms": str(LETTERS_KEPT_MS),
            "message.timestamp.type": "LogAppendTime",
        },
    )


# --- rights ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Right:
    """Operations on one resource (``topic`` or ``group``), for a purpose. ``prefixed``: on all whose name
    begins so. READ and WRITE bring DESCRIBE with them."""

    resource: str
    name: str
    operations: tuple[str, ...]
    purpose: str
    prefixed: bool = False


def rights(subscribed: Iterable[str], group: str, dead_letters: str, replays: str) -> Sequence[Right]:
    """The least that ``vectide run`` needs, and for dead letters its verbs. ``subscribed``: names, and
    patterns that begin with ``^``."""
    return [
        *(_right_of_source(source) for source in dict.fromkeys(subscribed)),
        Right("group", group, ("READ",), "join the group, commit offsets"),
        Right("topic", dead_letters, ("WRITE",), "put records aside"),
        Right("topic", dead_letters, ("READ",), "list, show and replay them"),
        Right("topic", replays, ("READ", "WRITE"), "requests to replay, and their answers"),
    ]


def _right_of_source(source: str) -> Right:
    purpose = "read change events"
    if not source.startswith("^"):
        return Right("topic", source, ("READ",), purpose)
    prefix = literal_prefix(source)
    return Right("topic", prefix or "*", ("READ",), purpose, prefixed=bool(prefix))


def literal_prefix(pattern: str) -> str:
    """How every name begins that ``pattern`` (``^...``) can find; empty when that is not clear."""
    if "|" in pattern:
        return ""
    prefix = ""
    rest = pattern.removeprefix("^")
    while rest:
        escaped = _ESCAPED.match(rest)
        if escaped is None and _META.match(rest):
            # What repeats concerns the character before: it may be absent.
            return prefix[:-1] if rest[0] in "*?{" else prefix
        size = 2 if escaped else 1
        prefix += escaped[1] if escaped else rest[0]
        rest = rest[size:]
    return prefix

"""Dead letters as they lie in their topic: named, read back, chosen.

The headers that :data:`PREFIX` begins are ours; ``vectide.deadletters`` writes them, behind those that the
record had. Nothing here looks into a record's value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from vectide.core.model import Columns, Record, Value, canonical_json, short_hash

PREFIX: Final = "vectide.dlq."

_PLACE: Final = re.compile(r"(?:(?P<topic>[\w.-]+)\[(?P<of>\d+)\]@|(?:(?P<partition>\d+)@))?(?P<offset>\d+)")
_DURATION: Final = re.compile(r"(?:\d+(?:\.\d+)?[smhdw])+")
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_UNIT_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}

Header = tuple[str, bytes | None]


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a record lies: ``topic[partition]@offset``. ``topic`` empty: in the dead-letter topic;
    ``partition`` None: in any partition of it."""

    topic: str
    partition: int | None
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}[{'*' if self.partition is None else self.partition}]@{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Place:
        """``topic[partition]@offset``, or ``partition@offset`` or ``offset`` of the dead-letter topic.
        Raises ValueError for anything else."""
        match = _PLACE.fullmatch(text.strip())
        if match is None:
            raise ValueError(
                f"{text!r} is no place: give TOPIC[PARTITION]@OFFSET, or an OFFSET (PARTITION@OFFSET) of the "
                "dead-letter topic"
            )
        number = match["of"] or match["partition"]
        return cls(match["topic"] or "", None if number is None else int(number), int(match["offset"]))

    @classmethod
    def of(cls, record: Record) -> Place:
        return cls(record.topic, record.partition, record.offset)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One letter. ``at`` is where it lies itself; ``record`` is the record that it is about: at its own
    place and time in the source, with its own headers, its key and value as far as the letter has them.

    ``log``: identity of the log that the record was read from, empty where it is not known. ``truncated``:
    the value (and a long key) was left out, because it was too large. Times are ms since the epoch, None when
    the header is missing.
    """

    at: Place
    record: Record
    cause: str
    stage: str
    detail: str
    table: str
    attempts: int
    version: str
    failed_ms: int | None
    log: str
    truncated: bool

    @classmethod
    def read(cls, stored: Record) -> DeadLetter | None:
        """The letter in a record of the dead-letter topic; None when the record is no letter."""
        starts = [index for index, (name, _) in enumerate(stored.headers) if name == f"{PREFIX}cause"]
        if not starts:
            return None
        ours = _texts(stored.headers[starts[-1] :])
        try:
            original = replace(
                stored,
                topic=ours["topic"],
                partition=int(ours["partition"]),
                offset=int(ours["offset"]),
                headers=stored.headers[: starts[-1]],
                timestamp_ms=int(ours.get("timestamp", stored.timestamp_ms)),
            )
            attempts = int(ours.get("attempts", "1"))
        except (KeyError, ValueError):
            return None
        return cls(
            at=Place.of(stored),
            record=original,
            cause=ours["cause"],
            stage=ours.get("stage", ""),
            detail=ours.get("detail", ""),
            table=ours.get("table", ""),
            attempts=attempts,
            version=ours.get("version", ""),
            failed_ms=_iso_ms(ours.get("failed_at", "")),
            log=ours.get("log", ""),
            truncated=ours.get("truncated") == "true",
        )

    def without_content(self) -> DeadLetter:
        """The same letter, to be kept in large numbers: its record has only its place and its key."""
        return replace(self, record=replace(self.record, value=None, headers=()))

    @property
    def source(self) -> Place:
        """Where the record lies that the letter is about."""
        return Place.of(self.record)

    @property
    def key_hash(self) -> str:
        """Tells letters of one key from those of others without showing the key; ``-`` for a null key."""
        key = self.record.key
        return "-" if key is None else short_hash(key.decode("utf-8", "surrogateescape"))[:8]


def _texts(headers: Iterable[Header]) -> dict[str, str]:
    return {
        name.removeprefix(PREFIX): (value or b"").decode("utf-8", "replace")
        for name, value in headers
        if name.startswith(PREFIX)
    }


def _iso_ms(text: str) -> int | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)


# --- choosing -------------------------------------------------------------------------------------------


def moment_ms(text: str, now_ms: int) -> int:
    """A moment as ms since the epoch: an ISO time (UTC unless it names another zone), or how long before
    ``now_ms`` it was: ``90s``, ``2h``, ``1d12h``. Raises ValueError for anything else."""
    wanted = text.strip()
    if _DURATION.fullmatch(wanted.lower()):
        parts = _PART.findall(wanted.lower())
        return now_ms - round(sum(float(number) * _UNIT_S[unit] for number, unit in parts) * 1000)
    found = _iso_ms(wanted)
    if found is None:
        raise ValueError(
            f"{text!r} is neither an ISO time (2026-11-21T06:30) nor a duration (90s, 2h, 1d12h)"
        )
    return found


@dataclass(frozen=True, slots=True)
class Choice:
    """Which letters are meant; None and empty: no matter. Moments are of the failure, ``until_ms`` is
    exclusive. A letter that does not say when it failed is in no span of time."""

    causes: frozenset[str] = frozenset()
    tables: frozenset[str] = frozenset()
    since_ms: int | None = None
    until_ms: int | None = None

    def takes(self, letter: DeadLetter) -> bool:
        if self.causes and letter.cause not in self.causes:
            return False
        if self.tables and letter.table not in self.tables:
            return False
        if self.since_ms is None and self.until_ms is None:
            return True
        failed = letter.failed_ms
        if failed is None or (self.since_ms is not None and failed < self.since_ms):
            return False
        return self.until_ms is None or failed < self.until_ms


@dataclass(frozen=True, slots=True)
class KeyWanted:
    """A row's key as people give it: a JSON object of its columns, or the plain value of its one column."""

    text: str
    value: Value

    @classmethod
    def parse(cls, text: str) -> KeyWanted:
        try:
            return cls(text, json.loads(text))
        except (ValueError, RecursionError):
            return cls(text, text)

    def is_of(self, key: Columns) -> bool:
        """Whether it names the row with this canonical key."""
        if isinstance(self.value, Mapping):
            return canonical_json(self.value) == canonical_json(key)
        if len(key) != 1:
            return False
        (value,) = key.values()
        return self.text == (value if isinstance(value, str) else canonical_json(value)) or (
            isinstance(self.value, str) and self.value == value
        )

    def is_bytes(self, key: bytes | None) -> bool:
        """Whether it is the text of a Kafka key that nothing can decode."""
        return key is not None and key.decode("utf-8", "replace") == self.text

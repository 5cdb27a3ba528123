"""Requests to apply the record of a dead letter again, and what became of them.

Both are small JSON records of the replay topic. They name places and hold no content of rows. Every replica
reads all of them; a request is for whoever owns the record's partition.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from vectide.core.letters import Place

VERSION: Final = 1
#: How long a request may be taken up, from when the broker took it.
VALID_S: Final = 600.0

#: The record was not applied, and asking again may help: the letter or what followed its record could not be
#: read (``failed``, ``lost``), or the source has forgotten what followed it (``gone``).
UNDONE: Final = frozenset({"failed", "lost", "gone"})


@dataclass(frozen=True, slots=True)
class Request:
    """Apply the record of the letter that lies at ``letter``, unless a newer change of its row exists.

    ``letter`` and ``source`` are the places of the letter and of its record. ``letters_log`` and ``log`` are
    the identities of the logs that hold them, as they are now; ``own_log`` is the log that the record was
    read from (another one, when its topic was created again). Up to ``checked`` (exclusive) its partition,
    as it is now, has no newer change of the row.
    """

    id: str
    letter: Place
    source: Place
    letters_log: str
    log: str
    own_log: str
    checked: int
    sent_ms: int = -1

    def to_bytes(self) -> bytes:
        return _encode({"request": self.id, **self._fields(), "checked": self.checked})

    def _fields(self) -> dict[str, Any]:
        return {
            "letter": _plain(self.letter),
            "source": _plain(self.source),
            "letters_log": self.letters_log,
            "log": self.log,
            "own_log": self.own_log,
        }


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a request. ``outcome`` is that of a record (``written``, ``deleted``, ``skipped``,
    ``dead_lettered``), ``superseded`` (a newer change of the row exists), or one of :data:`UNDONE`;
    ``reason`` says more in a word."""

    id: str
    letter: Place
    letters_log: str
    outcome: str
    reason: str = ""

    @property
    def done(self) -> bool:
        """Whether there is nothing left to do about the letter."""
        return self.outcome not in UNDONE

    def to_bytes(self) -> bytes:
        return _encode(
            {
                "answer": self.id,
                "letter": _plain(self.letter),
                "letters_log": self.letters_log,
                "outcome": self.outcome,
                "reason": self.reason,
            }
        )


def _encode(fields: dict[str, Any]) -> bytes:
    return json.dumps({"v": VERSION, **fields}, separators=(",", ":")).encode()


def _plain(place: Place) -> list[Any]:
    return [place.topic, place.partition, place.offset]


def read(value: bytes | None, sent_ms: int) -> Request | Answer | None:
    """What a record of the replay topic says; None for what we do not know."""
    try:
        fields = json.loads(value or b"")
        if fields["v"] != VERSION:
            return None
        letter = _place(fields["letter"])
        if "answer" in fields:
            return Answer(
                str(fields["answer"]),
                letter,
                str(fields["letters_log"]),
                str(fields["outcome"]),
                str(fields["reason"]),
            )
        return Request(
            str(fields["request"]),
            letter,
            _place(fields["source"]),
            str(fields["letters_log"]),
            str(fields["log"]),
            str(fields["own_log"]),
            int(fields["checked"]),
            sent_ms,
        )
    except (KeyError, TypeError, ValueError, RecursionError):
        return None


def _place(parts: list[Any]) -> Place:
    topic, partition, offset = parts
    return Place(str(topic), int(partition), int(offset))


def same_log(one: str, other: str, topic: str) -> bool:
    """Whether two identities may be of one log: only two that are known can differ."""
    return one == other or {one, other} & {"", topic} != set()

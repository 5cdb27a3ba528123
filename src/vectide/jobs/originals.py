"""The record that a dead letter is about: out of the letter, or from its place in the source."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import cast

from vectide.core.letters import DeadLetter, KeyWanted
from vectide.core.mapping import TableMapping
from vectide.core.model import (
    Change,
    Columns,
    DecodeError,
    Deleted,
    Record,
    Upserted,
)
from vectide.ports import Deadline, LogReader


class Lost(Exception):
    """The record cannot be had any more; the message says why, in one line."""


def recreated(letter: DeadLetter, log_now: str) -> bool:
    """Whether the letter's topic was deleted and created again since: its offsets mean other records now.
    Only said when both identities are known."""
    topic = letter.record.topic
    return letter.log not in ("", topic) and log_now not in ("", topic) and letter.log != log_now


def original_of(letter: DeadLetter, reader: LogReader, deadline: Deadline) -> Record:
    """The whole record. Raises :class:`Lost` when the letter had no room for it and the source does not have
    it any more, AdapterError when the source cannot be asked."""
    if not letter.truncated:
        return letter.record
    source = letter.source
    if recreated(letter, reader.log_id(source.topic)):
        raise Lost(f"the letter was too small for its value, and {source.topic} was created again since")
    record = letter.record
    at = (record.topic, record.partition)
    if at not in reader.partitions(record.topic, deadline):
        raise Lost(f"the letter was too small for its value, and {record.topic}[{record.partition}] is gone")
    _low, end = reader.bounds([at], deadline)[at]
    wanted = {at: (record.offset, min(record.offset + 1, end))}
    for found in reader.read(wanted, patience_s=deadline.remaining_s()):
        return replace(found, timestamp_ms=record.timestamp_ms)
    raise Lost(f"the letter was too small for its value, and {source} is not kept any more")


def key_of(
    record: Record, decode: Callable[[Record], Change], mapping: TableMapping | None
) -> Columns | None:
    """The canonical key of the row that the record is about, None when nothing tells. Of a record that
    cannot be decoded the Kafka key often can."""
    for attempt in (record, replace(record, value=None)):
        try:
            change = decode(attempt)
            match change:
                case Upserted() | Deleted() if mapping is not None:
                    return cast(Columns, json.loads(mapping.row_of(change).key))
                case Upserted() | Deleted():
                    return change.key
                case _:
                    return None
        except DecodeError:
            continue
    return None


def is_wanted(letter: DeadLetter, key: Columns | None, wanted: KeyWanted) -> bool:
    """Whether the letter, about the row of this key (None: nothing tells), is one that was asked for."""
    return wanted.is_bytes(letter.record.key) if key is None else wanted.is_of(key)

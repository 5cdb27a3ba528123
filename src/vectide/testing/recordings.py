"""Recorded records: a file of JSON lines that tests, the demo and ``preview`` read in place of a topic.

One record per line::

    {"topic": "shop.public.products", "partition": 0, "offset": 7, "timestamp": 1795243356551,
     "key": "eyJpZCI6MX0=", "value": null, "headers": [["__debezium.newkey", "eyJpZCI6OX0="]]}

``key``, ``value`` and the values of headers are base64, or null for none. ``timestamp`` (ms since the epoch)
and ``headers`` may be left out; further members are ignored.
"""

from __future__ import annotations

import base64
import json
from os import PathLike
from pathlib import Path
from typing import Any

from vectide.core.model import Record


def read_recording(path: str | PathLike[str]) -> list[Record]:
    """Every record of the file, in the file's order. Blank lines are skipped.

    Raises OSError when the file cannot be read, ValueError naming the line that is not a record.
    """
    records = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            records.append(_record(json.loads(line)))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}:{number}: not a recorded record: {error!r}") from error
    return records


def _record(members: dict[str, Any]) -> Record:
    return Record(
        topic=members["topic"],
        partition=int(members["partition"]),
        offset=int(members["offset"]),
        key=_bytes(members["key"]),
        value=_bytes(members["value"]),
        headers=tuple((name, _bytes(value)) for name, value in members.get("headers") or ()),
        timestamp_ms=int(members.get("timestamp", -1)),
    )


def _bytes(encoded: str | None) -> bytes | None:
    return None if encoded is None else base64.b64decode(encoded, validate=True)

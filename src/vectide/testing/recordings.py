"""Recorded records: a file of JSON lines that tests, the demo and ``preview`` read in place of a topic.

One record per line::

    {"topic": "shop.public.products", "partition": 0, "offset": 7, "timestamp": 1795243356551,
     "key": "eyJpZCI6MX0=", "value": null, "headers": [["__debezium.newkey", "eyJpZCI6OX0="]]}

``key``, ``value`` and the values of headers are base64, or null for none. ``timestamp`` (ms since the epoch)
and ``headers`` may be left out; further members are ignored. A file whose name ends in ``.gz`` is compressed.
"""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Any

from vectide.core.model import Record


def read_recording(path: str | PathLike[str]) -> list[Record]:
    """Every record of the file, in the file's order. Blank lines are skipped.

    Raises OSError when the file cannot be read, ValueError naming the line that is not a record.
    """
    records = []
    for number, line in enumerate(_text(Path(path)).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            records.append(_record(json.loads(line)))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}:{number}: not a recorded record: {error!r}") from error
    return records


def write_recording(path: str | PathLike[str], records: Iterable[Record]) -> None:
    """Write the records so that :func:`read_recording` reads the same ones. Raises OSError."""
    text = "".join(json.dumps(_members(record)) + "\n" for record in records)
    file = Path(path)
    if file.suffix == ".gz":
        file.write_bytes(gzip.compress(text.encode(), mtime=0))
    else:
        file.write_text(text, encoding="utf-8")


def _text(path: Path) -> str:
    if path.suffix != ".gz":
        return path.read_text(encoding="utf-8")
    try:
        return gzip.decompress(path.read_bytes()).decode("utf-8")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: not a gzip file: {error!r}") from error


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


def _members(record: Record) -> dict[str, Any]:
    return {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp_ms,
        "key": _base64(record.key),
        "value": _base64(record.value),
        "headers": [[name, _base64(value)] for name, value in record.headers],
    }


def _base64(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode("ascii")


def _bytes(encoded: str | None) -> bytes | None:
    return None if encoded is None else base64.b64decode(encoded, validate=True)

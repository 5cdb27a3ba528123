"""What Debezium's messages mean, whatever bytes they came in: the kinds that are not about a row, and the
values that are not there."""

from __future__ import annotations

import base64
import hashlib
import json
import uuid
from collections.abc import Iterable, Mapping
from typing import Final, NoReturn

from vectide.core.jsontext import MAX_DEPTH, nests_too_deep
from vectide.core.model import Columns, DecodeError, Value

#: Debezium's default of ``unavailable.value.placeholder``.
UNAVAILABLE: Final = "__debezium_unavailable_value"
#: How a value begins that ``S3LargeMessagePostProcessor`` put elsewhere: bucket and key follow.
REFERENCE: Final = "__debezium:s3:ref:v1:"
_REFERENCE_SIZE: Final = len(REFERENCE)

#: The headers that join the two halves of a primary key change.
NEW_KEY_HEADER: Final = "__debezium.newkey"
OLD_KEY_HEADER: Final = "__debezium.oldkey"

#: Every reason of :class:`~vectide.core.model.Ignored`.
IGNORED_REASONS: Final = frozenset(
    {
        "heartbeat",
        "transaction",
        "schema_change",
        "logical_message",
        "notification",
        "signal",
        "no_document",
    }
)

#: Every cause of :class:`~vectide.core.model.DecodeError` that a codec raises.
DECODE_CAUSES: Final = frozenset(
    {
        "not_json",
        "not_utf8",
        "number_out_of_range",
        "too_deep",
        "not_an_envelope",
        "no_op",
        "unknown_op",
        "no_after",
        "bad_row",
        "bad_schema",
        "bad_value",
        "bad_key",
        "unavailable_key",
    }
)

_NONE: Final[frozenset[str]] = frozenset()
_TIMES: Final = frozenset({"ts_ms", "ts_us", "ts_ns"})
_TRANSACTION: Final = frozenset({"status", "id", "event_count", "data_collections"})
_NOTIFICATION: Final = frozenset({"id", "type", "aggregate_type", "additional_data", "timestamp"})
_SIGNAL: Final = frozenset({"id", "type", "data"})
#: Only names that nobody gives to his own rows: a table of the user may have the same three columns.
_SIGNAL_TYPES: Final = frozenset(
    {
        "execute-snapshot",
        "pause-snapshot",
        "resume-snapshot",
        "stop-snapshot",
        "snapshot-window-open",
        "snapshot-window-close",
    }
)


def ignored_reason(document: Mapping[str, Value], key: Columns | None, topic: str) -> str | None:
    """Why a document without ``op`` is not about a row, None when it may be about one.

    By shape, since every topic can be renamed. Only a heartbeat (nothing but a time) has too little shape:
    its key or its topic has to agree.
    """
    names = document.keys()
    if names and names <= _TIMES:
        named = topic.startswith("__debezium-heartbeat")
        return "heartbeat" if named or (key is not None and key.keys() == {"serverName"}) else None
    if names >= _TRANSACTION and document["status"] in ("BEGIN", "END") and names <= _TRANSACTION | _TIMES:
        return "transaction"
    if {"source", "databaseName"} <= names and ("ddl" in names or "tableChanges" in names):
        return "schema_change"
    if names >= {"aggregate_type", "additional_data"} and names <= _NOTIFICATION:
        return "notification"
    return None


def is_signal(columns: Columns) -> bool:
    """Whether the row is one of the signal table's, which a subscription by pattern sees as well."""
    if len(columns) != 3 or columns.keys() != _SIGNAL:
        return False
    kind = columns["type"]
    return isinstance(kind, str) and kind in _SIGNAL_TYPES


class Unavailable:
    """Recognises the placeholder that stands for a column's value that the source did not send.

    ``placeholder`` is the connector's ``unavailable.value.placeholder``, with its ``hex:`` prefix where it
    has one; ValueError when it is empty or not hex. What arrives depends on the column's type: the text
    itself, its base64, a list of one of these or of the UUID made from it, a list of its bytes as integers,
    or a map from it to itself (also as JSON text). Only whole column values are compared. So is a reference
    to a value that the connector put into object storage.
    """

    def __init__(self, placeholder: str = UNAVAILABLE) -> None:
        raw = bytes.fromhex(placeholder[4:]) if placeholder.startswith("hex:") else placeholder.encode()
        if not raw:
            raise ValueError("the placeholder of unavailable values must not be empty")
        text = raw.decode("utf-8", "replace")
        encoded = base64.b64encode(raw).decode("ascii")
        as_map = json.dumps({text: text}, separators=(",", ":"), ensure_ascii=False)
        derived = str(uuid.UUID(bytes=hashlib.md5(raw, usedforsecurity=False).digest(), version=3))
        signed = [byte - 256 if byte > 127 else byte for byte in raw]
        self._texts = frozenset({text, encoded, as_map})
        self._lengths = frozenset(map(len, self._texts))
        self._containers: list[Value] = [[text], [encoded], [derived], signed, list(raw), {text: text}]

    def names_in(self, columns: Columns) -> tuple[frozenset[str], bool]:
        """The columns that hold the placeholder, and whether any other holds a list or an object."""
        names: list[str] = []
        nested = False
        for name, value in columns.items():
            kind = type(value)
            if kind is str:
                # The length first: hashing every long text would cost more than decoding it.
                size = len(value)
                if size in self._lengths and value in self._texts:
                    names.append(name)
                elif size > _REFERENCE_SIZE and value[0] == "_" and value.startswith(REFERENCE):
                    names.append(name)
            elif kind is list or kind is dict:
                if value in self._containers:
                    names.append(name)
                else:
                    nested = True
        return frozenset(names) if names else _NONE, nested


def offloaded_in(row: Value, unavailable: frozenset[str]) -> frozenset[str]:
    """Those of the row's unavailable columns that are references to a value elsewhere."""
    if not unavailable or not isinstance(row, dict):
        return _NONE
    return frozenset(name for name in unavailable if str(row[name]).startswith(REFERENCE))


def key_hint(raw: bytes) -> Columns | None:
    """The key in a header that is not strict JSON, None when there is none.

    Connect's SimpleHeaderConverter, the default, writes an object like JSON but leaves control characters
    in its texts as they are.
    """
    try:
        document = json.loads(raw, strict=False, parse_constant=_refuse_constant)
        check_depth([document])
        json.dumps(document, ensure_ascii=False).encode()
    except (ValueError, RecursionError, DecodeError):
        return None
    return document if isinstance(document, dict) and document else None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def check_depth(values: Iterable[Value]) -> None:
    """Raises DecodeError ``too_deep`` when containers nest beyond :data:`MAX_DEPTH`. Does not recurse."""
    if nests_too_deep(values):
        raise DecodeError("too_deep", f"lists and objects nest deeper than {MAX_DEPTH} levels")

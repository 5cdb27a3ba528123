"""Rows without an envelope, as Debezium's ``ExtractNewRecordState`` and ``ExtractNewDocumentState`` write
them.

Such a row is recognised by what it holds: the columns of its key, or a mark of the transform. Of a delete
that was rewritten into a row only the key is true; the other columns may be fillers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from vectide.codecs.source_block import NAMES, Source, position_of, time_of
from vectide.core.model import Columns, DecodeError, Record, SourcePosition, Value

DELETED: Final = "__deleted"
_PREFIX: Final = "__"
_MARKED_PREFIXES: Final = ("__source_", "__transaction_", "__updateDescription_")
#: What ``add.fields`` and ``add.headers`` add under their default prefix. A column of the user's that is
#: called like one of these cannot be told from it.
_MARKS: Final = frozenset(
    _PREFIX + name
    for name in (
        *("op", "deleted", "ts_ms", "ts_us", "ts_ns", "id", "total_order", "data_collection_order"),
        *("version", "connector", "name", "snapshot", "db", "sequence", "schema", "table", "collection"),
        *("txId", "lsn", "xmin", "origin", "origin_lsn", "updateDescription"),
        *("server_id", "gtid", "file", "pos", "row", "thread", "query"),
        *("change_lsn", "commit_lsn", "event_serial_no"),
        *("txSeq", "scn", "commit_scn", "rs_id", "ssn", "redo_thread", "user_name", "redo_sql", "row_id"),
        *("ord", "lsid", "txnNumber", "wallTime"),
    )
)
#: Headers that tell what the marks of most rows leave out.
_CONTEXT: Final = {
    "__debezium.context.connectorName": "connector",
    "__debezium.context.connectorLogicalName": "name",
}


@dataclass(frozen=True, slots=True)
class Flattened:
    """A row without envelope. ``op`` is ``u`` when nothing tells it: then any upsert may be meant."""

    columns: Columns
    deleted: bool
    op: str
    committed_ms: int | None
    table: str
    position: SourcePosition | None


def is_row(document: Columns, key: Columns | None) -> bool:
    """Whether the document can be the row of this key: it bears a mark of the transform, or has the key's
    columns (a document of MongoDB has the key's ``id`` as ``_id``). Without a key, any may be."""
    if key is None or any(name in _MARKS for name in document):
        return True
    return is_document(document, key) or all(name in document for name in key if not name.startswith(_PREFIX))


def is_document(document: Columns, key: Columns | None) -> bool:
    """Whether the row is a document of MongoDB: one that may lack any field."""
    return key is not None and key.keys() == {"id"} and "_id" in document and "id" not in document


def read_row(document: Columns, record: Record, decode: Callable[[bytes], Value]) -> Flattened:
    """The row and what its marks say, those in the headers included.

    ``decode`` reads JSON, or raises ValueError. Raises DecodeError ``bad_value`` when ``__deleted`` is
    neither true nor false, ``unknown_op`` for an operation that does not exist.
    """
    marks = _marks_in(record, decode)
    columns = {}
    for name, value in document.items():
        if _is_mark(name):
            marks[name] = value
        else:
            columns[name] = value
    op = _op_of(marks.get("__op"))
    deleted = _is_deleted(marks.get(DELETED)) or op == "d"
    source = _source(marks, record) if marks else Source()
    return Flattened(columns, deleted, op or "u", time_of(source), _table(marks), position_of(source))


def _is_mark(name: str) -> bool:
    return name.startswith(_PREFIX) and (name in _MARKS or name.startswith(_MARKED_PREFIXES))


def _marks_in(record: Record, decode: Callable[[bytes], Value]) -> dict[str, Value]:
    """The marks among the headers; their values may be plain text, or JSON with and without schema."""
    marks: dict[str, Value] = {}
    for name, raw in record.headers:
        if raw is None or not _is_mark(name):
            continue
        try:
            value = decode(raw)
        except (ValueError, RecursionError):
            value = raw.decode("utf-8", "replace")
        if isinstance(value, dict) and value.keys() == {"schema", "payload"}:
            value = value["payload"]
        marks[name] = value
    return marks


def _is_deleted(mark: Value) -> bool:
    match mark:
        case None | bool():
            return bool(mark)
        case str() if mark.lower() in ("true", "false"):
            return mark.lower() == "true"
    raise DecodeError("bad_value", "__deleted is neither true nor false")


def _op_of(mark: Value) -> str | None:
    if mark is None:
        return None
    op = mark.lower() if isinstance(mark, str) else ""
    if op not in ("c", "r", "u", "d"):
        raise DecodeError("unknown_op", "__op is none of c, r, u, d")
    return op


def _table(marks: Mapping[str, Value]) -> str:
    """``schema.table``, or what the marks tell of it."""

    def mark(*names: str) -> str:
        found = (marks.get(prefix + name) for name in names for prefix in ("__source_", "__"))
        return next((value for value in found if isinstance(value, str) and value), "")

    table = mark("table", "collection")
    return ".".join(name for name in (mark("schema", "db") if table else "", table) if name)


def _source(marks: Mapping[str, Value], record: Record) -> Source:
    """The source block, as far as the marks tell of it. (``__ts_ms`` is the time of the connector.)"""
    members: dict[str, Value] = {
        _CONTEXT[header]: raw.decode("utf-8", "replace")
        for header, raw in record.headers
        if raw is not None and header in _CONTEXT
    }
    for prefix in ("__", "__source_"):
        members |= {name: marks[prefix + name] for name in NAMES if prefix + name in marks}
    members["ts_ms"] = marks.get("__source_ts_ms")
    return Source(**members)

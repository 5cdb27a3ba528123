"""What an event says of its source: whose change it is, when it was committed, and where in the source's log.

| connector | order of commits |
|---|---|
| ``postgresql`` | LSN of the commit before it and its own, as ``sequence`` has them |
| ``mysql``, ``mariadb`` | number in its GTID, for each origin or domain; else binlog file and position |
| ``sqlserver`` | ``commit_lsn`` |
| ``oracle`` | ``commit_scn``; of a snapshot ``scn`` |
| ``mongodb`` | cluster time: ``ts_ms`` and ``ord`` |

The order within a transaction is left to Kafka: its changes have one commit time, so that nothing is ever
dropped for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final

import msgspec

from vectide.core.model import Columns, SourcePosition, Value

#: Beyond it a source time is nonsense.
_MAX_INT64: Final = 2**63 - 1
_MAX_UINT64: Final = 2**64 - 1
_MAX_DIGITS: Final = 20
#: Names of connectors, servers and databases are shorter; nothing else shall grow a stamp.
_MAX_SERVER_CHARS: Final = 200
_CACHED: Final = 1024


class Source(msgspec.Struct, gc=False):
    """The part of ``source`` that vectide reads. Loosely typed: oddities here must not cost the record."""

    ts_ms: Any = None
    db: Any = None
    schema: Any = None
    table: Any = None
    collection: Any = None
    connector: Any = None
    name: Any = None
    lsn: Any = None
    sequence: Any = None
    gtid: Any = None
    file: Any = None
    pos: Any = None
    server_id: Any = None
    commit_lsn: Any = None
    scn: Any = None
    commit_scn: Any = None
    ord: Any = None


#: Its members.
NAMES: Final = Source.__struct_fields__


def source_from(members: Columns) -> Source:
    """The source block with these members; others are passed over."""
    return Source(**{name: members[name] for name in NAMES if name in members})


def time_of(source: Source) -> int | None:
    """When the source committed the change, in ms since the epoch; None for what cannot be a time."""
    value = source.ts_ms
    return value if type(value) is int and 0 <= value <= _MAX_INT64 else None


def table_of(source: Source) -> str:
    """``schema.table``, ``database.table`` where the source has no schemas, or what is there of it."""
    names = [source.schema or source.db, source.table or source.collection]
    return ".".join(name for name in names if isinstance(name, str) and name)


def position_of(source: Source) -> SourcePosition | None:
    """Where the change stands in the log of its source; None when the event does not tell all of it."""
    connector, name, db = source.connector, source.name, source.db
    committed_ms = time_of(source)
    if type(connector) is not str or type(name) is not str or committed_ms is None:
        return None
    read = _ORDERS.get(connector)
    found = None if read is None else read(source)
    if found is None:
        return None
    log, order = found
    db = db if type(db) is str else ""
    if len(name) + len(db) + len(log) > _MAX_SERVER_CHARS:
        return None
    server = _server(connector, name, db, log)
    return None if server is None else SourcePosition(server, order, committed_ms)


@lru_cache(_CACHED)
def _server(connector: str, name: str, db: str, log: str) -> str | None:
    """How positions name whose log it is; None for what no store could keep as text."""
    server = f"{connector}/{name}/{db}{log}"
    return server if server.isprintable() else None


# --- connectors -----------------------------------------------------------------------------------------

_COMMIT_LSN: Final = re.compile("[0-9a-f]{8}:[0-9a-f]{8}:[0-9a-f]{4}")

#: What distinguishes the log among those of the server, and the order in it.
_Found = tuple[str, str] | None


def _postgresql(source: Source) -> _Found:
    lsn, sequence = _number(source.lsn), source.sequence
    before = lsn
    if type(sequence) is str:  # ["of the last commit", "of the event"], each perhaps null
        first, _, second = sequence.strip("[]").partition(",")
        told = _number(first.strip('"'))
        lsn = _number(second.strip('"')) if lsn is None else lsn
        before = lsn if told is None else told
    return None if lsn is None else ("", f"{before:016x}{lsn:016x}")


def _binlog(source: Source) -> _Found:
    gtid = source.gtid
    if type(gtid) is str and gtid:
        return _gtid(gtid)
    file, pos, server_id = source.file, _number(source.pos), _number(source.server_id)
    if type(file) is not str or pos is None or not server_id:  # a snapshot's server is 0
        return None
    base, _, suffix = file.rpartition(".")
    number = _number(suffix)
    return None if number is None else (f"/{server_id}/{base}", f"{number:016x}{pos:016x}")


def _gtid(gtid: str) -> _Found:
    """``UUID:number`` or ``UUID:tag:number`` of MySQL, ``domain-server-number`` of MariaDB."""
    origin, colon, last = gtid.rpartition(":")
    if not colon:
        origin, _, rest = gtid.partition("-")
        last = rest.rpartition("-")[2]
    number = _number(last)
    return None if number is None else (f"/{origin}", f"{number:016x}")


def _sqlserver(source: Source) -> _Found:
    lsn = source.commit_lsn
    if type(lsn) is not str or _COMMIT_LSN.fullmatch(lsn.lower()) is None:
        return None
    return "", lsn.lower()


def _oracle(source: Source) -> _Found:
    scn = _number(source.commit_scn)
    if scn is None:
        scn = _number(source.scn)
    return None if scn is None else ("", f"{scn:016x}")


def _mongodb(source: Source) -> _Found:
    time, ordinal = time_of(source), _number(source.ord)
    return None if time is None or ordinal is None else ("", f"{time:016x}{ordinal:016x}")


_ORDERS: Final[Mapping[str, Callable[[Source], _Found]]] = {
    "postgresql": _postgresql,
    "mysql": _binlog,
    "mariadb": _binlog,
    "sqlserver": _sqlserver,
    "oracle": _oracle,
    "mongodb": _mongodb,
}


def _number(value: Value) -> int | None:
    """An unsigned number of 64 bits, also as text; None for anything else."""
    if type(value) is str and value.isdecimal() and len(value) <= _MAX_DIGITS:
        value = int(value)
    return value if type(value) is int and 0 <= value <= _MAX_UINT64 else None

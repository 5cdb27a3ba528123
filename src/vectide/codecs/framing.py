"""How a record names the schemas of its key and its value: in headers, or in front of the bytes.

Told per record and part, so that a topic may change from one to the other. Headers go first:

| header | content |
|---|---|
| ``__key_schema_id``, ``__value_schema_id`` | ``01`` and a GUID of 16 bytes, or ``00`` and an id of 4 |
| ``apicurio.key.globalId``, ``apicurio.value.globalId`` | 8 bytes |
| ``apicurio.key.contentId``, ``apicurio.value.contentId`` | 8 bytes |

The part itself is then bare. Without such a header, a part that starts with ``00`` is framed by an id of 4
or 8 bytes, which nothing but the configuration can tell apart, and one that starts with ``01`` by a GUID. All
numbers are big-endian. Anything else has no schema in the registry: no JSON starts with one of these bytes.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from enum import Enum
from functools import lru_cache
from typing import Final, NamedTuple

from vectide.core.model import DecodeError, Record
from vectide.ports import IdKind, SchemaId

#: What registry codecs add to the causes of :class:`~vectide.core.model.DecodeError`. ``schema_unknown`` is
#: told by the registry.
FRAME_CAUSES: Final = frozenset({"bad_frame", "bad_avro", "unsupported_schema", "schema_unknown"})

_ID_SIZE: Final = 4
_LONG_SIZE: Final = 8
_GUID_SIZE: Final = 16
#: Topics have few schemas and many records. What is refused is not remembered.
_CACHED: Final = 4096


class Frame(Enum):
    """What stands behind a leading zero byte: a schema id of 4 bytes, an Apicurio global id of 8 bytes, or an
    Apicurio content id of 4 bytes."""

    CONFLUENT = "confluent"
    APICURIO_2 = "apicurio-2"
    APICURIO_3 = "apicurio-3"


_PREFIX: Final[Mapping[Frame, tuple[IdKind, int]]] = {
    Frame.CONFLUENT: (IdKind.SCHEMA_ID, _ID_SIZE),
    Frame.APICURIO_2: (IdKind.GLOBAL_ID, _LONG_SIZE),
    Frame.APICURIO_3: (IdKind.CONTENT_ID, _ID_SIZE),
}


class Framed(NamedTuple):
    """A part of a record that names its schema, and its bytes without that name."""

    id: SchemaId
    body: bytes


def framed_parts(record: Record, frame: Frame) -> tuple[Framed | None, Framed | None]:
    """Key and value of the record, each None when it is not there or names no schema.

    Raises DecodeError ``bad_frame`` when one names a schema, but not as it should, and
    ``unsupported_schema`` for Avro's own JSON encoding.
    """
    key_id, value_id = _ids_in_headers(record)
    return _framed(record.key, key_id, frame), _framed(record.value, value_id, frame)


def _framed(raw: bytes | None, given: SchemaId | None, frame: Frame) -> Framed | None:
    if raw is None:
        return None
    if given is not None:
        return Framed(given, raw)
    match raw[:1]:
        case b"\x00":
            kind, size = _PREFIX[frame]
            return Framed(_number(kind, raw[1 : 1 + size], size), raw[1 + size :])
        case b"\x01":
            return Framed(_guid(raw[1 : 1 + _GUID_SIZE]), raw[1 + _GUID_SIZE :])
    return None


# --- headers --------------------------------------------------------------------------------------------


def _confluent(raw: bytes) -> SchemaId:
    match raw[:1]:
        case b"\x00":
            return _number(IdKind.SCHEMA_ID, raw[1:], _ID_SIZE)
        case b"\x01":
            return _guid(raw[1:])
    raise DecodeError("bad_frame", "the header with the schema's id starts with neither 00 nor 01")


def _global_id(raw: bytes) -> SchemaId:
    return _number(IdKind.GLOBAL_ID, raw, _LONG_SIZE)


def _content_id(raw: bytes) -> SchemaId:
    return _number(IdKind.CONTENT_ID, raw, _LONG_SIZE)


#: Header -> whether it is about the value (1) or the key (0), its rank among several, its reader.
_HEADERS: Final[Mapping[str, tuple[int, int, Callable[[bytes], SchemaId]]]] = {
    "__key_schema_id": (0, 0, _confluent),
    "__value_schema_id": (1, 0, _confluent),
    "apicurio.key.globalId": (0, 1, _global_id),
    "apicurio.value.globalId": (1, 1, _global_id),
    "apicurio.key.contentId": (0, 2, _content_id),
    "apicurio.value.contentId": (1, 2, _content_id),
}
_ENCODINGS: Final = frozenset({"apicurio.key.encoding", "apicurio.value.encoding"})


def _ids_in_headers(record: Record) -> list[SchemaId | None]:
    """The ids of key and value; of several headers of a name the last one counts."""
    best: list[tuple[int, SchemaId] | None] = [None, None]
    for name, raw in record.headers:
        known = _HEADERS.get(name)
        if known is not None and raw is not None:
            part, rank, read = known
            chosen = best[part]
            if chosen is None or rank <= chosen[0]:
                best[part] = (rank, read(raw))
        elif name in _ENCODINGS and raw == b"JSON":
            raise DecodeError("unsupported_schema", "Avro in its JSON encoding is not read, only binary")
    return [None if chosen is None else chosen[1] for chosen in best]


@lru_cache(_CACHED)
def _number(kind: IdKind, raw: bytes, size: int) -> SchemaId:
    if len(raw) != size:
        raise DecodeError("bad_frame", f"{len(raw)} bytes where a {kind.value} of {size} should be")
    return SchemaId(kind, str(int.from_bytes(raw, "big")))


@lru_cache(_CACHED)
def _guid(raw: bytes) -> SchemaId:
    if len(raw) != _GUID_SIZE:
        raise DecodeError("bad_frame", f"{len(raw)} bytes where a schema GUID of {_GUID_SIZE} should be")
    return SchemaId(IdKind.GUID, str(uuid.UUID(bytes=raw)))

"""Avro as Kafka Connect writes it: its schemas as Connect schemas, its values as Connect's JSON.

A row must give the same text, metadata and id whichever converter wrote it. So an Avro body is turned into
what Connect's JsonConverter would have written of the same row, schema included, and one codec understands
both. What makes that more than a change of bytes:

- Logical types (decimals, dates ...) stay what they are underneath; ``connect.name`` tells their meaning, as
  the name of a JSON schema does. Avro's own ``logicalType`` counts where there is no ``connect.name``.
- Not-a-number and infinities are texts; a 32-bit float has the digits that suffice for 32 bits.
- Maps whose keys are not texts are lists of entries in Avro, lists of pairs in JSON.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any, Final

import msgspec
from fastavro import parse_schema, schemaless_reader

from vectide.codecs.logical_types import DECIMAL
from vectide.core.jsontext import MAX_DEPTH
from vectide.core.model import DecodeError, Value

Fix = Callable[[Value], Value]

#: A schema with more types than this, each counted wherever it is used, is not one of a table.
_MAX_TYPES: Final = 100_000

#: Avro type -> Connect type, as JsonConverter writes it.
_PRIMITIVES: Final = {
    "boolean": "boolean",
    "int": "int32",
    "long": "int64",
    "float": "float",
    "double": "double",
    "bytes": "bytes",
    "string": "string",
}
_PLAIN: Final = frozenset({"boolean", "int8", "int16", "int32", "int64"})
_ENVELOPE: Final = frozenset({"after", "source", "op"})
_CONNECT_TYPES: Final = {"int8": "int8", "int16": "int16"}
#: What Avro's logical types are called in Connect and in Debezium.
_LOGICAL: Final = {
    "date": "org.apache.kafka.connect.data.Date",
    "time-millis": "org.apache.kafka.connect.data.Time",
    "time-micros": "io.debezium.time.MicroTime",
    "timestamp-millis": "org.apache.kafka.connect.data.Timestamp",
    "timestamp-micros": "io.debezium.time.MicroTimestamp",
    "uuid": "io.debezium.data.Uuid",
    "decimal": DECIMAL,
}
_NAMED: Final = frozenset({"record", "error", "enum", "fixed"})


class AvroSchema:
    """A writer schema, parsed once, that turns bodies into JSON. ``references`` are the texts of the schemas
    that ``text`` names without defining them.

    Raises DecodeError ``bad_schema`` when it is no Avro schema, or one that Connect could not have written:
    recursive ones among them.
    """

    def __init__(self, text: str, references: Sequence[str] = ()) -> None:
        try:
            known = [_parsed(reference) for reference in references]
            root = _Types(known).of(_parsed(text))
            self._schema = parse_schema(root.avro)
        except DecodeError:
            raise
        except Exception as error:  # noqa: BLE001  fastavro raises what its parser meets
            raise _bad_schema(f"the registered schema is not Avro ({type(error).__name__})") from None
        self._fix = root.fix
        self.connect: Final = root.connect
        self._head, self._tail = wrapper_of(root.connect)

    def to_json(self, body: bytes) -> bytes:
        """The message that JsonConverter would have written. Raises DecodeError ``bad_avro`` when the bytes
        are not of this schema."""
        file = BytesIO(body)
        try:
            value = schemaless_reader(file, self._schema, None)
        except Exception as error:  # noqa: BLE001  EOFError, IndexError, UnicodeDecodeError, ValueError ...
            raise DecodeError("bad_avro", f"not of its schema ({type(error).__name__})") from None
        if file.tell() != len(body):
            raise DecodeError("bad_avro", f"{len(body) - file.tell()} bytes too many for its schema")
        if self._fix is not None:
            value = self._fix(value)
        return self._head + msgspec.json.encode(value) + self._tail


def wrapper_of(connect: Mapping[str, Any] | None) -> tuple[bytes, bytes]:
    """What to put before and behind a payload, so that the two are the message that JsonConverter would have
    written: its schema, or nothing where the schema says nothing that the values do not say themselves.

    Every message is read with its schema: of an envelope's it carries only what is about rows.
    """
    if connect is None or _is_plain(connect):
        return b"", b""
    told = dict(connect)
    members = {member["field"]: member for member in connect.get("fields", ())}
    if members.keys() >= _ENVELOPE:
        told["fields"] = [members[name] for name in ("before", "after") if name in members]
    return b'{"schema":' + msgspec.json.encode(told) + b',"payload":', b"}"


def _is_plain(connect: Mapping[str, Any]) -> bool:
    """Whether this is a record of nothing but numbers, texts and booleans."""
    members = connect.get("fields", ())
    return connect["type"] == "struct" and all(
        member["type"] in _PLAIN and not member.keys() & {"name", "parameters"} for member in members
    )


# --- schemas --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Node:
    """One type. ``avro``: for the reader, without what changes values. ``connect``: the same for JSON, None
    where Connect has nothing like it. ``fix``: what to do to a value, None for nothing. ``empty``: a value
    may take no bytes at all. ``types``: how many types it consists of."""

    avro: Any
    connect: dict[str, Any] | None
    fix: Fix | None = None
    empty: bool = False
    types: int = 1


class _Types:
    """Walks one schema. A type's name means the last definition before it, or one of ``references``."""

    def __init__(self, references: Sequence[Any]) -> None:
        self._elsewhere = {name: found for reference in references for name, found in _definitions(reference)}
        self._done: dict[str, _Node] = {}
        self._open: set[str] = set()

    def of(self, schema: Any, namespace: str = "", depth: int = 0) -> _Node:
        """The node of a schema as JSON has it."""
        if depth > MAX_DEPTH:
            raise _bad_schema(f"types nest deeper than {MAX_DEPTH} levels")
        match schema:
            case str():
                return self._called(schema, namespace, depth)
            case list():
                node = self._union(schema, namespace, depth)
            case {"type": dict() | list() as inner}:
                node = self.of(inner, namespace, depth + 1)
            case {"type": str() as kind}:
                node = self._typed(kind, schema, namespace, depth)
            case _:
                raise _bad_schema("a type is neither a name nor an object with a type")
        if node.types > _MAX_TYPES:
            raise _bad_schema(f"more than {_MAX_TYPES} types")
        return node

    def _called(self, name: str, namespace: str, depth: int) -> _Node:
        """What a bare name stands for."""
        if name in _PRIMITIVES or name == "null":
            return self._primitive(name, {})
        full = _full_name(name, namespace)
        if full in self._open:
            raise _bad_schema("a type contains itself")
        if full in self._done:
            return replace(self._done[full], avro=full)
        if full not in self._elsewhere:
            raise _bad_schema("a type is named that is not defined")
        definition, its_namespace = self._elsewhere[full]
        return self.of(definition, its_namespace, depth + 1)

    def _typed(self, kind: str, schema: Mapping[str, Any], namespace: str, depth: int) -> _Node:
        if kind in _PRIMITIVES or kind == "null":
            return self._primitive(kind, schema)
        if kind == "array":
            return self._array(schema, namespace, depth)
        if kind == "map":
            return self._map(schema, namespace, depth)
        if kind not in _NAMED:
            return self._called(kind, namespace, depth)
        full = _full_name(schema["name"], schema.get("namespace", namespace))
        self._open.add(full)
        node = self._named(kind, full, schema, depth)
        self._open.discard(full)
        self._done[full] = node
        return node

    def _named(self, kind: str, full: str, schema: Mapping[str, Any], depth: int) -> _Node:
        if kind == "enum":
            avro = {"type": "enum", "name": full, "symbols": schema["symbols"]}
            return _Node(avro, _described("string", schema))
        if kind == "fixed":
            avro = {"type": "fixed", "name": full, "size": schema["size"]}
            return _Node(avro, _described("bytes", schema), empty=schema["size"] == 0)
        return self._record(full, schema, depth)

    def _record(self, full: str, schema: Mapping[str, Any], depth: int) -> _Node:
        namespace = full.rpartition(".")[0]
        members = [
            (field["name"], self.of(field["type"], namespace, depth + 1)) for field in schema["fields"]
        ]
        avro = {
            "type": "record",
            "name": full,
            "fields": [{"name": name, "type": node.avro} for name, node in members],
        }
        connect = _described("struct", schema)
        connect["fields"] = [node.connect | {"field": name} for name, node in members if node.connect]
        fixes = [(name, node.fix) for name, node in members if node.fix is not None]
        return _Node(
            avro,
            connect,
            _fix_record(fixes) if fixes else None,
            empty=all(node.empty for _, node in members),
            types=1 + sum(node.types for _, node in members),
        )

    def _array(self, schema: Mapping[str, Any], namespace: str, depth: int) -> _Node:
        items = self.of(schema["items"], namespace, depth + 1)
        if items.empty:
            # A few bytes could claim any number of them.
            raise _bad_schema("the elements of a list take no bytes")
        avro = {"type": "array", "items": items.avro}
        if _is_map_entry(schema["items"], namespace):
            return self._entries(avro, items, schema)
        connect = _described("array", schema)
        connect["items"] = items.connect
        fix = None if items.fix is None else _fix_list(items.fix)
        return _Node(avro, connect if items.connect else None, fix, types=1 + items.types)

    def _entries(self, avro: Any, items: _Node, schema: Mapping[str, Any]) -> _Node:
        """A map, as it is written when its keys are not texts."""
        parts = {part["field"]: part for part in (items.connect or {}).get("fields", ())}
        connect = _described("map", schema)
        connect["keys"], connect["values"] = parts.get("key"), parts.get("value")
        as_object = (connect["keys"] or {}).get("type") == "string"
        return _Node(avro, connect, _fix_entries(items.fix, as_object=as_object), types=1 + items.types)

    def _map(self, schema: Mapping[str, Any], namespace: str, depth: int) -> _Node:
        values = self.of(schema["values"], namespace, depth + 1)
        connect = _described("map", schema)
        connect["keys"], connect["values"] = {"type": "string", "optional": False}, values.connect
        fix = None if values.fix is None else _fix_map(values.fix)
        avro = {"type": "map", "values": values.avro}
        return _Node(avro, connect if values.connect else None, fix, types=1 + values.types)

    def _union(self, schema: Sequence[Any], namespace: str, depth: int) -> _Node:
        branches = [self.of(branch, namespace, depth + 1) for branch in schema]
        avro, types = [branch.avro for branch in branches], 1 + sum(branch.types for branch in branches)
        some = [branch for branch in branches if branch.avro != "null"]
        if len(some) == 1:
            connect = None if some[0].connect is None else some[0].connect | {"optional": True}
            fix = some[0].fix
            return _Node(avro, connect, None if fix is None else _unless_null(fix), types=types)
        return _Node(avro, None, _plain, types=types)

    def _primitive(self, kind: str, schema: Mapping[str, Any]) -> _Node:
        if kind == "null":
            return _Node("null", None, empty=True)
        connect_type = _CONNECT_TYPES.get(str(schema.get("connect.type")), _PRIMITIVES[kind])
        return _Node(kind, _described(connect_type, schema), _FLOATS.get(kind))


def _described(kind: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """A Connect schema with what the Avro schema says about its meaning."""
    described: dict[str, Any] = {"type": kind, "optional": False}
    name = schema.get("connect.name") or _LOGICAL.get(str(schema.get("logicalType")))
    parameters = schema.get("connect.parameters")
    if isinstance(name, str):
        described["name"] = name
    if name == DECIMAL:
        parameters = {"scale": str(schema.get("scale", 0)), **(parameters or {})}
    if isinstance(parameters, dict):
        described["parameters"] = parameters
    return described


def _definitions(schema: Any, namespace: str = "", depth: int = 0) -> Iterator[tuple[str, tuple[Any, str]]]:
    """Every named type that a schema defines, and the namespace that it stands in."""
    if depth > MAX_DEPTH:
        raise _bad_schema(f"types nest deeper than {MAX_DEPTH} levels")
    if isinstance(schema, list):
        for branch in schema:
            yield from _definitions(branch, namespace, depth + 1)
        return
    if not isinstance(schema, dict):
        return
    if schema.get("type") in _NAMED:
        full = _full_name(schema["name"], schema.get("namespace", namespace))
        yield full, (schema, namespace)
        namespace = full.rpartition(".")[0]
    inner = [schema.get(part) for part in ("type", "items", "values")]
    for part in [*inner, *(field["type"] for field in schema.get("fields", ()))]:
        yield from _definitions(part, namespace, depth + 1)


def _full_name(name: str, namespace: str | None) -> str:
    return name if "." in name or not namespace else f"{namespace}.{name}"


def _is_map_entry(items: Any, namespace: str) -> bool:
    if not isinstance(items, dict) or items.get("type") != "record":
        return False
    by_name = _full_name(items["name"], items.get("namespace", namespace))
    return items.get("connect.internal.type") == "MapEntry" or by_name == "io.confluent.connect.avro.MapEntry"


def _parsed(text: str) -> Any:
    """The schema as JSON; a bare type name need not be."""
    return text if text in _PRIMITIVES else json.loads(text)


def _bad_schema(detail: str) -> DecodeError:
    return DecodeError("bad_schema", detail)


# --- values ---------------------------------------------------------------------------------------------


def json_float(value: float) -> float | str:
    """A float as JsonConverter writes it."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _float32(value: float) -> float | str:
    """The shortest digits that are this float of 32 bits."""
    if not math.isfinite(value):
        return json_float(value)
    raw = struct.pack("f", value)
    for digits in (6, 7, 8):
        short = float(f"{value:.{digits}g}")
        if abs(short) <= _MAX_FLOAT32 and struct.pack("f", short) == raw:
            return short
    return float(f"{value:.9g}")


_MAX_FLOAT32: Final = 3.4028234663852886e38
_FLOATS: Final[Mapping[str, Fix]] = {"float": _float32, "double": json_float}


def _plain(value: Value) -> Value:
    """A value of whatever type: which branch of its union it is has been lost."""
    match value:
        case float():
            return json_float(value)
        case list():
            return [_plain(item) for item in value]
        case dict():
            return {name: _plain(item) for name, item in value.items()}
    return value


def _unless_null(fix: Fix) -> Fix:
    return lambda value: None if value is None else fix(value)


def _fix_record(fixes: Sequence[tuple[str, Fix]]) -> Fix:
    def fix(record: Value) -> Value:
        for name, change in fixes:
            record[name] = change(record[name])
        return record

    return fix


def _fix_list(change: Fix) -> Fix:
    return lambda items: [change(item) for item in items]


def _fix_map(change: Fix) -> Fix:
    return lambda items: {name: change(item) for name, item in items.items()}


def _fix_entries(change: Fix | None, *, as_object: bool) -> Fix:
    def fix(entries: Value) -> Value:
        fixed = entries if change is None else [change(entry) for entry in entries]
        pairs = [[entry["key"], entry["value"]] for entry in fixed]
        return {str(key): value for key, value in pairs} if as_object else pairs

    return fix

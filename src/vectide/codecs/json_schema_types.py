"""JSON Schema as Confluent's converter writes it: schemas as Connect schemas, values as Connect's JSON.

The body is JSON already, nearly as JsonConverter writes it. What it is not: a decimal may be a number, and a
map whose keys are not texts is a list of objects. The schema's ``connect.*`` members tell what Connect knew.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from decimal import Decimal, DecimalException
from typing import Any, Final

import msgspec

from vectide.codecs.avro_types import wrapper_of
from vectide.codecs.logical_types import DECIMAL
from vectide.core.jsontext import MAX_DEPTH
from vectide.core.model import DecodeError, Value

Fix = Callable[[Value], Value]

_ANY: Final = msgspec.json.Decoder(float_hook=Decimal)
#: Numbers that were read exactly are written as they were read.
_ENCODER: Final = msgspec.json.Encoder(decimal_format="number")

#: ``connect.type`` -> type as JsonConverter calls it. Others are called the same.
_CONNECT_TYPES: Final = {"float32": "float", "float64": "double"}
_SCALARS: Final = {"boolean": "boolean", "integer": "int64", "number": "double", "string": "string"}
_DEFINITIONS: Final = ("#/definitions/", "#/$defs/")
_MAX_DIGITS: Final = 4_300


class JsonSchema:
    """A registered JSON Schema that turns bodies into the message that JsonConverter would have written.

    Raises DecodeError ``bad_schema`` when it is no JSON object. What it says beyond Connect's types is of no
    use here, and a body is not validated.
    """

    def __init__(self, text: str) -> None:
        try:
            root = json.loads(text)
        except (ValueError, RecursionError):
            root = None
        if not isinstance(root, dict):
            raise DecodeError("bad_schema", "the registered schema is not a JSON Schema")
        self.connect, self._fix = _Types(root).of(root)
        self._head, self._tail = wrapper_of(self.connect)

    def to_json(self, body: bytes) -> bytes:
        """The message that JsonConverter would have written; bytes that are not JSON give none."""
        if self._fix is not None:
            try:
                body = _ENCODER.encode(self._fix(_ANY.decode(body)))
            except (ValueError, RecursionError):
                pass  # whoever reads the message will say what is wrong with it
        return self._head + body + self._tail


class _Types:
    """Walks one schema. Each type is a Connect schema (None: not one of Connect's) and what to do to a value
    (None: nothing)."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root

    def of(self, schema: Any, depth: int = 0) -> tuple[dict[str, Any] | None, Fix | None]:
        if not isinstance(schema, dict) or depth > MAX_DEPTH:
            return None, None
        if isinstance(schema.get("$ref"), str):
            return self.of(self._referred(schema["$ref"]), depth + 1)
        for union in ("oneOf", "anyOf"):
            if isinstance(schema.get(union), list):
                return self._union(schema[union], depth)
        return self._typed(schema, depth)

    def _referred(self, reference: str) -> Any:
        for start in _DEFINITIONS:
            if reference.startswith(start):
                found = self._root.get(start.strip("#/"))
                return found.get(reference.removeprefix(start)) if isinstance(found, dict) else None
        return None

    def _union(self, branches: list[Any], depth: int) -> tuple[dict[str, Any] | None, Fix | None]:
        some = [branch for branch in branches if branch != {"type": "null"}]
        if len(some) != 1:
            return None, None
        connect, fix = self.of(some[0], depth + 1)
        return (None if connect is None else connect | {"optional": True}), fix

    def _typed(self, schema: Mapping[str, Any], depth: int) -> tuple[dict[str, Any] | None, Fix | None]:
        connect_type = schema.get("connect.type")
        match schema.get("type"):
            case "object" if connect_type == "map":
                return self._map(schema, depth)
            case "object":
                return self._struct(schema, depth)
            case "array" if connect_type == "map":
                return self._entries(schema, depth)
            case "array":
                return self._array(schema, depth)
            case str() as kind if kind in _SCALARS:
                named = connect_type if isinstance(connect_type, str) else _SCALARS[kind]
                connect = _described(_CONNECT_TYPES.get(named, named), schema)
                return connect, _fix_decimal(connect) if kind == "number" else None
        return None, None

    def _struct(self, schema: Mapping[str, Any], depth: int) -> tuple[dict[str, Any], Fix | None]:
        connect, members, fixes = _described("struct", schema), [], {}
        properties = schema.get("properties")
        for name, member in (properties if isinstance(properties, dict) else {}).items():
            its, fix = self.of(member, depth + 1)
            if its is not None:
                members.append(its | {"field": name})
            if fix is not None:
                fixes[name] = fix
        connect["fields"] = members
        return connect, _fix_members(fixes) if fixes else None

    def _array(self, schema: Mapping[str, Any], depth: int) -> tuple[dict[str, Any] | None, Fix | None]:
        items, fix = self.of(schema.get("items"), depth + 1)
        connect = None if items is None else _described("array", schema) | {"items": items}
        return connect, None if fix is None else _fix_list(fix)

    def _map(self, schema: Mapping[str, Any], depth: int) -> tuple[dict[str, Any] | None, Fix | None]:
        values, fix = self.of(schema.get("additionalProperties"), depth + 1)
        if values is None:
            return None, None
        parts = {"keys": {"type": "string", "optional": False}, "values": values}
        return _described("map", schema) | parts, None if fix is None else _fix_values(fix)

    def _entries(self, schema: Mapping[str, Any], depth: int) -> tuple[dict[str, Any] | None, Fix | None]:
        entry, fix = self.of(schema.get("items"), depth + 1)
        parts = {part["field"]: part for part in (entry or {}).get("fields", ())}
        if parts.keys() != {"key", "value"}:
            return None, None
        connect = _described("map", schema) | {"keys": parts["key"], "values": parts["value"]}
        return connect, _fix_entries(fix)


def _described(kind: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {"type": kind, "optional": False}
    if isinstance(schema.get("title"), str):
        described["name"] = schema["title"]
    if isinstance(schema.get("connect.parameters"), dict):
        described["parameters"] = schema["connect.parameters"]
    return described


# --- values ---------------------------------------------------------------------------------------------


def _fix_decimal(connect: Mapping[str, Any]) -> Fix | None:
    """A decimal written as a number, as the base64 that JsonConverter writes."""
    if connect.get("name") != DECIMAL:
        return None
    try:
        scale = int(connect["parameters"]["scale"])
    except (KeyError, TypeError, ValueError):
        return None

    def fix(value: Value) -> Value:
        if not isinstance(value, int | Decimal) or isinstance(value, bool):
            return value
        try:
            sign, digits, exponent = Decimal(value).as_tuple()
            shift = scale + int(exponent)
            if abs(shift) > _MAX_DIGITS:
                return value
            unscaled = int("".join(map(str, digits))) * 10**shift if shift >= 0 else None
        except (DecimalException, ValueError):
            return value
        if unscaled is None:
            return value  # more digits than its scale has: not what the schema says
        signed = -unscaled if sign else unscaled
        size = signed.bit_length() // 8 + 1
        return base64.b64encode(signed.to_bytes(size, "big", signed=True)).decode("ascii")

    return fix


def _fix_members(fixes: Mapping[str, Fix]) -> Fix:
    def fix(value: Value) -> Value:
        if not isinstance(value, dict):
            return value
        return value | {name: change(value[name]) for name, change in fixes.items() if name in value}

    return fix


def _fix_list(change: Fix) -> Fix:
    return lambda value: [change(item) for item in value] if isinstance(value, list) else value


def _fix_values(change: Fix) -> Fix:
    def fix(value: Value) -> Value:
        return {name: change(item) for name, item in value.items()} if isinstance(value, dict) else value

    return fix


def _fix_entries(change: Fix | None) -> Fix:
    def fix(value: Value) -> Value:
        if not isinstance(value, list) or any(not isinstance(item, dict) for item in value):
            return value
        entries = value if change is None else [change(entry) for entry in value]
        return [[entry.get("key"), entry.get("value")] for entry in entries]

    return fix

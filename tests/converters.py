"""The same messages as other converters of Kafka Connect write them, made from JSON that carries its schema.

Recordings of Confluent's own Avro converter show that what is made here is like what it makes.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable, Iterable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

from fastavro import parse_schema, schemaless_writer
from tests.recorded import RECORDINGS

from vectide.codecs.registry import RegistryCodec
from vectide.core.mapping import TableMapping
from vectide.core.model import Record
from vectide.ports import IdKind, RegisteredSchema, SchemaFormat, SchemaId
from vectide.testing.recordings import read_recording

FRAMED = RECORDINGS / "registry"

_AVRO = {"int8": "int", "int16": "int", "int32": "int", "int64": "long"}


def recorded_avro(name: str) -> list[Record]:
    """The records of a recording of Confluent's Avro converter."""
    plain = FRAMED / f"{name}.jsonl"
    return read_recording(plain if plain.exists() else FRAMED / f"{name}.jsonl.gz")


def schemas_of(name: str) -> Path:
    """The file with what the registry had when it was recorded."""
    return FRAMED / f"{name}.schemas.json"


def learned_codec(name: str, mapping_of: Callable[[str], TableMapping | None]) -> RegistryCodec:
    """A codec that knows the schemas of a recording."""
    codec = RegistryCodec(mapping_of=mapping_of)
    for id_, known in json.loads(schemas_of(name).read_text())["by_id"].items():
        codec.learn(SchemaId(IdKind.SCHEMA_ID, id_), RegisteredSchema(SchemaFormat.AVRO, known["schema"]))
    return codec


def without_schemas(records: Iterable[Record]) -> list[Record]:
    """The records as JsonConverter writes them with schemas switched off."""

    def bare(raw: bytes | None) -> bytes | None:
        if raw is None:
            return None
        document = json.loads(raw)
        return json.dumps(document["payload"]).encode() if _has_schema(document) else raw

    return [replace(record, key=bare(record.key), value=bare(record.value)) for record in records]


class AvroConverter:
    """Writes framed Avro, and tells ``codec`` every new schema as a registry would."""

    def __init__(self, codec: RegistryCodec) -> None:
        self._codec = codec
        self._ids: dict[str, int] = {}

    def convert(self, records: Iterable[Record]) -> list[Record]:
        """The records with key and value as Avro; a part without schema stays as it is."""
        return [
            replace(record, key=self._framed(record.key), value=self._framed(record.value))
            for record in records
        ]

    def _framed(self, raw: bytes | None) -> bytes | None:
        if raw is None:
            return None
        document = json.loads(raw)
        if not _has_schema(document) or document["schema"] is None:
            return raw
        if document["payload"] is None:
            return None
        schema = _avro_schema(document["schema"], set())
        text = json.dumps(schema)
        if text not in self._ids:
            self._ids[text] = len(self._ids) + 1
            id_ = SchemaId(IdKind.SCHEMA_ID, str(self._ids[text]))
            self._codec.learn(id_, RegisteredSchema(SchemaFormat.AVRO, text))
        body = BytesIO()
        # Without logical types: the value of a decimal is bytes already.
        plain = parse_schema(json.loads(text.replace('"logicalType"', '"was"')))
        schemaless_writer(body, plain, _avro_value(document["schema"], document["payload"]))
        return struct.pack(">bI", 0, self._ids[text]) + body.getvalue()


def _has_schema(document: Any) -> bool:
    return isinstance(document, dict) and document.keys() == {"schema", "payload"}


def _avro_schema(connect: dict[str, Any], defined: set[str]) -> Any:
    kind: Any
    match connect["type"]:
        case "struct":
            kind = _record(connect, defined)
        case "array":
            kind = {"type": "array", "items": _avro_schema(connect["items"], defined)}
        case "map":
            assert connect["keys"] == {"type": "string", "optional": False}
            kind = {"type": "map", "values": _avro_schema(connect["values"], defined)}
        case other:
            kind = {"type": _AVRO.get(other, other)}
            if other in ("int8", "int16"):
                kind["connect.type"] = other
    if isinstance(kind, dict) and connect["type"] != "struct":
        kind |= _meaning(connect)
        kind = kind["type"] if kind.keys() == {"type"} else kind
    return ["null", kind] if connect.get("optional") else kind


def _record(connect: dict[str, Any], defined: set[str]) -> Any:
    name = connect.get("name", "io.confluent.connect.avro.ConnectDefault")
    if name in defined:
        return name
    defined.add(name)
    namespace, _, short = name.rpartition(".")
    fields = [
        {"name": member["field"], "type": _avro_schema(member, defined)} for member in connect["fields"]
    ]
    record = {"type": "record", "name": short, "namespace": namespace, "fields": fields}
    return record | _meaning(connect)


def _meaning(connect: dict[str, Any]) -> dict[str, Any]:
    """What Avro has no types for, in the words of the converter."""
    told: dict[str, Any] = {}
    if "version" in connect:
        told["connect.version"] = connect["version"]
    if "parameters" in connect:
        told["connect.parameters"] = connect["parameters"]
    if "name" in connect:
        told["connect.name"] = connect["name"]
    if connect.get("name", "").endswith(".Decimal"):
        told |= {"logicalType": "decimal", "scale": int(connect["parameters"]["scale"]), "precision": 64}
    return told


def _avro_value(connect: dict[str, Any], value: Any) -> Any:
    if value is None:
        return None
    match connect["type"]:
        case "bytes":
            return base64.b64decode(value)
        case "float" | "double":
            return float(value)
        case "array":
            return [_avro_value(connect["items"], item) for item in value]
        case "map":
            return {name: _avro_value(connect["values"], item) for name, item in value.items()}
        case "struct":
            members = {member["field"]: member for member in connect["fields"]}
            return {name: _avro_value(members[name], item) for name, item in value.items()}
    return value

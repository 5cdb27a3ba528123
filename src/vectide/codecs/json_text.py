"""Messages that are JSON: what is around the document, and why bytes are none."""

from __future__ import annotations

import codecs
from typing import Final, NoReturn

import msgspec

from vectide.core.model import DecodeError, Value


class _Wrapped(msgspec.Struct, gc=False):
    schema: msgspec.Raw


_WRAPPED: Final = msgspec.json.Decoder(_Wrapped)
_ANY: Final = msgspec.json.Decoder()


def is_wrapped(document: Value) -> bool:
    """Whether this is the converter's wrapper of schema and payload. A row may have columns of these names:
    then the schema is neither null nor an object with a type."""
    if not isinstance(document, dict) or document.keys() != {"schema", "payload"}:
        return False
    schema = document["schema"]
    return schema is None or (isinstance(schema, dict) and "type" in schema)


def has_schema(raw: bytes) -> bool:
    """Whether the bytes are a message with a schema."""
    try:
        document = _ANY.decode(without_bom(raw))
    except ValueError:
        return False
    return is_wrapped(document) and document["schema"] is not None


def schema_in(raw: bytes) -> bytes:
    """The bytes of the schema in a wrapper."""
    return bytes(_WRAPPED.decode(raw).schema)


def without_bom(raw: bytes) -> bytes:
    """The bytes without a byte order mark of UTF-8."""
    return raw[len(codecs.BOM_UTF8) :] if raw.startswith(codecs.BOM_UTF8) else raw


def refuse(raw: bytes, error: ValueError) -> NoReturn:
    """Say why the bytes are not JSON that can be used. Never quotes them."""
    if isinstance(error, msgspec.ValidationError):
        raise DecodeError("number_out_of_range", "a number is too large") from None
    if raw.startswith(b"\x00"):
        detail = "the value starts like one framed by a schema registry, and none is configured"
        raise DecodeError("not_json", detail) from None
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as invalid:
        raise DecodeError("not_utf8", f"the value is not UTF-8 (byte {invalid.start})") from None
    raise DecodeError(
        "not_json", str(error) if raw else "the value is empty, which is not a delete"
    ) from None


def json_type(value: Value) -> str:
    """What JSON calls the type of a value that is not an object."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "string"
    return "array"

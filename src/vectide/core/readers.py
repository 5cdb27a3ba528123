"""How the encoded value of a typed column is read: one spelling for each value, whatever carried it.

A reader takes the value as an event holds it (never null) and gives the :data:`~vectide.core.model.Value`
that texts, metadata and identities are made of. Readers leave a value alone that is spelt right already, so
that reading twice does no harm, and raise :class:`~vectide.core.model.DecodeError` (``bad_value``) for what
the type cannot be. ``docs/types.md`` lists all spellings.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Final, Literal, NoReturn
from uuid import UUID

from vectide.core.geometry import geometry_text
from vectide.core.jsontext import read_json
from vectide.core.model import DecodeError, Value
from vectide.core.render import render_value

Reader = Callable[[Value], Value]

#: How a connector sends decimals, where a message does not tell: its ``decimal.handling.mode``. ``auto``: by
#: what arrives.
Decimals = Literal["auto", "precise", "string", "double"]

#: PostgreSQL's numeric has at most 16,383 digits after the point. A forged scale must not fill the memory.
MAX_SCALE: Final = 16_383
#: Longer bit strings are of type ``bit varying``, which does not tell its length.
_MAX_BITS: Final = 65_536

_DIGITS: Final = re.compile(r"[0-9]+")
_PLAIN_NUMBER: Final = re.compile(r"[+-]?\d+(\.\d*)?|[+-]?\.\d+", re.ASCII)
_FLOATS: Final = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
_BOOLEANS: Final = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}


def refuse(what: str) -> NoReturn:
    """Raise the error for a value that its type cannot be. ``what`` names the type and holds no content."""
    raise DecodeError("bad_value", f"{what} is not what its type says")


# --- numbers --------------------------------------------------------------------------------------------


def decimal_text(encoded: Value, scale: Value) -> str | None:
    """Plain text of a decimal: a big-endian two's complement integer (bytes, or base64 of them) and its
    scale (an integer, or its digits). None when it is not that."""
    raw = bytes_of(encoded)
    try:
        places = int(scale)
    except (TypeError, ValueError):
        return None
    if not raw or abs(places) > MAX_SCALE:
        return None
    unscaled = int.from_bytes(raw, "big", signed=True)
    # By way of Decimal: the text of a long int is limited by the interpreter.
    digits = str(Decimal(abs(unscaled)))
    sign = "-" if unscaled < 0 else ""
    if places <= 0:
        return sign + (digits + "0" * -places if unscaled else "0")
    digits = digits.rjust(places + 1, "0")
    return f"{sign}{digits[:-places]}.{digits[-places:]}"


def encoded_decimal(scale: Value) -> Reader:
    """Reads the decimals of a schema that gives this scale."""

    def read(value: Value) -> Value:
        if isinstance(value, str | bytes):
            text = decimal_text(value, scale)
            return refuse("a decimal") if text is None else text
        return _number_text(value, scale)

    return read


def decimal(scale: int, precision: int | None = None, mode: Decimals = "auto") -> Reader:
    """Reads decimals of this scale as the mode says that they come: encoded, as text, as number.

    There is a point in the text of every decimal that has a scale. Digits alone may be base64 too, of another
    number; where neither the mode nor the precision (None: unknown) tells, they are refused.
    """

    def read(value: Value) -> Value:
        if not isinstance(value, str):
            return decimal_text(value, scale) if isinstance(value, bytes) else _number_text(value, scale)
        decoded = None if "." in value or mode in ("string", "double") else decimal_text(value, scale)
        if mode == "precise":
            return refuse("an encoded decimal") if decoded is None else decoded
        if decoded is not None and (scale > 0 or not _DIGITS.fullmatch(value)):
            return decoded
        if decoded is not None and not _is_longer(decoded, precision):
            raise DecodeError(
                "bad_value",
                "digits that may also be the base64 of another number: set VECTIDE_CODEC__DECIMALS to the "
                "connector's decimal.handling.mode",
            )
        if _PLAIN_NUMBER.fullmatch(value):
            return _padded(value, scale)
        return "NaN" if value.lower() == "nan" else refuse("a decimal")

    return read


def _is_longer(text: str, precision: int | None) -> bool:
    return precision is not None and len(text.lstrip("-")) > precision


def variable_decimal(value: Value) -> Value:
    """Reads a decimal that carries its own scale, ``{"scale": 2, "value": "ALeC"}``; others stay."""
    if isinstance(value, dict) and value.keys() == {"scale", "value"}:
        text = decimal_text(value["value"], value["scale"])
        return value if text is None else text
    return value


def floating(value: Value) -> Value:
    """Reads the texts that stand for numbers which JSON cannot say."""
    return _FLOATS.get(value, value) if isinstance(value, str) else value


def unsigned(value: Value) -> Value:
    """Reads MySQL's unsigned 64 bits: a number that has come out negative, or base64
    (``bigint.unsigned.handling.mode=precise``)."""
    if type(value) is int:
        return value + 2**64 if -(2**63) <= value < 0 else value
    text = decimal_text(value, 0)
    return refuse("an unsigned integer") if text is None else text


def boolean(value: Value) -> Value:
    """Reads the numbers and texts that some sources have for booleans."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value != 0
    known = _BOOLEANS.get(value.lower()) if isinstance(value, str) else None
    return refuse("a boolean") if known is None else known


# --- texts, bytes, others -------------------------------------------------------------------------------


def json(value: Value) -> Value:
    """Reads JSON text as the value that it says; a text that is not JSON stays a text."""
    if not isinstance(value, str):
        return value
    try:
        return read_json(value)
    except ValueError:
        return value


def uuid(value: Value) -> Value:
    """Reads a UUID: text in any case, or its 16 bytes. Other texts stay."""
    raw = bytes_of(value)
    try:
        if raw is not None and len(raw) == 16:
            return str(UUID(bytes=raw))
        return str(UUID(value)) if isinstance(value, str) else value
    except ValueError:
        return value


def name_set(value: Value) -> Value:
    """Reads a set of names, ``a,b``, as a list."""
    if not isinstance(value, str):
        return value
    return value.split(",") if value else []


def bits(length: Value) -> Reader:
    """Reads little-endian bytes as a string of that many binary digits."""
    try:
        width = int(length)
    except (TypeError, ValueError):
        width = 0
    if not 0 < width <= _MAX_BITS:
        width = 1

    def read(value: Value) -> Value:
        if isinstance(value, bool):
            return str(int(value))
        raw = bytes_of(value)
        if raw is None or len(raw) > _MAX_BITS // 8:
            return refuse("a bit string")
        return format(int.from_bytes(raw, "little"), f"0{width}b")

    return read


def bit(value: Value) -> Value:
    """Reads a bit string of one digit, which connectors send as boolean."""
    raw = bytes_of(value)
    return boolean(value) if raw is None or len(raw) > 1 else raw not in (b"", b"\0")


def geometry(value: Value) -> Value:
    """Reads ``{"wkb": ..., "srid": ...}`` as well-known text, or as hex where it is no point."""
    if not isinstance(value, dict) or "wkb" not in value:
        return value
    raw = bytes_of(value["wkb"])
    text = None if raw is None else geometry_text(raw, value.get("srid"))
    return value if text is None else text


def sparse_vector(value: Value) -> Value:
    """Reads ``{"dimensions": 5, "vector": {"1": 0.5}}`` as pgvector writes it: ``{1:0.5}/5``."""
    if not isinstance(value, dict) or value.keys() != {"dimensions", "vector"}:
        return value
    members = value["vector"]
    pairs = list(members.items()) if isinstance(members, dict) else members
    try:
        parts = sorted((int(index), float(weight)) for index, weight in pairs)
        dimensions = int(value["dimensions"])
    except (TypeError, ValueError, OverflowError):
        return refuse("a sparse vector")
    inside = ",".join(f"{index}:{_short(weight)}" for index, weight in parts)
    return f"{{{inside}}}/{dimensions}"


def unchanged(value: Value) -> Value:
    """For types whose values come as they are."""
    return value


def each(read: Reader) -> Reader:
    """Reads every element of a list (also of lists in it), every value of an object; nulls stay."""

    def read_all(value: Value) -> Value:
        if isinstance(value, list):
            return [
                None if item is None else (read_all if isinstance(item, list) else read)(item)
                for item in value
            ]
        return read(value)

    return read_all


def by_shape(value: Value) -> Value:
    """Reads what tells its type by its shape: decimals that carry their scale, and geometries, also inside
    lists and objects."""
    if isinstance(value, list):
        return [by_shape(item) if isinstance(item, list | dict) else item for item in value]
    if not isinstance(value, dict):
        return value
    names = value.keys()
    if names == {"scale", "value"} and type(value["scale"]) is int:
        return variable_decimal(value)
    if "wkb" in names and "srid" in names and names <= {"wkb", "srid", "x", "y", "extensions"}:
        return geometry(value)
    return {name: by_shape(item) if isinstance(item, list | dict) else item for name, item in value.items()}


def bytes_of(encoded: Value) -> bytes | None:
    """Bytes as they are, or from their base64; None when it is neither."""
    if isinstance(encoded, bytes):
        return encoded
    if not isinstance(encoded, str):
        return None
    try:
        return base64.b64decode(encoded, validate=True)
    except ValueError:
        return None


def _number_text(value: Value, scale: Value) -> Value:
    if type(value) is int or type(value) is float:
        text = render_value(value)
        places = int(scale) if isinstance(scale, int | str) and str(scale).isdigit() else 0
        return _padded(text, places) if text is not None and _PLAIN_NUMBER.fullmatch(text) else text
    return value


def _padded(text: str, scale: int) -> str:
    """The number with at least ``scale`` digits after its point; none is ever cut but zeros."""
    whole, _, fraction = text.lstrip("+").partition(".")
    if len(fraction) > scale:
        fraction = fraction[:scale] + fraction[scale:].rstrip("0")
    fraction = fraction.ljust(min(scale, MAX_SCALE), "0")
    return f"{whole}.{fraction}" if fraction else whole


def _short(number: float) -> str:
    text = render_value(number) or ""
    return text.removesuffix(".0")

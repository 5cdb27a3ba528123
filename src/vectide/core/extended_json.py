"""MongoDB's extended JSON, in each of its flavours, as plain values.

==========================================  ==========================================================
written                                     value
==========================================  ==========================================================
``{"$oid": "596e…"}``                       its 24 hex digits
``$numberInt``, ``$numberLong``             integer
``$numberDouble``                           float
``$numberDecimal``                          text: ``"12.50"``
``$date`` (number, text, ``$numberLong``)   timestamp in UTC, spelt without zone, as a flattened document
                                            has it: ``2026-02-28T21:59:59.123000``
``$binary``, ``$type`` or ``subType``       base64
``$uuid``                                   text
``$symbol``, ``$code``                      text
``$regex``, ``$regularExpression``          ``/pattern/options``
``$minKey``, ``$maxKey``                    ``MinKey``, ``MaxKey``
``$undefined``                              null
==========================================  ==========================================================

Whatever else has such names (references, internal timestamps, code with scope) stays an object.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from vectide.core import moments
from vectide.core.jsontext import read_json
from vectide.core.model import Value

_INT64: Final = range(-(2**63), 2**63)


def read_document(text: str) -> Value:
    """The value that the text says. Raises ValueError when it is not JSON."""
    return plain(read_json(text))


def bson(value: Value) -> Value:
    """Reads a text of extended JSON; one that is not JSON stays a text."""
    if not isinstance(value, str):
        return value
    try:
        return read_document(value)
    except ValueError:
        return value


def wrapped_key(value: Value) -> Value:
    """Reads the text of an id that can only be extended JSON (``{"$oid": "596e…"}``); others stay."""
    if not isinstance(value, str) or not value.startswith("{") or '"$' not in value[:6]:
        return value
    read = bson(value)
    return value if isinstance(read, dict) else read


def plain(value: Value) -> Value:
    """The value without MongoDB's wrappers. Nesting is bounded by :func:`read_json`."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    for name, member in value.items():
        read = _WRAPPERS.get(name)
        if read is not None and value.keys() <= _COMPANIONS.get(name, {name}):
            try:
                return read(member, value)
            except (TypeError, ValueError, OverflowError, KeyError):
                break  # it only looks like one
    return {name: plain(item) for name, item in value.items()}


Read = Callable[[Value, Mapping[str, Value]], Value]


def _text(member: Value, _: Mapping[str, Value]) -> Value:
    if not isinstance(member, str):
        raise TypeError
    return member


def _integer(member: Value, _: Mapping[str, Value]) -> Value:
    number = int(member)
    if number not in _INT64:
        raise ValueError
    return number


def _double(member: Value, _: Mapping[str, Value]) -> Value:
    return float(member)


def _date(member: Value, _: Mapping[str, Value]) -> Value:
    if isinstance(member, str):
        return moments.timestamp_of(member)
    if isinstance(member, dict):
        member = member["$numberLong"]
    return moments.timestamp_text(_integer(member, {}), 1_000)


def _binary(member: Value, _: Mapping[str, Value]) -> Value:
    return _text(member["base64"] if isinstance(member, dict) else member, {})


def _regex(member: Value, whole: Mapping[str, Value]) -> Value:
    if isinstance(member, dict):
        member, whole = member["pattern"], {"$options": member["options"]}
    return f"/{_text(member, {})}/{_text(whole.get('$options', ''), {})}"


def _fixed(value: Value) -> Read:
    return lambda _member, _whole: value


_WRAPPERS: Final[Mapping[str, Read]] = {
    "$oid": _text,
    "$numberInt": _integer,
    "$numberLong": _integer,
    "$numberDouble": _double,
    "$numberDecimal": _text,
    "$date": _date,
    "$binary": _binary,
    "$uuid": _text,
    "$symbol": _text,
    "$code": _text,
    "$regex": _regex,
    "$regularExpression": _regex,
    "$minKey": _fixed("MinKey"),
    "$maxKey": _fixed("MaxKey"),
    "$undefined": _fixed(None),
}
#: Members that belong to a wrapper besides its own.
_COMPANIONS: Final[Mapping[str, set[str]]] = {
    "$binary": {"$binary", "$type"},
    "$regex": {"$regex", "$options"},
}

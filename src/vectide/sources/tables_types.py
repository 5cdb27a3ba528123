"""Which column types of PostgreSQL can be read, and what their text becomes: the value that an event of the
same row has, spelt as ``docs/types.md`` says.

The server's text output of a value is what the connector got too. Where the connector's settings choose
between ways to tell it, its defaults are taken: bytes as base64, intervals as a number.

===========================================  ==============================================================
type                                         value
===========================================  ==============================================================
text, varchar, char(n), citext, enums, xml,  the text; char(n) with its blanks at the end
uuid, inet, cidr, macaddr, ltree, tsvector,
ranges of numbers, dates and timestamps
json, jsonb, hstore                          what it says
smallint, integer, bigint, oid               an integer
boolean, bit(1)                              true or false
double precision, real                       a number
numeric, money                               its digits as text; not NaN, infinities, nor a zero of a column
                                             without scale, whose spelling the connector loses
date, time, timestamp, with and without      ISO 8601 as in events, ``infinity``, ``-infinity``; not years
zone                                         before 1
interval                                     a duration without units beyond hours
bytea                                        base64
bit(n)                                       its digits
point                                        ``POINT(1.5 -2)``
vector, halfvec                              a list of numbers
arrays of texts, enums, uuid, booleans and   a list, of one dimension
numbers
===========================================  ==============================================================

A domain is read as the type that it is made of. Any other type is refused.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from vectide.core import readers
from vectide.core.model import Value
from vectide.core.moments import NANOS, date_of, duration_text, moment_of, time_of, timestamp_of
from vectide.core.types import TypeNameError, parse_type

_TEXTS: Final = frozenset(
    "text varchar bpchar citext xml uuid inet cidr macaddr ltree tsvector "
    "int4range int8range numrange tsrange daterange".split()
)
_INTEGERS: Final = frozenset({"int2", "int4", "int8", "oid"})
_ELEMENTS: Final = _INTEGERS | {"text", "varchar", "citext", "uuid", "bool", "float4", "float8", "numeric"}
#: What a message without schema tells by its shape.
_SELF_TOLD: Final = (_TEXTS - {"uuid"}) | _INTEGERS | {"bool", "bytea", "vector", "halfvec"}
_KEYS: Final = _INTEGERS | {"text", "varchar", "bpchar", "citext", "uuid", "bool", "numeric", "timestamptz"}

#: An array of one dimension as the server writes it, one item of it, and what stands in quotes there.
_ARRAY: Final = re.compile(r'\{(?:(?:"(?:[^"\\]|\\.)*"|[^,{}"\\]+)(?:,(?!\}))?)*\}', re.DOTALL)
_ITEM: Final = re.compile(r'"((?:[^"\\]|\\.)*)"|([^,{}"\\]+)', re.DOTALL)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_PAIR: Final = re.compile(r'"((?:[^"\\]|\\.)*)"=>(?:"((?:[^"\\]|\\.)*)"|NULL)(?:, |\Z)', re.DOTALL)
_POINT: Final = re.compile(r"\((-?[\d.]+),(-?[\d.]+)\)")
_INTERVAL: Final = re.compile(
    r"(?:(?P<years>-?\d+) years? ?)?(?:(?P<months>-?\d+) mons? ?)?(?:(?P<days>-?\d+) days? ?)?"
    r"(?:(?P<sign>-?)(?P<hours>\d+):(?P<minutes>\d\d):(?P<seconds>\d\d)(?:\.(?P<fraction>\d{1,6}))?)?"
)
#: What Debezium counts for a month.
_DAYS_PER_MONTH: Final = 365.25 / 12
_NOT_FINITE: Final = frozenset({"NaN", "Infinity", "-Infinity"})
_ENDLESS: Final = frozenset({"infinity", "-infinity"})


class Unmatched(ValueError):
    """What the events hold of this value cannot be told."""


@dataclass(frozen=True, slots=True)
class ColumnType:
    """The type of one column, domains opened: its name in the catalogue, that of its elements where it is an
    array, whether it (or they) are an enum, and what was declared in brackets (-1: nothing). ``sql`` is how
    to cast to it, ``declared`` how a table's ``types`` may name it, ``oid`` its number."""

    name: str
    element: str | None
    is_enum: bool
    modifier: int
    sql: str
    declared: str
    oid: int

    @property
    def cast(self) -> str:
        """A cast that gives a text which does not depend on the server's settings, where it takes one."""
        return "::numeric::text" if self.name == "money" else ""

    @property
    def declared_name(self) -> str | None:
        """How a table's ``types`` names it for events without schema; None where those tell it, or nobody
        can."""
        named = self.element or self.name
        if self.is_enum or named in _SELF_TOLD or (named, self.modifier) == ("bit", 1):
            return None
        declared = self.declared.replace("money", "money(2)") if named == "money" else self.declared
        try:
            parse_type(declared)
        except TypeNameError:
            return None
        return declared

    @property
    def can_be_key(self) -> bool:
        """Whether a row can be found by a value of it, as an event's key holds it."""
        return self.element is None and (self.is_enum or self.name in _KEYS)

    @property
    def convert(self) -> Callable[[str], Value] | None:
        """Makes an event's value of the server's text; None for a type that is refused. Raises
        :class:`Unmatched` where the type is known, but not what becomes of this value."""
        if self.element is not None:
            if not self.is_enum and self.element not in _ELEMENTS:
                return None
            return _list_of(_same if self.is_enum else _converter(self.element, self.modifier) or _same)
        return _same if self.is_enum else _converter(self.name, self.modifier)


def _converter(name: str, modifier: int) -> Callable[[str], Value] | None:
    if name in _TEXTS:
        return _same
    if name in _INTEGERS:
        return int
    if name == "numeric":
        return _numeric if modifier >= 0 else _numeric_without_scale
    if name == "bit":
        return _boolean if modifier == 1 else _same
    return _CONVERTERS.get(name)


def _same(text: str) -> str:
    return text


def _boolean(text: str) -> bool:
    return text in ("t", "1")


def _numeric(text: str) -> str:
    if text in _NOT_FINITE:
        raise Unmatched
    return text


def _numeric_without_scale(text: str) -> str:
    if not text.strip("-0."):
        raise Unmatched
    return _numeric(text)


def _moment(spell: Callable[[str], str]) -> Callable[[str], str]:
    def convert(text: str) -> str:
        if text in _ENDLESS:
            return text
        if " BC" in text:
            raise Unmatched
        return spell(text)

    return convert


def _clock(text: str) -> str:
    return time_of(text, zoned=False)


def _zoned_clock(text: str) -> str:
    return time_of(text, zoned=True)


def _interval(text: str) -> str:
    found = _INTERVAL.fullmatch(text)
    if found is None:
        raise Unmatched
    names = ("years", "months", "days", "hours", "minutes", "seconds")
    years, months, days, hours, minutes, seconds = (int(found[name] or 0) for name in names)
    days_in_all = (years * 12 + months) * _DAYS_PER_MONTH + days
    seconds += (hours * 60 + minutes) * 60
    micros = seconds * 1_000_000 + int((found["fraction"] or "").ljust(6, "0"))
    micros = -micros if found["sign"] else micros
    return duration_text((int(days_in_all * 86_400_000_000) + micros) * (NANOS // 1_000_000))


def _bytes(text: str) -> str:
    if not text.startswith("\\x"):
        raise Unmatched
    return base64.b64encode(bytes.fromhex(text[2:])).decode("ascii")


def _point(text: str) -> str:
    found = _POINT.fullmatch(text)
    if found is None:
        raise Unmatched
    return f"POINT({found[1]} {found[2]})"


def _hstore(text: str) -> Value:
    if _PAIR.sub("", text):
        raise Unmatched
    return {
        _ESCAPED.sub(r"\1", name): None if value is None else _ESCAPED.sub(r"\1", value)
        for name, value in (match.groups() for match in _PAIR.finditer(text))
    }


def _vector(text: str) -> Value:
    return [float(number) for number in json.loads(text)]


_CONVERTERS: Final[dict[str, Callable[[str], Value]]] = {
    "bool": _boolean,
    "float4": float,
    "float8": float,
    "json": readers.json,
    "jsonb": readers.json,
    "hstore": _hstore,
    "money": _same,
    "date": _moment(date_of),
    "timestamp": _moment(timestamp_of),
    "timestamptz": _moment(moment_of),
    "time": _clock,
    "timetz": _zoned_clock,
    "interval": _interval,
    "bytea": _bytes,
    "point": _point,
    "vector": _vector,
    "halfvec": _vector,
}


def _list_of(convert: Callable[[str], Value]) -> Callable[[str], Value]:
    def convert_all(text: str) -> Value:
        if not _ARRAY.fullmatch(text):
            raise Unmatched  # of several dimensions, or not counted from 1
        items = [match.groups() for match in _ITEM.finditer(text)]
        return [
            None if plain == "NULL" else convert(_ESCAPED.sub(r"\1", quoted) if plain is None else plain)
            for quoted, plain in items
        ]

    return convert_all

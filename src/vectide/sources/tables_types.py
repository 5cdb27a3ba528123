"""Which column types of PostgreSQL can be read again, and what their text becomes.

The server's text output of a value is what the connector got too, so the question is what the connector makes
of it:

===========================================  ==============================================================
type                                         value
===========================================  ==============================================================
text, varchar, char(n), citext, enums        the text; char(n) with its blanks at the end
json, jsonb, xml, uuid, inet, cidr,          the server's text
macaddr, ltree, tsvector, ranges of
numbers, dates and timestamps
smallint, integer, bigint, oid               an integer
boolean                                      true or false
double precision                             a number; ``NaN``, ``Infinity`` and ``-Infinity`` as texts
numeric                                      its digits as text; not NaN, infinities, nor a zero of a column
                                             without scale, of which the connector's spelling is unknown
timestamptz                                  ``2026-02-28T21:59:59.123456Z``, ``infinity``, ``-infinity``;
                                             not years before 1 or after 9999
arrays of texts, enums, uuid, integers       a list, of one dimension
and booleans
===========================================  ==============================================================

A domain is read as the type that it is made of. Any other type is refused: what the events hold of a date, a
time, an interval, bytes, bits, money or a real number depends on settings of the connector or of its
converter, or on how Java writes it, and a value that only looks alike would be another text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from vectide.core.model import Value

_TEXTS: Final = frozenset(
    "text varchar bpchar citext json jsonb xml uuid inet cidr macaddr ltree tsvector "
    "int4range int8range numrange tsrange daterange".split()
)
_INTEGERS: Final = frozenset({"int2", "int4", "int8", "oid"})
_ELEMENTS: Final = _INTEGERS | {"text", "varchar", "citext", "uuid", "bool"}
_KEYS: Final = _INTEGERS | {"text", "varchar", "bpchar", "citext", "uuid", "bool", "numeric", "timestamptz"}

_MOMENT: Final = re.compile(r"(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d)(?:\.(\d{1,6}))?\+00")
#: An array of one dimension as the server writes it, one item of it, and what stands in quotes there.
_ARRAY: Final = re.compile(r'\{(?:(?:"(?:[^"\\]|\\.)*"|[^,{}"\\]+)(?:,(?!\}))?)*\}', re.DOTALL)
_ITEM: Final = re.compile(r'"((?:[^"\\]|\\.)*)"|([^,{}"\\]+)', re.DOTALL)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_NOT_FINITE: Final = {"NaN": "NaN", "Infinity": "Infinity", "-Infinity": "-Infinity"}


class Unmatched(ValueError):
    """What the events hold of this value cannot be told."""


@dataclass(frozen=True, slots=True)
class ColumnType:
    """The type of one column, domains opened: its name in the catalogue, that of its elements where it is an
    array, whether it (or they) are an enum, and whether a scale was declared. ``sql`` is how to cast to it,
    ``oid`` its number."""

    name: str
    element: str | None
    is_enum: bool
    has_scale: bool
    sql: str
    oid: int

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
            return _list_of(_same if self.is_enum else _converter(self.element, has_scale=True) or _same)
        return _same if self.is_enum else _converter(self.name, has_scale=self.has_scale)


def _converter(name: str, *, has_scale: bool) -> Callable[[str], Value] | None:
    if name in _TEXTS:
        return _same
    if name in _INTEGERS:
        return int
    if name == "numeric":
        return _numeric if has_scale else _numeric_without_scale
    return {"bool": _boolean, "float8": _double, "timestamptz": _moment}.get(name)


def _same(text: str) -> str:
    return text


def _boolean(text: str) -> bool:
    return text == "t"


def _double(text: str) -> float | str:
    return _NOT_FINITE.get(text) or float(text)


def _numeric(text: str) -> str:
    if text in _NOT_FINITE:
        raise Unmatched
    return text


def _numeric_without_scale(text: str) -> str:
    if not text.strip("-0."):
        raise Unmatched
    return _numeric(text)


def _moment(text: str) -> str:
    if text in ("infinity", "-infinity"):
        return text
    found = _MOMENT.fullmatch(text)
    if found is None:
        raise Unmatched
    date, time, fraction = found.groups()
    return f"{date}T{time}.{(fraction or '').ljust(6, '0')}Z"


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

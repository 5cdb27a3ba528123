"""The types that a table may declare for its columns, where the events do not tell them.

Names are those that PostgreSQL, MySQL, MariaDB, SQL Server and Oracle have for them, in any case, with ``[]``
for arrays: ``decimal(10,2)``, ``timestamp(3)``, ``timestamp without time zone``, ``int unsigned``,
``varchar2(20 char)``, ``numeric(8,2)[]``. ``docs/types.md`` lists them all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from vectide.core import readers, time_readers
from vectide.core.extended_json import bson
from vectide.core.readers import Decimals, Reader

_NAME: Final = re.compile(
    r"(?P<name>[a-z][a-z0-9_]*(?: [a-z][a-z0-9_]*)*?) ?"
    r"(?:\((?P<given>(?:[^()']|'(?:[^']|'')*')*)\))?"
    r"(?P<zone> with(?:out)?(?: local)? time zone)?(?P<unsigned> unsigned)?(?: zerofill)?"
    r"(?P<array> ?(?:\[\d*\])*)",
    re.ASCII,
)
_PART: Final = r"(?:year|month|day|hour|minute|second) ?(?:\(\d\))?"
_INTERVAL: Final = re.compile(rf"interval ?(?:\(\d\))?(?: {_PART}(?: to {_PART})?)?", re.ASCII)
_NUMBER: Final = re.compile(r" ?(-?\d{1,5}|\*) ?", re.ASCII)


class TypeNameError(ValueError):
    """There is no type of this name, or it does not say enough; the message says what to write."""


@dataclass(frozen=True, slots=True)
class ColumnType:
    """A declared type. ``meaning``: types that read values alike have the same. ``is_decimal``: it reads
    base64 as a number, which a text column must not be taken for."""

    name: str
    meaning: str
    read: Reader
    is_decimal: bool = False


def parse_type(text: str, decimals: Decimals = "auto") -> ColumnType:
    """The type of this name; ``decimals`` is how the connector sends decimals. Raises
    :class:`TypeNameError`."""
    spelt = " ".join(text.lower().split())
    match = _NAME.fullmatch("interval" if _INTERVAL.fullmatch(spelt) else spelt)
    if match is None:
        raise TypeNameError(_unknown(text))
    name = match["name"] + (match["zone"] or "")
    if match["unsigned"] and name == "bigint":
        name = "bigint unsigned"
    name = _ALIASES.get(name, name)
    if name in _REFUSED:
        raise TypeNameError(f"{text!r}: {_REFUSED[name]}")
    build = _TYPES.get(name)
    if build is None:
        raise TypeNameError(_unknown(text))
    try:
        meaning, read = build(_Given(match["given"], decimals))
    except TypeNameError:
        raise
    except ValueError:
        raise TypeNameError(f"{text!r} is not a type; in its brackets belong numbers") from None
    if match["array"].strip():
        meaning, read = f"{meaning}[]", readers.each(read)
    return ColumnType(text, meaning, read, meaning.startswith(("decimal ", "bigint unsigned")))


def _unknown(text: str) -> str:
    return f"{text!r} is not a type; there are {', '.join(TYPE_NAMES)}, and other names for these"


@dataclass(frozen=True, slots=True)
class _Given:
    """What stands in a type's brackets, and how decimals are sent."""

    text: str | None
    decimals: Decimals

    def numbers(self, most: int) -> list[int]:
        """At most so many numbers; Oracle's ``*`` is its greatest precision. Raises ValueError."""
        if self.text is None:
            return []
        parts = [_NUMBER.fullmatch(part) for part in self.text.split(",")]
        found = [38 if part[1] == "*" else int(part[1]) for part in parts if part is not None]
        if len(found) < len(parts) or len(found) > most or found[0] < 0:
            raise ValueError
        return found


#: What a type means, and how it is read.
Built = tuple[str, Reader]
Build = Callable[[_Given], Built]


def _decimal_of(scale: int, precision: int | None, decimals: Decimals) -> Built:
    return f"decimal {scale}", readers.decimal(scale, precision, decimals)


def _decimal(given: _Given) -> Built:
    numbers = given.numbers(2)
    if not numbers:
        return "decimal", readers.variable_decimal
    return _decimal_of(numbers[1] if len(numbers) > 1 else 0, numbers[0], given.decimals)


def _number(given: _Given) -> Built:
    """Oracle's: whole numbers of up to 18 digits come as such."""
    numbers = given.numbers(2)
    if numbers and (len(numbers) < 2 or numbers[1] <= 0) and numbers[0] - sum(numbers[1:]) < 19:
        return _TEXT
    return _decimal(given)


def _money(given: _Given) -> Built:
    numbers = given.numbers(1)
    if not numbers:
        raise TypeNameError("money does not tell its digits: money(2) is PostgreSQL's, money(4) SQL Server's")
    return _decimal_of(numbers[0], None, given.decimals)


def _smallmoney(given: _Given) -> Built:
    return _decimal_of(4, 10, given.decimals)


def _bit(given: _Given) -> Built:
    length = (given.numbers(1) or [1])[0]
    return ("bit 1", readers.bit) if length == 1 else (f"bit {length}", readers.bits(length))


def _per_second(precision: int) -> int:
    """The unit that Debezium chooses for columns of this precision."""
    if precision <= 3:
        return 1_000
    return 1_000_000 if precision <= 6 else 1_000_000_000


def _timed(what: str, build: Callable[[int], Reader], precision: int) -> Build:
    def timed(given: _Given) -> Built:
        unit = _per_second((given.numbers(1) or [precision])[0])
        return f"{what} {unit}", build(unit)

    return timed


def _plain(meaning: str, read: Reader) -> Build:
    return lambda _: (meaning, read)


_TEXT: Final[Built] = ("text", readers.unchanged)

_TYPES: Final[Mapping[str, Build]] = {
    "decimal": _decimal,
    "number": _number,
    "money": _money,
    "smallmoney": _smallmoney,
    "bigint unsigned": _plain("bigint unsigned", readers.unsigned),
    "real": _plain("float", readers.floating),
    "double": _plain("float", readers.floating),
    "boolean": _plain("boolean", readers.boolean),
    "date": _plain("date", time_readers.date),
    "time": _timed("time", time_readers.time, 6),
    "timetz": _plain("timetz", time_readers.zoned_time),
    "timestamp": _timed("timestamp", time_readers.timestamp_or_moment, 6),
    "timestamp without time zone": _timed("timestamp", time_readers.timestamp, 6),
    "datetime": _timed("timestamp", time_readers.timestamp, 0),
    "datetime2": _timed("timestamp", time_readers.timestamp, 7),
    "timestamptz": _plain("timestamptz", time_readers.moment),
    "interval": _plain("interval", time_readers.duration(1_000_000)),
    "json": _plain("json", readers.json),
    "hstore": _plain("json", readers.json),
    "bson": _plain("bson", bson),
    "uuid": _plain("uuid", readers.uuid),
    "set": _plain("set", readers.name_set),
    "bit": _bit,
    "varbit": _plain("varbit", readers.bits(1)),
    "geometry": _plain("geometry", readers.geometry),
    "sparsevec": _plain("sparsevec", readers.sparse_vector),
    "text": lambda _: _TEXT,
}

#: The names that the messages and the docs list; others mean one of them.
TYPE_NAMES: Final = tuple(_TYPES)

#: Types whose name alone does not tell how a value of them has to be read.
_REFUSED: Final[Mapping[str, str]] = {
    "sql_variant": "connectors do not send it",
    "bfile": "connectors do not send it",
}

#: Names of databases for the types above: name -> names that mean the same.
_SYNONYMS: Final[Mapping[str, str]] = {
    "decimal": "numeric, dec, fixed",
    "real": "float4, binary_float",
    "double": "float, float8, double precision, binary_double",
    "boolean": "bool",
    "time": "time without time zone",
    "timetz": "time with time zone",
    "datetime": "smalldatetime",
    "timestamptz": "timestamp with time zone, timestamp with local time zone, datetimeoffset",
    "json": "jsonb",
    "uuid": "uniqueidentifier",
    "bit": "bits",
    "varbit": "bit varying",
    "geometry": (
        "geography, point, linestring, polygon, multipoint, multilinestring, multipolygon, "
        "geometrycollection, geomcollection, sdo_geometry"
    ),
    "text": (
        "smallint, integer, int, bigint, int2, int4, int8, tinyint, mediumint, oid, year, serial, "
        "smallserial, bigserial, serial2, serial4, serial8, "
        "char, character, varchar, character varying, char varying, varchar2, bpchar, nchar, nvarchar, "
        "nvarchar2, national character, national character varying, name, sysname, citext, "
        "tinytext, mediumtext, longtext, ntext, clob, nclob, long, xml, xmltype, enum, "
        "binary, varbinary, bytea, blob, tinyblob, mediumblob, longblob, image, rowversion, raw, long raw, "
        "rowid, urowid, hierarchyid, inet, inet4, inet6, cidr, macaddr, macaddr8, ltree, tsvector, "
        "int4range, int8range, numrange, tsrange, tstzrange, daterange, vector, halfvec, circle, line"
    ),
}
_ALIASES: Final[Mapping[str, str]] = {
    alias: name for name, aliases in _SYNONYMS.items() for alias in aliases.split(", ")
}

"""The types that a table may declare for its columns, where the events do not tell them.

Names are those of SQL, in any case, with ``[]`` for arrays: ``decimal(10,2)``, ``timestamp(3)``,
``timestamp without time zone``, ``json``, ``numeric(8,2)[]``. ``docs/types.md`` lists them all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from vectide.core import readers, time_readers
from vectide.core.extended_json import bson
from vectide.core.readers import Reader

_NAME: Final = re.compile(
    r"(?P<name>[a-z][a-z0-9_]*(?: [a-z]+)*?) ?"
    r"(?:\( ?(?P<first>\d{1,5}) ?(?:, ?(?P<second>\d{1,5}) ?)?\))?"
    r"(?P<zone> with(?:out)? time zone)?(?P<array> ?(?:\[\])*)",
    re.ASCII,
)


class TypeNameError(ValueError):
    """There is no type of this name; the message says which there are."""


@dataclass(frozen=True, slots=True)
class ColumnType:
    """A declared type. ``is_decimal``: it reads base64, which a text column must not be taken for."""

    name: str
    read: Reader
    is_decimal: bool = False


def parse_type(text: str) -> ColumnType:
    """The type of this name. Raises :class:`TypeNameError`."""
    match = _NAME.fullmatch(" ".join(text.lower().split()))
    if match is None:
        raise TypeNameError(_unknown(text))
    name = match["name"] + (match["zone"] or "")
    build = _TYPES.get(_ALIASES.get(name, name))
    if build is None:
        raise TypeNameError(_unknown(text))
    given = [int(number) for number in (match["first"], match["second"]) if number is not None]
    read = build(given)
    if match["array"].strip():
        read = readers.each(read)
    return ColumnType(text, read, is_decimal=build in (_decimal, _money))


def _unknown(text: str) -> str:
    return f"{text!r} is not a type; there are {', '.join(TYPE_NAMES)}"


Build = Callable[[list[int]], Reader]


def _decimal(given: list[int]) -> Reader:
    if not given:
        return readers.variable_decimal
    return readers.decimal(given[1] if len(given) > 1 else 0, given[0])


def _money(given: list[int]) -> Reader:
    return readers.decimal(2)


def _per_second(precision: int) -> int:
    """The unit that Debezium chooses for columns of this precision."""
    if precision <= 3:
        return 1_000
    return 1_000_000 if precision <= 6 else 1_000_000_000


def _timed(build: Callable[[int], Reader], precision: int) -> Build:
    return lambda given: build(_per_second(given[0] if given else precision))


def _plain(read: Reader) -> Build:
    return lambda _: read


_TYPES: Final[Mapping[str, Build]] = {
    "decimal": _decimal,
    "money": _money,
    "real": _plain(readers.floating),
    "double": _plain(readers.floating),
    "boolean": _plain(readers.boolean),
    "date": _plain(time_readers.date),
    "time": _timed(time_readers.time, 6),
    "timetz": _plain(time_readers.zoned_time),
    "timestamp": _timed(time_readers.timestamp, 6),
    "datetime": _timed(time_readers.timestamp, 0),
    "datetime2": _timed(time_readers.timestamp, 7),
    "timestamptz": _plain(time_readers.moment),
    "interval": _plain(time_readers.duration(1_000_000)),
    "json": _plain(readers.json),
    "hstore": _plain(readers.json),
    "bson": _plain(bson),
    "uuid": _plain(readers.uuid),
    "set": _plain(readers.name_set),
    "bit": lambda given: readers.bits(given[0] if given else 1),
    "varbit": _plain(readers.bits(1)),
    "geometry": _plain(readers.geometry),
    "sparsevec": _plain(readers.sparse_vector),
    "text": _plain(readers.unchanged),
}

#: The names that the messages and the docs list; others mean one of them.
TYPE_NAMES: Final = tuple(_TYPES)

#: Types of PostgreSQL and other databases by the names that their catalogues have for them.
_ALIASES: Final[Mapping[str, str]] = {
    "numeric": "decimal",
    "number": "decimal",
    "smallmoney": "money",
    "float": "double",
    "float4": "real",
    "float8": "double",
    "double precision": "double",
    "bool": "boolean",
    "time without time zone": "time",
    "time with time zone": "timetz",
    "timestamp without time zone": "timestamp",
    "timestamp with time zone": "timestamptz",
    "datetimeoffset": "timestamptz",
    "jsonb": "json",
    "uniqueidentifier": "uuid",
    "bits": "bit",
    "bit varying": "varbit",
    "geography": "geometry",
    "point": "geometry",
} | dict.fromkeys(
    (
        *(
            "smallint",
            "integer",
            "int",
            "bigint",
            "int2",
            "int4",
            "int8",
            "tinyint",
            "mediumint",
            "oid",
            "year",
        ),
        *(
            "varchar",
            "char",
            "character",
            "character varying",
            "bpchar",
            "name",
            "citext",
            "xml",
            "enum",
            "ltree",
        ),
        *(
            "nchar",
            "nvarchar",
            "ntext",
            "tinytext",
            "mediumtext",
            "longtext",
            "clob",
            "tsvector",
            "bytea",
            "blob",
        ),
        *("inet", "cidr", "macaddr", "macaddr8", "vector", "halfvec"),
    ),
    "text",
)

"""Metadata that searches filter by: which of them, of what type, and whose tenant's they tell."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from vectide.core.types import parse_type


class FilterType(Enum):
    """What the values of a name are, as stores hold them."""

    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    #: Dates and timestamps, in the one spelling that they have: texts that sort.
    TIME = "time"


@dataclass(frozen=True, slots=True)
class FilterField:
    """A name of metadata that is filtered by. ``tenant``: its texts say whose a row is."""

    name: str
    type: FilterType
    tenant: bool = False


def tenant_of(filters: Iterable[FilterField]) -> str | None:
    """The name that says whose a row is."""
    return next((field.name for field in filters if field.tenant), None)


#: What event fields are; columns have the type that is declared.
EVENT_FIELD_TYPES: Final = {"$ts": FilterType.INTEGER, "$op": FilterType.TEXT, "$table": FilterType.TEXT}

_INTEGERS: Final = frozenset(
    "smallint integer int bigint int2 int4 int8 tinyint mediumint oid year serial smallserial bigserial "
    "serial2 serial4 serial8".split()
)
_BY_MEANING: Final = {
    "bigint unsigned": FilterType.INTEGER,
    "float": FilterType.NUMBER,
    "boolean": FilterType.BOOLEAN,
    "bit 1": FilterType.BOOLEAN,
    "date": FilterType.TIME,
    "timestamptz": FilterType.TIME,
}


def filter_type_of(declared: str) -> FilterType:
    """What stores hold of a column of this declared type; of an array: what its elements are.

    Decimals are texts, whatever their digits.
    """
    meaning = parse_type(declared).meaning.rstrip("[]")
    name = re.match(r"\w*", declared.strip().lower())
    if meaning == "text" and name is not None and name[0] in _INTEGERS:
        return FilterType.INTEGER
    if meaning.startswith("timestamp "):
        return FilterType.TIME
    return _BY_MEANING.get(meaning, FilterType.TEXT)

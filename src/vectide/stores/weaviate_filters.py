"""What Weaviate finds points by, beside their vectors.

``filters`` has an entry ``name=value`` for each scalar of the metadata, with the value as JSON
(``color="red"``). A name that a table declares to filter by has a property of its type as well, in which
ranges can be asked for: ``price_number``. The type is part of its name, as a property keeps its type for
ever; names that are no plain words have a digest instead.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from vectide.core.filters import FilterField, FilterType
from vectide.core.model import Value, canonical_json, short_hash

#: Longer texts and entries are left out: what finds nothing there is compared afterwards.
_MAX_BYTES: Final = 500

#: Beyond it, numbers are not exact in Weaviate.
_MAX_INTEGER: Final = 2**53

#: Names that can be part of a property's: Weaviate does not tell letters by their case.
_PLAIN: Final = re.compile(r"(?!filter_)[a-z][a-z0-9_]{0,200}")

#: (type in Weaviate, how a query names its values)
_TYPES: Final = {
    FilterType.TEXT: ("text", "valueText"),
    FilterType.INTEGER: ("int", "valueInt"),
    FilterType.NUMBER: ("number", "valueNumber"),
    FilterType.BOOLEAN: ("boolean", "valueBoolean"),
    FilterType.TIME: ("text", "valueText"),
}


@dataclass(frozen=True, slots=True)
class Typed:
    """The property, at ``path``, of a name of metadata. ``everywhere``: it is as old as the collection, so
    that no point has been written without it."""

    path: str
    name: str
    type: FilterType
    everywhere: bool = False

    @property
    def data_type(self) -> str:
        """As Weaviate calls it."""
        return _TYPES[self.type][0]

    def definition(self) -> dict[str, Any]:
        """The property as it is made. Its description says what it is."""
        told = {"name": self.name, "type": self.type.value, "everywhere": self.everywhere}
        made: dict[str, Any] = {
            "name": self.path,
            "dataType": [self.data_type],
            "description": json.dumps({"vectide": told}),
            "indexFilterable": True,
        }
        if self.data_type == "text":
            return {**made, "tokenization": "field", "indexSearchable": False}
        return {**made, "indexRangeFilters": self.data_type != "boolean"}

    def value_of(self, metadata: Mapping[str, Value]) -> bool | float | str | None:
        """The value that the property has; None where it cannot have that of the metadata."""
        match self.type, metadata.get(self.name):
            case FilterType.TEXT | FilterType.TIME, str() as text if len(text.encode()) <= _MAX_BYTES:
                return text
            case FilterType.BOOLEAN, bool() as value:
                return value
            case _, bool():
                return None
            case FilterType.INTEGER, int() | float() as number if abs(number) <= _MAX_INTEGER:
                return int(number) if number == int(number) else None
            case FilterType.NUMBER, int() as number if abs(number) <= _MAX_INTEGER:
                return float(number)
            case FilterType.NUMBER, float() as number:
                return number
            case _:
                return None

    def condition(self, value: bool | float | str) -> str:
        """That the property has this value."""
        return f'{{path:["{self.path}"],operator:Equal,{_TYPES[self.type][1]}:{quoted(value)}}}'


def typed_of(field: FilterField, *, everywhere: bool = False) -> Typed:
    """The property for a name that a table declares."""
    plain = field.name if _PLAIN.fullmatch(field.name) else f"filter_{short_hash(field.name)}"
    return Typed(f"{plain}_{field.type.value}", field.name, field.type, everywhere)


def typed_in(properties: Iterable[Mapping[str, Any]]) -> Iterator[Typed]:
    """Those among the properties of a collection."""
    for made in properties:
        try:
            told = json.loads(made["description"])["vectide"]
            yield Typed(made["name"], told["name"], FilterType(told["type"]), told["everywhere"])
        except (ValueError, LookupError, TypeError):
            continue


def entries(metadata: Mapping[str, Value]) -> list[str]:
    """What ``filters`` has for this metadata."""
    made = dict.fromkeys(entry for name, value in metadata.items() for entry in _entries(name, value))
    return [entry for entry in made if len(entry.encode()) <= _MAX_BYTES]


def _entries(name: str, value: Value) -> Iterator[str]:
    match value:
        case Mapping():
            return
        case list() | tuple():
            for one in value:
                if not isinstance(one, list | tuple):
                    yield from _entries(name, one)
        case float() if value.is_integer():  # the same number, however it is spelt
            yield f"{name}={int(value)}"
        case _:
            yield f"{name}={canonical_json(value)}"


def conditions(filters: Mapping[str, Value], typed: Iterable[Typed] = ()) -> str:
    """Matches at least the points whose metadata equals ``filters``; empty: all."""
    clauses: list[str] = []
    rest = dict(filters)
    for one in typed:
        value = one.value_of(filters)
        if one.everywhere and value is not None:
            clauses.append(one.condition(value))
            rest.pop(one.name, None)
    if wanted := entries(rest):
        clauses.append(f'{{path:["filters"],operator:ContainsAll,valueText:{quoted(wanted)}}}')
    return f"{{operator:And,operands:[{','.join(clauses)}]}}" if len(clauses) > 1 else "".join(clauses)


def among(property_: str, values: Iterable[str], operator: str = "ContainsAny") -> dict[str, Any]:
    """That a property has one (or ``ContainsNone``) of these values, as a document."""
    return {"path": [property_], "operator": operator, "valueTextArray": list(values)}


def among_query(property_: str, values: Sequence[str]) -> str:
    """The same in a query."""
    return f"{{path:[{quoted(property_)}],operator:ContainsAny,valueText:{quoted(values)}}}"


def quoted(value: bool | float | str | Sequence[str]) -> str:
    """A value, or a list of texts, in a query."""
    return json.dumps(value, ensure_ascii=False)

"""What the tables file says about metadata that searches filter by, and about tenants."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from vectide.core.filters import EVENT_FIELD_TYPES, FilterField, FilterType, filter_type_of
from vectide.core.mapping import MetadataField, TableMapping

#: (name in the store, type or None: the column's declared one)
Pair = tuple[str, str | None]

FILTER_TYPES: Final = tuple(kind.value for kind in FilterType)


def filter_pairs(value: Any) -> Any:
    """``[a, {b: integer}]`` and ``{b: integer}`` as pairs."""
    items = value if isinstance(value, list | tuple) else [value]
    return tuple(pair for item in items for pair in _pairs(item))


def _pairs(item: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(item, str):
        yield item, None
    elif isinstance(item, Mapping):
        unknown = [kind for kind in item.values() if kind not in FILTER_TYPES]
        if unknown:
            raise ValueError(f"{unknown[0]!r} is not a type: there are {', '.join(FILTER_TYPES)}")
        yield from item.items()
    else:
        raise ValueError("must be a list of names and of {name: type}")


@dataclass(frozen=True, slots=True)
class Filtered:
    """What a table says: ``metadata`` as pairs (source, name in the store), the declared ``types`` of
    columns, the column of the ``tenant``, and the ``names`` to filter by."""

    metadata: Sequence[tuple[str, str]]
    types: Mapping[str, str]
    tenant: str | None
    names: Sequence[Pair]

    def metadata_fields(self) -> Iterator[MetadataField]:
        """The metadata, with that of the tenant."""
        for source, name in self.metadata:
            yield MetadataField(source, name, as_text=source == self.tenant)
        if self.tenant is not None and self.tenant not in dict(self.metadata):
            yield MetadataField(self.tenant, self.tenant, as_text=True)

    def filter_fields(self) -> Iterator[FilterField]:
        """What searches filter by, the tenant first."""
        tenant = next((name for source, name in self.metadata if source == self.tenant), self.tenant)
        if tenant is not None:
            yield FilterField(tenant, FilterType.TEXT, tenant=True)
        for name, kind in self.names:
            of = FilterType(kind) if kind else self._type_told(name) or FilterType.TEXT
            if (name, of) != (tenant, FilterType.TEXT):
                yield FilterField(name, of)

    def untyped(self) -> Iterator[str]:
        """Names whose type nobody tells."""
        return (name for name, kind in self.names if kind is None and self._type_told(name) is None)

    def _type_told(self, name: str) -> FilterType | None:
        """What is no metadata is refused elsewhere."""
        source = next((source for source, target in self.metadata if target == name), None)
        if source is None or source == self.tenant:
            return FilterType.TEXT
        if source in EVENT_FIELD_TYPES:
            return EVENT_FIELD_TYPES[source]
        return filter_type_of(self.types[source]) if source in self.types else None


def shared_collections(
    mappings: Sequence[TableMapping], stores: Mapping[str, Mapping[str, Any]]
) -> Iterator[str]:
    """Problems of tables that fill one collection: it has one vector of ours, one tenant, and one index for a
    name. ``stores``: what is given for the store of each."""
    for at, mine in enumerate(mappings):
        for other in mappings[:at]:
            if mine.collection == other.collection and stores[mine.table] == stores[other.table]:
                yield from _differences(mine, other)


def _differences(mine: TableMapping, other: TableMapping) -> Iterator[str]:
    told = [("tenant", mine.tenant, other.tenant), ("vector", mine.vector, other.vector)]
    theirs = {field.name: field.type.value for field in other.filters}
    told += [
        (f"filter.{field.name}", field.type.value, theirs[field.name])
        for field in mine.filters
        if field.name in theirs
    ]
    for key, here, there in told:
        if here != there:
            yield (
                f"tables.{mine.table}.{key}: is {here or 'not given'} here and {there or 'not given'} in "
                f"tables.{other.table}, of the same collection"
            )

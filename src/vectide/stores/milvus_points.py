"""Points of the Milvus store: the fields of its collections, what is written, and expressions on them.

``metadata`` is a JSON field under the user's names (``metadata["color"] == "red"``); what is ours is in the
JSON field ``_vectide``: ``table``, ``key``, ``chunk``, ``hash``, and on chunk 0 ``stamp`` and ``values``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from pymilvus import CollectionSchema, DataType, MilvusClient

from vectide.core.filters import FilterField, FilterType
from vectide.core.model import STAMP_KEY, Value, short_hash
from vectide.ports import Vector
from vectide.stores.pointwise import Held, held_from, ours_of

#: What :func:`held_of` needs.
READ: Final = ["id", "text", "metadata", STAMP_KEY]

#: The fields of every collection.
RESERVED_FIELDS: Final = frozenset({*READ, "row_id", "tenant"})

#: The longest text, in bytes of UTF-8.
MAX_TEXT_BYTES: Final = 65_535


def schema_of(dimensions: int, vector: str, tenant: str | None = None) -> CollectionSchema:
    """The fields of a collection; with a tenant its partitions are by that."""
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=36)
    schema.add_field("row_id", DataType.VARCHAR, max_length=36)
    schema.add_field("text", DataType.VARCHAR, max_length=MAX_TEXT_BYTES, nullable=True)
    schema.add_field("metadata", DataType.JSON)
    schema.add_field(STAMP_KEY, DataType.JSON)
    schema.add_field(vector, DataType.FLOAT_VECTOR, dim=dimensions)
    if tenant is not None:
        schema.add_field("tenant", DataType.VARCHAR, max_length=MAX_TEXT_BYTES, is_partition_key=True)
    return schema


def registry_schema() -> CollectionSchema:
    """The fields of the collection that says what the others are made for. (Milvus wants a vector.)"""
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("name", DataType.VARCHAR, is_primary=True, max_length=255)
    schema.add_field("made_for", DataType.JSON)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=2)
    return schema


_CASTS: Final = {
    FilterType.TEXT: "VARCHAR",
    FilterType.INTEGER: "DOUBLE",
    FilterType.NUMBER: "DOUBLE",
    FilterType.BOOLEAN: "BOOL",
    FilterType.TIME: "VARCHAR",
}


def filter_index_of(field: FilterField) -> dict[str, Any]:
    """The index of a name within the metadata, which can be made at any time. Its name has no place for what
    somebody may call metadata."""
    cast = _CASTS[field.type]
    return {
        "field_name": "metadata",
        "index_type": "INVERTED",
        "index_name": f"filter_{short_hash(f'{cast} {field.name}')}",
        "params": {"json_path": f"metadata[{quoted(field.name)}]", "json_cast_type": cast},
    }


def whole(held: Held, vector: Vector, name: str, tenant: str | None = None) -> dict[str, Any]:
    """A point as it is written; ``name``: that of the vector. ``tenant``: the name of the metadata that says
    whose it is."""
    row_id = held.point.row.head_id
    fields = {**patched(held), "row_id": row_id, "text": held.point.text, name: vector.tolist()}
    if tenant is not None:
        fields["tenant"] = tenant_in(held, tenant)
    return fields


def tenant_in(held: Held, tenant: str) -> str:
    """What the partitions are by: those who have none are in that of the empty text."""
    whose = held.point.metadata.get(tenant)
    return whose if isinstance(whose, str) else ""


def patched(held: Held) -> dict[str, Any]:
    """The same without its vector, its text and its tenant: the fields of a patch."""
    return {"id": held.point.id, "metadata": dict(held.point.metadata), STAMP_KEY: ours_of(held)}


def held_of(row: Mapping[str, Any], vector: str | None = None) -> Held:
    """The point that these fields are, with the vector of that name."""
    numbers = None if vector is None else row.get(vector)
    return held_from(row["id"], row[STAMP_KEY], row["text"], row["metadata"], numbers)


# --- expressions ----------------------------------------------------------------------------------------


def quoted(text: str) -> str:
    """A text in an expression."""
    return json.dumps(text, ensure_ascii=False)


def among(field: str, values: Iterable[str]) -> str:
    """That the field has one of these values."""
    return f"{field} in [{', '.join(map(quoted, values))}]"


def conditions(filters: Mapping[str, Value], tenant: str | None = None) -> str:
    """Matches at least the points whose metadata equals ``filters``; empty: all."""
    made = [_condition(f"metadata[{quoted(name)}]", value) for name, value in filters.items()]
    if tenant is not None and isinstance(filters.get(tenant), str):
        made.append(_condition("tenant", filters[tenant]))
    return " and ".join(one for one in made if one)


def _condition(path: str, value: Value) -> str:
    match value:
        case bool():
            return f"{path} == {str(value).lower()}"
        case int() | float():
            return f"{path} == {value!r}"
        case str():
            return f"{path} == {quoted(value)}"
        case list() | tuple() if value and all(isinstance(one, str) for one in value):
            return " and ".join(f"json_contains({path}, {quoted(one)})" for one in value)
        case _:  # more than that is decided by who compares what comes back
            return ""

"""Points of the Qdrant store as the server has them: payloads, filters and update operations.

A payload has the metadata under the user's names, the chunk's text as ``text``, and under ``_vectide`` what
is ours: ``row`` (id of the row's chunk 0, by which its points are found), ``table``, ``key``, ``chunk``,
``hash``, on chunk 0 ``stamp`` and ``values`` (the kept columns), and the stamp's position once more as
``log``, ``partition`` and ``offset``, because a filter cannot look into a list.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any, Final

from qdrant_client import models

from vectide.core.failures import Failure, Kind
from vectide.core.filters import FilterField, FilterType
from vectide.core.model import STAMP_KEY, TEXT_KEY, Position, Value
from vectide.ports import AdapterError, Vector
from vectide.stores.pointwise import Changes, Held, held_from, ours_of

ROW_FIELD: Final = f"{STAMP_KEY}.row"

Payload = dict[str, Any]


def payload_of(held: Held) -> Payload:
    """Everything of a point but its vector."""
    point = held.point
    ours: Payload = {"row": point.row.head_id, **ours_of(held)}
    if point.stamp is not None:
        position = point.stamp.position
        ours |= {"log": position.log, "partition": position.partition, "offset": position.offset}
    text = {} if point.text is None else {TEXT_KEY: point.text}
    return {**point.metadata, **text, STAMP_KEY: ours}


def held_of(id_: Any, payload: Payload | None, vector: Any = None) -> Held | None:
    """The point that has this payload; None when it is not one of ours."""
    ours = (payload or {}).get(STAMP_KEY)
    if payload is None or not isinstance(ours, dict) or "row" not in ours:
        return None
    metadata = {name: value for name, value in payload.items() if name not in (STAMP_KEY, TEXT_KEY)}
    return held_from(str(id_), ours, payload.get(TEXT_KEY), metadata, vector)


def vector_of(vectors: Any, name: str | None) -> Any:
    """The vector of that name (None: the only one)."""
    return vectors.get(name) if isinstance(vectors, dict) else vectors


# --- operations -----------------------------------------------------------------------------------------


def insertions(puts: Sequence[tuple[Held, Vector]], name: str | None) -> list[Any]:
    """New points, all in one operation. One that has come to be meanwhile is left alone."""
    if not puts:
        return []
    points = [_point(held, vector, name) for held, vector in puts]
    listed = models.PointsList(points=points, update_mode=models.UpdateMode.INSERT_ONLY)
    return [models.UpsertOperation(upsert=listed)]


def replacements(
    puts: Iterable[tuple[Held, Vector]], name: str | None, updates: Container[str] = ()
) -> list[Any]:
    """Points that are there, each unless it has come to hold something newer, and those of ``updates`` unless
    they have gone. Where points may have other vectors than ours, these stay; one that has gone fails."""
    operations: list[Any] = []
    for held, vector in puts:
        if name is None:
            mode = models.UpdateMode.UPDATE_ONLY if held.point.id in updates else None
            point = _point(held, vector, name)
            listed = models.PointsList(points=[point], update_filter=_not_newer(held), update_mode=mode)
            operations.append(models.UpsertOperation(upsert=listed))
            continue
        ours = models.PointVectors(id=held.point.id, vector={name: vector.tolist()})
        update = models.UpdateVectors(points=[ours], update_filter=_not_newer(held))
        operations.append(models.UpdateVectorsOperation(update_vectors=update))
        operations.append(_overwrite(held))
    return operations


def other_operations(changes: Changes) -> list[Any]:
    """Patches and removals."""
    operations: list[Any] = [_overwrite(held) for held in changes.patches]
    for row_id, stay, position in changes.removals:
        kept: list[Any] = [models.HasIdCondition(has_id=list(stay))] if stay else []
        kept += [] if position is None else [_newer(position)]
        found = models.Filter(must=[_equals(ROW_FIELD, row_id)], must_not=kept or None)
        operations.append(models.DeleteOperation(delete=models.FilterSelector(filter=found)))
    return operations


def _point(held: Held, vector: Vector, name: str | None) -> models.PointStruct:
    numbers: Any = vector.tolist() if name is None else {name: vector.tolist()}
    return models.PointStruct(id=held.point.id, vector=numbers, payload=payload_of(held))


def _overwrite(held: Held) -> models.OverwritePayloadOperation:
    """By a filter, which a point that is gone just does not match: naming it would fail the operation."""
    guard = _not_newer(held)
    chosen = models.Filter(
        must=[models.HasIdCondition(has_id=[held.point.id])], must_not=guard.must_not if guard else None
    )
    return models.OverwritePayloadOperation(
        overwrite_payload=models.SetPayload(payload=payload_of(held), filter=chosen)
    )


def _not_newer(held: Held) -> models.Filter | None:
    """Matches a point that does not hold a later position of the same log."""
    if held.point.stamp is None:
        return None
    return models.Filter(must_not=[_newer(held.point.stamp.position)])


def _newer(position: Position) -> models.Filter:
    """Matches a point that holds a later position of the same log."""
    return models.Filter(
        must=[
            _equals(f"{STAMP_KEY}.log", position.log),
            _equals(f"{STAMP_KEY}.partition", position.partition),
            models.FieldCondition(key=f"{STAMP_KEY}.offset", range=models.Range(gt=position.offset)),
        ]
    )


# --- filters --------------------------------------------------------------------------------------------


def conditions(filters: Mapping[str, Value]) -> models.Filter:
    """Matches at least the points of ours whose metadata equals ``filters``."""
    return models.Filter(must=[_condition(_path(name), value) for name, value in filters.items()])


#: Matches our points only.
OURS: Final = models.Filter(must_not=[models.IsEmptyCondition(is_empty=models.PayloadField(key=ROW_FIELD))])


def _condition(path: str, value: Value) -> Any:
    match value:
        case None:
            return models.IsNullCondition(is_null=models.PayloadField(key=path))
        case float():
            return models.FieldCondition(key=path, range=models.Range(gte=value, lte=value))
        case bool() | int() | str():
            return _equals(path, value)
        case list() | tuple() if value and all(isinstance(one, str) for one in value):
            return models.Filter(must=[_equals(path, one) for one in value])
        case _:  # more than that is decided by who compares what comes back
            return models.Filter(must_not=[models.IsNullCondition(is_null=models.PayloadField(key=path))])


def _equals(path: str, value: bool | int | str) -> models.FieldCondition:
    return models.FieldCondition(key=path, match=models.MatchValue(value=value))


def _path(name: str) -> str:
    """A name of metadata as a path, as the server spells it: quoted, so that dots and brackets are part of
    it, unless it is plain."""
    if re.fullmatch("[A-Za-z0-9_-]+", name):
        return name
    if '"' in name or not name:
        detail = "a filter on a name that Qdrant has no path for"
        raise AdapterError(Failure(Kind.REFUSED, "data", detail))
    return f'"{name}"'


# --- indexes --------------------------------------------------------------------------------------------

#: What an index of the payload is for a name that is filtered by.
_INDEX_TYPES: Final = {
    FilterType.TEXT: models.PayloadSchemaType.KEYWORD,
    FilterType.INTEGER: models.PayloadSchemaType.INTEGER,
    FilterType.NUMBER: models.PayloadSchemaType.FLOAT,
    FilterType.BOOLEAN: models.PayloadSchemaType.BOOL,
    FilterType.TIME: models.PayloadSchemaType.DATETIME,
}


#: Keeps the points of a tenant together.
_TENANT_INDEX: Final = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True)


def _is_tenant(index: models.PayloadIndexInfo) -> bool:
    return isinstance(index.params, models.KeywordIndexParams) and bool(index.params.is_tenant)


def missing_indexes(
    wanted: Iterable[FilterField], there: Mapping[str, models.PayloadIndexInfo]
) -> dict[str, Any]:
    """The path and the type of each index that is to be made. Raises :class:`AdapterError` (operator) where
    somebody has made one of another type."""
    missing: dict[str, Any] = {}
    for field in wanted:
        path, index = _path(field.name), _INDEX_TYPES[field.type]
        found = there.get(path)
        if found is None or (field.tenant and found.data_type == index and not _is_tenant(found)):
            missing[path] = _TENANT_INDEX if field.tenant else index
        elif found.data_type != index:
            detail = (
                f"its index of {field.name!r} is of type {found.data_type.value}, but {field.type.value} "
                f"needs {index.value}: declare its type, or drop the index"
            )
            raise AdapterError(Failure(Kind.OPERATOR, "index_mismatch", detail))
    return missing

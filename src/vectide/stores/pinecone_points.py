"""Points of the Pinecone store: a record has the table's metadata under the user's names, and what is ours
under names that begin with ``vectide_``: ``row`` (id of the row's chunk 0, by which its points are found),
``table``, ``key``, ``chunk``, ``hash``, ``text``, on chunk 0 ``stamp`` and ``values`` as JSON text, and
``digest`` of everything but the vector, which tells whether what was written can be seen.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from vectide.core.failures import Failure, Kind
from vectide.core.model import Value, canonical_json, short_hash
from vectide.core.values import ValueRefused, check_text
from vectide.ports import AdapterError, Capabilities
from vectide.stores.pointwise import Held, flat, held_from, ours_of

OURS: Final = "vectide_"

#: The field by which the points of a row are found.
ROW: Final = f"{OURS}row"

#: The field that changes with anything that is written but the vector.
DIGEST: Final = f"{OURS}digest"

#: What a look-up of stamps needs.
BRIEF: Final = (*(OURS + name for name in ("table", "key", "chunk", "hash", "stamp")), ROW, DIGEST)

#: How names begin that Pinecone keeps to itself.
_RESERVED: Final = ("$", "_", OURS)

#: What a record may hold beside its vector, in bytes of JSON.
MAX_FIELDS_BYTES: Final = 40_960


def fields_of(held: Held) -> dict[str, Any]:
    """Everything of a point but its id and its vector."""
    point = held.point
    ours: dict[str, Value] = {"row": point.row.head_id, **flat(ours_of(held))}
    if point.text is not None:
        ours["text"] = point.text
    fields = {**point.metadata, **{OURS + name: value for name, value in ours.items()}}
    return {**fields, DIGEST: short_hash(canonical_json(fields))}


def held_of(id_: str, fields: Mapping[str, Any], vector: Any = None) -> Held | None:
    """The point that has these fields; None when it is not one of ours."""
    if ROW not in fields:
        return None
    ours = {name.removeprefix(OURS): value for name, value in fields.items() if name.startswith(OURS)}
    theirs = {name: value for name, value in fields.items() if not name.startswith(_RESERVED)}
    return held_from(id_, ours, ours.get("text"), theirs, vector)


def check(points: Iterable[Held], field: str) -> None:
    """Raise :class:`AdapterError` (refused) for what Pinecone does not keep; ``field`` is the vector."""
    for held in points:
        for name in held.point.metadata:
            if not name or name == field or name.startswith(_RESERVED):
                detail = f"Pinecone keeps no metadata under the name {name!r}"
                raise AdapterError(Failure(Kind.REFUSED, "metadata_name", detail))
        fields = fields_of(held)
        _check_texts(fields)
        size = size_of(fields)
        if size > MAX_FIELDS_BYTES:
            detail = f"text and metadata of {size} bytes, Pinecone holds {MAX_FIELDS_BYTES}"
            raise AdapterError(Failure(Kind.REFUSED, "metadata_too_large", detail))


def _check_texts(fields: Mapping[str, Any]) -> None:
    """(Metadata has been made legal before; a text has not.)"""
    for name, value in fields.items():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str):
                try:
                    check_text(name, text, nul_in_text=False)
                except ValueRefused as refused:
                    raise AdapterError(Failure(Kind.REFUSED, "data", str(refused))) from None


def size_of(fields: Mapping[str, Any]) -> int:
    """Bytes of JSON."""
    return len(json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode())


def conditions(
    filters: Mapping[str, Value], able: Capabilities
) -> tuple[Mapping[str, Value], dict[str, Any] | None] | None:
    """The filters as their values were written, and the condition that at least their points meet (None:
    all do). None when no point can."""
    legal = able.legal(filters)
    if legal.keys() != filters.keys():
        return None
    clauses = [
        {name: {"$eq": one}}
        for name, value in legal.items()
        if name and not name.startswith(_RESERVED)
        for one in (value if isinstance(value, list) else [value])
    ]
    if len(clauses) > 1:
        return legal, {"$and": clauses}
    return legal, clauses[0] if clauses else None

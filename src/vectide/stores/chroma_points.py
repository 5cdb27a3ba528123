"""Points of the Chroma store as the server has them.

Metadata is flat there. It has the table's metadata under the user's names, and what is ours under names that
begin with ``_vectide_``: ``row`` (id of the row's chunk 0, by which its points are found), ``order`` (of the
id, for scans), ``table``, ``key``, ``chunk``, ``hash``, and on chunk 0 ``stamp`` and ``values`` as JSON text.
The text is the document.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from vectide.core.failures import Failure, Kind
from vectide.core.model import STAMP_KEY, Value
from vectide.ports import AdapterError, Capabilities
from vectide.stores.ordered_scans import order_of
from vectide.stores.pointwise import Held, flat, held_from, ours_of

_OURS: Final = f"{STAMP_KEY}_"

#: How names begin that Chroma refuses, or takes and forgets.
_RESERVED: Final = ("$", "#", "chroma:", _OURS)


def metadata_of(held: Held) -> dict[str, Value]:
    """Everything of a point but its vector and its text."""
    point = held.point
    ours = {"row": point.row.head_id, "order": order_of(point.id), **flat(ours_of(held))}
    return {**point.metadata, **{_OURS + name: value for name, value in ours.items()}}


def replaced(new: Mapping[str, Value], held: Held | None) -> dict[str, Value]:
    """What has to be sent so that exactly ``new`` is there afterwards."""
    old: Mapping[str, Value] = {} if held is None else metadata_of(held)
    return {**dict.fromkeys(old), **new}


def held_of(
    id_: str, metadata: Mapping[str, Any] | None, text: str | None, vector: Any = None
) -> Held | None:
    """The point that has this metadata; None when it is not one of ours."""
    if metadata is None or f"{_OURS}row" not in metadata:
        return None
    ours = {name.removeprefix(_OURS): value for name, value in metadata.items() if name.startswith(_OURS)}
    theirs = {name: value for name, value in metadata.items() if not name.startswith(_OURS)}
    return held_from(id_, ours, text or None, theirs, vector)


def check_names(points: Iterable[Held]) -> None:
    """Raise :class:`AdapterError` (refused) for a name of metadata that Chroma does not keep."""
    for held in points:
        for name in held.point.metadata:
            if not name or name.startswith(_RESERVED):
                detail = f"Chroma keeps no metadata under the name {name!r}"
                raise AdapterError(Failure(Kind.REFUSED, "metadata_name", detail))


def conditions(
    filters: Mapping[str, Value], able: Capabilities
) -> tuple[Mapping[str, Value], dict[str, Any] | None] | None:
    """The filters as their values were written, and the condition that at least their points meet (None:
    all do). None when no point can."""
    legal = able.legal(filters)
    if legal.keys() != filters.keys():
        return None
    clauses = [
        {name: {"$eq": value}}
        for name, value in legal.items()
        if not isinstance(value, list) and _is_path(name)
    ]
    if len(clauses) > 1:
        return legal, {"$and": clauses}
    return legal, clauses[0] if clauses else None


def _is_path(name: str) -> bool:
    return bool(name) and not name.startswith(_RESERVED)

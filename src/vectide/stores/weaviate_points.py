"""Points of the Weaviate store: the properties of its collections, and what is written.

``text`` can be searched by words. ``metadata`` is JSON text, so that it comes back exactly and needs no
types; what points are found by is beside it (:mod:`~vectide.stores.weaviate_filters`). ``row_id`` is the id
of the row's chunk 0, and ``_vectide`` (JSON text) what belongs to the service: ``table``, ``key``, ``chunk``,
``hash``, and on chunk 0 ``stamp`` and ``values``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from vectide.core.model import STAMP_KEY, canonical_json
from vectide.stores.pointwise import Held, held_from, ours_of
from vectide.stores.weaviate_filters import Typed, entries

#: The properties of every collection.
PROPERTIES: Final = (
    {"name": "text", "dataType": ["text"], "indexFilterable": False, "indexSearchable": True},
    {"name": "metadata", "dataType": ["text"], "indexFilterable": False, "indexSearchable": False},
    {
        "name": "filters",
        "dataType": ["text[]"],
        "tokenization": "field",
        "indexFilterable": True,
        "indexSearchable": False,
    },
    {"name": "row_id", "dataType": ["uuid"], "indexFilterable": True},
    {"name": STAMP_KEY, "dataType": ["text"], "indexFilterable": False, "indexSearchable": False},
)

#: What :func:`held_of` needs, as a query names it.
READ: Final = f"text metadata {STAMP_KEY}"


def whole(held: Held, typed: Iterable[Typed]) -> dict[str, Any]:
    """All properties of a point. Null: it has none of that name."""
    return {**patched(held, typed), "row_id": held.point.row.head_id, "text": held.point.text}


def patched(held: Held, typed: Iterable[Typed]) -> dict[str, Any]:
    """Those that a patch changes."""
    metadata = held.point.metadata
    return {
        "metadata": canonical_json(dict(metadata)),
        "filters": entries(metadata),
        STAMP_KEY: canonical_json(ours_of(held)),
        **{one.path: one.value_of(metadata) for one in typed},
    }


def held_of(id_: str, properties: Mapping[str, Any], vector: Any = None) -> Held:
    """The point that these properties are."""
    ours, metadata = (json.loads(properties[name]) for name in (STAMP_KEY, "metadata"))
    return held_from(id_, ours, properties.get("text"), metadata, vector)

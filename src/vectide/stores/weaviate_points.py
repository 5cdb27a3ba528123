"""Points of the Weaviate store: the properties of its collections, what is written, and conditions on them.

``text`` can be searched by words. ``metadata`` is JSON text, so that it comes back exactly and needs no
types; ``filters`` has an entry ``name=value`` for each scalar in it, with the value as JSON
(``color="red"``), by which points are found. ``row_id`` is the id of the row's chunk 0, and ``_vectide``
(JSON text) what belongs to the service: ``table``, ``key``, ``chunk``, ``hash``, and on chunk 0 ``stamp``
and ``values``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from vectide.core.model import STAMP_KEY, Value, canonical_json
from vectide.stores.pointwise import Held, held_from, ours_of

#: The properties of a collection.
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

#: Longer entries are left out of ``filters``: what finds nothing there is compared afterwards.
_MAX_ENTRY: Final = 500


def whole(held: Held) -> dict[str, Any]:
    """The properties of a point that is written whole."""
    made = {**patched(held), "row_id": held.point.row.head_id}
    return made if held.point.text is None else {**made, "text": held.point.text}


def patched(held: Held) -> dict[str, Any]:
    """The properties that a patch changes."""
    metadata = held.point.metadata
    return {
        "metadata": canonical_json(dict(metadata)),
        "filters": entries(metadata),
        STAMP_KEY: canonical_json(ours_of(held)),
    }


def held_of(id_: str, properties: Mapping[str, Any], vector: Any = None) -> Held:
    """The point that these properties are."""
    ours, metadata = (json.loads(properties[name]) for name in (STAMP_KEY, "metadata"))
    return held_from(id_, ours, properties.get("text"), metadata, vector)


# --- conditions -----------------------------------------------------------------------------------------


def entries(metadata: Mapping[str, Value]) -> list[str]:
    """What ``filters`` has for this metadata."""
    made = dict.fromkeys(entry for name, value in metadata.items() for entry in _entries(name, value))
    return [entry for entry in made if len(entry.encode()) <= _MAX_ENTRY]


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


def conditions(filters: Mapping[str, Value]) -> str:
    """Matches at least the points whose metadata equals ``filters``; empty: all."""
    wanted = entries(filters)
    return f'{{path:["filters"],operator:ContainsAll,valueText:{quoted(wanted)}}}' if wanted else ""


def among(property_: str, values: Iterable[str]) -> dict[str, Any]:
    """That a property has one of these values, as a document."""
    return {"path": [property_], "operator": "ContainsAny", "valueTextArray": list(values)}


def among_query(property_: str, values: Sequence[str]) -> str:
    """The same in a query."""
    return f"{{path:[{quoted(property_)}],operator:ContainsAny,valueText:{quoted(values)}}}"


def quoted(value: str | Sequence[str]) -> str:
    """A text, or a list of texts, in a query."""
    return json.dumps(value, ensure_ascii=False)

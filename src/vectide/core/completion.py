"""Where the value of a column comes from that the source left out of an event."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace

from vectide.core.mapping import TableMapping, value_hash
from vectide.core.model import Columns, Stamp, Upserted, Value, short_hash


def completed(change: Upserted, columns: Columns, *, present: bool = False) -> Upserted:
    """The change with those of its unavailable columns that ``columns`` has. What the event itself says
    stays. ``present``: they are of the row as it is, and not as it was before the change, which tells
    nothing about an offloaded column."""
    known = (change.unavailable if present else change.unavailable - change.offloaded) & columns.keys()
    if not known:
        return change
    filled = {**change.columns, **{name: columns[name] for name in known}}
    offloaded = change.offloaded - known
    return replace(change, columns=filled, unavailable=change.unavailable - known, offloaded=offloaded)


def carried(stamp: Stamp | None, mapping: TableMapping) -> Mapping[str, Value]:
    """The columns that a stored row hands over to the row that it became when its primary key changed.

    What is kept is the text of each embedded column, or the row's text where it is made of one column, which
    stands for the value where nothing but text is made of it. For a column that is metadata too, or looked at
    by the filter, it does so only if the text is the value, as the stored hash of the value shows. So does
    metadata, which a store may have in another spelling. A row that may be torn, stale or ahead hands over
    nothing: it may not be as it was when its key changed.
    """
    if stamp is None or not mapping.uses_stored:
        return {}
    if stamp.stale or stamp.open or stamp.ahead:
        return {}
    if stamp.values is None:
        stamp = replace(stamp, values=_told_by_text(stamp, mapping))
    return {**dict(_told_by_metadata(stamp, mapping)), **kept_values(stamp, mapping)}


def _told_by_text(stamp: Stamp, mapping: TableMapping) -> Mapping[str, str]:
    if stamp.text is None or mapping.chunking is not None or stamp.layout != mapping.layout:
        return {}
    value = mapping.template.value_in(stamp.text)
    return {} if value is None else dict.fromkeys(mapping.embed_columns, value)


def _told_by_metadata(stamp: Stamp, mapping: TableMapping) -> Iterator[tuple[str, Value]]:
    for field in mapping.metadata:
        if field.is_event or stamp.metadata is None:
            continue
        stored, told = stamp.metadata.get(field.name), stamp.columns.get(field.source)
        if value_hash(stored) == told:
            yield field.source, stored
        elif isinstance(stored, str) and short_hash(stored) == told:
            yield field.source, json.loads(stored)  # it is the value's canonical JSON


def kept_values(stamp: Stamp, mapping: TableMapping) -> Mapping[str, Value]:
    """The columns whose value the kept texts tell."""
    return {
        name: text
        for name, text in (stamp.values or {}).items()
        if name not in mapping.value_columns or stamp.columns.get(name) == value_hash(text)
    }

"""Where the value of a column comes from that the source left out of an event."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from vectide.core.mapping import TableMapping, value_hash
from vectide.core.model import Columns, Stamp, Upserted, Value


def completed(change: Upserted, columns: Columns) -> Upserted:
    """The change with those of its unavailable columns that ``columns`` has. What the event itself says
    stays."""
    known = change.unavailable & columns.keys()
    if not known:
        return change
    filled = {**change.columns, **{name: columns[name] for name in known}}
    return replace(change, columns=filled, unavailable=change.unavailable - known)


def carried(stamp: Stamp | None, mapping: TableMapping) -> Mapping[str, Value]:
    """The columns that a stored row hands over to the row that it became when its primary key changed.

    What is kept is the text of each embedded column, which stands for the value where nothing but text is
    made of it. For a column that is metadata too, or looked at by the filter, it does so only if the text is
    the value, as the stored hash of the value shows. A row that may be torn, stale or ahead hands over
    nothing: its text may not be the one that it had when its key changed.
    """
    if stamp is None or stamp.values is None or not mapping.uses_stored:
        return {}
    if stamp.stale or stamp.open or stamp.ahead:
        return {}
    return kept_values(stamp, mapping)


def kept_values(stamp: Stamp, mapping: TableMapping) -> Mapping[str, Value]:
    """The columns whose value the kept texts tell."""
    return {
        name: text
        for name, text in (stamp.values or {}).items()
        if name not in mapping.value_columns or stamp.columns.get(name) == value_hash(text)
    }

"""Soft deletes: a column that says that a row counts as deleted, in the many ways that sources say it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from vectide.core.model import Value
from vectide.core.render import render_value

_NOT_DELETED_TEXTS: Final = frozenset({"", "false", "f", "no", "n", "off", "infinity"})
_ZERO_TEXT: Final = re.compile(r"[+-]?0+(\.0*)?|(0000-00-00|1970-01-01)([t ]00:00:00(\.0+)?)?(z|\+00:00)?")
#: PostgreSQL's timestamp 'infinity' as Debezium sends it: microseconds, and milliseconds.
_INFINITE_TIMESTAMPS: Final = frozenset({9223372036825200000, 9223372036825200})


@dataclass(frozen=True, slots=True)
class SoftDelete:
    """A column that says that the row counts as deleted.

    With ``values`` the row is deleted when the column equals one of them, compared as values or as texts
    (``1`` matches 1, "1" and true). Without, any value means deleted, except those that sources use for
    "not deleted": null, false, 0, a zero date (also one that arrives as the epoch), infinity ("deleted
    never"), and the texts "", "0", "false", "f", "no", "n", "off".
    """

    column: str
    values: tuple[Value, ...] | None = None

    def says_deleted(self, value: Value) -> bool:
        """Whether this value of the column means that the row is deleted."""
        if self.values is None:
            return _means_deleted(value)
        text = render_value(value)
        return any(value == candidate or text == render_value(candidate) for candidate in self.values)


def _means_deleted(value: Value) -> bool:
    match value:
        case str():
            text = value.strip().lower()
            return text not in _NOT_DELETED_TEXTS and _ZERO_TEXT.fullmatch(text) is None
        case int():
            return value != 0 and value not in _INFINITE_TIMESTAMPS
    return bool(value)


def is_zero(value: Value) -> bool:
    """Empty, zero, false, null or a zero date: what a source puts into a column that it did not log."""
    return not value or (isinstance(value, str) and _ZERO_TEXT.fullmatch(value.strip().lower()) is not None)

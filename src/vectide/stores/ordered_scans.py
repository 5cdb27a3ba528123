"""Scans of stores that find points by ranges, but cannot give them in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from vectide.core.failures import Failure, Kind
from vectide.ports import AdapterError, Stored

#: Points are put in order by the first 13 hex digits of their id: a number that any store keeps exactly.
ORDER_BITS: Final = 52
_END: Final = 1 << ORDER_BITS


def order_of(id_: str) -> int:
    """Where a point stands in the order of ids; ids that share it are too rare to meet."""
    return int(id_.replace("-", "")[:13], 16)


def scan_ranges(
    cursor: str | None, limit: int, count: Callable[[], int], find: Callable[[int, int, int], list[Stored]]
) -> tuple[list[Stored], str | None]:
    """One page in id order of a store that finds points by ranges only.

    ``find(low, high, limit)`` gives at most so many points with an order from ``low`` up to, not including,
    ``high``. The ids are hashes, so that their number tells how wide a range has to be; one that holds too
    many is halved. The cursor is where the next page begins, and the width that was right.
    """
    if cursor is None:
        low, width = 0, max(1, _END * limit // (2 * max(1, count())))
    else:
        low, width = map(int, cursor.split(":"))
    while low < _END:
        found = find(low, min(low + width, _END), limit + 1)
        if len(found) > limit:
            if width == 1:
                raise AdapterError(Failure(Kind.OPERATOR, "scan", "more points of one order than fit a page"))
            width //= 2
            continue
        low += width
        if len(found) * 4 < limit:
            width *= 2
        if found:
            found.sort(key=lambda point: point.id)
            return found, f"{low}:{width}" if low < _END else None
    return [], None


def id_from(order: int) -> str:
    """The text at which ids of this :func:`order_of` and later ones begin."""
    digits = f"{order:013x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:]}" if order < _END else "g"

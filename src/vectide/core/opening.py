"""The open mark: how a row of several points is changed in a store that writes them one by one.

Chunk 0 is marked open first, and says which later chunks may exist from then on; it is closed last, by the
write that gives it its new stamp. In between, whoever finds the row sees that it may be torn.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from vectide.core.model import Stamp


def opened(stamp: Stamp | None, new: Stamp) -> Stamp:
    """What chunk 0 says while the row of ``stamp`` (None: there was none) is changed to ``new``.

    A row that was there keeps its position, columns and metadata hash: they tell of its last whole version,
    which completes the change when it comes again. One that was not there is unborn.
    """
    if stamp is None:
        return replace(new, open=True, position=new.position.before_all(), values=None)
    return replace(stamp, open=True, chunks=_either(stamp.chunks, new.chunks), values=None)


def _either(held: tuple[str, ...], new: tuple[str, ...]) -> tuple[str, ...]:
    """Chunk 0 as it is, and the later chunks of both, each as often as the list that has it more often."""
    missing = Counter(new[1:]) - Counter(held[1:])
    return (*held, *missing.elements())

"""JSON inside a text: columns of type json, and documents that a source writes as text.

A number that a 64-bit float cannot hold exactly becomes its digits as text, so that none is rounded
silently. Of two members with the same name the last one counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from decimal import Decimal, DecimalException
from typing import Final, NoReturn

from vectide.core.model import Value

#: Containers may hold each other this deep. Columns hardly nest at all; what reads the values recurses.
MAX_DEPTH: Final = 64


def read_json(text: str) -> Value:
    """The value that the text says. Raises ValueError when it is not JSON, nests deeper than
    :data:`MAX_DEPTH`, or holds a lone surrogate (which is not Unicode text)."""
    try:
        value = json.loads(text, parse_float=_exact, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("too deep") from None
    if nests_too_deep([value]):
        raise ValueError("too deep")
    if "\\ud" in text or "\\uD" in text:
        json.dumps(value, ensure_ascii=False).encode()
    return value


def nests_too_deep(values: Iterable[Value]) -> bool:
    """Whether containers nest beyond :data:`MAX_DEPTH`. Does not recurse."""
    level = [value for value in values if isinstance(value, (list, dict))]
    for _ in range(MAX_DEPTH):
        if not level:
            return False
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, (list, dict))
        ]
    return bool(level)


def _exact(digits: str) -> float | str:
    number = float(digits)
    try:
        return number if Decimal(repr(number)) == Decimal(digits) else digits
    except DecimalException:
        return digits


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")

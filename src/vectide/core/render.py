"""How a column's value becomes text: one rule for stream, backfill and every codec.

=============  =====================================================================================
value          text
=============  =====================================================================================
null           none (``None``), which is not the empty text
text           as it is, without NUL characters; a lone surrogate becomes U+FFFD
true, false    ``true``, ``false``
integer        its digits
float          the shortest digits that read back as the same number, without an exponent: ``1.0``,
               ``0.0000001``; not finite: ``NaN``, ``Infinity``, ``-Infinity``
decimal        plain, with the scale it has: ``12.50``
list           its elements' texts joined by ``", "``; nulls and empty texts are left out
object         canonical JSON (members sorted, no spaces)
=============  =====================================================================================

NUL and lone surrogates go because PostgreSQL cannot hold the one and embedding providers refuse the other.
Changing any of this changes the text of existing rows: then raise :data:`RENDERER_VERSION`.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Final

from vectide.core.model import Value, canonical_json

#: Part of every layout id, so that texts of different renderers are told apart.
RENDERER_VERSION: Final = 1

_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def render_value(value: Value) -> str | None:
    """The text of one value, None for null. Raises TypeError for what is not a :data:`Value`."""
    match value:
        case None:
            return None
        case str():
            return clean_text(value)
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return _render_float(value)
        case Decimal():
            return format(value, "f")
        case list() | tuple():
            return ", ".join(text for text in map(render_value, value) if text)
        case dict():
            return clean_text(canonical_json(value))
    raise TypeError(f"a value of type {type(value).__name__} has no text")


def clean_text(text: str) -> str:
    """The text without what stores or providers refuse: NUL characters and lone surrogates."""
    if "\x00" in text:
        text = text.replace("\x00", "")
    if not text.isascii():
        text = _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)
    return text


def is_blank(text: str | None) -> bool:
    """Nothing to embed: null, empty, or white space only."""
    return text is None or not text.strip()


def _render_float(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    shortest = repr(value)
    return format(Decimal(shortest), "f") if "e" in shortest else shortest

"""Where a text must not be cut: within a character as readers see it, which may be several code points.

The rules of Unicode's text segmentation (UAX 29) that matter to real texts, told from the properties that
the standard library knows; the rare rest (some prepended signs) may be cut apart.
"""

from __future__ import annotations

import unicodedata
from typing import Final

_JOINER: Final = "\u200d"
_VIRAMA: Final = 9
_EXTENDING: Final = frozenset({"Mn", "Mc", "Me"})


def is_inside_character(text: str, at: int, start: int = 0) -> bool:
    """Whether ``text[at - 1]`` and ``text[at]`` belong to one character; False at both ends of the text.

    A character is known to begin at ``start``: what is before it is not looked at.
    """
    if not start < at < len(text):
        return False
    before, after = text[at - 1], text[at]
    if after < "\u0300":
        return before == "\r" and after == "\n"
    return _extends(before, after) or _is_hangul(before, after) or _is_half_flag(text, at, start)


def _extends(before: str, after: str) -> bool:
    if after == _JOINER or before == _JOINER or unicodedata.category(after) in _EXTENDING:
        return True
    if "\U0001f3fb" <= after <= "\U0001f3ff" or "\U000e0020" <= after <= "\U000e007f":  # skin tones, tags
        return True
    return unicodedata.combining(before) == _VIRAMA and unicodedata.category(after) == "Lo"


def _is_hangul(before: str, after: str) -> bool:
    """Jamo are written as one syllable: leading consonants, then vowels, then trailing consonants."""
    if _is_leading(before):
        return _is_leading(after) or _is_vowel_or_trailing(after) or "\uac00" <= after <= "\ud7a3"
    return _is_vowel_or_trailing(after) and (_is_vowel_or_trailing(before) or "\uac00" <= before <= "\ud7a3")


def _is_leading(char: str) -> bool:
    return "\u1100" <= char <= "\u115f" or "\ua960" <= char <= "\ua97c"


def _is_vowel_or_trailing(char: str) -> bool:
    return "\u1160" <= char <= "\u11ff" or "\ud7b0" <= char <= "\ud7fb"


def _is_half_flag(text: str, at: int, start: int) -> bool:
    """Flags are pairs of regional indicators: an odd number of them before the cut halves one."""
    if not _is_indicator(text[at]):
        return False
    first = at
    while first > start and _is_indicator(text[first - 1]):
        first -= 1
    return (at - first) % 2 == 1


def _is_indicator(char: str) -> bool:
    return "\U0001f1e6" <= char <= "\U0001f1ff"

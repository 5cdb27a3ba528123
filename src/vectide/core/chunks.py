"""How a long text is cut into chunks, each an exact piece of it that is small enough for one vector.

A chunk ends at the last paragraph, else line, else sentence, else word that ends in the second half of what
fits; where there is none (an endless word, a script without spaces) it ends between two characters as
readers see them, and within one only when that alone is too large. White space at the ends of a chunk is
left out, so a chunk is never blank.

Where a chunk ends depends only on the text from its start on. So an edit changes the chunks around it, and
those behind it only until a chunk starts again where one started before.

Tokens are counted by a function that is given: the limit is the model's own wherever its tokenizer is at
hand. Changing any of this changes the chunks of existing rows: then raise :data:`CHUNKER_VERSION`.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from vectide.core.graphemes import is_inside_character
from vectide.core.value import value

#: Part of the layout of every table that is cut into chunks.
CHUNKER_VERSION: Final = 1

#: The chunks that a row may have at most: its stamp lists all of them, and a store has to take them at once.
MAX_CHUNKS: Final = 1000

CountTokens = Callable[[str], int]

#: A piece that fills this share of what fits is long enough, unless all the rest may fit.
_FULL: Final = 0.9
#: Characters of a token: a rest that is no longer than that may fit, wherever its tokens are short.
_LONG_TOKEN: Final = 8
#: Lengths estimated from the last count, before the rest of the search is by halving.
_ESTIMATES: Final = 6
#: Places of one kind that are tried as the end of a chunk; more are useless only in contrived texts.
_TRIES: Final = 50

_SPACE: Final = re.compile(r"\s*")
_CLOSERS: Final = "[\"'”’»)\\]」』）】]*"
_PARAGRAPH: Final = re.compile(r"\n[^\S\n]*(?=\n)")
_LINE: Final = re.compile(r"\n")
_SENTENCE: Final = re.compile(rf"[.!?…]{_CLOSERS}(?=\s)|[。！？｡]{_CLOSERS}")
_WORD: Final = re.compile(r"\s")
_GAP: Final = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class Chunking:
    """At most ``tokens`` tokens in a chunk; each but the first begins with up to ``overlap`` tokens of the
    one before it (at most half of ``tokens``)."""

    tokens: int
    overlap: int = 0

    @property
    def identity(self) -> str:
        """What a layout says about it."""
        return f"{CHUNKER_VERSION}:{self.tokens}:{self.overlap}"


@value
class Chunk:
    """A piece of a text, and its tokens as they were counted (None: they were not)."""

    text: str
    tokens: int | None = None


def chunks_of(text: str, chunking: Chunking, count: CountTokens) -> Iterator[Chunk]:
    """The chunks of ``text`` (stripped, not empty) in order.

    A text of at most ``chunking.tokens`` tokens is one chunk (if it is long for these, it may be two). None
    has more, unless it is a single code point that alone does. Lazy: who has enough of them stops.
    """
    start = done = 0  # the next chunk starts at ``start``; what is before ``done`` is in a chunk
    while done < len(text):
        found = _piece(text, start, done, chunking.tokens, count)
        if found is None:
            start = done
            continue
        end, tokens = found
        yield Chunk(text[start:end], tokens)
        done = _after_space(text, end)
        start = _overlap_start(text, start, end, chunking.overlap, count) or done


def _piece(text: str, start: int, done: int, limit: int, count: CountTokens) -> tuple[int, int] | None:
    """Where the chunk from ``start`` ends, and its tokens; None when it has no room for anything after
    ``done``, because it begins with too much overlap."""

    def measure(size: int) -> int:
        return count(text[start : start + size])

    size, tokens = _longest(len(text) - start, limit, measure)
    reach = start + size
    if reach == len(text):
        return reach, tokens
    while reach > done:
        end = _last_break(text, start, done + (reach - done) // 2, reach)
        size = len(text[start:end].rstrip())
        tokens = measure(size)
        if tokens <= limit or size == 1:
            return start + size, tokens
        reach = end - 1  # less text had more tokens, as it may when a word is cut
    return None


def _overlap_start(text: str, start: int, end: int, overlap: int, count: CountTokens) -> int | None:
    """Where the chunk after ``start`` to ``end`` starts, to begin with ``overlap`` tokens of it: at a
    sentence or a word, if one starts in the first half of these tokens. None when nothing fits."""
    most = end - start - 1
    if not overlap or not most:
        return None
    size, tokens = _longest(most, overlap, lambda size: count(text[end - size : end]))
    first, last = end - size, end - size // 2
    if tokens > overlap:
        return None
    for pattern in (_SENTENCE, _GAP):
        for found in pattern.finditer(text, first - 1, last):
            at = _after_space(text, found.end())
            if first <= at <= last:
                return at
    while first < end and is_inside_character(text, first, start):
        first += 1
    first = _after_space(text, first)
    return first if first < end else None


def _longest(most: int, limit: int, measure: Callable[[int], int]) -> tuple[int, int]:
    """A length up to ``most`` that fits ``limit`` tokens, not much shorter than the longest, and its tokens;
    ``most`` when that fits and is not unusually long. At least 1, even if that does not fit."""
    fits, held, over = 0, 0, most + 1
    length = min(most, limit)  # few tokens are less than a character: this one tells how dense the text is
    attempts = 0
    while over - fits > 1:
        tokens = measure(length)
        if tokens > limit:
            over = length
        else:
            fits, held = length, tokens
        if held < limit * _FULL:
            attempts += 1
            near = length * limit * 97 // (100 * max(1, tokens))
            length = near if attempts <= _ESTIMATES else (fits + over) // 2
            length = max(fits + 1, min(length, over - 1))
        elif over <= most or most > max(2 * fits, limit * _LONG_TOKEN):
            break
        else:
            length = most
    return (fits, held) if fits else (1, measure(1))


def _last_break(text: str, start: int, floor: int, reach: int) -> int:
    """The best place after ``floor`` and up to ``reach`` for the chunk from ``start`` to end."""
    for pattern in (_PARAGRAPH, _LINE, _SENTENCE, _WORD):
        found = deque(pattern.finditer(text, floor, min(len(text), reach + 1)), maxlen=_TRIES)
        for match in reversed(found):
            at = match.start() if match[0].isspace() else match.end()
            if floor < at <= reach and not is_inside_character(text, at, start):
                return at
    at = reach
    while at > floor and is_inside_character(text, at, start):
        at -= 1
    return at if at > floor else reach


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return at if found is None else found.end()

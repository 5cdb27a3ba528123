"""How many tokens a text costs, and which limits follow from it: counted by a tokenizer, or estimated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from vectide.ports import EmbedderLimits

#: UTF-8 bytes that :func:`estimate` takes for one token.
BYTES_PER_TOKEN: Final = 3


@dataclass(frozen=True, slots=True)
class Model:
    """What is known of a model without asking: its dimensions, the tokens that it reads of one text, and
    those that the provider accepts in one request (None: as many as the texts may have)."""

    dimensions: int
    text_tokens: int
    call_tokens: int | None = None


def estimate(text: str) -> int:
    """UTF-8 bytes / 3, rounded up, at least 1.

    That is more than the truth for prose and code (3.8 to 4.4 bytes per token in German and Python code)
    and about right for Chinese (3.1); less than the truth for emoji (1.45) and lists of UUIDs (1.95).
    """
    return max(1, -(-len(text.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN))


def counter_of(tokenizer: str | None) -> Callable[[str], int]:
    """Counts exactly with the ``tokenizer.json`` at that path, else estimates."""
    if tokenizer is None:
        return estimate
    from vectide.embedders.tokenizer_file import counter  # its SDK is needed by those only who name a file

    return counter(tokenizer)


def limits_of(items: int, call_tokens: int | None, text_tokens: int | None, *, exact: bool) -> EmbedderLimits:
    """The limits in tokens as the counter counts them; ``exact``: it counts as the provider does.

    Where tokens are estimated, keeping ``max_tokens`` and ``max_chunk_tokens`` keeps the provider's limits
    with certainty, and ``max_text_tokens`` is None: an estimate must not refuse a text that the provider
    would have taken.
    """
    if exact:
        return EmbedderLimits(items, call_tokens, text_tokens)
    # An estimate is at least bytes / 3, and a token is never less than a byte: a third of the provider's
    # limit, in estimated tokens, can therefore never exceed it.
    return EmbedderLimits(items, _third(call_tokens), max_chunk_tokens=_third(text_tokens))


def _third(tokens: int | None) -> int | None:
    return None if tokens is None else max(1, tokens // BYTES_PER_TOKEN)

"""From the vectors of a text's tokens to one of the text, as sentence-transformers makes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vectide.ports import Matrix

#: Vectors of the tokens, shape ``(texts, length, width)``, filled up at the end; and a number for each text:
#: how many of its tokens there really are, at least 1.
Tokens = npt.NDArray[np.float32]
Lengths = npt.NDArray[np.int64]


def pooled(poolings: Sequence[str], tokens: Tokens, lengths: Lengths, *, normalise: bool) -> Matrix:
    """One vector for each text, shape ``(texts, width * poolings)``."""
    vectors = np.concatenate([_WAYS[way](tokens, lengths) for way in poolings], axis=1)
    return unit(vectors) if normalise else vectors


def unit(vectors: Matrix) -> Matrix:
    """The vectors at unit length; those without a length stay what they are."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Matrix = vectors / np.maximum(norms, np.finfo(np.float32).tiny)
    return scaled


def _mask(tokens: Tokens, lengths: Lengths) -> npt.NDArray[np.bool_]:
    there: npt.NDArray[np.bool_] = np.arange(tokens.shape[1])[None, :, None] < lengths[:, None, None]
    return there


def _sum(tokens: Tokens, lengths: Lengths, weights: Any = 1) -> Any:
    return np.where(_mask(tokens, lengths), tokens * weights, np.float32(0)).sum(axis=1)


def _cls(tokens: Tokens, lengths: Lengths) -> Any:
    return tokens[:, 0]


def _last(tokens: Tokens, lengths: Lengths) -> Any:
    return tokens[np.arange(len(tokens)), lengths - 1]


def _max(tokens: Tokens, lengths: Lengths) -> Any:
    return np.where(_mask(tokens, lengths), tokens, np.float32(-np.inf)).max(axis=1)


def _mean(tokens: Tokens, lengths: Lengths) -> Any:
    return _sum(tokens, lengths) / lengths[:, None].astype(np.float32)


def _mean_by_root(tokens: Tokens, lengths: Lengths) -> Any:
    return _sum(tokens, lengths) / np.sqrt(lengths[:, None].astype(np.float32))


def _weighted_mean(tokens: Tokens, lengths: Lengths) -> Any:
    """A token weighs as much as its place in the text, counted from 1."""
    places = np.arange(1, tokens.shape[1] + 1, dtype=np.float32)[None, :, None]
    return _sum(tokens, lengths, places) / (lengths * (lengths + 1) / 2)[:, None].astype(np.float32)


_WAYS: Final[dict[str, Callable[[Tokens, Lengths], Any]]] = {
    "cls": _cls,
    "max": _max,
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_by_root,
    "weightedmean": _weighted_mean,
    "lasttoken": _last,
}

"""A deterministic embedder without a model or a dependency, for tests and dry runs.

A vector is a sum over the text's words and word pairs, each hashed to a coordinate and a sign (feature
hashing), so that texts that share words are near each other; a small share is derived from the exact text,
so that no two texts have the same vector and one that landed on the wrong row is found out. The same on
every machine and in every process.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import blake2b
from itertools import pairwise
from typing import Final
from zlib import crc32

import numpy as np

from vectide.embedders import checked, checked_texts, in_time
from vectide.ports import Deadline, EmbedderLimits, Embeddings, StartupRefused, Vector

#: A run of ASCII letters and digits, or one letter of any other script.
_WORD: Final = re.compile(r"[0-9a-z_]+|\w")
#: Length of the part that depends on the exact text, next to the words' length of 1.
_EXACT_SHARE: Final = 0.1
_SLICE: Final = 64


def expected_vector(text: str, dimensions: int) -> Vector:
    """The vector of ``text``: float32, shape ``(dimensions,)``, unit length. Pure and total."""
    vector = _exact(text, dimensions) * _EXACT_SHARE
    features = _features(text)
    if features:
        hashes = np.fromiter(features, dtype=np.uint32, count=len(features))
        signs = np.where(hashes & 0x80000000, 1.0, -1.0)
        words = np.bincount((hashes & 0x7FFFFFFF) % dimensions, weights=signs, minlength=dimensions)
        length = np.linalg.norm(words)
        if length:
            vector += words / length
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def _features(text: str) -> list[int]:
    words = [word.encode() for word in _WORD.findall(text.lower())]
    pairs = (b"%b %b" % pair for pair in pairwise(words))
    return [*map(crc32, words), *map(crc32, pairs)]


def _exact(text: str, dimensions: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """A unit vector without structure: the text's digest, repeated with a different offset each time."""
    digest = np.frombuffer(blake2b(text.encode("utf-8", "surrogatepass")).digest(), dtype=np.uint8)
    repeats = np.arange(dimensions) // digest.size
    spread = (np.resize(digest, dimensions).astype(np.int64) * (2 * repeats + 1) + repeats) % 256
    noise = spread - 127.5
    return noise / np.linalg.norm(noise)


class HashingEmbedder:
    """:class:`~vectide.ports.Embedder` over :func:`expected_vector`. Stateless, hence thread-safe."""

    def __init__(self, dimensions: int = 64) -> None:
        if dimensions < 1:
            raise StartupRefused(f"the embedder 'hashing' needs at least 1 dimension, not {dimensions}")
        self._dimensions = dimensions

    def prepare(self, deadline: Deadline) -> None:
        """Nothing to verify."""

    @property
    def space(self) -> str:
        return f"hashing/words-v1/{self._dimensions}"

    @property
    def dimensions(self) -> int:
        return self._dimensions

    @property
    def limits(self) -> EmbedderLimits:
        return EmbedderLimits(max_items=2048)

    def count_tokens(self, text: str) -> int:
        """Words of the text, at least 1: a token of this embedder is a word."""
        return max(1, len(_WORD.findall(text.lower())))

    def embed(self, texts: Sequence[str], deadline: Deadline) -> Embeddings:
        texts = checked_texts(texts)
        vectors: list[Vector] = []
        for start in range(0, len(texts), _SLICE):
            in_time(deadline)
            vectors += [expected_vector(text, self._dimensions) for text in texts[start : start + _SLICE]]
        tokens = sum(self.count_tokens(text) for text in texts)
        return checked(vectors, len(texts), self._dimensions, tokens)

    def embed_query(self, text: str, deadline: Deadline) -> Vector:
        vector: Vector = self.embed([text], deadline).vectors[0]
        return vector

    def close(self) -> None:
        """Nothing to release."""


create = HashingEmbedder

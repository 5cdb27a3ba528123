"""What static models share, which have a vector for each token of a vocabulary."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Final

from vectide.embedders import checked, checked_texts, in_time
from vectide.ports import Deadline, Embeddings, Vector

#: Texts that are tokenized at once.
_SLICE: Final = 64
#: Most texts in a call.
MAX_ITEMS: Final = 1024


class StaticEmbedder(ABC):
    """An :class:`~vectide.ports.Embedder` but for its space and limits, over a model that is loaded."""

    def __init__(self, dimensions: int) -> None:
        self._dimensions = dimensions

    def prepare(self, deadline: Deadline) -> None:  # noqa: B027
        """Nothing to verify: the model was loaded when this object was made."""

    @property
    def dimensions(self) -> int:
        return self._dimensions

    def count_tokens(self, text: str) -> int:
        """Tokens of the text, exactly, those that the model does not know included; at least 1."""
        return max(1, len(self._token_ids([text])[0]))

    def embed(self, texts: Sequence[str], deadline: Deadline) -> Embeddings:
        texts = checked_texts(texts)
        vectors: list[Vector] = []
        tokens = 0
        for start in range(0, len(texts), _SLICE):
            in_time(deadline)
            ids = self._token_ids(texts[start : start + _SLICE])
            tokens += sum(map(len, ids))
            vectors += [self._pooled(one) for one in ids]
        return checked(vectors, len(texts), self._dimensions, tokens)

    def embed_query(self, text: str, deadline: Deadline) -> Vector:
        vector: Vector = self.embed([text], deadline).vectors[0]
        return vector

    def close(self) -> None:  # noqa: B027
        """Nothing to release."""

    @abstractmethod
    def _token_ids(self, texts: list[str]) -> list[list[int]]:
        """Of each text."""

    @abstractmethod
    def _pooled(self, ids: list[int]) -> Vector:
        """One vector of all the tokens. Raises :class:`~vectide.ports.AdapterError` (refused) where there is
        none."""

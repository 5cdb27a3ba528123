"""WordLlama: a small static model (256 dimensions) that ships inside its wheel and works offline.

Loaded once per process. Pooling is done here instead of by the package's ``embed``: that one pads every
text of a slice to its longest, so a single long text costs gigabytes; here memory is bounded by the
vocabulary and a vector does not depend on what else is in the call.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, Final

import numpy as np

from vectide.core.failures import Failure, Kind
from vectide.embedders.static_model import MAX_ITEMS, StaticEmbedder
from vectide.ports import (
    AdapterError,
    EmbedderLimits,
    Matrix,
    StartupRefused,
    Vector,
)

MODEL: Final = "l2_supercat"
#: The model is trained so that a prefix of its vectors is a vector of its own.
DIMENSIONS: Final = (64, 128, 256)


@contextmanager
def _root_logger_untouched() -> Iterator[None]:
    """The package calls ``logging.basicConfig`` when imported: undo it."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        for handler in [h for h in root.handlers if h not in handlers]:
            root.removeHandler(handler)
        root.setLevel(level)


with _root_logger_untouched():
    import wordllama  # type: ignore[import-untyped]


@dataclass(frozen=True, slots=True)
class _Model:
    """``tokenizer`` is only ever read after loading (encoding is safe from several threads);
    ``weights`` has one row per token of its vocabulary."""

    tokenizer: Any
    weights: Matrix


_loading = Lock()


@cache
def _load() -> _Model:
    # The loader looks for the bundled tokenizer in a folder that is not there, then in cache_dir/tokenizers.
    try:
        loaded = wordllama.WordLlama.load(
            MODEL, cache_dir=Path(wordllama.__file__).parent, dim=256, disable_download=True
        )
    except FileNotFoundError as exc:
        raise StartupRefused(
            "the wordllama model is damaged: pip install --force-reinstall wordllama"
        ) from exc
    loaded.tokenizer.no_padding()
    return _Model(loaded.tokenizer, loaded.embedding)


def _model() -> _Model:
    with _loading:
        return _load()


class WordLlamaEmbedder(StaticEmbedder):
    """:class:`~vectide.ports.Embedder` over the bundled model; unit-length vectors, exact token counts."""

    def __init__(self, dimensions: int = 256) -> None:
        if dimensions not in DIMENSIONS:
            raise StartupRefused(
                f"wordllama has {', '.join(map(str, DIMENSIONS))} dimensions, not {dimensions}"
            )
        super().__init__(dimensions)
        self._model = _model()

    @property
    def space(self) -> str:
        return f"wordllama/{MODEL}/{self._dimensions}"

    @property
    def limits(self) -> EmbedderLimits:
        return EmbedderLimits(MAX_ITEMS)

    def _token_ids(self, texts: list[str]) -> list[list[int]]:
        encodings = self._model.tokenizer.encode_batch(texts, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def _pooled(self, ids: list[int]) -> Vector:
        """The mean of the tokens' rows, scaled to unit length. Counting first bounds the rows gathered by
        the vocabulary, however long the text is."""
        unique, counts = np.unique(np.asarray(ids, dtype=np.int64), return_counts=True)
        total = counts.astype(np.float32) @ self._model.weights[unique, : self._dimensions]
        length = np.linalg.norm(total)
        if not length:  # no tokens, or tokens that cancel out: there is nothing to say about this text
            raise AdapterError(Failure(Kind.REFUSED, "no_tokens"))
        pooled: Vector = (total / length).astype(np.float32)
        return pooled


create = WordLlamaEmbedder

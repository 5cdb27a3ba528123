"""Static models as small as they can be, in the folder that model2vec makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from model2vec.persistence import save_pretrained
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from vectide.testing.embedder_suite import TEXTS

DIMENSIONS = 32


def byte_tokenizer() -> Any:
    """Words of the texts, and bytes: there is no text without a token that it knows."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(TEXTS * 3, trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet))
    return tokenizer


def word_tokenizer() -> Any:
    """Whole words; all others are unknown."""
    words = {word: place for place, word in enumerate(["[UNK]", "a", "red", "chair", "green", "tea"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def make_static(
    folder: Path,
    tokenizer: Any = None,
    *,
    clusters: int | None = None,
    dtype: Any = np.float32,
    **config: Any,
) -> Path:
    """A model with random vectors, always the same. ``clusters``: tokens share so many vectors, and have
    weights, as after a quantisation of the vocabulary. ``config``: of the model's file of that name."""
    tokenizer = tokenizer or byte_tokenizer()
    size = tokenizer.get_vocab_size()
    random = np.random.default_rng(7)
    vectors = random.normal(size=(clusters or size, DIMENSIONS), scale=30)
    shared: dict[str, Any] = {}
    if clusters:
        shared["mapping"] = random.integers(clusters, size=size)
        shared["weights"] = random.uniform(0.5, 2, size=size)
    given: Any = {"normalize": True} | config
    save_pretrained(folder, vectors.astype(dtype), tokenizer, given, create_model_card=False, **shared)
    return folder

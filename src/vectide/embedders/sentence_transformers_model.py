"""A transformer of one's own in PyTorch: any text model of sentence-transformers, from a folder on this
machine. Nothing is fetched, and no code that comes with a model is run.

Pooling, normalisation, prompts and length are what the package makes of the folder. Calls take turns, as one
already uses every core (or the GPU). A text that is longer than the model reads is refused, where the package
would cut it off in silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Final

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from transformers.utils.logging import disable_progress_bar

from vectide.core.failures import Failure, Kind
from vectide.embedders import checked, checked_texts, in_time
from vectide.embedders.local_model import Turns, digest_of, folder_of
from vectide.embedders.start import PROBE, dimensions_of, quiet
from vectide.ports import (
    AdapterError,
    Deadline,
    EmbedderLimits,
    Embeddings,
    Matrix,
    StartupRefused,
    Vector,
)

_MAX_ITEMS: Final = 256
#: Of a tokenizer that was saved without a length: 10**30.
_NO_LENGTH: Final = 10**9
#: What a model's vectors can depend on. Graphs of other runtimes are not read.
_FILES: Final = frozenset({".bin", ".json", ".model", ".safetensors", ".txt"})
_OTHERS: Final = frozenset({"onnx", "openvino"})


class SentenceTransformersEmbedder:
    """:class:`~vectide.ports.Embedder` over the model in the folder ``model``, or over the model of that name
    that was downloaded before. On a GPU where PyTorch finds one.

    ``dimensions``: only the first so many numbers of each vector, for models that are trained for it.
    ``text_tokens``: most tokens of one text, where the folder does not say it or less is wanted.
    """

    def __init__(self, model: str, *, dimensions: int | None = None, text_tokens: int | None = None) -> None:
        quiet("sentence_transformers", "transformers")
        folder, self._name = folder_of(model)
        self._model = _loaded(folder, dimensions)
        self._configured = dimensions
        self._dimensions: int | None = None
        prompts = self._model.prompts
        self._documents, self._queries = prompts.get("document") or "", prompts.get("query") or ""
        # Shortened vectors are scaled again where the model scales them.
        self._normalises = any(type(part).__name__ == "Normalize" for part in self._model)
        self._digest = digest_of(self._documents, _files(folder))
        # The model's own is told in each call what to cut off, and by several threads.
        self._tokenizer = deepcopy(self._model.tokenizer.backend_tokenizer)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        first = self._model[0]
        self._max_tokens = _least(text_tokens, first.max_seq_length, first.document_length)
        self._max_query_tokens = _least(text_tokens, first.max_seq_length, first.query_length)
        self._turns = Turns()

    def prepare(self, deadline: Deadline) -> None:
        """One word goes through the model, and shows its dimensions."""
        vectors, _ = self._vectors([PROBE], deadline)
        self._dimensions = dimensions_of(list(vectors), self._name, self._configured)

    @property
    def space(self) -> str:
        kind = "/document" if self._documents != self._queries else ""
        return f"sentence-transformers/{self._name}-{self._digest}/{self.dimensions}{kind}"

    @property
    def dimensions(self) -> int:
        """Known after :meth:`prepare`."""
        if self._dimensions is None:
            raise RuntimeError("the dimension is not known before prepare()")
        return self._dimensions

    @property
    def limits(self) -> EmbedderLimits:
        return EmbedderLimits(_MAX_ITEMS, max_text_tokens=self._max_tokens)

    def count_tokens(self, text: str) -> int:
        """Exactly, with the prompt of a document and what the model adds around a text."""
        return len(self._tokenizer.encode(self._documents + text).ids)

    def embed(self, texts: Sequence[str], deadline: Deadline) -> Embeddings:
        return self._embed(texts, deadline)

    def embed_query(self, text: str, deadline: Deadline) -> Vector:
        vector: Vector = self._embed([text], deadline, query=True).vectors[0]
        return vector

    def close(self) -> None:
        """Nothing to release: the model goes with this object."""

    def _embed(self, texts: Sequence[str], deadline: Deadline, *, query: bool = False) -> Embeddings:
        vectors, tokens = self._vectors(checked_texts(texts), deadline, query=query)
        return checked(vectors, len(texts), self.dimensions, tokens)

    def _vectors(self, texts: list[str], deadline: Deadline, *, query: bool = False) -> tuple[Matrix, int]:
        in_time(deadline)
        prompt = self._queries if query else self._documents
        most = self._max_query_tokens if query else self._max_tokens
        encodings = self._tokenizer.encode_batch([prompt + text for text in texts])
        lengths = np.array([len(encoding.ids) for encoding in encodings], dtype=np.int64)
        vectors = self._turns.run(
            lengths,
            most,
            deadline,
            lambda places: self._run([texts[place] for place in places], query=query),
        )
        return vectors, int(lengths.sum())

    def _run(self, texts: list[str], *, query: bool) -> Matrix:
        encode = self._model.encode_query if query else self._model.encode_document
        try:
            vectors: Matrix = encode(
                texts,
                prompt=self._queries if query else self._documents,
                batch_size=len(texts),
                show_progress_bar=False,
                normalize_embeddings=self._normalises,
            )
        except Exception as error:  # noqa: BLE001  whatever a model's layers raise
            # Not chained: the message may show values.
            raise AdapterError(failure_of(error)) from None
        return vectors


create = SentenceTransformersEmbedder


def failure_of(error: Exception) -> Failure:
    """What it means that a run of the model failed."""
    name = type(error).__name__
    match error:
        case torch.OutOfMemoryError() | MemoryError():
            return Failure(Kind.TOO_LARGE, "out_of_memory", name)
        case IndexError():  # more tokens than the model has places for
            return Failure(Kind.REFUSED, "refused", name)
    return Failure(Kind.TRANSIENT, "inference_failed", name)


def _loaded(folder: Path, dimensions: int | None) -> SentenceTransformer:
    if not (folder / "modules.json").is_file():
        raise _refused(folder, "there is no modules.json: it is no folder of sentence-transformers")
    disable_progress_bar()
    try:
        model = SentenceTransformer(str(folder), local_files_only=True, truncate_dim=dimensions)
    except Exception as error:  # noqa: BLE001  the packages raise nothing more precise
        raise _refused(folder, f"sentence-transformers cannot load it ({type(error).__name__})") from None
    first = type(model[0]).__name__
    if first != "Transformer":
        hint = ": the kind model2vec reads it" if first == "StaticEmbedding" else ""
        raise _refused(folder, f"its first module is {first}, not Transformer{hint}")
    if "message" in model.modalities:
        raise _refused(folder, "its texts are put into a conversation, whose tokens cannot be counted")
    if not getattr(model.tokenizer, "is_fast", False):
        raise _refused(folder, "its tokenizer has no tokenizer.json")
    return model


def _least(*lengths: int | None) -> int | None:
    return min((one for one in lengths if one is not None and one < _NO_LENGTH), default=None)


def _files(folder: Path) -> list[Path]:
    found = (path for path in folder.rglob("*") if path.suffix in _FILES)
    return sorted(path for path in found if not _OTHERS & set(path.relative_to(folder).parts))


def _refused(folder: Path, what: str) -> StartupRefused:
    return StartupRefused(f"VECTIDE_EMBEDDER__MODEL: {folder}: {what}")

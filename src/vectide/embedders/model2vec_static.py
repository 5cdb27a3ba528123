"""model2vec: static models, a vector for each token of a vocabulary, from a folder on this machine.

Dimensions, normalisation, weights and the most tokens of a text are what the model's files say. The package
cuts a text off in silence, by tokens and before that by characters; here a longer text is refused. Pooling is
done here, because ``encode`` changes the tokenizer that other threads are using, and its memory grows with
the longest text: here it is bounded by the vocabulary.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from model2vec import StaticModel

from vectide.core.failures import Failure, Kind
from vectide.embedders.local_model import digest_of, folder_of
from vectide.embedders.start import quiet
from vectide.embedders.static_model import MAX_ITEMS, StaticEmbedder
from vectide.ports import AdapterError, EmbedderLimits, StartupRefused, Vector

_FILES: Final = ("model.safetensors", "tokenizer.json")


class Model2VecEmbedder(StaticEmbedder):
    """:class:`~vectide.ports.Embedder` over the model in the folder ``model``, or over the model of that name
    that was downloaded before; exact token counts.

    ``dimensions``: only the first so many numbers of each vector, for models that are made for it.
    ``text_tokens``: most tokens of one text, in place of what the model's files say (512 where they say
    nothing, as in the package): a static model can read texts of any length.
    """

    def __init__(self, model: str, *, dimensions: int | None = None, text_tokens: int | None = None) -> None:
        quiet("model2vec")
        folder, name = folder_of(model)
        self._model = _loaded(folder)
        super().__init__(self._model.dim if dimensions is None else dimensions)
        if self._dimensions > self._model.dim:
            raise StartupRefused(
                f"model {name!r} gives {self._model.dim} dimensions, "
                f"but {dimensions} are configured: change the setting or the model"
            )
        self._max_tokens = text_tokens or self._model.max_length
        # Of the package's layouts, the folder has one.
        files = [
            path for inner in ("", "0_StaticEmbedding") for path in map((folder / inner).joinpath, _FILES)
        ]
        digest = digest_of(repr(self._model.normalize), filter(Path.is_file, files))
        self._space = f"model2vec/{name}-{digest}/{self._dimensions}"

    @property
    def space(self) -> str:
        return self._space

    @property
    def limits(self) -> EmbedderLimits:
        return EmbedderLimits(MAX_ITEMS, max_text_tokens=self._max_tokens)

    def _token_ids(self, texts: list[str]) -> list[list[int]]:
        encodings = self._model.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def _pooled(self, ids: list[int]) -> Vector:
        """The mean of the known tokens' weighted rows, at unit length where the model says so."""
        if self._max_tokens is not None and len(ids) > self._max_tokens:
            detail = f"{len(ids)} tokens, the model reads {self._max_tokens}"
            raise AdapterError(Failure(Kind.REFUSED, "text_too_long", detail))
        model = self._model
        known = [one for one in ids if one != model.unk_token_id]
        if not known:
            raise AdapterError(Failure(Kind.REFUSED, "no_tokens"))
        unique, counts = np.unique(np.asarray(known, dtype=np.int64), return_counts=True)
        shares = (counts / len(known)).astype(np.float32)
        if model.weights is not None:
            shares *= model.weights[unique].astype(np.float32)
        places = unique if model.token_mapping is None else model.token_mapping[unique]
        vector: Vector = shares @ model.embedding[places, : self._dimensions].astype(np.float32)
        length = np.linalg.norm(vector)
        return vector / length if model.normalize and length else vector


def _loaded(folder: Path) -> Any:
    try:
        model = StaticModel.from_pretrained(folder)
    except Exception as error:  # noqa: BLE001  the package and those beneath it raise nothing more precise
        told = error if isinstance(error, ValueError) else type(error).__name__
        raise StartupRefused(f"VECTIDE_EMBEDDER__MODEL: model2vec cannot load {folder} ({told})") from None
    model.tokenizer.no_truncation()
    model.tokenizer.no_padding()
    return model


create = Model2VecEmbedder

"""A transformer of one's own in ONNX Runtime: any folder that sentence-transformers could load, with an ONNX
graph in it. Nothing is fetched, and torch is not needed.

Calls take turns, as one already uses every core (or the GPU). A text that is longer than the model reads is
refused, where sentence-transformers would cut it off in silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as states
from tokenizers import Encoding, Tokenizer, normalizers

from vectide.core.failures import Failure, Kind
from vectide.embedders import checked, checked_texts, in_time
from vectide.embedders.local_model import Turns
from vectide.embedders.onnx_folder import ModelFolder, read_folder
from vectide.embedders.onnx_pooling import pooled, unit
from vectide.embedders.start import PROBE, dimensions_of
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

#: The first of them that there is does the work.
_DEVICES: Final = ("CUDAExecutionProvider", "CPUExecutionProvider")
_OUTPUTS: Final = ("last_hidden_state", "token_embeddings")

#: What a run can fail with. That the graph does not fit its runtime is seen at start, if ever.
FAILURES: Final[dict[type[Exception], tuple[Kind, str]]] = {
    states.InvalidArgument: (Kind.REFUSED, "refused"),
    MemoryError: (Kind.TOO_LARGE, "out_of_memory"),
    **dict.fromkeys(
        (states.Fail, states.RuntimeException, states.EPFail, states.EngineError, states.DeviceReset),
        (Kind.TRANSIENT, "inference_failed"),
    ),
    **dict.fromkeys(
        (
            states.InvalidGraph,
            states.InvalidProtobuf,
            states.ModelLoadCanceled,
            states.ModelLoaded,
            states.ModelRequiresCompilation,
            states.NoModel,
            states.NoSuchFile,
            states.NotFound,
            states.NotImplemented,
        ),
        (Kind.OPERATOR, "bad_model"),
    ),
}


class OnnxEmbedder:
    """:class:`~vectide.ports.Embedder` over the model in the folder ``model`` (or over that graph, where a
    folder has several). Pooling, normalisation, prompts and length are what the folder says.

    ``dimensions``: only the first so many numbers of each vector, for models that are trained for it.
    ``text_tokens``: most tokens of one text, where the folder does not say it or less is wanted.
    """

    def __init__(self, model: str, *, dimensions: int | None = None, text_tokens: int | None = None) -> None:
        self._folder = read_folder(model)
        self._tokenizer = _tokenizer(self._folder)
        self._session = _session(self._folder)
        self._inputs, self._output = _signature(self._session)
        self._configured = dimensions
        self._dimensions: int | None = None
        known = [length for length in (text_tokens, self._folder.max_tokens) if length is not None]
        self._max_tokens = min(known, default=None)
        self._turns = Turns()

    def prepare(self, deadline: Deadline) -> None:
        """One word goes through the model, and shows its dimensions."""
        vectors, _ = self._vectors([PROBE], deadline)
        self._dimensions = dimensions_of(list(vectors), self._folder.name, self._configured)

    @property
    def space(self) -> str:
        folder = self._folder
        kind = "/document" if folder.documents != folder.queries else ""
        return f"onnx/{folder.name}/{self.dimensions}{kind}"

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
        return len(self._tokenizer.encode(self._folder.documents + text).ids)

    def embed(self, texts: Sequence[str], deadline: Deadline) -> Embeddings:
        return self._embed(texts, self._folder.documents, deadline)

    def embed_query(self, text: str, deadline: Deadline) -> Vector:
        vector: Vector = self._embed([text], self._folder.queries, deadline).vectors[0]
        return vector

    def close(self) -> None:
        """Nothing to release: the model goes with this object."""

    def _embed(self, texts: Sequence[str], prompt: str, deadline: Deadline) -> Embeddings:
        vectors, tokens = self._vectors([prompt + text for text in checked_texts(texts)], deadline)
        return checked(vectors, len(texts), self.dimensions, tokens)

    def _vectors(self, texts: list[str], deadline: Deadline) -> tuple[Matrix, int]:
        in_time(deadline)
        encodings = self._tokenizer.encode_batch(texts)
        lengths = np.array([len(encoding.ids) for encoding in encodings], dtype=np.int64)
        vectors = self._turns.run(
            lengths,
            self._max_tokens,
            deadline,
            lambda places: self._run([encodings[place] for place in places], lengths[places]),
        )
        return self._shortened(vectors), int(lengths.sum())

    def _run(self, encodings: Sequence[Encoding], lengths: Any) -> Matrix:
        shape = (len(encodings), int(lengths.max()))
        ids = np.full(shape, self._folder.padding, dtype=np.int64)
        types = np.zeros(shape, dtype=np.int64)
        for row, encoding in enumerate(encodings):
            ids[row, : lengths[row]] = encoding.ids
            types[row, : lengths[row]] = encoding.type_ids
        mask = (np.arange(shape[1]) < lengths[:, None]).astype(np.int64)
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        try:
            (tokens,) = self._session.run([self._output], {name: given[name] for name in self._inputs})
        except tuple(FAILURES) as error:
            # Not chained: the message may show values.
            raise AdapterError(failure_of(error)) from None
        folder = self._folder
        return pooled(folder.poolings, tokens.astype(np.float32), lengths, normalise=folder.normalises)

    def _shortened(self, vectors: Matrix) -> Matrix:
        if self._configured is None or self._configured >= vectors.shape[1]:
            return vectors
        shorter = vectors[:, : self._configured]
        return unit(shorter) if self._folder.normalises else shorter


create = OnnxEmbedder


def failure_of(error: Exception) -> Failure:
    """What it means that a run of the model failed."""
    kind, cause = FAILURES.get(type(error), (Kind.TRANSIENT, "inference_failed"))
    return Failure(kind, cause, type(error).__name__)


def _tokenizer(folder: ModelFolder) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_str(folder.tokenizer.read_text("utf-8"))
    except Exception:  # noqa: BLE001  the package raises nothing more precise
        raise StartupRefused(f"VECTIDE_EMBEDDER__MODEL: {folder.tokenizer} is no tokenizer.json") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if folder.lower_case:
        given = [tokenizer.normalizer] if tokenizer.normalizer is not None else []
        tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *given])
    return tokenizer


def _session(folder: ModelFolder) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Threads that wait busily would take the cores from everything else in the process.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    there = onnxruntime.get_available_providers()
    devices = [device for device in _DEVICES if device in there]
    try:
        return onnxruntime.InferenceSession(folder.graph, options, providers=devices)
    except tuple(FAILURES) as error:
        raise StartupRefused(
            f"VECTIDE_EMBEDDER__MODEL: ONNX Runtime cannot load {folder.graph} ({type(error).__name__})"
        ) from None


def _signature(session: onnxruntime.InferenceSession) -> tuple[list[str], str]:
    """The names of the inputs to give and of the output to take."""
    inputs = [one.name for one in session.get_inputs()]
    unknown = set(inputs) - {"input_ids", "attention_mask", "token_type_ids"}
    if unknown:
        raise StartupRefused(
            f"VECTIDE_EMBEDDER__MODEL: the graph wants {', '.join(sorted(unknown))}: only the encoder of a "
            "text model can be used"
        )
    outputs = {one.name: one.shape for one in session.get_outputs()}
    for name in (*_OUTPUTS, *outputs):
        if name in outputs and len(outputs[name]) == 3:
            return inputs, name
    raise StartupRefused("VECTIDE_EMBEDDER__MODEL: the graph gives no vectors of tokens to make one of")

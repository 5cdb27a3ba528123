"""Embedders: one module per provider, imported lazily by kind.

Every module offers ``create(**settings)``, which returns its :class:`~vectide.ports.Embedder`. Those of other
packages are found by their entry points. What all of them share is here: the check of what is sent
(:func:`checked_texts`) and of what comes back (:func:`checked`, invariant 9).
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Final, cast

import numpy as np

from vectide.core.failures import Failure, Kind
from vectide.core.pace import Allowance
from vectide.ports import (
    AdapterError,
    Deadline,
    Embedder,
    Embeddings,
    Matrix,
    MissingExtra,
    StartupRefused,
    Vector,
)

#: Kind of embedder -> module that makes it.
KINDS: Final[dict[str, str]] = {
    "azure": "vectide.embedders.openai_azure",
    "cohere": "vectide.embedders.cohere_embed",
    "gemini": "vectide.embedders.gemini_embed",
    "hashing": "vectide.embedders.hashing",
    "model2vec": "vectide.embedders.model2vec_static",
    "onnx": "vectide.embedders.onnx_model",
    "openai": "vectide.embedders.openai_compatible",
    "sentence-transformers": "vectide.embedders.sentence_transformers_model",
    "voyage": "vectide.embedders.openai_voyage",
    "wordllama": "vectide.embedders.wordllama_static",
}

#: Kind of embedder -> the extra that installs its SDK. A kind that is not here needs none.
EXTRAS: Final[dict[str, str]] = {
    "azure": "azure",
    "cohere": "cohere",
    "gemini": "gemini",
    "model2vec": "model2vec",
    "onnx": "onnx",
    "openai": "openai",
    "sentence-transformers": "sentence-transformers",
    "voyage": "voyage",
    "wordllama": "wordllama",
}

#: Entry points of other packages: kind -> what makes the embedder.
GROUP: Final = "vectide.embedders"

#: Settings that only tune: an embedder that has no use for one is not troubled with it.
_HINTS: Final = frozenset({"concurrency"})


def load(kind: str, **settings: Any) -> Embedder:
    """The embedder of that kind; its module and its SDK are imported now.

    A setting that is None counts as not given. Raises :class:`~vectide.ports.MissingExtra` when the SDK is
    not installed and :class:`~vectide.ports.StartupRefused` for an unknown kind or settings it cannot use.
    """
    create = _module(kind).create if kind in KINDS else _plugin(kind)
    given = {name: value for name, value in settings.items() if value is not None}
    known = inspect.signature(create).parameters
    unknown = sorted(given.keys() - known.keys() - _HINTS)
    if unknown:
        raise StartupRefused(f"the embedder {kind!r} takes no {', '.join(unknown)}: leave it out")
    absent = sorted(n for n, p in known.items() if p.default is inspect.Parameter.empty and n not in given)
    if absent:
        raise StartupRefused(f"the embedder {kind!r} needs a {', '.join(absent)}")
    return cast(Embedder, create(**{name: value for name, value in given.items() if name in known}))


def _module(kind: str) -> Any:
    try:
        return import_module(KINDS[kind])
    except ModuleNotFoundError as exc:
        extra = EXTRAS.get(kind)
        if extra is None or (exc.name or "").startswith("vectide"):
            raise
        message = f'the embedder {kind!r} needs {exc.name!r}: pip install "vectide[{extra}]"'
        raise MissingExtra(message) from exc


def _plugin(kind: str) -> Any:
    found = next(iter(entry_points(group=GROUP, name=kind)), None)
    if found is None:
        raise StartupRefused(f"unknown embedder {kind!r}: choose one of {', '.join(sorted(KINDS))}")
    try:
        return found.load()
    except Exception as exc:
        message = f"the embedder {kind!r} ({found.value}) cannot be loaded: {type(exc).__name__}: {exc}"
        raise StartupRefused(message) from exc


def checked_texts(texts: Sequence[str]) -> list[str]:
    """The texts, once it is certain that each can be sent: not blank, and Unicode that UTF-8 can hold.

    Raises :class:`AdapterError` (refused: ``blank_text`` or ``not_unicode``), so that the driver isolates
    the culprit exactly as if the provider had refused it, without having paid for a call.
    """
    if any(not text or text.isspace() for text in texts):
        raise AdapterError(Failure(Kind.REFUSED, "blank_text"))
    try:
        "\n".join(texts).encode()
    except UnicodeEncodeError:  # a lone surrogate; the exception holds the text, so it is not chained
        raise AdapterError(Failure(Kind.REFUSED, "not_unicode")) from None
    return list(texts)


def in_time(deadline: Deadline) -> None:
    """Raises :class:`AdapterError` (transient: ``timeout``) once the deadline has passed."""
    if deadline.passed:
        raise AdapterError(Failure(Kind.TRANSIENT, "timeout", "the deadline passed"))


def checked(
    vectors: Matrix | Sequence[Vector],
    count: int,
    dimensions: int,
    tokens: int | None = None,
    allowance: Allowance | None = None,
) -> Embeddings:
    """The answer to one call, if it is one vector per text and every vector is usable (invariant 9).

    ``vectors`` is a matrix or one array per text, already in the order of the texts: order is the adapter's
    duty. Returns float32, C-contiguous, shape ``(count, dimensions)``. Raises :class:`AdapterError`:

    - invalid ``wrong_count``: not one vector per text;
    - operator ``wrong_dimension``: every vector has the same other dimension, so model and settings differ;
    - invalid ``wrong_dimension``: some vectors have another dimension (or none at all);
    - invalid ``not_finite``: NaN or infinity in a vector, or a length beyond float32;
    - invalid ``zero_vector``: a vector without a direction.
    """
    if len(vectors) != count:
        raise _invalid("wrong_count", f"{len(vectors)} vectors for {count} texts")
    _check_dimensions(vectors, dimensions)
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows float32 is found just below
        matrix = np.ascontiguousarray(vectors, dtype=np.float32)
        squares = np.einsum("ij,ij->i", matrix, matrix)
    not_finite = np.count_nonzero(~np.isfinite(squares))
    if not_finite:
        raise _invalid("not_finite", f"{not_finite} of {count} vectors")
    zero = np.count_nonzero(squares == 0)
    if zero:
        raise _invalid("zero_vector", f"{zero} of {count} vectors")
    return Embeddings(matrix, tokens, allowance)


def _check_dimensions(vectors: Matrix | Sequence[Vector], dimensions: int) -> None:
    shapes = {vector.shape for vector in vectors}
    if shapes == {(dimensions,)}:
        return
    if len(shapes) == 1:
        (shape,) = shapes
        if len(shape) == 1 and shape[0] > 0:
            detail = f"the model gives {shape[0]} dimensions, {dimensions} are expected"
            raise AdapterError(Failure(Kind.OPERATOR, "wrong_dimension", detail))
    raise _invalid("wrong_dimension", f"shapes {sorted(shapes)[:4]}, expected ({dimensions},)")


def _invalid(cause: str, detail: str) -> AdapterError:
    return AdapterError(Failure(Kind.INVALID, cause, detail))

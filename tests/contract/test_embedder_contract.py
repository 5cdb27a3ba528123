"""What every embedder promises (the port in ``vectide.ports``), run against each of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from tests.tiny_static import make_static

from vectide.core.failures import Kind
from vectide.embedders import KINDS, checked, load
from vectide.ports import AdapterError, Embedder, StartupRefused
from vectide.testing.embedder_suite import *  # noqa: F403
from vectide.testing.embedder_suite import ODD_TEXTS, TEXTS, within
from vectide.testing.embedding_apis import AZURE, COHERE, GEMINI, VOYAGE
from vectide.testing.embedding_server import EmbeddingServer

#: A transformer as small as one can be.
TINY = Path(__file__).parents[1] / "data" / "models" / "tiny"


@contextmanager
def _hashing() -> Iterator[Embedder]:
    yield load("hashing", dimensions=96)


@contextmanager
def _wordllama() -> Iterator[Embedder]:
    yield load("wordllama")


@contextmanager
def _model2vec() -> Iterator[Embedder]:
    with TemporaryDirectory() as folder:
        yield load("model2vec", model=str(make_static(Path(folder) / "tiny")))


@contextmanager
def _onnx() -> Iterator[Embedder]:
    yield load("onnx", model=str(TINY))


@contextmanager
def _sentence_transformers() -> Iterator[Embedder]:
    yield load("sentence-transformers", model=str(TINY))


@contextmanager
def _openai() -> Iterator[Embedder]:
    with EmbeddingServer(dimensions=48, max_text_tokens=100_000) as server:
        embedder = load("openai", model="stub", base_url=server.url, api_key="key")
        try:
            yield embedder
        finally:
            embedder.close()


@contextmanager
def _cohere() -> Iterator[Embedder]:
    with EmbeddingServer(dimensions=48, max_text_tokens=100_000, max_items=96, api=COHERE) as server:
        embedder = load("cohere", model="stub", base_url=server.address, api_key="key")
        try:
            yield embedder
        finally:
            embedder.close()


@contextmanager
def _gemini() -> Iterator[Embedder]:
    with EmbeddingServer(dimensions=48, max_text_tokens=100_000, max_items=100, api=GEMINI) as server:
        embedder = load("gemini", model="stub", base_url=server.address, api_key="key")
        try:
            yield embedder
        finally:
            embedder.close()


@contextmanager
def _voyage() -> Iterator[Embedder]:
    with EmbeddingServer(dimensions=48, max_text_tokens=100_000, max_items=1000, api=VOYAGE) as server:
        embedder = load("voyage", model="stub", base_url=server.url, api_key="key")
        try:
            yield embedder
        finally:
            embedder.close()


@contextmanager
def _azure() -> Iterator[Embedder]:
    with EmbeddingServer(dimensions=48, max_text_tokens=100_000, api=AZURE) as server:
        embedder = load("azure", model="stub", base_url=server.address, api_key="key")
        try:
            yield embedder
        finally:
            embedder.close()


MAKERS: dict[str, Callable[[], AbstractContextManager[Embedder]]] = {
    "azure": _azure,
    "cohere": _cohere,
    "gemini": _gemini,
    "hashing": _hashing,
    "model2vec": _model2vec,
    "onnx": _onnx,
    "openai": _openai,
    "sentence-transformers": _sentence_transformers,
    "voyage": _voyage,
    "wordllama": _wordllama,
}


#: torch is not among what is installed for the tests.
ABSENT = {"sentence-transformers"} if find_spec("sentence_transformers") is None else set()
NOT_INSTALLED = pytest.mark.skip(reason='needs pip install "vectide[sentence-transformers]"')


@pytest.fixture(
    params=[pytest.param(kind, marks=[NOT_INSTALLED] if kind in ABSENT else []) for kind in sorted(MAKERS)]
)
def make_embedder(request: pytest.FixtureRequest) -> Iterator[Callable[[], Embedder]]:
    with ExitStack() as made:
        yield lambda: made.enter_context(MAKERS[request.param]())


def test_every_kind_of_embedder_runs_this_suite() -> None:
    assert set(MAKERS) == set(KINDS)


# --- loading --------------------------------------------------------------------------------------------


def test_unknown_kind_names_the_known_ones() -> None:
    with pytest.raises(StartupRefused, match=", ".join(sorted(KINDS))):
        load("nonesuch")


def test_setting_that_an_embedder_cannot_use_is_refused_by_name() -> None:
    with pytest.raises(StartupRefused, match="takes no base_url"):
        load("hashing", base_url="http://localhost", api_key=None)


def test_hint_that_an_embedder_cannot_use_is_ignored() -> None:
    assert load("hashing", dimensions=8, concurrency=4).dimensions == 8


def test_required_setting_is_asked_for_by_name() -> None:
    with pytest.raises(StartupRefused, match="needs a model"):
        load("openai", api_key="key")


def test_wordllama_leaves_the_root_logger_alone() -> None:
    code = (
        "import logging; root = logging.getLogger(); "
        "from vectide.embedders import load; load('wordllama'); "
        "assert not root.handlers and root.level == logging.WARNING"
    )
    _run_python(code)


def test_wordllama_pools_as_the_package_does() -> None:
    import wordllama  # type: ignore[import-untyped]

    folder = Path(wordllama.__file__).parent
    reference = wordllama.WordLlama.load(cache_dir=folder, disable_download=True)
    texts = [*TEXTS, *ODD_TEXTS[:-3]]
    ours = load("wordllama").embed(texts, within()).vectors
    assert np.allclose(ours, reference.embed(texts, norm=True), atol=1e-5)


def test_wordllama_shorter_vectors_are_prefixes() -> None:
    whole = load("wordllama").embed(TEXTS, within()).vectors
    short = load("wordllama", dimensions=64).embed(TEXTS, within()).vectors
    prefix = whole[:, :64] / np.linalg.norm(whole[:, :64], axis=1, keepdims=True)
    assert np.allclose(short, prefix, atol=1e-5)
    with pytest.raises(StartupRefused, match="not 100"):
        load("wordllama", dimensions=100)


def _run_python(code: str) -> None:
    import subprocess

    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)  # noqa: S603


# --- the check of every answer (invariant 9) ------------------------------------------------------------

GOOD = np.eye(3, 4, dtype=np.float32)


def _with(row: int, value: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    matrix = GOOD.copy()
    matrix[row] = value
    return matrix


def _failure(vectors: object, count: int = 3, dimensions: int = 4) -> tuple[Kind, str]:
    with pytest.raises(AdapterError) as caught:
        checked(vectors, count, dimensions)  # type: ignore[arg-type]
    return caught.value.failure.kind, caught.value.failure.cause


def test_good_answer_passes_the_check_with_its_tokens() -> None:
    answer = checked(list(GOOD.astype(np.float64)), 3, 4, tokens=7)
    assert answer.vectors.dtype == np.float32
    assert answer.vectors.flags.c_contiguous
    assert np.array_equal(answer.vectors, GOOD)
    assert answer.tokens == 7


@pytest.mark.parametrize("count", [0, 2, 4])
def test_wrong_count_is_found(count: int) -> None:
    assert _failure(GOOD, count=count) == (Kind.INVALID, "wrong_count")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_vector_without_a_finite_length_is_found(value: float) -> None:
    assert _failure(_with(1, value)) == (Kind.INVALID, "not_finite")


def test_number_beyond_float32_is_found() -> None:
    assert _failure([*GOOD[:2], np.array([1e300, 0, 0, 0])]) == (Kind.INVALID, "not_finite")


@pytest.mark.parametrize("value", [0.0, -0.0, 1e-30])
def test_vector_without_a_direction_is_found(value: float) -> None:
    assert _failure(_with(2, value)) == (Kind.INVALID, "zero_vector")


def test_other_dimension_of_the_whole_answer_is_for_the_operator() -> None:
    assert _failure(GOOD, dimensions=5) == (Kind.OPERATOR, "wrong_dimension")


def test_other_dimension_of_one_vector_is_an_invalid_answer() -> None:
    assert _failure([*GOOD[:2], GOOD[2][:3]]) == (Kind.INVALID, "wrong_dimension")


def test_empty_vectors_are_an_invalid_answer() -> None:
    assert _failure([GOOD[0][:0]] * 3) == (Kind.INVALID, "wrong_dimension")

"""What every embedder promises (the port in ``vectide.ports``), run against each of them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest

from vectide.core.chunks import Chunking, chunks_of
from vectide.core.failures import Kind
from vectide.embedders import KINDS, checked, load
from vectide.ports import AdapterError, Deadline, Embedder, StartupRefused
from vectide.testing.embedding_apis import AZURE, COHERE, GEMINI, VOYAGE
from vectide.testing.embedding_server import EmbeddingServer

#: A transformer as small as one can be.
TINY = Path(__file__).parents[1] / "data" / "models" / "tiny"


class RealClock:
    def monotonic(self) -> float:
        return time.monotonic()

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000


def within(seconds: float = 30) -> Deadline:
    return Deadline.after(RealClock(), seconds)


@contextmanager
def _hashing() -> Iterator[Embedder]:
    yield load("hashing", dimensions=96)


@contextmanager
def _wordllama() -> Iterator[Embedder]:
    yield load("wordllama")


@contextmanager
def _onnx() -> Iterator[Embedder]:
    yield load("onnx", model=str(TINY))


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
    "onnx": _onnx,
    "openai": _openai,
    "voyage": _voyage,
    "wordllama": _wordllama,
}

TEXTS = [
    "A red wooden chair for the kitchen",
    "Noise-cancelling headphones with a travel case",
    "Organic green tea from the mountains of Japan",
    "A blue wooden chair for the garden",
]

ODD_TEXTS = [
    "a",
    "0",
    "日本語の文章です。",
    "👩‍👩‍👧‍👦 🎉 emoji and é combining",
    "שלום עולם مرحبا بالعالم",
    "nul \x00 inside",
    "</s><|endoftext|><unk>",
    "\ufeffbyte order mark\u2028line separator",
    "x" * 100_000,
    '{"json": ["\\"quoted\\""]}',
    "e4eaaaf2-d142-11e1-b3e4-080027620cdd",
]


@pytest.fixture(params=sorted(MAKERS))
def embedder(request: pytest.FixtureRequest) -> Iterator[Embedder]:
    with MAKERS[request.param]() as made:
        made.prepare(within())
        yield made


def _refusal(embedder: Embedder, texts: list[str]) -> tuple[Kind, str]:
    with pytest.raises(AdapterError) as caught:
        embedder.embed(texts, within())
    return caught.value.failure.kind, caught.value.failure.cause


def test_every_kind_of_embedder_runs_this_suite() -> None:
    assert set(MAKERS) == set(KINDS)


def test_space_names_the_dimension_and_is_settled_by_prepare(embedder: Embedder) -> None:
    assert embedder.dimensions > 0
    assert str(embedder.dimensions) in embedder.space.split("/")


def test_answer_is_one_float32_row_per_text(embedder: Embedder) -> None:
    vectors = embedder.embed(TEXTS, within()).vectors
    assert vectors.shape == (len(TEXTS), embedder.dimensions)
    assert vectors.dtype == np.float32
    assert vectors.flags.c_contiguous
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_rows_are_in_the_order_of_the_texts(embedder: Embedder) -> None:
    together = embedder.embed(TEXTS, within()).vectors
    for text, vector in zip(TEXTS, together, strict=True):
        assert np.allclose(embedder.embed([text], within()).vectors[0], vector, atol=1e-6)
    assert np.allclose(embedder.embed(TEXTS[::-1], within()).vectors, together[::-1], atol=1e-6)
    assert len({vector.tobytes() for vector in together}) == len(TEXTS)


def test_a_vector_does_not_depend_on_its_neighbours(embedder: Embedder) -> None:
    alone = embedder.embed(TEXTS[:1], within()).vectors[0]
    among_odd = embedder.embed([*ODD_TEXTS, TEXTS[0]], within()).vectors[-1]
    assert np.allclose(alone, among_odd, atol=1e-6)


@pytest.mark.parametrize("kind", sorted(MAKERS))
def test_two_instances_give_the_same_vectors(kind: str) -> None:
    answers = []
    for _ in range(2):
        with MAKERS[kind]() as embedder:
            embedder.prepare(within())
            answers.append(embedder.embed(TEXTS, within()).vectors)
    assert np.array_equal(answers[0], answers[1])


def test_same_text_twice_in_a_call_is_answered_twice(embedder: Embedder) -> None:
    vectors = embedder.embed([TEXTS[0], TEXTS[1], TEXTS[0]], within()).vectors
    assert np.array_equal(vectors[0], vectors[2])
    assert not np.array_equal(vectors[0], vectors[1])


def test_texts_of_every_script_are_embedded(embedder: Embedder) -> None:
    vectors = embedder.embed(ODD_TEXTS, within()).vectors
    assert len({vector.tobytes() for vector in vectors}) == len(ODD_TEXTS)


def test_a_full_call_is_accepted(embedder: Embedder) -> None:
    texts = [f"item {number}" for number in range(embedder.limits.max_items)]
    assert embedder.embed(texts, within()).vectors.shape[0] == len(texts)


def test_related_texts_are_nearer_than_unrelated_ones(embedder: Embedder) -> None:
    red_chair, headphones, tea, blue_chair = embedder.embed(TEXTS, within()).vectors
    assert red_chair @ blue_chair > max(red_chair @ headphones, red_chair @ tea)


def test_query_finds_its_document(embedder: Embedder) -> None:
    documents = embedder.embed(TEXTS, within()).vectors
    query = embedder.embed_query("wooden chair for the garden", within())
    assert query.shape == (embedder.dimensions,)
    assert query.dtype == np.float32
    assert int(np.argmax(documents @ query)) == 3


@pytest.mark.parametrize("blank", ["", " ", "\n\t "])
def test_blank_text_is_refused_before_it_is_sent(embedder: Embedder, blank: str) -> None:
    assert _refusal(embedder, ["good", blank]) == (Kind.REFUSED, "blank_text")


def test_lone_surrogate_is_refused_and_named_nowhere(embedder: Embedder) -> None:
    with pytest.raises(AdapterError) as caught:
        embedder.embed(["good", "secret \ud800"], within())
    assert caught.value.failure.kind is Kind.REFUSED
    assert caught.value.failure.cause == "not_unicode"
    assert "secret" not in str(caught.value)


def test_passed_deadline_is_a_transient_failure(embedder: Embedder) -> None:
    with pytest.raises(AdapterError) as caught:
        embedder.embed(TEXTS, within(-1))
    assert caught.value.failure.kind is Kind.TRANSIENT
    assert caught.value.failure.cause == "timeout"


def test_eight_threads_get_the_answers_of_one(embedder: Embedder) -> None:
    calls = [[f"thread {thread} text {n}" for n in range(20)] for thread in range(24)]
    expected = [embedder.embed(texts, within()).vectors for texts in calls]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda texts: embedder.embed(texts, within()).vectors, calls))
    for answer, wanted in zip(answers, expected, strict=True):
        assert np.array_equal(answer, wanted)


def test_token_count_is_positive_and_grows_with_the_text(embedder: Embedder) -> None:
    assert all(embedder.count_tokens(text) >= 1 for text in [*ODD_TEXTS, "."])
    assert embedder.count_tokens(" ".join(TEXTS)) > max(map(embedder.count_tokens, TEXTS))


@pytest.mark.parametrize(
    "text",
    [
        " ".join(TEXTS) * 20,
        "endless" * 3000,
        "\U0001f469\u200d\U0001f467" * 500,
        "e\u0301" * 2000,
        "日本語の文。" * 500,
        "0b5f3c0e-5a0b-4a45-9c4e-0d4f2d0b7a11 " * 200,
        "a" + "\n" * 5000 + "b",
    ],
    ids=["prose", "word", "emoji", "combining", "japanese", "uuids", "line ends"],
)
def test_chunks_of_any_text_keep_their_size_and_are_embedded(embedder: Embedder, text: str) -> None:
    """Case 80."""
    chunks = list(chunks_of(text.strip(), Chunking(64), embedder.count_tokens))
    assert all(embedder.count_tokens(chunk.text) <= 64 for chunk in chunks)
    assert "".join("".join(chunk.text.split()) for chunk in chunks) == "".join(text.split())
    for start in range(0, len(chunks), embedder.limits.max_items):
        some = [chunk.text for chunk in chunks[start : start + embedder.limits.max_items]]
        assert len(embedder.embed(some, within()).vectors) == len(some)


def test_tokens_of_an_answer_are_reported(embedder: Embedder) -> None:
    assert (embedder.embed(TEXTS, within()).tokens or 0) >= len(TEXTS)


def test_prepare_may_be_called_again(embedder: Embedder) -> None:
    before = embedder.space
    embedder.prepare(within())
    assert embedder.space == before


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

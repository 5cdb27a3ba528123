"""What every embedder promises (the port in :mod:`vectide.ports`), as tests for any of them.

For whoever writes one: import everything from here into a test module, and give it a fixture
``make_embedder``, which returns a function that makes the embedder; see docs/plugins.md. Needs pytest.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from vectide.core.chunks import Chunking, chunks_of
from vectide.core.failures import Kind
from vectide.ports import AdapterError, Deadline, Embedder


class RealClock:
    """The time as it is."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000


def within(seconds: float = 30) -> Deadline:
    """So many seconds from now."""
    return Deadline.after(RealClock(), seconds)


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


@pytest.fixture
def embedder(make_embedder: Callable[[], Embedder]) -> Embedder:
    """One that is ready for use."""
    made = make_embedder()
    made.prepare(within())
    return made


def fitting(embedder: Embedder) -> list[str]:
    """The odd texts that the model reads."""
    limit = embedder.limits.max_text_tokens
    return [text for text in ODD_TEXTS if limit is None or embedder.count_tokens(text) <= limit]


def _refusal(embedder: Embedder, texts: list[str]) -> tuple[Kind, str]:
    with pytest.raises(AdapterError) as caught:
        embedder.embed(texts, within())
    return caught.value.failure.kind, caught.value.failure.cause


def test_space_names_the_dimension_and_is_settled_by_prepare(embedder: Embedder) -> None:
    assert embedder.dimensions > 0
    assert str(embedder.dimensions) in embedder.space.split("/")


def test_answer_is_one_float32_row_per_text(embedder: Embedder) -> None:
    vectors = embedder.embed(TEXTS, within()).vectors
    assert vectors.shape == (len(TEXTS), embedder.dimensions)
    assert vectors.dtype == np.float32
    assert vectors.flags.c_contiguous


def test_rows_are_in_the_order_of_the_texts(embedder: Embedder) -> None:
    together = embedder.embed(TEXTS, within()).vectors
    for text, vector in zip(TEXTS, together, strict=True):
        assert np.allclose(embedder.embed([text], within()).vectors[0], vector, atol=1e-6)
    assert np.allclose(embedder.embed(TEXTS[::-1], within()).vectors, together[::-1], atol=1e-6)
    assert len({vector.tobytes() for vector in together}) == len(TEXTS)


def test_a_vector_does_not_depend_on_its_neighbours(embedder: Embedder) -> None:
    alone = embedder.embed(TEXTS[:1], within()).vectors[0]
    among_odd = embedder.embed([*fitting(embedder), TEXTS[0]], within()).vectors[-1]
    assert np.allclose(alone, among_odd, atol=1e-6)


def test_two_instances_give_the_same_vectors(make_embedder: Callable[[], Embedder]) -> None:
    answers = []
    for _ in range(2):
        made = make_embedder()
        made.prepare(within())
        answers.append(made.embed(TEXTS, within()).vectors)
    assert np.array_equal(answers[0], answers[1])


def test_same_text_twice_in_a_call_is_answered_twice(embedder: Embedder) -> None:
    vectors = embedder.embed([TEXTS[0], TEXTS[1], TEXTS[0]], within()).vectors
    assert np.array_equal(vectors[0], vectors[2])
    assert not np.array_equal(vectors[0], vectors[1])


def test_texts_of_every_script_are_embedded(embedder: Embedder) -> None:
    texts = fitting(embedder)
    assert len(texts) >= len(ODD_TEXTS) - 1
    vectors = embedder.embed(texts, within()).vectors
    assert len({vector.tobytes() for vector in vectors}) == len(texts)


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

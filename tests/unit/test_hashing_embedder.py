"""The hashing embedder's function: total, stable, and different for different texts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vectide.embedders.hashing import HashingEmbedder, expected_vector
from vectide.ports import StartupRefused


@given(st.text(), st.integers(1, 300))
def test_every_text_has_a_vector_of_unit_length(text: str, dimensions: int) -> None:
    vector = expected_vector(text, dimensions)
    assert vector.shape == (dimensions,)
    assert vector.dtype == np.float32
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


@given(st.text(), st.text())
def test_different_texts_have_different_vectors(one: str, other: str) -> None:
    same = np.array_equal(expected_vector(one, 64), expected_vector(other, 64))
    assert same == (one == other)


def test_order_of_words_and_white_space_make_a_difference() -> None:
    texts = ["red chair", "chair red", "red  chair", "Red chair", "red chair "]
    assert len({expected_vector(text, 64).tobytes() for text in texts}) == len(texts)


def test_vectors_are_the_same_in_every_version() -> None:
    vector = expected_vector("A red chair, 日本", 8)
    assert np.allclose(vector, PINNED, atol=1e-6), vector.tolist()


PINNED = [0.020613, -0.006148, 0.551142, 0.829425, -0.047374, -0.004701, 0.073411, -0.01338]


def test_texts_that_share_words_are_near() -> None:
    def likeness(one: str, other: str) -> float:
        return float(expected_vector(one, 256) @ expected_vector(other, 256))

    long = "a sturdy red kitchen chair made of oak wood with a soft seat"
    assert likeness(long, long + " and arms") > 0.8
    assert likeness(long, "wireless headphones, black, thirty hours of battery") < 0.4


def test_impossible_dimension_is_refused_with_the_number() -> None:
    with pytest.raises(StartupRefused, match="not 0"):
        HashingEmbedder(dimensions=0)

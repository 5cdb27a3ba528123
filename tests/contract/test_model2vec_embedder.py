"""Static models: the vectors that the package makes, and nothing cut off."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model2vec import StaticModel
from tests.tiny_static import DIMENSIONS, make_static, word_tokenizer

from vectide.core.failures import Kind
from vectide.embedders import load
from vectide.ports import AdapterError, Embedder, StartupRefused
from vectide.testing.embedder_suite import ODD_TEXTS, TEXTS, within

ALL_TEXTS = [*TEXTS, *ODD_TEXTS]


def refusal(embedder: Embedder, *texts: str) -> tuple[Kind, str]:
    with pytest.raises(AdapterError) as caught:
        embedder.embed(texts, within())
    return caught.value.failure.kind, caught.value.failure.cause


@pytest.mark.parametrize(
    "made",
    [
        {},
        {"normalize": False},
        {"clusters": 20},
        {"clusters": 20, "normalize": False},
        {"dtype": np.float16},
        {"dtype": np.int8},
    ],
    ids=str,
)
def test_vectors_are_those_of_the_package(tmp_path: Path, made: Mapping[str, Any]) -> None:
    folder = make_static(tmp_path, **made)
    ours = load("model2vec", model=str(folder), text_tokens=200_000).embed(ALL_TEXTS, within()).vectors
    theirs = StaticModel.from_pretrained(folder, max_length=None).encode(ALL_TEXTS).astype(np.float32)
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    assert (np.einsum("ij,ij->i", ours, theirs) / lengths).min() > 0.99999
    assert np.allclose(ours, theirs, rtol=1e-2, atol=1e-2 * np.abs(theirs).max())


def test_words_that_the_model_does_not_know_count_but_have_no_part_in_the_vector(tmp_path: Path) -> None:
    folder = make_static(tmp_path, word_tokenizer())
    embedder = load("model2vec", model=str(folder))
    some = embedder.embed(["a red chair", "a red wooden chair"], within())
    assert np.allclose(some.vectors[0], some.vectors[1])
    assert some.tokens == 7
    assert embedder.count_tokens("a red wooden chair") == 4
    assert refusal(embedder, "a red chair", "wooden") == (Kind.REFUSED, "no_tokens")


def test_a_text_that_is_too_long_is_refused_and_not_cut_off(tmp_path: Path) -> None:
    folder = make_static(tmp_path, word_tokenizer(), max_length=10)
    embedder = load("model2vec", model=str(folder))
    assert embedder.limits.max_text_tokens == 10
    ten = " ".join(["red", "chair"] * 5)
    ends_in_tea = " ".join([*["red"] * 9, "tea"])
    made = embedder.embed([ten, ends_in_tea, " ".join(["red"] * 9)], within()).vectors
    assert not np.allclose(made[1], made[2])  # the last word counts, where the package cuts by characters
    assert refusal(embedder, ten, ten + " tea") == (Kind.REFUSED, "text_too_long")


@pytest.mark.parametrize(
    ("config", "given", "limit"),
    [({}, None, 512), ({"max_length": None}, None, None), ({}, 4000, 4000), ({"max_length": 100}, 50, 50)],
)
def test_length_is_what_the_model_or_the_setting_says(
    tmp_path: Path, config: Mapping[str, Any], given: int | None, limit: int | None
) -> None:
    folder = make_static(tmp_path, **config)
    assert load("model2vec", model=str(folder), text_tokens=given).limits.max_text_tokens == limit


def test_shorter_vectors_are_prefixes(tmp_path: Path) -> None:
    folder = make_static(tmp_path)
    short = load("model2vec", model=str(folder), dimensions=8).embed(TEXTS, within()).vectors
    theirs = StaticModel.from_pretrained(folder, dimensionality=8).encode(TEXTS)
    assert np.allclose(short, theirs, atol=1e-5)
    with pytest.raises(StartupRefused, match=f"gives {DIMENSIONS} dimensions, but 64 are configured"):
        load("model2vec", model=str(folder), dimensions=64)


def test_space_is_the_same_wherever_the_model_is_and_another_for_another_model(tmp_path: Path) -> None:
    made: list[Mapping[str, Any]] = [{}, {}, {"normalize": False}, {"clusters": 20}]
    spaces = [
        load("model2vec", model=str(make_static(tmp_path / str(number) / "tiny", **one))).space
        for number, one in enumerate(made)
    ]
    assert spaces[0].startswith("model2vec/tiny-")
    assert spaces[0] == spaces[1]
    assert len(set(spaces)) == 3


def test_a_model_that_was_downloaded_before_is_found_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a model hub's client keeps them. What was not downloaded is refused, not fetched."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    kept = tmp_path / "models--someone--tiny-static"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text("0123abc", "utf-8")
    folder = make_static(kept / "snapshots" / "0123abc")
    by_name = load("model2vec", model="someone/tiny-static")
    assert by_name.space.startswith("model2vec/tiny-static-")
    assert by_name.embed(TEXTS, within()).vectors.shape == (len(TEXTS), DIMENSIONS)
    by_path = load("model2vec", model=str(folder))
    assert by_path.space == by_name.space.replace("tiny-static", "0123abc")
    with pytest.raises(StartupRefused, match="no model of that name was downloaded before"):
        load("model2vec", model="someone/another")


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"config.json": None}, "model2vec cannot load .*Could not find expected model files"),
        ({"config.json": "["}, "model2vec cannot load"),
        ({"tokenizer.json": "{}"}, "model2vec cannot load"),
        ({"model.safetensors": "nonsense"}, "model2vec cannot load"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused_by_name(
    tmp_path: Path, files: Mapping[str, str | None], told: str
) -> None:
    folder = make_static(tmp_path)
    for name, content in files.items():
        if content is None:
            (folder / name).unlink()
        else:
            (folder / name).write_text(content, "utf-8")
    with pytest.raises(StartupRefused, match=f"VECTIDE_EMBEDDER__MODEL: {told}"):
        load("model2vec", model=str(folder))


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartupRefused, match="is no folder"):
        load("model2vec", model=str(tmp_path / "nowhere"))


def test_vectors_that_are_not_numbers_are_never_taken(tmp_path: Path) -> None:
    """Invariant 9. A row of the model's table of words is spoilt, as on a disk that fails."""
    folder = make_static(tmp_path, word_tokenizer())
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    tea = json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]["tea"]
    assert tea == 5  # the last row of the file
    content[-DIMENSIONS * 4 :] = np.full(DIMENSIONS, np.nan, dtype=np.float32).tobytes()
    weights.write_bytes(content)
    embedder = load("model2vec", model=str(folder))
    embedder.embed(["a red chair"], within())
    assert refusal(embedder, "a red chair", "green tea") == (Kind.INVALID, "not_finite")

"""Transformers of one's own: the same vectors as sentence-transformers makes, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnxruntime.capi import onnxruntime_pybind11_state as states

from vectide.core.failures import Kind
from vectide.embedders import load
from vectide.embedders.onnx_model import FAILURES, failure_of
from vectide.jobs.executor import SystemClock
from vectide.ports import AdapterError, Deadline, Embedder, StartupRefused

MODELS = Path(__file__).parents[1] / "data" / "models"
TINY = MODELS / "tiny"
#: What scripts/record_models.py had sentence-transformers make.
EXPECTED = json.loads((MODELS / "expected.json").read_text("utf-8"))
TEXTS: list[str] = EXPECTED["texts"]

MakeFolder = Callable[..., Path]


def within(seconds: float = 30) -> Deadline:
    return Deadline.after(SystemClock(), seconds)


def loaded(folder: Path, **settings: Any) -> Embedder:
    embedder = load("onnx", model=str(folder), **settings)
    embedder.prepare(within())
    return embedder


@pytest.fixture
def folder(tmp_path: Path) -> MakeFolder:
    """Makes a copy of the tiny model with other files in it; None: without that file."""

    def make(files: Mapping[str, Any] | None = None, name: str = "tiny") -> Path:
        copy = tmp_path / name
        shutil.copytree(TINY, copy)
        for path, content in (files or {}).items():
            if content is None:
                (copy / path).unlink()
            else:
                (copy / path).write_text(json.dumps(content), "utf-8")
        return copy

    return make


def cosines(one: Any, other: Any) -> Any:
    one, other = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return np.einsum("ij,ij->i", one, other) / lengths


@pytest.mark.parametrize("name", EXPECTED["variations"])
def test_vectors_are_those_of_sentence_transformers(folder: MakeFolder, name: str) -> None:
    expected = EXPECTED["variations"][name]
    embedder = loaded(folder(expected["files"]))
    documents = embedder.embed(TEXTS, within()).vectors
    queries = np.stack([embedder.embed_query(text, within()) for text in TEXTS])
    for made, recorded in ((documents, expected["documents"]), (queries, expected["queries"])):
        assert made.shape == np.shape(recorded)
        assert cosines(made, recorded).min() > 0.99999
        assert np.allclose(made, recorded, atol=1e-4)  # lengths, too


def test_variations_differ_where_they_should() -> None:
    recorded = {name: tuple(one["documents"][0]) for name, one in EXPECTED["variations"].items()}
    recorded.pop("passages")  # sentence-transformers gives documents that prompt under the name document
    assert len(set(recorded.values())) == len(recorded)


def test_texts_of_any_length_go_together(folder: MakeFolder) -> None:
    embedder = loaded(TINY)
    texts = [" ".join(["chair"] * (1 + place * 37 % 120)) + f" {place}" for place in range(200)]
    together = embedder.embed(texts, within()).vectors
    alone = np.stack([embedder.embed([text], within()).vectors[0] for text in texts])
    assert np.allclose(together, alone, atol=1e-5)


def test_a_text_that_is_too_long_is_refused_and_not_cut_off() -> None:
    embedder = loaded(TINY)
    limit = embedder.limits.max_text_tokens
    assert limit == 128
    longest = " ".join(["x"] * (limit - 2))  # the model adds one token at each end
    assert embedder.count_tokens(longest) == limit
    embedder.embed([longest], within())
    with pytest.raises(AdapterError, match="129 tokens, the model reads 128") as caught:
        embedder.embed(["fits", longest + " x"], within())
    assert (caught.value.failure.kind, caught.value.failure.cause) == (Kind.REFUSED, "text_too_long")


def test_a_prompt_takes_its_part_of_the_length(folder: MakeFolder) -> None:
    prompts = {"prompts": {"document": "product: "}}
    prompted = loaded(folder({"config_sentence_transformers.json": prompts}))
    assert prompted.count_tokens("x") > loaded(TINY).count_tokens("x")


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"sentence_bert_config.json": {"max_seq_length": 64}}, 64),
        ({"sentence_bert_config.json": None}, 128),
        ({"sentence_bert_config.json": None, "tokenizer_config.json": {"model_max_length": 10**30}}, 128),
        ({"sentence_bert_config.json": None, "tokenizer_config.json": {}, "config.json": {}}, None),
    ],
)
def test_length_is_what_the_folder_says(
    folder: MakeFolder, files: Mapping[str, Any], limit: int | None
) -> None:
    assert loaded(folder(files)).limits.max_text_tokens == limit


def test_less_than_the_length_of_the_folder_can_be_asked_for() -> None:
    assert loaded(TINY, text_tokens=50).limits.max_text_tokens == 50
    assert loaded(TINY, text_tokens=500).limits.max_text_tokens == 128


def test_shorter_vectors_are_prefixes() -> None:
    whole = loaded(TINY).embed(TEXTS, within()).vectors
    short = loaded(TINY, dimensions=8).embed(TEXTS, within()).vectors
    prefix = whole[:, :8] / np.linalg.norm(whole[:, :8], axis=1, keepdims=True)
    assert np.allclose(short, prefix, atol=1e-6)


def test_more_dimensions_than_there_are_are_refused() -> None:
    with pytest.raises(StartupRefused, match="gives 32 dimensions, but 64 are configured"):
        loaded(TINY, dimensions=64)


def test_space_is_the_same_wherever_the_model_is_and_another_for_another_model(folder: MakeFolder) -> None:
    space = loaded(TINY).space
    assert space.startswith("onnx/tiny-")
    assert space.endswith("/32")
    assert loaded(folder()).space == space
    cls = EXPECTED["variations"]["cls"]["files"]
    prompts = {"config_sentence_transformers.json": {"prompts": {"query": "search: "}}}
    tokenizer = json.loads((TINY / "tokenizer.json").read_text("utf-8")) | {"normalizer": None}
    others = {
        loaded(folder(files, name=f"{number}/tiny")).space
        for number, files in enumerate([cls, prompts, {"tokenizer.json": tokenizer}])
    }
    assert len(others - {space}) == 3


def test_a_graph_of_several_can_be_chosen(folder: MakeFolder) -> None:
    path = folder()
    (path / "onnx" / "model.onnx").rename(path / "onnx" / "model_O3.onnx")
    assert loaded(path / "onnx" / "model_O3.onnx").space == loaded(TINY).space
    shutil.move(path / "onnx" / "model_O3.onnx", path / "model.onnx")
    assert loaded(path).space == loaded(TINY).space


# --- what is refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"modules.json": None}, r"modules.json: there is no such file"),
        ({"tokenizer.json": None}, r"tokenizer.json: there is no such file"),
        ({"tokenizer.json": {}}, r"tokenizer.json is no tokenizer.json"),
        ({"onnx/model.onnx": None}, r"there is no onnx/model.onnx nor model.onnx: export the model"),
        ({"onnx/model.onnx": {}}, r"ONNX Runtime cannot load"),
        (
            {"modules.json": [{"path": "", "type": "a.Transformer"}, {"path": "", "type": "a.Dense"}]},
            "Transformer, Dense are its modules",
        ),
        ({"1_Pooling/config.json": {"pooling_mode": "attention"}}, "its pooling attention is not known"),
        (
            {
                "1_Pooling/config.json": {"include_prompt": False},
                "config_sentence_transformers.json": {"prompts": {"query": "search: "}},
            },
            "left out of the pooling",
        ),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused_by_name(
    folder: MakeFolder, files: Mapping[str, Any], told: str
) -> None:
    with pytest.raises(StartupRefused, match=rf"VECTIDE_EMBEDDER__MODEL: .*{told}"):
        loaded(folder(files))


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartupRefused, match="no such file"):
        loaded(tmp_path / "nowhere")
    (tmp_path / "model.onnx").touch()
    with pytest.raises(StartupRefused, match=r"no modules.json in its folder, nor above"):
        loaded(tmp_path / "model.onnx")


def test_a_broken_json_file_is_refused(folder: MakeFolder) -> None:
    path = folder()
    (path / "modules.json").write_text("[", "utf-8")
    with pytest.raises(StartupRefused, match=r"modules.json: is no JSON"):
        loaded(path)


def test_vectors_that_are_not_numbers_are_never_taken(folder: MakeFolder) -> None:
    """Invariant 9. A row of the model's table of words is spoilt, as on a disk that fails."""
    path = folder()
    graph = path / "onnx" / "model.onnx"
    word = _row_of(json.loads((TINY / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]["chair"])
    content = graph.read_bytes()
    assert content.count(word) == 1
    graph.write_bytes(content.replace(word, np.full(32, np.nan, dtype=np.float32).tobytes()))
    embedder = loaded(path)
    embedder.embed(["green tea"], within())
    with pytest.raises(AdapterError) as caught:
        embedder.embed(["green tea", "a red chair"], within())
    assert (caught.value.failure.kind, caught.value.failure.cause) == (Kind.INVALID, "not_finite")


def _row_of(token: int) -> bytes:
    """The vector of a token, from the weights in the folder."""
    content = (TINY / "model.safetensors").read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    table = json.loads(content[8:header])["embeddings.word_embeddings.weight"]
    start = header + table["data_offsets"][0] + token * 32 * 4
    return content[start : start + 32 * 4]


def test_every_error_of_the_runtime_has_a_meaning() -> None:
    errors = {
        error for error in vars(states).values() if isinstance(error, type) and issubclass(error, Exception)
    }
    assert len(errors) >= 14
    assert errors <= FAILURES.keys()
    assert failure_of(states.Fail("text of a row")).detail == "Fail"


def test_a_run_that_fails_is_an_adapter_error(folder: MakeFolder) -> None:
    """More tokens than the model has positions for: the folder was edited, and promises too much."""
    longer = {"max_seq_length": 512, "do_lower_case": False}
    embedder = loaded(folder({"sentence_bert_config.json": longer}))
    with pytest.raises(AdapterError) as caught:
        embedder.embed([" ".join(["x"] * 300)], within())
    assert caught.value.failure.kind in (Kind.REFUSED, Kind.TRANSIENT)
    assert caught.value.__cause__ is None

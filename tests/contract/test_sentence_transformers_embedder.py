"""Transformers in PyTorch: the same vectors as in ONNX Runtime, nothing cut off and nothing fetched.

Runs where the extra is installed, which requirements.lock leaves out.
"""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vectide.core.failures import Kind
from vectide.embedders import load
from vectide.ports import AdapterError, Embedder, StartupRefused
from vectide.testing.embedder_suite import within

pytestmark = pytest.mark.skipif(
    find_spec("sentence_transformers") is None, reason='needs pip install "vectide[sentence-transformers]"'
)

MODELS = Path(__file__).parents[1] / "data" / "models"
TINY = MODELS / "tiny"
EXPECTED = json.loads((MODELS / "expected.json").read_text("utf-8"))
TEXTS: list[str] = EXPECTED["texts"]

MakeFolder = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeFolder:
    """Makes a copy of the tiny model with other files in it; None: without that file. There is no network."""

    def refuse(*_: object) -> None:
        raise AssertionError("a local model needs no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)

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


def loaded(folder: Path, kind: str = "sentence-transformers", **settings: Any) -> Embedder:
    embedder = load(kind, model=str(folder), **settings)
    embedder.prepare(within(60))
    return embedder


def least_cosine(one: Any, other: Any) -> float:
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return float((np.einsum("ij,ij->i", one, other) / lengths).min())


@pytest.mark.parametrize("name", EXPECTED["variations"])
def test_vectors_and_tokens_are_those_of_the_graph_in_onnx(folder: MakeFolder, name: str) -> None:
    path = folder(EXPECTED["variations"][name]["files"])
    torch, onnx = loaded(path), loaded(path, "onnx")
    ours, theirs = torch.embed(TEXTS, within(60)), onnx.embed(TEXTS, within(60))
    assert least_cosine(ours.vectors, theirs.vectors) > 0.99999
    assert np.allclose(ours.vectors, theirs.vectors, atol=1e-4)  # lengths, too
    assert ours.tokens == theirs.tokens
    queries = [np.stack([one.embed_query(text, within(60)) for text in TEXTS]) for one in (torch, onnx)]
    assert least_cosine(*queries) > 0.99999
    assert [torch.count_tokens(text) for text in TEXTS] == [onnx.count_tokens(text) for text in TEXTS]
    assert torch.limits == onnx.limits
    assert torch.space.count("/") == onnx.space.count("/")


def test_a_text_that_is_too_long_is_refused_and_not_cut_off(folder: MakeFolder) -> None:
    embedder = loaded(folder())
    longest = " ".join(["x"] * 126)  # the model adds one token at each end
    assert embedder.count_tokens(longest) == embedder.limits.max_text_tokens == 128
    embedder.embed([longest], within())
    with pytest.raises(AdapterError, match="129 tokens, the model reads 128") as caught:
        embedder.embed(["fits", longest + " x"], within())
    assert (caught.value.failure.kind, caught.value.failure.cause) == (Kind.REFUSED, "text_too_long")
    with pytest.raises(AdapterError, match="129 tokens, the model reads 128"):
        embedder.embed_query(longest + " x", within())
    assert loaded(folder(name="less"), text_tokens=50).limits.max_text_tokens == 50


def test_shorter_vectors_are_prefixes(folder: MakeFolder) -> None:
    path = folder()
    short = loaded(path, dimensions=8).embed(TEXTS, within()).vectors
    assert np.allclose(short, loaded(path, "onnx", dimensions=8).embed(TEXTS, within()).vectors, atol=1e-5)
    with pytest.raises(StartupRefused, match="gives 32 dimensions, but 64 are configured"):
        loaded(path, dimensions=64)


def test_space_is_the_same_wherever_the_model_is_and_another_for_another_model(folder: MakeFolder) -> None:
    cls = EXPECTED["variations"]["cls"]["files"]
    prompts = EXPECTED["variations"]["prompts"]["files"]
    one, same, other, prompted = (
        loaded(folder(files, name=f"{number}/tiny")).space
        for number, files in enumerate(({}, {}, cls, prompts))
    )
    assert one == same
    assert one.startswith("sentence-transformers/tiny-")
    assert len({one, other, prompted}) == 3
    assert prompted.endswith("/32/document")


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"modules.json": None}, "there is no modules.json"),
        ({"model.safetensors": None}, "sentence-transformers cannot load it"),
        (
            {"modules.json": [{"path": "", "type": "sentence_transformers.models.BoW"}]},
            "sentence-transformers cannot load it",
        ),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused_by_name(
    folder: MakeFolder, files: Mapping[str, Any], told: str
) -> None:
    with pytest.raises(StartupRefused, match=f"VECTIDE_EMBEDDER__MODEL: .*{told}"):
        loaded(folder(files))


def test_a_static_model_is_for_another_kind(tmp_path: Path) -> None:
    from tests.tiny_static import make_static

    with pytest.raises(StartupRefused, match="StaticEmbedding, not Transformer: the kind model2vec reads it"):
        loaded(make_static(tmp_path))


def test_vectors_that_are_not_numbers_are_never_taken(folder: MakeFolder) -> None:
    """Invariant 9. A row of the model's table of words is spoilt, as on a disk that fails."""
    path = folder()
    weights = path / "model.safetensors"
    content = bytearray(weights.read_bytes())
    header = 8 + int.from_bytes(content[:8], "little")
    table = json.loads(content[8:header])["embeddings.word_embeddings.weight"]
    chair = json.loads((TINY / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]["chair"]
    start = header + table["data_offsets"][0] + chair * 32 * 4
    content[start : start + 32 * 4] = np.full(32, np.nan, dtype=np.float32).tobytes()
    weights.write_bytes(content)
    embedder = loaded(path)
    embedder.embed(["green tea"], within())
    with pytest.raises(AdapterError) as caught:
        embedder.embed(["green tea", "a red chair"], within())
    assert (caught.value.failure.kind, caught.value.failure.cause) == (Kind.INVALID, "not_finite")


def test_a_run_that_fails_is_an_adapter_error(folder: MakeFolder) -> None:
    """More tokens than the model has positions for: the folder was edited, and promises too much."""
    longer = {"max_seq_length": 512, "do_lower_case": False}
    embedder = loaded(folder({"sentence_bert_config.json": longer}))
    with pytest.raises(AdapterError) as caught:
        embedder.embed([" ".join(["x"] * 300)], within())
    assert caught.value.failure.kind in (Kind.REFUSED, Kind.TRANSIENT)
    assert caught.value.__cause__ is None

"""Tokens counted with the model's own tokenizer, and what is sure to fit where there is none."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from vectide.app import build_embedder, chunk_problems
from vectide.core.chunks import Chunking, chunks_of
from vectide.embedders import load
from vectide.embedders.openai_compatible import MODEL_TOKENS
from vectide.ports import Embedder, EmbedderLimits, MissingExtra, StartupRefused
from vectide.settings import load as load_settings


@pytest.fixture
def tokenizer(tmp_path: Path) -> str:
    """Of a model whose tokens are words, with one before and one after every text, and which cuts texts off
    and fills them up."""
    made = Tokenizer(WordLevel({"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "a": 3}, unk_token="[UNK]"))  # noqa: S106
    made.pre_tokenizer = Whitespace()
    made.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    made.enable_truncation(8)
    made.enable_padding(length=8)
    path = tmp_path / "tokenizer.json"
    made.save(str(path))
    return str(path)


def limits(**settings: object) -> EmbedderLimits:
    embedder = load("openai", api_key="k", **settings)
    embedder.close()
    return embedder.limits


def test_tokens_are_counted_as_the_model_does_with_those_that_it_adds(tokenizer: str) -> None:
    embedder = load("openai", model="m", api_key="k", tokenizer=tokenizer)
    assert [embedder.count_tokens(text) for text in ("a", "a a", "word " * 100)] == [3, 4, 102]
    embedder.close()


def test_a_text_is_cut_by_the_models_own_tokens(tokenizer: str) -> None:
    embedder = load("openai", model="m", api_key="k", tokenizer=tokenizer)
    pieces = list(chunks_of("longest-words-first " * 40, Chunking(16), embedder.count_tokens))
    assert all(embedder.count_tokens(piece.text) <= 16 for piece in pieces)
    assert [piece.tokens for piece in pieces] == [embedder.count_tokens(piece.text) for piece in pieces]
    embedder.close()


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda folder: folder / "absent.json", "No such file or directory"),
        (lambda folder: folder, "Is a directory"),
        (lambda folder: _file(folder, b"\xff\xfe"), "not UTF-8"),
        (lambda folder: _file(folder, b"{}"), "is no tokenizer.json"),
        (lambda folder: _file(folder, b"a b c"), "is no tokenizer.json"),
    ],
    ids=["absent", "folder", "binary", "other json", "other text"],
)
def test_a_file_that_is_no_tokenizer_is_refused_at_start(
    tmp_path: Path, make: Callable[[Path], Path], told: str
) -> None:
    with pytest.raises(StartupRefused, match=told) as refused:
        load("openai", model="m", api_key="k", tokenizer=str(make(tmp_path)))
    assert "VECTIDE_EMBEDDER__TOKENIZER" in str(refused.value)


def _file(folder: Path, content: bytes) -> Path:
    path = folder / "tokenizer.json"
    path.write_bytes(content)
    return path


def test_a_missing_package_is_named_with_its_extra(tokenizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    monkeypatch.delitem(sys.modules, "vectide.embedders.tokenizer_file", raising=False)
    with pytest.raises(MissingExtra, match=r'pip install "vectide\[tokenizer\]"'):
        load("openai", model="m", api_key="k", tokenizer=tokenizer)
    monkeypatch.undo()
    importlib.import_module("vectide.embedders.tokenizer_file")


def test_other_embedders_take_no_tokenizer(tokenizer: str) -> None:
    with pytest.raises(StartupRefused, match="takes no tokenizer"):
        load("hashing", tokenizer=tokenizer)


# --- limits ---------------------------------------------------------------------------------------------


def test_counted_tokens_may_be_as_many_as_the_model_reads(tokenizer: str) -> None:
    own = limits(model="text-embedding-3-small", tokenizer=tokenizer)
    assert (own.max_tokens, own.max_text_tokens, own.chunk_tokens) == (300_000, MODEL_TOKENS, MODEL_TOKENS)
    other = limits(model="m", tokenizer=tokenizer, text_tokens=512)
    assert (other.max_text_tokens, other.chunk_tokens) == (512, 512)


def test_estimated_tokens_refuse_no_text_and_only_chunk_sizes_that_might_not_fit() -> None:
    own = limits(model="text-embedding-3-large")
    assert (own.max_text_tokens, own.chunk_tokens) == (None, 2730)
    assert limits(model="m", text_tokens=512).chunk_tokens == 170
    assert limits(model="m").chunk_tokens is None


@pytest.fixture(scope="module")
def estimating() -> Iterator[Embedder]:
    embedder = load("openai", model="m", api_key="k", text_tokens=100)
    yield embedder
    embedder.close()


@given(text=st.text(st.sampled_from("aé日🎉-0 ."), max_size=2000).map(str.strip).filter(bool))
def test_a_chunk_of_estimated_tokens_fits_the_model_whatever_its_text(
    estimating: Embedder, text: str
) -> None:
    """Case 80: a token is never less than a byte."""
    limit = estimating.limits.chunk_tokens
    assert limit is not None
    for chunk in chunks_of(text, Chunking(limit), estimating.count_tokens):
        assert len(chunk.text.encode()) <= 100


# --- chunk sizes ----------------------------------------------------------------------------------------


def problems(chunk_tokens: int, **embedder: str) -> list[str]:
    tables = f"{{docs: {{source: docs, embed: {{columns: [body]}}, chunk: {{tokens: {chunk_tokens}}}}}}}"
    settings = load_settings(
        {
            "VECTIDE_KAFKA__BOOTSTRAP_SERVERS": "broker:9092",
            "VECTIDE_STORE__KIND": "pgvector",
            "VECTIDE_STORE__DSN": "postgresql://vectors@db/vectors",
            "VECTIDE_TABLES": tables,
            **{f"VECTIDE_EMBEDDER__{name.upper()}": value for name, value in embedder.items()},
        }
    )
    made = build_embedder(settings.embedder)
    made.close()
    return chunk_problems(settings, {"docs": made})


def test_a_chunk_size_beyond_what_the_model_reads_is_refused_with_both_numbers(tokenizer: str) -> None:
    given = {"kind": "openai", "model": "m", "api_key": "k", "text_tokens": "512", "tokenizer": tokenizer}
    assert problems(513, **given) == ["tables.docs.chunk.tokens: is 513, but m takes 512 tokens at most"]
    assert problems(512, **given) == []


def test_where_tokens_are_estimated_only_sizes_that_surely_fit_are_accepted() -> None:
    given = {"kind": "openai", "model": "text-embedding-3-small", "api_key": "k"}
    (problem,) = problems(2731, **given)
    assert "2731" in problem
    assert "2730 estimated tokens" in problem
    assert "VECTIDE_EMBEDDER__TOKENIZER" in problem
    assert problems(2730, **given) == []


def test_a_model_without_a_known_limit_takes_any_chunk_size() -> None:
    assert problems(100_000, kind="hashing") == []
    assert problems(100_000, kind="openai", model="m", base_url="http://models:8000/v1") == []

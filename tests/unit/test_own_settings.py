"""What a table says for itself of its embedder, store and source, over what all tables have."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from vectide.settings import HIDDEN, Settings, SettingsError, effective, load, secret_values

SHARED: Mapping[str, str] = {
    "VECTIDE_KAFKA__BOOTSTRAP_SERVERS": "broker:9092",
    "VECTIDE_EMBEDDER__KIND": "openai",
    "VECTIDE_EMBEDDER__MODEL": "small",
    "VECTIDE_EMBEDDER__DIMENSIONS": "512",
    "VECTIDE_EMBEDDER__API_KEY": "shared-key",
    "VECTIDE_EMBEDDER__CONCURRENCY": "3",
    "VECTIDE_STORE__KIND": "pgvector",
    "VECTIDE_STORE__DSN": "postgresql://vectors@db/vectors",
    "VECTIDE_STORE__BATCH_ITEMS": "17",
}


def environment(environ: Mapping[str, str], **own: Any) -> dict[str, str]:
    """Of two tables: one with these keys of its own, and one without."""
    common = {"embed": {"columns": ["name"]}}
    tables = {
        "docs": {"source": "shop.public.docs", **common, **own},
        "others": {"source": "shop.public.others", **common},
    }
    return {**SHARED, "VECTIDE_TABLES": json.dumps(tables), **environ}


def loaded(environ: Mapping[str, str] = SHARED, **own: Any) -> Settings:
    return load(environment(environ, **own))


def problems_of(environ: Mapping[str, str] = SHARED, **own: Any) -> list[str]:
    with pytest.raises(SettingsError) as raised:
        loaded(environ, **own)
    return raised.value.problems


def test_a_table_without_words_of_its_own_has_what_all_have() -> None:
    settings = loaded(embedder={"linger_ms": 7})
    assert settings.embedder_of("others") == settings.embedder
    assert settings.store_of("others") == settings.store_of("docs") == settings.store
    assert settings.source_of("others") == settings.source


def test_what_a_table_says_goes_over_the_rest_field_by_field() -> None:
    settings = loaded(embedder={"linger_ms": 7}, store={"schema_name": "vectors"})
    docs = settings.embedder_of("docs")
    assert (docs.kind, docs.model, docs.dimensions, docs.concurrency) == ("openai", "small", 512, 3)
    assert (docs.linger_ms, settings.embedder.linger_ms) == (7, 500)
    store = settings.store_of("docs")
    assert (store.schema_name, store.batch_items) == ("vectors", 17)
    assert store.address == settings.store.address


def test_another_model_has_its_own_dimensions_and_the_key_of_its_provider() -> None:
    docs = loaded(embedder={"model": "large"}).embedder_of("docs")
    assert (docs.model, docs.dimensions, docs.concurrency) == ("large", None, 3)
    assert docs.api_key is not None
    assert docs.api_key.get_secret_value() == "shared-key"


def test_nothing_of_one_kind_is_taken_for_another() -> None:
    settings = loaded(
        embedder={"kind": "hashing"}, store={"kind": "qdrant", "url": "http://qdrant:6333", "api_key": "q"}
    )
    docs, store = settings.embedder_of("docs"), settings.store_of("docs")
    assert (docs.kind, docs.model, docs.api_key, docs.concurrency) == ("hashing", None, None, 8)
    assert (store.kind, store.address, store.dsn, store.batch_items) == (
        "qdrant",
        "http://qdrant:6333",
        None,
        256,
    )


def test_a_key_goes_to_no_other_address_than_the_one_that_it_was_given_for() -> None:
    docs = loaded(embedder={"base_url": "http://models:8000/v1"}).embedder_of("docs")
    assert (docs.model, docs.api_key) == ("small", None)


def test_a_store_may_be_named_by_another_word_than_the_shared_one() -> None:
    store = loaded(store={"url": "postgresql://other@db2/vectors"}).store_of("docs")
    assert (store.dsn, store.address, store.batch_items) == (None, "postgresql://other@db2/vectors", 17)


def test_what_no_table_uses_need_not_be_complete() -> None:
    """All tables may name their models: then there is none for all."""
    environ = {**SHARED, "VECTIDE_EMBEDDER__MODEL": ""}
    tables = {
        name: {"source": name, "embed": {"columns": ["x"]}, "embedder": {"model": name}} for name in "ab"
    }
    settings = load({**environ, "VECTIDE_TABLES": json.dumps(tables)})
    assert [settings.embedder_of(table).model for table in settings.tables] == ["a", "b"]
    assert problems_of(environ, embedder={"model": "large"}) == [
        "VECTIDE_EMBEDDER__MODEL: required with the openai embedder, e.g. text-embedding-3-small"
    ]


# --- secrets --------------------------------------------------------------------------------------------


def test_a_value_may_refer_to_the_environment() -> None:
    settings = loaded(
        {"PG_PASSWORD": "p4ss", "OPENAI_KEY": " k3y \n"},
        embedder={"base_url": "http://models/v1", "api_key": "${OPENAI_KEY}"},
        store={"dsn": "postgresql://docs:${PG_PASSWORD}@db/docs"},
        source_dsn="postgresql://reader:${PG_PASSWORD}@source/shop",
    )
    docs = settings.embedder_of("docs")
    assert docs.api_key is not None
    assert docs.api_key.get_secret_value() == "k3y"
    assert settings.store_of("docs").address == "postgresql://docs:p4ss@db/docs"
    assert settings.source_of("docs").address == "postgresql://reader:p4ss@source/shop"
    assert settings.source_of("others").address == ""


def test_a_secret_may_be_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from-file\n")
    (tmp_path / "dsn").write_text("host=source user=reader")
    settings = loaded(
        {"SECRETS": str(tmp_path)},
        embedder={"model": "large", "api_key_file": "${SECRETS}/key"},
        source_dsn_file=str(tmp_path / "dsn"),
    )
    docs = settings.embedder_of("docs")
    assert docs.api_key is not None
    assert docs.api_key.get_secret_value() == "from-file"
    assert settings.source_of("docs").address == "host=source user=reader"


def test_no_secret_of_a_table_is_ever_shown() -> None:
    """Case 170."""
    settings = loaded(
        {"PG_PASSWORD": "p4ss"},
        embedder={"model": "large", "api_key": "k3y-in-the-open"},
        store={"dsn": "postgresql://docs:${PG_PASSWORD}@db/docs", "batch_items": 5},
        source_dsn="postgresql://reader:s0urce@source/shop",
    )
    shown = effective(settings)["tables"]["docs"]
    assert shown["embedder"] == {"model": "large", "api_key": HIDDEN}
    assert shown["store"] == {"dsn": HIDDEN, "batch_items": 5}
    assert shown["source_dsn"] == HIDDEN
    assert effective(settings)["tables"]["others"].keys().isdisjoint({"embedder", "store", "source_dsn"})
    secrets = {"k3y-in-the-open", "p4ss", "s0urce"}
    assert secrets <= secret_values(settings)
    for text in (json.dumps(effective(settings)), str(settings), repr(settings), repr(settings.tables)):
        assert not any(secret in text for secret in secrets)
    assert pickle.loads(pickle.dumps(settings)) == settings  # noqa: S301 (our own)


# --- problems -------------------------------------------------------------------------------------------


def test_every_problem_is_told_with_its_path_and_no_value() -> None:
    told = problems_of(
        embedder={"modell": "x", "concurrency": "s3cret", "base_url": ["s3cret"]},
        store={"dns": "x", "api_key_file": "/nowhere/s3cret"},
        source_dsn="${NOT_THERE} ${NOR_THIS}",
    )
    assert told == [
        "tables.docs.embedder.modell: unknown key; did you mean model?",
        "tables.docs.embedder.concurrency: must be a valid integer, unable to parse string as an integer",
        "tables.docs.embedder.base_url: must be a text, a number or a boolean",
        "tables.docs.store.dns: unknown key; did you mean dsn?",
        "tables.docs.store.api_key_file: the file cannot be read: No such file or directory",
        "tables.docs.source_dsn: the environment has no NOR_THIS, NOT_THERE",
    ]


@pytest.mark.parametrize(
    ("own", "told"),
    [
        (
            {"embedder": {"kind": "cohere", "api_key": "k"}},
            "tables.docs.embedder.model: required with the cohere embedder",
        ),
        ({"embedder": {"kind": "voyage", "model": "m"}}, "tables.docs.embedder.api_key: required"),
        ({"store": {"kind": "qdrant"}}, "tables.docs.store.url: required with the qdrant store"),
        ({"store": {"kind": "milvus", "dsn": "x"}}, "tables.docs.store.dsn: the milvus store has a URL"),
        ({"store": {"dsn": "mysql://db"}}, "tables.docs.store.dsn: must start with postgresql://"),
        ({"store": {"dsn": "a=b", "url": "a=b"}}, "tables.docs.store.dsn: given twice"),
        ({"store": {"api_key": "a", "api_key_file": "b"}}, "tables.docs.store.api_key: given twice"),
        ({"store": {"batch_items_file": "b"}}, "tables.docs.store.batch_items_file: unknown key"),
        ({"source_dsn": "mysql://db"}, "tables.docs.source_dsn: must start with postgresql://"),
        ({"embedder": "hashing"}, "tables.docs.embedder: "),
    ],
)
def test_what_does_not_fit_together_is_refused_where_the_table_says_it(own: Any, told: str) -> None:
    (problem,) = problems_of(**own)
    assert problem.startswith(told)


def test_a_table_that_must_be_read_again_needs_a_source_of_its_own_or_of_all() -> None:
    steps: dict[str, Any] = {"on_incomplete": ["reread", "dead-letter"]}
    assert problems_of(**steps) == [
        "tables.docs.on_incomplete: reread needs VECTIDE_SOURCE__DSN, or the table's source_dsn"
    ]
    loaded(**steps, source_dsn="host=source")
    loaded({"VECTIDE_SOURCE__DSN": "host=source"}, **steps)

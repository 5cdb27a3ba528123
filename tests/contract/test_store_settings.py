"""From the environment to a store of each kind: every setting arrives, one of no use is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import certifi
import pytest

from vectide import app, settings, stores
from vectide.ports import Searchable, StartupRefused, Verifiable

COMMON = {
    "VECTIDE_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1",
    "VECTIDE_KAFKA__GROUP_ID": "g",
    "VECTIDE_EMBEDDER__KIND": "hashing",
    "VECTIDE_EMBEDDER__DIMENSIONS": "8",
    "VECTIDE_TABLES": '{"items": {"source": "t", "embed": {"template": "{name}"}}}',
}

EVERY = {
    "chroma": {"URL": "https://h:8000", "API_KEY": "k", "CA_FILE": "CA", "TENANT": "t", "DATABASE": "d"},
    "lancedb": {"URL": "FOLDER"},
    "milvus": {"URL": "https://h:19530", "API_KEY": "u:p", "CA_FILE": "CA", "DATABASE": "d"},
    "pgvector": {"DSN": "host=h dbname=d", "SCHEMA_NAME": "s"},
    "weaviate": {"URL": "https://h", "API_KEY": "k", "CA_FILE": "CA"},
    "qdrant": {"URL": "https://h", "API_KEY": "k", "CA_FILE": "CA", "VECTOR": "v"},
}

#: One that the store has no use for.
USELESS = {
    "chroma": "VECTOR",
    "lancedb": "API_KEY",
    "milvus": "TENANT",
    "pgvector": "API_KEY",
    "qdrant": "DATABASE",
    "weaviate": "DATABASE",
}


def environment(kind: str, given: Mapping[str, str], folder: Path) -> dict[str, str]:
    places = {"CA": certifi.where(), "FOLDER": str(folder)}
    store = {f"VECTIDE_STORE__{name}": places.get(value, value) for name, value in given.items()}
    return {**COMMON, "VECTIDE_STORE__KIND": kind, **store}


def test_every_kind_is_here() -> None:
    assert EVERY.keys() == USELESS.keys() == stores.KINDS.keys()


@pytest.mark.parametrize("kind", EVERY)
def test_a_store_is_made_of_all_its_settings_without_being_asked_anything(kind: str, tmp_path: Path) -> None:
    given = settings.load(environment(kind, EVERY[kind], tmp_path))
    with closing(app.build_store(given.store)) as store:
        assert store.capabilities.kind == kind
        assert isinstance(store, Searchable)
        assert isinstance(store, Verifiable)


@pytest.mark.parametrize("kind", EVERY)
def test_a_setting_of_no_use_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    useless = USELESS[kind]
    given = settings.load(environment(kind, {**EVERY[kind], useless: "x"}, tmp_path))
    with pytest.raises(StartupRefused, match=useless.lower()):
        app.build_store(given.store)


def test_a_schema_of_postgresql_is_of_no_use_elsewhere(tmp_path: Path) -> None:
    given = settings.load(environment("qdrant", {**EVERY["qdrant"], "SCHEMA_NAME": "s"}, tmp_path))
    with pytest.raises(StartupRefused, match="schema"):
        app.build_store(given.store)

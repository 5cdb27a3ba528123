"""A table that is cut into chunks, from its events to the store, as its user sees it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from tests.pipeline.shop import DIMENSIONS, Shop, refused, running, until

from vectide.embedders.hashing import expected_vector
from vectide.testing.broker import BrokerProcess
from vectide.testing.embedding_server import EmbeddingServer
from vectide.testing.postgres import EmbeddedPostgres

#: Sixteen tokens: the words of two sentences.
CHUNK = {"tokens": 16}


@pytest.fixture(scope="module")
def broker() -> Iterator[BrokerProcess]:
    with BrokerProcess(heartbeat_ms=100, session_timeout_ms=1000) as process:
        yield process


@pytest.fixture(scope="module")
def postgres() -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(tcp_port=0) as server:
        yield server


@pytest.fixture
def shop(broker: BrokerProcess, postgres: EmbeddedPostgres) -> Shop:
    return Shop(broker, postgres)


def sentences(*numbers: int) -> str:
    """A text whose chunks are these sentences of eleven words."""
    return " ".join(f"Sentence {n} has eleven words, and the last is {n} too." for n in numbers)


def points(shop: Shop) -> dict[int, list[tuple[int, str, dict[str, Any], Any]]]:
    """Index, text, metadata and vector of each point, by row."""
    query = (
        f"SELECT row_key::jsonb ->> 'id', chunk, text, metadata, embedding::real[] FROM {shop.table}"  # noqa: S608
        " ORDER BY 1, chunk"
    )
    found: dict[int, list[Any]] = {}
    with psycopg.connect(shop.postgres.dsn) as link:
        for id_, *point in link.execute(query):
            found.setdefault(int(id_), []).append(tuple(point))
    return found


def texts(shop: Shop) -> dict[int, list[str]]:
    stored = points(shop)
    for held in stored.values():
        assert [chunk for chunk, *_ in held] == list(range(len(held)))
        for _, text, _, vector in held:
            assert np.allclose(vector, expected_vector(text, DIMENSIONS), atol=1e-5)
    return {id_: [text for _, text, *_ in held] for id_, held in stored.items()}


def chunked(shop: Shop, **changes: str | None) -> dict[str, str]:
    tables = shop.tables(chunk=CHUNK, embed={"columns": ["description"]})
    return shop.environment(VECTIDE_TABLES=tables, **changes)


def vectide(environment: Mapping[str, str], *arguments: str) -> str:
    """What the command prints."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith("VECTIDE_")}
    return subprocess.run(  # noqa: S603
        [sys.executable, "-m", "vectide", *arguments],
        env={**outside, **environment},
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def embedded(metrics: str) -> int:
    """Texts embedded so far."""
    lines = [line for line in metrics.splitlines() if line.startswith("vectide_texts_embedded_total")]
    return sum(int(float(line.split()[-1])) for line in lines)


def test_a_row_grows_shrinks_moves_and_goes_chunk_by_chunk(shop: Shop) -> None:
    """Cases 70, 71, 74, 76 and 78; invariants 7 and 8."""
    produced = 0
    with running(chunked(shop)) as service:

        def after(*records: Any) -> int:
            """Texts embedded for these records."""
            nonlocal produced
            before = embedded(service.get("/metrics")[1])
            produced += len(records)
            shop.produce(*records)
            until(lambda: shop.committed() == produced, "the change to be committed")
            return embedded(service.get("/metrics")[1]) - before

        def update(*numbers: int, **columns: Any) -> Any:
            return shop.upsert(1, "n", "u", description=sentences(*numbers), **columns)

        service.until_ready()
        assert after(shop.upsert(11, "n", description=sentences(1, 2))) == 2
        assert after(update(1)) == 1
        assert after(update(1, 2, 3, 4, 5)) == 4
        assert texts(shop)[1] == [sentences(n) for n in (1, 2, 3, 4, 5)]
        assert after(update(1, 2, 3, 4, 5, category="other")) == 0
        assert {json.dumps(metadata) for _, _, metadata, _ in points(shop)[1]} == {
            '{"category": "other", "in_stock": true}'
        }
        assert after(update(1, 2, 9, 3, 4, 5, category="other")) == 1
        assert texts(shop)[1] == [sentences(n) for n in (1, 2, 9, 3, 4, 5)]
        assert after(update(1, 2, category="other")) == 0
        assert texts(shop) == {1: [sentences(1), sentences(2)], 11: [sentences(1), sentences(2)]}
        assert after(shop.delete(1)) == 0
        assert texts(shop) == {11: [sentences(1), sentences(2)]}


def test_another_chunk_size_takes_over_with_the_next_change_of_a_row(shop: Shop) -> None:
    """Case 81."""
    shop.produce(*(shop.upsert(id_, "n", description=sentences(1, 2)) for id_ in (1, 2)))
    with running(chunked(shop)):
        until(lambda: shop.committed() == 2, "the rows to be stored")
    larger = shop.tables(chunk={"tokens": 32}, embed={"columns": ["description"]})
    with running(shop.environment(VECTIDE_TABLES=larger)):
        shop.produce(shop.upsert(1, "n", "u", description=sentences(1, 2), category="other"))
        until(lambda: shop.committed() == 3, "the change to be committed")
    assert texts(shop) == {1: [sentences(1, 2)], 2: [sentences(1), sentences(2)]}


def test_after_a_kill_no_chunk_is_sent_again_that_is_stored(shop: Shop) -> None:
    """Cases 62 and 70, invariants 7 and 8."""
    rows = {id_: sentences(*range(10 * id_, 10 * id_ + 6)) for id_ in range(30)}
    shop.produce(*(shop.upsert(id_, "n", description=text) for id_, text in rows.items()))
    with EmbeddingServer(record_texts=True) as provider:
        provider.latency_ms = 20
        environment = shop.environment(
            VECTIDE_TABLES=shop.tables(chunk={"tokens": 24}, embed={"columns": ["description"]}),
            VECTIDE_EMBEDDER__KIND="openai",
            VECTIDE_EMBEDDER__MODEL="stub",
            VECTIDE_EMBEDDER__BASE_URL=provider.url,
            VECTIDE_EMBEDDER__DIMENSIONS=None,
            VECTIDE_EMBEDDER__BATCH_ITEMS="8",
            VECTIDE_EMBEDDER__CONCURRENCY="2",
        )
        with running(environment) as service:
            until(lambda: shop.exists() and len(points(shop)) >= 5, "a first part to be stored")
            service.process.kill()
            service.wait()
        provider.forget()
        held = points(shop)
        assert 5 <= len(held) < len(rows)
        provider.latency_ms = 0
        with running(environment):
            until(lambda: shop.committed() == len(rows), "the rest to be committed")
        sent = provider.texts()
    assert {text for point in held.values() for _, text, *_ in point}.isdisjoint(sent)
    assert {id_: " ".join(text for _, text, *_ in point) for id_, point in points(shop).items()} == rows


def test_preview_and_search_speak_of_chunks(shop: Shop) -> None:
    shop.produce(shop.upsert(1, "n", description=sentences(1, 2)))
    shown = vectide(chunked(shop), "preview")
    assert f"chunk 0 of 2, 11 tokens\n    text      {sentences(1)}\n" in shown
    assert "chunk 1 of 2, 11 tokens\n" in shown
    with running(chunked(shop)):
        until(lambda: shop.committed() == 1, "the row to be stored")
    shop.produce(shop.upsert(1, "n", "u", description=sentences(1), category="other"))
    shown = vectide(chunked(shop), "preview", "--store", "--newest", "1")
    assert "1 of 1 chunks keep their vector\n    removes   " in shown
    found = vectide(chunked(shop), "search", sentences(2))
    assert found.startswith(f'1.0000  {shop.table} {{"id":1}}  chunk 1\n')
    assert found.count(f"{shop.table} {{") == 1  # a row comes once, by its best chunk


def test_a_row_with_all_its_chunks_changes_its_tenant_and_goes_without_telling_it(shop: Shop) -> None:
    tables = shop.tables(
        chunk=CHUNK, embed={"columns": ["description"]}, tenant="org", filter=[{"in_stock": "boolean"}]
    )
    environment = shop.environment(VECTIDE_TABLES=tables)

    def found(*options: str) -> list[int]:
        lines = vectide(environment, "search", sentences(2), "--json", *options).splitlines()
        return sorted(json.loads(line)["key"]["id"] for line in lines)

    def change(id_: int, org: int | None) -> Any:
        return shop.upsert(id_, "n", description=sentences(1, 2, id_), org=org)

    with running(environment) as service:
        shop.produce(change(5, 7), change(6, 7), change(7, None))
        until(lambda: shop.committed() == 3, "the rows to be stored")
        assert [found("--tenant", whose) for whose in ("7", "8", "None")] == [[5, 6], [], []]
        assert found("--tenant", "7", "--filter", "in_stock=false") == []
        assert found() == [5, 6, 7]
        before = embedded(service.get("/metrics")[1])
        shop.produce(change(5, 8))
        until(lambda: shop.committed() == 4, "the change to be stored")
        assert embedded(service.get("/metrics")[1]) == before
        assert [found("--tenant", whose) for whose in ("7", "8")] == [[6], [5]]
        assert [metadata["org"] for _, _, metadata, _ in points(shop)[5]] == ["8"] * 3
        shop.produce(shop.delete(5))
        until(lambda: shop.committed() == 5, "the delete to be stored")
        assert [found("--tenant", whose) for whose in ("7", "8")] == [[6], []]


def test_the_documented_query_finds_each_row_by_its_best_chunk(shop: Shop) -> None:
    rows = {1: sentences(1, 2, 3), 2: sentences(4, 5), 3: sentences(2)}
    shop.produce(*(shop.upsert(id_, "n", description=text) for id_, text in rows.items()))
    with running(chunked(shop)):
        until(lambda: shop.committed() == 3, "the rows to be stored")
    page = (Path(__file__).parents[2] / "docs" / "tables.md").read_text("utf-8")
    (query,) = [block for block in re.findall(r"```sql\n(.*?)```", page, re.S) if "DISTINCT ON" in block]
    wanted = expected_vector(sentences(2), DIMENSIONS).tolist()
    with psycopg.connect(shop.postgres.dsn) as link:
        vector = f"'{wanted}'::vector"
        made = query.replace("FROM docs ", f"FROM {shop.table} ").replace("$1", vector)
        found = link.execute(made.encode()).fetchall()
    assert [json.loads(key)["id"] for key, *_ in found[:2]] in ([1, 3], [3, 1])
    assert [(chunk, text) for _, chunk, text, _ in found[:2] if chunk] == [(1, sentences(2))]
    assert len(found) == len(rows)


def test_a_named_vector_is_refused_by_a_store_that_has_none(shop: Shop) -> None:
    code, told = refused(shop.environment(VECTIDE_TABLES=shop.tables(vector="title")))
    assert code == 2
    assert told == [f"tables.{shop.table}.vector: points have one vector in pgvector: leave it out"]


def test_a_chunk_size_beyond_the_models_limit_is_refused_with_both_numbers(shop: Shop) -> None:
    environment = shop.environment(
        VECTIDE_TABLES=shop.tables(chunk={"tokens": 9000}),
        VECTIDE_EMBEDDER__KIND="openai",
        VECTIDE_EMBEDDER__MODEL="text-embedding-3-small",
        VECTIDE_EMBEDDER__API_KEY="unused",
        VECTIDE_EMBEDDER__DIMENSIONS=None,
    )
    code, told = refused(environment)
    assert code == 2
    assert told == [
        f"tables.{shop.table}.chunk.tokens: is 9000, but text-embedding-3-small is sure to take 2730"
        " estimated tokens; with VECTIDE_EMBEDDER__TOKENIZER they are counted, and may be more"
    ]

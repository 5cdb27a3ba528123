"""The verbs that look: check, preview, search, config. They change nothing, and say what to do."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from tests.pipeline.shop import RECORDINGS, Shop, running, until
from tests.pipeline.verbs import Ran, Vectide

from vectide import __version__
from vectide.cli_output import result
from vectide.jobs.check import Result, Verdict
from vectide.settings import describe
from vectide.testing.broker import BrokerProcess
from vectide.testing.embedding_server import EmbeddingServer
from vectide.testing.postgres import EmbeddedPostgres


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


def results(ran: Ran) -> dict[str, str]:
    return {check["name"]: check["result"] for check in ran.json["checks"]}


def detail(ran: Ran, name: str) -> str:
    (found,) = [check for check in ran.json["checks"] if check["name"] == name]
    return f"{found['detail']} -> {found['advice']}"


# --- check ----------------------------------------------------------------------------------------------


def test_check_passes_and_changes_nothing(vectide: Vectide, shop: Shop) -> None:
    shop.produce(shop.upsert(1, "a product"))
    ran = vectide(shop.environment(), "check")
    assert (ran.code, ran.err) == (0, "")
    assert "All 5 checks passed." in ran.out
    assert not shop.exists()
    assert shop.committed() < 0


def test_check_shows_what_is_in_force_without_secrets(
    vectide: Vectide, shop: Shop, postgres: EmbeddedPostgres
) -> None:
    ran = vectide(shop.environment(), "check", "--json")
    assert ran.json["configuration"]["store"]["dsn"] == "***"
    assert ran.json["configuration"]["kafka"]["topics"] == [shop.topic]
    assert postgres.password not in ran.out
    assert postgres.password not in vectide(shop.environment(), "config", "--effective").out


def test_check_tells_every_failure_and_what_to_do(vectide: Vectide, shop: Shop) -> None:
    shop.produce(shop.upsert(1, "a product"))
    environment = shop.environment(
        VECTIDE_STORE__DSN="postgresql://vectors@127.0.0.1:1/vectors",
        VECTIDE_DLQ__TOPIC="no.such.dlq",
        VECTIDE_TABLES=shop.tables(metadata=["colour"]),
    )
    ran = vectide(environment, "check", "--json")
    assert ran.code == 1
    assert ran.json["ok"] is False
    assert results(ran) == {
        "embedder": "ok",
        "store": "failed",
        "topics": "ok",
        "dead letters": "failed",
        "events": "failed",
    }
    assert "Connection refused" in detail(ran, "store")
    assert "check VECTIDE_STORE__DSN" in detail(ran, "store")
    assert "create it, or name another one" in detail(ran, "dead letters")
    assert "no column 'colour'" in detail(ran, "events")
    people = vectide(environment, "check")
    assert people.code == 1
    assert "3 of 5 checks failed." in people.out


def test_check_says_when_nobody_knows_whether_chunks_fit_the_model(vectide: Vectide, shop: Shop) -> None:
    with EmbeddingServer() as provider:
        embedder = {"KIND": "openai", "MODEL": "stub", "BASE_URL": provider.url, "API_KEY": "unused"}
        environment = shop.environment(
            VECTIDE_TABLES=shop.tables(chunk={"tokens": 300}),
            VECTIDE_KAFKA__BOOTSTRAP_SERVERS="127.0.0.1:1",
            VECTIDE_EMBEDDER__DIMENSIONS=None,
            **{f"VECTIDE_EMBEDDER__{name}": value for name, value in embedder.items()},
        )
        ran = vectide(environment, "check", "--json", "--timeout", "0.3")
        assert results(ran)["embedder"] == "ok"
        assert f"whether the chunks of {shop.table} fit -> set VECTIDE_EMBEDDER__TEXT_TOKENS" in detail(
            ran, "embedder"
        )
        known = environment | {"VECTIDE_EMBEDDER__TEXT_TOKENS": "8192"}
        whole = environment | {"VECTIDE_TABLES": shop.tables()}
        for told in (known, whole):
            ran = vectide(told, "check", "--json", "--timeout", "0.3")
            assert detail(ran, "embedder").endswith(" dimensions -> ")


def test_the_name_of_a_check_stands_apart_however_long_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    result(Result("source of a_table_with_a_long_name", Verdict.OK, "all is well"))
    assert "a_table_with_a_long_name all is well" in capsys.readouterr().out


def test_check_verifies_an_existing_collection(vectide: Vectide, shop: Shop) -> None:
    with running(shop.environment()) as service:
        until(lambda: service.events("started"), "the collection to be made")
    assert results(vectide(shop.environment(), "check", "--json"))["store"] == "ok"
    ran = vectide(shop.environment(VECTIDE_EMBEDDER__DIMENSIONS="32"), "check", "--json")
    assert ran.code == 1
    assert "dimensions 64, but 32 is configured" in detail(ran, "store")


def test_check_looks_at_the_source_and_prints_the_sql_that_mends_it(vectide: Vectide, shop: Shop) -> None:
    """Also for a table that is not there, and one whose topic does not name a single table."""
    with EmbeddedPostgres(tcp_port=0) as source:
        with psycopg.connect(source.dsn) as link:
            link.execute(f"CREATE TABLE {shop.topic.split('.')[-1]} (id int PRIMARY KEY, name text)".encode())
        environment = shop.environment(VECTIDE_SOURCE__DSN=source.tcp_dsn)
        ran = vectide(environment, "check", "--json")
        assert ran.code == 1
        told = {check["name"]: check for check in ran.json["checks"]}
        assert "wal_level is replica: no change can be decoded" in told["source"]["detail"]
        assert told["source"]["advice"].startswith("ALTER SYSTEM SET wal_level = 'logical';")
        table = told[f"source of {shop.table}"]
        assert "no publication holds the table" in table["detail"]
        assert "CREATE PUBLICATION dbz_publication FOR TABLE" in table["advice"]
        source.stop()
        ran = vectide(environment, "check", "--json", "--timeout", "2")
        assert results(ran)["source"] == "failed"
        assert "check VECTIDE_SOURCE__DSN" in detail(ran, "source")
        assert results(ran)[f"source of {shop.table}"] == "skipped"
    other = shop.environment(VECTIDE_SOURCE__DSN="mysql://root@localhost/shop")
    assert "VECTIDE_SOURCE__DSN: must start with postgresql://" in vectide(other, "check").err


def test_check_finds_the_table_of_a_renamed_topic_and_prints_the_types_that_it_lacks(
    vectide: Vectide, shop: Shop
) -> None:
    """A transform may call a topic anything; the events say which table they are of."""
    name = f"Stock{shop.number}"
    with psycopg.connect(shop.postgres.dsn) as link:
        columns = "id int PRIMARY KEY, name text, price numeric(10,2), day date, copies numeric(9,0)"
        link.execute(f'CREATE TABLE public."{name}" ({columns})'.encode())
    tables = shop.tables(embed={"columns": ["name"]}, metadata=["price", "day", "copies"])
    environment = shop.environment(VECTIDE_SOURCE__DSN=shop.postgres.tcp_dsn, VECTIDE_TABLES=tables)
    at_source, at_types = f"source of {shop.table}", f"types of {shop.table}"
    ran = vectide(environment, "check", "--json")
    assert "the source has no table public.products" in detail(ran, at_source)
    assert (results(ran)[at_source], at_types in results(ran)) == ("failed", False)
    shop.produce(shop.of_table("public", name, price="12.50", day=0, copies="12"))
    ran = vectide(environment, "check", "--json")
    assert f"public.{name}, key id" in detail(ran, at_source)
    told = "no type is declared for price, day; copies: whole decimals are kept as they come"
    assert told in detail(ran, at_types)
    (advice,) = [check["advice"] for check in ran.json["checks"] if check["name"] == at_types]
    assert advice == 'types: {price: "numeric(10,2)", day: date}'
    declared = json.loads(tables)
    declared[shop.table]["types"] = {"price": "numeric(10,2)", "day": "date"}
    environment |= {"VECTIDE_TABLES": json.dumps(declared), "VECTIDE_CODEC__DECIMALS": "string"}
    assert detail(vectide(environment, "check", "--json"), at_types) == "those of the source are declared -> "
    declared[shop.table]["types"]["price"] = "numeric(10,3)"
    ran = vectide(environment | {"VECTIDE_TABLES": json.dumps(declared)}, "check", "--json")
    assert results(ran)[at_types] == "failed"
    assert "price is declared numeric(10,3) and is numeric(10,2)" in detail(ran, at_types)


def test_check_asks_flattened_events_of_a_renamed_topic_to_name_their_table(
    vectide: Vectide, shop: Shop
) -> None:
    shop.produce(shop.raw(b'{"id": 0, "name": "n", "description": "", "category": "", "in_stock": true}'))
    ran = vectide(shop.environment(VECTIDE_SOURCE__DSN=shop.postgres.tcp_dsn), "check", "--json")
    title = f"source of {shop.table}"
    assert results(ran)[title] == "ok"
    assert "the events do not say which table they are of" in detail(ran, title)
    assert "add.fields=source.schema,source.table" in detail(ran, title)


def test_what_init_writes_is_what_check_and_run_read(vectide: Vectide, shop: Shop, tmp_path: Path) -> None:
    name = f"books{shop.number}"
    with psycopg.connect(shop.postgres.dsn) as link:
        link.execute(b"CREATE SCHEMA shelves")
        columns = "id int PRIMARY KEY, title text, price numeric(10,2)"
        link.execute(f"CREATE TABLE shelves.{name} ({columns})".encode())
    arguments = ("init", "--table", f"shelves.{name}", "--prefix", "shop", "--directory", str(tmp_path))
    source = {"VECTIDE_SOURCE__DSN": shop.postgres.tcp_dsn}
    ran = vectide(source, *arguments)
    assert (ran.code, ran.err) == (0, "")
    assert f"written: {tmp_path / 'tables.yaml'}" in ran.out
    again = vectide(source, *arguments)
    assert again.code == 2
    assert "is there already: --force overwrites it" in again.err
    shop.broker.create_topic(f"shop.shelves.{name}", partitions=1)
    environment = {**shop.environment(), "VECTIDE_TABLES_FILE": str(tmp_path / "tables.yaml")}
    del environment["VECTIDE_TABLES"]
    checks = vectide(environment, "check", "--json").json["checks"]
    assert [one for one in checks if one["result"] != "ok"] == []


def test_check_says_that_no_event_can_be_applied(vectide: Vectide, shop: Shop) -> None:
    shop.produce(shop.raw(b"\x00\x00\x00\x00\x07avro"), shop.raw(b"\x00\x00\x00\x00\x07more"))
    ran = vectide(shop.environment(), "check", "--json")
    assert ran.code == 1
    assert "every one of the 2 newest events would be a dead letter: 2: " in detail(ran, "events")
    shop.produce(shop.upsert(1, "a product"))
    ran = vectide(shop.environment(), "check", "--json")
    assert ran.code == 0
    assert "of the 3 newest events some would be dead letters: 2: " in detail(ran, "events")


def test_check_does_not_ask_for_topics_where_kafka_does_not_answer(vectide: Vectide, shop: Shop) -> None:
    environment = shop.environment(VECTIDE_KAFKA__BOOTSTRAP_SERVERS="127.0.0.1:1")
    ran = vectide(environment, "check", "--json", "--timeout", "0.3")
    assert ran.code == 1
    assert results(ran) == {
        "embedder": "ok",
        "store": "ok",
        "topics": "failed",
        "dead letters": "skipped",
        "events": "skipped",
    }


@pytest.mark.parametrize("arguments", [["check"], ["check", "--json"], ["preview"], ["search", "x"]])
def test_a_wrong_configuration_is_told_before_anything_is_asked(
    vectide: Vectide, shop: Shop, arguments: list[str]
) -> None:
    environment = shop.environment(VECTIDE_DLQ__TOPIC=shop.topic, VECTIDE_EMBEDDER__KIND="opneai")
    ran = vectide(environment, *arguments)
    assert ran.code == 2
    told = ran.json["problems"] if "--json" in arguments else ran.err.splitlines()
    assert len(told) == 2
    assert "did you mean openai?" in told[0]
    assert "endless loop" in told[1]


# --- preview --------------------------------------------------------------------------------------------


def decisions(ran: Ran) -> list[tuple[str, str | None]]:
    return [(line["decision"], line["reason"]) for line in ran.json_lines]


def test_preview_decides_as_the_service_would_and_writes_nothing(vectide: Vectide, shop: Shop) -> None:
    shop.produce(
        shop.upsert(1, "a tent", description="for two", in_stock=True),
        shop.upsert(1, "a tent", "u", description="for two", in_stock=False),
        shop.upsert(1, "a tent", "u", description="for two", in_stock=False),
        shop.delete(1),
        shop.upsert(2, ""),
        shop.upsert(3, "a text", "u", description="__debezium_unavailable_value"),
        shop.raw(b"garbage"),
        shop.upsert(1, "a tent", description="for three"),
    )
    ran = vectide(shop.environment(), "preview", "--json")
    assert ran.code == 0
    assert decisions(ran) == [
        ("embed", None),
        ("patch", None),
        ("skip", "unchanged"),
        ("remove", "deleted"),
        ("skip", "empty_text"),
        ("dead_letter", "incomplete_row"),
        ("dead_letter", "not_json"),
        ("embed", None),
    ]
    first = ran.json_lines[0]
    assert (first["topic"], first["partition"], first["offset"]) == (shop.topic, 0, 0)
    assert (first["table"], first["key"]) == (shop.table, {"id": 1})
    assert first["metadata"] == {"category": "misc", "in_stock": True}
    assert first["texts"] == [
        {"id": first["points"][0], "chunk": 0, "text": "a tent\n\nfor two", "tokens": 4}
    ]
    assert (first["chunks"], first["removed"]) == (None, [])
    assert not shop.exists()
    assert shop.committed() < 0
    assert shop.letters() == []


def test_preview_shows_people_text_id_metadata_and_the_sum(vectide: Vectide, shop: Shop) -> None:
    shop.produce(shop.upsert(1, "a tent", description="\x1b[31mred?"), shop.delete(9))
    ran = vectide(shop.environment(), "preview")
    assert ran.code == 0
    assert f'{shop.topic}[0]@0  embed  {shop.table} {{"id":1}}' in ran.out
    assert "a tent\n" in ran.out
    assert "\x1b" not in ran.out
    assert '{"category": "misc", "in_stock": true}' in ran.out
    assert f'{shop.topic}[0]@1  skip absent  {shop.table} {{"id":9}}' in ran.out
    assert "2 records: 1 embed, 1 skip;" in ran.out


def test_preview_shows_only_the_newest_of_each_partition(vectide: Vectide, shop: Shop) -> None:
    shop.produce(*(shop.upsert(id_, f"product {id_}") for id_ in range(5)))
    ran = vectide(shop.environment(), "preview", "--json", "--newest", "2")
    assert [line["offset"] for line in ran.json_lines] == [3, 4]


def test_preview_reads_a_recording_without_kafka(vectide: Vectide, shop: Shop) -> None:
    environment = shop.environment(
        VECTIDE_KAFKA__BOOTSTRAP_SERVERS="127.0.0.1:1",
        VECTIDE_STORE__DSN="postgresql://vectors@127.0.0.1:1/vectors",
        VECTIDE_TABLES=shop.tables(source="json_schemas_off.public.products", metadata=["price"]),
    )
    file = str(RECORDINGS / "json_schemas_off.jsonl")
    ran = vectide(environment, "preview", "--recording", file, "--json")
    assert ran.code == 0
    assert len(ran.json_lines) == 234
    assert {decision for decision, _ in decisions(ran)} == {"embed", "patch", "skip", "remove"}


def test_preview_reads_the_types_that_a_table_declares(vectide: Vectide, shop: Shop) -> None:
    """Case 37."""
    environment = shop.environment(
        VECTIDE_KAFKA__BOOTSTRAP_SERVERS="127.0.0.1:1",
        VECTIDE_TABLES=shop.tables(
            source="unwrapped.public.products", metadata=["price"], types={"price": "numeric(10,2)"}
        ),
    )
    ran = vectide(environment, "preview", "--recording", str(RECORDINGS / "unwrapped.jsonl.gz"), "--json")
    assert ran.json_lines[0]["metadata"] == {"price": "469.78"}


def test_a_preview_is_compared_with_one_that_was_kept(vectide: Vectide, shop: Shop, tmp_path: Path) -> None:
    """A new mapping is tried on records that were saved; every record that would end otherwise is named."""
    shop.produce(shop.upsert(1, "lamp"), shop.upsert(2, "chair"), shop.delete(2))
    records, kept = str(tmp_path / "records.jsonl.gz"), tmp_path / "kept.jsonl"
    asked = vectide(shop.environment(), "preview", "--save", records, "--json")
    kept.write_text(asked.out, encoding="utf-8")
    replay = ("preview", "--recording", records, "--check", str(kept))
    same = vectide(shop.environment(), *replay)
    assert (same.code, same.out) == (0, "3 previews are as in the file.\n")
    changed = vectide(shop.environment(VECTIDE_TABLES=shop.tables(metadata=[])), *replay)
    assert changed.code == 1
    assert f"{shop.topic}[0]@1\n    - metadata: " in changed.out
    assert "\n    + metadata: {}\n" in changed.out
    assert changed.out.endswith("2 of 3 previews differ from the file.\n")
    kept.write_text(asked.out.splitlines()[0] + "\n", encoding="utf-8")
    more = vectide(shop.environment(), *replay)
    assert (more.code, more.out.splitlines()[-1]) == (1, "2 of 3 previews differ from the file.")


def test_what_is_no_kept_preview_is_told(vectide: Vectide, shop: Shop, tmp_path: Path) -> None:
    missing = vectide(shop.environment(), "preview", "--check", str(tmp_path / "none.jsonl"))
    assert missing.code == 2
    assert "cannot be read: No such file" in " ".join(missing.err.split())
    (tmp_path / "list.jsonl").write_text("[]\n")
    wrong = vectide(shop.environment(), "preview", "--check", str(tmp_path / "list.jsonl"))
    assert (wrong.code, "each must be an object" in " ".join(wrong.err.split())) == (2, True)
    unwritable = vectide(shop.environment(), "preview", "--save", str(tmp_path))
    assert (unwritable.code, "cannot be written" in unwritable.err) == (2, True)


def test_preview_says_what_is_wrong_with_a_recording(vectide: Vectide, shop: Shop, tmp_path: Path) -> None:
    ran = vectide(shop.environment(), "preview", "--recording", str(tmp_path / "none.jsonl"))
    assert (ran.code, ran.out) == (2, "")
    assert "cannot be read: No such file" in ran.err
    (tmp_path / "wrong.jsonl").write_text("{}\n")
    ran = vectide(shop.environment(), "preview", "--recording", str(tmp_path / "wrong.jsonl"))
    assert ran.code == 2
    assert "wrong.jsonl:1: not a recorded record" in ran.err


def test_preview_of_an_unknown_table_names_those_that_there_are(vectide: Vectide, shop: Shop) -> None:
    ran = vectide(shop.environment(), "preview", "--table", "nothing")
    assert ran.code == 2
    assert ran.err == f"vectide: there is no table nothing: there are {shop.table}\n"


def test_preview_asks_the_provider_for_nothing_unless_the_store_is_compared(
    vectide: Vectide, shop: Shop
) -> None:
    shop.produce(shop.upsert(1, "a tent"))
    with EmbeddingServer() as provider:
        environment = shop.environment(
            VECTIDE_EMBEDDER__KIND="openai",
            VECTIDE_EMBEDDER__MODEL="stub",
            VECTIDE_EMBEDDER__BASE_URL=provider.url,
            VECTIDE_EMBEDDER__DIMENSIONS=None,
        )
        assert decisions(vectide(environment, "preview", "--json")) == [("embed", None)]
        assert provider.stats().calls == 0
        assert decisions(vectide(environment, "preview", "--json", "--store")) == [("embed", None)]
        assert provider.stats().calls == 1


# --- search, and preview of what is stored --------------------------------------------------------------


@pytest.fixture(scope="module")
def filled(broker: BrokerProcess, postgres: EmbeddedPostgres) -> Shop:
    """A shop whose products are in the store."""
    shop = Shop(broker, postgres)
    shop.produce(
        shop.upsert(1, "waterproof tent", category="outdoor", in_stock=True),
        shop.upsert(2, "waterproof jacket", category="outdoor", in_stock=False),
        shop.upsert(3, "wooden chair", category="7", in_stock=True),
    )
    with running(shop.environment()):
        until(lambda: shop.committed() == 3, "the products to be stored")
    return shop


def test_search_finds_the_rows_most_similar_first(vectide: Vectide, filled: Shop) -> None:
    ran = vectide(filled.environment(), "search", "waterproof tent", "--json")
    assert ran.code == 0
    assert sorted(line["key"]["id"] for line in ran.json_lines) == [1, 2, 3]
    assert ran.json_lines == sorted(ran.json_lines, key=lambda line: -float(line["score"]))
    best = ran.json_lines[0]
    assert best["score"] == pytest.approx(1.0, abs=1e-3)
    assert (best["key"], best["table"], best["text"], best["chunk"]) == (
        {"id": 1},
        filled.table,
        "waterproof tent",
        0,
    )
    assert best["metadata"] == {"category": "outdoor", "in_stock": True}
    people = vectide(filled.environment(), "search", "waterproof tent", "--limit", "1")
    assert people.out.splitlines() == [
        f'1.0000  {filled.table} {{"id":1}}',
        '    {"category": "outdoor", "in_stock": true}',
        "    waterproof tent",
    ]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (["in_stock=true"], [1, 3]),
        (["category=outdoor", "in_stock=false"], [2]),
        (['category="7"'], [3]),
        (["category=7"], []),
        (["nothing=1"], []),
    ],
)
def test_search_filters_by_metadata(
    vectide: Vectide, filled: Shop, filters: list[str], found: list[int]
) -> None:
    options = [word for one in filters for word in ("--filter", one)]
    ran = vectide(filled.environment(), "search", "waterproof tent", "--json", *options)
    assert [line["key"]["id"] for line in ran.json_lines] == found


def test_search_says_what_is_wrong(vectide: Vectide, filled: Shop, shop: Shop) -> None:
    for arguments, code, told in [
        (["x", "--filter", "category"], 2, "not NAME=VALUE"),
        (["x", "--table", "nothing"], 2, f"there are {filled.table}"),
        (["x", "--collection", "nothing"], 2, f"there are {filled.table}"),
        (["x", "--table", "a", "--collection", "b"], 2, "not both"),
        ([" "], 2, "blank"),
        (["x", "--tenant", "a"], 2, "has no tenants"),
    ]:
        ran = vectide(filled.environment(), "search", *arguments)
        assert ran.code == code
        assert told in ran.err
    ran = vectide(shop.environment(), "search", "x")
    assert (ran.code, ran.out) == (3, "")
    assert ran.err == f"vectide: there is no collection '{shop.table}' yet: `vectide run` makes it\n"
    assert not shop.exists()
    ran = vectide(filled.environment(VECTIDE_EMBEDDER__DIMENSIONS="32"), "search", "x")
    assert ran.code == 3
    assert "dimensions 64, but 32 is configured" in ran.err


def test_search_asks_which_table_where_there_are_several(vectide: Vectide, filled: Shop, shop: Shop) -> None:
    tables = json.dumps({**json.loads(filled.tables()), **json.loads(shop.tables())})
    environment = filled.environment(VECTIDE_TABLES=tables)
    ran = vectide(environment, "search", "x")
    assert ran.code == 2
    assert ran.err.endswith(
        f"there are several tables: choose by the table, --table is one of {filled.table}, {shop.table}\n"
    )
    assert vectide(environment, "search", "x", "--table", filled.table).code == 0


def test_search_asks_which_table_where_a_collection_is_in_several_stores(
    vectide: Vectide, filled: Shop, shop: Shop
) -> None:
    elsewhere = {"collection": filled.table, "store": {"dsn": "postgresql://reader@elsewhere/vectors"}}
    tables = json.dumps({**json.loads(filled.tables()), **json.loads(shop.tables(**elsewhere))})
    environment = filled.environment(VECTIDE_TABLES=tables)
    ran = vectide(environment, "search", "x", "--collection", filled.table)
    assert ran.code == 2
    assert ran.err.endswith(
        f"collection {filled.table} is in several stores: choose by the table, --table is one of "
        f"{filled.table}, {shop.table}\n"
    )
    assert vectide(environment, "search", "x", "--table", filled.table).code == 0


def test_preview_decides_from_what_the_store_holds_if_told_to(vectide: Vectide, filled: Shop) -> None:
    ran = vectide(filled.environment(), "preview", "--json", "--store")
    assert decisions(ran) == [("skip", "already_applied")] * 3
    filled.produce(filled.upsert(3, "wooden chair", "u", category="7", in_stock=False))
    ran = vectide(filled.environment(), "preview", "--json", "--store", "--newest", "1")
    assert decisions(ran) == [("patch", None)]


# --- config, help ---------------------------------------------------------------------------------------


def test_config_lists_every_variable(vectide: Vectide) -> None:
    listed = vectide({}, "config")
    assert listed.code == 0
    as_json = vectide({}, "config", "--json").json
    for variable in describe():
        assert f"{variable.name}  " in listed.out
        assert variable.meaning in listed.out
    assert [variable["name"] for variable in as_json] == [variable.name for variable in describe()]


@pytest.mark.parametrize("arguments", [["--help"], ["config"], ["--version"]])
def test_what_needs_no_dependency_loads_none(arguments: list[str]) -> None:
    script = (
        "import sys\nfrom vectide import cli\n"
        "try:\n    cli.main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'numpy', 'confluent_kafka', 'psycopg', 'openai', 'uvicorn'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", script, *arguments], check=True, stdout=subprocess.DEVNULL)  # noqa: S603


def test_it_runs_as_a_module_too() -> None:
    command = [sys.executable, "-m", "vectide", "--version"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603
    assert printed == f"vectide {__version__}\n"


@pytest.mark.parametrize("arguments", [["no-such-verb"], ["search"], ["preview", "--newest", "0"]])
def test_wrong_usage_ends_with_2(vectide: Vectide, arguments: list[str]) -> None:
    assert vectide({}, *arguments).code == 2

"""The environment: names, bounds, files, and every problem at once (cases 161, 169, 170, 175)."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path

import pytest

from vectide.settings import (
    Settings,
    SettingsError,
    VariableDoc,
    describe,
    effective,
    load,
    secret_values,
)

TABLES = "products: {source: shop.public.products, embed: {columns: [name]}}"
MINIMAL: Mapping[str, str] = {
    "VECTIDE_KAFKA__BOOTSTRAP_SERVERS": "broker:9092",
    "VECTIDE_EMBEDDER__KIND": "hashing",
    "VECTIDE_STORE__KIND": "pgvector",
    "VECTIDE_STORE__DSN": "postgresql://vectors@db/vectors",
    "VECTIDE_TABLES": TABLES,
}


def problems_of(**changes: str) -> list[str]:
    """The problems of the minimal environment with these changes."""
    with pytest.raises(SettingsError) as raised:
        load({**MINIMAL, **changes})
    return raised.value.problems


def loaded(**changes: str) -> Settings:
    return load({**MINIMAL, **changes})


# --- what is read ---------------------------------------------------------------------------------------


def test_five_variables_are_enough_and_the_rest_has_defaults() -> None:
    settings = load(MINIMAL)
    assert settings.kafka.group_id == "vectide"
    assert settings.embedder.batch_items == 64
    assert settings.embedder.linger_ms == 500
    assert settings.embedder.concurrency == 8
    assert settings.embedder.timeout_s == 30
    assert settings.store.batch_items == 256
    assert settings.dlq.topic == "vectide.dlq"
    assert (settings.http.host, settings.http.port) == ("127.0.0.1", 8080)
    assert settings.limits.records_in_flight == 40_000
    assert settings.limits.bytes_in_flight == 96 * 2**20
    assert settings.limits.grace_s == 60
    assert (settings.log.format, settings.log.level) == ("json", "info")
    assert settings.codec.unavailable_placeholder == "__debezium_unavailable_value"


def test_every_variable_can_be_set() -> None:
    samples = {
        "VECTIDE_KAFKA__BOOTSTRAP_SERVERS": "a:1,b:2",
        "VECTIDE_KAFKA__TOPICS": "shop.public.products",
        "VECTIDE_KAFKA__EXTRA": '{"client.id": "me"}',
        "VECTIDE_EMBEDDER__KIND": "openai",
        "VECTIDE_EMBEDDER__BASE_URL": "https://llm.example/v1",
        "VECTIDE_STORE__KIND": "pgvector",
        "VECTIDE_STORE__DSN": "host=db dbname=x",
        "VECTIDE_SOURCE__DSN": "postgresql://shop/shop",
        "VECTIDE_DLQ__TOPIC": "bad",
        "VECTIDE_DLQ__MAX_SHARE": "0.5",
        "VECTIDE_LIMITS__BYTES_IN_FLIGHT": "64MiB",
        "VECTIDE_CACHE__KIND": "disk",
        "VECTIDE_CACHE__BYTES": "64MiB",
        "VECTIDE_LOG__FORMAT": "console",
        "VECTIDE_LOG__LEVEL": "DEBUG",
        "VECTIDE_CODEC__DECIMALS": "string",
        "VECTIDE_REGISTRY__URL": "http://registry:8081, https://other:8081/",
        "VECTIDE_REGISTRY__FORMAT": "AVRO",
        "VECTIDE_REGISTRY__FRAME": "apicurio-2",
        "VECTIDE_REGISTRY__OAUTH_URL": "https://login.example/token",
        "VECTIDE_TABLES": TABLES,
    }
    by_type = {"integer": "7", "number": "7", "text": "seven"}
    environ = {doc.name: samples.get(doc.name) or by_type[doc.type] for doc in describe()}
    for other_way in ("STORE__URL", "REGISTRY__USERNAME", "REGISTRY__PASSWORD", "REGISTRY__TOKEN"):
        del environ[f"VECTIDE_{other_way}"]
    settings = load(environ)
    assert settings.registry.url == "http://registry:8081,https://other:8081"
    assert (settings.registry.format, settings.registry.frame) == ("avro", "apicurio-2")
    assert settings.codec.decimals == "string"
    assert settings.kafka.bootstrap_servers == "a:1,b:2"
    assert settings.kafka.properties == {"client.id": "me"}
    assert settings.limits.bytes_in_flight == 64 * 2**20
    assert settings.log.level == "debug"
    assert settings.http.port == 7
    assert settings.store.address == "host=db dbname=x"


@pytest.mark.parametrize("padding", [" {} ", "\t{}\n", "{}\r\n"])
def test_white_space_around_a_value_is_dropped(padding: str) -> None:
    """Case 170."""
    settings = load({name: padding.format(value) for name, value in MINIMAL.items()})
    assert settings.kafka.bootstrap_servers == "broker:9092"
    assert settings.embedder.kind == "hashing"
    assert settings.store.address == "postgresql://vectors@db/vectors"


@pytest.mark.parametrize("blank", ["", "  ", "\n"])
def test_a_blank_variable_counts_as_unset(blank: str) -> None:
    """Case 170."""
    settings = loaded(VECTIDE_EMBEDDER__DIMENSIONS=blank, VECTIDE_HTTP__TOKEN=blank, VECTIDE_HTTP__PORT=blank)
    assert settings.embedder.dimensions is None
    assert settings.http.token is None
    assert settings.http.port == 8080
    assert problems_of(VECTIDE_KAFKA__BOOTSTRAP_SERVERS=blank)[0].startswith(
        "VECTIDE_KAFKA__BOOTSTRAP_SERVERS: required"
    )


@pytest.mark.parametrize(
    ("given", "lacking"), [("CERTIFICATE_PATH", "KEY_PATH"), ("KEY_PATH", "CERTIFICATE_PATH")]
)
def test_a_certificate_and_its_key_go_together(given: str, lacking: str) -> None:
    assert problems_of(**{f"VECTIDE_HTTP__{given}": "/tls"}) == [
        f"VECTIDE_HTTP__{lacking}: required with VECTIDE_HTTP__{given}"
    ]


def test_what_may_be_chosen_is_said_with_what_is_required() -> None:
    (problem,) = problems_of(VECTIDE_STORE__KIND="", VECTIDE_STORE__DSN="")
    assert problem.startswith(
        "VECTIDE_STORE__KIND: required: Vector store, or the name of a plug-in. pgvector | "
    )


def test_topics_are_a_list_a_pattern_or_what_the_tables_name() -> None:
    assert load(MINIMAL).topics == ("shop.public.products",)
    listed = loaded(VECTIDE_KAFKA__TOPICS=" shop.public.products , shop.heartbeat ,")
    assert listed.topics == ("shop.public.products", "shop.heartbeat")
    pattern = loaded(VECTIDE_KAFKA__TOPICS=r"^shop\.public\.[a-z]{1,20}$")
    assert pattern.topics == (r"^shop\.public\.[a-z]{1,20}$",)


def test_a_topic_finds_its_table_by_its_name_or_by_a_pattern() -> None:
    settings = loaded(
        VECTIDE_TABLES=r"shards: {source: '^shard\d+\.orders$', embed: {columns: [note]}}" + "\n" + TABLES
    )
    found = settings.mapping_of("shard7.orders")
    assert found is not None
    assert found.table == "shards"
    exact = settings.mapping_of("shop.public.products")
    assert exact is not None
    assert exact.table == "products"
    assert settings.mapping_of("shop.public.products.old") is None
    assert settings.tables_of("shard7.orders") == ("shards",)
    assert settings.tables_of("shop.public.products.old") == ()


# --- files ----------------------------------------------------------------------------------------------


def test_a_secret_may_come_from_a_file_and_its_last_newline_is_dropped(tmp_path: Path) -> None:
    """Case 170."""
    file = tmp_path / "dsn"
    file.write_text("\ufeff postgresql://from:file@db/x \n\n", encoding="utf-8")
    settings = loaded(VECTIDE_STORE__DSN="", VECTIDE_STORE__DSN_FILE=f" {file}\n")
    assert settings.store.address == "postgresql://from:file@db/x"


def test_the_tables_may_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "tables.yaml"
    file.write_text("  orders:\n    source: a.b\n    embed:\n      columns: x\n")
    settings = loaded(VECTIDE_TABLES="", VECTIDE_TABLES_FILE=str(file))
    assert list(settings.tables) == ["orders"]


def test_a_variable_and_its_file_together_are_a_problem(tmp_path: Path) -> None:
    file = tmp_path / "dsn"
    file.write_text("postgresql://other@db/x")
    assert problems_of(VECTIDE_STORE__DSN_FILE=str(file), VECTIDE_TABLES_FILE=str(file)) == [
        "VECTIDE_STORE__DSN: given twice, also as VECTIDE_STORE__DSN_FILE: keep one of them",
        "VECTIDE_TABLES: given twice, also as VECTIDE_TABLES_FILE: keep one of them",
        "VECTIDE_STORE__DSN: required with the pgvector store, e.g. postgresql://user@host/database",
    ]


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "cannot be read"), (b"", "is empty"), (b" \n", "is empty"), (b"\xff\xfe\xfa", "not UTF-8")],
)
def test_an_unusable_file_is_a_problem(tmp_path: Path, content: bytes | None, says: str) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
    (problem,) = problems_of(VECTIDE_EMBEDDER__API_KEY_FILE=str(file))
    assert problem.startswith("VECTIDE_EMBEDDER__API_KEY_FILE: the file")
    assert says in problem


def test_a_file_is_never_read_without_end() -> None:
    (problem,) = problems_of(VECTIDE_EMBEDDER__API_KEY_FILE="/dev/zero")
    assert "larger than 4 MiB" in problem


def test_only_secrets_have_a_file_variant() -> None:
    (problem,) = problems_of(VECTIDE_HTTP__PORT_FILE="/run/port")
    assert problem.startswith("VECTIDE_HTTP__PORT_FILE: unknown variable")


# --- problems -------------------------------------------------------------------------------------------


def test_every_problem_is_told_at_once() -> None:
    """Case 169."""
    with pytest.raises(SettingsError) as raised:
        load(
            {
                "VECTIDE_EMBEDDER__KIND": "openia",
                "VECTIDE_EMBEDDER__TIMEOUT_S": "soon",
                "VECTIDE_STORE__KIND": "pgvector",
                "VECTIDE_HTTP__PORT": "70000",
                "VECTIDE_KAFKA__EXTRA": "{",
                "VECTIDE_DLQ__TOPIC": "bad letters",
                "VECTIDE_HTTP_HOST": "localhost",
                "VECTIDE_TABLES": "products: {sorce: x, embed: {template: '{a'}}",
            }
        )
    told = [problem.partition(": ")[0] for problem in raised.value.problems]
    assert told == [
        "VECTIDE_KAFKA__BOOTSTRAP_SERVERS",
        "VECTIDE_KAFKA__EXTRA",
        "VECTIDE_EMBEDDER__KIND",
        "VECTIDE_EMBEDDER__TIMEOUT_S",
        "VECTIDE_DLQ__TOPIC",
        "VECTIDE_HTTP__PORT",
        "tables.products.source",
        "tables.products.sorce",
        "tables.products.embed.template",
        "VECTIDE_HTTP_HOST",
        "VECTIDE_STORE__DSN",
    ]
    assert all("\n" not in problem for problem in raised.value.problems)
    assert str(raised.value) == "\n".join(raised.value.problems)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("VECTIDE_KAFKA__BOOTSTRAP_SERVER", "VECTIDE_KAFKA__BOOTSTRAP_SERVERS"),
        ("VECTIDE_HTTP_PORT", "VECTIDE_HTTP__PORT"),
        ("VECTIDE_embedder__model", "VECTIDE_EMBEDDER__MODEL"),
        ("VECTIDE_STORE__DSN_FLIE", "VECTIDE_STORE__DSN_FILE"),
        ("VECTIDE_TABLE_FILE", "VECTIDE_TABLES_FILE"),
    ],
)
def test_a_misspelt_variable_is_refused_with_the_likely_name(name: str, meant: str) -> None:
    """Case 169."""
    assert problems_of(**{name: "1"}) == [f"{name}: unknown variable; did you mean {meant}?"]


def test_an_unknown_variable_without_a_likely_name_is_refused_too() -> None:
    assert problems_of(VECTIDE_XYZZY="") == ["VECTIDE_XYZZY: unknown variable"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("VECTIDE_PORT", "tcp://10.0.0.1:8080"),
        ("VECTIDE_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("VECTIDE_SERVICE_HOST", "10.0.0.1"),
        ("VECTIDE_SERVICE_PORT_HTTP", "8080"),
        ("VECTIDE_POSTGRES_SERVICE_HOST", "10.0.0.1"),
        ("VECTIDE_POSTGRES_PORT", "tcp://10.0.0.2:5432"),
        ("VECTIDE_POSTGRES_PORT_5432_TCP_PROTO", "tcp"),
    ],
)
def test_what_kubernetes_injects_for_a_service_is_let_be(name: str, value: str) -> None:
    assert load({**MINIMAL, name: value}) == load(MINIMAL)


def test_other_variables_are_nobodys_business() -> None:
    assert load({**MINIMAL, "PATH": "/bin", "OPENAI_API_KEY": "x", "VECTIDES_X": "1"}) == load(MINIMAL)


def test_the_openai_embedder_needs_a_model_and_a_key() -> None:
    told = problems_of(VECTIDE_EMBEDDER__KIND="openai", VECTIDE_EMBEDDER__TIMEOUT_S="x")
    assert [problem.partition(": ")[0] for problem in told] == [
        "VECTIDE_EMBEDDER__TIMEOUT_S",
        "VECTIDE_EMBEDDER__MODEL",
        "VECTIDE_EMBEDDER__API_KEY",
    ]


def test_the_azure_embedder_needs_an_address_too() -> None:
    given = {"VECTIDE_EMBEDDER__KIND": "azure", "VECTIDE_EMBEDDER__MODEL": "text-embedding-3-small"}
    assert [problem.partition(": ")[0] for problem in problems_of(**given)] == [
        "VECTIDE_EMBEDDER__BASE_URL",
        "VECTIDE_EMBEDDER__API_KEY",
    ]


def test_a_server_of_ones_own_needs_no_key() -> None:
    settings = loaded(
        VECTIDE_EMBEDDER__KIND="OpenAI",
        VECTIDE_EMBEDDER__MODEL="bge",
        VECTIDE_EMBEDDER__BASE_URL="http://tei:8080/v1",
    )
    assert settings.embedder.kind == "openai"


def test_other_stores_need_a_url() -> None:
    without = {"VECTIDE_STORE__KIND": "Qdrant", "VECTIDE_STORE__DSN": ""}
    assert problems_of(**without) == [
        "VECTIDE_STORE__URL: required with the qdrant store, e.g. http://qdrant:6333"
    ]
    assert "VECTIDE_STORE__URL" in problems_of(VECTIDE_STORE__KIND="qdrant")[0]
    store = loaded(**without, VECTIDE_STORE__URL="http://q:6333", VECTIDE_STORE__API_KEY="k").store
    assert (store.kind, store.address, store.options["api_key"]) == ("qdrant", "http://q:6333", "k")
    assert store.options["vector"] is None


def test_the_pgvector_store_needs_one_address() -> None:
    assert problems_of(VECTIDE_STORE__DSN="")[0].startswith("VECTIDE_STORE__DSN: required with the pgvector")
    assert (
        loaded(VECTIDE_STORE__DSN="", VECTIDE_STORE__URL="postgres://h/d").store.address == "postgres://h/d"
    )
    assert "keep one" in problems_of(VECTIDE_STORE__URL="postgres://h/d")[0]
    assert problems_of(VECTIDE_STORE__DSN="mysql://u:secret@h/d") == [
        "VECTIDE_STORE__DSN: must start with postgresql:// or be a list of key=value"
    ]


def test_a_table_that_asks_for_re_reads_needs_a_source_and_the_default_does_not() -> None:
    asks = "products: {source: shop.public.products, embed: {columns: [name]}, on_incomplete: [reread]}"
    problem = "tables.products.on_incomplete: reread needs VECTIDE_SOURCE__DSN, or the table's source_dsn"
    assert problems_of(VECTIDE_TABLES=asks) == [problem]
    dsn = "postgresql://reader@shop/shop"
    assert loaded(VECTIDE_TABLES=asks, VECTIDE_SOURCE__DSN=dsn).source.address == dsn
    assert "reread" in loaded().mappings[0].on_incomplete
    assert problems_of(VECTIDE_SOURCE__DSN="shop") == [
        "VECTIDE_SOURCE__DSN: must start with postgresql:// or be a list of key=value"
    ]


@pytest.mark.parametrize(
    "topics", ["vectide.dlq,shop.public.products", "^.*", r"^(vectide\.|shop\.)"], ids=["listed", "all", "or"]
)
def test_a_dead_letter_topic_that_is_consumed_is_refused(topics: str) -> None:
    """Case 161."""
    (problem,) = problems_of(VECTIDE_KAFKA__TOPICS=topics)
    assert problem.startswith("VECTIDE_DLQ__TOPIC")
    assert "endless loop" in problem


@pytest.mark.parametrize("source", ["vectide.dlq", "'^vectide'"])
def test_a_dead_letter_topic_that_fills_a_table_is_refused(source: str) -> None:
    """Case 161."""
    (problem,) = problems_of(VECTIDE_TABLES=f"mine: {{source: {source}, embed: {{columns: [x]}}}}")
    assert problem.startswith("VECTIDE_DLQ__TOPIC: is the source of table mine")


@pytest.mark.parametrize("given", [{}, {"VECTIDE_DLQ__REPLAY_TOPIC": "again"}])
def test_a_replay_topic_that_is_consumed_is_refused(given: dict[str, str]) -> None:
    name = given.get("VECTIDE_DLQ__REPLAY_TOPIC", "vectide.dlq.replay")
    (problem,) = problems_of(VECTIDE_KAFKA__TOPICS=f"shop.public.products,{name}", **given)
    assert problem.startswith("VECTIDE_DLQ__REPLAY_TOPIC: is taken in")


def test_the_replay_topic_must_be_another_one() -> None:
    (problem,) = problems_of(VECTIDE_DLQ__REPLAY_TOPIC="vectide.dlq")
    assert "must be another topic" in problem


def test_a_table_whose_topic_is_not_consumed_is_refused() -> None:
    assert problems_of(VECTIDE_KAFKA__TOPICS="shop.public.orders") == [
        "tables.products.source: VECTIDE_KAFKA__TOPICS does not take in this topic"
    ]


@pytest.mark.parametrize(
    "name", ["enable.auto.commit", "group.id", "bootstrap.servers", "auto.offset.reset", "isolation.level"]
)
def test_client_properties_that_vectide_relies_on_cannot_be_overridden(name: str) -> None:
    (problem,) = problems_of(VECTIDE_KAFKA__EXTRA=json.dumps({name: "x"}))
    assert problem.startswith(f"VECTIDE_KAFKA__EXTRA: {name} cannot be set here")


def test_client_properties_become_texts() -> None:
    extra = {"enable.ssl.certificate.verification": False, "fetch.wait.max.ms": 100, "client.id": "x"}
    assert loaded(VECTIDE_KAFKA__EXTRA=json.dumps(extra)).kafka.properties == {
        "enable.ssl.certificate.verification": "false",
        "fetch.wait.max.ms": "100",
        "client.id": "x",
    }


@pytest.mark.parametrize("extra", ["[1]", '"x"', "{'a': 1}", '{"a": null}', '{"a": {"b": 1}}'])
def test_client_properties_that_are_no_flat_object_are_refused(extra: str) -> None:
    (problem,) = problems_of(VECTIDE_KAFKA__EXTRA=extra)
    assert problem.startswith("VECTIDE_KAFKA__EXTRA: ")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("VECTIDE_HTTP__PORT", "-1"),
        ("VECTIDE_LIMITS__GRACE_S", "inf"),
        ("VECTIDE_LIMITS__GRACE_S", "nan"),
        ("VECTIDE_LIMITS__GRACE_S", "0"),
        ("VECTIDE_LIMITS__BYTES_IN_FLIGHT", "12 bananas"),
        ("VECTIDE_LIMITS__RECORDS_IN_FLIGHT", "0"),
        ("VECTIDE_DLQ__MAX_SHARE", "1.1"),
        ("VECTIDE_EMBEDDER__DIMENSIONS", "0"),
        ("VECTIDE_EMBEDDER__CONCURRENCY", "1.5"),
        ("VECTIDE_EMBEDDER__BASE_URL", "llm.example"),
        ("VECTIDE_EMBEDDER__BASE_URL", "https://user:pass@llm.example"),
        ("VECTIDE_EMBEDDER__API_KEY", "two words"),
        ("VECTIDE_EMBEDDER__API_KEY", "two\nlines"),
        ("VECTIDE_KAFKA__TOPICS", "^shop("),
        ("VECTIDE_KAFKA__TOPICS", "shop.public.products,^x"),
        ("VECTIDE_KAFKA__TOPICS", "shop public"),
        ("VECTIDE_KAFKA__BOOTSTRAP_SERVERS", "a b"),
        ("VECTIDE_LOG__LEVEL", "loud"),
    ],
)
def test_a_value_out_of_bounds_is_one_problem_that_does_not_repeat_it(name: str, value: str) -> None:
    (problem,) = problems_of(**{name: value})
    assert problem.startswith(f"{name}: must") or problem.startswith(f"{name}: a regular")


# --- secrets --------------------------------------------------------------------------------------------

SECRETS = {
    "VECTIDE_STORE__DSN": "postgresql://vectors:Hunter2%21@db/vectors",
    "VECTIDE_EMBEDDER__API_KEY": "sk-Hunter2!",
    "VECTIDE_HTTP__TOKEN": "token-Hunter2!",
    "VECTIDE_KAFKA__EXTRA": '{"sasl.username": "vectide", "sasl.password": "kafka-Hunter2!"}',
}


def test_secrets_never_show_in_any_form_of_the_settings() -> None:
    """Case 175."""
    settings = loaded(**SECRETS)
    shown = [repr(settings), str(settings), repr(effective(settings)), json.dumps(effective(settings))]
    for section in (settings.kafka, settings.embedder, settings.store, settings.http):
        shown += [repr(section), str(section), section.model_dump_json(), str(section.model_dump())]
    assert not [text for text in shown if "Hunter2" in text]
    assert effective(settings)["store"]["dsn"] == "***"
    assert effective(settings)["store"]["url"] is None
    assert effective(settings)["kafka"]["extra"] == {"sasl.username": "***", "sasl.password": "***"}


def test_secrets_never_show_in_problems_even_in_the_wrong_variable() -> None:
    """Case 175."""
    every = {doc.name: "Hunter2! \x00{" for doc in describe()} | {"VECTIDE_STORE__DNS": "x:Hunter2!"}
    with pytest.raises(SettingsError) as raised:
        load(every)
    assert len(raised.value.problems) > 20
    assert "Hunter2" not in str(raised.value) + repr(raised.value) + repr(raised.value.__context__)
    assert b"Hunter2" not in pickle.dumps(raised.value.problems)


def test_the_texts_that_logs_must_hide_include_the_password_inside_an_address() -> None:
    found = secret_values(loaded(**SECRETS))
    assert found == {
        "postgresql://vectors:Hunter2%21@db/vectors",
        "Hunter2%21",
        "Hunter2!",
        "sk-Hunter2!",
        "token-Hunter2!",
        "kafka-Hunter2!",
    }
    keyed = loaded(VECTIDE_STORE__DSN="host=db password='open sesame' user=x")
    assert "open sesame" in secret_values(keyed)


# --- describing -----------------------------------------------------------------------------------------


def test_every_variable_is_described_in_one_sentence() -> None:
    docs = {doc.name: doc for doc in describe()}
    assert all(doc.meaning.endswith(".") for doc in docs.values())
    assert docs["VECTIDE_EMBEDDER__KIND"] == VariableDoc(
        name="VECTIDE_EMBEDDER__KIND",
        type="openai | azure | cohere | voyage | gemini | onnx | sentence-transformers | model2vec | "
        "wordllama | hashing",
        default=None,
        required=True,
        secret=False,
        meaning="Embedding provider, or the name of a plug-in.",
    )
    assert docs["VECTIDE_LIMITS__BYTES_IN_FLIGHT"].default == "96MiB"
    assert {name for name, doc in docs.items() if doc.secret} == {
        "VECTIDE_KAFKA__EXTRA",
        "VECTIDE_EMBEDDER__API_KEY",
        "VECTIDE_STORE__DSN",
        "VECTIDE_STORE__URL",
        "VECTIDE_STORE__API_KEY",
        "VECTIDE_SOURCE__DSN",
        "VECTIDE_HTTP__TOKEN",
        "VECTIDE_REGISTRY__PASSWORD",
        "VECTIDE_REGISTRY__TOKEN",
        "VECTIDE_REGISTRY__OAUTH_CLIENT_SECRET",
        "VECTIDE_REGISTRY__KEY_PASSWORD",
    }


def test_the_described_defaults_are_the_ones_in_force() -> None:
    spelled = {doc.name: doc.default for doc in describe() if doc.default is not None}
    assert load({**MINIMAL, **spelled}) == load(MINIMAL)


def test_durations_say_their_unit() -> None:
    for doc in describe():
        if doc.name.endswith("_S"):
            assert "in seconds" in doc.meaning
        if doc.name.endswith("_MS"):
            assert "in milliseconds" in doc.meaning


# --- the schema registry --------------------------------------------------------------------------------


def test_a_registry_is_used_when_it_has_an_address_and_there_are_schemas() -> None:
    assert not loaded().registry.used
    assert loaded(VECTIDE_REGISTRY__URL="http://registry:8081").registry.used
    plain = loaded(VECTIDE_REGISTRY__URL="http://registry:8081", VECTIDE_REGISTRY__FORMAT="json")
    assert not plain.registry.used


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"TOKEN": "t"}, "VECTIDE_REGISTRY__URL: required with VECTIDE_REGISTRY__TOKEN"),
        (
            {"URL": "http://r", "PASSWORD": "p"},
            "VECTIDE_REGISTRY__USERNAME: required with VECTIDE_REGISTRY__PASSWORD",
        ),
        (
            {"URL": "http://r", "OAUTH_URL": "http://o/t", "OAUTH_CLIENT_ID": "me"},
            "VECTIDE_REGISTRY__OAUTH_CLIENT_SECRET: required with VECTIDE_REGISTRY__OAUTH_CLIENT_ID",
        ),
        (
            {"URL": "http://r", "KEY_PATH": "/k"},
            "VECTIDE_REGISTRY__CERTIFICATE_PATH: required with VECTIDE_REGISTRY__KEY_PATH",
        ),
        ({"URL": "registry:8081"}, "VECTIDE_REGISTRY__URL: must be a URL"),
        ({"URL": "http://me:secret@registry"}, "VECTIDE_REGISTRY__URL: must be a URL"),
        ({"URL": ","}, "VECTIDE_REGISTRY__URL: "),
        ({"URL": "http://r", "FORMAT": "arvo"}, "did you mean avro?"),
    ],
)
def test_settings_of_the_registry_that_do_not_fit_together_are_told(
    given: dict[str, str], problem: str
) -> None:
    found = problems_of(**{f"VECTIDE_REGISTRY__{name}": value for name, value in given.items()})
    assert any(problem in line for line in found), found
    assert not any("secret" in line for line in found)


def test_one_way_to_sign_in_is_enough() -> None:
    found = problems_of(
        **{"VECTIDE_REGISTRY__URL": "http://r", "VECTIDE_REGISTRY__TOKEN": "t"},
        VECTIDE_REGISTRY__USERNAME="me",
    )
    assert found == [
        "VECTIDE_REGISTRY__USERNAME: VECTIDE_REGISTRY__USERNAME and VECTIDE_REGISTRY__TOKEN are different "
        "ways to sign in: keep one of them"
    ]


def test_secrets_of_the_registry_may_come_from_files(tmp_path: Path) -> None:
    hidden = "hush"
    (tmp_path / "password").write_text(f"{hidden}\n")
    settings = loaded(
        VECTIDE_REGISTRY__URL="http://r",
        VECTIDE_REGISTRY__USERNAME="me",
        VECTIDE_REGISTRY__PASSWORD_FILE=str(tmp_path / "password"),
    )
    assert settings.registry.credentials["password"] == hidden
    assert hidden not in repr(settings)
    assert hidden in secret_values(settings)


# --- the cache of vectors --------------------------------------------------------------------------------


def test_vectors_are_kept_in_memory_unless_said_otherwise() -> None:
    assert (loaded().cache.kind, loaded().cache.most_bytes) == ("memory", 32 * 2**20)
    on_disk = loaded(VECTIDE_CACHE__KIND="Disk", VECTIDE_CACHE__PATH="/cache/vectors.db").cache
    assert (on_disk.kind, on_disk.most_bytes) == ("disk", 2**30)
    assert loaded(VECTIDE_CACHE__BYTES="8MiB").cache.most_bytes == 8 * 2**20
    assert loaded(VECTIDE_CACHE__KIND="off").cache.kind == "off"


def test_only_a_cache_on_disk_has_a_path() -> None:
    assert problems_of(VECTIDE_CACHE__KIND="disk") == [
        "VECTIDE_CACHE__PATH: required with VECTIDE_CACHE__KIND=disk"
    ]
    assert problems_of(VECTIDE_CACHE__PATH="/cache/vectors.db") == [
        "VECTIDE_CACHE__PATH: only for VECTIDE_CACHE__KIND=disk: leave it out"
    ]

"""``vectide dlq`` and ``vectide topics``: what was put aside can be found, shown, and its place prepared."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
from tests.pipeline.shop import Shop, running, until
from tests.pipeline.verbs import Ran, Vectide

from vectide.core.letters import PREFIX
from vectide.core.model import Record
from vectide.testing.broker import BrokerProcess, produce
from vectide.testing.postgres import EmbeddedPostgres

POISON = b'{"secret of row": '


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


@pytest.fixture(scope="module")
def spoilt(broker: BrokerProcess, postgres: EmbeddedPostgres) -> Shop:
    """A shop with five records, of which the service put three aside."""
    shop = Shop(broker, postgres)
    records = (
        [shop.upsert(1, "a tent"), shop.raw(POISON, b'{"id": 1}')],
        [shop.raw(b'{"secret": 1}', b'{"id": 2}'), shop.upsert(2, "a chair")],
        [shop.raw(b"[]", b"no json")],
    )
    with running(shop.environment()):
        for some, end in zip(records, (2, 4, 5), strict=True):
            shop.produce(*some)
            until(lambda end=end: shop.committed() == end, "the records to be settled")  # type: ignore[misc]
    return shop


# --- list -----------------------------------------------------------------------------------------------


def test_letters_are_listed_without_content_or_keys(vectide: Vectide, spoilt: Shop) -> None:
    """Invariant 13."""
    ran = vectide(spoilt.environment(), "dlq", "list")
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert len(lines) == 5
    assert f"{spoilt.topic}[0]@1" in lines[1]
    assert "not_json (decode)" in lines[1]
    assert lines[-1] == "3 dead letters: 2 not_an_envelope, 1 not_json."
    assert "secret" not in ran.out
    assert '"id"' not in ran.out
    assert "no json" not in ran.out


def test_listed_letters_for_programs(vectide: Vectide, spoilt: Shop) -> None:
    first, *_ = found = vectide(spoilt.environment(), "dlq", "list", "--json").json_lines
    assert [letter["offset"] for letter in found] == [1, 2, 4]
    assert first.pop("failed_at")
    assert first.pop("timestamp")
    assert first.pop("version")
    assert first.pop("log") not in (None, spoilt.topic)
    assert len(first.pop("key_hash")) == 8
    assert first.pop("detail")
    assert first == {
        "letter": {"partition": 0, "offset": 0},
        "topic": spoilt.topic,
        "partition": 0,
        "offset": 1,
        "table": spoilt.table,
        "cause": "not_json",
        "stage": "decode",
        "attempts": 1,
        "truncated": False,
    }


def test_keys_are_shown_to_those_who_ask(vectide: Vectide, spoilt: Shop) -> None:
    ran = vectide(spoilt.environment(), "dlq", "list", "--keys")
    assert '{"id":1}' in ran.out
    assert "no json" in ran.out
    found = vectide(spoilt.environment(), "dlq", "list", "--keys", "--json").json_lines
    assert [letter["key"] for letter in found] == [{"id": 1}, {"id": 2}, None]


@pytest.mark.parametrize(
    ("options", "offsets"),
    [
        (["--cause", "not_json"], [1]),
        (["--cause", "not_json", "--cause", "not_an_envelope"], [1, 2, 4]),
        (["--cause", "bad_value"], []),
        (["--key", "2"], [2]),
        (["--key", '{"id": 1}'], [1]),
        (["--key", "no json"], [4]),
        (["--table", "another"], []),
        (["--since", "1h"], [1, 2, 4]),
        (["--until", "1h"], []),
        (["--limit", "1"], [4]),
    ],
)
def test_letters_are_filtered(vectide: Vectide, spoilt: Shop, options: list[str], offsets: list[int]) -> None:
    ran = vectide(spoilt.environment(), "dlq", "list", "--json", *options)
    assert [letter["offset"] for letter in ran.json_lines] == offsets


def test_a_limit_says_that_there_are_more(vectide: Vectide, spoilt: Shop) -> None:
    ran = vectide(spoilt.environment(), "dlq", "list", "--limit", "1")
    assert ran.out.splitlines()[-1].endswith("The newest 1 are shown.")
    assert vectide(spoilt.environment(), "dlq", "list", "--table", "x").out == "No dead letters.\n"


def test_listing_joins_no_group_and_commits_nothing(vectide: Vectide, shop: Shop) -> None:
    assert vectide(shop.environment(), "dlq", "list").code == 0
    assert shop.committed() < 0


def test_records_that_are_no_letters_are_told_apart(
    vectide: Vectide, shop: Shop, broker: BrokerProcess
) -> None:
    produce(broker.bootstrap, [Record(shop.dlq, 0, -1, b"k", b"v")])
    ran = vectide(shop.environment(), "dlq", "list")
    assert ran.out.splitlines() == [
        "No dead letters.",
        "1 records of the topic are no dead letters of vectide.",
    ]


def test_wrong_filters_are_told_at_once(vectide: Vectide, shop: Shop) -> None:
    ran = vectide(shop.environment(), "dlq", "list", "--since", "soon", "--until", "later")
    assert ran.code == 2
    assert "--since: 'soon' is neither" in ran.err
    assert "--until: 'later' is neither" in ran.err
    assert vectide(shop.environment(), "dlq", "list", "--since", "1h", "--until", "2h").code == 2


@pytest.mark.parametrize("verb", [["list"], ["show", "0"]])
def test_a_missing_topic_is_a_refusal_that_says_what_to_do(
    vectide: Vectide, shop: Shop, verb: list[str]
) -> None:
    ran = vectide(shop.environment(VECTIDE_DLQ__TOPIC="no.such.dlq"), "dlq", *verb)
    assert ran.code == 3
    assert "no topic no.such.dlq" in ran.err
    assert "vectide topics" in ran.err


# --- show -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["{topic}[0]@1", "0", "0@0", "{dlq}[0]@0"])
def test_a_letter_is_shown_in_full(vectide: Vectide, spoilt: Shop, where: str) -> None:
    place = where.format(topic=spoilt.topic, dlq=spoilt.dlq)
    ran = vectide(spoilt.environment(), "dlq", "show", place)
    assert (ran.code, ran.err) == (0, "")
    assert POISON.decode() in ran.out
    assert f"{spoilt.topic}[0]@1" in ran.out
    assert "dead_letter not_json" in ran.out
    plain = vectide(spoilt.environment(), "dlq", "show", place, "--json").json
    assert plain["value"] == POISON.decode()
    assert plain["key"] == '{"id": 1}'
    assert plain["headers"] == []
    assert (plain["now"]["decision"], plain["now"]["reason"]) == ("dead_letter", "not_json")


def test_a_letter_is_shown_without_content_if_told_to(vectide: Vectide, spoilt: Shop) -> None:
    for options in ([], ["--json"]):
        ran = vectide(spoilt.environment(), "dlq", "show", "0", "--no-content", *options)
        assert ran.code == 0
        assert "secret" not in ran.out
        assert '"id"' not in ran.out


def test_a_letter_shows_what_the_present_mapping_would_do(vectide: Vectide, shop: Shop) -> None:
    shop.produce(shop.upsert(7, "a lamp", category="no number!"))
    environment = shop.environment(VECTIDE_TABLES=shop.tables(types={"category": "numeric(10,2)"}))
    with running(environment):
        until(lambda: shop.letters(), "the record to be put aside")
    assert vectide(environment, "dlq", "show", "0", "--json").json["now"]["decision"] == "dead_letter"
    mended = vectide(shop.environment(), "dlq", "show", "0", "--json").json["now"]
    assert (mended["decision"], mended["key"]) == ("embed", {"id": 7})
    assert mended["texts"][0]["text"] == "a lamp"


def test_a_letter_that_is_not_there_is_a_refusal(vectide: Vectide, spoilt: Shop) -> None:
    for place in ("99", "3@0", f"{spoilt.topic}[0]@0", "elsewhere[0]@1"):
        ran = vectide(spoilt.environment(), "dlq", "show", place)
        assert (ran.code, ran.out) == (3, "")
        assert "has no dead letter" in ran.err
    assert vectide(spoilt.environment(), "dlq", "show", "nowhere").code == 2


def pointer(shop: Shop, offset: int, log: str = "") -> Record:
    """A letter that had no room for its record's value."""
    ours = {"cause": "text_too_long", "topic": shop.topic, "partition": "0", "offset": str(offset)}
    ours |= {"table": shop.table, "truncated": "true"} | ({"log": log} if log else {})
    headers = tuple((PREFIX + name, value.encode()) for name, value in ours.items())
    return Record(shop.dlq, 0, -1, b'{"id": 1}', b"", headers)


def test_a_value_that_the_letter_had_no_room_for_comes_from_the_source(
    vectide: Vectide, shop: Shop, broker: BrokerProcess
) -> None:
    shop.produce(shop.upsert(1, "a big tent"), shop.upsert(2, "a chair"))
    produce(broker.bootstrap, [pointer(shop, 0)])
    found = vectide(shop.environment(), "dlq", "show", "0", "--json").json
    assert "a big tent" in found["value"]
    assert (found["now"]["decision"], found["lost"]) == ("embed", None)
    broker.delete_records(shop.topic, 0, 1)
    ran = vectide(shop.environment(), "dlq", "show", "0", "--json")
    assert (ran.code, ran.json["value"]) == (0, None)
    assert "not kept any more" in ran.json["lost"]
    assert "now" not in ran.json


def test_a_topic_that_was_created_again_has_not_the_record(
    vectide: Vectide, shop: Shop, broker: BrokerProcess
) -> None:
    shop.produce(shop.upsert(1, "a big tent"))
    produce(broker.bootstrap, [pointer(shop, 0, "AnotherLogAltogether00")])
    found = vectide(shop.environment(), "dlq", "show", "0", "--json").json
    assert (found["recreated"], found["value"]) == (True, None)
    assert "was created again" in found["lost"]
    assert "was created again" in vectide(shop.environment(), "dlq", "show", "0").out


# --- replay ---------------------------------------------------------------------------------------------

WRONG_TYPES = {"name": "numeric(10,2)"}


@pytest.fixture
def replays(shop: Shop, broker: BrokerProcess) -> Shop:
    """The shop with its replay topic."""
    broker.create_topic(f"{shop.dlq}.replay")
    return shop


def put_aside(shop: Shop, *records: Record) -> dict[str, str]:
    """Let the service dead-letter these records; returns the environment in which it would take them."""
    before = len(shop.letters())
    shop.produce(*records)
    wrong = shop.environment(VECTIDE_TABLES=shop.tables(types=WRONG_TYPES))
    with running(wrong) as service:
        until(lambda: len(shop.letters()) == before + len(records), "the letters")
        until(lambda: shop.committed() > 0, "the offsets")
        service.signal(15)
        assert service.wait() == 0
    return shop.environment()


def outcomes(ran: Ran) -> list[tuple[int, str]]:
    return [(line["offset"], line["outcome"]) for line in ran.json_lines]


def test_replayed_letters_end_in_the_store_once(vectide: Vectide, replays: Shop) -> None:
    environment = put_aside(replays, replays.upsert(1, "a tent"), replays.upsert(2, "a chair"))
    dry = vectide(environment, "dlq", "replay", "--dry-run", "--json")
    assert (dry.code, outcomes(dry)) == (0, [(0, "would_replay"), (1, "would_replay")])
    with running(environment) as service:
        service.until_ready()
        ran = vectide(environment, "dlq", "replay", "--json", "--key", "1")
        assert (ran.code, outcomes(ran)) == (0, [(0, "written")])
        assert replays.stored() == {1: "a tent"}
        people = vectide(environment, "dlq", "replay")
        assert people.code == 0
        assert people.out.splitlines()[-2:] == [
            "1 replayed_before: was replayed before (--again replays it nevertheless)",
            "1 written: the row was written",
        ]
        assert replays.stored() == {1: "a tent", 2: "a chair"}
        again = vectide(environment, "dlq", "replay", "--json", "--again")
        assert (again.code, outcomes(again)) == (0, [(0, "skipped"), (1, "skipped")])
        assert 'vectide_replays_total{outcome="written"' in service.get("/metrics")[1]
        replayed = service.events("replayed")
    assert replayed
    assert "tent" not in str(replayed)


def test_a_letter_with_a_newer_change_of_its_row_is_superseded(vectide: Vectide, replays: Shop) -> None:
    """Invariant 3: what was deleted since stays deleted."""
    environment = put_aside(
        replays,
        replays.upsert(1, "first"),
        replays.upsert(1, "second"),
        replays.upsert(2, "deleted"),
        replays.upsert(3, "changed"),
    )
    replays.produce(replays.delete(2), replays.upsert(3, "changed since"))
    with running(environment):
        until(lambda: replays.committed() == 6, "the newer changes to be applied")
        ran = vectide(environment, "dlq", "replay", "--json")
    assert ran.code == 0
    assert outcomes(ran) == [(0, "superseded"), (2, "superseded"), (3, "superseded"), (1, "written")]
    assert replays.stored() == {1: "second", 3: "changed since"}


def test_a_letter_that_fails_again_is_a_letter_again(vectide: Vectide, replays: Shop) -> None:
    environment = put_aside(replays, replays.upsert(1, "a tent"))
    strict = replays.environment(VECTIDE_TABLES=replays.tables(types=WRONG_TYPES))
    assert outcomes(vectide(strict, "dlq", "replay", "--json")) == [(0, "still_fails")]
    # The operator's settings are mended already, the service's are not.
    with running(strict) as service:
        service.until_ready()
        ran = vectide(environment, "dlq", "replay", "--json")
        assert (ran.code, outcomes(ran)) == (1, [(0, "dead_lettered")])
    found = vectide(environment, "dlq", "list", "--json").json_lines
    assert [(letter["offset"], letter["attempts"]) for letter in found] == [(0, 1), (0, 2)]
    with running(environment) as service:
        service.until_ready()
        ran = vectide(environment, "dlq", "replay", "--json")
        assert (ran.code, outcomes(ran)) == (0, [(0, "replayed_before"), (0, "written")])
    assert replays.stored() == {1: "a tent"}


def test_a_request_that_nobody_answers_is_told_and_still_counts(vectide: Vectide, replays: Shop) -> None:
    environment = put_aside(replays, replays.upsert(1, "a tent"))
    ran = vectide(environment, "dlq", "replay", "--json", "--wait", "1")
    assert (ran.code, outcomes(ran)) == (1, [(0, "unanswered")])
    assert outcomes(vectide(environment, "dlq", "replay", "--json")) == [(0, "under_way")]
    with running(environment):
        until(lambda: replays.stored() == {1: "a tent"}, "the request to be taken up")
        until(
            lambda: outcomes(vectide(environment, "dlq", "replay", "--json")) == [(0, "replayed_before")],
            "the answer",
        )


def test_replays_reach_the_owner_among_several_replicas(
    vectide: Vectide, replays: Shop, broker: BrokerProcess
) -> None:
    """Invariant 4: every partition has one owner, whoever is asked."""
    wide = f"{replays.topic}.wide"
    broker.create_topic(wide, 4)
    replays.topic = wide
    records = [replace(replays.upsert(n, f"product {n}"), partition=n % 4) for n in range(12)]
    environment = put_aside(replays, *records)
    with running(environment) as one, running(environment) as other:
        for service in (one, other):
            service.until_ready()
            until(lambda: "vectide_lanes 2.0" in service.get("/metrics")[1], "two partitions each")  # noqa: B023
        ran = vectide(environment, "dlq", "replay", "--json")
        assert {outcome for _, outcome in outcomes(ran)} == {"written"}
        assert ran.code == 0
        assert len(one.events("replayed")) == len(other.events("replayed")) == 6
    assert replays.stored() == {n: f"product {n}" for n in range(12)}


def test_letters_whose_order_is_not_known_are_left_to_the_operator(
    vectide: Vectide, replays: Shop, broker: BrokerProcess
) -> None:
    environment = put_aside(replays, replays.upsert(1, "a tent"), replays.upsert(2, "a chair"))
    broker.delete_records(replays.topic, 0, 1)
    ran = vectide(environment, "dlq", "replay", "--json", "--dry-run")
    assert (ran.code, outcomes(ran)) == (1, [(0, "gone"), (1, "would_replay")])
    ran = vectide(environment, "dlq", "replay", "--json", "--dry-run", "--accept-gone")
    assert (ran.code, outcomes(ran)) == (0, [(0, "would_replay"), (1, "would_replay")])
    broker.delete_topic(replays.topic)
    broker.create_topic(replays.topic)
    replays.produce(replays.upsert(2, "a new chair"))
    ran = vectide(environment, "dlq", "replay", "--json", "--dry-run")
    assert (ran.code, outcomes(ran)) == (1, [(0, "recreated"), (1, "recreated")])
    with running(environment):
        until(lambda: replays.stored(), "the new topic to be read")
        ran = vectide(environment, "dlq", "replay", "--json", "--accept-recreated")
    assert (ran.code, outcomes(ran)) == (0, [(1, "superseded"), (0, "written")])
    assert replays.stored() == {1: "a tent", 2: "a new chair"}


def test_letters_of_tables_that_are_gone_are_told(vectide: Vectide, replays: Shop) -> None:
    put_aside(replays, replays.upsert(1, "a tent"))
    environment = replays.environment(VECTIDE_TABLES=replays.tables(source="elsewhere"))
    ran = vectide(environment, "dlq", "replay", "--json", "--dry-run")
    assert (ran.code, outcomes(ran)) == (1, [(0, "unmapped")])


def test_replay_needs_its_topic(vectide: Vectide, shop: Shop) -> None:
    ran = vectide(shop.environment(), "dlq", "replay")
    assert ran.code == 3
    assert f"no topic {shop.dlq}.replay" in ran.err
    assert "`vectide topics --create`" in ran.err
    assert vectide(shop.environment(), "dlq", "replay", "--dry-run").code == 0


# --- topics ---------------------------------------------------------------------------------------------


def test_topics_lists_what_is_needed_and_what_is_there(
    vectide: Vectide, shop: Shop, broker: BrokerProcess
) -> None:
    broker.create_topic(f"{shop.topic}.wide", 3)
    pattern = "^" + shop.topic.replace(".", r"\.") + ".*"
    environment = shop.environment(VECTIDE_KAFKA__TOPICS=pattern, VECTIDE_TABLES=shop.tables(source=pattern))
    ran = vectide(environment, "topics", "--json", "--principal", "User:us")
    assert ran.code == 0
    source, letters, replays = ran.json["topics"]
    assert (replays["role"], replays["missing"]) == ("replays", True)
    assert source["found"] == [
        {"name": shop.topic, "partitions": 1},
        {"name": f"{shop.topic}.wide", "partitions": 3},
    ]
    assert (letters["name"], letters["role"], letters["missing"]) == (shop.dlq, "dead_letters", False)
    assert letters["recommended"]["message.timestamp.type"] == "LogAppendTime"
    command = ran.json["rights"][0]["command"]
    assert command.startswith(f"kafka-acls.sh --bootstrap-server {broker.bootstrap} --add")
    assert command.endswith(f"User:us --operation Read --topic {shop.topic} --resource-pattern-type prefixed")


def test_topics_ends_with_1_where_one_is_missing(vectide: Vectide, shop: Shop) -> None:
    environment = shop.environment(VECTIDE_DLQ__TOPIC="no.such.dlq")
    ran = vectide(environment, "topics")
    assert ran.code == 1
    assert "no.such.dlq  dead letters  missing" in ran.out
    assert f"{shop.topic}  source  1 partition" in ran.out
    assert "--operation Read --group " + shop.group in ran.out
    assert json.loads(vectide(environment, "topics", "--json").out)["ok"] is False


def test_topics_that_the_cluster_will_not_make_are_a_refusal(vectide: Vectide, shop: Shop) -> None:
    """The embedded broker makes no topics on request."""
    ran = vectide(shop.environment(VECTIDE_DLQ__TOPIC="no.such.dlq"), "topics", "--create")
    assert ran.code == 3
    assert "the topic no.such.dlq cannot be created" in ran.err


def test_check_points_to_topics(vectide: Vectide, shop: Shop) -> None:
    """Case 156."""
    ran = vectide(shop.environment(VECTIDE_DLQ__TOPIC="no.such.dlq"), "check")
    assert ran.code == 1
    assert "`vectide topics`" in ran.out

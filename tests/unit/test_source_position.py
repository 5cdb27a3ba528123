"""Where events stand in the log of their source, and how positions of one row relate."""

import json
from itertools import pairwise
from typing import Any

import pytest
from tests.recorded import names, read

from vectide.codecs.debezium_json import DebeziumJson
from vectide.codecs.source_block import position_of, source_from
from vectide.core.model import DecodeError, Deleted, Order, Position, Record, Row, SourcePosition, Upserted
from vectide.jobs.epochs import break_between
from vectide.testing.points import stamp

PG: dict[str, Any] = {"connector": "postgresql", "name": "shop", "db": "store", "ts_ms": 5}
MYSQL: dict[str, Any] = {"connector": "mysql", "name": "shop", "db": "store", "ts_ms": 5}
ORACLE: dict[str, Any] = {"connector": "oracle", "name": "shop", "db": "store", "ts_ms": 5}
MONGO: dict[str, Any] = {"connector": "mongodb", "name": "shop", "db": "store", "ts_ms": 5}
SQL_SERVER: dict[str, Any] = {"connector": "sqlserver", "name": "shop", "db": "store", "ts_ms": 5}
UUID = "3e11fa47-71ca-11e1-9e33-c80aa9429562"


def position(source: dict[str, Any], **more: Any) -> SourcePosition | None:
    return position_of(source_from({**source, **more}))


def of_row(value: Any, **headers: bytes) -> SourcePosition | None:
    record = Record("t", 0, 0, b'{"id":1}', json.dumps(value).encode(), tuple(headers.items()))
    change = DebeziumJson().decode(record)
    assert isinstance(change, Upserted | Deleted)
    return change.source


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ({**PG, "lsn": 255, "sequence": '[null,"255"]'}, {**PG, "lsn": 256, "sequence": '["255","256"]'}),
        # A transaction that commits late has lower LSNs than those which committed before it.
        ({**PG, "lsn": 900, "sequence": '["500","900"]'}, {**PG, "lsn": 700, "sequence": '["950","700"]'}),
        # An incremental snapshot reads what was committed last.
        ({**PG, "lsn": 90, "sequence": '["80","90"]'}, {**PG, "lsn": None, "sequence": '["95","95"]'}),
        ({**PG, "lsn": 9}, {**PG, "lsn": 10}),
        ({**MYSQL, "gtid": f"{UUID}:9"}, {**MYSQL, "gtid": f"{UUID}:10"}),
        ({**MYSQL, "gtid": f"{UUID}:tag:9"}, {**MYSQL, "gtid": f"{UUID}:tag:10"}),
        (
            {**MYSQL, "connector": "mariadb", "gtid": "0-1-9"},
            {**MYSQL, "connector": "mariadb", "gtid": "0-2-10"},
        ),
        (
            {**MYSQL, "server_id": 1, "file": "bin.000009", "pos": 500},
            {**MYSQL, "server_id": 1, "file": "bin.000010", "pos": 4},
        ),
        (
            {**SQL_SERVER, "commit_lsn": "0000000a:00000758:0005"},
            {**SQL_SERVER, "commit_lsn": "0000000A:00001000:0001"},
        ),
        ({**ORACLE, "scn": "99"}, {**ORACLE, "scn": "98", "commit_scn": "100"}),
        ({**MONGO, "ord": 9}, {**MONGO, "ord": 10}),
        ({**MONGO, "ord": 10, "ts_ms": 4}, {**MONGO, "ord": 9}),
    ],
)
def test_the_order_of_each_connector_sorts_as_text(older: dict[str, Any], newer: dict[str, Any]) -> None:
    first, second = position(older), position(newer)
    assert first is not None
    assert second is not None
    assert first.server == second.server
    assert first.order < second.order
    assert len(first.order) == len(second.order)


@pytest.mark.parametrize(
    "source",
    [
        PG,
        {**PG, "lsn": 5, "ts_ms": None},
        {**PG, "lsn": 5, "name": None},
        {**PG, "lsn": 5, "name": "a\0b"},
        {**PG, "lsn": 5, "name": "n" * 500},
        {**PG, "lsn": 5, "connector": ["postgresql"]},
        {**PG, "lsn": 5, "connector": "something new"},
        {**PG, "lsn": -1},
        {**PG, "lsn": 2**64},
        {**PG, "lsn": True, "sequence": "[]"},
        {**PG, "sequence": '["x","y"]'},
        {**MYSQL, "gtid": f"{UUID}:x"},
        {**MYSQL, "gtid": "-"},
        {**MYSQL, "file": "bin.000001", "pos": 4, "server_id": 0},
        {**MYSQL, "file": "bin", "pos": 4, "server_id": 1},
        {**SQL_SERVER, "commit_lsn": "NULL"},
        {**ORACLE, "commit_scn": "1,2"},
        MONGO,
    ],
)
def test_what_does_not_tell_all_of_it_tells_nothing(source: dict[str, Any]) -> None:
    """A source block with oddities does not cost the record, nor its stamp."""
    assert position(source) is None
    assert (
        of_row({"op": "u", "before": None, "after": {"id": 1}, "source": {"ts_ms": 1, "db": "d", **source}})
        is None
    )


def test_servers_and_their_logs_are_told_apart() -> None:
    """A number of one server says nothing of another's."""
    servers = [
        position({**PG, "lsn": 5}),
        position({**PG, "lsn": 5, "name": "other"}),
        position({**PG, "lsn": 5, "db": "other"}),
        position({**MYSQL, "gtid": f"{UUID}:5"}),
        position({**MYSQL, "gtid": "f" + UUID[1:] + ":5"}),
        position({**MYSQL, "file": "bin.000001", "pos": 5, "server_id": 1}),
        position({**MYSQL, "file": "bin.000001", "pos": 5, "server_id": 2}),
        position({**MYSQL, "connector": "mariadb", "gtid": "0-1-5"}),
        position({**MYSQL, "connector": "mariadb", "gtid": "1-1-5"}),
    ]
    assert len({found.server for found in servers if found}) == len(servers)


def test_a_flattened_row_tells_what_its_fields_and_headers_tell() -> None:
    context = {
        "__debezium.context.connectorName": b"postgresql",
        "__debezium.context.connectorLogicalName": b"shop",
    }
    expected = SourcePosition("postgresql/shop/", "00000000000000ff00000000000000ff", 5)
    assert of_row({"id": 1, "__lsn": 255, "__source_ts_ms": 5}, **context) == expected
    assert of_row({"id": 1}, **context, __source_lsn=b"255", __source_ts_ms=b"5") == expected
    named = {
        "id": 1,
        "__source_connector": "postgresql",
        "__name": "shop",
        "__lsn": "255",
        "__source_ts_ms": 5,
    }
    assert of_row(named) == expected
    assert of_row({**named, "__deleted": "true"}) == expected
    # The time of the connector is no time of a commit.
    assert of_row({"id": 1, "__lsn": 255, "__ts_ms": 5}, **context) is None
    assert of_row({"id": 1}, **context) is None


def test_a_cloud_event_tells_it_in_its_attributes() -> None:
    attributes = {
        "connector": "postgresql",
        "name": "shop",
        "db": "store",
        "tsms": "5",
        "lsn": "255",
        "op": "u",
    }
    event = {"specversion": "1.0", "type": "io.debezium.connector.postgresql.DataChangeEvent"}
    event |= {f"iodebezium{name}": value for name, value in attributes.items()}
    assert of_row({**event, "data": {"before": None, "after": {"id": 1}}}) == position({**PG, "lsn": 255})


@pytest.mark.parametrize("name", sorted(names()))
def test_recorded_events_of_a_row_never_go_back_in_the_source_while_time_goes_on(name: str) -> None:
    """Within one partition the source's own order agrees with the offsets, or is not believed."""
    codec = DebeziumJson(lenient_keys=True)
    seen: dict[tuple[str, str], list[Position]] = {}
    told = 0
    for record in read(name):
        try:
            change = codec.decode(record)
        except DecodeError:
            continue
        if isinstance(change, Upserted | Deleted) and change.key is not None:
            told += change.source is not None
            row = Row.of(record.topic, change.key).key
            where = Position(record.topic, record.partition, record.offset, change.source)
            seen.setdefault((f"{record.topic}[{record.partition}]", row), []).append(where)
    for positions in seen.values():
        for held, now in pairwise(positions):
            assert break_between(held, now) is None, (held, now)
    assert told or "unwrapped" in name or name == "no_primary_key_default_identity"


# --- how positions relate -------------------------------------------------------------------------------


def at(offset: int, source: SourcePosition | None = None, log: str = "log", partition: int = 0) -> Position:
    return Position(log, partition, offset, source)


def lsn(order: int, ms: int, server: str = "pg") -> SourcePosition:
    return SourcePosition(server, f"{order:016x}", ms)


def test_within_a_partition_nothing_but_the_offset_decides() -> None:
    """Case 66: a source whose time or order goes backwards has no effect there."""
    assert at(5, lsn(9, 9)).relation_to(at(6, lsn(1, 1))) is Order.OLDER
    assert at(7, lsn(1, 1)).relation_to(at(6, lsn(9, 9))) is Order.NEWER
    assert at(6, lsn(1, 1)).relation_to(at(6, lsn(9, 9))) is Order.SAME


@pytest.mark.parametrize("elsewhere", [{"log": "other"}, {"partition": 1}])
def test_elsewhere_order_and_time_of_the_source_decide_together(elsewhere: dict[str, Any]) -> None:
    held = at(100, lsn(50, 500))
    relations = [
        (lsn(49, 499), Order.OLDER),
        (lsn(51, 501), Order.NEWER),
        (lsn(50, 500), Order.UNKNOWN),
        (lsn(49, 500), Order.UNKNOWN),  # of the same transaction, as far as anybody can tell
        (lsn(49, 501), Order.UNKNOWN),  # a restored server counts from its past
        (lsn(51, 499), Order.UNKNOWN),  # a clock was wrong
        (lsn(49, 499, "another server"), Order.UNKNOWN),
        (None, Order.UNKNOWN),
    ]
    for source, relation in relations:
        assert at(3, source, **elsewhere).relation_to(held) is relation, source


def test_the_position_before_a_change_has_no_place_in_the_source() -> None:
    assert at(5, lsn(1, 1)).before() == at(4)


@pytest.mark.parametrize(
    ("held", "now", "reason"),
    [
        (at(5, lsn(5, 5)), at(6, lsn(6, 6)), None),
        (at(5), at(6, lsn(6, 6)), None),
        (at(5, lsn(5, 5)), at(0, lsn(6, 6), "other"), "topic"),
        (at(5, lsn(5, 5)), at(0, lsn(6, 6), partition=1), "partition"),
        (at(5, lsn(5, 5)), at(6, lsn(4, 6)), "source"),  # restored
        (at(5, lsn(5, 5)), at(6, lsn(6, 6, "other")), "source"),  # another server took over
        (at(5, lsn(5, 5)), at(6, lsn(4, 5)), None),  # the connector repeats itself after a crash
        (at(5, lsn(5, 5)), at(4, lsn(4, 6)), None),  # a replay
    ],
)
def test_where_positions_break_is_noticed(held: Position, now: Position, reason: str | None) -> None:
    assert break_between(held, now) == reason


def test_a_stamp_keeps_the_place_in_the_source_beside_its_position() -> None:
    """So that readers which do not know of it find the position as they know it."""
    row = Row.of("t", {"id": 1})
    one = stamp(5, source=lsn(255, 5))
    payload = json.loads(json.dumps(one.to_payload(row)))
    assert payload["position"] == ["log", 0, 5]
    assert payload["source"] == ["pg", "00000000000000ff", 5]
    assert type(one).from_payload(payload) == one
    assert "source" not in stamp(5).to_payload(row)

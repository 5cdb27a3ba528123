"""Sources that were not recorded, through the very pump: SQL Server, Oracle, MySQL, MongoDB, CloudEvents.

Their events are those of their connectors' documentation. Each history leads to the same rows from JSON with
schemas, JSON without, and Avro.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from tests.converters import AvroConverter, without_schemas
from tests.documented import (
    DOCUMENTS,
    FLAVOURS,
    OIDS,
    ORACLE,
    SOURCES,
    UNAVAILABLE,
    Source,
    as_cloud_events,
    flattened,
    in_order,
    number,
    page,
    raw,
)
from tests.pipeline.recorded_pump import Pump
from tests.recorded import CASES, read, table_of

from vectide.codecs.debezium_json import DebeziumJson
from vectide.codecs.registry import RegistryCodec
from vectide.core.mapping import TableMapping
from vectide.core.model import Change, Record
from vectide.core.model import Row as RowId
from vectide.core.vanishing import LOSSES
from vectide.ports import Store
from vectide.stores.pgvector import PgVectorStore
from vectide.testing.fold import Expected
from vectide.testing.postgres import EmbeddedPostgres
from vectide.testing.store import MemoryStore

Decoding = tuple[list[Record], Callable[[Record], Change]]
FORMS = ["with schemas", "without schemas", "avro"]


def in_form(form: str, records: list[Record], mapping: TableMapping) -> Decoding:
    """The records as that converter writes them, and what decodes them."""
    if form == "avro":
        codec = RegistryCodec(mapping_of=lambda _: mapping)
        return AvroConverter(codec).convert(records), codec.decode
    json = DebeziumJson(mapping_of=lambda _: mapping, decimals="precise")
    return records if form == "with schemas" else without_schemas(records), json.decode


def ran(decoding: Decoding, mapping: TableMapping, store: Store | None = None) -> Pump:
    records, decode = decoding
    pump = Pump(records, mapping, decode, store)
    pump.run()
    assert pump.tally["received"] == len(records)
    return pump


@pytest.fixture(scope="module")
def postgres() -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(tcp_port=0) as server:
        yield server


# --- relational -----------------------------------------------------------------------------------------


def key_of(source: Source, read: Any) -> RowId:
    return RowId.of("t", {source.key: read})


def keys(source: Source) -> list[tuple[Any, Any]]:
    """Five keys of the source: as they are sent, and as they are read."""
    match source.columns[0].declared:
        case "number":
            return [({"scale": 0, "value": number(at)}, str(at)) for at in range(1, 6)]
        case "bigint unsigned":
            return [(-at, 2**64 - at) for at in range(1, 6)]
    return [(at, at) for at in range(1, 6)]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", SOURCES)
def test_every_type_of_a_source_has_its_one_spelling(name: str, form: str) -> None:
    """Cases 2, 37, 39, 46 and 48: in the metadata, in the text, and in the id."""
    source = SOURCES[name]
    columns = [column.name for column in source.columns]
    mapping = source.mapping("{" + "}|{".join(columns) + "}", *columns)
    pump = ran(in_form(form, in_order(source.insert(source.sent)), mapping), mapping)
    assert not pump.dead
    ((row, point),) = pump.stored().items()
    assert row == key_of(source, source.read[source.key])
    assert point.metadata == source.read
    assert point.text.count("|") == len(columns) - 1
    for column in source.columns:
        if isinstance(column.read, str):
            assert column.read.strip() in point.text


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", SOURCES)
def test_a_history_of_a_source_ends_as_its_table(name: str, form: str, postgres: EmbeddedPostgres) -> None:
    """Cases 4, 13, 15, 16, 26 and 63; invariants 7 and 14, in PostgreSQL.

    Updates and deletes carry the whole row before them; a changed primary key is a delete, its tombstone and
    a create.
    """
    source = SOURCES[name]
    _, title, body, *rest = [column.name for column in source.columns]
    mapping = source.mapping(f"{{{title}}}[\n\n{{{body}}}]", rest[0])
    (one, first), (two, second), (three, third), (four, _), (five, fifth) = keys(source)

    def row(key: Any, **changed: Any) -> dict[str, Any]:
        named = {title if name == "title" else rest[0]: value for name, value in changed.items()}
        return {**source.sent, source.key: key, **named}

    other = number(7) if isinstance(source.sent[rest[0]], str) else 7
    records = in_order(
        source.insert(row(one), op="r"),
        source.insert(row(two), op="r"),
        source.insert(row(three)),
        source.insert(row(four)),
        source.update(row(one), row(one, title="a roof")),
        source.update(row(two), row(two, rest=other)),
        source.update(row(three), row(three)),
        source.delete(row(four)),
        source.move(row(three), row(five)),
        source.update(row(one), row(one, title="a roof")),  # sent again
    )
    with closing(PgVectorStore(postgres.dsn, schema=f"history_{name}_{FORMS.index(form)}")) as store:
        pump = ran(in_form(form, records, mapping), mapping, store)
        stored = pump.stored()
    assert not pump.dead
    text = source.read[body].strip()
    seven = {"sqlserver": "0.07", "oracle": 7, "mysql": "0.07"}[name]
    expected = {
        key_of(source, first): Expected(f"a roof\n\n{text}", {rest[0]: source.read[rest[0]]}),
        key_of(source, second): Expected(f"a tent\n\n{text}", {rest[0]: seven}),
        key_of(source, fifth): Expected(f"a tent\n\n{text}", {rest[0]: source.read[rest[0]]}),
    }
    assert stored == expected
    assert key_of(source, third) not in stored
    # Read in one go, so the changes of a row are merged: each text is paid for once.
    assert sorted(set(pump.sold)) == sorted({f"a roof\n\n{text}", f"a tent\n\n{text}"})
    assert pump.tally["dead_lettered"] == 0


@pytest.mark.parametrize("form", FORMS)
def test_lobs_that_oracle_leaves_out_are_completed_and_never_embedded(form: str) -> None:
    """Cases 21, 22 and 26; invariants 5 and 7: the placeholder stands in ``before`` too, even of changes."""
    mapping = ORACLE.mapping("{TITLE}\n\n{BODY}", "STOCK")
    (one, first), (two, second), *_ = keys(ORACLE)
    whole = {**ORACLE.sent, "ID": one}
    left_out = {**whole, "BODY": UNAVAILABLE}
    body = ORACLE.read["BODY"].strip()
    store = MemoryStore()
    born = ran(in_form(form, in_order(ORACLE.insert(whole)), mapping), mapping, store)
    assert born.sold == [f"a tent\n\n{body}"]
    changes = [
        (ORACLE.update(left_out, {**left_out, "STOCK": 3}), [], f"a tent\n\n{body}"),
        (
            ORACLE.update(left_out, {**left_out, "STOCK": 3, "TITLE": "a roof"}),
            [f"a roof\n\n{body}"],
            f"a roof\n\n{body}",
        ),
        (
            ORACLE.update(left_out, {**whole, "STOCK": 3, "TITLE": "a roof", "BODY": "for one"}),
            ["a roof\n\nfor one"],
            "a roof\n\nfor one",
        ),
        (
            ORACLE.move(left_out, {**left_out, "ID": two, "STOCK": 3, "TITLE": "a roof"}),
            [],
            "a roof\n\nfor one",
        ),
    ]
    offset = 1
    for records, sold, text in changes:
        placed = [Record(r.topic, 0, offset + at, r.key, r.value, r.headers) for at, r in enumerate(records)]
        offset += len(placed)
        pump = ran(in_form(form, placed, mapping), mapping, store)
        assert not pump.dead
        moved = len(placed) > 1
        # A new row has to be embedded, as no vector is read back; its text is whole.
        assert pump.sold == ([text] if moved else sold)
        assert {k: p.text for k, p in pump.stored().items()} == {
            key_of(ORACLE, second if moved else first): text
        }


# --- MongoDB --------------------------------------------------------------------------------------------

PAGES = table_of("{title}[\n\n{body}]", "n", "price", "at", types={"at": "timestamp(3)"}, source=DOCUMENTS)
AT = "2026-02-28T21:59:59.123000"


def pages(**texts: tuple[str, int]) -> dict[RowId, Expected]:
    return {
        RowId.of("t", {"id": OIDS[int(name[1:])]}): Expected(text, {"n": n, "price": "1.50", "at": AT})
        for name, (text, n) in texts.items()
    }


#: What remains of the histories below.
LEFT = pages(p0=("new title\n\nlong", 1), p1=("second", 2), p2=("third", 9), p5=("again", 1))


def raw_history(flavour: str) -> list[Record]:
    def doc(at: int, **fields: Any) -> dict[str, Any]:
        return page(at, flavour, **fields)

    return in_order(
        raw("r", 0, doc(0, title="first", body="long")),
        raw("c", 1, doc(1, title="second", body="long")),
        raw("c", 2, doc(2, title="third")),
        raw("c", 3, doc(3, title="fourth")),
        raw("c", 4, doc(4, title="fifth")),
        raw("c", 5, doc(5, title="sixth")),
        raw("u", 0, doc(0, title="new title", body="long"), updatedFields='{"title": "new title"}'),
        # A field is removed, another changed.
        raw("u", 1, doc(1, title="second", n=2), removedFields=["body"], updatedFields='{"n": 2}'),
        raw("u", 2, doc(2, title="third", n=9), updatedFields='{"n": 9}'),
        # Deleted before it could be looked up.
        raw("u", 3, None, updatedFields='{"title": "lost"}'),
        raw("d", 3, None),
        raw("d", 4, None),
        raw("d", 5, None),
        raw("c", 5, doc(5, title="again")),
    )


def flattened_history(rewritten: bool) -> list[Record]:
    def doc(at: int, **fields: Any) -> list[Record]:
        return flattened(at, {"n": 1, "price": "1.50", **fields})

    def deleted(at: int) -> list[Record]:
        return flattened(at, {"title": "", "n": 0}, deleted=True) if rewritten else flattened(at, None)

    return in_order(
        doc(0, title="first", body="long"),
        doc(1, title="second", body="long"),
        doc(2, title="third"),
        doc(4, title="fifth"),
        doc(5, title="sixth"),
        doc(0, title="new title", body="long"),
        doc(1, title="second", body=None, n=2),
        doc(2, title="third", n=9),
        deleted(3),
        deleted(4),
        deleted(5),
        doc(5, title="again"),
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_raw_documents_lead_to_the_collection_that_they_are_of(flavour: str, form: str) -> None:
    """Cases 32, 33 and 35; invariant 14, in every flavour of extended JSON."""
    pump = ran(in_form(form, raw_history(flavour), PAGES), PAGES)
    assert pump.stored() == LEFT
    assert not pump.dead
    assert pump.tally["skipped"] >= 1  # the update without its document


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rewritten", [False, True], ids=["tombstone", "rewrite"])
def test_flattened_documents_are_the_points_of_raw_ones(
    rewritten: bool, form: str, postgres: EmbeddedPostgres
) -> None:
    """Cases 19, 32, 35 and 54: and a topic may turn from one to the other."""
    history = flattened_history(rewritten)
    assert ran(in_form(form, history, PAGES), PAGES).stored() == LEFT
    schema = f"documents_{rewritten}_{FORMS.index(form)}".lower()
    with closing(PgVectorStore(postgres.dsn, schema=schema)) as store:
        raw_first = raw_history("relaxed")
        then = [
            Record(r.topic, 0, len(raw_first) + at, r.key, r.value, r.headers) for at, r in enumerate(history)
        ]
        pump = ran(in_form(form, [*raw_first, *then], PAGES), PAGES, store)
        assert pump.stored() == LEFT
        assert not pump.dead


def test_a_field_that_one_document_loses_shrinks_its_text_and_its_last_one_removes_it() -> None:
    """Case 35: what is gone is not searched for any more."""
    store = MemoryStore()
    codec = DebeziumJson(mapping_of=lambda _: PAGES)
    born = in_order(raw("c", 0, page(0, title="first", body="long")))
    assert ran((born, codec.decode), PAGES, store).sold == ["first\n\nlong"]
    steps = [({"title": "first"}, ["first"], 1), ({}, [], 0)]
    for offset, (fields, sold, left) in enumerate(steps, start=1):
        (record,) = raw("u", 0, page(0, **fields), removedFields=["body"])
        placed = [Record(record.topic, 0, offset, record.key, record.value)]
        pump = ran((placed, codec.decode), PAGES, store)
        assert (pump.sold, len(pump.stored())) == (sold, left)


def many_pages(start: int, fields: Callable[[int], dict[str, Any]], count: int = 60) -> list[Record]:
    """Changes of so many documents, one behind the other."""
    records = []
    for at in range(count):
        document = {**page(0), "_id": at, **fields(at)}
        (record,) = raw("u", 0, document)
        records.append(Record(DOCUMENTS, 0, start + at, b'{"id":"%d"}' % at, record.value))
    return records


def pumped(records: list[Record], mapping: TableMapping, store: Store) -> Pump:
    return Pump(records, mapping, DebeziumJson(mapping_of=lambda _: mapping).decode, store)


def whole(number: int) -> dict[str, Any]:
    return {"title": f"page {number}", "body": "long"}


def renamed(number: int) -> dict[str, Any]:
    return {"title": f"page {number}", "content": "long"}


def test_a_field_that_one_document_after_the_other_loses_halts_its_table() -> None:
    """Case 35: it was renamed. Nothing is embedded with less text; the corrected mapping goes on there."""
    store = MemoryStore()
    pumped(many_pages(0, whole), PAGES, store).run()
    pump = pumped(many_pages(60, renamed), PAGES, store)
    assert pump.run_until_halted() == "the documents have lost the fields: body"
    assert pump.sold == []
    assert all("long" in point.text for point in pump.stored().values())
    corrected = table_of("{title}[\n\n{content}]", "n", source=DOCUMENTS)
    pump = pumped(many_pages(60, renamed), corrected, store)
    pump.run()
    assert {point.text for point in pump.stored().values()} == {f"page {n}\n\nlong" for n in range(60)}
    assert pump.sold == []  # the very same texts


def test_a_trickle_of_losses_halts_too_and_costs_no_more_than_its_first_documents() -> None:
    """Case 35."""
    store = MemoryStore()
    pumped(many_pages(0, whole), PAGES, store).run()
    pump = pumped(many_pages(60, renamed), PAGES, store)
    pump.source.trickles = True
    assert pump.run_until_halted() == "the documents have lost the fields: body"
    assert len(pump.sold) == LOSSES - 1


@pytest.mark.parametrize(
    ("mapping", "fields"),
    [
        (replace(PAGES, may_vanish=("body",)), renamed),
        (PAGES, lambda number: whole(number) if number % 10 == 9 else renamed(number)),
    ],
    ids=["declared", "some have it"],
)
def test_fields_that_only_some_documents_have_may_come_and_go(
    mapping: TableMapping, fields: Callable[[int], dict[str, Any]]
) -> None:
    """Case 35: while there are documents that have it, those without are what they are."""
    store = MemoryStore()
    pumped(many_pages(0, whole), mapping, store).run()
    pump = pumped(many_pages(60, fields), mapping, store)
    pump.run()
    without = [point for point in pump.stored().values() if "long" not in point.text]
    assert len(without) == len([n for n in range(60) if "body" not in fields(n)])


# --- CloudEvents ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("schemas", [True, False], ids=["with schemas", "without"])
@pytest.mark.parametrize("case", [case for case in CASES if case.name == "json_schemas_on"], ids=str)
def test_recorded_events_inside_cloud_events_lead_to_the_same_rows(case: Any, schemas: bool) -> None:
    """Case 36; invariant 14: deletes, tombstones and changed keys among them."""
    records = list(as_cloud_events(read(case.name), schemas=schemas))
    assert sum(b'"specversion"' in (record.value or b"") for record in records) > 40
    mapping = case.placed
    codec = DebeziumJson(mapping_of=lambda topic: mapping if mapping.matches(topic) else None)
    pump = ran((records, codec.decode), mapping)
    assert pump.stored() == case.expected()
    assert pump.dead == Counter()

"""Records that cannot be read, among others that can: exactly those are letters, and the rest is stored."""

from __future__ import annotations

import codecs
import json
from typing import Any

import pytest
from tests.pipeline.recorded_pump import Pump
from tests.recorded import table_of

from vectide.codecs.debezium_json import DebeziumJson
from vectide.core.model import Record, Row
from vectide.ports import Store

DOCS = table_of("{title}[\n{body}]", "n", source="a.public.docs")
SOURCE = {"connector": "postgresql", "ts_ms": 5, "db": "shop", "schema": "public", "table": "docs"}


def envelope(op: str = "u", **columns: Any) -> bytes:
    after = {"id": 0, "title": "hostile", "body": None, "n": 1, **columns}
    return json.dumps({"before": None, "after": after, "source": SOURCE, "op": op}).encode()


PLACEHOLDER = "__debezium_unavailable_value"

#: What is in the record -> its value, and the cause of its letter.
POISON: dict[str, tuple[bytes, str]] = {
    "no bytes": (b"", "not_json"),
    "not json": (b"hello", "not_json"),
    "cut short": (envelope()[:-7], "not_json"),
    "invalid utf-8": (envelope(title="TITLE").replace(b"TITLE", b"\xff\xfe"), "not_utf8"),
    "utf-16": (envelope().decode().encode("utf-16"), "not_utf8"),
    "not a number": (envelope(n=0).replace(b'"n": 0', b'"n": NaN'), "not_json"),
    "an infinity": (envelope(n=0).replace(b'"n": 0', b'"n": -Infinity'), "not_json"),
    "an unknown op": (envelope("x"), "unknown_op"),
    "no op": (json.dumps({"source": SOURCE, "after": {"id": 0}}).encode(), "no_op"),
    "no row": (json.dumps({"source": SOURCE, "op": "c", "after": None}).encode(), "no_after"),
    "an array": (b"[1]", "not_an_envelope"),
    "a number": (b"5", "not_an_envelope"),
    "a text": (b'"abc"', "not_an_envelope"),
    "a payload that is a text": (b'{"schema": {"type": "string"}, "payload": "abc"}', "not_an_envelope"),
    "something else": (b'{"status": "ok"}', "not_an_envelope"),
    "framed": (b"\x00\x00\x00\x00\x07" + envelope(), "not_json"),
    "deep": (b'{"a":' * 90 + b"1" + b"}" * 90, "not_an_envelope"),
    "a lone surrogate": (envelope(title="T").replace(b'"T"', b'"\\ud800"'), "not_json"),
}
#: What only looks hostile -> its value, and the text that it must lead to.
READABLE: dict[str, tuple[bytes, str]] = {
    "a byte order mark": (codecs.BOM_UTF8 + envelope(title="marked"), "marked"),
    "a name twice": (envelope(title="first").replace(b'"n": 1', b'"n": 1, "title": "second"'), "second"),
    "the text NaN": (envelope(title="NaN", n="NaN"), "NaN"),
    "an operation in capitals": (envelope("U", title="loud"), "loud"),
    "a flattened row": (b'{"id": 0, "title": "flat", "body": "row", "n": 1}', "flat\nrow"),
    "columns like an envelope": (
        b'{"id": 0, "title": "t", "body": null, "n": 1, "op": "x", "source": 1}',
        "t",
    ),
}


def pumped(*values: tuple[int, bytes | None], store: Store | None = None) -> Pump:
    """After these records: key and value of each."""
    records = [
        Record(DOCS.source, 0, offset, b'{"id":%d}' % key, value)
        for offset, (key, value) in enumerate(values)
    ]
    pump = Pump(records, DOCS, DebeziumJson(mapping_of=lambda _: DOCS).decode, store)
    pump.run()
    return pump


def rows(pump: Pump) -> dict[Row, tuple[str, bool]]:
    """Text of each row, and whether it is stale."""
    stale = pump.stale()
    return {key: (point.text, key in stale) for key, point in pump.stored().items()}


def row(key: int) -> Row:
    return Row.of("t", {"id": key})


def test_exactly_what_cannot_be_read_is_a_letter_and_everything_else_is_stored() -> None:
    """Cases 82, 83, 86, 87, 91, 92 and 97; invariants 10 and 12."""
    values: list[tuple[int, bytes]] = []
    expected: dict[Row, str] = {}
    causes: dict[int, str] = {}
    for value, cause in POISON.values():
        causes[len(values)] = cause
        values.append((len(values), value))
        expected[row(len(values))] = f"row {len(values)}"
        values.append((len(values), envelope("c", title=f"row {len(values)}")))
    for value, text in READABLE.values():
        expected[row(len(values))] = text
        values.append((len(values), value))
    pump = pumped(*values)
    assert {letter.record.offset: letter.cause for letter in pump.letters.sent} == causes
    assert {letter.record.offset: letter.record.value for letter in pump.letters.sent} == {
        offset: values[offset][1] for offset in causes
    }
    assert {key: point.text for key, point in pump.stored().items()} == expected
    assert pump.tally["received"] == len(values) == pump.tally["written"] + len(causes)


WHOLE = envelope("c", title="lamp", body="of brass")
#: A later change of the title. What the body is, an event before it has said.
PARTIAL = envelope(title="desk lamp", body=PLACEHOLDER)


@pytest.mark.parametrize("poison", ["not json", "an unknown op", "an array", "framed"])
def test_a_record_of_which_only_the_key_can_be_read_makes_its_row_stale(poison: str) -> None:
    """Invariant 14: what comes after it is not completed from the row that was before it."""
    value, cause = POISON[poison]
    pump = pumped((1, WHOLE), (2, WHOLE), (1, value), (1, PARTIAL), (2, PARTIAL))
    assert rows(pump) == {row(1): ("lamp\nof brass", True), row(2): ("desk lamp\nof brass", False)}
    assert [letter.cause for letter in pump.letters.sent] == [cause, "incomplete_row"]
    pump = pumped((1, WHOLE), (1, value), (1, PARTIAL), (1, envelope(title="new", body="row")))
    assert rows(pump) == {row(1): ("new\nrow", False)}
    assert cause in [letter.cause for letter in pump.letters.sent]


def test_what_cannot_be_read_is_a_letter_although_newer_changes_of_its_row_wait() -> None:
    """Nobody can say whether they supersede it. The changes around it take effect in their order."""
    garbage = POISON["not json"][0]
    pump = pumped((1, garbage), (1, WHOLE), (1, garbage), (1, envelope(title="new")), (1, garbage))
    assert [letter.record.offset for letter in pump.letters.sent] == [0, 2, 4]
    assert rows(pump) == {row(1): ("new", True)}


def test_what_cannot_be_read_does_not_make_a_newer_row_stale_when_it_comes_again() -> None:
    """Case 62: a replay from the beginning."""
    records = [(1, WHOLE), (1, POISON["not json"][0]), (1, envelope(title="new"))]
    again = pumped(*records, store=pumped(*records).store)
    assert rows(again) == {row(1): ("new", False)}
    assert (again.sold, len(again.letters.sent)) == ([], 1)


def test_no_letter_says_what_was_in_its_record() -> None:
    """Invariant 13."""
    secret = b"tell-nobody"
    pump = pumped((1, secret), (2, envelope("x", title=secret.decode())), (3, b'["' + secret + b'"]'))
    assert len(pump.letters.sent) == 3
    assert all(secret.decode() not in letter.detail for letter in pump.letters.sent)


@pytest.mark.parametrize("blank", [None, "", " \n\t"])
def test_a_row_without_text_has_no_point_and_costs_nothing(blank: str | None) -> None:
    """Cases 44 and 45: one that never had any, and one that loses it."""
    pump = pumped((1, envelope("c", title=blank, body=blank)))
    assert (pump.stored(), pump.sold, pump.dead.total()) == ({}, [], 0)
    pump = pumped((1, envelope("c", title="a text")), (2, envelope("c", title="stays")))
    assert pump.stored().keys() == {row(1), row(2)}
    emptied = Record(DOCS.source, 0, 2, b'{"id":1}', envelope(title=blank, body=blank))
    later = Pump([emptied], DOCS, DebeziumJson(mapping_of=lambda _: DOCS).decode, pump.store)
    later.run()
    assert later.stored().keys() == {row(2)}
    assert later.sold == []

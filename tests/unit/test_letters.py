"""Dead letters as they lie in their topic: read back exactly, chosen by what is known of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vectide.core.letters import PREFIX, Choice, DeadLetter, KeyWanted, Place, moment_ms
from vectide.core.model import Record

NOW_MS = 1_795_243_356_000
OURS = {
    "cause": "bad_value",
    "stage": "decode",
    "detail": "not a number",
    "topic": "shop.products",
    "partition": "3",
    "offset": "42",
    "timestamp": "1600000000000",
    "log": "AbC",
    "table": "products",
    "attempts": "2",
    "version": "1.2.3",
    "failed_at": "2026-11-21T06:30:00.500+00:00",
}


def stored(*before: tuple[str, bytes | None], **ours: str | None) -> Record:
    given_ = {name: value for name, value in {**OURS, **ours}.items() if value is not None}
    headers = [*before, *((PREFIX + name, value.encode()) for name, value in given_.items())]
    return Record("dlq", 1, 7, b"key", b"value", tuple(headers), 5)


def read(*before: tuple[str, bytes | None], **ours: str | None) -> DeadLetter:
    letter = DeadLetter.read(stored(*before, **ours))
    assert letter is not None
    return letter


def test_a_letter_gives_the_record_back_as_it_was() -> None:
    """Case 155."""
    letter = read(("h", b"\xff"))
    assert letter.record == Record(
        "shop.products", 3, 42, b"key", b"value", (("h", b"\xff"),), 1_600_000_000_000
    )
    assert (letter.at, letter.source) == (Place("dlq", 1, 7), Place("shop.products", 3, 42))
    assert (letter.cause, letter.stage, letter.table, letter.attempts, letter.log) == (
        "bad_value",
        "decode",
        "products",
        2,
        "AbC",
    )
    assert letter.failed_ms == moment_ms("2026-11-21T06:30:00.500Z", 0)
    assert not letter.truncated
    assert letter.without_content().record.value is None


def test_headers_of_the_record_with_our_names_stay_with_the_record() -> None:
    before = ((PREFIX + "cause", b"of another system"), (PREFIX + "topic", b"elsewhere"), ("x", None))
    letter = read(*before)
    assert letter.record.headers == before
    assert (letter.cause, letter.record.topic) == ("bad_value", "shop.products")


def test_letters_of_older_versions_are_read_too() -> None:
    letter = read(log=None, attempts=None, version=None, failed_at=None, timestamp=None)
    assert (letter.log, letter.attempts, letter.version, letter.failed_ms) == ("", 1, "", None)
    assert letter.record.timestamp_ms == 5


@pytest.mark.parametrize("missing", ["cause", "topic", "partition", "offset"])
def test_what_says_not_where_it_comes_from_is_no_letter(missing: str) -> None:
    assert DeadLetter.read(stored(**{missing: None})) is None


@given(
    st.lists(st.tuples(st.sampled_from([PREFIX + name for name in OURS] + ["x"]), st.binary() | st.none()))
)
def test_any_headers_are_a_letter_or_none(headers: list[tuple[str, bytes | None]]) -> None:
    DeadLetter.read(Record("dlq", 0, 0, None, None, tuple(headers)))


def test_the_hash_of_a_key_shows_equal_keys_and_no_key() -> None:
    letter = read()
    assert letter.key_hash == read(cause="other").key_hash
    other = replace(letter, record=replace(letter.record, key=b"yek"))
    assert other.key_hash != letter.key_hash
    assert replace(letter, record=replace(letter.record, key=None)).key_hash == "-"
    assert "key" not in letter.key_hash


# --- places, moments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("shop.public.products[0]@42", Place("shop.public.products", 0, 42)),
        ("a-b_c[12]@0", Place("a-b_c", 12, 0)),
        ("17", Place("", None, 17)),
        (" 2@17 ", Place("", 2, 17)),
    ],
)
def test_places_as_people_write_them(text: str, place: Place) -> None:
    assert Place.parse(text) == place


@pytest.mark.parametrize("text", ["", "x", "t@5", "t[1]", "t[a]@1", "-1", "@5", "t[1]@5 6"])
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no place"):
        Place.parse(text)


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("90s", NOW_MS - 90_000),
        ("2h", NOW_MS - 7_200_000),
        ("1d12h", NOW_MS - 129_600_000),
        ("1.5H", NOW_MS - 5_400_000),
        ("2026-11-21", 1_795_219_200_000),
        ("2026-11-21T06:30", 1_795_242_600_000),
        ("2026-11-21T06:30:00Z", 1_795_242_600_000),
        ("2026-11-21T07:30:00+01:00", 1_795_242_600_000),
    ],
)
def test_moments_as_people_write_them(text: str, ms: int) -> None:
    assert moment_ms(text, NOW_MS) == ms


@pytest.mark.parametrize("text", ["", "yesterday", "2", "2 h", "h2", "2026-13-01", "-2h"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="neither an ISO time"):
        moment_ms(text, NOW_MS)


# --- choosing -------------------------------------------------------------------------------------------

FAILED_MS = moment_ms(OURS["failed_at"], 0)


@pytest.mark.parametrize(
    ("choice", "takes"),
    [
        ({}, True),
        ({"causes": frozenset({"bad_value", "x"})}, True),
        ({"causes": frozenset({"x"})}, False),
        ({"tables": frozenset({"products"})}, True),
        ({"tables": frozenset({"x"})}, False),
        ({"since_ms": FAILED_MS}, True),
        ({"since_ms": FAILED_MS + 1}, False),
        ({"until_ms": FAILED_MS}, False),
        ({"until_ms": FAILED_MS + 1}, True),
        ({"since_ms": FAILED_MS, "causes": frozenset({"x"})}, False),
    ],
)
def test_letters_are_chosen_by_cause_table_and_time(choice: dict[str, Any], takes: bool) -> None:
    assert Choice(**choice).takes(read()) is takes


def test_a_letter_without_a_time_is_in_no_span() -> None:
    assert Choice().takes(read(failed_at=None))
    assert not Choice(since_ms=0).takes(read(failed_at="soon"))


@pytest.mark.parametrize(
    ("text", "key", "named"),
    [
        ("7", {"id": 7}, True),
        ("7", {"id": "7"}, True),
        ('"7"', {"id": "7"}, True),
        ('"7"', {"id": 7}, False),
        ("8", {"id": 7}, False),
        ("a b", {"name": "a b"}, True),
        ('{"id": 7}', {"id": 7}, True),
        ('{"b": 1, "a": "x"}', {"a": "x", "b": 1}, True),
        ('{"a": "x"}', {"a": "x", "b": 1}, False),
        ("x", {"a": "x", "b": 1}, False),
        ("true", {"flag": True}, True),
    ],
)
def test_keys_as_people_write_them(text: str, key: dict[str, Any], named: bool) -> None:
    assert KeyWanted.parse(text).is_of(key) is named


def test_a_key_that_nothing_can_decode_is_named_by_its_text() -> None:
    assert KeyWanted.parse("not json").is_bytes(b"not json")
    assert not KeyWanted.parse("not json").is_bytes(None)

"""The judge of the real tier notices everything that could be wrong. Needs nothing but itself."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from tests.real.judge import Found, differences, wasted, worth_embedding

from vectide.embedders.hashing import expected_vector


def found(key: int, text: str, **metadata: Any) -> Found:
    return Found((key,), text, metadata, expected_vector(text, 8))


KETTLE = found(1, "kettle", price=Decimal("12.50"), at=datetime(2026, 1, 1, tzinfo=UTC), category=None)
LAMP = found(2, "lamp", stock=3, sold=True)
WANTED = {point.key: point for point in (KETTLE, LAMP)}
STORED_KETTLE = replace(KETTLE, metadata={"price": "12.5", "at": "2026-01-01T01:00:00+01:00"})


def test_an_equal_store_is_equal_in_any_order_and_spelling() -> None:
    assert differences(WANTED, [LAMP, STORED_KETTLE]) == []


@pytest.mark.parametrize(
    ("stored", "complaint"),
    [
        ([LAMP], "(1,): missing"),
        ([STORED_KETTLE, LAMP, found(3, "ghost")], "(3,): must not be there"),
        ([STORED_KETTLE, LAMP, LAMP], "(2,): there twice"),
        ([STORED_KETTLE, replace(LAMP, text="lamb")], "(2,): text is 'lamb', should be 'lamp'"),
        (
            [STORED_KETTLE, replace(LAMP, vector=KETTLE.vector)],
            "(2,): the vector is not that of the text",
        ),
        (
            [STORED_KETTLE, replace(LAMP, metadata={"stock": 4, "sold": True})],
            "(2,): metadata stock is 4, should be 3",
        ),
        (
            [STORED_KETTLE, replace(LAMP, metadata={"stock": 3, "sold": 1})],
            "(2,): metadata sold is 1, should be True",
        ),
        (
            [STORED_KETTLE, replace(LAMP, metadata={"stock": 3, "sold": True, "more": 1})],
            "(2,): metadata more is 1, should be None",
        ),
        (
            [replace(STORED_KETTLE, metadata={"price": "12.51", "at": "2026-01-01T00:00:00Z"}), LAMP],
            "(1,): metadata price is '12.51', should be Decimal('12.50')",
        ),
    ],
)
def test_a_difference_is_named(stored: list[Found], complaint: str) -> None:
    assert differences(WANTED, stored) == [complaint]


HELD = {("docs", (1,)): [None, "a", "b", None, "b"], ("docs", (2,)): [None, "c"]}


@pytest.mark.parametrize(
    ("stored", "sent", "complaints"),
    [
        ({}, Counter(a=1, b=2, c=1), 0),
        ({}, Counter(b=3), 1),
        ({("docs", (1,)): "a"}, Counter(b=2), 0),
        ({("docs", (1,)): "a"}, Counter(a=1), 1),
        ({("docs", (1,)): "b"}, Counter(a=1), 1),
        ({("docs", (2,)): "c"}, Counter(c=1), 1),
        ({}, Counter(never_held=1), 1),
    ],
)
def test_a_text_is_worth_as_often_as_its_row_came_to_hold_it_after_what_is_stored(
    stored: dict[tuple[str, tuple[Any, ...]], str], sent: Counter[str], complaints: int
) -> None:
    assert len(wasted(sent, worth_embedding(HELD, stored))) == complaints

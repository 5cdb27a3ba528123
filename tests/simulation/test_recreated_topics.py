"""A topic is deleted while its last changes are under way, and created again."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.simulation.run import Run
from tests.simulation.scenario import DOCS, Event, Fault, Scenario

from vectide.core.model import Change, Deleted, Upserted

KEY = {"id": 2}
ROW = {"id": 2, "title": "one", "body": "two", "price": 1, "note": "n", "gone": False}
AGAIN = {**ROW, "title": "three", "body": "four"}


def event(at_s: float, change: Change, whole: dict[str, object] | None, generation: int = 0) -> Event:
    return Event(at_s, DOCS.source, 0, 2, change, "", whole=whole, generation=generation)


def scenario() -> Scenario:
    """The row is deleted and comes back without its text, which nobody knows any more: a dead letter. Before
    the delete is applied, the topic is gone."""
    seen = {name: value for name, value in AGAIN.items() if name != "body"}
    return Scenario(
        0,
        (
            event(0.1, Upserted(KEY, ROW, committed_ms=0), ROW),
            event(1.0, Deleted(KEY, committed_ms=0), None),
            event(1.0, Upserted(KEY, seen, frozenset({"body"}), committed_ms=0), AGAIN),
            event(1.06, Upserted(KEY, AGAIN, committed_ms=0), AGAIN, generation=1),
        ),
        (Fault(1.03, "store_down", 0.5),),
        batch_items=1,
        atomic=False,
        commits_lost=0.0,
    )


@pytest.mark.parametrize("luck", range(30))
def test_what_was_under_way_when_the_topic_was_deleted_is_made_up_for_by_the_new_one(luck: int) -> None:
    """Invariants 10 and 14: the letter was right, though the delete before it was never applied."""
    run = Run(replace(scenario(), luck=luck))
    run.run()
    assert [(point.text, point.stamp and point.stamp.stale) for point in run.points()] in (
        [("three\n\nfour", False)],
        [("three", False), ("four", None)],
    )

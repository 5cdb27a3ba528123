"""The previewer: decisions of records one after the other, on what each would leave in the store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from vectide.core.chunks import Chunking
from vectide.core.mapping import MetadataField, TableMapping
from vectide.core.model import Change, DecodeError, Deleted, Ignored, Record, Row, Stamp, Truncated, Upserted
from vectide.core.template import Template
from vectide.jobs.preview import Decision, Preview, Previewer, Rules
from vectide.ports import EmbedderLimits
from vectide.settings_where import parse_where
from vectide.testing.store import CAPABILITIES

MAPPING = TableMapping(
    table="docs",
    source="docs",
    collection="texts",
    template=Template.of_columns(["title", "body"]),
    metadata=(MetadataField("size", "size"),),
)


def upsert(*, unavailable: str = "", **columns: Any) -> Upserted:
    lacks = frozenset(unavailable.split())
    row = {"title": "a title", "body": "a body", "size": 1, **columns}
    return Upserted({"id": 1}, {name: row[name] for name in row if name not in lacks}, lacks)


@dataclass
class Bench:
    """Previews changes as if each were the next record of the topic ``docs``."""

    mapping: TableMapping = MAPPING
    stored: Callable[[str, Row], Stamp | None] = lambda _collection, _row: None
    changes: list[Change | DecodeError] = field(default_factory=list)

    def __post_init__(self) -> None:
        rules = Rules(
            decode=self._decode,
            mapping_of={"docs": self.mapping}.get,
            capabilities=replace(CAPABILITIES, nul_in_text=False),
            limits=EmbedderLimits(max_items=10, max_text_tokens=50),
            count_tokens=len,
            space="test/4",
        )
        self.previewer = Previewer(rules, stored=self.stored)

    def _decode(self, record: Record) -> Change:
        change = self.changes[record.offset]
        if isinstance(change, DecodeError):
            raise change
        return change

    def preview(self, change: Change | DecodeError, topic: str = "docs") -> Preview:
        self.changes.append(change)
        return self.previewer.preview(Record(topic, 0, len(self.changes) - 1, b"", b""))

    def decide(self, change: Change | DecodeError) -> tuple[Decision, str]:
        found = self.preview(change)
        return found.decision, found.reason


def test_what_is_no_change_of_a_row_is_told_by_its_reason() -> None:
    bench = Bench()
    assert bench.preview(upsert(), topic="other").reason == "unmapped_topic"
    assert bench.decide(Ignored("heartbeat")) == (Decision.SKIP, "heartbeat")
    assert bench.decide(DecodeError("not_json", "")) == (Decision.DEAD_LETTER, "not_json")
    assert bench.decide(Truncated()) == (Decision.REMOVE, "truncate")
    assert bench.decide(Deleted(None)) == (Decision.DEAD_LETTER, "no_key")


def test_an_unavailable_column_is_completed_from_what_the_records_before_left() -> None:
    bench = Bench()
    assert bench.decide(upsert(unavailable="body")) == (Decision.DEAD_LETTER, "incomplete_row")
    assert bench.decide(upsert()) == (Decision.EMBED, "")
    assert bench.decide(upsert(unavailable="body", size=2)) == (Decision.PATCH, "")
    renamed = bench.preview(upsert(unavailable="body size", title="new"))
    assert renamed.decision is Decision.EMBED
    assert [text.text for text in renamed.texts] == ["new\n\na body"]
    assert renamed.keep == {"size"}
    assert bench.decide(upsert(unavailable="body size", title="new")) == (Decision.SKIP, "unchanged")


def test_after_a_dead_letter_nothing_is_completed_from_the_stale_row() -> None:
    bench = Bench()
    bench.preview(upsert())
    assert bench.decide(upsert(body="much too long " * 10)) == (Decision.DEAD_LETTER, "text_too_long")
    assert bench.decide(upsert(unavailable="body", title="new")) == (Decision.DEAD_LETTER, "incomplete_row")
    assert bench.decide(upsert()) == (Decision.PATCH, "")  # the row is whole again, and no longer stale


def test_a_value_that_the_store_cannot_hold_is_a_dead_letter() -> None:
    found = Bench().preview(upsert(size="\0"))
    assert (found.decision, found.reason) == (Decision.DEAD_LETTER, "value_refused")
    assert found.detail.startswith("size: ")


def test_columns_that_the_events_lack_halt_the_table_and_are_named_with_those_that_there_are() -> None:
    found = Bench().preview(Upserted({"id": 1}, {"title": "a", "weight": 2}, frozenset({"body"})))
    assert (found.decision, found.reason) == (Decision.HALT, "drift")
    assert found.detail == "the events lack mapped columns: size; they have body, title, weight"


def test_the_store_is_asked_once_for_each_row_and_its_stamp_decides() -> None:
    asked: list[tuple[str, str]] = []
    first = Bench()
    embedded = first.preview(upsert())
    assert embedded.row is not None
    left = first.previewer.left(embedded.row)

    def stored(collection: str, row: Row) -> Stamp | None:
        asked.append((collection, row.key))
        return left

    second = Bench(stored=stored)
    assert second.decide(upsert()) == (Decision.SKIP, "already_applied")
    assert second.decide(upsert(size=5)) == (Decision.PATCH, "")
    assert asked == [("texts", '{"id":1}')]


def test_a_filter_shows_in_its_decisions() -> None:
    shown = replace(MAPPING, where=parse_where("size > 0"))
    bench = Bench(mapping=shown)
    assert bench.decide(upsert()) == (Decision.EMBED, "")
    assert bench.decide(upsert(size=0)) == (Decision.REMOVE, "filtered")
    assert bench.decide(upsert(size=None)) == (Decision.SKIP, "filtered")
    assert bench.decide(upsert(size=[])) == (Decision.DEAD_LETTER, "where_mismatch")


# --- tables that are cut into chunks --------------------------------------------------------------------

CUT = replace(MAPPING, template=Template.of_columns(["body"]), chunking=Chunking(tokens=4))


def test_a_text_is_shown_chunk_by_chunk() -> None:
    found = Bench(CUT).preview(upsert(body="aaaa bbbb cccc"))
    assert [(text.chunk, text.text, text.tokens) for text in found.texts] == [
        (0, "aaaa", 4),
        (1, "bbbb", 4),
        (2, "cccc", 4),
    ]
    assert (found.decision, found.chunks, found.gone, found.tokens) == (Decision.EMBED, 3, (), 12)
    assert found.points == tuple(text.point for text in found.texts)
    assert found.row is not None
    assert found.points[0] == found.row.head_id


def test_an_edit_shows_what_is_embedded_what_moves_and_what_goes() -> None:
    """Case 78."""
    bench = Bench(CUT)
    first = bench.preview(upsert(body="aaaa bbbb cccc")).points
    edited = bench.preview(upsert(body="aaaa xxxx bbbb"))
    assert [(text.chunk, text.text) for text in edited.texts] == [(1, "xxxx")]
    assert edited.points == (first[0], edited.texts[0].point, first[1])
    assert (edited.chunks, edited.gone) == (3, (first[2],))
    shrunk = bench.preview(upsert(body="aaaa xxxx"))
    assert (shrunk.decision, shrunk.points, shrunk.gone) == (Decision.PATCH, first[:1], first[1:2])
    assert bench.preview(upsert(body="aaaa xxxx", unavailable="body")).reason == "unchanged"
    assert bench.preview(Deleted({"id": 1})).points == (first[0], edited.texts[0].point)


def test_a_row_of_too_many_chunks_is_a_dead_letter() -> None:
    bench = Bench(CUT)
    assert bench.decide(upsert(body="word " * 1001)) == (Decision.DEAD_LETTER, "too_many_chunks")

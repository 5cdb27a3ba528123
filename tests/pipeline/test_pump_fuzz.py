"""Whatever the changes say, the pump settles all of them, and the store is their fold."""

from collections.abc import Mapping
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from tests.pipeline.pump import DOWN, PRODUCTS, USERS, FaultyStore, Log, Provider, Pump

from vectide.core.chunks import Chunking
from vectide.core.mapping import MetadataField, SoftDelete, TableMapping
from vectide.core.model import Change, Deleted, Row, Truncated, Upserted, Value
from vectide.core.template import Template
from vectide.core.values import normalise
from vectide.testing.fold import Fold
from vectide.testing.store import CAPABILITIES

TABLE = replace(
    PRODUCTS,
    template=Template.parse("{title}[\n{body}][ since {$ts}]"),
    metadata=(MetadataField("price", "price"), MetadataField("title", "name"), MetadataField("$op", "op")),
    soft_delete=SoftDelete("gone"),
)
CHUNKED = replace(TABLE, chunking=Chunking(tokens=3, overlap=1))
COLUMNS = ("title", "body", "price", "gone")
#: What a codec may find in a column.
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**53, -(2**63), 10**40, 0])
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(
        ["lamp", "chair", "", " ", "a\0b", "\ud800", "\N{FAMILY}", "e\u0301", "x" * 5000, "a b c d e f g"]
    )
)
VALUES = SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(st.text(max_size=3), SCALARS, max_size=3)
KEYS = st.sampled_from([{"id": 1}, {"id": 2}])
STAMPS = st.none() | st.sampled_from([0, 1_795_243_356_331])


@st.composite
def upserts(draw: st.DrawFn) -> Upserted:
    """A row with some of its columns unavailable, and of a few values, so that changes meet again."""
    key = draw(KEYS)
    unavailable = draw(st.frozensets(st.sampled_from(COLUMNS), max_size=2))
    few = st.sampled_from(["lamp", "chair", None, 1])
    columns = {name: draw(few | VALUES) for name in COLUMNS if name not in unavailable}
    if draw(st.booleans()):
        columns["gone"] = False
        unavailable -= {"gone"}
    op = draw(st.sampled_from("cru"))
    return Upserted(key, {**key, **columns}, unavailable, op, committed_ms=draw(STAMPS))


CHANGES = st.lists(upserts() | st.builds(Deleted, KEYS) | st.just(Truncated()), max_size=10)


def legal(metadata: Mapping[str, Value]) -> Mapping[str, Value]:
    """As the store holds it."""
    return normalise(
        metadata,
        max_integer=CAPABILITIES.max_integer,
        nested_metadata=CAPABILITIES.nested_metadata,
        null_metadata=CAPABILITIES.null_metadata,
        nul_in_text=CAPABILITIES.nul_in_text,
    )


def fold_of(changes: list[Change], table: TableMapping) -> dict[Row, object]:
    """What the store must hold after them, by row: texts and metadata of its points."""
    fold = Fold(table, Provider().count_tokens)
    for change in changes:
        if isinstance(change, Truncated):
            fold.truncate()
        elif isinstance(change, Upserted | Deleted):
            fold.apply(change)
    return {
        row: [(text, legal(held.metadata)) for text in held.chunks or (held.text,)]
        for row, held in fold.rows.items()
    }


def shown(pump: Pump) -> dict[Row, object]:
    """What the store holds, by row."""
    return {
        row: [(point.text, dict(point.metadata)) for point in pump.store.inner.of_row(TABLE.collection, row)]
        for row in pump.store.points(TABLE)
    }


@given(CHANGES, st.integers(0, 3), st.sampled_from([TABLE, CHUNKED]), st.booleans())
def test_any_changes_are_settled_and_the_store_is_their_fold(
    changes: list[Change], outages: int, table: TableMapping, atomic: bool
) -> None:
    """Invariants 2, 5, 7, 12 and 14; what cannot be stored or completed is named, and nothing else is."""
    log = Log()
    log.append(*changes)
    store = FaultyStore(table, USERS, able=replace(CAPABILITIES, atomic_calls=atomic))
    pump = Pump(log, store=store, tables=(table, USERS))
    failing = [DOWN] * outages
    pump.store.fault = lambda call, collection: failing.pop() if failing else None
    pump.run()
    assert {letter.cause for letter in pump.letters.letters} <= {"incomplete_row", "value_refused"}
    if not pump.letters.letters:
        assert shown(pump) == fold_of(changes, table)
    before = shown(pump)
    log.committed.clear()
    again = Pump(log, store=store, tables=(table, USERS))
    again.run()
    assert shown(again) == before

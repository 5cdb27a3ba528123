"""Whatever the changes say, the pump settles all of them, and the store is their fold."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain

from hypothesis import given
from hypothesis import strategies as st
from tests.pipeline.pump import DOWN, PRODUCTS, USERS, FaultyStore, Log, Provider, Pump

from vectide.core.chunks import Chunking
from vectide.core.mapping import ON_INCOMPLETE, MetadataField, SoftDelete, TableMapping
from vectide.core.model import Change, Columns, Deleted, Row, Truncated, Upserted, Value
from vectide.core.template import Template
from vectide.core.values import normalise
from vectide.core.where import WhereMismatch
from vectide.settings_where import parse_where
from vectide.testing.fold import Fold
from vectide.testing.store import CAPABILITIES

TEMPLATES = ("{title}[\n{body}][ since {$ts}]", "{title}", "{body}[ {title}]", "[{price}: ]{body}")
FIELDS = (("price", "price"), ("title", "name"), ("body", "body"), ("$op", "op"), ("$ts", "at"))
WHERES = (
    "price > 0",
    "title IS NOT NULL",
    "title <> 'lamp' OR price = 1",
    "NOT (body LIKE 'c%') AND price IN (1, 2)",
    "gone IS NOT TRUE",
)
CHUNKINGS = (None, Chunking(tokens=3, overlap=1), Chunking(tokens=5))
TABLES = st.builds(
    lambda template, fields, where, chunking, gone, keep, ways: replace(
        PRODUCTS,
        template=Template.parse(template),
        metadata=tuple(MetadataField(*field) for field in fields),
        where=where,
        chunking=chunking,
        soft_delete=gone,
        keep_values=keep,
        on_incomplete=ways,
    ),
    st.sampled_from(TEMPLATES),
    st.lists(st.sampled_from(FIELDS), unique=True),
    st.none() | st.sampled_from([parse_where(text) for text in WHERES]),
    st.sampled_from(CHUNKINGS),
    st.sampled_from([SoftDelete("gone"), SoftDelete("gone", ("yes", 1)), None]),
    st.booleans(),
    st.sampled_from([ON_INCOMPLETE, ("dead-letter",)]),
)
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
IDS = st.sampled_from([1, 2])
KEYS = IDS.map(lambda id_: {"id": id_})
STAMPS = st.none() | st.sampled_from([0, 1_795_243_356_331])


@st.composite
def upserts(draw: st.DrawFn, keys: st.SearchStrategy[Columns] = KEYS) -> Upserted:
    """A row with some of its columns unavailable, and of a few values, so that changes meet again."""
    key = draw(keys)
    unavailable = draw(st.frozensets(st.sampled_from(COLUMNS), max_size=2))
    few = st.sampled_from(["lamp", "chair", None, 1])
    columns = {name: draw(few | VALUES) for name in COLUMNS if name not in unavailable}
    if draw(st.booleans()):
        columns["gone"] = False
        unavailable -= {"gone"}
    op = draw(st.sampled_from("cru"))
    return Upserted(key, {**key, **columns}, unavailable, op, committed_ms=draw(STAMPS))


@st.composite
def moves(draw: st.DrawFn) -> list[Change]:
    """A primary key changes to one that is free: delete, perhaps its tombstone, and create."""
    old = draw(IDS)
    key, new = {"id": old}, {"id": 3 - old}
    gone = Deleted(key, new_key=new)
    created = replace(draw(upserts(st.just(new))), op="c", old_key=key)
    return [Deleted(new), *[gone] * draw(IDS), created]


ONE = (upserts() | st.builds(Deleted, KEYS) | st.just(Truncated())).map(lambda change: [change])
CHANGES = st.lists(ONE | moves(), max_size=10).map(lambda groups: list(chain.from_iterable(groups)))
#: Keys that changed as no source says it: from nowhere, to nowhere, to themselves.
NONSENSE = st.lists(
    st.builds(lambda change, old: replace(change, op="c", old_key=old), upserts(), KEYS)
    | st.builds(lambda key, new: Deleted(key, new_key=new), KEYS, KEYS)
    | upserts(),
    max_size=10,
)


def legal(metadata: Mapping[str, Value]) -> Mapping[str, Value]:
    """As the store holds it."""
    return normalise(
        metadata,
        max_integer=CAPABILITIES.max_integer,
        nested_metadata=CAPABILITIES.nested_metadata,
        null_metadata=CAPABILITIES.null_metadata,
        nul_in_text=CAPABILITIES.nul_in_text,
    )


def carried(changes: Sequence[Change]) -> Iterator[Change]:
    """The changes, each create of a changed key with what it lacks and the old row had."""
    known: dict[str, Columns] = {}
    handed: dict[str, Columns] = {}
    for change in changes:
        match change:
            case Truncated():
                known.clear()
                handed.clear()
            case Deleted(key, new_key=new):
                had = known.pop(str(key), None)
                if new is not None and had is not None:
                    handed[str(new)] = had
            case Upserted(key, columns, unavailable):
                had = {} if change.old_key is None else handed.pop(str(key), {})
                filled = {**columns, **{name: had[name] for name in unavailable & had.keys()}}
                change = replace(change, columns=filled, unavailable=unavailable - had.keys())
                known[str(key)] = {**known.get(str(key), {}), **filled}
        yield change


def fold_of(changes: Sequence[Change], table: TableMapping) -> dict[Row, object]:
    """What the store must hold after them, by row: texts and metadata of its points."""
    fold = Fold(table, Provider().count_tokens)
    for change in carried(changes):
        if isinstance(change, Truncated):
            fold.truncate()
        elif isinstance(change, Upserted | Deleted):
            with suppress(WhereMismatch):  # a letter, unless a later change of the row made it up
                fold.apply(change)
    return {
        row: [(text, legal(held.metadata)) for text in held.chunks or (held.text,)]
        for row, held in fold.rows.items()
    }


def shown(pump: Pump, table: TableMapping) -> dict[Row, object]:
    """What the store holds, by row."""
    return {
        row: [(point.text, dict(point.metadata)) for point in pump.store.inner.of_row(table.collection, row)]
        for row in pump.store.points(table)
    }


CAUSES = {"incomplete_row", "value_refused", "where_mismatch"}


def pumped(
    changes: Sequence[Change], outages: int, table: TableMapping, atomic: bool
) -> tuple[Pump, dict[Row, object]]:
    """A pump that has settled the changes, and what the store then held; a replay has changed nothing."""
    log = Log()
    log.append(*changes)
    store = FaultyStore(table, USERS, able=replace(CAPABILITIES, atomic_calls=atomic))
    pump = Pump(log, store=store, tables=(table, USERS))
    failing = [DOWN] * outages
    pump.store.fault = lambda call, collection: failing.pop() if failing else None
    pump.run()
    assert {letter.cause for letter in pump.letters.letters} <= CAUSES
    before = shown(pump, table)
    log.committed.clear()
    again = Pump(log, store=store, tables=(table, USERS))
    again.run()
    assert shown(again, table) == before
    return pump, before


@given(CHANGES, st.integers(0, 3), TABLES, st.booleans())
def test_any_changes_are_settled_and_the_store_is_their_fold(
    changes: list[Change], outages: int, table: TableMapping, atomic: bool
) -> None:
    """Invariants 2, 5, 7, 12 and 14; what cannot be stored or completed is named, and nothing else is."""
    pump, stored = pumped(changes, outages, table, atomic)
    if not pump.letters.letters:
        assert stored == fold_of(changes, table)


@given(NONSENSE, TABLES, st.booleans())
def test_keys_that_change_as_no_source_says_it_are_settled(
    changes: list[Change], table: TableMapping, atomic: bool
) -> None:
    """Invariants 2, 5 and 12."""
    pumped(changes, 0, table, atomic)

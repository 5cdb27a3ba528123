"""The demo: its changes are what Debezium would say, its verdict can fail, and the whole of it passes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from vectide import codecs, settings
from vectide.core.mapping import TableMapping
from vectide.core.model import Deleted, Position, Record, Row, Stamp, Upserted, listed_hash, text_hash
from vectide.demo import catalogue, verify
from vectide.demo.keepers import DEFAULT_STORE, STORES
from vectide.demo.main import run
from vectide.demo.readings import Readings
from vectide.demo.shop import Change, Kind, Shop
from vectide.embedders.hashing import HashingEmbedder, expected_vector
from vectide.jobs.executor import SystemClock
from vectide.ports import Codec, Matrix, Stored
from vectide.testing.fold import Expected
from vectide.testing.store import CAPABILITIES

NOW_MS = 1_795_243_356_000
DIMENSIONS = 8
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def codec() -> Codec:
    return codecs.load("json")


@pytest.fixture(scope="module")
def mapping() -> TableMapping:
    environment = {
        "VECTIDE_KAFKA__BOOTSTRAP_SERVERS": "broker:9092",
        "VECTIDE_EMBEDDER__KIND": "wordllama",
        "VECTIDE_STORE__KIND": "pgvector",
        "VECTIDE_STORE__DSN": "postgresql://localhost/vectors",
        "VECTIDE_TABLES": catalogue.TABLES,
    }
    (mapping,) = settings.load(environment).mappings
    return mapping


@pytest.fixture
def recorded(tmp_path: Path) -> list[Record]:
    return catalogue.unpack(tmp_path)


def changes_of(shop: Shop, count: int) -> list[Change]:
    return [shop.random_change(NOW_MS + i) for i in range(count)]


# --- the recording --------------------------------------------------------------------------------------


def test_the_bundled_events_decode_and_bring_every_kind_of_change(
    recorded: list[Record], codec: Codec, mapping: TableMapping
) -> None:
    decoded = [codec.decode(record) for record in recorded]
    ops = {change.op for change in decoded if isinstance(change, Upserted)}
    assert {record.topic for record in recorded} == {mapping.source}
    assert ops == {"r", "c", "u"}
    assert any(record.value is None for record in recorded)
    assert any(isinstance(change, Deleted) and change.new_key for change in decoded)


def test_the_shop_opens_with_the_rows_that_the_bundled_events_leave(recorded: list[Record]) -> None:
    rows = catalogue.rows_after(recorded)
    assert len(rows) == 205
    assert {9, 11, 12} & rows.keys() == set()
    assert rows[2012]["sku"] == "GAR-00012"


# --- the generator --------------------------------------------------------------------------------------


def test_the_same_seed_makes_the_same_records(recorded: list[Record]) -> None:
    rows = catalogue.rows_after(recorded)
    first, again = changes_of(Shop(rows, 7), 300), changes_of(Shop(rows, 7), 300)
    other = changes_of(Shop(rows, 8), 300)
    assert first == again
    assert first != other
    assert {change.kind for change in first} == set(Kind)


def test_generated_records_decode_to_the_rows_of_the_shop(
    recorded: list[Record], codec: Codec, mapping: TableMapping
) -> None:
    shop = Shop(catalogue.rows_after(recorded), seed=1)
    records = [*recorded, *(record for change in changes_of(shop, 500) for record in change.records)]
    expected = verify.folded(records, codec, mapping, CAPABILITIES)
    alive = {
        Row.of(mapping.table, {"id": id_}): row
        for id_, row in shop.rows.items()
        if row["deleted_at"] is None and (row["name"] or row["description"])
    }
    assert expected.keys() == alive.keys()
    for row, columns in alive.items():
        assert expected[row].metadata == {name: columns[name] for name in ("sku", "category", "in_stock")}
        assert expected[row].text.startswith(columns["name"])


def test_generated_envelopes_have_the_members_of_the_recorded_ones(recorded: list[Record]) -> None:
    def shape(record: Record) -> tuple[list[str], list[str], list[str]]:
        envelope = json.loads(record.value or b"{}")
        row = envelope["after"] or envelope["before"]
        return list(envelope), list(envelope["source"]), list(row)

    def shapes(records: Sequence[Record]) -> set[str]:
        return {str(shape(record)) for record in records if record.value is not None}

    shop = Shop(catalogue.rows_after(recorded), seed=1)
    generated = [record for change in changes_of(shop, 300) for record in change.records]
    assert shapes(generated) == shapes(recorded)


def test_random_changes_leave_reserved_rows_alone(recorded: list[Record]) -> None:
    rows = catalogue.rows_after(recorded)
    shop = Shop(rows, seed=3, reserved=set(rows) - {1, 2, 3})
    changes_of(shop, 300)
    assert all(shop.rows[id_] == rows[id_] for id_ in set(rows) - {1, 2, 3})
    assert any(shop.rows.get(id_) != rows[id_] for id_ in (1, 2, 3))


# --- the verdict ----------------------------------------------------------------------------------------


def embed(texts: Sequence[str]) -> Matrix:
    return np.array([expected_vector(text, DIMENSIONS) for text in texts], dtype=np.float32)


def point(row: Row, wanted: Expected, *, offset: int = 0) -> Stored:
    stamp = Stamp(
        "space", "layout", (listed_hash(text_hash(wanted.text)),), {}, "", Position("log", 0, offset)
    )
    vector = embed([wanted.text])[0]
    return Stored(row.head_id, row, 0, wanted.text, text_hash(wanted.text), wanted.metadata, stamp, vector)


ROWS = [Row.of("products", {"id": id_}) for id_ in range(3)]
EXPECTED = {row: Expected(f"text {i}", {"in_stock": True, "sku": None}) for i, row in enumerate(ROWS)}


@pytest.fixture
def stored() -> list[Stored]:
    return [point(row, wanted) for row, wanted in EXPECTED.items()]


def test_a_store_that_equals_the_fold_has_no_differences(stored: list[Stored]) -> None:
    assert verify.differences(EXPECTED, stored, embed) == []


def test_the_fold_is_what_the_store_can_hold(
    recorded: list[Record], codec: Codec, mapping: TableMapping
) -> None:
    """Neither nulls nor the length of vectors are for every store."""
    able = replace(CAPABILITIES, null_metadata=False, unit_vectors=True)
    folded = verify.folded(recorded, codec, mapping, able)
    assert folded.keys() == verify.folded(recorded, codec, mapping, CAPABILITIES).keys()
    assert not any(None in wanted.metadata.values() for wanted in folded.values())
    vectors = verify.embedding_all(HashingEmbedder(DIMENSIONS), SystemClock(), able)(["a", "b c d"])
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1.0, 1.0])


def test_a_missing_row_is_a_difference(stored: list[Stored]) -> None:
    (difference,) = verify.differences(EXPECTED, stored[1:], embed)
    assert difference == 'products {"id":0}: is missing'


def test_a_row_too_many_is_a_difference(stored: list[Stored]) -> None:
    extra = point(Row.of("products", {"id": 9}), Expected("text", {}))
    (difference,) = verify.differences(EXPECTED, [*stored, extra], embed)
    assert difference == 'products {"id":9}: is in the store and must not be'


def test_a_row_with_two_points_is_a_difference(stored: list[Stored]) -> None:
    (difference,) = verify.differences(EXPECTED, [*stored, stored[0]], embed)
    assert "two points" in difference


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"text": "another"}, "text is 'another', should be 'text 0'"),
        ({"text": None}, "text is None"),
        ({"metadata": {"in_stock": False, "sku": None}}, "metadata is"),
        ({"metadata": {"in_stock": True}}, "metadata is"),
        ({"vector": embed(["text 1"])[0]}, "its vector is not the embedding of its text"),
        ({"vector": None}, "its vector is not the embedding of its text"),
        ({"stamp": None}, "its stamp tells of another text"),
        ({"id": ROWS[1].head_id}, "has another id than its row gives it"),
    ],
)
def test_a_wrong_part_of_a_point_is_a_difference(
    stored: list[Stored], wrong: dict[str, object], complaint: str
) -> None:
    altered = [replace(stored[0], **wrong), *stored[1:]]  # type: ignore[arg-type]
    (difference,) = verify.differences(EXPECTED, altered, embed)
    assert complaint in difference


def test_only_texts_that_the_store_lacks_are_worth_an_embedding(stored: list[Stored]) -> None:
    older = replace(stored[0], text="old", text_hash=text_hash("old"))
    assert verify.to_embed(EXPECTED, stored) == set()
    assert verify.to_embed(EXPECTED, [older, stored[1]]) == {"text 0", "text 2"}


def test_a_record_counts_as_stored_when_its_row_is_as_new(stored: list[Stored]) -> None:
    at_five = [point(ROWS[0], EXPECTED[ROWS[0]], offset=5)]
    records = [
        Record("t", partition, offset, b'{"id":0}', b"") for partition in (0, 1) for offset in (4, 5, 6)
    ]
    found = verify.already_stored([*records, Record("t", 0, 1, b'{"id":1}', b"")], at_five)
    assert [(record.partition, record.offset) for record in found] == [(0, 4), (0, 5)]


# --- the worker's numbers -------------------------------------------------------------------------------

EXPOSITION = """\
# TYPE vectide_freshness_seconds histogram
vectide_freshness_seconds_bucket{table="products",le="0.1"} %d
vectide_freshness_seconds_bucket{table="products",le="0.2"} %d
vectide_freshness_seconds_bucket{table="products",le="+Inf"} %d
# TYPE vectide_texts_saved_total counter
vectide_texts_saved_total{table="products",reason="unchanged"} %d
vectide_texts_saved_total{table="products",reason="replay"} 1
"""


def test_readings_are_counted_from_an_earlier_moment_on() -> None:
    earlier, later = (Readings.parse(EXPOSITION % numbers) for numbers in [(9, 9, 9, 3), (9, 19, 19, 8)])
    counted = later.since(earlier)
    assert counted.saved == 5
    assert counted.by("vectide_texts_saved_total", "reason") == {"unchanged": 5}
    assert counted.quantile_s("vectide_freshness_seconds", 0.5) == pytest.approx(0.15)
    assert Readings().quantile_s("vectide_freshness_seconds", 0.5) is None


# --- the whole ------------------------------------------------------------------------------------------


def start_demo(*options: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "vectide.demo", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TMPDIR": str(folder)},
    )


@pytest.fixture
def open_folder(tmp_path: Path) -> Iterator[Path]:
    """For temporary files: the database's user has to reach them."""
    with tempfile.TemporaryDirectory(prefix="vectide-demo-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def test_the_demo_verifies_itself_and_leaves_nothing_behind(open_folder: Path) -> None:
    with start_demo("--seconds", "2", folder=open_folder) as demo:
        said, _ = demo.communicate(timeout=90)
    assert demo.returncode == 0, said
    assert "✗" not in said
    assert "\x1b" not in said
    for claim in ("exactly the", "the store equals the fold", "Verified"):
        assert claim in said
    assert list(open_folder.iterdir()) == []


@pytest.mark.nightly
@pytest.mark.timeout(300)
@pytest.mark.parametrize("store", [store for store in STORES if store != DEFAULT_STORE])
def test_the_demo_verifies_every_store_that_it_runs_on(store: str, open_folder: Path) -> None:
    with start_demo("--seconds", "2", "--store", store, folder=open_folder) as demo:
        said, _ = demo.communicate(timeout=240)
    assert demo.returncode == 0, said
    assert f"VECTIDE_STORE__KIND={store}" in said
    assert ("✗" not in said, "Verified" in said) == (True, True)
    assert list(open_folder.iterdir()) == []


def test_a_demo_on_a_store_that_it_does_not_know_says_on_which_it_runs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(store="pinecone", plain=True) == 2
    assert "pgvector, qdrant, chroma, milvus, lancedb" in capsys.readouterr().out


@pytest.mark.parametrize("store", STORES)
def test_a_demo_without_its_packages_names_the_extra(
    store: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("vectide.demo.keepers.find_spec", lambda name: None)
    assert run(store=store, plain=True) == 2
    extra = "demo" if store == DEFAULT_STORE else f"demo-{store}"
    said = " ".join(capsys.readouterr().out.split())
    assert f'pip install "vectide[{extra}]"' in said
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    needed = {line.split(">")[0] for name in (store, "wordllama") for line in declared[name]}
    assert needed <= {line.split(">")[0] for line in declared[extra]}


def test_an_interrupted_demo_ends_everything_that_it_started(open_folder: Path) -> None:
    with start_demo("--seconds", "60", folder=open_folder) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "The shop is open" in line:
                break
        family = psutil.Process(demo.pid).children(recursive=True)
        demo.send_signal(signal.SIGINT)
        demo.communicate(timeout=60)
    assert demo.returncode == 130
    assert len(family) >= 3
    assert list(open_folder.iterdir()) == []
    assert not any(map(alive, family))


@pytest.mark.parametrize("store", [DEFAULT_STORE, pytest.param("chroma", marks=pytest.mark.nightly)])
def test_nothing_outlives_a_demo_that_is_killed(store: str, open_folder: Path) -> None:
    with start_demo("--seconds", "60", "--store", store, folder=open_folder) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "The shop is open" in line:
                break
        family = psutil.Process(demo.pid).children(recursive=True)
        demo.kill()
        demo.communicate(timeout=60)
    give_up_s = time.monotonic() + 30
    while any(map(alive, family)):
        assert time.monotonic() < give_up_s, [process for process in family if alive(process)]
        time.sleep(0.02)


def alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False

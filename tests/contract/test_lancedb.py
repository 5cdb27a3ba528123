"""What is special about LanceDB: errors that are only words, versions, tables of others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import lancedb
import pyarrow as pa
import pytest

from vectide import stores
from vectide.core.failures import Failure, Kind
from vectide.ports import (
    APPLIED,
    MISSING,
    AdapterError,
    CollectionSpec,
    Deadline,
    Remove,
    Scannable,
    Searchable,
    StartupRefused,
)
from vectide.stores.lancedb import LanceDbStore
from vectide.stores.lancedb_errors import failure_of
from vectide.testing.points import patch, put, row, stamp, vector

SPEC = CollectionSpec("items", 4, "test/model/4")


@pytest.fixture
def lance(tmp_path: Path, deadline: Deadline) -> Iterator[LanceDbStore]:
    with closing(LanceDbStore(str(tmp_path))) as store:
        store.prepare(SPEC, deadline)
        yield store


def failure(call: Callable[[], object]) -> Failure:
    with pytest.raises(AdapterError) as caught:
        call()
    return caught.value.failure


def test_it_is_loaded_by_kind(tmp_path: Path) -> None:
    with closing(stores.load("lancedb", url=str(tmp_path), api_key=None)) as store:
        assert isinstance(store, Searchable)
        assert isinstance(store, Scannable)


def all_below(base: type[BaseException]) -> Iterator[Any]:
    yield base
    for sub in base.__subclasses__():
        yield from all_below(sub)


OF_ARROW = sorted(set(all_below(pa.ArrowException)), key=lambda cls: cls.__name__)
OF_PYTHON = [
    ValueError,
    TypeError,
    RuntimeError,
    OSError,
    TimeoutError,
    NotImplementedError,
    OverflowError,
    MemoryError,
]


@pytest.mark.parametrize("cls", [*OF_ARROW, *OF_PYTHON], ids=lambda cls: cls.__name__)
def test_every_error_that_it_raises_is_mapped(cls: Any) -> None:
    assert len(OF_ARROW) > 4
    assert failure_of(cls("words")).cause != "unmapped"


@pytest.mark.parametrize(
    ("error", "kind", "cause"),
    [
        (ValueError("Table 'x' was not found"), Kind.OPERATOR, "collection_missing"),
        (RuntimeError("lance error: IO: No space left on device"), Kind.OPERATOR, "disk_full"),
        (OSError("Permission denied (os error 13)"), Kind.OPERATOR, "permission"),
        (OSError("Read-only file system (os error 30)"), Kind.OPERATOR, "read_only"),
        (RuntimeError("Generic S3 error: 403 Forbidden"), Kind.OPERATOR, "permission"),
        (RuntimeError("lance error: Retryable commit conflict for version 4"), Kind.TRANSIENT, "conflict"),
        (RuntimeError("lance error: Too many concurrent writers"), Kind.TRANSIENT, "conflict"),
        (RuntimeError("Query timeout"), Kind.TRANSIENT, "timeout"),
        (RuntimeError("Generic S3 error: connection refused"), Kind.TRANSIENT, "storage"),
        (ValueError("Invalid input, secret"), Kind.REFUSED, "data"),
    ],
)
def test_what_it_says_decides_what_happens(error: Exception, kind: Kind, cause: str) -> None:
    seen = failure_of(error)
    assert (seen.kind, seen.cause) == (kind, cause)
    assert "secret" not in seen.detail


def test_its_cloud_is_refused() -> None:
    with pytest.raises(StartupRefused, match="cloud"):
        LanceDbStore("db://shop")


def test_a_table_of_somebody_else_is_refused(tmp_path: Path, deadline: Deadline) -> None:
    lancedb.connect(tmp_path).create_table("items", schema=pa.schema([pa.field("id", pa.string())]))
    with (
        closing(LanceDbStore(str(tmp_path))) as store,
        pytest.raises(StartupRefused, match="not a collection"),
    ):
        store.prepare(SPEC, deadline)
    assert failure(lambda: store.drop("items", deadline)).cause == "not_ours"


def test_a_dropped_table_is_for_the_operator_and_can_come_back(
    tmp_path: Path, lance: LanceDbStore, deadline: Deadline
) -> None:
    """Case 147."""
    lance.write("items", [put(row(1))], deadline)
    lancedb.connect(tmp_path).drop_table("items")
    for _ in range(2):
        assert failure(lambda: lance.stamps("items", [row(1)], deadline)).cause == "collection_missing"
    lance.prepare(SPEC, deadline)
    assert lance.write("items", [put(row(1))], deadline) == [APPLIED]


def test_writes_of_another_process_are_seen_at_once(
    tmp_path: Path, lance: LanceDbStore, deadline: Deadline
) -> None:
    with closing(LanceDbStore(str(tmp_path))) as other:
        for offset in range(3):
            other.write("items", [put(row(1), offset)], deadline)
            [stamp] = lance.stamps("items", [row(1)], deadline)
            assert stamp is not None
            assert stamp.position.offset == offset


def test_small_pieces_are_put_together_now_and_then(
    tmp_path: Path, lance: LanceDbStore, deadline: Deadline
) -> None:
    for turn in range(55):
        lance.write("items", [put(row(turn), turn)], deadline)
    told: Any = lancedb.connect(tmp_path).open_table("items").stats()
    assert told["fragment_stats"]["num_fragments"] < 20
    assert lance.count("items", deadline) == 55


def test_a_metadata_change_sends_no_vector(tmp_path: Path, lance: LanceDbStore, deadline: Deadline) -> None:
    lance.write("items", [put(row(1), at=vector(0.1, 0.2))], deadline)
    assert lance.write("items", [patch(row(1), 1, metadata={"a": 1})], deadline) == [APPLIED]
    [point], _ = lance.scan("items", None, 9, deadline, vectors=True)
    assert point.vector is not None
    assert point.vector.tolist() == vector(0.1, 0.2).tolist()


def test_filters_are_only_data(lance: LanceDbStore, deadline: Deadline) -> None:
    """Case 53."""
    hostile = "' OR 1=1 --"
    lance.write("items", [put(row(1), metadata={hostile: hostile}), put(row(2))], deadline)
    found = lance.search("items", vector(1.0), 5, deadline, {hostile: hostile})
    assert [hit.row for hit in found] == [row(1)]
    assert lance.search("items", vector(1.0), 5, deadline, {"a": hostile}) == []


# --- late writers ---------------------------------------------------------------------------------------


class Suspended(LanceDbStore):
    """Does something between the read and the change of its next write."""

    meanwhile: Callable[[], object] | None = None

    def _fetch(self, *arguments: Any) -> Any:
        held = super()._fetch(*arguments)
        act, self.meanwhile = self.meanwhile, None
        if act is not None:
            act()
        return held


def test_a_late_put_of_a_row_that_was_deleted_since_does_not_bring_it_back(
    tmp_path: Path, lance: LanceDbStore, deadline: Deadline
) -> None:
    """Invariant 3: the store updates what is there, and nothing else. Its neighbours are written."""
    late = [replace(put(row(i), 5, text="late"), only_if_present=True) for i in (1, 2)]
    lance.write("items", [put(row(1), 1), put(row(2), 1)], deadline)
    with closing(Suspended(str(tmp_path))) as zombie:
        zombie.meanwhile = lambda: lance.write("items", [Remove(row(1), ())], deadline)
        assert zombie.write("items", [*late, put(row(3), 5)], deadline) == [MISSING, APPLIED, APPLIED]
    found = lance.stamps("items", [row(1), row(2), row(3)], deadline)
    assert found == [None, stamp(5, text="late"), stamp(5)]

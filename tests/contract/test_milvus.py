"""What is special about Milvus: its codes and gRPC's, its limits, collections of others. The suite of all
stores runs against it at night only: each collection takes Milvus Lite half a second."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import grpc
import pytest
from pymilvus import DataType, MilvusClient, exceptions

from vectide import stores
from vectide.core.failures import Failure, Kind
from vectide.core.filters import FilterField, FilterType
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
    Write,
)
from vectide.stores.milvus import MilvusStore
from vectide.stores.milvus_errors import failure_of
from vectide.stores.milvus_points import filter_index_of, schema_of
from vectide.testing.milvus_server import MilvusServer
from vectide.testing.points import patch, put, row, stamp, vector

In = Callable[[float], Deadline]


@pytest.fixture
def store(milvus_server: MilvusServer) -> Iterator[MilvusStore]:
    with closing(MilvusStore(milvus_server.url)) as store:
        yield store


@pytest.fixture
def client(milvus_server: MilvusServer) -> Iterator[MilvusClient]:
    """The client of somebody else."""
    with closing(MilvusClient(milvus_server.url)) as client:
        yield client


def failure(call: Callable[[], object]) -> Failure:
    with pytest.raises(AdapterError) as caught:
        call()
    return caught.value.failure


# --- errors ---------------------------------------------------------------------------------------------


class OfGrpc(grpc.RpcError):  # type: ignore[misc]
    """What a call over gRPC raises."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        self.code = lambda: code
        self.details = lambda: details


RAISED = [
    cls
    for _, cls in inspect.getmembers(exceptions, inspect.isclass)
    if issubclass(cls, exceptions.MilvusException)
]


@pytest.mark.parametrize("cls", RAISED, ids=lambda cls: cls.__name__)
def test_every_error_of_the_client_is_mapped(cls: Any) -> None:
    assert len(RAISED) > 20
    assert failure_of(cls(message="words")).cause != "unmapped"


@pytest.mark.parametrize("code", list(grpc.StatusCode), ids=str)
def test_every_status_of_grpc_is_mapped(code: grpc.StatusCode) -> None:
    by_call, by_retries = (
        failure_of(OfGrpc(code, "words")),
        failure_of(exceptions.MilvusException(code, "words")),
    )
    assert by_call.cause != "unmapped"
    assert (by_call.kind, by_call.cause) == (by_retries.kind, by_retries.cause)


@pytest.mark.parametrize(
    ("code", "words", "kind", "cause"),
    [
        (1, "service not ready", Kind.TRANSIENT, "server_error"),
        (2, "Fail connecting to server", Kind.TRANSIENT, "connection"),
        (8, "rate limit exceeded", Kind.THROTTLED, "throttled"),
        (9, "force deny", Kind.OPERATOR, "quota"),
        (100, "collection not found", Kind.OPERATOR, "collection_missing"),
        (101, "collection not loaded", Kind.TRANSIENT, "not_loaded"),
        (1100, "secret", Kind.REFUSED, "data"),
        (65535, "auth check failure, please check api key", Kind.OPERATOR, "credentials"),
        (9, "disk quota exceeded", Kind.OPERATOR, "disk_full"),
        (4711, "a code of the future", Kind.TRANSIENT, "server_error"),
    ],
)
def test_what_the_server_says_decides_what_happens(code: int, words: str, kind: Kind, cause: str) -> None:
    seen = failure_of(exceptions.MilvusException(code, words))
    assert (seen.kind, seen.cause) == (kind, cause)
    assert (words in seen.detail) == (kind is not Kind.REFUSED)


def test_the_server_knows_what_is_the_callers_fault() -> None:
    assert failure_of(exceptions.MilvusException(4711, "x", is_input_error=True)).kind is Kind.REFUSED


def test_a_message_that_is_too_large_is_split() -> None:
    error = OfGrpc(grpc.StatusCode.RESOURCE_EXHAUSTED, "Sent message larger than max (1 vs. 2)")
    assert failure_of(error).kind is Kind.TOO_LARGE


def test_an_unreachable_server_is_waited_for(deadline_in: In) -> None:
    with closing(MilvusStore("http://127.0.0.1:1", api_key="root:hunter2")) as store:
        seen = failure(lambda: store.prepare(CollectionSpec("nowhere", 4, "s"), deadline_in(1)))
    assert (seen.kind, seen.cause) == (Kind.TRANSIENT, "connection")
    assert "hunter2" not in seen.detail


def test_settings_that_are_no_good_are_refused() -> None:
    with pytest.raises(StartupRefused, match="http"):
        stores.load("milvus", url="milvus:19530")


# --- collections and points -----------------------------------------------------------------------------


def test_points_are_written_patched_found_and_removed(
    store: MilvusStore, client: MilvusClient, deadline: Deadline
) -> None:
    """The rest of the promises is for the night."""
    assert isinstance(store, Searchable)
    assert isinstance(store, Scannable)
    store.prepare(CollectionSpec("everyday", 4, "test/model/4"), deadline)
    with pytest.raises(StartupRefused, match=r"4.*8"):
        store.prepare(CollectionSpec("everyday", 8, "test/model/4"), deadline)
    metadata = {"color": "red", "many": ["a"], "nested": {"x": [None]}, "n": 2**60}
    writes = [put(row(i), i, metadata={**metadata, "i": i}, at=vector(1.0, i)) for i in range(20)]
    assert store.write("everyday", writes, deadline) == [APPLIED] * 20
    changes: list[Write] = [
        patch(row(1), 30, metadata={"color": "blue"}),
        patch(row("none"), 30),
        Remove(row(2), ()),
    ]
    assert store.write("everyday", changes, deadline) == [APPLIED, MISSING, APPLIED]
    assert store.stamps("everyday", [row(1), row(2)], deadline) == [stamp(30), None]
    found = store.search("everyday", vector(1.0), 3, deadline, {**metadata, "i": 4})
    assert [(hit.row, hit.metadata) for hit in found] == [(row(4), {**metadata, "i": 4})]
    assert [hit.row for hit in store.search("everyday", vector(1.0), 3, deadline, {})] == [
        row(0),
        row(1),
        row(3),
    ]
    page, cursor = store.scan("everyday", None, 100, deadline, vectors=True)
    assert (len(page), cursor, store.count("everyday", deadline)) == (19, None, 19)
    kept = next(point.vector for point in page if point.row == row(1))
    assert kept is not None
    assert kept.tolist() == vector(1.0, 1.0).tolist()
    assert client.query("everyday", filter='metadata["color"] == "blue"', output_fields=["id"])


def test_a_collection_of_somebody_else_is_refused(
    store: MilvusStore, client: MilvusClient, deadline: Deadline
) -> None:
    schema = client.create_schema()
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=4)
    client.create_collection("theirs", schema=schema)
    with pytest.raises(StartupRefused, match="not one of this service"):
        store.prepare(CollectionSpec("theirs", 4, "s"), deadline)
    assert failure(lambda: store.drop("theirs", deadline)).cause == "not_ours"
    assert failure(lambda: store.swap("alias", "theirs", deadline)).cause == "collection_missing"
    store.prepare(CollectionSpec("ours", 4, "s"), deadline)
    assert failure(lambda: store.swap("theirs", "ours", deadline)).cause == "name_taken"
    assert failure(lambda: store.swap("not-good", "ours", deadline)).cause == "name"
    client.drop_collection("theirs")


def test_half_of_a_collection_can_be_dropped(
    store: MilvusStore, client: MilvusClient, deadline: Deadline
) -> None:
    """Its note is left where a process ended in between."""
    store.prepare(CollectionSpec("half", 4, "s"), deadline)
    client.drop_collection("half")
    store.drop("half", deadline)
    store.prepare(CollectionSpec("half", 8, "another"), deadline)
    store.drop("half", deadline)


def test_a_text_that_is_too_long_is_refused_with_its_size(store: MilvusStore, deadline: Deadline) -> None:
    store.prepare(CollectionSpec("texts", 4, "s"), deadline)
    fits, too_long = put(row(1), text="ü" * 32_767), put(row(2), text="ü" * 32_768)
    assert store.write("texts", [fits], deadline) == [APPLIED]
    seen = failure(lambda: store.write("texts", [fits, too_long], deadline))
    assert (seen.kind, seen.cause) == (Kind.REFUSED, "text_too_long")
    assert "65536" in seen.detail


def test_the_clients_own_log_shows_nothing(
    store: MilvusStore,
    deadline: Deadline,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Invariant 13."""
    with caplog.at_level(logging.DEBUG):
        failure(lambda: store.stamps("hunter2", [row(1)], deadline))
        failure(lambda: store.count("hunter2", deadline))
    assert "hunter2" not in caplog.text
    assert "hunter2" not in "".join(capfd.readouterr())


def test_an_index_of_metadata_is_cast_to_what_is_declared() -> None:
    """As the server's documentation has it; Milvus Lite has no such indexes."""
    index = filter_index_of(FilterField('a "b"', FilterType.INTEGER))
    assert index["params"] == {"json_path": r'metadata["a \"b\""]', "json_cast_type": "DOUBLE"}
    assert (index["field_name"], index["index_type"]) == ("metadata", "INVERTED")
    names = {filter_index_of(FilterField("a", kind))["index_name"] for kind in FilterType}
    assert len(names) == 3  # texts and times, integers and numbers are indexed in one way


def test_the_partitions_of_a_collection_are_those_that_it_was_made_with(
    store: MilvusStore, client: MilvusClient, deadline: Deadline
) -> None:
    plain = CollectionSpec("plain", 4, "s")
    tenant = FilterField("org", FilterType.TEXT, tenant=True)
    shared = CollectionSpec("shared", 4, "s", filters=(tenant,))
    store.prepare(plain, deadline)
    store.prepare(shared, deadline)
    [key] = [
        field for field in client.describe_collection("shared")["fields"] if field.get("is_partition_key")
    ]
    assert key["name"] == "tenant"
    refused = {"plain": (tenant,), "shared": ()}
    for name, filters in refused.items():
        with pytest.raises(StartupRefused, match=f"'{name}' has tenant .*org.* use another collection"):
            store.prepare(CollectionSpec(name, 4, "s", filters=filters), deadline)


def test_a_named_vector_is_written_and_the_others_stay(
    store: MilvusStore, client: MilvusClient, deadline: Deadline
) -> None:
    """Somebody added a vector to the points."""
    spec = CollectionSpec("several", 4, "s", vector="title")
    store.prepare(spec, deadline)
    client.drop_collection("several")
    schema = schema_of(4, "title")
    schema.add_field("image", DataType.FLOAT_VECTOR, dim=2, nullable=True)
    indexes = MilvusClient.prepare_index_params()
    for field in ("title", "image"):
        indexes.add_index(field, index_type="AUTOINDEX", metric_type="COSINE")
    client.create_collection("several", schema=schema, index_params=indexes)
    store.prepare(spec, deadline)
    store.write("several", [put(row(1), 1)], deadline)
    client.upsert("several", [{"id": row(1).head_id, "image": [0.0, 1.0]}], partial_update=True)
    for write in (put(row(1), 2, at=vector(0, 1.0)), patch(row(1), 3, metadata={"a": 1})):
        assert store.write("several", [write], deadline) == [APPLIED]
    [found] = client.query("several", filter="", limit=9, output_fields=["image", "title"])
    assert (found["image"], found["title"]) == ([0.0, 1.0], [0.0, 1.0, 0.0, 0.0])
    [hit] = store.search("several", vector(0, 1.0), 5, deadline, {"a": 1})
    assert hit.score == pytest.approx(1.0)


def test_a_vector_needs_a_name_that_is_free_and_stays(store: MilvusStore, deadline: Deadline) -> None:
    for name in ("text", "tenant", "no name"):
        with pytest.raises(StartupRefused, match=f"cannot be named '{name}'"):
            store.prepare(CollectionSpec("some", 4, "s", vector=name), deadline)
    store.prepare(CollectionSpec("some", 4, "s", vector="title"), deadline)
    with pytest.raises(StartupRefused, match="has vector title, but vector is configured"):
        store.prepare(CollectionSpec("some", 4, "s"), deadline)

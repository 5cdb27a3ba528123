"""What is special about Pinecone: its client's errors, what is seen late, limits, two kinds of index."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace

import pytest
from pinecone import Pinecone

from vectide import stores
from vectide.core.failures import Failure, Kind
from vectide.ports import (
    APPLIED,
    MISSING,
    SUPERSEDED,
    AdapterError,
    CollectionSpec,
    Deadline,
    Remove,
    StartupRefused,
    Write,
)
from vectide.stores.pinecone import PineconeStore
from vectide.stores.pinecone_collections import read_error
from vectide.testing.pinecone_server import PineconeServer, Refused
from vectide.testing.points import patch, put, put_chunk, row, stamp, vector

SPEC = CollectionSpec("items", 4, "test/model/4")
In = Callable[[float], Deadline]


@pytest.fixture(params=[False, True], ids=["documents", "vectors"])
def server(request: pytest.FixtureRequest) -> Iterator[PineconeServer]:
    """Both kinds of index, each seen late."""
    with PineconeServer(seed=7, for_vectors=request.param) as server:
        yield server


@pytest.fixture
def pinecone(server: PineconeServer, deadline: Deadline) -> Iterator[PineconeStore]:
    with closing(PineconeStore(server.api_key, url=server.url)) as store:
        store.prepare(SPEC, deadline)
        yield store


def failure(call: Callable[[], object]) -> Failure:
    with pytest.raises(AdapterError) as caught:
        call()
    return caught.value.failure


# --- errors ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind", "cause"),
    [
        (400, Kind.REFUSED, "data"),
        (401, Kind.OPERATOR, "credentials"),
        (402, Kind.OPERATOR, "quota"),
        (403, Kind.OPERATOR, "permission"),
        (404, Kind.OPERATOR, "collection_missing"),
        (409, Kind.TRANSIENT, "conflict"),
        (412, Kind.OPERATOR, "precondition"),
        (413, Kind.TOO_LARGE, "too_large"),
        (422, Kind.REFUSED, "data"),
        (429, Kind.THROTTLED, "throttled"),
        (500, Kind.TRANSIENT, "server_error"),
        (503, Kind.TRANSIENT, "server_error"),
        (418, Kind.OPERATOR, "not_pinecone"),
    ],
)
def test_what_the_server_says_decides_what_happens_and_is_not_asked_twice(
    server: PineconeServer, pinecone: PineconeStore, deadline: Deadline, status: int, kind: Kind, cause: str
) -> None:
    server.failing = [Refused(status, "words", {"Retry-After": "7"})]
    before = len(server.requests)
    seen = failure(lambda: pinecone.stamps("items", [row(1)], deadline))
    assert len(server.requests) == before + 1
    assert (seen.kind, seen.cause) == (kind, cause)
    assert seen.retry_after_s == 7.0
    assert str(status) in seen.detail
    assert ("words" in seen.detail) == (kind is not Kind.REFUSED)


def test_both_planes_say_what_went_wrong_in_their_own_shapes() -> None:
    assert read_error({"error": {"code": "NOT_FOUND", "message": "words"}, "status": 404}).words == "words"
    assert read_error({"code": 3, "message": "words", "details": []}).words == "words"


def test_a_wrong_key_is_refused_at_start_and_halts_later(server: PineconeServer, deadline: Deadline) -> None:
    """Case 153."""
    with closing(PineconeStore("hunter2", url=server.url)) as store:
        with pytest.raises(StartupRefused, match="401") as caught:
            store.prepare(SPEC, deadline)
        assert failure(lambda: store.stamps("items", [], deadline)).cause == "credentials"
    assert "hunter2" not in str(caught.value)


def test_an_unreachable_server_is_waited_for(deadline_in: In) -> None:
    with closing(PineconeStore("key", url="http://127.0.0.1:1")) as store:
        seen = failure(lambda: store.prepare(SPEC, deadline_in(5)))
    assert (seen.kind, seen.cause) == (Kind.TRANSIENT, "connection")


def test_settings_that_are_no_good_are_refused() -> None:
    with pytest.raises(StartupRefused, match="http"):
        stores.load("pinecone", api_key="k", url="pinecone.io")
    with pytest.raises(StartupRefused, match="api_key"):
        stores.load("pinecone")
    with pytest.raises(StartupRefused, match="cannot read"):
        stores.load("pinecone", api_key="k", ca_file="/no/such/file.pem")


# --- what is seen late ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("for_vectors", [False, True], ids=["documents", "vectors"])
def test_a_write_counts_once_a_look_up_shows_it(deadline: Deadline, seed: int, for_vectors: bool) -> None:
    """However late that is: what is decided next is decided from it."""
    keep = frozenset({"kept"})
    with (
        PineconeServer(seed=seed, for_vectors=for_vectors) as server,
        closing(PineconeStore(server.api_key, url=server.url)) as store,
    ):
        store.prepare(SPEC, deadline)
        steps: list[list[Write]] = [
            [put(row(1), 1, metadata={"kept": "a", "goes": 1}), put_chunk(row(1), 1), put(row(2), 1)],
            [patch(row(1), 2, metadata={"kept": "?"}, keep=keep), patch(row(2), 2, metadata={"n": 1})],
            [Remove(row(2), ()), patch(row(1), 3, metadata={"new": True}, keep=keep)],
        ]
        for step in steps:
            assert store.write("items", step, deadline) == [APPLIED] * len(step)
        assert store.stamps("items", [row(1), row(2)], deadline) == [stamp(3), None]
        assert store.write("items", [patch(row(1), 2), patch(row(2), 9)], deadline) == [SUPERSEDED, MISSING]
        [found] = store.stamps("items", [row(1)], deadline, values=True)
        assert found is not None
        assert found.metadata == {"kept": "a", "new": True}
        assert store.count("items", deadline) == 2


def test_a_write_that_is_not_seen_in_time_does_not_count(
    server: PineconeServer, pinecone: PineconeStore, deadline: Deadline, deadline_in: In
) -> None:
    """Invariant 2. It may be there nevertheless, and is written again."""
    server.blind = True
    seen = failure(lambda: pinecone.write("items", [put(row(1), 1)], deadline_in(0.5)))
    assert (seen.kind, seen.cause) == (Kind.TRANSIENT, "not_visible")
    assert len(server.records("items")) == 1
    server.blind = False
    assert pinecone.write("items", [put(row(1), 1)], deadline) == [APPLIED]


def test_what_nobody_sees_yet_is_removed_all_the_same(
    server: PineconeServer, pinecone: PineconeStore, deadline: Deadline, deadline_in: In
) -> None:
    """Invariant 3. Whoever wrote it has gone before it could be seen."""
    server.blind = True
    assert failure(lambda: pinecone.write("items", [put(row(1), 1)], deadline_in(0.5))).cause == "not_visible"
    assert pinecone.write("items", [Remove(row(1), (row(1).head_id,))], deadline) == [APPLIED]
    server.blind = False
    assert server.records("items") == {}


def test_a_change_of_a_document_that_goes_meanwhile_makes_none_and_is_not_waited_for(
    deadline: Deadline,
) -> None:
    """Invariant 3. An index for vectors cannot promise that, and says so."""
    with PineconeServer() as server, closing(PineconeStore(server.api_key, url=server.url)) as store:
        store.prepare(SPEC, deadline)
        store.write("items", [put(row(i), 1, metadata={"old": 1}) for i in range(4)], deadline)
        again = replace(put(row(0), 2, text="new", at=vector(0, 1.0)), only_if_present=True)
        late: list[Write] = [replace(put(row(2), 2), only_if_present=True), patch(row(3), 2)]
        server.losing = [("items", row(i).head_id) for i in (2, 3)]
        outcomes = store.write("items", [again, patch(row(1), 2), *late], deadline)
        assert outcomes == [APPLIED, APPLIED, MISSING, MISSING]
        page, _ = store.scan("items", None, 10, deadline)
        assert {point.row: (point.text, point.metadata) for point in page} == {
            row(0): ("new", {}),
            row(1): ("text", {}),
        }
        assert store.capabilities.update_only
        server.make("vectors", 4)
        store.prepare(replace(SPEC, name="vectors"), deadline)
        assert not store.capabilities.update_only


# --- limits ---------------------------------------------------------------------------------------------


def test_large_writes_go_in_requests_of_two_megabytes(
    server: PineconeServer, pinecone: PineconeStore, deadline: Deadline
) -> None:
    writes = [put(row(i), 1, text="ü" * 9_000) for i in range(120)]
    assert pinecone.write("items", writes, deadline) == [APPLIED] * 120
    patches = [patch(row(i), 2, text="ü" * 9_000, metadata={"long": "x" * 9_000}) for i in range(120)]
    assert pinecone.write("items", patches, deadline) == [APPLIED] * 120
    upserts = sum(request.endswith(("/upsert", "/update")) for request in server.requests)
    assert upserts >= 4


def test_more_than_a_record_holds_is_refused_with_its_size(
    pinecone: PineconeStore, deadline: Deadline
) -> None:
    fits, too_large = put(row(1), text="x" * 40_000), put(row(2), text="x" * 41_000)
    assert pinecone.write("items", [fits], deadline) == [APPLIED]
    seen = failure(lambda: pinecone.write("items", [too_large], deadline))
    assert (seen.kind, seen.cause) == (Kind.REFUSED, "metadata_too_large")
    assert "41" in seen.detail


@pytest.mark.parametrize("name", ["", "$set", "_id", "_score", "vectide_row"])
def test_a_name_that_pinecone_does_not_keep_is_refused_and_named(
    pinecone: PineconeStore, deadline: Deadline, name: str
) -> None:
    seen = failure(lambda: pinecone.write("items", [put(row(1), metadata={name: "secret"})], deadline))
    assert (seen.kind, seen.cause) == (Kind.REFUSED, "metadata_name")
    assert repr(name) in seen.detail
    assert "secret" not in seen.detail


def test_the_name_of_the_vector_is_no_name_of_metadata(deadline: Deadline) -> None:
    with PineconeServer() as server, closing(PineconeStore(server.api_key, url=server.url)) as store:
        server.make("items", 4, vector="mine")
        store.prepare(SPEC, deadline)
        seen = failure(lambda: store.write("items", [put(row(1), metadata={"mine": 1})], deadline))
        assert seen.cause == "metadata_name"
        assert store.write("items", [put(row(1), metadata={"vector": 1})], deadline) == [APPLIED]


# --- indexes --------------------------------------------------------------------------------------------


def test_an_index_that_is_there_is_taken_and_marked(server: PineconeServer, deadline: Deadline) -> None:
    """Case 148."""
    server.make("theirs", 4, vector="_values")
    with closing(PineconeStore(server.api_key, url=server.url)) as store:
        with pytest.raises(StartupRefused, match=r"4.*8"):
            store.prepare(CollectionSpec("theirs", 8, "s"), deadline)
        with pytest.raises(StartupRefused, match=r"cosine.*l2"):
            store.prepare(CollectionSpec("theirs", 4, "s", "l2"), deadline)
        assert not store.verify(CollectionSpec("theirs", 4, "s"), deadline)
        store.prepare(CollectionSpec("theirs", 4, "s"), deadline)
        assert store.verify(CollectionSpec("theirs", 4, "s"), deadline)
        with pytest.raises(StartupRefused, match=r"'?s'?.*other"):
            store.prepare(CollectionSpec("theirs", 4, "other"), deadline)
        assert store.write("theirs", [put(row(1))], deadline) == [APPLIED]


def test_an_index_of_somebody_else_is_not_dropped(server: PineconeServer, deadline: Deadline) -> None:
    """Without a mark, or with a namespace that is not ours."""
    server.make("theirs", 4)
    with closing(PineconeStore(server.api_key, url=server.url)) as store:
        assert failure(lambda: store.drop("theirs", deadline)).cause == "not_ours"
        store.prepare(SPEC, deadline)
        server.namespaces[SPEC.name] = {"theirs": 1}
        assert failure(lambda: store.drop(SPEC.name, deadline)).cause == "not_ours"
        server.namespaces[SPEC.name] = {"theirs": 0}
        store.drop(SPEC.name, deadline)
        assert failure(lambda: store.stamps(SPEC.name, [row(1)], deadline)).cause == "collection_missing"


def test_dropping_an_index_that_takes_too_long_to_end_is_not_done(
    server: PineconeServer, deadline_in: In
) -> None:
    with closing(PineconeStore(server.api_key, url=server.url)) as store:
        store.prepare(SPEC, deadline_in(30))
        server.lingering = 1000
        assert failure(lambda: store.drop(SPEC.name, deadline_in(0.3))).cause in ("index_ending", "timeout")


def test_records_of_others_are_left_alone(server: PineconeServer, deadline: Deadline) -> None:
    with closing(PineconeStore(server.api_key, url=server.url)) as store:
        store.prepare(SPEC, deadline)
        store.write("items", [put(row(1)), put(row(2))], deadline)
        server.forget("items", row(1).head_id)
        assert [point.row for point in store.scan("items", None, 10, deadline)[0]] == [row(2)]
        found = store.search("items", vector(1.0), 5, deadline, {})
        assert [hit.row for hit in found] == [row(2)]
        assert store.stamps("items", [row(1)], deadline) == [None]


def test_spaces_of_any_length_and_letters_are_told_apart(pinecone: PineconeStore, deadline: Deadline) -> None:
    long = "models/" + "é" * 200
    pinecone.prepare(CollectionSpec("long", 4, long), deadline)
    pinecone.prepare(CollectionSpec("long", 4, long), deadline)
    with pytest.raises(StartupRefused, match="space"):
        pinecone.prepare(CollectionSpec("long", 4, long + "é"), deadline)


def test_an_index_that_is_gone_is_for_the_operator(
    server: PineconeServer, pinecone: PineconeStore, deadline: Deadline
) -> None:
    """Case 147."""
    server.drop("items")
    assert failure(lambda: pinecone.write("items", [put(row(1))], deadline)).cause == "collection_missing"


def test_a_change_of_metadata_sends_a_vector_only_to_an_index_for_vectors(
    server: PineconeServer, pinecone: PineconeStore, deadline: Deadline, request: pytest.FixtureRequest
) -> None:
    pinecone.write("items", [put(row(1), 1, metadata={"a": 1, "b": 2}, at=vector(0.1, 0.2))], deadline)
    before = len(server.requests)
    pinecone.write("items", [patch(row(1), 2, metadata={"a": 3})], deadline)
    verbs = {asked.rpartition("/")[2] for asked in server.requests[before:]}
    assert verbs == ({"fetch", "upsert"} if "vectors" in request.node.callspec.id else {"fetch", "update"})
    [point] = pinecone.scan("items", None, 10, deadline, vectors=True)[0]
    assert point.metadata == {"a": 3}
    assert point.vector is not None
    assert point.vector.tolist() == vector(0.1, 0.2).tolist()


# --- Pinecone's own client ------------------------------------------------------------------------------


def test_pinecones_own_client_reads_an_index_for_documents(deadline: Deadline) -> None:
    """What it sends and reads is what the real service speaks."""
    with (
        PineconeServer() as server,
        closing(PineconeStore(server.api_key, url=server.url)) as store,
        closing(Pinecone(server.api_key, host=server.url)) as client,
    ):
        store.prepare(SPEC, deadline)
        writes = [put(row(i), i, text="words", metadata={"n": i}, at=vector(1.0, i)) for i in range(3)]
        store.write("items", writes, deadline)
        assert client.indexes.describe("items").tags == {"vectide_space": SPEC.space}
        with closing(client.index("items")) as index:
            documents = index.documents
            by = {"type": "dense_vector", "field": "vector", "values": [1.0, 0.0, 0.0, 0.0]}
            found = documents.search(
                namespace="__default__",
                score_by=[by],
                top_k=2,
                include_fields=["n", "vectide_text"],
                filter={"n": {"$in": [0, 2]}},
            )
            assert [(one.id, one.n, one.vectide_text) for one in found.matches] == [
                (row(0).head_id, 0, "words"),
                (row(2).head_id, 2, "words"),
            ]
            listed = documents.list(namespace="__default__", limit=2)
            assert [one.id for one in listed] == sorted(row(i).head_id for i in range(3))
            patch = {"_id": row(1).head_id, "n": 9, "_remove_fields": ["vectide_text"]}
            new = {"_id": row(0).head_id, "vector": [0.0, 0.0, 1.0, 0.0]}
            nobody = {"_id": "nobody", "vector": [0.0, 0.0, 1.0, 0.0]}
            documents.update(namespace="__default__", documents=[patch, new, nobody])
            documents.delete(namespace="__default__", ids=[row(2).head_id])
        page, _ = store.scan("items", None, 10, deadline, vectors=True)
        assert {point.row: (point.text, point.metadata) for point in page} == {
            row(0): ("words", {"n": 0}),
            row(1): (None, {"n": 9}),
        }
        vectors = {point.row: None if point.vector is None else point.vector.tolist() for point in page}
        assert vectors == {row(0): [0, 0, 1, 0], row(1): [1, 1, 0, 0]}


def test_pinecones_own_client_reads_an_index_for_vectors(deadline: Deadline) -> None:
    with (
        PineconeServer(for_vectors=True) as server,
        closing(PineconeStore(server.api_key, url=server.url)) as store,
        closing(Pinecone(server.api_key, host=server.url)) as client,
    ):
        store.prepare(SPEC, deadline)
        writes = [put(row(i), i, metadata={"n": i}, at=vector(1.0, i)) for i in range(3)]
        store.write("items", writes, deadline)
        with closing(client.index("items")) as index:
            found = index.query(
                vector=[1.0, 0, 0, 0], top_k=1, filter={"n": {"$eq": 2}}, include_metadata=True
            )
            assert [(one.id, (one.metadata or {})["n"]) for one in found.matches] == [(row(2).head_id, 2)]
            fetched = index.fetch(ids=[row(1).head_id]).vectors[row(1).head_id]
            assert list(fetched.values) == [1.0, 1.0, 0.0, 0.0]
            by_metadata = index.fetch_by_metadata(filter={"vectide_row": {"$eq": row(0).head_id}})
            assert set(by_metadata.vectors) == {row(0).head_id}
            assert [one.id for one in index.list_paginated(limit=2).vectors] == sorted(
                row(i).head_id for i in range(3)
            )[:2]
            assert index.describe_index_stats().total_vector_count == 3
            index.upsert(vectors=[{"id": "theirs", "values": [0.1] * 4, "metadata": {"a": ["b"]}}])
            index.delete(ids=[row(2).head_id])
        page, _ = store.scan("items", None, 10, deadline)
        assert {point.row for point in page} == {row(0), row(1)}

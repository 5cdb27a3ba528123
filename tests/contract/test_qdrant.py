"""What is special about Qdrant: its statuses, named vectors, and writers that come late."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest
from qdrant_client import QdrantClient, models
from qdrant_client.common import client_exceptions
from qdrant_client.http import exceptions

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
)
from vectide.stores.qdrant import QdrantStore
from vectide.stores.qdrant_errors import failure_of
from vectide.testing.points import mark, patch, put, row, stamp, vector
from vectide.testing.qdrant_server import QdrantServer

SPEC = CollectionSpec("items", 4, "test/model/4")
In = Callable[[float], Deadline]


@pytest.fixture
def server() -> Iterator[QdrantServer]:
    with QdrantServer() as server:
        yield server


@pytest.fixture
def qdrant(server: QdrantServer, deadline: Deadline) -> Iterator[QdrantStore]:
    with closing(QdrantStore(server.url)) as store:
        store.prepare(SPEC, deadline)
        yield store


@pytest.fixture
def client(server: QdrantServer) -> Iterator[QdrantClient]:
    """The client of somebody else."""
    with closing(QdrantClient(url=server.url, check_compatibility=False)) as client:
        yield client


def failure(call: Callable[[], object]) -> Failure:
    with pytest.raises(AdapterError) as caught:
        call()
    return caught.value.failure


def test_it_is_loaded_by_kind(server: QdrantServer) -> None:
    with closing(stores.load("qdrant", url=server.url, api_key=None)) as store:
        assert isinstance(store, Searchable)
        assert isinstance(store, Scannable)


# --- errors ---------------------------------------------------------------------------------------------


def all_below(base: type[BaseException]) -> Iterator[type[BaseException]]:
    for sub in base.__subclasses__():
        yield sub
        yield from all_below(sub)


def made(cls: Any) -> BaseException:
    if cls is exceptions.UnexpectedResponse:
        return exceptions.UnexpectedResponse(500, "", b"", httpx.Headers())
    if cls is exceptions.ResponseHandlingException:
        return exceptions.ResponseHandlingException(ValueError())
    if cls is client_exceptions.ResourceExhaustedResponse:
        return client_exceptions.ResourceExhaustedResponse("", 3)
    return cls("")  # type: ignore[no-any-return]


OF_THE_CLIENT = [*all_below(exceptions.ApiException), *all_below(client_exceptions.QdrantException)]
OF_THE_TRANSPORT = [
    httpx.InvalidURL,
    *all_below(httpx.TransportError),
    httpx.TooManyRedirects,
    httpx.DecodingError,
]


@pytest.mark.parametrize("cls", OF_THE_CLIENT, ids=lambda cls: cls.__name__)
def test_every_error_of_the_client_is_mapped(cls: type[BaseException]) -> None:
    assert len(OF_THE_CLIENT) >= 3
    assert failure_of(made(cls)).cause != "unmapped"


@pytest.mark.parametrize("cls", OF_THE_TRANSPORT, ids=lambda cls: cls.__name__)
def test_every_error_of_the_transport_is_mapped(cls: Any) -> None:
    assert failure_of(exceptions.ResponseHandlingException(cls("words"))).cause != "unmapped"


@pytest.mark.parametrize(
    ("status", "kind", "cause"),
    [
        (400, Kind.REFUSED, "data"),
        (401, Kind.OPERATOR, "credentials"),
        (403, Kind.OPERATOR, "permission"),
        (404, Kind.OPERATOR, "collection_missing"),
        (405, Kind.OPERATOR, "not_qdrant"),
        (301, Kind.OPERATOR, "not_qdrant"),
        (408, Kind.TRANSIENT, "timeout"),
        (413, Kind.TOO_LARGE, "too_large"),
        (422, Kind.REFUSED, "data"),
        (429, Kind.THROTTLED, "throttled"),
        (500, Kind.TRANSIENT, "server_error"),
        (502, Kind.TRANSIENT, "server_error"),
        (503, Kind.TRANSIENT, "server_error"),
        (507, Kind.OPERATOR, "disk_full"),
    ],
)
def test_what_the_server_says_decides_what_happens(
    server: QdrantServer, qdrant: QdrantStore, deadline: Deadline, status: int, kind: Kind, cause: str
) -> None:
    server.fail(status)
    seen = failure(lambda: qdrant.write("items", [put(row(1))], deadline))
    assert (seen.kind, seen.cause) == (kind, cause)
    assert str(status) in seen.detail or kind is Kind.THROTTLED
    assert qdrant.write("items", [put(row(1))], deadline) == [APPLIED]


def test_the_server_says_how_long_to_wait(
    server: QdrantServer, qdrant: QdrantStore, deadline: Deadline
) -> None:
    server.fail(429, headers={"Retry-After": "7"})
    seen = failure(lambda: qdrant.stamps("items", [row(1)], deadline))
    assert (seen.kind, seen.retry_after_s) == (Kind.THROTTLED, 7.0)


def test_a_full_disk_needs_an_operator(server: QdrantServer, qdrant: QdrantStore, deadline: Deadline) -> None:
    server.fail(500, body=b'{"status":{"error":"Service internal error: No space left on device"}}')
    assert failure(lambda: qdrant.stamps("items", [row(1)], deadline)).cause == "disk_full"


def test_an_answer_that_is_not_qdrants_is_waited_for(
    server: QdrantServer, qdrant: QdrantStore, deadline: Deadline
) -> None:
    server.fail(200, body=b"<html>please log in</html>")
    seen = failure(lambda: qdrant.stamps("items", [row(1)], deadline))
    assert (seen.kind, seen.cause) == (Kind.TRANSIENT, "answer")


@pytest.mark.parametrize("status", ["wait_timeout", "acknowledged"])
def test_an_update_that_is_not_completed_is_not_confirmed(
    server: QdrantServer, qdrant: QdrantStore, deadline: Deadline, status: str
) -> None:
    """Invariant 2."""
    server.update_status = status
    seen = failure(lambda: qdrant.write("items", [put(row(1))], deadline))
    assert (seen.kind, seen.cause, seen.detail) == (Kind.TRANSIENT, "unconfirmed", status)


def test_a_write_whose_answer_was_lost_can_be_sent_again(
    server: QdrantServer, qdrant: QdrantStore, deadline: Deadline
) -> None:
    """Case 145."""
    server.fail(504, applied=True)
    failure(lambda: qdrant.write("items", [put(row(1), 5)], deadline))
    assert qdrant.write("items", [put(row(1), 5)], deadline) == [APPLIED]
    assert qdrant.stamps("items", [row(1)], deadline) == [stamp(5)]


def test_an_unreachable_server_is_waited_for(deadline_in: In) -> None:
    with closing(QdrantStore("http://127.0.0.1:1", api_key="hunter2")) as store:
        seen = failure(lambda: store.prepare(SPEC, deadline_in(5)))
    assert (seen.kind, seen.cause) == (Kind.TRANSIENT, "connection")
    assert "hunter2" not in seen.detail


def test_a_server_that_does_not_answer_is_given_up_at_the_deadline(
    qdrant: QdrantStore, server: QdrantServer, deadline_in: In
) -> None:
    held = threading.Event()
    answer = server.answer
    server.answer = lambda *of: (held.wait(20), answer(*of))[1]  # type: ignore[method-assign]
    try:
        seen = failure(lambda: qdrant.stamps("items", [row(1)], deadline_in(0.5)))
    finally:
        held.set()
    assert (seen.kind, seen.cause) == (Kind.TRANSIENT, "timeout")


def test_a_wrong_api_key_is_refused_at_start_and_halts_later(deadline: Deadline) -> None:
    """Case 153."""
    with QdrantServer(api_key="right") as server:
        with closing(QdrantStore(server.url, api_key="wrong")) as store:
            with pytest.raises(StartupRefused, match="401"):
                store.prepare(SPEC, deadline)
            assert failure(lambda: store.stamps("items", [], deadline)).cause == "credentials"
        with closing(QdrantStore(server.url, api_key="right")) as store:
            store.prepare(SPEC, deadline)


def test_settings_that_are_no_good_are_refused() -> None:
    with pytest.raises(StartupRefused, match="ca"):
        QdrantStore("https://127.0.0.1:1", ca_file="/no/such/file.pem")
    with pytest.raises(StartupRefused):
        QdrantStore("http://host:notaport")


def test_another_service_at_the_url_is_refused_at_start(server: QdrantServer, deadline: Deadline) -> None:
    with (
        closing(QdrantStore(f"{server.url}/elsewhere")) as store,
        pytest.raises(StartupRefused, match="Qdrant"),
    ):
        store.prepare(SPEC, deadline)


def test_a_dropped_collection_is_for_the_operator_and_can_come_back(
    server: QdrantServer, qdrant: QdrantStore, deadline: Deadline
) -> None:
    """Case 147."""
    server.drop("items")
    assert failure(lambda: qdrant.stamps("items", [row(1)], deadline)).cause == "collection_missing"
    qdrant.prepare(SPEC, deadline)
    assert qdrant.stamps("items", [row(1)], deadline) == [None]


# --- late writers ---------------------------------------------------------------------------------------


class Between:
    """Does something between the read and the change of a write."""

    def __init__(self, server: QdrantServer, act: Callable[[], object]) -> None:
        self._answer = server.answer
        self._act: Callable[[], object] | None = act
        server.answer = self  # type: ignore[method-assign]

    def __call__(self, method: str, path: str, key: str | None, body: Any) -> Any:
        if path.endswith("/batch") and self._act is not None:
            act, self._act = self._act, None
            act()
        return self._answer(method, path, key, body)


@pytest.mark.parametrize(
    "late",
    [
        put(row(1), 5, text="late"),
        patch(row(1), 5),
        mark(row(1), 5),
        Remove(row(1), (row(1).head_id,), stamp(5).position),
    ],
)
def test_a_late_writer_does_not_overwrite_what_came_after_its_read(
    server: QdrantServer, qdrant: QdrantStore, deadline: Deadline, late: Any
) -> None:
    """Invariant 3: the server compares once more."""
    qdrant.write("items", [put(row(1), 1)], deadline)
    with closing(QdrantStore(server.url)) as other:
        Between(server, lambda: other.write("items", [put(row(1), 9, text="newer")], deadline))
        qdrant.write("items", [late], deadline)
    assert qdrant.stamps("items", [row(1)], deadline) == [stamp(9, text="newer")]


@pytest.mark.parametrize("name", [None, "text"])
def test_a_late_put_of_a_row_that_was_deleted_since_does_not_bring_it_back(
    server: QdrantServer, deadline: Deadline, name: str | None
) -> None:
    """Invariant 3: the server updates what is there, and nothing else. Its neighbours are written."""
    late = [replace(put(row(i), 5, text="late"), only_if_present=True) for i in (1, 2)]
    with closing(QdrantStore(server.url, vector=name)) as zombie, closing(QdrantStore(server.url)) as other:
        for store in (zombie, other):
            store.prepare(replace(SPEC, vector=name), deadline)
        zombie.write("items", [put(row(1), 1), put(row(2), 1)], deadline)
        Between(server, lambda: other.write("items", [Remove(row(1), ())], deadline))
        if name is None:
            assert zombie.write("items", late, deadline) == [MISSING, APPLIED]
        else:  # a vector can only be updated by id, which fails; the driver tries again
            told = failure(lambda: zombie.write("items", late, deadline))
            assert (told.kind, told.cause) == (Kind.TRANSIENT, "conflict")
        assert zombie.write("items", late, deadline) == [MISSING, APPLIED]
        found = zombie.stamps("items", [row(1), row(2)], deadline)
    assert found == [None, stamp(5, text="late")]


@pytest.mark.parametrize(("first", "then"), [(9, 5), (5, 9)])
def test_of_two_inserts_at_the_same_time_the_newer_one_stays(
    server: QdrantServer, qdrant: QdrantStore, deadline: Deadline, first: int, then: int
) -> None:
    with closing(QdrantStore(server.url)) as other:
        Between(server, lambda: other.write("items", [put(row(1), first)], deadline))
        qdrant.write("items", [put(row(1), then), put(row(2), then)], deadline)
    assert qdrant.stamps("items", [row(1), row(2)], deadline) == [stamp(9), stamp(then)]


# --- collections of others ------------------------------------------------------------------------------


def params(size: int = 4, distance: Any = models.Distance.COSINE) -> models.VectorParams:
    return models.VectorParams(size=size, distance=distance)


def test_a_named_vector_is_written_and_the_others_stay(
    server: QdrantServer, client: QdrantClient, deadline: Deadline
) -> None:
    client.create_collection("items", {"text": params(), "image": params(2)})
    with closing(QdrantStore(server.url, vector="text")) as store:
        store.prepare(SPEC, deadline)
        store.write("items", [put(row(1), 1)], deadline)
        image = models.PointVectors(id=row(1).head_id, vector={"image": [0.0, 1.0]})
        client.batch_update_points(
            "items", [models.UpdateVectorsOperation(update_vectors=models.UpdateVectors(points=[image]))]
        )
        for write in (put(row(1), 2, at=vector(0, 1.0)), patch(row(1), 3, metadata={"a": 1})):
            assert store.write("items", [write], deadline) == [APPLIED]
        [hit] = store.search("items", vector(0, 1.0), 5, deadline, {"a": 1})
        [point], _ = store.scan("items", None, 10, deadline, vectors=True)
    assert hit.score == pytest.approx(1.0)
    assert point.vector is not None
    assert point.vector.tolist() == [0.0, 1.0, 0.0, 0.0]
    [seen] = client.retrieve("items", [row(1).head_id], with_vectors=True)
    assert isinstance(seen.vector, dict)
    assert seen.vector["image"] == [0.0, 1.0]


def test_one_vector_of_a_collection_is_of_the_service(
    server: QdrantServer, client: QdrantClient, deadline: Deadline
) -> None:
    """A stamp tells the text and the space of one: two that share it would embed in turns for ever."""
    client.create_collection("items", {"text": params(), "title": params(), "image": params(2)})
    text, title = (CollectionSpec("items", 4, "s", vector=name) for name in ("text", "title"))
    with closing(QdrantStore(server.url)) as store:
        store.prepare(text, deadline)
    with closing(QdrantStore(server.url, vector="title")) as other:
        for call in (other.verify, other.prepare):
            with pytest.raises(
                StartupRefused, match="has vector text of this service, but title is configured"
            ):
                call(title, deadline)
        other.prepare(text, deadline)  # what the collection's spec says goes before


@pytest.mark.parametrize(("named", "wanted"), [(True, None), (False, "text"), (True, "other")])
def test_a_vector_that_the_collection_does_not_have_is_refused(
    server: QdrantServer, client: QdrantClient, deadline: Deadline, named: bool, wanted: str | None
) -> None:
    client.create_collection("items", {"text": params()} if named else params())
    with (
        closing(QdrantStore(server.url, vector=wanted)) as store,
        pytest.raises(StartupRefused, match="has no vector"),
    ):
        store.prepare(SPEC, deadline)


def test_a_collection_of_somebody_else_is_taken_and_marked(
    server: QdrantServer, client: QdrantClient, deadline: Deadline
) -> None:
    client.create_collection("items", params())
    with closing(QdrantStore(server.url)) as store:
        store.prepare(SPEC, deadline)
        with pytest.raises(StartupRefused, match="test/model/4"):
            store.prepare(CollectionSpec("items", 4, "another"), deadline)


def test_points_of_somebody_else_are_left_alone(
    qdrant: QdrantStore, client: QdrantClient, deadline: Deadline
) -> None:
    theirs = models.PointStruct(
        id="00000000-0000-0000-0000-00000000002a", vector=[1.0, 0.0, 0.0, 0.0], payload={"a": 1}
    )
    listed = models.PointsList(points=[theirs])
    client.batch_update_points("items", [models.UpsertOperation(upsert=listed)])
    qdrant.write("items", [put(row(1), metadata={"a": 1}, at=vector(0, 1.0))], deadline)
    assert qdrant.count("items", deadline) == 1
    assert [point.row for point in qdrant.scan("items", None, 1, deadline)[0]] == [row(1)]
    assert [hit.row for hit in qdrant.search("items", vector(1.0), 1, deadline, {"a": 1})] == [row(1)]
    assert failure(lambda: qdrant.drop("items", deadline)).cause == "not_ours"
    client.create_collection("theirs", params())
    assert failure(lambda: qdrant.drop("theirs", deadline)).cause == "not_ours"
    assert failure(lambda: qdrant.swap("theirs", "items", deadline)).cause == "name_taken"


def test_an_alias_is_one_that_everybody_sees(
    qdrant: QdrantStore, client: QdrantClient, deadline: Deadline
) -> None:
    """The server leads its other clients, too, and those of somebody else lead us."""
    qdrant.prepare(CollectionSpec("green", 4, "s"), deadline)
    qdrant.write("green", [put(row(1))], deadline)
    qdrant.swap("serving", "green", deadline)
    assert len(client.query_points("serving", [1.0, 0.0, 0.0, 0.0]).points) == 1
    change = models.CreateAlias(collection_name="items", alias_name="serving")
    client.update_collection_aliases([models.CreateAliasOperation(create_alias=change)])
    assert qdrant.leads_to("serving", deadline) == "items"
    assert qdrant.search("serving", vector(1.0), 1, deadline, {}) == []


def test_a_swap_that_fails_leaves_the_alias_where_it_was(
    qdrant: QdrantStore, server: QdrantServer, deadline: Deadline
) -> None:
    qdrant.swap("serving", "items", deadline)
    server.fail(503)
    assert failure(lambda: qdrant.swap("serving", "items", deadline)).kind is Kind.TRANSIENT
    assert qdrant.leads_to("serving", deadline) == "items"


def test_a_number_is_found_by_its_value(qdrant: QdrantStore, deadline: Deadline) -> None:
    qdrant.write("items", [put(row(i), metadata={"price": i / 4}) for i in range(4)], deadline)
    found = qdrant.search("items", vector(1.0), 5, deadline, {"price": 0.75})
    assert [hit.row for hit in found] == [row(3)]


def test_a_filter_that_has_no_path_is_refused(qdrant: QdrantStore, deadline: Deadline) -> None:
    assert failure(lambda: qdrant.search("items", vector(1.0), 5, deadline, {'"': 1})).kind is Kind.REFUSED


def test_a_vector_goes_to_the_server_as_it_is(server: QdrantServer, deadline: Deadline) -> None:
    with closing(QdrantStore(server.url)) as store:
        store.prepare(CollectionSpec("items", 4, "s", "dot"), deadline)
        numbers = np.array([0.1, 1e-30, -3.5, 12345.678], dtype=np.float32)
        store.write("items", [put(row(1), at=numbers)], deadline)
        [point], _ = store.scan("items", None, 10, deadline, vectors=True)
    assert point.vector is not None
    assert point.vector.tolist() == numbers.tolist()


# --- indexes of metadata --------------------------------------------------------------------------------


def test_each_declared_name_has_an_index_of_its_type(
    qdrant: QdrantStore, client: QdrantClient, deadline: Deadline
) -> None:
    kinds = {
        "text": "keyword",
        "integer": "integer",
        "number": "float",
        "boolean": "bool",
        "time": "datetime",
    }
    fields = tuple(FilterField(f"a {kind}", FilterType(kind)) for kind in kinds)
    filters = (*fields, FilterField("plain", FilterType.INTEGER))
    spec = CollectionSpec("items", 4, "test/model/4", filters=filters)
    qdrant.write("items", [put(row(1), metadata={"plain": 5, "a text": "x"})], deadline)
    qdrant.prepare(spec, deadline)
    found = client.get_collection("items").payload_schema
    wanted = {f'"a {kind}"': type_ for kind, type_ in kinds.items()} | {"plain": "integer"}
    assert {name: of.data_type.value for name, of in found.items()} == wanted | {"_vectide.row": "uuid"}
    assert (found["plain"].points, found['"a text"'].points) == (1, 1)
    qdrant.prepare(spec, deadline)


def test_an_index_of_another_type_is_refused_with_both(
    qdrant: QdrantStore, client: QdrantClient, deadline: Deadline
) -> None:
    client.create_payload_index("items", "price", models.PayloadSchemaType.KEYWORD)
    spec = CollectionSpec("items", 4, "test/model/4", filters=(FilterField("price", FilterType.INTEGER),))
    for call in (qdrant.verify, qdrant.prepare):
        with pytest.raises(StartupRefused, match=r"'price' is of type keyword.*needs integer"):
            call(spec, deadline)
    text = CollectionSpec("items", 4, "test/model/4", filters=(FilterField("price", FilterType.TEXT),))
    qdrant.prepare(text, deadline)


def test_an_index_of_the_tenant_keeps_its_points_together(
    qdrant: QdrantStore, client: QdrantClient, deadline: Deadline
) -> None:
    """One that was only a filter's becomes the tenant's."""
    for tenant in (False, True, True):
        filters = (FilterField("org", FilterType.TEXT, tenant),)
        qdrant.prepare(CollectionSpec("items", 4, "test/model/4", filters=filters), deadline)
        found = client.get_collection("items").payload_schema["org"]
        assert found.data_type is models.PayloadSchemaType.KEYWORD
        assert bool(getattr(found.params, "is_tenant", False)) is tenant

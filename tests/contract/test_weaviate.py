"""What is special about Weaviate: its errors, of which many are only words, and objects that fail one by one.
The suite of all stores runs against it at night only: its server has to be built."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from typing import Any

import httpx
import pytest
from tests.answers import answering

from vectide import stores
from vectide.core.failures import Failure, Kind
from vectide.core.filters import FilterField, FilterType
from vectide.core.model import Value
from vectide.ports import (
    APPLIED,
    MISSING,
    SUPERSEDED,
    AdapterError,
    CollectionSpec,
    Deadline,
    Effect,
    Remove,
    StartupRefused,
    Trim,
    Write,
)
from vectide.stores.http_calls import failure_of
from vectide.stores.weaviate import WeaviateStore
from vectide.stores.weaviate_errors import failure_of_object, failure_of_query, read_error
from vectide.stores.weaviate_filters import conditions, entries, typed_of
from vectide.stores.weaviate_points import PROPERTIES
from vectide.testing.points import mark, patch, put, put_chunk, row, stamp, vector
from vectide.testing.weaviate_server import WeaviateServer

SPEC = CollectionSpec("items", 4, "test/model/4")
In = Callable[[float], Deadline]


@pytest.fixture
def api(weaviate_server: WeaviateServer) -> Iterator[httpx.Client]:
    """Somebody else's view of the same server, in which there are no collections."""
    with httpx.Client(base_url=f"{weaviate_server.url}/v1") as client:
        for made in client.get("/schema").json()["classes"]:
            client.delete(f"/schema/{made['class']}").raise_for_status()
        yield client


@pytest.fixture
def weaviate(
    weaviate_server: WeaviateServer, api: httpx.Client, deadline: Deadline
) -> Iterator[WeaviateStore]:
    with closing(WeaviateStore(weaviate_server.url)) as store:
        store.prepare(SPEC, deadline)
        yield store


def failure(call: Callable[[], object]) -> Failure:
    with pytest.raises(AdapterError) as caught:
        call()
    return caught.value.failure


# --- errors ---------------------------------------------------------------------------------------------


def error(*words: str) -> bytes:
    return json.dumps({"error": [{"message": one} for one in words]}).encode()


@pytest.mark.parametrize(
    ("status", "body", "kind", "cause"),
    [
        (400, error("words"), Kind.REFUSED, "data"),
        (401, b'{"code": 401, "message": "words"}', Kind.OPERATOR, "credentials"),
        (403, error("words"), Kind.OPERATOR, "permission"),
        (404, b"", Kind.OPERATOR, "collection_missing"),
        (405, b'{"code": 405, "message": "words"}', Kind.OPERATOR, "not_weaviate"),
        (413, b"<html>", Kind.TOO_LARGE, "too_large"),
        (422, error("words"), Kind.REFUSED, "data"),
        (422, error("words", "class name Items already exists"), Kind.TRANSIENT, "conflict"),
        (422, error("no graphql provider present, words"), Kind.OPERATOR, "collection_missing"),
        (429, error("words"), Kind.THROTTLED, "throttled"),
        (500, error("words"), Kind.TRANSIENT, "server_error"),
        (500, error("words: store is read-only"), Kind.OPERATOR, "read_only"),
        (500, error("repo.merge: words: object not found"), Kind.TRANSIENT, "object_missing"),
        (422, error("words: property already in use"), Kind.TRANSIENT, "conflict"),
        (503, error("words"), Kind.TRANSIENT, "server_error"),
    ],
)
def test_what_the_server_says_decides_what_happens(status: int, body: bytes, kind: Kind, cause: str) -> None:
    seen = failure_of(httpx.Response(status, content=body), "weaviate", read_error)
    assert (seen.kind, seen.cause) == (kind, cause)
    assert str(status) in seen.detail
    assert ("words" in seen.detail) == (b"words" in body and kind is not Kind.REFUSED)


@pytest.mark.parametrize(
    ("words", "kind", "cause"),
    [
        ('Cannot query field "Items" on type "GetObjectsObj".', Kind.OPERATOR, "collection_missing"),
        ("vector search: vector lengths don't match: 3 vs 4: secret", Kind.REFUSED, "data"),
        ("class 'Items' not present in schema", Kind.OPERATOR, "collection_missing"),
        ("put: shard: store is read-only due to: disk usage too high", Kind.OPERATOR, "read_only"),
        ("invalid text property: secret", Kind.REFUSED, "data"),
        ("context deadline exceeded", Kind.TRANSIENT, "server_error"),
        ("something of the future", Kind.TRANSIENT, "server_error"),
    ],
)
def test_what_fails_inside_an_answer_that_says_all_is_well_is_told_by_its_words(
    words: str, kind: Kind, cause: str
) -> None:
    answered = {"result": {"status": "FAILED", "errors": {"error": [{"message": words}]}}}
    for seen in (failure_of_query([{"message": words}]), failure_of_object(answered)):
        assert seen is not None
        assert (seen.kind, seen.cause) == (kind, cause)
        assert "secret" not in seen.detail


def test_an_object_that_failed_without_a_word_failed() -> None:
    assert failure_of_object({"result": {"status": "SUCCESS"}}) is None
    seen = failure_of_object({"result": {"status": "FAILED"}})
    assert seen is not None
    assert seen.kind is Kind.TRANSIENT


def test_a_wrong_key_is_refused_at_start_and_halts_later(deadline: Deadline) -> None:
    """Case 153."""
    with (
        answering(401, b'{"code":401,"message":"invalid api key"}') as url,
        closing(WeaviateStore(url, api_key="hunter2")) as store,
    ):
        with pytest.raises(StartupRefused, match="401") as caught:
            store.prepare(SPEC, deadline)
        assert failure(lambda: store.stamps("items", [], deadline)).cause == "credentials"
    assert "hunter2" not in str(caught.value)


def test_another_service_at_the_url_is_refused_at_start(deadline: Deadline) -> None:
    for status, body in ((405, b""), (200, b'{"hello": "world"}')):
        with answering(status, body) as url, closing(WeaviateStore(url)) as store:
            with pytest.raises(StartupRefused):
                store.prepare(SPEC, deadline)


def test_an_unreachable_server_is_waited_for(deadline_in: In) -> None:
    with closing(WeaviateStore("http://127.0.0.1:1")) as store:
        seen = failure(lambda: store.prepare(SPEC, deadline_in(5)))
    assert (seen.kind, seen.cause) == (Kind.TRANSIENT, "connection")


def test_settings_that_are_no_good_are_refused() -> None:
    with pytest.raises(StartupRefused, match="http"):
        stores.load("weaviate", url="weaviate:8080")


def test_conditions_meet_at_least_what_equals_the_filters() -> None:
    """More is compared afterwards."""
    metadata: dict[str, Any] = {
        "color": "red",
        "n": 1,
        "price": 19.5,
        "vip": True,
        "many": ["a", "b", ["c"]],
        "nested": {"x": 1},
        "none": None,
        "long": "x" * 600,
    }
    found = ['color="red"', "n=1", "price=19.5", "vip=true", 'many="a"', 'many="b"', "none=null"]
    assert entries(metadata) == found
    assert entries({"n": 1.0}) == ["n=1"]
    assert (
        conditions({"color": "red"})
        == '{path:["filters"],operator:ContainsAll,valueText:["color=\\"red\\""]}'
    )
    assert conditions({"nested": {"x": 1}}) == ""


@pytest.mark.parametrize(
    ("kind", "value", "held"),
    [
        (FilterType.TEXT, "red", "red"),
        (FilterType.TEXT, "r" * 501, None),
        (FilterType.TEXT, ["red"], None),
        (FilterType.TEXT, None, None),
        (FilterType.TIME, "2026-02-28", "2026-02-28"),
        (FilterType.INTEGER, 7, 7),
        (FilterType.INTEGER, 7.0, 7),
        (FilterType.INTEGER, 7.5, None),
        (FilterType.INTEGER, 2**53 + 1, None),
        (FilterType.INTEGER, True, None),
        (FilterType.NUMBER, 7, 7.0),
        (FilterType.NUMBER, 10**400, None),
        (FilterType.NUMBER, -1e300, -1e300),
        (FilterType.NUMBER, True, None),
        (FilterType.NUMBER, "7", None),
        (FilterType.BOOLEAN, False, False),
        (FilterType.BOOLEAN, 0, None),
    ],
)
def test_a_property_has_what_is_of_its_type(kind: FilterType, value: Value, held: Value) -> None:
    found = typed_of(FilterField("name", kind)).value_of({"name": value})
    assert (found, type(found)) == (held, type(held))


def test_a_filter_asks_the_property_that_every_point_has() -> None:
    """One that came later says nothing of the points before."""
    field = FilterField("price", FilterType.NUMBER)
    entry = '{path:["filters"],operator:ContainsAll,valueText:["price=5"]}'
    assert conditions({"price": 5}, [typed_of(field)]) == entry
    typed = [typed_of(field, everywhere=True)]
    by_number = '{path:["price_number"],operator:Equal,valueNumber:5.0}'
    assert conditions({"price": 5}, typed) == by_number
    assert "filters" in conditions({"price": "5"}, typed)
    both = conditions({"price": 5, "color": "red"}, typed)
    assert both.startswith("{operator:And,operands:[" + by_number + ',{path:["filters"]')
    assert "price" not in both.partition("filters")[2]


def test_properties_of_names_are_apart_from_each_other_and_from_ours() -> None:
    """Weaviate does not tell them by the case of their letters."""
    names = [
        "price",
        "Price",
        "a b",
        "a.b",
        "text",
        "row",
        "filters",
        "",
        "filter_x",
        "_vectide",
        "x" * 300,
        "日",
    ]
    paths = [typed_of(FilterField(name, kind)).path for name in names for kind in FilterType]
    ours = [str(one["name"]) for one in PROPERTIES]
    assert len({path.lower() for path in paths} | set(ours)) == len(names) * len(FilterType) + len(ours)
    assert all(re.fullmatch("[a-z][a-z0-9_]{0,229}", path) for path in paths)


# --- the real server ------------------------------------------------------------------------------------


@pytest.mark.nightly
def test_an_object_that_is_refused_fails_alone(
    weaviate: WeaviateStore, api: httpx.Client, deadline: Deadline
) -> None:
    """Case 100. Somebody made the property into another type."""
    collection = api.get("/schema/Items").json()
    api.delete("/schema/Items").raise_for_status()
    for made in collection["properties"]:
        if made["name"] == "row_id":
            made["dataType"] = ["int"]
            made.pop("tokenization", None)
    api.post("/schema", json=collection).raise_for_status()
    [outcome] = weaviate.write("items", [put(row(1), metadata={"secret": "hunter2"})], deadline)
    assert outcome.effect is Effect.FAILED
    assert outcome.failure is not None
    assert outcome.failure.kind is Kind.REFUSED
    assert "hunter2" not in outcome.failure.detail
    assert weaviate.stamps("items", [row(1)], deadline) == [None]


@pytest.mark.nightly
def test_a_collection_that_is_gone_is_not_made_by_a_write(
    weaviate: WeaviateStore, api: httpx.Client, deadline: Deadline
) -> None:
    """Case 147. Weaviate makes collections of its own accord."""
    assert weaviate.write("items", [put(row(1))], deadline) == [APPLIED]
    api.delete("/schema/Items").raise_for_status()
    assert failure(lambda: weaviate.write("items", [put(row(2))], deadline)).cause == "collection_missing"
    removal = [Remove(row(1), (row(1).head_id,))]
    assert failure(lambda: weaviate.write("items", removal, deadline)).cause == "collection_missing"
    assert api.get("/schema").json()["classes"] == []
    weaviate.prepare(SPEC, deadline)
    assert weaviate.write("items", [put(row(2))], deadline) == [APPLIED]


@pytest.mark.nightly
def test_a_collection_of_somebody_else_is_refused(
    weaviate: WeaviateStore, api: httpx.Client, deadline: Deadline
) -> None:
    api.post("/schema", json={"class": "Theirs", "vectorizer": "none"}).raise_for_status()
    with pytest.raises(StartupRefused, match="not one of this service"):
        weaviate.prepare(CollectionSpec("theirs", 4, "s"), deadline)
    assert failure(lambda: weaviate.drop("theirs", deadline)).cause == "not_ours"
    assert failure(lambda: weaviate.swap("alias", "theirs", deadline)).cause == "not_ours"
    assert failure(lambda: weaviate.swap("theirs", "items", deadline)).cause == "name_taken"
    assert failure(lambda: weaviate.swap("not-good", "items", deadline)).cause == "name"
    assert failure(lambda: weaviate.drop("Items", deadline)).cause == "not_ours"


@pytest.mark.nightly
def test_names_that_differ_in_their_first_letters_case_are_the_same_collection(
    weaviate: WeaviateStore, deadline: Deadline
) -> None:
    with pytest.raises(StartupRefused, match="capital"):
        weaviate.prepare(CollectionSpec("Items", 4, "test/model/4"), deadline)


@pytest.mark.nightly
def test_points_can_be_found_by_their_metadata_and_words(
    weaviate: WeaviateStore, api: httpx.Client, deadline: Deadline
) -> None:
    """By somebody with Weaviate's own queries."""
    weaviate.write("items", [put(row(1), text="a red chair", metadata={"color": "red"})], deadline)
    weaviate.write("items", [put(row(2), text="a blue table", metadata={"color": "blue"})], deadline)
    weaviate.write("items", [patch(row(2), 1, text="a blue table", metadata={"color": "green"})], deadline)

    def found(which: str) -> list[str]:
        answer = api.post("/graphql", json={"query": f"{{Get{{Items({which}){{text}}}}}}"}).json()
        return [one["text"] for one in answer["data"]["Get"]["Items"]]

    by_value = 'where:{path:["filters"],operator:ContainsAny,valueText:["color=\\"%s\\""]}'
    assert found(by_value % "red") == ["a red chair"]
    assert found(by_value % "blue") == []
    assert found(by_value % "green") == ["a blue table"]
    assert found('bm25:{query:"table"}') == ["a blue table"]


@pytest.mark.nightly
def test_an_older_write_is_seen_by_the_read_before(weaviate: WeaviateStore, deadline: Deadline) -> None:
    weaviate.write("items", [put(row(1), 9)], deadline)
    assert weaviate.write("items", [put(row(1), 5), patch(row(1), 5)], deadline) == [SUPERSEDED] * 2


@pytest.mark.nightly
def test_more_removals_than_a_call_takes_are_made(
    weaviate_program: Any, deadline: Deadline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server may allow queries of fewer results than usual."""
    monkeypatch.setenv("QUERY_MAXIMUM_RESULTS", "100")
    with WeaviateServer(weaviate_program) as server, closing(WeaviateStore(server.url)) as store:
        store.prepare(SPEC, deadline)
        rows = [row(i) for i in range(90)]
        store.write("items", [put(one) for one in rows], deadline)
        for chunk in (1, 2):
            store.write("items", [put_chunk(one, chunk, text=f"{chunk}") for one in rows], deadline)
        trims = [Trim(one, (), (put_chunk(one, 1, text="1").point.id,)) for one in rows]
        assert store.write("items", trims, deadline) == [APPLIED] * 90
        assert store.count("items", deadline) == 180
        store.write("items", [Remove(one, ()) for one in rows[:80]], deadline)
        page, _ = store.scan("items", None, 100, deadline)
        assert {(one.row, one.chunk) for one in page} == {(one, i) for one in rows[80:] for i in (0, 1)}


@pytest.mark.nightly
def test_a_server_that_asks_for_a_key_takes_the_right_one(weaviate_program: Any, deadline: Deadline) -> None:
    with WeaviateServer(weaviate_program, api_key="hunter2") as server:
        with closing(WeaviateStore(server.url, api_key="hunter2")) as store:
            store.prepare(SPEC, deadline)
            assert store.write("items", [put(row(1)), mark(row(2), 1)], deadline) == [APPLIED, MISSING]
            assert [hit.row for hit in store.search("items", vector(1.0), 1, deadline, {})] == [row(1)]
        with closing(WeaviateStore(server.url, api_key="wrong")) as store:
            with pytest.raises(StartupRefused, match="401"):
                store.prepare(SPEC, deadline)


@pytest.mark.nightly
def test_writes_leave_the_vectors_of_others_as_they_are(
    weaviate: WeaviateStore, api: httpx.Client, deadline: Deadline
) -> None:
    """Somebody has added one, and filled it."""
    weaviate.prepare(CollectionSpec("several", 4, "s", vector="ours"), deadline)
    collection = api.get("/schema/Several").json()
    collection["vectorConfig"]["theirs"] = collection["vectorConfig"]["ours"]
    api.put("/schema/Several", json=collection).raise_for_status()
    weaviate.prepare(CollectionSpec("several", 4, "s", vector="ours"), deadline)
    weaviate.write("several", [put(row(1), 1, at=vector(1.0))], deadline)
    path = f"/objects/Several/{row(1).head_id}"
    theirs = {"class": "Several", "properties": {}, "vectors": {"theirs": [0, 0, 0.5]}}
    api.patch(path, json=theirs).raise_for_status()
    weaviate.write("several", [put(row(1), 2, text="new", at=vector(0, 1.0)), put(row(2), 1)], deadline)
    weaviate.write("several", [patch(row(1), 3, text="new", metadata={"a": 1})], deadline)
    found = api.get(path, params={"include": "vector"}).json()
    assert found["vectors"] == {"ours": [0, 1, 0, 0], "theirs": [0, 0, 0.5]}
    assert weaviate.stamps("several", [row(1)], deadline) == [stamp(3, text="new")]


PRICES = CollectionSpec("prices", 4, "s", filters=(FilterField("price", FilterType.NUMBER),))


def cheaper_than(api: httpx.Client, collection: str, price: float) -> set[str]:
    """What somebody with Weaviate's own queries finds."""
    where = f'{{path:["price_number"],operator:LessThan,valueNumber:{price}}}'
    answer = api.post("/graphql", json={"query": f"{{Get{{{collection}(where:{where}){{text}}}}}}"}).json()
    return {one["text"] for one in answer["data"]["Get"][collection]}


@pytest.mark.nightly
def test_ranges_of_a_name_to_filter_by_can_be_asked_for(
    weaviate: WeaviateStore, api: httpx.Client, deadline: Deadline
) -> None:
    weaviate.prepare(PRICES, deadline)
    prices: list[Value] = [5, 19.9, 20, "much", None]
    made = [put(row(i), text=str(value), metadata={"price": value}) for i, value in enumerate(prices)]
    weaviate.write("prices", made, deadline)
    assert cheaper_than(api, "Prices", 20) == {"5", "19.9"}
    for key, text, price in ((2, "20", 1), (0, "5", 100)):
        weaviate.write("prices", [patch(row(key), 1, text=text, metadata={"price": price})], deadline)
    again = replace(put(row(1), 2, text="free", metadata={"price": "free"}), only_if_present=True)
    assert weaviate.write("prices", [again], deadline) == [APPLIED]
    assert cheaper_than(api, "Prices", 20) == {"20"}
    for value, found in ((1, [row(2)]), ("much", [row(3)]), (None, [row(4)]), (5, [])):
        hits = weaviate.search("prices", vector(1.0), 9, deadline, {"price": value})
        assert [hit.row for hit in hits] == found


@pytest.mark.nightly
def test_a_name_that_comes_later_to_filter_by_is_filled_by_what_is_written_from_then_on(
    weaviate: WeaviateStore, weaviate_server: WeaviateServer, api: httpx.Client, deadline: Deadline
) -> None:
    """And searches of ours find the points before as well. Several replicas may start at the same time."""
    metadata = {"price": 5}
    before = [put(row(i), text=f"before {i}", metadata=metadata) for i in range(2)]
    weaviate.write("items", before, deadline)
    later = replace(PRICES, name="items", space=SPEC.space)
    with closing(WeaviateStore(weaviate_server.url)) as other, ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda store: store.prepare(later, deadline), (weaviate, other)))
        weaviate.write("items", [patch(row(1), 2, text="before 1", metadata=metadata)], deadline)
        other.write("items", [put(row(2), text="after", metadata=metadata)], deadline)
    assert cheaper_than(api, "Items", 20) == {"before 1", "after"}
    hits = weaviate.search("items", vector(1.0), 9, deadline, metadata)
    assert {hit.row for hit in hits} == {row(0), row(1), row(2)}


@pytest.mark.nightly
def test_a_property_of_another_type_is_refused_with_both(
    weaviate: WeaviateStore, api: httpx.Client, deadline: Deadline
) -> None:
    made = {"name": "price_number", "dataType": ["text"]}
    api.post("/schema/Items/properties", json=made).raise_for_status()
    with pytest.raises(StartupRefused, match=r"price_number.*text.*number"):
        weaviate.prepare(replace(PRICES, name="items", space=SPEC.space), deadline)


@pytest.mark.nightly
def test_a_change_that_is_refused_fails_alone(
    weaviate: WeaviateStore, api: httpx.Client, deadline: Deadline
) -> None:
    """Case 100. Somebody made the property into another type."""
    weaviate.prepare(PRICES, deadline)
    weaviate.write("prices", [put(row(i), 1) for i in range(3)], deadline)
    collection = api.get("/schema/Prices").json()
    api.delete("/schema/Prices").raise_for_status()
    for made in collection["properties"]:
        if made["name"] == "price_number":
            made["dataType"] = ["boolean"]
            made["indexRangeFilters"] = False
    api.post("/schema", json=collection).raise_for_status()
    weaviate.write("prices", [put(row(i), 1) for i in range(3)], deadline)
    dear = replace(put(row(0), 2, metadata={"price": 5}), only_if_present=True)
    writes: list[Write] = [dear, patch(row(1), 2, metadata={"price": 5}), patch(row(2), 2)]
    outcomes = weaviate.write("prices", writes, deadline)
    assert [one.effect for one in outcomes] == [Effect.FAILED, Effect.FAILED, Effect.APPLIED]
    assert [one.failure.kind for one in outcomes if one.failure] == [Kind.REFUSED] * 2
    assert weaviate.stamps("prices", [row(0), row(2)], deadline) == [stamp(1), stamp(2)]

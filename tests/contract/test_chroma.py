"""What is special about Chroma: its errors, its flat metadata that merges."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import httpx
import pytest
from chromadb import errors
from tests.answers import answering

from vectide import stores
from vectide.core.failures import Failure, Kind
from vectide.core.model import STAMP_KEY
from vectide.ports import (
    APPLIED,
    MISSING,
    SUPERSEDED,
    AdapterError,
    CollectionSpec,
    Deadline,
    Remove,
    StartupRefused,
)
from vectide.stores.chroma import ChromaStore
from vectide.stores.chroma_http import NAMES, read_error
from vectide.stores.http_calls import failure_of
from vectide.testing.chroma_server import ChromaServer
from vectide.testing.points import patch, put, row, stamp, vector

SPEC = CollectionSpec("items", 4, "test/model/4")
In = Callable[[float], Deadline]


@pytest.fixture
def database(chroma_server: ChromaServer) -> str:
    return chroma_server.new_database()


@pytest.fixture
def chroma(chroma_server: ChromaServer, database: str, deadline: Deadline) -> Iterator[ChromaStore]:
    with closing(ChromaStore(chroma_server.url, database=database)) as store:
        store.prepare(SPEC, deadline)
        yield store


@pytest.fixture
def api(chroma_server: ChromaServer, database: str) -> Iterator[httpx.Client]:
    """Somebody else's view of the same database."""
    base = f"{chroma_server.url}/api/v2/tenants/default_tenant/databases/{database}/collections/"
    with httpx.Client(base_url=base) as client:
        yield client


def failure(call: Callable[[], object]) -> Failure:
    with pytest.raises(AdapterError) as caught:
        call()
    return caught.value.failure


# --- errors ---------------------------------------------------------------------------------------------


def test_every_error_that_chroma_names_is_mapped() -> None:
    named = errors.error_types.keys() - {"ChromaError"}
    assert len(named) > 10
    assert named == NAMES.keys()


@pytest.mark.parametrize(
    ("status", "name", "kind", "cause"),
    [
        (400, "InvalidArgumentError", Kind.REFUSED, "data"),
        (400, "QuotaError", Kind.OPERATOR, "quota"),
        (401, "AuthorizationError", Kind.OPERATOR, "credentials"),
        (403, "AuthError", Kind.OPERATOR, "permission"),
        (404, "NotFoundError", Kind.OPERATOR, "collection_missing"),
        (409, "UniqueConstraintError", Kind.TRANSIENT, "conflict"),
        (413, "BatchSizeExceededError", Kind.TOO_LARGE, "too_large"),
        (422, "ChromaError", Kind.REFUSED, "data"),
        (429, "RateLimitError", Kind.THROTTLED, "throttled"),
        (500, "InternalError", Kind.TRANSIENT, "server_error"),
        (503, "", Kind.TRANSIENT, "server_error"),
        (507, "", Kind.OPERATOR, "disk_full"),
        (302, "", Kind.OPERATOR, "not_chroma"),
    ],
)
def test_what_the_server_says_decides_what_happens(status: int, name: str, kind: Kind, cause: str) -> None:
    content = b"<html>" if not name else b'{"error": "%s", "message": "words"}' % name.encode()
    seen = failure_of(httpx.Response(status, content=content), "chroma", read_error)
    assert (seen.kind, seen.cause) == (kind, cause)
    assert str(status) in seen.detail
    assert ("words" in seen.detail) == (bool(name) and kind is not Kind.REFUSED)


def test_the_server_says_how_long_to_wait(deadline: Deadline) -> None:
    with (
        answering(429, b'{"error":"RateLimitError"}', {"Retry-After": "7"}) as url,
        closing(ChromaStore(url)) as store,
    ):
        assert failure(lambda: store.stamps("items", [row(1)], deadline)).retry_after_s == 7.0


def test_an_answer_that_is_not_chromas_is_waited_for(deadline: Deadline) -> None:
    with answering(200, b"<html>please log in</html>") as url, closing(ChromaStore(url)) as store:
        seen = failure(lambda: store.stamps("items", [row(1)], deadline))
    assert (seen.kind, seen.cause) == (Kind.TRANSIENT, "answer")


def test_another_service_at_the_url_is_refused_at_start(deadline: Deadline) -> None:
    with answering(405, b"") as url, closing(ChromaStore(url)) as store, pytest.raises(StartupRefused):
        store.prepare(SPEC, deadline)


def test_a_wrong_token_is_refused_at_start_and_halts_later(deadline: Deadline) -> None:
    """Case 153."""
    with (
        answering(401, b'{"error":"AuthorizationError"}') as url,
        closing(ChromaStore(url, api_key="hunter2")) as store,
    ):
        with pytest.raises(StartupRefused, match="401") as caught:
            store.prepare(SPEC, deadline)
        assert failure(lambda: store.stamps("items", [], deadline)).cause == "credentials"
    assert "hunter2" not in str(caught.value)


def test_an_unreachable_server_is_waited_for(deadline_in: In) -> None:
    with closing(ChromaStore("http://127.0.0.1:1")) as store:
        seen = failure(lambda: store.prepare(SPEC, deadline_in(5)))
    assert (seen.kind, seen.cause) == (Kind.TRANSIENT, "connection")


def test_a_call_ends_at_its_deadline(chroma: ChromaStore, deadline_in: In) -> None:
    seen = failure(lambda: chroma.stamps("items", [row(1)], deadline_in(-1)))
    assert (seen.kind, seen.cause) == (Kind.TRANSIENT, "timeout")


def test_settings_that_are_no_good_are_refused() -> None:
    with pytest.raises(StartupRefused, match="http"):
        stores.load("chroma", url="chroma:8000")
    with pytest.raises(StartupRefused, match="cannot read"):
        stores.load("chroma", url="https://127.0.0.1:1", ca_file="/no/such/file.pem")


# --- collections and points -----------------------------------------------------------------------------


def test_a_collection_of_somebody_else_is_refused(
    chroma_server: ChromaServer, database: str, api: httpx.Client, deadline: Deadline
) -> None:
    api.post(str(api.base_url).rstrip("/"), json={"name": "theirs"}).raise_for_status()
    with (
        closing(ChromaStore(chroma_server.url, database=database)) as store,
        pytest.raises(StartupRefused, match="not one of this service"),
    ):
        store.prepare(CollectionSpec("theirs", 4, "s"), deadline)
    assert failure(lambda: store.drop("theirs", deadline)).cause == "not_ours"


def test_a_collection_that_was_made_anew_is_found_again(
    chroma: ChromaStore, api: httpx.Client, deadline: Deadline
) -> None:
    """Case 147. The server knows it by another id then."""
    api.delete("items").raise_for_status()
    assert failure(lambda: chroma.write("items", [put(row(1))], deadline)).cause == "collection_missing"
    chroma.prepare(SPEC, deadline)
    assert chroma.write("items", [put(row(1))], deadline) == [APPLIED]


def test_metadata_is_at_top_level_and_the_text_is_the_document(
    chroma: ChromaStore, api: httpx.Client, deadline: Deadline
) -> None:
    chroma.write("items", [put(row(1), text="words", metadata={"color": "red", "n": 1})], deadline)
    chroma.write("items", [put(row(1), 1, text="words", metadata={"color": "blue"})], deadline)
    id_ = api.get("items").json()["id"]
    found = api.post(f"{id_}/get", json={"include": ["metadatas", "documents"]}).json()
    [metadata] = found["metadatas"]
    assert found["documents"] == ["words"]
    assert {name for name in metadata if not name.startswith(STAMP_KEY)} == {"color"}


def test_an_older_write_is_seen_by_the_read_before(chroma: ChromaStore, deadline: Deadline) -> None:
    chroma.write("items", [put(row(1), 9)], deadline)
    assert chroma.write("items", [put(row(1), 5), patch(row(1), 5)], deadline) == [SUPERSEDED] * 2


@pytest.mark.parametrize("name", ["", "$set", "#hash", "chroma:x", "_vectide_row"])
def test_a_name_that_chroma_does_not_keep_is_refused_and_named(
    chroma: ChromaStore, deadline: Deadline, name: str
) -> None:
    seen = failure(lambda: chroma.write("items", [put(row(1), metadata={name: "secret"})], deadline))
    assert (seen.kind, seen.cause) == (Kind.REFUSED, "metadata_name")
    assert repr(name) in seen.detail
    assert "secret" not in seen.detail


def test_filters_compare_what_became_of_a_value(chroma: ChromaStore, deadline: Deadline) -> None:
    metadata = {"nested": '{"x":1}', "many": ["a", "b"], "n": 2**60, "price": 0.5}
    chroma.write("items", [put(row(1), metadata=metadata), put(row(2), metadata={"n": 1})], deadline)
    same: dict[str, Any] = {"nested": {"x": 1}, "many": ["a", "b"], "n": 2**60, "price": 0.5}
    assert [hit.row for hit in chroma.search("items", vector(1.0), 5, deadline, same)] == [row(1)]
    for name in same:
        assert chroma.search("items", vector(1.0), 5, deadline, {**same, name: "other"}) == []


def test_more_removals_than_a_page_are_made(chroma: ChromaStore, deadline: Deadline) -> None:
    rows = [row(i) for i in range(400)]
    for start in (0, 200):
        chroma.write("items", [put(one) for one in rows[start : start + 200]], deadline)
    chroma.write("items", [Remove(one, ()) for one in rows[:350]], deadline)
    assert chroma.count("items", deadline) == 50


# --- late writers ---------------------------------------------------------------------------------------


class Suspended(ChromaStore):
    """Does something between the read and the change of its next write."""

    meanwhile: Callable[[], object] | None = None

    def _fetch(self, *arguments: Any) -> Any:
        held = super()._fetch(*arguments)
        act, self.meanwhile = self.meanwhile, None
        if act is not None:
            act()
        return held


def test_a_late_put_of_a_row_that_was_deleted_since_does_not_bring_it_back(
    chroma_server: ChromaServer, database: str, chroma: ChromaStore, deadline: Deadline
) -> None:
    """Invariant 3: the store updates what is there, and nothing else. Its neighbours are written."""
    late = [replace(put(row(i), 5, text="late"), only_if_present=True) for i in (1, 2)]
    chroma.write("items", [put(row(1), 1), put(row(2), 1)], deadline)
    with closing(Suspended(chroma_server.url, database=database)) as zombie:
        zombie.meanwhile = lambda: chroma.write("items", [Remove(row(1), ())], deadline)
        assert zombie.write("items", [*late, put(row(3), 5)], deadline) == [MISSING, APPLIED, APPLIED]
    found = chroma.stamps("items", [row(1), row(2), row(3)], deadline)
    assert found == [None, stamp(5, text="late"), stamp(5)]

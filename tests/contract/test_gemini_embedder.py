"""Gemini: what its API does that no other provider does; the rest is in test_providers.py."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import httpx
import numpy as np
import pytest

from vectide.core.failures import Failure, Kind
from vectide.embedders.bounded_http import HTTP_ERRORS, failure_of_http
from vectide.embedders.gemini_embed import GeminiEmbedder
from vectide.embedders.gemini_failures import failure_of
from vectide.embedders.hashing import expected_vector
from vectide.jobs.executor import SystemClock
from vectide.ports import AdapterError, Deadline
from vectide.testing.embedding_apis import Call, Gemini
from vectide.testing.embedding_contract import QUERY_PROMPT
from vectide.testing.embedding_server import Contract, EmbeddingServer


def within(seconds: float = 20) -> Deadline:
    return Deadline.after(SystemClock(), seconds)


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with EmbeddingServer(Contract(16, "k", max_items=100, api=Gemini()), record_texts=True) as running:
        yield running


Make = Callable[..., GeminiEmbedder]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[GeminiEmbedder] = []

    def maker(
        server: EmbeddingServer, model: str = "gemini-embedding-001", **settings: Any
    ) -> GeminiEmbedder:
        given = {"dimensions": 16, **settings}
        made.append(GeminiEmbedder(model, base_url=server.address, api_key="k", **given))
        return made[-1]

    yield maker
    for embedder in made:
        embedder.close()


def prepared(embedder: GeminiEmbedder) -> GeminiEmbedder:
    embedder.prepare(within())
    return embedder


@pytest.mark.parametrize("model", ["gemini-embedding-001", "gemini-embedding-2", "models/gemini-embedding-2"])
def test_documents_and_queries_are_told_apart_as_the_model_wants_it(
    server: EmbeddingServer, make: Make, model: str
) -> None:
    """The server refuses task types for the model that reads them in the text."""
    embedder = prepared(make(server, model))
    document = embedder.embed(["a chair"], within()).vectors[0]
    query = embedder.embed_query("a chair", within())
    assert np.allclose(document, expected_vector("a chair", 16), atol=1e-6)
    assert np.allclose(query, expected_vector(QUERY_PROMPT + "a chair", 16), atol=1e-6)
    assert embedder.space == f"gemini/{model.removeprefix('models/')}/16/document"


def test_shortened_vectors_are_scaled_to_unit_length(make: Make) -> None:
    def long(text: str, dimensions: int) -> Any:
        return expected_vector(text, dimensions) * 3

    with EmbeddingServer(Contract(16, api=Gemini()), vectors=long) as server:
        short = prepared(make(server)).embed(["a"], within()).vectors
        whole = prepared(make(server, dimensions=None)).embed(["a"], within()).vectors
    assert np.linalg.norm(short[0]) == pytest.approx(1, abs=1e-6)
    assert np.linalg.norm(whole[0]) == pytest.approx(3, abs=1e-5)


def test_text_that_would_be_cut_off_is_refused_before_it_is_embedded(
    server: EmbeddingServer, make: Make
) -> None:
    """Case 134: the API says nothing when it cuts a text off."""
    embedder = prepared(make(server))
    server.forget()
    fits = "word " * 1600  # 8,000 bytes, 2,000 tokens
    assert len(embedder.embed([fits], within()).vectors) == 1
    with pytest.raises(AdapterError, match="2250 tokens, the model reads 2048") as caught:
        embedder.embed(["short", "word " * 1800], within())
    assert (caught.value.failure.kind, caught.value.failure.cause) == (Kind.REFUSED, "text_too_long")
    assert server.texts() == [fits]


def test_length_of_other_models_is_asked_for_or_told(make: Make) -> None:
    with EmbeddingServer(Contract(16, max_text_tokens=30, api=Gemini())) as small:
        for settings in ({}, {"text_tokens": 20}):
            limit = settings.get("text_tokens", 30)
            embedder = prepared(make(small, "tuned", **settings))
            with pytest.raises(AdapterError, match=f"40 tokens, the model reads {limit}"):
                embedder.embed(["word " * 32], within())


class Odd(Gemini):
    """Answers with ``body``, whatever is asked."""

    def __init__(self, body: Any) -> None:
        self.body = body

    def reply(self, call: Call, items: list[dict[str, Any]], tokens: int) -> Any:
        return self.body

    def aside(self, path: str, body: bytes, max_text_tokens: int) -> dict[str, Any] | None:
        return {}


@pytest.mark.parametrize(
    ("body", "kind", "cause"),
    [
        ({}, Kind.INVALID, "malformed"),
        ([], Kind.INVALID, "malformed"),
        ({"error": {"code": 500}}, Kind.TRANSIENT, "error_in_answer"),
        ({"embeddings": []}, Kind.INVALID, "wrong_count"),
        ({"embeddings": [{"values": []}]}, Kind.INVALID, "wrong_dimension"),
        ({"embeddings": [{"values": "AAAA"}]}, Kind.INVALID, "malformed"),
        ({"embeddings": [{"values": [0.0] * 16}]}, Kind.INVALID, "zero_vector"),
        ({"embeddings": [{"values": [1e300] * 16}]}, Kind.INVALID, "not_finite"),
    ],
)
def test_answer_of_another_shape_has_a_cause(make: Make, body: Any, kind: Kind, cause: str) -> None:
    with EmbeddingServer(Contract(16, api=Odd(body))) as server:
        embedder = GeminiEmbedder("gemini-embedding-001", base_url=server.address, api_key="k", dimensions=16)
        with pytest.raises(AdapterError) as caught:
            embedder.embed(["a"], within())
        with pytest.raises(AdapterError) as uncounted:
            embedder.embed(["a" * 5000], within())
        embedder.close()
    assert (caught.value.failure.kind, caught.value.failure.cause) == (kind, cause)
    assert uncounted.value.failure.cause == "not_json"


# --- errors ---------------------------------------------------------------------------------------------


def google_error(*details: Mapping[str, Any], status: str = "RESOURCE_EXHAUSTED") -> bytes:
    """An error answer as Google writes it."""
    return json.dumps({"error": {"code": 429, "message": "m", "status": status, "details": details}}).encode()


QUOTA = "type.googleapis.com/google.rpc.QuotaFailure"
RETRY = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.5s"}


def test_pause_that_the_answer_asks_for_is_obeyed() -> None:
    """Case 123. It is in the body, and a header wins."""
    assert failure_of(429, {}, google_error(RETRY)) == Failure(
        Kind.THROTTLED, "rate_limited", "status 429 RESOURCE_EXHAUSTED", 34.5
    )
    assert failure_of(429, {"retry-after": "7"}, google_error(RETRY)).retry_after_s == 7
    assert failure_of(503, {}, google_error(RETRY, status="UNAVAILABLE")).retry_after_s == 34.5
    assert failure_of(400, {}, google_error(RETRY, status="INVALID_ARGUMENT")).retry_after_s is None


@pytest.mark.parametrize(
    ("quota", "kind", "cause"),
    [
        ("EmbedContentRequestsPerMinutePerProjectPerModel", Kind.THROTTLED, "rate_limited"),
        ("EmbedContentRequestsPerDayPerProjectPerModel-FreeTier", Kind.OPERATOR, "quota_exhausted"),
    ],
)
def test_quota_of_the_day_halts_and_that_of_the_minute_waits(quota: str, kind: Kind, cause: str) -> None:
    """Case 127."""
    body = google_error({"@type": QUOTA, "violations": [{"quotaId": quota}]}, RETRY)
    failure = failure_of(429, {}, body)
    assert (failure.kind, failure.cause) == (kind, cause)


def test_reason_of_an_error_is_understood_without_its_message() -> None:
    detail = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
    failure = failure_of(400, {}, google_error(detail, status="INVALID_ARGUMENT"))
    assert (failure.kind, failure.cause) == (Kind.OPERATOR, "unauthorized")


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"error": "m"}', b'{"error": {"details": [1, {"violations": [2]}]}}']
)
def test_error_of_another_shape_goes_by_its_status(body: bytes) -> None:
    assert failure_of(429, {}, body).kind is Kind.THROTTLED
    assert failure_of(502, {}, body).kind is Kind.TRANSIENT


def test_every_exception_of_the_http_client_is_mapped() -> None:
    every = {
        one
        for one in vars(httpx).values()
        if isinstance(one, type) and issubclass(one, Exception) and not issubclass(one, Warning)
    }
    assert len(every) > 20
    for kind in every:
        assert issubclass(kind, HTTP_ERRORS)
        assert failure_of_http(kind.__new__(kind)).cause != "unexpected"
    assert failure_of_http(ZeroDivisionError()).cause == "unexpected"

"""Cohere: what its SDK and its API do that no other provider does; the rest is in test_providers.py."""

from __future__ import annotations

import pkgutil
import time
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import httpx
import pytest

from vectide.core.failures import Failure, Kind
from vectide.embedders.cohere_embed import CohereEmbedder
from vectide.embedders.cohere_failures import ERRORS, failure_of
from vectide.ports import AdapterError, Deadline
from vectide.testing.embedding_apis import Call, Cohere
from vectide.testing.embedding_server import Contract, EmbeddingServer, Fault

WALL_S = 1_800_000_000


class RealClock:
    def monotonic(self) -> float:
        return time.monotonic()

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000


def within(seconds: float = 20) -> Deadline:
    return Deadline.after(RealClock(), seconds)


class Odd(Cohere):
    """Answers with ``body``, whatever is asked."""

    def __init__(self, body: Any) -> None:
        self.body = body

    def reply(self, call: Call, items: list[dict[str, Any]], tokens: int) -> Any:
        return self.body


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with EmbeddingServer(Contract(8, max_text_tokens=20, api=Cohere())) as running:
        yield running


def failure_from(server: EmbeddingServer, text: str = "a", **settings: Any) -> Failure:
    embedder = CohereEmbedder("m", base_url=server.address, api_key="k", dimensions=8, **settings)
    try:
        with pytest.raises(AdapterError) as caught:
            embedder.embed([text], within())
    finally:
        embedder.close()
    return caught.value.failure


def test_text_that_is_too_long_is_refused_and_never_cut_off(server: EmbeddingServer) -> None:
    """Case 134: the API cuts texts off unless it is told not to."""
    failure = failure_from(server, "much too long " * 40)
    assert (failure.kind, failure.cause) == (Kind.REFUSED, "text_too_long")


@pytest.mark.parametrize(
    ("body", "kind", "cause"),
    [
        ({"message": "try later"}, Kind.TRANSIENT, "error_in_answer"),
        ({}, Kind.TRANSIENT, "error_in_answer"),
        ([], Kind.INVALID, "malformed"),
        (None, Kind.TRANSIENT, "error_in_answer"),
        ({"embeddings": {}}, Kind.INVALID, "wrong_count"),
        ({"embeddings": []}, Kind.INVALID, "malformed"),
        ({"embeddings": {"base64": ["not base64!"]}}, Kind.INVALID, "malformed"),
        ({"embeddings": {"base64": ["AAAA"]}}, Kind.INVALID, "malformed"),
        ({"embeddings": {"base64": [None]}}, Kind.INVALID, "malformed"),
        ({"embeddings": {"base64": 7}}, Kind.INVALID, "malformed"),
        ({"embeddings": {"float": ["x"]}}, Kind.INVALID, "malformed"),
        ({"embeddings": {"float": [[]]}}, Kind.INVALID, "wrong_dimension"),
        ({"embeddings": {"int8": [[1] * 8]}}, Kind.INVALID, "wrong_count"),
    ],
)
def test_answer_of_another_shape_has_a_cause(body: Any, kind: Kind, cause: str) -> None:
    with EmbeddingServer(Contract(8, api=Odd(body))) as server:
        failure = failure_from(server)
    assert (failure.kind, failure.cause) == (kind, cause)


def test_tokens_that_are_not_told_do_not_cost_the_vectors() -> None:
    body = {"embeddings": {"float": [[1.0] * 8]}, "meta": {"billed_units": {"input_tokens": "many"}}}
    with EmbeddingServer(Contract(8, api=Odd(body))) as server:
        embedder = CohereEmbedder("m", base_url=server.address, api_key="k", dimensions=8)
        answer = embedder.embed(["a"], within())
        embedder.close()
    assert answer.tokens is None
    assert answer.vectors.tolist() == [[1.0] * 8]


def test_trial_key_that_has_used_up_its_month_halts(server: EmbeddingServer) -> None:
    """Case 127; the wording is that of Cohere's list of errors."""
    wording = "You are using a Trial key, which is limited to {} API calls / {}."
    for calls, unit, kind, cause in (
        (1000, "month", Kind.OPERATOR, "quota_exhausted"),
        (100, "minute", Kind.THROTTLED, "rate_limited"),
    ):
        server.plan(Fault("status", status=429, message=wording.format(calls, unit), times=1))
        failure = failure_from(server)
        assert (failure.kind, failure.cause) == (kind, cause)


def test_end_of_a_rate_limit_is_told_as_a_point_in_time(server: EmbeddingServer) -> None:
    """Case 123."""
    reset = str(int(time.time()) + 60)
    server.plan(Fault("status", status=429, headers={"X-RateLimit-Reset": reset}))
    assert failure_from(server).retry_after_s == pytest.approx(60, abs=30)


def test_environment_does_not_choose_the_server(
    server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CO_API_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("CO_API_KEY", "key-of-another")
    embedder = CohereEmbedder("m", base_url=server.address, api_key="k")
    embedder.prepare(within())
    embedder.close()


# --- every error is mapped ------------------------------------------------------------------------------


def _exceptions() -> list[type[Exception]]:
    """Those of the packages of the SDK that its client uses, and of its HTTP client."""
    modules = [import_module("httpx")]
    for name in ("cohere.errors", "cohere.core"):
        package = import_module(name)
        found = pkgutil.walk_packages(package.__path__, f"{name}.")
        modules += [package, *(import_module(module.name) for module in found)]
    every = {value for module in modules for value in vars(module).values() if isinstance(value, type)}
    return sorted(
        (
            one
            for one in every
            if issubclass(one, Exception)
            and not issubclass(one, Warning)
            and one.__module__.split(".")[0] in ("httpx", "cohere")
        ),
        key=lambda one: one.__name__,
    )


def _instance_of(kind: type[Exception]) -> Exception:
    if kind.__module__.startswith("cohere.errors"):
        made: Exception = kind(body={"message": "m"}, headers={})  # type: ignore[call-arg]
        return made
    made = kind.__new__(kind)
    vars(made).update(status_code=None, headers=None, body=None)
    return made


def test_enumeration_finds_the_exceptions() -> None:
    names = {kind.__name__ for kind in _exceptions()}
    assert {"TooManyRequestsError", "ApiError", "ParsingError", "SSEError", "ReadTimeout"} <= names
    assert sum(kind.__module__.startswith("cohere.errors") for kind in _exceptions()) >= 12


@pytest.mark.parametrize("kind", _exceptions())
def test_every_exception_of_the_sdk_and_its_http_client_is_mapped(kind: type[Exception]) -> None:
    assert issubclass(kind, ERRORS)
    failure = failure_of(_instance_of(kind))
    assert failure.cause not in ("unexpected", "unexpected_status")


def test_unknown_exception_is_never_blamed_on_a_record() -> None:
    assert failure_of(ZeroDivisionError()) == Failure(Kind.TRANSIENT, "unexpected", "ZeroDivisionError")


def test_body_that_is_no_text_is_a_bad_answer_of_the_moment() -> None:
    error = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
    assert failure_of(error).kind is Kind.TRANSIENT
    assert failure_of(httpx.ReadTimeout("m")).cause == "timeout"

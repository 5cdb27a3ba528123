"""The OpenAI-compatible embedder against a real server that misbehaves on demand (cases 123 to 140)."""

from __future__ import annotations

import logging
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from importlib import import_module
from typing import Any

import httpx2
import msgspec
import numpy as np
import openai
import pytest

from vectide.core.failures import Failure, Kind
from vectide.core.pace import Allowance, Left
from vectide.embedders.hashing import expected_vector
from vectide.embedders.http_failures import allowance_of, duration_s, retry_after_s
from vectide.embedders.openai_answer import decode
from vectide.embedders.openai_compatible import OpenAIEmbedder
from vectide.embedders.openai_failures import failure_of
from vectide.ports import AdapterError, Deadline, StartupRefused
from vectide.testing.embedding_apis import Api
from vectide.testing.embedding_limits import Buckets
from vectide.testing.embedding_server import Contract, EmbeddingServer, Fault, RemoteControl

DIMENSIONS = 32
TEXTS = [f"text number {n}" for n in range(8)]
WALL_S = 1_800_000_000.0


class RealClock:
    def monotonic(self) -> float:
        return time.monotonic()

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000


def within(seconds: float = 20) -> Deadline:
    return Deadline.after(RealClock(), seconds)


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with EmbeddingServer(dimensions=DIMENSIONS, api_key="right-key", record_texts=True) as running:
        yield running


@pytest.fixture
def make() -> Iterator[Callable[..., OpenAIEmbedder]]:
    made: list[OpenAIEmbedder] = []

    def maker(url: str, **settings: object) -> OpenAIEmbedder:
        arguments = {"model": "stub", "api_key": "right-key", "base_url": url} | settings
        made.append(OpenAIEmbedder(**arguments))  # type: ignore[arg-type]
        return made[-1]

    yield maker
    for embedder in made:
        embedder.close()


@pytest.fixture
def embedder(server: EmbeddingServer, make: Callable[..., OpenAIEmbedder]) -> OpenAIEmbedder:
    prepared = make(server.url)
    prepared.prepare(within())
    server.forget()
    return prepared


def failure_from(embedder: OpenAIEmbedder, texts: list[str] = TEXTS, seconds: float = 20) -> Failure:
    with pytest.raises(AdapterError) as caught:
        embedder.embed(texts, within(seconds))
    return caught.value.failure


def succeeds(embedder: OpenAIEmbedder) -> bool:
    try:
        embedder.embed(TEXTS, within())
    except AdapterError:
        return False
    return True


def expected(texts: list[str]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.stack([expected_vector(text, DIMENSIONS) for text in texts])


# --- answers --------------------------------------------------------------------------------------------


def test_vectors_arrive_exactly_as_sent(embedder: OpenAIEmbedder, server: EmbeddingServer) -> None:
    answer = embedder.embed(TEXTS, within())
    assert np.array_equal(answer.vectors, expected(TEXTS))
    assert answer.tokens == server.stats().tokens
    assert answer.vectors.flags.writeable


def test_server_that_answers_with_lists_is_understood(make: Callable[..., OpenAIEmbedder]) -> None:
    with EmbeddingServer(dimensions=DIMENSIONS, base64=False) as server:
        embedder = make(server.url)
        embedder.prepare(within())
        assert np.allclose(embedder.embed(TEXTS, within()).vectors, expected(TEXTS), atol=1e-7)


def test_shuffled_answer_puts_the_right_vectors_on_the_right_rows(
    embedder: OpenAIEmbedder, server: EmbeddingServer
) -> None:
    """Case 130."""
    server.plan(Fault("shuffled", times=1))
    assert np.array_equal(embedder.embed(TEXTS, within()).vectors, expected(TEXTS))


def test_a_call_makes_exactly_one_request_whatever_the_answer(
    embedder: OpenAIEmbedder, server: EmbeddingServer
) -> None:
    for status in (500, 429, 408, 409):
        server.forget()
        server.plan(Fault("status", status=status, times=1))
        failure_from(embedder)
        assert server.stats().calls == 1


BAD_ANSWERS = [
    (Fault("one_short"), Kind.INVALID, "wrong_count"),
    (Fault("one_extra"), Kind.INVALID, "wrong_count"),
    (Fault("empty"), Kind.INVALID, "wrong_count"),
    (Fault("repeated_index"), Kind.INVALID, "wrong_order"),
    (Fault("nan"), Kind.INVALID, "not_finite"),
    (Fault("null"), Kind.INVALID, "not_finite"),
    (Fault("zero"), Kind.INVALID, "zero_vector"),
    (Fault("nan", marker="number 3"), Kind.INVALID, "not_finite"),
    (Fault("wrong_dimension"), Kind.OPERATOR, "wrong_dimension"),
    (Fault("wrong_dimension", marker="number 3"), Kind.INVALID, "wrong_dimension"),
    (Fault("html"), Kind.TRANSIENT, "not_json"),
    (Fault("error_200"), Kind.TRANSIENT, "error_in_answer"),
    (Fault("truncated"), Kind.TRANSIENT, "connection"),
    (Fault("cut"), Kind.TRANSIENT, "truncated"),
    (Fault("reset_before"), Kind.TRANSIENT, "connection"),
    (Fault("reset_after"), Kind.TRANSIENT, "connection"),
]


@pytest.mark.parametrize("base64", [True, False])
@pytest.mark.parametrize(
    ("fault", "kind", "cause"), BAD_ANSWERS, ids=[f"{f.kind}-{f.marker}" for f, *_ in BAD_ANSWERS]
)
def test_unusable_answer_has_its_own_cause_and_the_next_call_is_good(
    make: Callable[..., OpenAIEmbedder], fault: Fault, kind: Kind, cause: str, base64: bool
) -> None:
    """Cases 129, 131 and 136."""
    with EmbeddingServer(dimensions=DIMENSIONS, base64=base64) as server:
        embedder = make(server.url)
        embedder.prepare(within())
        server.plan(fault)
        failure = failure_from(embedder)
        assert (failure.kind, failure.cause) == (kind, cause)
        server.clear()
        assert np.allclose(embedder.embed(TEXTS, within()).vectors, expected(TEXTS), atol=1e-7)


REFUSALS = [
    (401, {"code": "invalid_api_key"}, Kind.OPERATOR, "unauthorized"),
    (402, {}, Kind.OPERATOR, "quota_exhausted"),
    (403, {}, Kind.OPERATOR, "forbidden"),
    (404, {"code": "model_not_found"}, Kind.OPERATOR, "not_found"),
    (405, {}, Kind.OPERATOR, "rejected"),
    (408, {}, Kind.TRANSIENT, "timeout"),
    (409, {}, Kind.TRANSIENT, "server_error"),
    (413, {}, Kind.TOO_LARGE, "too_large"),
    (424, {}, Kind.TRANSIENT, "server_error"),
    (429, {"code": "rate_limit_exceeded"}, Kind.THROTTLED, "rate_limited"),
    (429, {"code": "insufficient_quota"}, Kind.OPERATOR, "quota_exhausted"),
    (429, {"type": "insufficient_quota"}, Kind.OPERATOR, "quota_exhausted"),
    (500, {}, Kind.TRANSIENT, "server_error"),
    (503, {}, Kind.TRANSIENT, "server_error"),
    (529, {}, Kind.TRANSIENT, "server_error"),
    (400, {"message": "something about the input"}, Kind.REFUSED, "refused"),
    (422, {"message": "validation"}, Kind.REFUSED, "refused"),
    (400, {"code": "invalid_api_key"}, Kind.OPERATOR, "unauthorized"),
    (400, {"message": "API key not valid. Please pass a valid API key."}, Kind.OPERATOR, "unauthorized"),
    (400, {"code": "model_not_found"}, Kind.OPERATOR, "not_found"),
    (
        400,
        {"message": "This model's maximum context length is 8192 tokens, however you requested 9000 tokens"},
        Kind.REFUSED,
        "text_too_long",
    ),
    (
        400,
        {
            "message": "Requested 430105 tokens, max 300000 tokens per request",
            "type": "max_tokens_per_request",
        },
        Kind.TOO_LARGE,
        "too_large",
    ),
    (
        400,
        {"message": "Invalid 'input': array too long. Expected an array with maximum length 2048"},
        Kind.TOO_LARGE,
        "too_large",
    ),
    (422, {"message": "batch size 64 > maximum allowed batch size 32"}, Kind.TOO_LARGE, "too_large"),
    (400, {"message": "at most 100 requests can be in one batch"}, Kind.TOO_LARGE, "too_large"),
]


@pytest.mark.parametrize(("status", "error", "kind", "cause"), REFUSALS)
def test_error_status_means_what_the_table_says(
    embedder: OpenAIEmbedder,
    server: EmbeddingServer,
    status: int,
    error: dict[str, str],
    kind: Kind,
    cause: str,
) -> None:
    """Cases 123, 125, 127, 128 and 134."""
    server.plan(Fault("status", status=status, times=1, **error))  # type: ignore[arg-type]
    failure = failure_from(embedder)
    assert (failure.kind, failure.cause) == (kind, cause)
    assert str(status) in failure.detail


def test_only_the_marked_text_is_refused(embedder: OpenAIEmbedder, server: EmbeddingServer) -> None:
    server.plan(Fault("status", status=400, marker="number 3"))
    assert failure_from(embedder).kind is Kind.REFUSED
    assert failure_from(embedder, TEXTS[3:4]).kind is Kind.REFUSED
    good = TEXTS[:3] + TEXTS[4:]
    assert np.array_equal(embedder.embed(good, within()).vectors, expected(good))


def test_limits_of_the_server_are_told_apart(make: Callable[..., OpenAIEmbedder]) -> None:
    """Case 137: too many inputs or tokens in one request, against one text that is too long."""
    with EmbeddingServer(
        Contract(dimensions=DIMENSIONS, max_items=4, max_tokens=40, max_text_tokens=20)
    ) as server:
        embedder = make(server.url, dimensions=DIMENSIONS)
        assert failure_from(embedder, ["a"] * 5).kind is Kind.TOO_LARGE
        assert failure_from(embedder, ["fifteen tokens " * 4] * 3).kind is Kind.TOO_LARGE
        assert failure_from(embedder, ["much too long " * 40]).cause == "text_too_long"


@pytest.mark.parametrize(
    "text", ["plain English prose", "日本語", "🎉" * 7, "e4eaaaf2-d142-11e1", "é", "\x00", "a"]
)
def test_keeping_the_token_limit_keeps_the_providers_with_certainty(text: str) -> None:
    """Case 137: a token is never less than a byte, so this many estimated tokens never exceed the cap."""
    embedder = OpenAIEmbedder("m", api_key="k", max_tokens=300_000)
    limit = embedder.limits.max_tokens
    assert limit is not None
    repeats = limit // embedder.count_tokens(text)
    assert repeats * len(text.encode()) <= 300_000
    embedder.close()


# --- deadlines and connections --------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Fault("delay", every_s=5), Fault("drip", every_s=0.25)])
def test_slow_answer_ends_with_the_deadline(
    embedder: OpenAIEmbedder, server: EmbeddingServer, fault: Fault
) -> None:
    """Case 138: neither a server that is silent nor one that drips holds a worker past its deadline."""
    server.plan(fault)
    started = time.monotonic()
    failure = failure_from(embedder, seconds=0.5)
    assert (failure.kind, failure.cause) == (Kind.TRANSIENT, "timeout")
    assert time.monotonic() - started < 2


def test_drip_within_the_deadline_is_a_good_answer(embedder: OpenAIEmbedder, server: EmbeddingServer) -> None:
    server.plan(Fault("drip", every_s=0.01))
    assert np.array_equal(embedder.embed(TEXTS, within()).vectors, expected(TEXTS))


def test_unreachable_server_is_transient(make: Callable[..., OpenAIEmbedder]) -> None:
    """Case 129."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        embedder = make(f"http://127.0.0.1:{taken.getsockname()[1]}/v1", dimensions=DIMENSIONS)
        failure = failure_from(embedder)
    assert (failure.kind, failure.cause) == (Kind.TRANSIENT, "connection")


def test_server_that_comes_back_is_used_again(make: Callable[..., OpenAIEmbedder]) -> None:
    with EmbeddingServer(dimensions=DIMENSIONS) as first:
        embedder = make(first.url, dimensions=DIMENSIONS)
        embedder.embed(TEXTS, within())
        port = first.port
    assert failure_from(embedder).kind is Kind.TRANSIENT
    with EmbeddingServer(dimensions=DIMENSIONS, port=port):
        assert np.array_equal(embedder.embed(TEXTS, within()).vectors, expected(TEXTS))


def test_calls_of_many_threads_overlap(embedder: OpenAIEmbedder, server: EmbeddingServer) -> None:
    server.latency_ms = 100
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: embedder.embed(TEXTS, within()).vectors, range(8)))
    assert all(np.array_equal(answer, expected(TEXTS)) for answer in answers)
    assert server.stats().most_at_once >= 4


def test_endless_answer_is_not_read_to_the_end(make: Callable[..., OpenAIEmbedder]) -> None:
    def huge(text: str, dimensions: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        return np.ones(1_000_000, dtype=np.float32)

    with EmbeddingServer(dimensions=4, vectors=huge) as server:
        assert failure_from(make(server.url, dimensions=4)).cause == "answer_too_large"


# --- start-up -------------------------------------------------------------------------------------------


def test_prepare_learns_the_dimension(server: EmbeddingServer, make: Callable[..., OpenAIEmbedder]) -> None:
    embedder = make(server.url)
    with pytest.raises(RuntimeError, match="prepare"):
        _ = embedder.dimensions
    embedder.prepare(within())
    assert embedder.dimensions == DIMENSIONS
    assert embedder.space == f"openai/stub/{DIMENSIONS}"
    assert server.stats().calls == 1


def test_configured_dimension_is_asked_for(
    server: EmbeddingServer, make: Callable[..., OpenAIEmbedder]
) -> None:
    embedder = make(server.url, dimensions=16)
    embedder.prepare(within())
    assert embedder.embed(TEXTS, within()).vectors.shape == (len(TEXTS), 16)


def test_dimensions_of_known_models_need_no_call(make: Callable[..., OpenAIEmbedder]) -> None:
    embedder = make("http://127.0.0.1:9/v1", model="text-embedding-3-large")
    assert embedder.space == "openai/text-embedding-3-large/3072"


def test_other_dimension_at_start_names_both_numbers(
    server: EmbeddingServer, make: Callable[..., OpenAIEmbedder]
) -> None:
    server.plan(Fault("wrong_dimension", times=1))
    with pytest.raises(StartupRefused, match=r"17 dimensions.*16 are configured"):
        make(server.url, dimensions=16).prepare(within())


def test_wrong_key_at_start_is_refused_with_what_to_do(
    server: EmbeddingServer, make: Callable[..., OpenAIEmbedder]
) -> None:
    """Case 128."""
    with pytest.raises(StartupRefused, match="VECTIDE_EMBEDDER__API_KEY") as caught:
        make(server.url, api_key="wrong-key").prepare(within())
    assert "wrong-key" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "advice"),
    [(403, "permissions"), (404, "VECTIDE_EMBEDDER__MODEL"), (400, "dimensions"), (405, "BASE_URL")],
)
def test_refusal_at_start_says_what_to_do(
    server: EmbeddingServer, make: Callable[..., OpenAIEmbedder], status: int, advice: str
) -> None:
    server.plan(Fault("status", status=status))
    with pytest.raises(StartupRefused, match=advice):
        make(server.url).prepare(within())


@pytest.mark.parametrize(
    "fault",
    [
        Fault("status", status=503),
        Fault("status", status=429),
        Fault("status", status=429, code="insufficient_quota"),
        Fault("reset_before"),
        Fault("html"),
    ],
    ids=["503", "429", "quota", "reset", "html"],
)
def test_what_can_pass_at_start_is_waited_for(
    server: EmbeddingServer, make: Callable[..., OpenAIEmbedder], fault: Fault
) -> None:
    server.plan(fault)
    embedder = make(server.url)
    with pytest.raises(AdapterError):
        embedder.prepare(within())
    server.clear()
    embedder.prepare(within())
    assert embedder.dimensions == DIMENSIONS


@pytest.mark.parametrize("key", ["two words", "line\nend", "café", "tab\t"])
def test_key_that_no_header_can_carry_is_refused_unseen(key: str) -> None:
    with pytest.raises(StartupRefused, match="API_KEY") as caught:
        OpenAIEmbedder("m", api_key=key)
    assert key not in str(caught.value)


def test_openai_itself_needs_a_key_and_a_server_of_ones_own_does_not() -> None:
    with pytest.raises(StartupRefused, match="API_KEY"):
        OpenAIEmbedder("m")
    OpenAIEmbedder("m", base_url="http://localhost:1/v1").close()


@pytest.mark.parametrize(
    "url", ["localhost:8000", "ftp://host/v1", "http://", "/v1", "http://[bad", "http://host:port"]
)
def test_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(StartupRefused, match="BASE_URL"):
        OpenAIEmbedder("m", base_url=url, api_key="k")


# --- nothing leaks (invariant 13) -----------------------------------------------------------------------


CHATTY = {"openai", "httpx2", "httpcore2"}


def test_failure_shows_neither_the_text_nor_the_key(
    embedder: OpenAIEmbedder, server: EmbeddingServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    remark = "a private customer remark"
    echo = {"message": f"cannot embed: {remark}", "code": f"bad {remark}", "type": "invalid_request_error"}
    server.plan(Fault("status", status=400, times=1, **echo))  # type: ignore[arg-type]
    with pytest.raises(AdapterError) as caught:
        embedder.embed([remark], within())
    embedder.embed([remark], within())
    assert caught.value.failure.detail == "status 400 invalid_request_error"
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert not [each for each in caplog.records if each.name.split(".")[0] in CHATTY]
    assert remark not in caplog.text
    assert "right-key" not in caplog.text


# --- every error is mapped ------------------------------------------------------------------------------

#: Never raised themselves: only their subclasses are.
ABSTRACT = {openai.OpenAIError, openai.APIError}


def exceptions_of(*modules: str) -> list[type[Exception]]:
    found = {
        value
        for name in modules
        for value in list(vars(import_module(name)).values())
        if isinstance(value, type) and issubclass(value, Exception) and not issubclass(value, Warning)
    }
    own = {
        each
        for each in found
        if each.__module__.split(".")[0] == modules[0].split(".")[0] and not each.__name__.startswith("_")
    }
    return sorted(own - ABSTRACT, key=lambda each: each.__name__)


def instance_of(kind: type[Exception]) -> Exception:
    made = kind.__new__(kind)
    if isinstance(made, openai.APIStatusError):
        made.code = made.type = None
        made.message = "message"
        made.body = None
        made.status_code = getattr(kind, "status_code", 500)
        made.response = httpx2.Response(made.status_code)
    return made


@pytest.mark.parametrize("kind", exceptions_of("openai", "openai._exceptions"))
def test_every_exception_of_the_sdk_is_mapped(kind: type[Exception]) -> None:
    failure = failure_of(instance_of(kind))
    assert failure.cause != "unexpected"


@pytest.mark.parametrize("kind", exceptions_of("httpx2"))
def test_every_exception_of_the_http_client_is_mapped(kind: type[Exception]) -> None:
    assert failure_of(instance_of(kind)).cause != "unexpected"


def test_enumeration_finds_the_exceptions() -> None:
    names = {each.__name__ for each in exceptions_of("openai", "openai._exceptions")}
    assert {"RateLimitError", "APITimeoutError", "InternalServerError", "SubjectTokenProviderError"} <= names
    assert len(exceptions_of("httpx2")) > 20


@pytest.mark.parametrize("status", range(400, 600))
def test_every_error_status_is_mapped(status: int) -> None:
    error = openai.APIStatusError("message", response=_response(status), body=None)
    assert failure_of(error).cause not in ("unexpected", "unexpected_status")


@pytest.mark.parametrize(
    "body",
    [
        {"error": "batch size 64 > maximum allowed batch size 32", "error_type": "Validation"},
        {"detail": "batch size 64 > maximum allowed batch size 32"},
        {"error": {"message": "batch size 64 > maximum allowed batch size 32"}},
        "batch size 64 > maximum allowed batch size 32",
    ],
)
def test_wording_is_found_wherever_a_server_puts_it(
    make: Callable[..., OpenAIEmbedder], body: object
) -> None:
    class Odd(Api):
        def error(self, message: str, *, code: str | None, type_: str) -> Any:
            return body

    with EmbeddingServer(dimensions=DIMENSIONS, api=Odd()) as server:
        server.plan(Fault("status", status=422))
        assert failure_from(make(server.url, dimensions=DIMENSIONS)).kind is Kind.TOO_LARGE


def test_unknown_exception_is_never_blamed_on_a_record() -> None:
    assert failure_of(ZeroDivisionError()) == Failure(Kind.TRANSIENT, "unexpected", "ZeroDivisionError")


def _response(status: int, headers: dict[str, str] | None = None) -> httpx2.Response:
    return httpx2.Response(status, headers=headers, request=httpx2.Request("POST", "http://localhost"))


# --- Retry-After (cases 123 and 124) --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "0"}, 0),
        ({"retry-after": "3600"}, 3600),
        ({"retry-after": " 7 "}, 7),
        ({"retry-after": "99999999"}, 86_400),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": formatdate(WALL_S + 90, usegmt=True)}, 90),
        ({"retry-after": formatdate(WALL_S - 90, usegmt=True)}, 0),
        ({"retry-after": "Fri, 99 Foo 2026 00:00:00 GMT"}, None),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after-ms": "junk", "retry-after": "9"}, 9),
        ({"x-ratelimit-reset-requests": "6m0s"}, 360),
        ({"x-ratelimit-reset-requests": "6m0s", "x-ratelimit-reset-tokens": "12ms"}, 0.012),
        (
            {
                "x-ratelimit-reset-requests": "6m0s",
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-tokens": "12ms",
                "x-ratelimit-remaining-tokens": "100",
            },
            360,
        ),
        ({"x-ratelimit-reset-tokens": "junk"}, None),
        ({"x-ratelimit-reset": "30"}, 30),
        ({"x-ratelimit-reset": str(int(WALL_S) + 60)}, 60),
        ({"x-ratelimit-reset": str(int(WALL_S) - 60)}, 0),
        ({"x-ratelimit-reset": "soon"}, None),
        ({"x-ratelimit-reset": "30", "retry-after": "5"}, 5),
        ({"retry-after": "soon", "x-ratelimit-reset-tokens": "2s"}, 2),
    ],
)
def test_waiting_time_is_read_from_the_headers(headers: dict[str, str], seconds: float | None) -> None:
    """Cases 123 and 124."""
    assert retry_after_s(headers, WALL_S) == pytest.approx(seconds)


_LEFT = {
    **{"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "59"},
    **{"x-ratelimit-reset-requests": "1s", "x-ratelimit-limit-tokens": "150000"},
    **{"x-ratelimit-remaining-tokens": "149984", "x-ratelimit-reset-tokens": "6m0s"},
}


@pytest.mark.parametrize(
    ("changed", "allowance"),
    [
        ({}, Allowance(Left(59, 1), Left(149_984, 360))),
        ({"x-ratelimit-limit-tokens": "0"}, Allowance(Left(59, 1))),
        ({"x-ratelimit-limit-requests": "-1"}, Allowance(None, Left(149_984, 360))),
        ({"x-ratelimit-remaining-requests": "-1"}, Allowance(None, Left(149_984, 360))),
        ({"x-ratelimit-reset-requests": "soon"}, Allowance(None, Left(149_984, 360))),
        (dict.fromkeys(_LEFT, ""), None),
    ],
)
def test_what_is_left_of_the_limits_is_read_from_the_headers(
    changed: dict[str, str], allowance: Allowance | None
) -> None:
    """The first as in OpenAI's guide; other values as from Azure."""
    assert allowance_of(_LEFT | changed) == allowance


def test_the_limits_of_a_server_are_told_with_good_answers_and_with_refusals(
    make: Callable[..., OpenAIEmbedder],
) -> None:
    with EmbeddingServer(dimensions=DIMENSIONS, limiter=Buckets(2, 600)) as server:
        embedder = make(server.url)
        embedder.prepare(within())
        allowance = embedder.embed(TEXTS, within()).allowance
        assert allowance is not None
        assert allowance.requests is not None
        assert allowance.requests.remaining == 0
        assert 50 < allowance.requests.reset_s <= 60
        failure = failure_from(embedder)
        assert (failure.kind, failure.cause) == (Kind.THROTTLED, "rate_limited")
        assert failure.retry_after_s == pytest.approx(30, abs=10)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("12ms", 0.012),
        ("6m0s", 360),
        ("1h2m3.5s", 3723.5),
        ("1d", 86_400),
        ("250us", 0.00025),
        ("1.5", 1.5),
        ("0s", 0),
        ("", None),
        ("5x", None),
        ("m", None),
        ("-3s", None),
        ("1 h", None),
    ],
)
def test_duration_is_read(value: str, seconds: float | None) -> None:
    assert duration_s(value) == pytest.approx(seconds)


@pytest.mark.parametrize(("status", "kind"), [(429, Kind.THROTTLED), (503, Kind.TRANSIENT)])
def test_waiting_time_reaches_the_failure(
    embedder: OpenAIEmbedder, server: EmbeddingServer, status: int, kind: Kind
) -> None:
    """Case 123."""
    server.plan(Fault("status", status=status, headers={"Retry-After": "600"}))
    failure = failure_from(embedder)
    assert (failure.kind, failure.retry_after_s) == (kind, 600)


# --- decoding -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        (b"", "not_json"),
        (b"   ", "not_json"),
        (b"upstream connect error", "not_json"),
        (b'{"data": [', "truncated"),
        (b"[]", "malformed"),
        (b"null", "malformed"),
        (b"{}", "malformed"),
        (b'{"data": null}', "malformed"),
        (b'{"data": [{"index": 0}]}', "malformed"),
        (b'{"data": [{"index": 0, "embedding": null}]}', "malformed"),
        (b'{"data": [{"index": 0, "embedding": "not base64!"}]}', "malformed"),
        (b'{"data": [{"index": 0, "embedding": "AAAA"}]}', "malformed"),
        (b'{"data": [{"index": 0, "embedding": ["x"]}]}', "malformed"),
        (b'{"data": [{"index": 1, "embedding": [1.0]}]}', "wrong_order"),
        (b'{"error": {"message": "overloaded"}}', "error_in_answer"),
        (b"\xff\xfe", "not_json"),
    ],
)
def test_answer_that_cannot_be_decoded_has_a_cause(body: bytes, cause: str) -> None:
    with pytest.raises(AdapterError) as caught:
        decode(body, 1)
    assert caught.value.failure.cause == cause


def test_answer_without_indexes_is_taken_in_order() -> None:
    body = msgspec.json.encode({"data": [{"embedding": [1.0]}, {"embedding": [2.0]}]})
    vectors, tokens = decode(body, 2)
    assert [vector.tolist() for vector in vectors] == [[1.0], [2.0]]
    assert tokens is None


def test_usage_of_another_shape_does_not_cost_the_vectors() -> None:
    body = b'{"data": [{"index": 0, "embedding": "AACAPw=="}], "usage": {"total_tokens": "many"}}'
    (vector,), tokens = decode(body, 1)
    assert vector.tolist() == [1.0]
    assert tokens is None


# --- the server itself ----------------------------------------------------------------------------------


def test_server_counts_what_it_is_sent(embedder: OpenAIEmbedder, server: EmbeddingServer) -> None:
    embedder.embed(["a", "b"], within())
    server.plan(Fault("status", status=500, times=1))
    failure_from(embedder, ["b", "c"])
    embedder.embed(["c"], within())
    stats = server.stats()
    assert (stats.calls, stats.texts, stats.distinct_texts) == (3, 5, 3)
    assert (stats.texts_sent_twice, stats.texts_answered, stats.texts_answered_twice) == (2, 3, 0)
    assert stats.statuses == {"200": 2, "500": 1}
    assert stats.most_items == 2
    assert list(stats.call_times_s) == sorted(stats.call_times_s)
    assert server.texts() == ["a", "b", "b", "c", "c"]


def test_faults_come_after_a_number_of_calls_and_for_a_number_of_calls(
    embedder: OpenAIEmbedder, server: EmbeddingServer
) -> None:
    server.plan(Fault("status", status=503, after=1, times=2), Fault("status", status=404, after=1, times=1))
    assert [succeeds(embedder) for _ in range(6)] == [True, False, False, False, True, True]
    assert server.stats().statuses == {"200": 3, "503": 2, "404": 1}


def test_fault_ends_with_its_period(embedder: OpenAIEmbedder, server: EmbeddingServer) -> None:
    server.plan(Fault("status", status=503, for_s=0.3))
    assert failure_from(embedder).kind is Kind.TRANSIENT
    give_up_s = time.monotonic() + 10
    while not succeeds(embedder):
        assert time.monotonic() < give_up_s, "the fault did not end"


def test_server_runs_as_a_process_and_is_controlled_from_another(make: Callable[..., OpenAIEmbedder]) -> None:
    command = [sys.executable, "-m", "vectide.testing.embedding_server", "--dimensions", str(DIMENSIONS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            control = RemoteControl(url)
            control.plan(Fault("status", status=429, headers={"Retry-After": "3"}, times=1))
            embedder = make(url, dimensions=DIMENSIONS)
            assert failure_from(embedder).retry_after_s == 3
            assert np.array_equal(embedder.embed(TEXTS, within()).vectors, expected(TEXTS))
            assert control.stats().texts_sent_twice == len(TEXTS)
            control.forget()
            assert control.stats().calls == 0
            with pytest.raises(ValueError, match="unknown"):
                control.plan(Fault("unknown"))  # type: ignore[arg-type]
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0

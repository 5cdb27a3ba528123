"""Providers behind an API of their own, each through its real client, against a server that reads requests as
strictly as the provider publishes, and that misbehaves on demand."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest

from vectide.app import build_embedder
from vectide.core.failures import Failure, Kind
from vectide.embedders import KINDS, load
from vectide.embedders.hashing import expected_vector
from vectide.ports import AdapterError, Deadline, Embedder, StartupRefused
from vectide.settings import describe
from vectide.settings import load as load_settings
from vectide.testing.embedding_apis import AZURE, COHERE, VOYAGE, Api
from vectide.testing.embedding_contract import QUERY_PROMPT
from vectide.testing.embedding_server import Contract, EmbeddingServer, Fault

DIMENSIONS = 32
TEXTS = [f"text number {n}" for n in range(8)]


class RealClock:
    def monotonic(self) -> float:
        return time.monotonic()

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000


def within(seconds: float = 20) -> Deadline:
    return Deadline.after(RealClock(), seconds)


@dataclass(frozen=True)
class Provider:
    """How one provider is set up: its API, a model that is known, and the space that this gives."""

    api: Api
    model: str
    space: str
    dimensions: int
    max_items: int
    path: str = ""
    settings: Mapping[str, object] = field(default_factory=dict)
    #: Its answers say which text a vector is of.
    indexed: bool = True
    #: It tells queries from documents.
    typed: bool = False


PROVIDERS = {
    "azure": Provider(
        AZURE,
        "text-embedding-3-large",
        "azure/text-embedding-3-large/3072",
        3072,
        2048,
        settings={"deployment": "vectors"},
    ),
    "cohere": Provider(
        COHERE,
        "embed-v4.0",
        "cohere/embed-v4.0/1536/search_document",
        1536,
        96,
        indexed=False,
        typed=True,
    ),
    "voyage": Provider(
        VOYAGE, "voyage-4", "voyage/voyage-4/1024/document", 1024, 1000, path="/v1", typed=True
    ),
}

Maker = Callable[..., Embedder]


@pytest.fixture(params=sorted(PROVIDERS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def provider(kind: str) -> Provider:
    return PROVIDERS[kind]


@pytest.fixture
def server(provider: Provider) -> Iterator[EmbeddingServer]:
    contract = Contract(DIMENSIONS, "right-key", max_items=provider.max_items, api=provider.api)
    with EmbeddingServer(contract, record_texts=True) as running:
        yield running


@pytest.fixture
def make(kind: str, provider: Provider) -> Iterator[Maker]:
    made: list[Embedder] = []

    def maker(server: EmbeddingServer, **settings: object) -> Embedder:
        url = server.address + provider.path
        given = {"model": "stub", "api_key": "right-key", "base_url": url, **provider.settings, **settings}
        made.append(load(kind, **given))
        return made[-1]

    yield maker
    for embedder in made:
        embedder.close()


@pytest.fixture
def embedder(server: EmbeddingServer, make: Maker) -> Embedder:
    prepared = make(server)
    prepared.prepare(within())
    server.forget()
    return prepared


def failure_from(embedder: Embedder, texts: list[str] = TEXTS, seconds: float = 20) -> Failure:
    with pytest.raises(AdapterError) as caught:
        embedder.embed(texts, within(seconds))
    return caught.value.failure


def expected(texts: list[str]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.stack([expected_vector(text, DIMENSIONS) for text in texts])


# --- answers --------------------------------------------------------------------------------------------


def test_vectors_arrive_exactly_as_sent(embedder: Embedder, server: EmbeddingServer) -> None:
    answer = embedder.embed(TEXTS, within())
    assert np.array_equal(answer.vectors, expected(TEXTS))
    assert answer.tokens == server.stats().tokens
    assert answer.vectors.flags.writeable


BAD_ANSWERS = [
    (Fault("one_short"), {(Kind.INVALID, "wrong_count")}),
    (Fault("one_extra"), {(Kind.INVALID, "wrong_count")}),
    (Fault("empty"), {(Kind.INVALID, "wrong_count")}),
    (Fault("nan"), {(Kind.INVALID, "not_finite")}),
    (Fault("null"), {(Kind.INVALID, "not_finite")}),
    (Fault("zero"), {(Kind.INVALID, "zero_vector")}),
    (Fault("nan", marker="number 3"), {(Kind.INVALID, "not_finite")}),
    (Fault("wrong_dimension"), {(Kind.OPERATOR, "wrong_dimension")}),
    (Fault("wrong_dimension", marker="number 3"), {(Kind.INVALID, "wrong_dimension")}),
    (Fault("html"), {(Kind.TRANSIENT, "not_json")}),
    (Fault("error_200"), {(Kind.TRANSIENT, "error_in_answer"), (Kind.INVALID, "malformed")}),
    (Fault("truncated"), {(Kind.TRANSIENT, "connection")}),
    (Fault("cut"), {(Kind.TRANSIENT, "truncated"), (Kind.TRANSIENT, "not_json")}),
    (Fault("reset_before"), {(Kind.TRANSIENT, "connection")}),
    (Fault("reset_after"), {(Kind.TRANSIENT, "connection")}),
]


@pytest.mark.parametrize("base64", [True, False])
@pytest.mark.parametrize(
    ("fault", "verdicts"), BAD_ANSWERS, ids=[f"{fault.kind}-{fault.marker}" for fault, _ in BAD_ANSWERS]
)
def test_unusable_answer_has_its_own_cause_and_the_next_call_is_good(
    provider: Provider, make: Maker, fault: Fault, verdicts: set[tuple[Kind, str]], base64: bool
) -> None:
    """Cases 129, 131 and 136."""
    with EmbeddingServer(dimensions=DIMENSIONS, base64=base64, api=provider.api) as server:
        embedder = make(server)
        embedder.prepare(within())
        server.plan(fault)
        failure = failure_from(embedder)
        assert (failure.kind, failure.cause) in verdicts
        server.clear()
        assert np.allclose(embedder.embed(TEXTS, within()).vectors, expected(TEXTS), atol=1e-7)


def test_query_is_embedded_as_a_query_where_that_makes_a_difference(
    provider: Provider, embedder: Embedder
) -> None:
    query = embedder.embed_query("text", within())
    assert np.array_equal(query, expected([QUERY_PROMPT + "text" if provider.typed else "text"])[0])
    assert (embedder.space.count("/") == 3) is provider.typed


@pytest.mark.parametrize("kind", [kind for kind, provider in PROVIDERS.items() if provider.indexed])
def test_order_of_an_answer_is_that_of_its_indexes(embedder: Embedder, server: EmbeddingServer) -> None:
    """Case 130. Where answers have no indexes, nothing says which text a vector is of."""
    server.plan(Fault("shuffled", times=1), Fault("repeated_index", times=1))
    assert np.array_equal(embedder.embed(TEXTS, within()).vectors, expected(TEXTS))
    assert failure_from(embedder).cause == "wrong_order"


# --- errors ---------------------------------------------------------------------------------------------

STATUSES = [
    (401, Kind.OPERATOR, "unauthorized"),
    (402, Kind.OPERATOR, "quota_exhausted"),
    (403, Kind.OPERATOR, "forbidden"),
    (404, Kind.OPERATOR, "not_found"),
    (405, Kind.OPERATOR, "rejected"),
    (408, Kind.TRANSIENT, "timeout"),
    (409, Kind.TRANSIENT, "server_error"),
    (413, Kind.TOO_LARGE, "too_large"),
    (429, Kind.THROTTLED, "rate_limited"),
    (498, Kind.OPERATOR, "unauthorized"),
    (499, Kind.TRANSIENT, "connection"),
    (500, Kind.TRANSIENT, "server_error"),
    (501, Kind.TRANSIENT, "server_error"),
    (502, Kind.TRANSIENT, "server_error"),
    (503, Kind.TRANSIENT, "server_error"),
    (504, Kind.TRANSIENT, "server_error"),
    (400, Kind.REFUSED, "refused"),
    (422, Kind.REFUSED, "refused"),
]


@pytest.mark.parametrize(("status", "wanted", "cause"), STATUSES)
def test_error_status_means_the_same_for_every_provider_and_costs_one_request(
    embedder: Embedder, server: EmbeddingServer, status: int, wanted: Kind, cause: str
) -> None:
    """Cases 123, 125, 127, 128 and 134."""
    server.plan(Fault("status", status=status, times=1))
    failure = failure_from(embedder)
    assert (failure.kind, failure.cause) == (wanted, cause)
    assert str(status) in failure.detail
    assert server.stats().calls == 1


@pytest.mark.parametrize(("status", "wanted"), [(429, Kind.THROTTLED), (503, Kind.TRANSIENT)])
def test_waiting_time_reaches_the_failure(
    embedder: Embedder, server: EmbeddingServer, status: int, wanted: Kind
) -> None:
    """Case 123."""
    server.plan(Fault("status", status=status, headers={"Retry-After": "600"}))
    failure = failure_from(embedder)
    assert (failure.kind, failure.retry_after_s) == (wanted, 600)


def test_limits_of_the_provider_are_told_apart(provider: Provider, make: Maker) -> None:
    """Case 137: too many inputs or tokens in one request, against one text that is too long."""
    limits = Contract(DIMENSIONS, max_items=4, max_tokens=40, max_text_tokens=20, api=provider.api)
    with EmbeddingServer(limits) as server:
        embedder = make(server)
        embedder.prepare(within())
        assert failure_from(embedder, ["a"] * 5).kind is Kind.TOO_LARGE
        assert failure_from(embedder, ["fifteen tokens " * 4] * 3).kind is Kind.TOO_LARGE
        assert failure_from(embedder, ["much too long " * 40]).cause == "text_too_long"


def test_a_full_call_keeps_the_providers_limit_of_items(
    provider: Provider, embedder: Embedder, server: EmbeddingServer
) -> None:
    """Case 137."""
    assert embedder.limits.max_items == provider.max_items
    texts = [f"item {number}" for number in range(provider.max_items)]
    assert len(embedder.embed(texts, within()).vectors) == provider.max_items


WORDINGS = [
    ("azure", 401, "Access denied due to invalid subscription key", "401", Kind.OPERATOR, "unauthorized"),
    (
        "azure",
        404,
        "The API deployment for this resource does not exist.",
        "DeploymentNotFound",
        Kind.OPERATOR,
        "not_found",
    ),
    (
        "azure",
        400,
        "The embeddings operation does not work with the specified model, gpt-4o.",
        "OperationNotSupported",
        Kind.OPERATOR,
        "not_found",
    ),
    (
        "azure",
        429,
        "Requests to the Embeddings_Create Operation have exceeded the token rate limit of your tier.",
        "429",
        Kind.THROTTLED,
        "rate_limited",
    ),
    (
        "voyage",
        400,
        "Model voyage-9 is not supported. Supported models are ['voyage-4', 'voyage-4-lite'].",
        None,
        Kind.OPERATOR,
        "not_found",
    ),
    (
        "voyage",
        429,
        "You have not yet added your payment method in the billing page and will have reduced rate limits.",
        None,
        Kind.THROTTLED,
        "rate_limited",
    ),
    ("cohere", 404, "model 'embed-v9' not found", None, Kind.OPERATOR, "not_found"),
    ("cohere", 498, "invalid token", None, Kind.OPERATOR, "unauthorized"),
]


@pytest.mark.parametrize(("of", "status", "message", "code", "wanted", "cause"), WORDINGS)
def test_wording_of_the_providers_is_understood(
    of: str, status: int, message: str, code: str | None, wanted: Kind, cause: str
) -> None:
    """Cases 127 and 128."""
    provider = PROVIDERS[of]
    with EmbeddingServer(Contract(DIMENSIONS, api=provider.api)) as server:
        given = {"model": provider.model, "base_url": server.address + provider.path, "api_key": "k"}
        embedder = load(of, **given)
        server.plan(Fault("status", status=status, message=message, code=code))
        failure = failure_from(embedder)
        embedder.close()
    assert (failure.kind, failure.cause) == (wanted, cause)


def test_text_that_is_too_long_is_refused_and_never_cut_off(provider: Provider, make: Maker) -> None:
    """Case 134: some APIs cut texts off unless they are told not to."""
    with EmbeddingServer(Contract(DIMENSIONS, max_text_tokens=20, api=provider.api)) as server:
        embedder = make(server)
        embedder.prepare(within())
        failure = failure_from(embedder, ["much too long " * 40])
    assert (failure.kind, failure.cause) == (Kind.REFUSED, "text_too_long")


# --- deadlines ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Fault("delay", every_s=5), Fault("drip", every_s=0.25)])
def test_slow_answer_ends_with_the_deadline(
    embedder: Embedder, server: EmbeddingServer, fault: Fault
) -> None:
    """Case 138: neither a server that is silent nor one that drips holds a worker past its deadline."""
    server.plan(fault)
    started = time.monotonic()
    failure = failure_from(embedder, seconds=0.5)
    assert (failure.kind, failure.cause) == (Kind.TRANSIENT, "timeout")
    assert time.monotonic() - started < 3


def test_endless_answer_is_not_read_to_the_end(provider: Provider, make: Maker) -> None:
    def huge(text: str, dimensions: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        return np.ones(8_000_000, dtype=np.float32)

    with EmbeddingServer(dimensions=4, vectors=huge, api=provider.api) as server:
        assert failure_from(make(server, dimensions=256), ["a"]).cause == "answer_too_large"


# --- start-up -------------------------------------------------------------------------------------------


def test_known_models_need_no_call(
    kind: str, provider: Provider, server: EmbeddingServer, make: Maker
) -> None:
    embedder = make(server, model=provider.model)
    assert (embedder.space, embedder.dimensions) == (provider.space, provider.dimensions)
    assert embedder.limits.chunk_tokens is not None
    assert server.stats().calls == 0


def test_settings_make_the_embedder(kind: str, provider: Provider) -> None:
    settings = load_settings(
        {
            "VECTIDE_KAFKA__BOOTSTRAP_SERVERS": "broker:9092",
            "VECTIDE_STORE__KIND": "lancedb",
            "VECTIDE_STORE__URL": "vectors",
            "VECTIDE_TABLES": '{"t": {"source": "a.b.t", "embed": {"columns": ["x"]}}}',
            "VECTIDE_EMBEDDER__KIND": kind,
            "VECTIDE_EMBEDDER__MODEL": provider.model,
            "VECTIDE_EMBEDDER__BASE_URL": "http://127.0.0.1:9",
            "VECTIDE_EMBEDDER__API_KEY": "k",
            **{f"VECTIDE_EMBEDDER__{name.upper()}": str(value) for name, value in provider.settings.items()},
        }
    )
    embedder = build_embedder(settings.embedder)
    assert embedder.space == provider.space
    embedder.close()


@pytest.mark.parametrize("given", sorted(KINDS))
def test_settings_know_every_kind(given: str) -> None:
    (kinds,) = (doc.type.split(" | ") for doc in describe() if doc.name == "VECTIDE_EMBEDDER__KIND")
    assert given in kinds


def test_prepare_learns_the_dimension_of_other_models(server: EmbeddingServer, make: Maker) -> None:
    embedder = make(server)
    with pytest.raises(RuntimeError, match="prepare"):
        _ = embedder.dimensions
    embedder.prepare(within())
    assert embedder.dimensions == DIMENSIONS
    assert server.stats().calls == 1


def test_configured_dimension_is_asked_for(server: EmbeddingServer, make: Maker) -> None:
    embedder = make(server, dimensions=256)
    embedder.prepare(within())
    assert embedder.embed(TEXTS, within()).vectors.shape == (len(TEXTS), 256)


def test_other_dimension_at_start_names_both_numbers(server: EmbeddingServer, make: Maker) -> None:
    server.plan(Fault("wrong_dimension", times=1))
    with pytest.raises(StartupRefused, match=r"257 dimensions.*256 are configured"):
        make(server, dimensions=256).prepare(within())


def test_wrong_key_at_start_is_refused_with_what_to_do(server: EmbeddingServer, make: Maker) -> None:
    """Case 128."""
    with pytest.raises(StartupRefused, match="VECTIDE_EMBEDDER__API_KEY") as caught:
        make(server, api_key="wrong-key").prepare(within())
    assert "wrong-key" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "advice"),
    [(403, "permissions"), (404, "VECTIDE_EMBEDDER__"), (400, "dimensions"), (405, "BASE_URL")],
)
def test_refusal_at_start_says_what_to_do(
    server: EmbeddingServer, make: Maker, status: int, advice: str
) -> None:
    server.plan(Fault("status", status=status))
    with pytest.raises(StartupRefused, match=advice):
        make(server).prepare(within())


@pytest.mark.parametrize(
    "fault",
    [Fault("status", status=503), Fault("status", status=402), Fault("reset_before"), Fault("html")],
    ids=["503", "quota", "reset", "html"],
)
def test_what_can_pass_at_start_is_waited_for(server: EmbeddingServer, make: Maker, fault: Fault) -> None:
    server.plan(fault)
    embedder = make(server)
    with pytest.raises(AdapterError):
        embedder.prepare(within())
    server.clear()
    embedder.prepare(within())
    assert embedder.dimensions == DIMENSIONS


@pytest.mark.parametrize("key", [None, "two words", "line\nend", "café", "tab\t"])
def test_key_that_cannot_be_sent_is_refused_unseen(
    server: EmbeddingServer, make: Maker, key: str | None
) -> None:
    with pytest.raises(StartupRefused, match="API_KEY") as caught:
        make(server, api_key=key)
    assert key is None or key not in str(caught.value)


def test_address_that_is_none_is_refused(server: EmbeddingServer, make: Maker) -> None:
    with pytest.raises(StartupRefused, match="BASE_URL"):
        make(server, base_url="ftp://host")


# --- nothing leaks (invariant 13) -----------------------------------------------------------------------


def test_failure_shows_neither_the_text_nor_the_key(
    embedder: Embedder, server: EmbeddingServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    remark = "a private customer remark"
    message, code = f"cannot embed: {remark}", f"bad {remark}"
    server.plan(Fault("status", status=400, times=1, message=message, code=code))
    with pytest.raises(AdapterError) as caught:
        embedder.embed([remark], within())
    embedder.embed([remark], within())
    assert remark not in caught.value.failure.detail
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert remark not in caplog.text
    assert "right-key" not in caplog.text


# --- Azure ----------------------------------------------------------------------------------------------


@pytest.fixture
def azure() -> Iterator[EmbeddingServer]:
    contract = Contract(DIMENSIONS, "right-key", models=["vectors"], api=AZURE)
    with EmbeddingServer(contract) as running:
        yield running


def test_azure_is_asked_for_the_deployment_and_the_space_names_the_model(azure: EmbeddingServer) -> None:
    given = {"api_key": "right-key", "base_url": azure.address, "api_version": "2025-04-01-preview"}
    embedder = load("azure", model="text-embedding-3-small", deployment="vectors", dimensions=256, **given)
    embedder.prepare(within())
    assert embedder.embed(TEXTS, within()).vectors.shape == (len(TEXTS), 256)
    assert embedder.space == "azure/text-embedding-3-small/256"
    embedder.close()


def test_azure_deployment_that_is_not_there_is_named_by_its_setting(azure: EmbeddingServer) -> None:
    embedder = load(
        "azure", model="text-embedding-3-small", api_key="right-key", base_url=f"{azure.address}/"
    )
    with pytest.raises(StartupRefused, match="VECTIDE_EMBEDDER__DEPLOYMENT"):
        embedder.prepare(within())
    embedder.close()


def test_azure_takes_no_credentials_from_the_environment(
    azure: EmbeddingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_OPENAI_AD_TOKEN", "token-of-another")
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OPENAI_API_VERSION", "1")
    embedder = load("azure", model="vectors", api_key="right-key", base_url=azure.address)
    embedder.prepare(within())
    embedder.close()

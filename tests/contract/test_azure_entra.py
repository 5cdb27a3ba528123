"""Azure OpenAI without a key: tokens of Microsoft Entra, from a server that takes what its reference says.

https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow: the third case of the
access token request, with a federated credential, and the first, with a shared secret.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx2
import pytest

from vectide.core.failures import Kind
from vectide.embedders import load
from vectide.embedders.openai_entra import EntraTokens, Identity
from vectide.ports import AdapterError, Embedder, StartupRefused
from vectide.testing.embedder_suite import TEXTS, within
from vectide.testing.embedding_apis import AZURE
from vectide.testing.embedding_server import Contract, EmbeddingServer, Fault

ASSERTION = {
    "grant_type": "client_credentials",
    "client_id": "client-1",
    "scope": "https://cognitiveservices.azure.com/.default",
    "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    "client_assertion": "federated-1",
}
SECRET = {
    "grant_type": "client_credentials",
    "client_id": "client-1",
    "scope": "https://cognitiveservices.azure.com/.default",
    "client_secret": "client-secret",
}
REFUSED = {"error": "invalid_client", "error_description": "AADSTS7000215: Invalid secret federated-1."}


class Authority:
    """The token endpoint of one tenant. ``answer`` is what it says; ``forms`` what it was asked."""

    def __init__(self) -> None:
        self.forms: list[dict[str, str]] = []
        self.answer: Callable[[], tuple[int, Any]] = lambda: (
            200,
            {"token_type": "Bearer", "expires_in": 3599, "access_token": "right-key"},
        )
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                form = {name: value for name, (value,) in parse_qs(body, strict_parsing=True).items()}
                outer.forms.append(form)
                status, answer = outer.answer()
                if self.path != "/tenant-1/oauth2/v2.0/token":
                    status, answer = 404, {"error": "invalid_tenant"}
                elif self.headers["Content-Type"] != "application/x-www-form-urlencoded":
                    status, answer = 400, {"error": "invalid_request"}
                content = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def identity(authority: Authority) -> Identity:
    return Identity("tenant-1", "client-1", secret=SECRET["client_secret"], authority=authority.address)


class ManualClock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def authority() -> Iterator[Authority]:
    running = Authority()
    yield running
    running.close()


@pytest.fixture
def azure() -> Iterator[EmbeddingServer]:
    with EmbeddingServer(Contract(32, "right-key", models=["vectors"], api=AZURE)) as running:
        yield running


@pytest.fixture
def pod(authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The environment as the workload identity webhook makes it; the path of the federated token."""
    token = tmp_path / "azure-identity-token"
    token.write_text("federated-1\n", "utf-8")
    monkeypatch.delenv("AZURE_CLIENT_SECRET", raising=False)
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", authority.address + "/")
    monkeypatch.setenv("AZURE_TENANT_ID", "tenant-1")
    monkeypatch.setenv("AZURE_CLIENT_ID", "client-1")
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(token))
    return token


@pytest.fixture
def make(azure: EmbeddingServer) -> Iterator[Callable[..., Embedder]]:
    made: list[Embedder] = []

    def make(**settings: Any) -> Embedder:
        made.append(load("azure", model="vectors", base_url=azure.address, **settings))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_a_pod_with_a_workload_identity_needs_no_key(
    authority: Authority, pod: Path, make: Callable[..., Embedder]
) -> None:
    embedder = make()
    embedder.prepare(within())
    for _ in range(3):
        embedder.embed(TEXTS, within())
    assert authority.forms == [ASSERTION]  # one token served all calls


def test_a_client_with_a_secret_needs_no_key(
    authority: Authority, pod: Path, make: Callable[..., Embedder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AZURE_FEDERATED_TOKEN_FILE")
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "client-secret")
    make().prepare(within())
    assert authority.forms == [SECRET]


def test_a_key_goes_before_the_identity(
    authority: Authority, pod: Path, make: Callable[..., Embedder]
) -> None:
    make(api_key="right-key").prepare(within())
    assert authority.forms == []


def test_without_key_and_identity_both_are_asked_for(
    pod: Path, make: Callable[..., Embedder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AZURE_FEDERATED_TOKEN_FILE")
    with pytest.raises(StartupRefused, match=r"VECTIDE_EMBEDDER__API_KEY, or .*AZURE_FEDERATED_TOKEN_FILE"):
        make()
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "client-secret")
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", "http://[")
    with pytest.raises(StartupRefused, match="AZURE_AUTHORITY_HOST"):
        make()


def test_a_token_that_is_refused_is_replaced_once_with_the_file_read_anew(
    authority: Authority, azure: EmbeddingServer, pod: Path, make: Callable[..., Embedder]
) -> None:
    embedder = make()
    embedder.prepare(within())
    pod.write_text("federated-2", "utf-8")
    azure.plan(Fault("status", status=401, times=1))
    embedder.embed(TEXTS, within())
    assert [form["client_assertion"] for form in authority.forms] == ["federated-1", "federated-2"]


def test_a_second_refusal_halts(
    authority: Authority, azure: EmbeddingServer, pod: Path, make: Callable[..., Embedder]
) -> None:
    embedder = make()
    embedder.prepare(within())
    azure.plan(Fault("status", status=401, times=2))
    with pytest.raises(AdapterError) as caught:
        embedder.embed(TEXTS, within())
    assert (caught.value.failure.kind, caught.value.failure.cause) == (Kind.OPERATOR, "unauthorized")
    assert len(authority.forms) == 2
    embedder.embed(TEXTS, within())  # mended: it goes on


def test_an_identity_that_is_refused_is_told_without_what_it_showed(
    authority: Authority, pod: Path, make: Callable[..., Embedder], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    authority.answer = lambda: (401, REFUSED)
    with pytest.raises(StartupRefused, match=r"invalid_client.*AZURE_CLIENT_ID") as refused:
        make().prepare(within())
    authority.answer = lambda: (200, {"access_token": "right-key", "expires_in": 3599})
    make().prepare(within())
    for told in (str(refused.value), caplog.text):
        assert "federated-1" not in told
        assert "right-key" not in told


def test_a_federated_token_that_is_not_there_halts(pod: Path, make: Callable[..., Embedder]) -> None:
    embedder = make()
    pod.unlink()
    with pytest.raises(StartupRefused, match="AZURE_FEDERATED_TOKEN_FILE cannot be read"):
        embedder.prepare(within())


@pytest.mark.parametrize(
    ("status", "body", "kind", "cause"),
    [
        (503, {}, Kind.TRANSIENT, "server_error"),
        (429, {"error": "temporarily_unavailable"}, Kind.THROTTLED, "rate_limited"),
        (200, {"expires_in": 3599}, Kind.TRANSIENT, "unexpected"),
        (200, ["no object"], Kind.TRANSIENT, "unexpected"),
        (200, {"access_token": "two\nlines", "expires_in": 3599}, Kind.TRANSIENT, "unexpected"),
        (400, {"error": "unauthorized_client"}, Kind.OPERATOR, "unauthorized"),
        (302, "moved", Kind.OPERATOR, "unauthorized"),
    ],
)
def test_every_answer_of_the_authority_has_a_meaning(
    authority: Authority,
    pod: Path,
    make: Callable[..., Embedder],
    status: int,
    body: object,
    kind: Kind,
    cause: str,
) -> None:
    embedder = make(dimensions=32)
    authority.answer = lambda: (status, body)
    with pytest.raises(AdapterError) as caught:
        embedder.embed(TEXTS, within())
    assert (caught.value.failure.kind, caught.value.failure.cause) == (kind, cause)
    assert caught.value.__cause__ is None


def test_an_authority_that_cannot_be_reached_is_waited_for(
    authority: Authority, pod: Path, make: Callable[..., Embedder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", "http://127.0.0.1:9")
    with pytest.raises(AdapterError) as caught:
        make(dimensions=32).embed(TEXTS, within())
    assert (caught.value.failure.kind, caught.value.failure.cause) == (Kind.TRANSIENT, "connection")


def test_a_token_is_renewed_before_it_expires_and_a_good_one_serves_on(authority: Authority) -> None:
    number = iter(range(1, 100))
    authority.answer = lambda: (200, {"access_token": f"token-{next(number)}", "expires_in": 3600})
    clock = ManualClock()
    assert "client-secret" not in repr(identity(authority))
    with httpx2.Client() as http:
        tokens = EntraTokens(identity(authority), http, clock)

        def after(seconds: float) -> str:
            clock.now_s += seconds
            return tokens.token(within())

        assert after(0) == "token-1"
        assert after(3299) == "token-1"
        assert after(2) == "token-2"  # five minutes before the first would have expired
        good, authority.answer = authority.answer, lambda: (503, {})
        assert after(3400) == "token-2"
        asked = len(authority.forms)
        assert after(1) == "token-2"
        assert len(authority.forms) == asked  # not with every call
        with pytest.raises(AdapterError, match="503"):
            after(300)
        authority.answer = good
        assert after(1) == "token-3"


def test_one_thread_fetches_for_all(authority: Authority) -> None:
    with httpx2.Client() as http:
        tokens = EntraTokens(identity(authority), http)
        found: list[str] = []
        threads = [threading.Thread(target=lambda: found.append(tokens.token(within()))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == ["right-key"] * 8
    assert len(authority.forms) == 1

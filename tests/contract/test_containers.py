"""The suite of every store once more, against the servers that people run, where a container engine answers.

Which engine that is tells ``DOCKER_HOST`` (Podman's socket will do); the images are pulled the first time.
Elsewhere these tests are skipped by name. What surrounds them is tested with an engine that pretends.
"""

from __future__ import annotations

import gc
import itertools
import json
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import httpx
import pytest
from docker.errors import DockerException  # type: ignore[import-untyped]
from testcontainers.community.milvus import MilvusContainer
from testcontainers.community.postgres import PostgresContainer
from testcontainers.community.qdrant import QdrantContainer
from testcontainers.community.weaviate import WeaviateContainer
from testcontainers.core.config import ConnectionMode, testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.docker_client import DockerClient
from testcontainers.core.wait_strategies import HttpWaitStrategy
from tests.backends import Backend, chroma_at, milvus_at, pgvector_at, qdrant_at, weaviate_at
from tests.weaviate_program import VERSION as WEAVIATE

from vectide.ports import CollectionSpec
from vectide.testing.chroma_server import ChromaServer
from vectide.testing.qdrant_server import QdrantServer
from vectide.testing.store_suite import *  # noqa: F403
from vectide.testing.swap_suite import *  # noqa: F403

_made = itertools.count()

#: Of the user of PostgreSQL, its password and its database.
_NAME: Final = "test"


@dataclass(frozen=True)
class Served:
    """A store in a container: what makes that, on which port it answers, and the store with nothing in it."""

    container: Callable[[], DockerContainer]
    port: int
    backend: Callable[[str], AbstractContextManager[Backend]]


def _pgvector(address: str) -> AbstractContextManager[Backend]:
    return pgvector_at(f"postgresql://{_NAME}:{_NAME}@{address}/{_NAME}", f"test_{next(_made)}")


def _chroma(address: str) -> AbstractContextManager[Backend]:
    url, database = f"http://{address}", f"container_{next(_made)}"
    made = httpx.post(f"{url}/api/v2/tenants/default_tenant/databases", json={"name": database})
    made.raise_for_status()
    return chroma_at(url, database)


SERVED: Final[dict[str, Served]] = {
    "chroma": Served(
        lambda: (
            DockerContainer("chromadb/chroma:1.5.9")
            .with_exposed_ports(8000)
            .waiting_for(HttpWaitStrategy(8000, "/api/v2/heartbeat"))
        ),
        8000,
        _chroma,
    ),
    "milvus": Served(
        lambda: MilvusContainer("milvusdb/milvus:v2.6.11"), 19530, lambda at: milvus_at(f"http://{at}")
    ),
    "pgvector": Served(
        lambda: PostgresContainer(
            "pgvector/pgvector:0.8.5-pg18", username=_NAME, password=_NAME, dbname=_NAME
        ),
        5432,
        _pgvector,
    ),
    "qdrant": Served(
        lambda: QdrantContainer("qdrant/qdrant:v1.19.1"), 6333, lambda at: qdrant_at(f"http://{at}")
    ),
    "weaviate": Served(
        lambda: WeaviateContainer(
            f"semitechnologies/weaviate:{WEAVIATE}",
            env_vars={"DISABLE_TELEMETRY": "true", "DISK_USE_READONLY_PERCENTAGE": "100"},
        ),
        8080,
        lambda at: weaviate_at(f"http://{at}"),
    ),
}

#: Images are pulled within the time of the first test of each.
_NIGHT: Final = (pytest.mark.nightly, pytest.mark.timeout(1200))


def ask_engine() -> None:
    """Skip where no container engine answers."""
    with warnings.catch_warnings():
        # Where nobody answers, the client leaves its socket to the garbage collector.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            client = DockerClient(timeout=10).client
            client.ping()
            client.close()
            return
        except DockerException as error:
            words = " ".join(str(error).split())
        gc.collect()
    pytest.skip(f"no container engine answers: {words}")


@contextmanager
def started(kind: str) -> Iterator[str]:
    """The address of that store, in a container of its own."""
    ask_engine()
    with SERVED[kind].container() as container:
        yield f"{container.get_container_host_ip()}:{container.get_exposed_port(SERVED[kind].port)}"


@pytest.fixture(scope="module", params=[pytest.param(kind, marks=_NIGHT) for kind in SERVED])
def served(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """Each store in turn, one container at a time: kind and address."""
    with started(request.param) as address:
        yield request.param, address


@pytest.fixture
def backend(served: tuple[str, str]) -> Iterator[Backend]:
    """The store with nothing in it."""
    kind, address = served
    with SERVED[kind].backend(address) as made:
        yield made


# --- an engine that pretends ----------------------------------------------------------------------------


class Engine:
    """As much of a container engine as it takes to start one, which is a port of this machine."""

    def __init__(self, ports: Mapping[str, int]) -> None:
        self.asked: list[dict[str, Any]] = []
        self.removed = 0
        self._ports = {name: [{"HostIp": "127.0.0.1", "HostPort": str(port)}] for name, port in ports.items()}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"tcp://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        """Status and document; bytes as they are."""
        match method, path.split("?")[0].strip("/").split("/")[1:]:
            case "GET", ["containers", "c1", "logs"]:
                return 200, b"Actix runtime found; starting in Actix runtime"
            case "GET", ["containers", "c1", "json"]:
                state = {"Status": "running", "Running": True}
                network = {"Ports": self._ports}
                return 200, {"Id": "c1", "State": state, "NetworkSettings": network, "Config": {"Tty": True}}
            case "GET", ["images", *_, "json"]:
                return 200, {"Id": "i1"}
            case "POST", ["containers", "create"]:
                self.asked.append(body)
                return 201, {"Id": "c1"}
            case "POST", ["containers", "c1", "start"]:
                return 204, b""
            case "DELETE", ["containers", "c1"]:
                self.removed += 1
                return 204, b""
            case "GET", _ if path.endswith(("version", "_ping")):
                return 200, {"ApiVersion": "1.47", "MinAPIVersion": "1.24"}
            case _:
                return 404, {"message": f"no such path: {method} {path}"}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        engine = self

        class Handler(BaseHTTPRequestHandler):
            def _do(self) -> None:
                sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, told = engine.answer(self.command, self.path, json.loads(sent) if sent else None)
                content = told if isinstance(told, bytes) else json.dumps(told).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                if status != 204:
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_DELETE = _do

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing is printed."""

        return Handler


@contextmanager
def pretended(monkeypatch: pytest.MonkeyPatch, ports: Mapping[str, int]) -> Iterator[Engine]:
    """An engine that is found, and whose containers have these ports."""
    engine = Engine(ports)
    monkeypatch.setenv("DOCKER_HOST", engine.url)
    monkeypatch.setattr(testcontainers_config, "ryuk_disabled", True)
    monkeypatch.setattr(testcontainers_config, "connection_mode_override", ConnectionMode.docker_host)
    try:
        yield engine
    finally:
        engine.close()


@pytest.mark.parametrize("kind", SERVED)
def test_without_an_engine_the_suite_is_skipped_by_name(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    with pytest.raises(pytest.skip.Exception, match="no container engine answers"), started(kind):
        raise AssertionError("it was started")


@pytest.mark.parametrize("kind", SERVED)
def test_every_container_is_of_a_pinned_image_and_exposes_the_port_of_its_store(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pretended(monkeypatch, {}):
        container = SERVED[kind].container()
        assert str(SERVED[kind].port) in container.ports
        _, _, tag = container.image.partition(":")
        assert any(digit.isdigit() for digit in tag)
        container.get_docker_client().client.close()


def test_a_store_in_a_container_is_used_where_its_port_is(
    monkeypatch: pytest.MonkeyPatch, chroma_server: ChromaServer, deadline: Any
) -> None:
    """The container is gone afterwards."""
    with QdrantServer() as qdrant:
        for kind, url in (("qdrant", qdrant.url), ("chroma", chroma_server.url)):
            port = int(url.rpartition(":")[2])
            with pretended(monkeypatch, {f"{SERVED[kind].port}/tcp": port}) as engine:
                with started(kind) as address, SERVED[kind].backend(address) as made:
                    assert address == f"127.0.0.1:{port}"
                    made.store.prepare(CollectionSpec("items", 4, "s"), deadline)
                [asked] = engine.asked
                assert f"{SERVED[kind].port}/tcp" in asked["ExposedPorts"]
                assert kind in asked["Image"]
                assert engine.removed == 1

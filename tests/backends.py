"""The stores that tests run against: each kind with a way to make one.

A new store adds a function here and a line in BACKENDS; a test fails until it has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from pymilvus import MilvusClient
from qdrant_client import QdrantClient

from vectide.ports import Store
from vectide.stores.chroma import ChromaStore
from vectide.stores.lancedb import LanceDbStore
from vectide.stores.milvus import MilvusStore
from vectide.stores.pgvector import PgVectorStore
from vectide.stores.pinecone import PineconeStore
from vectide.stores.qdrant import QdrantStore
from vectide.stores.weaviate import WeaviateStore
from vectide.testing.chroma_server import ChromaServer
from vectide.testing.milvus_server import MilvusServer
from vectide.testing.pinecone_server import PineconeServer
from vectide.testing.postgres import EmbeddedPostgres
from vectide.testing.qdrant_server import QdrantServer
from vectide.testing.store import MemoryStore
from vectide.testing.weaviate_server import WeaviateServer


@dataclass(frozen=True)
class Backend:
    """One store under test. ``reopen`` gives a second client of the same server."""

    store: Store
    reopen: Callable[[], AbstractContextManager[Store]]


MakeBackend = Callable[[pytest.FixtureRequest], AbstractContextManager[Backend]]


@contextmanager
def memory(request: pytest.FixtureRequest) -> Iterator[Backend]:
    store = MemoryStore()

    @contextmanager
    def reopen() -> Iterator[Store]:
        store.close()
        yield store

    yield Backend(store, reopen)


@contextmanager
def pgvector(request: pytest.FixtureRequest) -> Iterator[Backend]:
    server: EmbeddedPostgres = request.getfixturevalue("postgres")
    with pgvector_at(server.dsn, request.getfixturevalue("schema")) as made:
        yield made


@contextmanager
def pgvector_at(dsn: str, schema: str) -> Iterator[Backend]:
    """A schema of that database."""

    def connect() -> closing[PgVectorStore]:
        return closing(PgVectorStore(dsn, schema=schema))

    with connect() as store:
        yield Backend(store, connect)


@contextmanager
def qdrant(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Qdrant's own engine behind its REST interface."""
    with QdrantServer() as server, qdrant_at(server.url) as made:
        yield made


@contextmanager
def qdrant_at(url: str) -> Iterator[Backend]:
    """A server of Qdrant, without its collections and their aliases."""

    def connect() -> closing[QdrantStore]:
        return closing(QdrantStore(url))

    with closing(QdrantClient(url=url, check_compatibility=False)) as everything:
        for made in everything.get_collections().collections:
            everything.delete_collection(made.name)
    with connect() as store:
        yield Backend(store, connect)


@contextmanager
def chroma(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """A real Chroma server; each test has a database of its own."""
    server: ChromaServer = request.getfixturevalue("chroma_server")
    with chroma_at(server.url, server.new_database()) as made:
        yield made


@contextmanager
def chroma_at(url: str, database: str) -> Iterator[Backend]:
    """A database of that server."""

    def connect() -> closing[ChromaStore]:
        return closing(ChromaStore(url, database=database))

    with connect() as store:
        yield Backend(store, connect)


@contextmanager
def lancedb(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """LanceDB itself, in a folder of the test's own."""
    folder: Path = request.getfixturevalue("tmp_path")

    def connect() -> closing[LanceDbStore]:
        return closing(LanceDbStore(str(folder / "lance")))

    with connect() as store:
        yield Backend(store, connect)


@contextmanager
def milvus(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Milvus Lite as a server, with no collections."""
    server: MilvusServer = request.getfixturevalue("milvus_server")
    with milvus_at(server.url) as made:
        yield made


@contextmanager
def milvus_at(url: str) -> Iterator[Backend]:
    """A server of Milvus, without its collections and their aliases."""

    def connect() -> closing[MilvusStore]:
        return closing(MilvusStore(url))

    with closing(MilvusClient(url)) as everything:
        for name in everything.list_collections():
            for alias in everything.list_aliases(collection_name=name)["aliases"]:
                everything.drop_alias(alias)
            everything.drop_collection(name)
    with connect() as store:
        yield Backend(store, connect)


@contextmanager
def pinecone(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """What Pinecone promises, behind its HTTP interface: indexes for documents, seen late."""
    with PineconeServer(seed=1) as server, _of_pinecone(server) as made:
        yield made


@contextmanager
def pinecone_vectors(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """The same with indexes for vectors."""
    with PineconeServer(seed=2, for_vectors=True) as server, _of_pinecone(server) as made:
        yield made


@contextmanager
def _of_pinecone(server: PineconeServer) -> Iterator[Backend]:
    def connect() -> closing[PineconeStore]:
        return closing(PineconeStore(server.api_key, url=server.url))

    with connect() as store:
        yield Backend(store, connect)


@contextmanager
def weaviate(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Weaviate itself, with no collections."""
    server: WeaviateServer = request.getfixturevalue("weaviate_server")
    with weaviate_at(server.url) as made:
        yield made


@contextmanager
def weaviate_at(url: str) -> Iterator[Backend]:
    """A server of Weaviate, without its collections and their aliases."""

    def connect() -> closing[WeaviateStore]:
        return closing(WeaviateStore(url))

    with httpx.Client(base_url=f"{url}/v1") as api:
        for alias in api.get("/aliases").json()["aliases"]:
            api.delete(f"/aliases/{alias['alias']}").raise_for_status()
        for made in api.get("/schema").json()["classes"]:
            api.delete(f"/schema/{made['class']}").raise_for_status()
    with connect() as store:
        yield Backend(store, connect)


BACKENDS: dict[str, MakeBackend] = {
    "chroma": chroma,
    "lancedb": lancedb,
    "memory": memory,
    "milvus": milvus,
    "pgvector": pgvector,
    "pinecone": pinecone,
    "pinecone_vectors": pinecone_vectors,
    "qdrant": qdrant,
    "weaviate": weaviate,
}

#: Those whose every test takes a second, or whose server has to be built: for the night.
_SLOW = frozenset({"milvus", "weaviate"})

#: The parameters of a fixture that makes each of them in turn.
EVERY_BACKEND = [pytest.param(kind, marks=[pytest.mark.nightly] * (kind in _SLOW)) for kind in BACKENDS]

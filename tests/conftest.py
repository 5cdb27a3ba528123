"""How hard the property tests try (``pytest --hypothesis-profile=fuzz`` tries for long), and servers that are
started once."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from tests import weaviate_program as built
from tests.real.jars import StackUnavailable

from vectide.testing.chroma_server import ChromaServer
from vectide.testing.milvus_server import MilvusServer
from vectide.testing.weaviate_server import WeaviateServer

# Time limits are pytest's: on a busy machine an example may take long for no fault of its own.
settings.register_profile("quick", max_examples=200, deadline=None)
settings.register_profile("fuzz", max_examples=20_000, deadline=None)
settings.load_profile("quick")


@pytest.fixture(scope="session")
def chroma_server() -> Iterator[ChromaServer]:
    """One Chroma server for all tests."""
    with ChromaServer() as server:
        yield server


@pytest.fixture(scope="session")
def milvus_server() -> Iterator[MilvusServer]:
    """One Milvus Lite for all tests; they are not alone in it."""
    with MilvusServer() as server:
        yield server


@pytest.fixture(scope="session")
def weaviate_program() -> Path:
    """Weaviate's server, where it has been built."""
    try:
        return built.program()
    except StackUnavailable as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def weaviate_server(weaviate_program: Path) -> Iterator[WeaviateServer]:
    """One Weaviate for all tests; they are not alone in it."""
    with WeaviateServer(weaviate_program) as server:
        yield server

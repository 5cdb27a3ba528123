"""How hard the property tests try (``pytest --hypothesis-profile=fuzz`` tries for long), and servers that are
started once."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

from vectide.testing.chroma_server import ChromaServer
from vectide.testing.milvus_server import MilvusServer

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

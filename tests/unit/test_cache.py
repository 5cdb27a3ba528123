"""The vector cache: what it gives is the provider's own vector, or nothing."""

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vectide.cache import CachingEmbedder, DiskCache, MemoryCache, VectorCache, key_of
from vectide.core.failures import Failure, Kind
from vectide.embedders.hashing import HashingEmbedder, expected_vector
from vectide.ports import AdapterError, Deadline, Embeddings, StartupRefused

DIMENSIONS = 8
ENTRY = 4 * DIMENSIONS


class Clock:
    def monotonic(self) -> float:
        return 0.0

    def wall_ms(self) -> int:
        return 0


SOON = Deadline(Clock(), 9e9)


class Told:
    """The log."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def info(self, event: str, /, **fields: Any) -> None:
        self.events.append(event)

    warning = error = info


class Provider(HashingEmbedder):
    """Remembers what it sold."""

    def __init__(self, space: str = "hashing/words-v1/8") -> None:
        super().__init__(DIMENSIONS)
        self.calls: list[list[str]] = []
        self.fails = False
        self._space = space

    @property
    def space(self) -> str:
        return self._space

    def embed(self, texts: Sequence[str], deadline: Deadline) -> Embeddings:
        if self.fails:
            raise AdapterError(Failure(Kind.TRANSIENT, "server_error"))
        self.calls.append(list(texts))
        return super().embed(texts, deadline)


Make = Callable[[], VectorCache]


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture(params=["memory", "disk"])
def cache(request: pytest.FixtureRequest, tmp_path: Path, told: Told) -> Iterator[VectorCache]:
    made: VectorCache
    if request.param == "memory":
        made = MemoryCache(2**20)
    else:
        made = DiskCache(tmp_path / "cache" / "vectors.db", 2**20, told)
    yield made
    made.close()


def disk(path: Path, told: Told, most_bytes: int = 2**20) -> DiskCache:
    return DiskCache(path, most_bytes, told)


def expected(texts: Sequence[str]) -> Any:
    return np.stack([expected_vector(text, DIMENSIONS) for text in texts])


# --- what is asked of the provider -----------------------------------------------------------------------


def test_a_text_is_asked_for_once_and_its_vector_stays_the_same(cache: VectorCache) -> None:
    provider = Provider()
    one = CachingEmbedder(provider, cache)
    first = one.embed(["a lamp", "a chair"], SOON)
    again = one.embed(["a chair", "a table", "a lamp"], SOON)
    assert provider.calls == [["a lamp", "a chair"], ["a table"]]
    assert not first.cached
    assert again.cached == {0, 2}
    assert again.tokens == 2
    assert np.array_equal(again.vectors, expected(["a chair", "a table", "a lamp"]))
    assert again.vectors.dtype == np.float32
    whole = one.embed(["a lamp", "a table"], SOON)
    assert whole.cached == {0, 1}
    assert whole.tokens == 0
    assert np.array_equal(whole.vectors, expected(["a lamp", "a table"]))
    assert len(provider.calls) == 2


def test_spaces_have_nothing_in_common(cache: VectorCache) -> None:
    """Invariant 6."""
    small, large = Provider("model/small/8"), Provider("model/large/8")
    CachingEmbedder(small, cache).embed(["a lamp"], SOON)
    assert not CachingEmbedder(large, cache).embed(["a lamp"], SOON).cached
    assert large.calls == [["a lamp"]]


def test_a_vector_of_another_dimension_is_none(cache: VectorCache) -> None:
    """Invariant 9: even under the very key."""
    provider = Provider()
    cache.put({key_of(provider.space, "a lamp"): bytes(ENTRY - 4)})
    answer = CachingEmbedder(provider, cache).embed(["a lamp"], SOON)
    assert np.array_equal(answer.vectors, expected(["a lamp"]))


def test_a_call_that_fails_leaves_nothing_behind(cache: VectorCache) -> None:
    provider = Provider()
    one = CachingEmbedder(provider, cache)
    one.embed(["a lamp"], SOON)
    provider.fails = True
    with pytest.raises(AdapterError):
        one.embed(["a lamp", "a chair"], SOON)
    assert one.embed(["a lamp"], SOON).cached == {0}
    provider.fails = False
    assert one.embed(["a chair"], SOON).cached == frozenset()


def test_queries_are_no_documents(cache: VectorCache) -> None:
    provider = Provider()
    one = CachingEmbedder(provider, cache)
    one.embed(["a lamp"], SOON)
    one.embed_query("a lamp", SOON)
    assert provider.calls == [["a lamp"], ["a lamp"]]


def test_workers_share_it(cache: VectorCache) -> None:
    texts = [f"text {number}" for number in range(200)]
    one = CachingEmbedder(Provider(), cache)
    wrong: list[str] = []

    def work(seed: int) -> None:
        for start in range(0, 200, 10):
            some = texts[(start + seed * 7) % 190 :][:10]
            if not np.array_equal(one.embed(some, SOON).vectors, expected(some)):
                wrong.append(some[0])

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert one.embed(texts[:100], SOON).cached == set(range(100))


# --- memory ----------------------------------------------------------------------------------------------


def test_memory_is_bounded_and_what_was_not_used_goes_first() -> None:
    """Invariant 11."""
    cache = MemoryCache(10 * (ENTRY + 200))
    keys = [key_of("space", f"{number}") for number in range(30)]
    for key in keys[:10]:
        cache.put({key: bytes(ENTRY)})
    cache.get(keys[:5])
    for key in keys[10:15]:
        cache.put({key: bytes(ENTRY)})
    assert cache.get(keys).keys() == {*keys[:5], *keys[10:15]}
    cache.put({key: bytes(ENTRY) for key in keys})
    assert len(cache.get(keys)) == 10


# --- disk ------------------------------------------------------------------------------------------------


def test_what_is_on_disk_outlives_the_process(tmp_path: Path, told: Told) -> None:
    path = tmp_path / "vectors.db"
    first = disk(path, told)
    CachingEmbedder(Provider(), first).embed(["a lamp"], SOON)
    second = disk(path, told)  # the first one was killed, or is another replica
    assert CachingEmbedder(Provider(), second).embed(["a lamp"], SOON).cached == {0}
    first.close()
    second.close()


@pytest.mark.parametrize("flip", range(0, 8 + ENTRY, 5))
def test_a_damaged_vector_is_none(tmp_path: Path, told: Told, flip: int) -> None:
    """Invariant 9: whichever of its bytes it is."""
    cache = disk(tmp_path / "vectors.db", told)
    one = CachingEmbedder(Provider(), cache)
    one.embed(["a lamp", "a chair"], SOON)
    with sqlite3.connect(tmp_path / "vectors.db") as other:
        key = key_of(one.space, "a lamp")
        ((kept,),) = other.execute("SELECT vector FROM vectors WHERE key = ?", (key,))
        spoilt = bytearray(kept)
        spoilt[flip] ^= 1
        other.execute("UPDATE vectors SET vector = ? WHERE key = ?", (bytes(spoilt), key))
    other.close()
    answer = one.embed(["a lamp", "a chair"], SOON)
    assert answer.cached == {1}
    assert np.array_equal(answer.vectors, expected(["a lamp", "a chair"]))
    assert one.embed(["a lamp"], SOON).cached == {0}  # and is mended
    cache.close()


def test_the_vector_of_another_text_is_none(tmp_path: Path, told: Told) -> None:
    cache = disk(tmp_path / "vectors.db", told)
    one = CachingEmbedder(Provider(), cache)
    one.embed(["a lamp", "a chair"], SOON)
    with sqlite3.connect(tmp_path / "vectors.db") as other:
        other.execute(
            "UPDATE vectors SET vector = (SELECT vector FROM vectors WHERE key = ?) WHERE key = ?",
            (key_of(one.space, "a chair"), key_of(one.space, "a lamp")),
        )
    other.close()
    assert one.embed(["a lamp", "a chair"], SOON).cached == {1}
    cache.close()


def test_a_file_that_is_no_database_is_begun_anew(tmp_path: Path, told: Told) -> None:
    path = tmp_path / "vectors.db"
    path.write_bytes(b"what a crash left " * 1000)
    cache = disk(path, told)
    one = CachingEmbedder(Provider(), cache)
    one.embed(["a lamp"], SOON)
    assert one.embed(["a lamp"], SOON).cached == {0}
    cache.close()


def test_a_file_that_is_damaged_while_it_is_used_is_begun_anew(tmp_path: Path, told: Told) -> None:
    path = tmp_path / "vectors.db"
    cache = disk(path, told)
    one = CachingEmbedder(Provider(), cache)
    texts = [f"text {number}" for number in range(500)]
    one.embed(texts, SOON)
    cache.close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(bytes(range(256)) * ((size - 4096) // 256))
    cache = disk(path, told)
    one = CachingEmbedder(Provider(), cache)
    for _ in range(3):
        assert np.array_equal(one.embed(texts, SOON).vectors, expected(texts))
    assert one.embed(texts, SOON).cached == set(range(500))
    assert "cache_failed" in told.events
    cache.close()


def test_a_file_that_another_process_holds_is_a_miss(tmp_path: Path, told: Told, monkeypatch: Any) -> None:
    monkeypatch.setattr("vectide.cache._PATIENCE_S", 0.01)
    cache = disk(tmp_path / "vectors.db", told)
    one = CachingEmbedder(Provider(), cache)
    other = sqlite3.connect(tmp_path / "vectors.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    assert np.array_equal(one.embed(["a lamp"], SOON).vectors, expected(["a lamp"]))
    assert told.events == ["cache_failed"]
    other.execute("ROLLBACK")
    other.close()
    one.embed(["a lamp"], SOON)
    assert one.embed(["a lamp"], SOON).cached == {0}
    cache.close()


def test_disk_is_bounded_and_the_oldest_go_first(tmp_path: Path, told: Told) -> None:
    path = tmp_path / "vectors.db"
    most = 200_000
    cache = disk(path, told, most)
    one = CachingEmbedder(Provider(), cache)
    texts = [f"text {number}" for number in range(5000)]
    for start in range(0, 5000, 100):
        one.embed(texts[start : start + 100], SOON)
    held = [text for text in texts if cache.get([key_of(one.space, text)])]
    cache.close()
    assert path.stat().st_size < 1.5 * most
    assert len(held) > 500
    assert held == texts[-len(held) :]


def test_a_path_that_cannot_be_is_refused_at_start(tmp_path: Path, told: Told) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "vectors.db", tmp_path):
        with pytest.raises(StartupRefused, match="VECTIDE_CACHE__PATH"):
            disk(path, told)

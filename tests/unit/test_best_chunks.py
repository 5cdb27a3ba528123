"""A search finds rows, each by its best chunk."""

from __future__ import annotations

from collections.abc import Sequence

from vectide.app_inspect import best_chunks
from vectide.core.model import Row
from vectide.ports import Hit


def hit(row: int, chunk: int, score: float) -> Hit:
    return Hit(Row.of("docs", {"id": row}), chunk, score, f"{row}/{chunk}", {})


class Collection:
    """Its chunks, best first; remembers how many were asked for."""

    def __init__(self, *hits: Hit) -> None:
        self.hits = sorted(hits, key=lambda each: -each.score)
        self.asked: list[int] = []

    def search(self, limit: int) -> Sequence[Hit]:
        self.asked.append(limit)
        return self.hits[:limit]


def test_rows_of_one_chunk_take_one_question() -> None:
    collection = Collection(*(hit(row, 0, 1 - row / 100) for row in range(50)))
    assert best_chunks(collection.search, 10) == collection.hits[:10]
    assert collection.asked == [10]


def test_a_row_comes_once_by_the_chunk_that_is_most_similar() -> None:
    collection = Collection(hit(1, 0, 0.5), hit(1, 1, 0.9), hit(2, 3, 0.7), hit(2, 0, 0.6), hit(3, 0, 0.1))
    found = best_chunks(collection.search, 2)
    assert [(each.text, each.score) for each in found] == [("1/1", 0.9), ("2/3", 0.7)]


def test_more_is_asked_for_while_one_row_takes_all_places() -> None:
    crowd = [hit(1, chunk, 0.9 - chunk / 1000) for chunk in range(100)]
    collection = Collection(*crowd, hit(2, 0, 0.2), hit(3, 0, 0.1))
    assert [each.text for each in best_chunks(collection.search, 2)] == ["1/0", "2/0"]
    assert collection.asked == [2, 8, 32, 128]


def test_fewer_rows_than_wanted_are_all_that_there_are() -> None:
    collection = Collection(hit(1, 0, 0.5), hit(1, 1, 0.4), hit(2, 0, 0.3))
    assert [each.text for each in best_chunks(collection.search, 3)] == ["1/0", "2/0"]
    assert best_chunks(Collection().search, 3) == []

"""Names that lead to collections, for stores that have them: what they all refuse, and how they are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Protocol, TypeVar

from vectide.core.failures import Failure, Kind
from vectide.core.model import Value
from vectide.ports import AdapterError, Deadline, Hit, Vector


class _Leading(Protocol):
    def leads_to(self, alias: str, deadline: Deadline) -> str | None: ...


T = TypeVar("T")
S = TypeVar("S", bound=_Leading)
_Search = Callable[[S, str, Vector, int, Deadline, Mapping[str, Value]], Sequence[Hit]]


def through_aliases(search: _Search[S]) -> _Search[S]:
    """For the ``search`` of a store: a name that is no collection is asked what it leads to, anew each time,
    since other processes swap too. When that has gone in between, it was swapped before: asked again."""

    @wraps(search)
    def searched(
        self: S,
        collection: str,
        vector: Vector,
        limit: int,
        deadline: Deadline,
        filters: Mapping[str, Value],
    ) -> Sequence[Hit]:
        name = collection
        while True:
            try:
                return search(self, name, vector, limit, deadline, filters)
            except AdapterError as error:
                target = None
                if error.failure.cause == "collection_missing":
                    target = self.leads_to(collection, deadline)
                if target is None or target == name:
                    raise
                name = target

    return searched


def name_taken(alias: str) -> AdapterError:
    """There is a collection of the alias's name."""
    return refused(
        "name_taken",
        f"there is a collection {alias!r}, so no alias can be named so: choose another alias, or drop that "
        "collection first",
    )


def in_use(collection: str, alias: str) -> AdapterError:
    """The collection cannot go."""
    return refused("in_use", f"alias {alias!r} leads to collection {collection!r}: swap it to another first")


def is_alias(name: str, target: str) -> AdapterError:
    """The name is not that of a collection."""
    return refused("in_use", f"{name!r} is an alias that leads to collection {target!r}: name that one")


def not_ours(name: str) -> AdapterError:
    """The collection belongs to somebody else."""
    return refused("not_ours", f"collection {name!r} is not one of this service: it is left alone")


def missing(collection: str) -> AdapterError:
    """There is no such collection."""
    return refused("collection_missing", f"there is no collection {collection!r}")


def unless_missing(read: Callable[[], T]) -> T | None:
    """What is read; None where there is no such collection or alias."""
    try:
        return read()
    except AdapterError as error:
        if error.failure.cause != "collection_missing":
            raise
        return None


def refused(cause: str, detail: str) -> AdapterError:
    """For what an operator has to decide."""
    return AdapterError(Failure(Kind.OPERATOR, cause, detail))

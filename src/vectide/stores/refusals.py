"""What every store refuses at the start, in the same words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from vectide.core.failures import Kind
from vectide.ports import AdapterError, CollectionSpec, StartupRefused

T = TypeVar("T")


@contextmanager
def refusing(kind: str, spec: CollectionSpec) -> Iterator[None]:
    """What an operator must mend before the start, as a refusal. What can pass by itself, or is not there,
    stays what it is."""
    try:
        yield
    except AdapterError as error:
        failure = error.failure
        if failure.kind in (Kind.TRANSIENT, Kind.THROTTLED):
            raise
        if failure.cause in ("collection_missing", "disk_full"):
            raise
        raise StartupRefused(f"the {kind} store refuses collection {spec.name!r}: {failure.detail}") from None


def found(kind: str, spec: CollectionSpec, look: Callable[[], T]) -> T | None:
    """What ``look`` finds of the collection; None when there is no such collection."""
    with refusing(kind, spec):
        try:
            return look()
        except AdapterError as error:
            if error.failure.cause == "collection_missing":
                return None
            raise


def check_metric(kind: str, spec: CollectionSpec, metrics: Iterable[str]) -> None:
    """Refuse a metric that the store does not have."""
    if spec.metric not in metrics:
        raise StartupRefused(f"{kind} has no metric {spec.metric!r}: choose {', '.join(metrics)}")


def check_made_for(spec: CollectionSpec, dimensions: int, metric: str, space: str) -> None:
    """Refuse a collection that was made for something else."""
    check_same(spec, "dimensions", dimensions, spec.dimensions)
    check_same(spec, "metric", metric, spec.metric)
    check_same(spec, "space", space, spec.space)


def check_same(spec: CollectionSpec, what: str, has: object, wanted: object) -> None:
    """Refuse one that has something else."""
    if has != wanted:
        raise StartupRefused(
            f"collection {spec.name!r} has {what} {has}, but {wanted} is configured: "
            "configure what it has, or use another collection"
        )

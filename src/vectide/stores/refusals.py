"""What every store refuses at the start, in the same words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from vectide.core.failures import Kind
from vectide.ports import AdapterError, CollectionSpec, StartupRefused


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

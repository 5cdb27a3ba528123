"""Where the rows of each table go: which provider makes their vectors, which store keeps them, and which
database is asked for what their events leave out.

Tables that say the same share one provider or target, with its stations: their texts travel in the same
calls, and one that fails is left alone by all of them. What fails elsewhere does not concern them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from vectide.core.batcher import BatchLimits
from vectide.core.pace import Rates
from vectide.ports import Embedder, RowReader, Store


@dataclass(frozen=True, slots=True, eq=False)
class Provider:
    """An embedder, and how it is called. ``name``, in metrics and the status, is no other provider's.
    ``usd_per_million_tokens``: None where the price is not known."""

    name: str
    embedder: Embedder
    batch: BatchLimits = field(default=BatchLimits(items=64, weight=None, linger_s=0.5))
    concurrency: int = 8
    timeout_s: float = 30.0
    rates: Rates = field(default=Rates())
    usd_per_million_tokens: float | None = None

    @property
    def limits(self) -> BatchLimits:
        """What one call carries: as much as wanted, as the provider takes, and as can be spread over a
        minute."""
        wanted, most = self.batch, self.embedder.limits
        known = (wanted.weight, most.max_tokens, self.rates.call_tokens)
        weight = min((tokens for tokens in known if tokens is not None), default=None)
        return replace(wanted, items=min(wanted.items, most.max_items), weight=weight)


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """A store, and how it is called. ``name``, in metrics and the status, is no other target's."""

    name: str
    store: Store
    lookup: BatchLimits = field(default=BatchLimits(items=64, linger_s=0.005, quiet_s=0.002))
    write: BatchLimits = field(default=BatchLimits(items=256, weight=4 * 2**20, linger_s=0.05, quiet_s=0.002))
    lookup_concurrency: int = 2
    write_concurrency: int = 4
    timeout_s: float = 30.0

    def limits(self, wanted: BatchLimits) -> BatchLimits:
        """``wanted``, as far as the store takes it."""
        return replace(wanted, items=min(wanted.items, self.store.capabilities.max_batch_items))


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """The way of one table's rows. ``reader``: None where no source is configured."""

    provider: Provider
    target: Target
    reader: RowReader | None = None


#: Id of each table, and the way of its rows.
Routes = Mapping[str, Route]


def providers_of(routes: Routes) -> list[Provider]:
    """Every provider once, in the order of the tables."""
    return list(dict.fromkeys(route.provider for route in routes.values()))


def is_several(routes: Routes) -> bool:
    """Whether it has to be said which provider or target is meant."""
    return len(providers_of(routes)) > 1 or len(targets_of(routes)) > 1


def targets_of(routes: Routes) -> list[Target]:
    """Every target once, in the order of the tables."""
    return list(dict.fromkeys(route.target for route in routes.values()))

"""What was not sent to a provider, counted: texts, their tokens, and what those would have cost."""

from __future__ import annotations

from collections.abc import Iterable

from vectide.core import signals
from vectide.core.lane import Lane
from vectide.core.mapping import TableMapping
from vectide.core.model import Deleted, Upserted
from vectide.core.prices import usd_of
from vectide.jobs.parts import Parts

#: Prose has about so many characters to a token.
_TOKEN_CHARS = 4


class Savings:
    """Tokens are estimates. They are counted when :meth:`publish` is called, since they are of interest to
    people, and counting is what counts cost."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._tokens: dict[tuple[str, str], float] = {}

    def add(self, lane: Lane, reason: str, texts: int, tokens: float) -> None:
        """So many texts of the lane's table needed no call."""
        self._parts.telemetry.count(signals.TEXTS_SAVED, texts, table=lane.table, reason=reason)
        saved = (lane.table, reason)
        self._tokens[saved] = self._tokens.get(saved, 0.0) + tokens

    def publish(self) -> None:
        """Count what was saved since the last time."""
        telemetry = self._parts.telemetry
        for (table, reason), tokens in self._tokens.items():
            telemetry.count(signals.TOKENS_SAVED, tokens, table=table, reason=reason)
            price = self._parts.routes[table].provider.usd_per_million_tokens
            if price is not None:
                telemetry.count(signals.COST_SAVED, usd_of(tokens, price), table=table, reason=reason)
        self._tokens.clear()


def tokens_in(changes: Iterable[Upserted | Deleted], mapping: TableMapping | None) -> float:
    """About the tokens that embedding all of these changes would have taken. A column that an event leaves
    out counts nothing."""
    if mapping is None:
        return 0.0
    chars = 0
    for change in changes:
        if isinstance(change, Upserted):
            columns = change.columns
            for name in mapping.embed_columns:
                value = columns.get(name)
                if isinstance(value, str):
                    chars += len(value)
    return chars / _TOKEN_CHARS

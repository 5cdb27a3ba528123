"""The way of the rows in tests where all tables share one provider, one store and one reader."""

from __future__ import annotations

from collections.abc import Iterable

from vectide.core.mapping import TableMapping
from vectide.jobs.routes import Provider, Route, Routes, Target
from vectide.ports import RowReader


def shared_route(
    tables: Iterable[TableMapping], provider: Provider, target: Target, reader: RowReader | None = None
) -> Routes:
    """Every table goes the same way."""
    route = Route(provider, target, reader)
    return {mapping.table: route for mapping in tables}

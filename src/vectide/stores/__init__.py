"""Stores: one module per vector store, imported lazily by kind.

Every module offers ``create(**settings)``, which returns its :class:`~vectide.ports.Store` without talking
to the server yet: :meth:`~vectide.ports.Store.prepare` does that. Those of other packages are found by their
entry points.
"""

from __future__ import annotations

import inspect
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Final, cast

from vectide.ports import MissingExtra, StartupRefused, Store

#: Kind of store -> module that makes it. The extra that installs its SDK has the name of the kind.
KINDS: Final[dict[str, str]] = {
    "chroma": "vectide.stores.chroma",
    "lancedb": "vectide.stores.lancedb",
    "milvus": "vectide.stores.milvus",
    "pgvector": "vectide.stores.pgvector",
    "pinecone": "vectide.stores.pinecone",
    "qdrant": "vectide.stores.qdrant",
    "weaviate": "vectide.stores.weaviate",
}

#: Entry points of other packages: kind -> what makes the store.
GROUP: Final = "vectide.stores"


def load(kind: str, **settings: Any) -> Store:
    """The store of that kind; its module and its SDK are imported now.

    A setting that is None counts as not given. Raises :class:`~vectide.ports.MissingExtra` when the SDK is
    not installed and :class:`~vectide.ports.StartupRefused` for an unknown kind or settings it cannot use.
    """
    create = _module(kind).create if kind in KINDS else _plugin(kind)
    given = {name: value for name, value in settings.items() if value is not None}
    known = inspect.signature(create).parameters
    unknown = sorted(given.keys() - known.keys())
    if unknown:
        raise StartupRefused(f"the store {kind!r} takes no {', '.join(unknown)}: leave it out")
    absent = sorted(n for n, p in known.items() if p.default is inspect.Parameter.empty and n not in given)
    if absent:
        raise StartupRefused(f"the store {kind!r} needs a {', '.join(absent)}")
    return cast(Store, create(**given))


def _module(kind: str) -> Any:
    try:
        return import_module(KINDS[kind])
    except ImportError as error:  # also what psycopg raises when its C library is missing
        if (error.name or "").startswith("vectide"):
            raise
        message = f'the store {kind!r} lacks a package ({error}): pip install "vectide[{kind}]"'
        raise MissingExtra(message) from error


def _plugin(kind: str) -> Any:
    found = next(iter(entry_points(group=GROUP, name=kind)), None)
    if found is None:
        raise StartupRefused(f"unknown store {kind!r}: choose one of {', '.join(sorted(KINDS))}")
    try:
        return found.load()
    except Exception as error:
        message = f"the store {kind!r} ({found.value}) cannot be loaded: {type(error).__name__}: {error}"
        raise StartupRefused(message) from error

"""Every store against the suite of promises, and how stores are found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from vectide import stores
from vectide.ports import MissingExtra, StartupRefused
from vectide.testing.store_suite import *  # noqa: F403
from vectide.testing.swap_suite import *  # noqa: F403


def test_every_kind_of_store_is_in_this_suite(backends: Mapping[str, object]) -> None:
    assert stores.KINDS.keys() <= backends.keys()


def test_no_waiver_is_stale(backends: Mapping[str, object], waivers: Mapping[tuple[str, str], str]) -> None:
    """One for a promise that is kept fails by itself, where it is."""
    for (kind, test), reason in waivers.items():
        assert kind in backends
        assert callable(globals().get(test)), test
        assert reason


def test_the_capabilities_name_the_kind(backend: Any, request: pytest.FixtureRequest) -> None:
    assert backend.store.capabilities.kind == request.node.callspec.params["backend"].split("_")[0]


# --- loading --------------------------------------------------------------------------------------------


def test_an_unknown_kind_names_those_that_exist() -> None:
    with pytest.raises(StartupRefused, match="pgvector"):
        stores.load("postgress", dsn="x")


def test_settings_that_a_store_cannot_use_are_refused_by_name() -> None:
    with pytest.raises(StartupRefused, match="api_key"):
        stores.load("pgvector", dsn="dbname=x", api_key="secret")
    with pytest.raises(StartupRefused, match="dsn"):
        stores.load("pgvector", dsn=None)


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(stores.KINDS, "absent", "no_such_sdk")
    with pytest.raises(MissingExtra, match=r'pip install "vectide\[absent\]"'):
        stores.load("absent")

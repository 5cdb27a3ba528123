"""The table on the page about the stores: what each can do is what its adapter declares."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from importlib import import_module
from typing import Any, Final

from vectide import stores
from vectide.ports import Capabilities

#: Capability -> what it means for who reads the page.
MEANINGS: Final[dict[str, str]] = {
    "max_batch_items": "most writes in one call",
    "atomic_calls": "a row of several chunks changes in one step; else it is marked open meanwhile",
    "read_your_writes": "a look-up sees every write that was confirmed before it",
    "conditional_writes": "the store itself refuses a write that is older than what it holds",
    "update_only": "a late write of a row that was deleted meanwhile does not bring it back",
    "nested_metadata": "objects and lists of lists stay what they are; else they are canonical JSON text",
    "null_metadata": "a null is kept; else the name is left out",
    "max_integer": "integers beyond it are text",
    "nul_in_text": "texts may hold NUL characters; else they are refused by name",
    "uniform_lists": "a list of several types is canonical JSON text, an empty one is left out",
    "text_lists": "a list of anything but texts is canonical JSON text",
    "filter_indexes": "[names to filter by](tables.md#names-to-filter-by) get an index; else it needs none",
    "tenants": "how the points of [one tenant](tables.md#tenants) are found",
    "named_vectors": "a table may fill [one of several vectors](tables.md#named-vectors); the others stay",
    "unit_vectors": "the store scales vectors of metric cosine to length 1",
    "swap": "what leads searches to another collection: an [alias](#aliases), or a pointer of yours",
}

BEGIN: Final = "<!-- What follows is made from the code by `make docs`. -->"
END: Final = "<!-- End. -->"


def updated(page: str) -> str:
    """The page with the table of capabilities as the adapters declare them, and a heading for every store."""
    able = {kind: _module(kind).CAPABILITIES for kind in stores.KINDS}
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    for kind in able:
        if f"\n## {kind}\n" not in after:
            raise ValueError(f"docs/stores.md says nothing about the store {kind}")
    return "\n".join([before + BEGIN, "", *_table(able), "", END + after])


def _module(kind: str) -> Any:
    return import_module(stores.KINDS[kind])


def _table(able: dict[str, Capabilities]) -> Iterable[str]:
    yield "| | " + " | ".join(able) + " | meaning |"
    yield "|---" * (len(able) + 2) + "|"
    for one in fields(Capabilities):
        if one.name != "kind":
            cells = [_cell(getattr(of, one.name)) for of in able.values()]
            yield f"| {one.name.replace('_', ' ')} | {' | '.join(cells)} | {MEANINGS[one.name]} |"


def _cell(value: object) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case int() if value > 2**64:
            return "no limit"
        case int() if value > 10**6:
            return f"2^{value.bit_length() if value & (value + 1) == 0 else value.bit_length() - 1}" + (
                " - 1" if value & (value + 1) == 0 else ""
            )
        case _:
            return str(value)

"""Stamps of other versions, and of other mappings: nothing is embedded again for them."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest
from tests.stamps import FILES, PLAIN, ROWS, change, known, written

from vectide.core.model import STAMP_VERSION, Deleted, Mapped, Stamp
from vectide.core.planner import EmbedText, Outranked, PatchMetadata, RemoveRow, Skip, plan
from vectide.core.softdelete import SoftDelete
from vectide.core.template import Template
from vectide.settings_where import parse_where

Payloads = dict[str, dict[str, Any]]


def kept(version: str) -> Payloads:
    payloads: Payloads = json.loads((FILES / f"{version}.json").read_text())
    return payloads


VERSIONS = sorted(path.stem for path in FILES.glob("*.json"))
NEWEST = VERSIONS[-1]


def test_what_is_written_today_is_kept_for_the_versions_to_come() -> None:
    """When this fails, stamps have changed: write them to a new file beside those that are there."""
    assert json.loads(json.dumps(written())) == kept(NEWEST)


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("version", VERSIONS)
def test_stamps_of_every_version_are_read_without_embedding_anything(version: str, name: str) -> None:
    stamp = Stamp.from_payload(kept(version)[name])
    mapping = ROWS[name][0]
    if not stamp.stale and not stamp.open and not stamp.ahead:
        assert plan(change(name), known(name, stamp, 41), mapping) == Skip("unchanged")
        assert plan(change(name, title="old"), known(name, stamp, 40), mapping) == Skip("already_applied")
    if not stamp.open:
        other = plan(change(name, price="9", rank=5), known(name, stamp, 41), mapping)
        assert isinstance(other, PatchMetadata)
    assert isinstance(plan(change(name, title="new"), known(name, stamp, 41), mapping), EmbedText)


def read_by_the_first(payload: dict[str, Any]) -> dict[str, Any]:
    """What the reader of the first version made of a stamp, word for word."""
    if payload["v"] > 1:
        raise ValueError("the stamp has a version that this vectide does not read")
    log, partition, offset = payload["position"]
    return {
        "space": payload["space"],
        "layout": payload["layout"],
        "chunks": tuple(payload["chunks"]),
        "columns": dict(payload["columns"]),
        "metadata_hash": payload["metadata"],
        "position": (log, int(partition), int(offset)),
        "open": bool(payload.get("open", False)),
        "stale": bool(payload.get("stale", False)),
        "ahead": bool(payload.get("ahead", False)),
    }


@pytest.mark.parametrize("name", ROWS)
def test_the_first_version_reads_the_same_of_what_is_written_today(name: str) -> None:
    """One version down: it compares all of that, and nothing else."""
    assert read_by_the_first(kept(NEWEST)[name]) == read_by_the_first(kept("1-first")[name])


def test_a_stamp_of_the_next_version_is_read_and_what_it_adds_passed_over() -> None:
    payload = kept(NEWEST)["plain"]
    later = {**payload, "v": STAMP_VERSION + 1, "more": {"of": ["it"]}}
    assert Stamp.from_payload(later) == Stamp.from_payload(payload)
    with pytest.raises(ValueError, match="run the newer vectide again"):
        Stamp.from_payload({**later, "v": STAMP_VERSION + 2})


BESIDE = ("values", "text", "metadata")


def test_a_stamp_says_all_of_itself() -> None:
    """Whatever a stamp has comes back, but for what is kept beside it."""
    stamp = Stamp.from_payload(kept(NEWEST)["plain"])
    whole = replace(stamp, open=True, stale=True, ahead=True)
    assert all(getattr(whole, field.name) for field in fields(whole) if field.name not in BESIDE)
    assert Stamp.from_payload(json.loads(json.dumps(whole.to_payload(known("plain", None).row)))) == whole


# --- other mappings -------------------------------------------------------------------------------------


def of_mapping(identity: str, since_ms: int) -> Stamp:
    return replace(Stamp.from_payload(kept(NEWEST)["plain"]), mapped=Mapped(identity, since_ms))


def test_a_row_of_a_later_mapping_is_neither_changed_nor_skipped() -> None:
    """What looks unchanged may have changed in a column that only the other mapping looks at."""
    assert known("plain", None).mapped is not None
    later = of_mapping("other", 2**42)
    for one in (change("plain"), change("plain", title="new"), change("plain", price="9")):
        assert plan(one, known("plain", later, 41), PLAIN) == Outranked(Mapped("other", 2**42))
    assert isinstance(plan(Deleted({"id": 7}), known("plain", later, 41), PLAIN), RemoveRow)
    assert plan(change("plain", title="new"), known("plain", later, 40), PLAIN) == Skip("already_applied")


@pytest.mark.parametrize(
    "mapped", [None, Mapped("other", 5), Mapped("other", 1795243000000), Mapped(PLAIN.identity, 2**42)]
)
def test_a_row_of_an_earlier_or_the_same_mapping_is_taken_on(mapped: Mapped | None) -> None:
    stamp = replace(of_mapping("", 0), mapped=mapped)
    planned = plan(change("plain", price="9"), known("plain", stamp, 41), PLAIN)
    assert isinstance(planned, PatchMetadata)
    assert planned.stamp.mapped == known("plain", None).mapped


def test_who_wrote_a_row_is_no_reason_to_write_it_again() -> None:
    assert plan(change("plain"), known("plain", of_mapping("other", 5), 41), PLAIN) == Skip("unchanged")


def test_all_that_makes_a_difference_to_rows_is_another_mapping() -> None:
    others = [
        replace(PLAIN, template=Template.parse("{title}")),
        replace(PLAIN, metadata=PLAIN.metadata[:1]),
        replace(PLAIN, metadata=(replace(PLAIN.metadata[0], name="cost"), PLAIN.metadata[1])),
        replace(PLAIN, soft_delete=SoftDelete("gone")),
        replace(PLAIN, soft_delete=SoftDelete("gone", ("x",))),
        replace(PLAIN, where=parse_where("rank > 1")),
        replace(PLAIN, store_text=False),
        replace(PLAIN, keep_values=False),
        replace(PLAIN, types=(("price", "decimal(10,2)"),)),
    ]
    assert len({mapping.identity for mapping in (PLAIN, *others)}) == 1 + len(others)
    same = replace(PLAIN, source="^shop", on_incomplete=("stored",), on_truncate="skip")
    assert same.identity == PLAIN.identity

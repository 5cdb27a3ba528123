"""Weaviate's own client finds what the service has written: with it (over gRPC) people search."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import pytest

from vectide.core.filters import FilterField, FilterType
from vectide.ports import CollectionSpec, Deadline
from vectide.stores.weaviate import WeaviateStore
from vectide.testing.points import patch, put, row, vector
from vectide.testing.weaviate_server import WeaviateServer

# Its server has to be built.
pytestmark = pytest.mark.nightly

SPEC = CollectionSpec(
    "seen_by_others",
    4,
    "test/model/4",
    filters=(FilterField("price", FilterType.NUMBER), FilterField("color", FilterType.TEXT)),
)


@pytest.fixture
def seen(weaviate_server: WeaviateServer, deadline: Deadline) -> Iterator[Any]:
    """The collection as the client has it; three rows are in it, of which one has been patched."""
    weaviate = pytest.importorskip("weaviate")
    with closing(WeaviateStore(weaviate_server.url)) as store:
        store.prepare(SPEC, deadline)
        rows = [
            put(row(1), text="walnut table", metadata={"price": 5.5, "color": "red"}, at=vector(1.0)),
            put(row(2), text="oak table", metadata={"price": 9, "color": "red"}, at=vector(0.9, 0.1)),
            put(row(3), text="steel lamp", metadata={"price": 9, "color": "blue"}, at=vector(0.0, 1.0)),
        ]
        store.write(SPEC.name, rows, deadline)
        store.write(
            SPEC.name, [patch(row(2), 1, text="oak table", metadata={"price": 7, "color": "red"})], deadline
        )
        port = urlsplit(weaviate_server.url).port
        grpc_port = weaviate_server.grpc_port
        # What it checks at first is whether there is a newer client, on the internet.
        with weaviate.connect_to_local(port=port, grpc_port=grpc_port, skip_init_checks=True) as client:
            yield client.collections.use("Seen_by_others")
        store.drop(SPEC.name, deadline)


def keys(found: Any) -> list[str]:
    ids = {row(key).head_id: str(key) for key in (1, 2, 3)}
    return [ids[str(one.uuid)] for one in found.objects]


def test_the_nearest_points_come_first_with_their_text_and_metadata(seen: Any) -> None:
    found = seen.query.near_vector([1.0, 0.0, 0.0, 0.0], limit=2)
    assert keys(found) == ["1", "2"]
    first = found.objects[0].properties
    assert (first["text"], first["metadata"]) == ("walnut table", '{"color":"red","price":5.5}')


def test_names_to_filter_by_are_properties_of_their_type(seen: Any) -> None:
    """Ranges too, and after a patch."""
    from weaviate.classes.query import Filter

    cheap = Filter.by_property("price_number").less_than(8)
    red = Filter.by_property("color_text").equal("red")
    assert keys(seen.query.near_vector([0.0, 1.0, 0.0, 0.0], filters=cheap & red)) == ["2", "1"]
    listed = Filter.by_property("filters").contains_any(['color="blue"'])
    assert keys(seen.query.fetch_objects(filters=listed)) == ["3"]


def test_texts_are_found_by_their_words(seen: Any) -> None:
    assert keys(seen.query.bm25("lamp", query_properties=["text"])) == ["3"]

"""Previews of recordings, and of documents, as files: whatever changes what the service makes of real events
shows up here.

After a change that is meant, delete the file, run the test once (it writes the file and fails), and read the
difference.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tests.converters import learned_codec, recorded_avro
from tests.documented import DOCUMENTS, page, raw
from tests.recorded import PRODUCTS, TYPES_BY_COLUMN, Case, read, table_of

from vectide.cli_output import plain_preview
from vectide.codecs.debezium_json import DebeziumJson
from vectide.codecs.registry import RegistryCodec
from vectide.core.chunks import Chunking
from vectide.core.mapping import TableMapping
from vectide.core.model import Record, short_hash
from vectide.core.vanishing import LOSSES
from vectide.embedders.hashing import HashingEmbedder
from vectide.jobs.preview import Previewer, Rules
from vectide.settings_where import parse_where
from vectide.testing.store import CAPABILITIES

PREVIEWS = Path(__file__).parents[1] / "data" / "previews"


@dataclass(frozen=True)
class Shown:
    """Records that are previewed, and the codec that reads them."""

    name: str
    records: Sequence[Record]
    mapping: TableMapping
    codec: DebeziumJson | RegistryCodec

    def __str__(self) -> str:
        return self.name


def recorded(name: str, table: str, mapping: TableMapping) -> Shown:
    """A recording in JSON."""
    placed = Case(name, table, mapping).placed
    codec = DebeziumJson(mapping_of=lambda topic: placed if placed.matches(topic) else None)
    return Shown(f"{name}-{table}", read(name), placed, codec)


def framed(name: str, mapping: TableMapping) -> Shown:
    """A recording in Avro."""
    return Shown(name, recorded_avro(name), mapping, learned_codec(name, lambda _: mapping))


def documents() -> Shown:
    """Events of MongoDB: documents come, change and go, and then one after the other loses its body."""
    mapping = table_of("{title}[\n\n{body}]", "n", "tags", source=DOCUMENTS)
    events = [
        *raw("c", 0, page(0, title="one", body="first", tags=["a", {"b": 1}])),
        *raw("u", 0, page(0, title="one", body="first", n=2), updatedFields='{"n": 2}'),
        *raw("u", 0, page(0, title="one", n=2), removedFields=["body"]),
        *raw("d", 0, None),
    ]
    ids = range(1, LOSSES + 2)
    for fields in ({"body": "long"}, {"content": "long"}):
        for id_ in ids:
            (event,) = raw("u", 0, {**page(0, title=f"page {id_}", **fields), "_id": id_})
            events.append(replace(event, key=b'{"id":"%d"}' % id_))
    records = [replace(event, offset=offset) for offset, event in enumerate(events)]
    return Shown("documents", records, mapping, DebeziumJson(mapping_of=lambda _: mapping))


SHOWN = [
    recorded("unwrapped_mode_tombstone", "products", PRODUCTS),
    recorded("soft_delete", "notes", table_of("{body}", "deleted_at", soft_delete="is_deleted")),
    recorded("no_primary_key", "keyed", table_of("[{lang}: ]{body}", "lang")),
    recorded("toasted", "docs", table_of("{title}", "flag", "j", types={"j": "jsonb"})),
    recorded("toasted_reselect", "docs", table_of("{title}\n\n{body}", "flag", chunking=Chunking(30))),
    recorded("transaction_metadata", "products", replace(PRODUCTS, where=parse_where("price > 200"))),
    recorded("toasted_full", "docs", table_of("{body}", "flag", chunking=Chunking(20, overlap=4))),
    framed(
        "types_avro", table_of("{c_text}[ {c_num102}][ {c_date}]", *sorted(TYPES_BY_COLUMN), source="^.*")
    ),
    documents(),
]


def previews(shown: Shown) -> str:
    """What the service would do with each record, one JSON object per line; long texts are cut."""
    mapping, embedder = shown.mapping, HashingEmbedder(dimensions=16)
    rules = Rules(
        decode=shown.codec.decode,
        mapping_of=lambda topic: mapping if mapping.matches(topic) else None,
        capabilities=CAPABILITIES,
        limits=embedder.limits,
        count_tokens=embedder.count_tokens,
        space="preview",
    )
    previewer = Previewer(rules)
    lines = [plain_preview(previewer.preview(record)) for record in shown.records]
    return "".join(json.dumps(_cut(line), ensure_ascii=False) + "\n" for line in lines)


def _cut(value: object) -> object:
    match value:
        case dict():
            return {name: _cut(member) for name, member in value.items()}
        case list():
            return [_cut(member) for member in value]
        case str() if len(value) > 200:
            return f"{value[:80]}… ({len(value)} characters, hash {short_hash(value)})"
    return value


@pytest.mark.parametrize("shown", SHOWN, ids=str)
def test_the_preview_of_records_is_as_it_was(shown: Shown) -> None:
    """Cases 10, 20, 21, 22, 26, 35, 41, 46 and 71: decisions, reasons, ids, texts and metadata."""
    path = PREVIEWS / f"{shown}.jsonl"
    found = previews(shown)
    if not path.exists():
        path.write_text(found, encoding="utf-8")
        pytest.fail(f"{path.name} was not there and has been written: read it, and run again")
    assert found.splitlines() == path.read_text(encoding="utf-8").splitlines()

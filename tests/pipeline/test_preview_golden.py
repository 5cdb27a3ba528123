"""Previews of recordings as files: whatever changes what the service makes of real events shows up here.

After a change that is meant, delete the file, run the test once (it writes the file and fails), and read the
difference.
"""

import json
from pathlib import Path

import pytest
from tests.recorded import PRODUCTS, Case, read, table_of

from vectide.cli_output import plain_preview
from vectide.codecs.debezium_json import DebeziumJson
from vectide.core.chunks import Chunking
from vectide.embedders.hashing import HashingEmbedder
from vectide.jobs.preview import Previewer, Rules
from vectide.testing.store import CAPABILITIES

PREVIEWS = Path(__file__).parents[1] / "data" / "previews"

SHOWN = [
    Case("unwrapped_mode_tombstone", "products", PRODUCTS),
    Case("soft_delete", "notes", table_of("{body}", "deleted_at", soft_delete="is_deleted")),
    Case("no_primary_key", "keyed", table_of("[{lang}: ]{body}", "lang")),
    Case("toasted", "docs", table_of("{title}", "flag", "j", types={"j": "jsonb"})),
    Case("toasted_reselect", "docs", table_of("{title}\n\n{body}", "flag", chunking=Chunking(30))),
]


def previews(case: Case) -> str:
    """What the service would do with each record, one JSON object per line; long texts are cut."""
    mapping, embedder = case.placed, HashingEmbedder(dimensions=16)
    codec = DebeziumJson(mapping_of=lambda topic: mapping if mapping.matches(topic) else None)
    rules = Rules(
        decode=codec.decode,
        mapping_of=lambda topic: mapping if mapping.matches(topic) else None,
        capabilities=CAPABILITIES,
        limits=embedder.limits,
        count_tokens=embedder.count_tokens,
        space="preview",
    )
    previewer = Previewer(rules)
    lines = [plain_preview(previewer.preview(record)) for record in read(case.name)]
    return "".join(json.dumps(_cut(line), ensure_ascii=False) + "\n" for line in lines)


def _cut(value: object) -> object:
    match value:
        case dict():
            return {name: _cut(member) for name, member in value.items()}
        case list():
            return [_cut(member) for member in value]
        case str() if len(value) > 200:
            return f"{value[:80]}… ({len(value)} characters)"
    return value


@pytest.mark.parametrize("case", SHOWN, ids=str)
def test_the_preview_of_a_recording_is_as_it_was(case: Case) -> None:
    """Cases 10, 20, 21, 22, 26, 41 and 71: decisions, reasons, ids, texts and metadata."""
    path = PREVIEWS / f"{case}.jsonl"
    found = previews(case)
    if not path.exists():
        path.write_text(found, encoding="utf-8")
        pytest.fail(f"{path.name} was not there and has been written: read it, and run again")
    assert found.splitlines() == path.read_text(encoding="utf-8").splitlines()

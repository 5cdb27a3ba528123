"""What tokens cost: the list prices, and the page that shows them."""

import re
from pathlib import Path

import pytest

from vectide.core.prices import FREE, PRICES, usd_of, usd_per_million_tokens

PAGE = Path(__file__).parents[2] / "docs" / "cost.md"


@pytest.mark.parametrize(
    ("kind", "model", "usd"),
    [
        ("openai", "text-embedding-3-small", 0.02),
        ("openai", "text-embedding-3-large", 0.13),
        ("azure", "text-embedding-3-large", 0.13),
        ("cohere", "embed-english-v3.0", 0.10),
        ("wordllama", None, 0.0),
        ("model2vec", "potion-base-8M", 0.0),
        ("onnx", "all-MiniLM-L6-v2", 0.0),
        ("openai", "a model of one's own", None),
        ("openai", None, None),
        ("an entry point", "model", None),
    ],
)
def test_the_price_of_a_model_is_that_of_the_list_or_unknown(
    kind: str, model: str | None, usd: float | None
) -> None:
    assert usd_per_million_tokens(kind, model) == usd


def test_cost_is_by_the_million() -> None:
    assert usd_of(3_000_000, 0.02) == pytest.approx(0.06)


def test_the_page_of_costs_shows_every_price() -> None:
    shown = {
        (kind, model): float(usd)
        for kind, model, usd in re.findall(
            r"^\| `([a-z-]+)` \| `(\S+)` \| ([\d.]+) \|$", PAGE.read_text(), re.M
        )
    }
    assert shown == {(kind, model): usd for kind, models in PRICES.items() for model, usd in models.items()}
    assert not FREE & PRICES.keys()

"""The site of the docs: where links of the repository's pages lead to there."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from scripts.site import on_page_markdown


@pytest.mark.parametrize(
    ("page", "written", "on_the_site"),
    [
        ("index.md", "[a](docs/tables.md#text)", "[a](tables.md#text)"),
        ("index.md", "[a](docs/decisions/)", "[a](decisions/index.md)"),
        ("index.md", "[a](CONTRIBUTING.md)", "[a](CONTRIBUTING.md)"),
        ("index.md", "the [licence](LICENSE)", "the licence"),
        ("CONTRIBUTING.md", "[a](docs/cases.md)", "[a](cases.md)"),
        ("tables.md", "[a](types.md#x), [b](#text)", "[a](types.md#x), [b](#text)"),
        ("tables.md", "[`t.py`](../tests/t.py) [b](../CHANGELOG.md)", "`t.py` [b](CHANGELOG.md)"),
        ("reference/cli.md", "[a](../tables.md)", "[a](../tables.md)"),
        ("runbooks/stale.md", "[a](../../helm/examples/x.yaml)", "[a](../helm/examples/x.yaml)"),
        ("tables.md", "[a](https://example.org/x.py)", "[a](https://example.org/x.py)"),
        ("tables.md", "```\n[a](../tests/t.py)\n```", "```\n[a](../tests/t.py)\n```"),
    ],
)
def test_links_lead_to_where_the_page_is_on_the_site(page: str, written: str, on_the_site: str) -> None:
    given = SimpleNamespace(file=SimpleNamespace(src_uri=page))
    assert on_page_markdown(written, page=given) == on_the_site

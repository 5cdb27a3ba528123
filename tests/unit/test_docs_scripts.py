"""The scripts behind the docs: citations are found wherever tests make them, and broken links are too."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest
from scripts.case_index import PLANNED, Citation, citations, problems, updated
from scripts.links import broken_links
from scripts.store_matrix import table

CATALOGUE = """\
# Cases

| # | Case | Expected | Shown by |
|---|---|---|---|
| 12 | a | b | |
| 13 | c | d | something old |
| 14 | e | f | |
"""


def written(root: Path, source: str) -> Path:
    folder = root / "tests"
    folder.mkdir()
    (folder / "test_x.py").write_text(dedent(source), "utf-8")
    return folder


@pytest.mark.parametrize(
    ("source", "cited"),
    [
        ('def test_a():\n    """Shows case 12."""', {12}),
        ('def test_a():\n    """Cases 12, 13 and 14."""', {12, 13, 14}),
        ('def test_a():\n    """Cases 12-14: a range."""', {12, 13, 14}),
        ("# cases 12 and 14\ndef test_a():\n    pass", {12, 14}),
        ("# case 12\n@decorated(1)\ndef test_a():\n    pass", {12}),
        ("def test_a():\n    pass  # case 13", {13}),
        ("class TestIt:\n    # case 13\n    def test_a(self):\n        pass", {13}),
        ('def test_a():\n    """In any case 5 is not cited by a text."""\n    text = "case 12"', {5}),
        ("def helper():\n    pass  # case 12", set()),
    ],
)
def test_a_citation_is_found_where_tests_make_it(tmp_path: Path, source: str, cited: set[int]) -> None:
    found = list(citations(written(tmp_path, source)))
    assert {citation.number for citation in found} == cited
    assert all(citation.test == "test_a" for citation in found)


def test_a_citation_belongs_to_the_test_that_makes_it_and_no_other(tmp_path: Path) -> None:
    source = """
        def test_a():
            pass  # case 12


        # case 13
        def test_b():
            pass
    """
    path = written(tmp_path, source) / "test_x.py"
    assert list(citations(path.parent)) == [
        Citation("case", 12, path, "test_a"),
        Citation("case", 13, path, "test_b"),
    ]


def test_the_catalogue_names_tests_before_modules_and_what_has_none_is_planned(tmp_path: Path) -> None:
    source = '"""Cases 12 and 13."""\n\ndef test_a():\n    """Case 12."""\n'
    found = list(citations(written(tmp_path, source)))
    made = updated(CATALOGUE, found, tmp_path / "docs" / "cases.md").splitlines()
    assert made[4:] == [
        "| 12 | a | b | [`test_x.py::test_a`](../tests/test_x.py) |",
        "| 13 | c | d | [`test_x.py`](../tests/test_x.py) |",
        f"| 14 | e | f | {PLANNED} |",
    ]
    assert updated("\n".join(made), found, tmp_path / "docs" / "cases.md").splitlines() == made


def test_a_citation_of_what_does_not_exist_is_a_problem(tmp_path: Path) -> None:
    source = 'def test_a():\n    """Cases 12 and 15, invariants 14 and 15."""\n'
    found = list(citations(written(tmp_path, source)))
    case, invariant = problems(CATALOGUE, found)
    assert "test_a cites case 15" in case
    assert "test_a cites invariant 15" in invariant


def test_links_must_lead_to_a_file_and_a_heading(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text(
        "# One thing\n\n## `Two`, and three!\n\n[up](../README.md)", "utf-8"
    )
    (tmp_path / "README.md").write_text(
        "# R\n[x](docs/a.md#two-and-three) [y](#r) [z](https://example.org) [d](docs/)\n"
        "[1](docs/b.md) [2](docs/a.md#four) [3](#s)\n```\n[code](nowhere.md)\n```\n",
        "utf-8",
    )
    assert broken_links(tmp_path) == [
        "README.md: docs/b.md does not exist",
        "README.md: docs/a.md#four: there is no such heading",
        "README.md: #s: there is no such heading",
    ]


def test_the_matrix_of_stores_shows_what_each_keeps() -> None:
    cells = {"test_a_b": {"one": "yes", "two": "NO"}, "test_c": {"two": "-"}}
    assert table(cells) == ["promise   one       two", "a b       yes       NO", "c         -         -"]

"""Which tests show which hostile case: read from the tests, written into docs/cases.md.

A test cites cases and invariants in its docstring, in a comment inside it, or in comments right above it:
``case 12``, ``cases 55-57 and 60``. The docstring of a module speaks for the module as a whole, and counts
only where no single test cites the case.
"""

from __future__ import annotations

import ast
import io
import os
import re
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PLANNED: Final = "*planned*"
#: Tests named in one row; the rest is only counted.
MOST_NAMES: Final = 3
INVARIANTS: Final = range(1, 15)

_NUMBERS: Final = r"(\d+(?:-\d+)?(?:(?:,| and|, and)\s+\d+(?:-\d+)?)*)"
_CITATION: Final = re.compile(rf"\b(case|invariant)s?\s+{_NUMBERS}", re.IGNORECASE)
_ROW: Final = re.compile(r"^\| (\d+) \|(.+)\|([^|]*)\|$")


@dataclass(frozen=True, slots=True)
class Citation:
    """A place that cites a case or an invariant. ``test`` is empty for a module as a whole."""

    kind: str
    number: int
    path: Path
    test: str = ""


def citations(folder: Path) -> Iterator[Citation]:
    """Every citation in the test modules under ``folder``, in the order of files and lines. Suites that ship
    with the package (``*_suite.py``) are such modules, too."""
    for path in sorted([*folder.rglob("test_*.py"), *folder.rglob("*_suite.py")]):
        source = path.read_text("utf-8")
        tree = ast.parse(source)
        for kind, number in _cited(ast.get_docstring(tree) or ""):
            yield Citation(kind, number, path)
        for test, text in _texts_of_tests(tree, source):
            for kind, number in _cited(text):
                yield Citation(kind, number, path, test)


def updated(catalogue: str, found: Iterable[Citation], page: Path) -> str:
    """The catalogue with its last column made anew; links are relative to ``page``."""
    shown: dict[int, list[Citation]] = {}
    for citation in found:
        if citation.kind == "case":
            shown.setdefault(citation.number, []).append(citation)
    lines = [_row(line, shown, page) for line in catalogue.splitlines()]
    return "\n".join(lines) + "\n"


def problems(catalogue: str, found: Iterable[Citation]) -> list[str]:
    """Citations of what does not exist, one line each."""
    known = {int(match[1]) for line in catalogue.splitlines() if (match := _ROW.match(line))}
    legal: Mapping[str, Iterable[int]] = {"case": known, "invariant": INVARIANTS}
    return sorted(
        {
            f"{citation.path}: {citation.test or 'the module'} cites {citation.kind} {citation.number}, "
            "which is not in the docs"
            for citation in found
            if citation.number not in legal[citation.kind]
        }
    )


# --- reading tests --------------------------------------------------------------------------------------


def _cited(text: str) -> Iterator[tuple[str, int]]:
    for kind, numbers in _CITATION.findall(text):
        for part in re.findall(r"\d+(?:-\d+)?", numbers):
            first, _, last = part.partition("-")
            for number in range(int(first), int(last or first) + 1):
                yield kind.lower(), number


def _texts_of_tests(tree: ast.Module, source: str) -> Iterator[tuple[str, str]]:
    """Each test with what stands in its docstring and in the comments inside and right above it."""
    comments = _comments(source)
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef) or not node.name.startswith("test_"):
            continue
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        while first - 1 in comments:
            first -= 1
        inside = [comments[line] for line in range(first, (node.end_lineno or first) + 1) if line in comments]
        yield node.name, " ".join([*inside, ast.get_docstring(node) or ""])


def _comments(source: str) -> dict[int, str]:
    """Line -> the text of its comment."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}


# --- writing the catalogue ------------------------------------------------------------------------------


def _row(line: str, shown: Mapping[int, list[Citation]], page: Path) -> str:
    match = _ROW.match(line)
    if match is None:
        return line
    cell = _cell(shown.get(int(match[1]), []), page) or PLANNED
    return f"| {match[1]} |{match[2]}| {cell} |"


def _cell(cited: list[Citation], page: Path) -> str:
    by_test = list(dict.fromkeys(citation for citation in cited if citation.test))
    chosen = by_test or list(dict.fromkeys(cited))
    names = [_link(citation, page) for citation in chosen[:MOST_NAMES]]
    if len(chosen) > MOST_NAMES:
        names.append(f"and {len(chosen) - MOST_NAMES} more")
    return "<br>".join(names)


def _link(citation: Citation, page: Path) -> str:
    name = f"{citation.path.name}::{citation.test}" if citation.test else citation.path.name
    return f"[`{name}`]({os.path.relpath(citation.path, page.parent)})"

"""Links between the pages of the repository: do their files and headings exist?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

FENCE: Final = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK: Final = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING: Final = re.compile(r"^#{1,6} +(.+?)\s*$", re.MULTILINE)
_SKIPPED: Final = frozenset({".venv", ".git", "node_modules", "build", "dist"})


def broken_links(root: Path) -> list[str]:
    """Every relative link in a Markdown file under ``root`` that leads nowhere, one line each."""
    pages = [path for path in sorted(root.rglob("*.md")) if not _SKIPPED & {*path.relative_to(root).parts}]
    return [f"{page.relative_to(root)}: {problem}" for page in pages for problem in _broken_in(page)]


def _broken_in(page: Path) -> Iterator[str]:
    for target in LINK.findall(FENCE.sub("", page.read_text("utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        if not path.exists():
            yield f"{target} does not exist"
        elif anchor and path.suffix == ".md" and anchor not in _anchors(path):
            yield f"{target}: there is no such heading"


def _anchors(page: Path) -> set[str]:
    """The headings as links name them: lower case, punctuation dropped, spaces as hyphens."""
    headings = _HEADING.findall(FENCE.sub("", page.read_text("utf-8")))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}

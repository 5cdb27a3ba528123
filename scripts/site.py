"""The docs as a site: what MkDocs does not do by itself, as a hook of it.

The pages are written to be read in the repository. For the site README.md becomes the front page, what pages
link to outside of docs/ comes along as far as readers want it (pages, YAML, JSON), and other links there (to
tests and sources) become plain text.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any, Final

from mkdocs.structure.files import File
from scripts.links import FENCE, LINK

ROOT: Final = Path(__file__).resolve().parent.parent
FRONT: Final = "README.md"
DECISIONS: Final = "docs/decisions"
_TAKEN_ALONG: Final = frozenset({".md", ".yaml", ".json"})


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages and files that are not in docs/."""
    files.append(File.generated(config, site_path(FRONT), content=(ROOT / FRONT).read_text("utf-8")))
    files.append(File.generated(config, site_path(DECISIONS), content=_decisions()))
    pages = [
        FRONT,
        *(f"docs/{file.src_uri}" for file in files.documentation_pages() if not file.generated_by),
    ]
    seen = set(pages)
    while pages:
        page = pages.pop()
        for target in _links(page):
            if target not in seen and not target.startswith("docs/") and Path(target).suffix in _TAKEN_ALONG:
                seen.add(target)
                files.append(File(target, str(ROOT), config.site_dir, config.use_directory_urls))
                pages += [target] if target.endswith(".md") else []
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Links as they are on the site."""
    here = page.file.src_uri

    def relinked(link: re.Match[str]) -> str:
        text, target = link[0][1 : link[0].rindex("](")], link[1]
        if re.match(r"[a-z]+:|#", target):
            return link[0]
        name, _, anchor = target.partition("#")
        there = posixpath.normpath(posixpath.join(posixpath.dirname(origin(here)), name))
        if not (there.startswith("docs/") or Path(there).suffix in _TAKEN_ALONG):
            return text
        address = posixpath.relpath(site_path(there), posixpath.dirname(here) or ".")
        return f"[{text}]({address}{'#' * bool(anchor)}{anchor})"

    parts = re.split(f"({FENCE.pattern})", markdown, flags=FENCE.flags)
    return "".join(part if part.startswith("```") else LINK.sub(relinked, part) for part in parts)


def site_path(path: str) -> str:
    """Where on the site a file of the repository is."""
    if path in (FRONT, DECISIONS):
        return posixpath.join(path.removeprefix("docs/").removesuffix(FRONT), "index.md")
    return path.removeprefix("docs/")


def origin(path: str) -> str:
    """The file of the repository that is there on the site."""
    if path == site_path(FRONT):
        return FRONT
    return f"docs/{path}" if (ROOT / "docs" / path).exists() or path == site_path(DECISIONS) else path


def _links(page: str) -> set[str]:
    """What a page of the repository links to, from the repository's root."""
    text = FENCE.sub("", (ROOT / page).read_text("utf-8"))
    names = {target.partition("#")[0] for target in LINK.findall(text) if not re.match(r"[a-z]+:|#", target)}
    return {posixpath.normpath(posixpath.join(posixpath.dirname(page), name)) for name in names}


def _decisions() -> str:
    """A list of the decisions, from their headings."""
    lines = ["# Decisions", "", "One page for each choice that a newcomer would question.", ""]
    for path in sorted((ROOT / DECISIONS).glob("*.md")):
        title = path.read_text("utf-8").splitlines()[0].lstrip("# ")
        lines.append(f"- [{title}]({path.name})")
    return "\n".join(lines) + "\n"

"""The pages of the docs that are made from the code, so that they cannot drift from it.

python -m scripts.generate_docs            # write them
python -m scripts.generate_docs --check    # verify them, and the links of all pages; exit code 1 if wrong
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from difflib import unified_diff
from pathlib import Path
from typing import Final, get_type_hints

from scripts import case_index, chart_schema, stores_page
from scripts.cli_page import cli_page
from scripts.links import broken_links
from starlette.applications import Starlette
from starlette.routing import Route

from vectide.core import signals
from vectide.core.health import Health
from vectide.ops.http import OPEN_PATHS, build_app
from vectide.settings import PREFIX, Settings, VariableDoc, describe
from vectide.settings_sections import Section
from vectide.settings_tables import INNER_SECTIONS, TableSettings

ROOT: Final = Path(__file__).resolve().parent.parent
DOCS: Final = ROOT / "docs"
CASES: Final = DOCS / "cases.md"
VALUES: Final = ROOT / "helm" / "vectide" / "values.schema.json"
STORES: Final = DOCS / "stores.md"
NOTICE: Final = "<!-- Made from the code by `make docs`: do not edit. -->"


# --- settings -------------------------------------------------------------------------------------------


def settings_page() -> str:
    """Every environment variable, and every key of the tables file."""
    variables = describe()
    lines = [
        NOTICE,
        "# Settings",
        "",
        "All settings are environment variables. A name that begins with `VECTIDE_` and is not listed here",
        "is an error at start (but for what Kubernetes injects for a Service of that name), and so are",
        "values that do not fit; all problems are told at once. White space around a value is dropped; a",
        "blank value counts as not given. A *secret* can be given as a file: its path in `<VARIABLE>_FILE`.",
    ]
    for name, section in _sections().items():
        prefix = f"{PREFIX}{name}__".upper()
        rows = [_variable_row(variable) for variable in variables if variable.name.startswith(prefix)]
        lines += ["", f"## {name}", "", _doc(section), "", *_table("variable|type|default|meaning", rows)]
    rest = [_variable_row(variable) for variable in variables if "__" not in variable.name]
    lines += ["", "## tables", "", "Which topic fills which collection, and how: see the keys below and "]
    lines[-1] += "[the guide](../tables.md)."
    lines += ["", *_table("variable|type|default|meaning", rest), "", *_table_keys()]
    return _page(lines)


def _sections() -> Mapping[str, type[Section]]:
    hints = get_type_hints(Settings).items()
    return {name: hint for name, hint in hints if isinstance(hint, type) and issubclass(hint, Section)}


def _variable_row(variable: VariableDoc) -> list[str]:
    default = "**required**" if variable.required else _code(variable.default)
    kind = _escaped(variable.type) + (", secret" if variable.secret else "")
    return [f"`{variable.name}`", kind, default, _escaped(variable.meaning)]


def _table_keys() -> list[str]:
    """The keys of one table, with those of the mappings inside it."""
    rows = []
    for name, info in TableSettings.model_fields.items():
        rows.append([f"`{name}`", "yes" if info.is_required() else "", _escaped(info.description or "")])
        for key, within in INNER_SECTIONS[name].model_fields.items() if name in INNER_SECTIONS else ():
            rows.append([f"`{name}.{key}`", "", _escaped(within.description or "")])
    return ["Keys of a table:", "", *_table("key|required|meaning", rows)]


# --- metrics --------------------------------------------------------------------------------------------


def metrics_page() -> str:
    """Every metric with its labels and their values."""
    rows = [
        [
            f"`{metric.name}`",
            metric.kind,
            ", ".join(f"`{label}`" for label in metric.labels),
            _escaped(metric.help),
        ]
        for metric in signals.CATALOGUE.values()
    ]
    labels = [[f"`{name}`", _escaped(meaning)] for name, meaning in signals.LABELS.items()]
    buckets = [
        [f"`{metric.name}`", ", ".join(f"{bound:g}" for bound in metric.buckets)]
        for metric in signals.CATALOGUE.values()
        if metric.buckets
    ]
    return _page(
        [
            NOTICE,
            "# Metrics",
            "",
            "Served at `/metrics` in the Prometheus text format, together with those of the process itself "
            "(`process_*`). No label ever holds a key, a text or other row content.",
            "",
            *_table("metric|kind|labels|meaning", rows),
            "",
            "## Labels",
            "",
            *_table("label|values", labels),
            "",
            "## Buckets",
            "",
            *_table("histogram|upper bounds", buckets),
        ]
    )


# --- HTTP -----------------------------------------------------------------------------------------------


def http_page() -> str:
    """Every route of the HTTP port."""
    app = build_app(lambda: Health(live=True, ready=True, state="", reason=""), bytes)
    assert isinstance(app, Starlette)
    routes = [route for route in app.routes if isinstance(route, Route)]
    rows = [
        [
            f"`{method} {route.path}`",
            "" if route.path in OPEN_PATHS else "yes",
            _doc(route.endpoint),
        ]
        for route in routes
        for method in sorted((route.methods or set()) - {"HEAD"})
    ]
    return _page(
        [
            NOTICE,
            "# HTTP",
            "",
            "What the port says that `VECTIDE_HTTP__HOST` and `__PORT` name. [Token, HTTPS and "
            "limits](../operations.md#the-http-port); [states](../operations.md#states).",
            "",
            *_table("request|token|answer", rows),
        ]
    )


# --- Markdown -------------------------------------------------------------------------------------------


def _page(lines: Iterable[str]) -> str:
    return "\n".join(lines) + "\n"


def _table(header: str, rows: Iterable[Iterable[str]]) -> list[str]:
    names = header.split("|")
    return [_line(names), _line(["---"] * len(names)), *map(_line, rows)]


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _code(text: str | None) -> str:
    return "" if text is None else f"`{text}`"


def _doc(documented: object) -> str:
    return " ".join((documented.__doc__ or "").split())


# --- writing and checking -------------------------------------------------------------------------------

#: Page -> what it must say.
PAGES: Final[Mapping[Path, Callable[[], str]]] = {
    DOCS / "reference" / "settings.md": settings_page,
    DOCS / "reference" / "metrics.md": metrics_page,
    DOCS / "reference" / "http.md": http_page,
    DOCS / "reference" / "cli.md": lambda: cli_page(NOTICE),
    VALUES: lambda: chart_schema.updated(VALUES.read_text("utf-8"), describe()),
    STORES: lambda: stores_page.updated(STORES.read_text("utf-8")),
    CASES: lambda: case_index.updated(CASES.read_text("utf-8"), _citations(), CASES),
}


def _citations() -> list[case_index.Citation]:
    folders = (ROOT / "src" / "vectide" / "testing", ROOT / "tests")
    return [citation for folder in folders for citation in case_index.citations(folder)]


def drift() -> list[str]:
    """What of the pages on disk is not what the code says, as a diff for each."""
    found = []
    for path, make in PAGES.items():
        old = path.read_text("utf-8") if path.exists() else ""
        name = str(path.relative_to(ROOT))
        diff = unified_diff(
            old.splitlines(), make().splitlines(), name, "as the code has it", lineterm="", n=0
        )
        found += ["\n".join(lines)] if (lines := list(diff)) else []
    return found


def write() -> None:
    """Bring every page up to date."""
    for path, make in PAGES.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(make(), "utf-8")


def main(arguments: list[str]) -> int:
    """Write or check. 0 when all is well, else 1."""
    checking = "--check" in arguments
    wrong = case_index.problems(CASES.read_text("utf-8"), _citations())
    if checking:
        wrong += [*drift(), *broken_links(ROOT)]
    else:
        write()
    print("\n".join(wrong) if wrong else "docs: up to date")
    if checking and wrong:
        print("docs: run `make docs` and mend what it cannot")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

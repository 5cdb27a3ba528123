"""What the demo shows: acts, tables and live numbers on a terminal, plain lines anywhere else."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import TextIOWrapper
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from vectide.core import signals
from vectide.demo.readings import Readings
from vectide.ports import Hit

_WIDTH: Final = 100
#: Seconds between two lines where nothing can be redrawn.
_PLAIN_INTERVAL_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class View:
    """The numbers of one instant, each since the act began: ``events`` written to the topic, ``behind`` of
    them not settled yet, and what the worker ``counted``. ``now`` is what the shop did last."""

    elapsed_s: float
    events: int
    behind: int
    counted: Readings
    freshness: bool = True
    now: str = ""


class Watch:
    """A place on the screen that shows the newest view."""

    def __init__(self, console: Console, live: Live | None) -> None:
        self._console = console
        self._live = live
        self._next_s = 0.0
        self._newest: View | None = None

    def show(self, view: View) -> None:
        """Show it: redrawn in place on a terminal, a line now and then elsewhere."""
        self._newest = view
        if self._live is not None:
            self._live.update(_panel(view))
        elif time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + _PLAIN_INTERVAL_S
            self._console.print(_line(view), soft_wrap=True)

    def finish(self) -> None:
        """The last view stays."""
        if self._live is None and self._newest is not None:
            self._console.print(_line(self._newest), soft_wrap=True)


class Screen:
    """``plain`` None: by what standard output is."""

    def __init__(self, *, plain: bool | None = None) -> None:
        if isinstance(sys.stdout, TextIOWrapper):
            with suppress(ValueError):
                sys.stdout.reconfigure(errors="replace")  # a terminal without Unicode is no reason to fail
        probe = Console()
        self._plain = not probe.is_terminal if plain is None else plain
        if self._plain:
            self.console = Console(
                width=_WIDTH,
                color_system=None,
                force_terminal=False,
                force_interactive=False,
                highlight=False,
            )
        else:
            self.console = Console(width=min(_WIDTH, probe.width), highlight=False)

    # --- prose ------------------------------------------------------------------------------------------

    def act(self, title: str, *explanation: str) -> None:
        """The headline of a part, and what will happen and why."""
        self.console.print()
        self.console.print(Rule(Text(title, style="bold"), align="left", style="cyan"))
        for line in explanation:
            self.console.print(_indented(Text(line, style="dim")))
        if explanation:
            self.console.print()

    def say(self, *lines: str, style: str = "") -> None:
        for line in lines:
            self.console.print(_indented(Text(line, style=style)) if line else "")

    def facts(self, facts: Mapping[str, object]) -> None:
        """Names with their values, one a line."""
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="bold", no_wrap=True)
        grid.add_column(overflow="fold")
        for name, value in facts.items():
            grid.add_row(name, Text(_number(value)))
        self.console.print(_indented(grid))

    def account(self, rows: Sequence[tuple[str, int, str]]) -> None:
        """Counts with a remark each."""
        grid = Table.grid(padding=(0, 2))
        grid.add_column()
        grid.add_column(justify="right", style="bold cyan")
        grid.add_column(style="dim", overflow="fold")
        for what, count, remark in rows:
            grid.add_row(what, f"{count:,}", remark)
        self.console.print(_indented(grid))

    def variables(self, variables: Mapping[str, str], remarks: Mapping[str, str] | None = None) -> None:
        """Environment variables as a shell would take them, each whole on its line."""
        for name, value in variables.items():
            line = Text.assemble("    ", ("export ", "dim"), (name, "green"), "=", _quoted(value))
            self.console.print(line, soft_wrap=True)
            remark = (remarks or {}).get(name)
            if remark:
                self.console.print(Text(f"    # {remark}", style="dim"), soft_wrap=True)

    def code(self, text: str) -> None:
        self.console.print(_indented(Text(text.rstrip(), style="green"), 4))

    def check(self, passed: bool, text: str) -> None:
        """One line of a verdict."""
        mark, style = ("✓", "bold green") if passed else ("✗", "bold red")
        self.console.print(_indented(Text.assemble((f"{mark} ", style), text)))

    # --- searches ---------------------------------------------------------------------------------------

    def hits(self, headline: str, hits: Sequence[Hit], *, mark: int | None = None, note: str = "") -> None:
        """The answers to a search under what led to them; the row ``mark`` stands out."""
        self.console.print(_indented(Text(headline, style="bold")))
        if note:
            self.console.print(_indented(Text(f"→ {note}", style="cyan"), 4))
        for place, hit in enumerate(hits, start=1):
            id_ = id_of(hit)
            name = (hit.text or "").split("\n", 1)[0]
            style = "bold yellow" if id_ == mark else ""
            text = Text(f"{place}. {hit.score:.3f}  #{id_:<5} {name}", style=style, overflow="ellipsis")
            self.console.print(_indented(text, 6), no_wrap=True)

    # --- live numbers -----------------------------------------------------------------------------------

    @contextmanager
    def watch(self) -> Iterator[Watch]:
        """A :class:`Watch` for as long as the block lasts."""
        if self._plain:
            watch = Watch(self.console, None)
            yield watch
            watch.finish()
            return
        with Live(console=self.console, refresh_per_second=8) as live:
            watch = Watch(self.console, live)
            yield watch


def id_of(hit: Hit) -> int:
    """The primary key of a hit's row."""
    id_: int = json.loads(hit.row.key)["id"]
    return id_


# --- one view -------------------------------------------------------------------------------------------


def _parts(view: View) -> list[tuple[str, str]]:
    counted = view.counted
    parts = [
        ("events", f"{view.events:,}"),
        ("behind", f"{view.behind:,}"),
        ("embedded", f"{counted.embedded:,}"),
        ("patched", f"{counted.decided('patch'):,}"),
        ("skipped", f"{counted.skipped:,}"),
        ("deleted", f"{counted.decided('remove'):,}"),
        ("calls saved", f"{counted.saved_share:.0%}"),
    ]
    if view.freshness:
        parts += [("fresh p50", _fresh(counted, 0.5)), ("p99", _fresh(counted, 0.99))]
    return parts


def _line(view: View) -> str:
    return f"  {view.elapsed_s:5.1f} s  " + " · ".join(f"{name} {value}" for name, value in _parts(view))


def _indented(content: RenderableType, by: int = 2) -> Padding:
    return Padding(content, (0, 0, 0, by), expand=False)


def _panel(view: View) -> Padding:
    grid = Table.grid(padding=(0, 3))
    parts = _parts(view)
    for _ in parts:
        grid.add_column(justify="right")
    grid.add_row(*(Text(value, style="bold cyan") for _, value in parts))
    grid.add_row(*(Text(name, style="dim") for name, _ in parts))
    now = Text(view.now, style="dim green", overflow="ellipsis", no_wrap=True)
    return _indented(Group(grid, now))


def _fresh(counted: Readings, share: float) -> str:
    found_s = counted.quantile_s(signals.FRESHNESS, share)
    if found_s is None:
        return "–"
    return f"{found_s * 1000:.0f} ms" if found_s < 1 else f"{found_s:.1f} s"


def _number(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _quoted(value: str) -> str:
    return f"'{value}'" if any(char in value for char in '{}" &?*') else value

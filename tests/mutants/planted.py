"""Defects to plant in the product, one patch each, and the search for a test that finds them.

A patch begins with a line that says what is wrong. It is the simulation that has to find it, unless a line
``Found by:`` names another test. The name of the file begins with the number of the invariant that it breaks.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
#: Within so many seeds the simulation has to find each.
SEEDS: Final = 1_000
_FOUND_BY: Final = "Found by: "
#: What pytest exits with when tests ran and some failed.
_TESTS_FAILED: Final = 1


class Stale(Exception):
    """The patch does not fit the code any more, or what it makes of it is not even a program."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One patch. ``test``: the test that has to fail, None where that is the simulation."""

    path: Path
    invariant: int
    what: str
    test: str | None

    @classmethod
    def read(cls, path: Path) -> Mutant:
        what, *rest = path.read_text().splitlines()
        tests = [line.removeprefix(_FOUND_BY) for line in rest if line.startswith(_FOUND_BY)]
        return cls(path, int(path.name[:2]), what, tests[0] if tests else None)

    @property
    def name(self) -> str:
        return self.path.stem


@dataclass(frozen=True, slots=True)
class Found:
    """What found a mutant. ``events``: those of the shrunk trace, -1 where nothing was shrunk."""

    by: str
    says: str
    events: int = -1


def mutants() -> list[Mutant]:
    """All of them, by invariant."""
    return [Mutant.read(path) for path in sorted(Path(__file__).parent.glob("*.patch"))]


def apply(mutant: Mutant, folder: Path, *, only_try: bool = False) -> None:
    """Change the sources in ``folder``/src. Raises :class:`Stale`."""
    # Outside of a repository git is a patch tool that takes no liberties; inside of one it would skip files.
    command = ["git", "apply", *(["--check"] if only_try else []), str(mutant.path)]
    env = os.environ | {"GIT_CEILING_DIRECTORIES": str(folder.parent)}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise Stale(f"{mutant.name}: {done.stderr.strip()}")


@contextmanager
def planted(mutant: Mutant) -> Iterator[dict[str, str]]:
    """The environment of a process that shall import the changed sources."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(ROOT / "src", folder / "src")
        apply(mutant, folder)
        yield os.environ | {"PYTHONPATH": f"{folder / 'src'}{os.pathsep}{ROOT}"}


def hunt(mutant: Mutant, seeds: int = SEEDS, events: int = 0) -> Found | None:
    """What finds the mutant; None when it survives. With ``events`` the trace is shrunk, and the first seed
    taken whose trace has no more events than that. Raises :class:`Stale`."""
    with planted(mutant) as env:
        if mutant.test is not None:
            return _fails(mutant, env)
        command = [sys.executable, "-m", "tests.mutants.seek", str(seeds), str(events)]
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            raise Stale(f"{mutant.name}: {done.stderr.strip()}")
        found = json.loads(done.stdout)
        return found and Found(f"seed {found['seed']}", found["says"], found["events"])


def _fails(mutant: Mutant, env: dict[str, str]) -> Found | None:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(mutant.test)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode not in (0, _TESTS_FAILED):
        raise Stale(f"{mutant.name}: {mutant.test} does not run: {done.stdout[-1000:]}{done.stderr[-1000:]}")
    says = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    return Found("test", says[0]) if says else None

"""Installs vectide into a virtual environment, from requirements.lock alone: what the image is built with.

    python3 deploy/install.py VENV openai,pgvector    # what vectide with these extras depends on
    python3 deploy/install.py VENV --project          # vectide itself; the one above comes first

Needs nothing but Python with pip. What a set of extras depends on is asked of pip, with the lock as
constraint; then exactly those entries of the lock are installed, each by its hash. Byte code is compiled so
that it does not depend on when: two builds of the same sources are equal.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class Refused(Exception):
    """What was asked for cannot be. The message is one line."""


def lock_entries(lock: str) -> Mapping[str, str]:
    """Normalised name -> the entries of the lock (one for each environment marker), with their hashes."""
    found: dict[str, str] = {}
    for entry in re.findall(r"^\S.*(?:(?<=\\)\n.*)*", lock, re.MULTILINE):
        name = normalised(re.split(r"[=\s\[;]", entry, maxsplit=1)[0])
        found[name] = f"{found[name]}\n{entry}" if name in found else entry
    return found


def normalised(name: str) -> str:
    """A package's name as all its spellings have it in common."""
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements(project: Mapping[str, object], extras: Iterable[str]) -> list[str]:
    """What the project with these extras asks for; raises :class:`Refused` for an extra that there is not."""
    known = project["optional-dependencies"]
    needed = project["dependencies"]
    assert isinstance(known, dict)
    assert isinstance(needed, list)
    asked = list(needed)
    for extra in extras:
        if extra not in known:
            raise Refused(f"there is no extra {extra}: the extras are {', '.join(sorted(known))}")
        asked += known[extra]
    return asked


def _pip(venv: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "pip", "--python", str(venv / "bin" / "python"), *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout  # noqa: S603


def _closure(venv: Path, asked: Sequence[str], lock: Mapping[str, str], scratch: Path) -> list[str]:
    """The names of everything that these requirements need here."""
    pins = [re.sub(r"\s*\\?\n?\s*--hash=\S+", "", entry) for entry in lock.values()]
    constraints = scratch / "constraints.txt"
    constraints.write_text("\n".join(pins), "utf-8")
    report = _pip(
        venv, "install", "--quiet", "--dry-run", "--ignore-installed", "--only-binary=:all:", "--report=-",
        f"--constraint={constraints}", *asked,
    )  # fmt: skip
    return sorted(normalised(item["metadata"]["name"]) for item in json.loads(report)["install"])


def _install_locked(venv: Path, names: Iterable[str], lock: Mapping[str, str], scratch: Path) -> None:
    wanted = scratch / "requirements.txt"
    wanted.write_text("\n".join(lock[name] for name in names), "utf-8")
    _pip(
        venv, "install", "--quiet", "--no-deps", "--no-compile", "--no-cache-dir", "--only-binary=:all:",
        "--require-hashes", f"--requirement={wanted}",
    )  # fmt: skip


def _compile(venv: Path) -> None:
    """Byte code that is never compared with its source's time, which differs from build to build."""
    compiled = [str(venv / "bin" / "python"), "-m", "compileall", "-q", "--invalidation-mode=unchecked-hash"]
    # Some packages ship files for other versions of Python, which do not compile here.
    subprocess.run([*compiled, str(venv / "lib")], check=False, stdout=subprocess.DEVNULL)  # noqa: S603


def install_dependencies(venv: Path, extras: Sequence[str]) -> None:
    """Everything but vectide itself."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lock = lock_entries((ROOT / "requirements.lock").read_text("utf-8"))
    with tempfile.TemporaryDirectory() as scratch:
        names = _closure(venv, requirements(project, extras), lock, Path(scratch))
        if absent := sorted(set(names) - lock.keys()):
            raise Refused(f"requirements.lock does not have {', '.join(absent)}: these extras are not locked")
        _install_locked(venv, names, lock, Path(scratch))
    print(f"{len(names)} packages for {', '.join(extras) or 'no extras'}")


def install_project(venv: Path) -> None:
    """vectide, built by the build backend of the lock, which does not stay."""
    lock = lock_entries((ROOT / "requirements.lock").read_text("utf-8"))
    with tempfile.TemporaryDirectory() as scratch:
        tools = Path(scratch) / "tools"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tools)], check=True)  # noqa: S603
        needed = ("hatchling", "packaging", "pathspec", "pluggy", "trove-classifiers")
        _install_locked(tools, needed, lock, Path(scratch))
        _pip(
            tools,
            "wheel",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            f"--wheel-dir={scratch}",
            str(ROOT),
        )
        # By name: what is installed from a path remembers that path.
        found = ("--no-index", "--pre", f"--find-links={scratch}", "vectide")
        _pip(venv, "install", "--quiet", "--no-deps", "--no-compile", *found)
    _compile(venv)


def main(arguments: Sequence[str]) -> int:
    """0 when done; 2 when what was asked for cannot be."""
    venv, what = Path(arguments[0]), arguments[1]
    try:
        if what == "--project":
            install_project(venv)
        else:
            install_dependencies(venv, [extra.strip() for extra in what.split(",") if extra.strip()])
    except Refused as refusal:
        print(refusal, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

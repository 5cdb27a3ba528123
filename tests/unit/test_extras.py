"""What starting needs: the dependencies, and those of the extras of one store and one embedder."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from itertools import cycle
from pathlib import Path

import pytest
from deploy.install import lock_entries
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from vectide import embedders, stores

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT = PYPROJECT["project"]

#: What `vectide run` imports, whatever is configured.
SERVICE = "import vectide.cli, vectide.app, vectide.app_service"

#: So many modules are imported in about 1.5 s at most, on a core that is not very slow.
MOST_MODULES = 2300

#: Runs in a process of its own: nothing that was not installed can be imported.
BARRED = """
import json, sys
absent = frozenset(json.loads(sys.argv[1]))
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
"""


def installed_with(extras: Iterable[str]) -> set[str]:
    """Distributions that ``pip install "vectide[extras]"`` installs."""
    optional = PROJECT["optional-dependencies"]
    asked = [*PROJECT["dependencies"], *(line for extra in extras for line in optional[extra])]
    found: set[tuple[str, frozenset[str]]] = set()
    queue = [Requirement(line) for line in asked]
    while queue:
        wanted = queue.pop()
        name, with_extras = canonicalize_name(wanted.name), frozenset(wanted.extras)
        if (name, with_extras) in found:
            continue
        found.add((name, with_extras))
        try:
            lines = requires(name) or []
        except PackageNotFoundError:
            continue
        for line in lines:
            needed = Requirement(line)
            if needed.marker is None or any(
                needed.marker.evaluate({"extra": extra}) for extra in with_extras | {""}
            ):
                queue.append(needed)
    return {name for name, _ in found}


def absent_with(extras: Iterable[str]) -> list[str]:
    """Modules here that are not there with these extras alone."""
    there = installed_with(extras) | {"vectide", "setuptools"}
    return sorted(
        module
        for module, owners in packages_distributions().items()
        if not there & {canonicalize_name(owner) for owner in owners}
        and module not in sys.stdlib_module_names
        and "." not in module
    )


def imported(program: str, absent: Iterable[str] = ()) -> list[str]:
    """The modules that a new process has after ``program``."""
    show = "\nprint(json.dumps(sorted(sys.modules)))"
    run = subprocess.run(  # noqa: S603  our own interpreter and program
        [sys.executable, "-c", f"{BARRED}\n{program}{show}", json.dumps(list(absent))],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert run.returncode == 0, run.stderr
    modules: list[str] = json.loads(run.stdout)
    return modules


def pairs() -> list[tuple[str, str]]:
    """Every store and every embedder at least once, but torch, which alone takes longer than a start may."""
    light = embedders.KINDS.keys() - {"sentence-transformers"}
    longer, shorter = sorted((sorted(light), sorted(stores.KINDS)), key=len, reverse=True)
    together = zip(longer, cycle(shorter), strict=False)
    return [pair if pair[0] in embedders.KINDS else pair[::-1] for pair in together]


def test_without_extras_the_service_is_imported_and_no_sdk_is() -> None:
    modules = {name.partition(".")[0] for name in imported(SERVICE)}
    sdks = {
        canonicalize_name(Requirement(line).name)
        for extra in PROJECT["optional-dependencies"].values()
        for line in extra
    } - installed_with([])
    assert {"openai", "cohere", "psycopg", "qdrant-client", "pymilvus", "lancedb", "wordllama"} <= sdks
    owners = packages_distributions()
    assert not {
        name for name in modules for owner in owners.get(name, ()) if canonicalize_name(owner) in sdks
    }
    assert len(imported(SERVICE, absent_with([]))) < 1000


@pytest.mark.parametrize(("embedder", "store"), pairs())
def test_a_pair_needs_its_own_extras_alone_and_imports_little(embedder: str, store: str) -> None:
    extras = [*([embedders.EXTRAS[embedder]] if embedder in embedders.EXTRAS else []), store]
    program = f"{SERVICE}\nimport {embedders.KINDS[embedder]}, {stores.KINDS[store]}"
    modules = imported(program, absent_with(extras))
    assert len(modules) < MOST_MODULES


def test_the_lock_has_every_extra_but_the_one_that_brings_torch() -> None:
    names = lock_entries((ROOT / "requirements.lock").read_text("utf-8")).keys()
    optional = PROJECT["optional-dependencies"]
    absent = {
        extra
        for extra, lines in optional.items()
        if not {canonicalize_name(Requirement(line).name) for line in lines} <= names
    }
    assert absent == set(PYPROJECT["tool"]["vectide"]["not-locked"]) == {"sentence-transformers"}
    assert not {"torch", "transformers", "triton"} & names


def test_what_lacks_its_extra_says_which_one_it_is() -> None:
    extras = [("embedders", kind, extra) for kind, extra in embedders.EXTRAS.items()]
    extras += [("stores", kind, kind) for kind in stores.KINDS]
    program = f"""
from vectide import embedders, stores
from vectide.ports import MissingExtra
for band, kind, extra in {extras!r}:
    try:
        (embedders if band == "embedders" else stores).load(kind)
    except MissingExtra as error:
        assert f'pip install "vectide[{{extra}}]"' in str(error), error
    else:
        raise SystemExit(f"{{kind}} lacked nothing")
"""
    imported(program, absent_with([]))

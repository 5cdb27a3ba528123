"""Embedders and stores of other packages: the page about plug-ins, tried out."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from vectide import embedders, stores
from vectide.app import build_embedder, build_store
from vectide.jobs.executor import SystemClock
from vectide.ports import Deadline, StartupRefused
from vectide.settings import SettingsError
from vectide.settings import load as load_settings
from vectide.testing.store import MemoryStore

PAGE = Path(__file__).parents[2] / "docs" / "plugins.md"
#: A block of the page that begins with the name of a file.
BLOCK = re.compile(r"^```\w+\n# (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs the package of the page, as pip does; ``entries`` are entry points instead of its own."""

    def installed(entries: dict[str, dict[str, str]] | None = None) -> Path:
        files = dict(BLOCK.findall(PAGE.read_text("utf-8")))
        project = tomllib.loads(files["pyproject.toml"])["project"]
        for name, content in files.items():
            (tmp_path / name).write_text(content, "utf-8")
        info = tmp_path / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Name: {project['name']}\nVersion: {project['version']}\n", "utf-8")
        lines = []
        for group, points in (entries or project["entry-points"]).items():
            lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
        (info / "entry_points.txt").write_text("\n".join(lines), "utf-8")
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "acme_vectide", raising=False)
        return tmp_path

    return installed


ENVIRONMENT = {
    "VECTIDE_KAFKA__BOOTSTRAP_SERVERS": "broker:9092",
    "VECTIDE_STORE__KIND": "acme",
    "VECTIDE_TABLES": '{"t": {"source": "a.b.t", "embed": {"columns": ["x"]}}}',
    "VECTIDE_EMBEDDER__KIND": "Acme",
    "VECTIDE_EMBEDDER__DIMENSIONS": "64",
}


def test_a_plugin_is_a_kind_like_every_other(install: Install) -> None:
    install()
    settings = load_settings(ENVIRONMENT)
    embedder = build_embedder(settings.embedder)
    assert embedder.space == "acme/trigrams-v1/64"
    answer = embedder.embed(["a", "b"], Deadline.after(SystemClock(), 10))
    assert answer.vectors.shape == (2, 64)
    assert isinstance(build_store(settings.store), MemoryStore)


def test_without_the_package_its_kind_is_unknown() -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(ENVIRONMENT)
    told = "\n".join(caught.value.problems)
    assert "VECTIDE_EMBEDDER__KIND: must be 'openai', " in told
    assert "VECTIDE_STORE__KIND: must be 'pgvector', " in told
    with pytest.raises(StartupRefused, match="unknown embedder 'acme': choose one of azure, "):
        embedders.load("acme")
    with pytest.raises(StartupRefused, match="unknown store 'acme': choose one of chroma, "):
        stores.load("acme")


def test_what_a_plugin_cannot_use_is_refused_by_name(install: Install) -> None:
    install()
    with pytest.raises(StartupRefused, match="the embedder 'acme' takes no model"):
        embedders.load("acme", model="m", concurrency=4)
    with pytest.raises(StartupRefused, match="the store 'acme' takes no api_key"):
        stores.load("acme", url="u", api_key="k")


@pytest.mark.parametrize("value", ["acme_nowhere:Trigrams", "acme_vectide:nothing", "json:loads.x"])
def test_a_plugin_that_cannot_be_loaded_says_why(install: Install, value: str) -> None:
    install({"vectide.embedders": {"acme": value}, "vectide.stores": {"acme": value}})
    for load, what in ((embedders.load, "embedder"), (stores.load, "store")):
        with pytest.raises(
            StartupRefused, match=rf"the {what} 'acme' \({value}\) cannot be loaded: \w+Error"
        ):
            load("acme")


def test_a_plugin_does_not_replace_a_kind_of_the_package(install: Install) -> None:
    install({"vectide.embedders": {"hashing": "acme_vectide:Trigrams"}})
    assert embedders.load("hashing", dimensions=8).space.startswith("hashing/")


@pytest.mark.parametrize(("suite", "least"), [("test_acme_embedder.py", 25), ("test_acme_store.py", 60)])
def test_the_shipped_suites_run_against_a_plugin(install: Install, suite: str, least: int) -> None:
    folder = install()
    run = subprocess.run(  # noqa: S603  our own interpreter
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:cloudcoil", suite],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert run.returncode == 0, run.stdout
    passed = re.search(r"(\d+) passed", run.stdout)
    assert passed, run.stdout
    assert int(passed[1]) >= least

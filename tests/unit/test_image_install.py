"""What the image is built with: the entries of the lock that some extras need, and the bill of materials."""

from __future__ import annotations

from pathlib import Path

import pytest
from deploy.install import Refused, install_dependencies, lock_entries, requirements
from deploy.sbom import bill, debian_packages

LOCK = Path(__file__).parents[2] / "requirements.lock"


def test_every_entry_of_the_lock_comes_with_its_hashes() -> None:
    text = LOCK.read_text("utf-8")
    entries = lock_entries(text)
    assert sum(entry.count("--hash=sha256:") for entry in entries.values()) == text.count("--hash=sha256:")
    assert sum(entry.count("==") for entry in entries.values()) >= len(entries) > 40


def test_versions_for_other_interpreters_stay_with_the_package() -> None:
    entries = lock_entries(
        "a_b==1 ; python_version < '3' \\\n    --hash=x\na-b==2 ; python_version >= '3' \\\n    --hash=y\n"
    )
    assert list(entries) == ["a-b"]
    assert entries["a-b"].count("--hash") == 2


def test_an_unknown_extra_is_refused_by_name() -> None:
    project: dict[str, object] = {"dependencies": ["a>=1"], "optional-dependencies": {"b": ["c"]}}
    assert requirements(project, ["b"]) == ["a>=1", "c"]
    with pytest.raises(Refused, match="no extra d: the extras are b"):
        requirements(project, ["d"])


def test_an_extra_that_is_not_in_the_lock_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="leaves out sentence-transformers"):
        install_dependencies(tmp_path, ["pgvector", "sentence-transformers"])
    assert not list(tmp_path.iterdir())


def test_bill_of_materials_names_each_package_once_and_the_same_each_time() -> None:
    first = bill()
    urls = [part["purl"] for part in first["components"]]
    assert "vectide" not in {part["name"] for part in first["components"]}
    assert len(urls) == len(set(urls)) > 20
    assert bill() == first


def test_only_installed_debian_packages_are_listed() -> None:
    status = (
        "Package: a\nStatus: install ok installed\nArchitecture: all\nVersion: 1:2~3\n\n"
        "Package: b\nStatus: deinstall ok config-files\nArchitecture: all\nVersion: 1\n"
    )
    assert [part["purl"] for part in debian_packages(status)] == ["pkg:deb/debian/a@1%3A2~3?arch=all"]

"""Prints what is in this file system as a CycloneDX bill of materials (JSON): the Python packages that this
interpreter sees, and the Debian packages below them. The same contents give the same text."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any
from urllib.parse import quote

DEBIAN = Path("/var/lib/dpkg/status")


def python_packages() -> Iterator[dict[str, Any]]:
    """One component for each distribution; vectide is the subject, and not among them."""
    for found in distributions():
        name = re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower()
        if name != "vectide":
            component = _component(name, found.version, f"pkg:pypi/{name}@{quote(found.version)}")
            yield component | _licence(found)


def _licence(found: Distribution) -> dict[str, Any]:
    """What the package says of its licence: an SPDX expression, or a name where it is short."""
    expression = found.metadata["License-Expression"]
    if expression:
        return {"licenses": [{"expression": expression}]}
    name = (found.metadata["License"] or "").strip()
    return {"licenses": [{"license": {"name": name}}]} if 0 < len(name) < 100 and "\n" not in name else {}


def debian_packages(status: str) -> Iterator[dict[str, Any]]:
    """One component for each installed package of dpkg's ``status`` file."""
    for paragraph in status.split("\n\n"):
        fields = dict(re.findall(r"^([A-Za-z-]+): (.*)$", paragraph, re.MULTILINE))
        if fields.get("Status", "").endswith(" installed"):
            name, version = fields["Package"], fields["Version"]
            architecture = f"?arch={fields['Architecture']}"
            yield _component(name, version, f"pkg:deb/debian/{name}@{quote(version)}{architecture}")


def _component(name: str, version: str, url: str) -> dict[str, Any]:
    return {"type": "library", "bom-ref": url, "name": name, "version": version, "purl": url}


def bill() -> dict[str, Any]:
    """The whole document."""
    own = next((found.version for found in distributions(name="vectide")), "0")
    components = list(python_packages())
    if DEBIAN.exists():
        components += debian_packages(DEBIAN.read_text("utf-8"))
    subject = {"type": "application", "bom-ref": "vectide", "name": "vectide", "version": own}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": subject},
        "components": sorted(
            {part["bom-ref"]: part for part in components}.values(), key=lambda p: p["bom-ref"]
        ),
    }


if __name__ == "__main__":
    json.dump(bill(), sys.stdout, indent=1)

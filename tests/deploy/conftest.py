"""Tools that the tests of the deployment need."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

#: Set to 1 where a tool that is missing must not pass as a skip.
MUST_RUN = "VECTIDE_CHART_MUST_RUN"


@pytest.fixture(scope="session")
def promtool() -> str:
    """The path of promtool."""
    found = subprocess.run(  # noqa: S603 (a script of ours)
        [Path(__file__).parents[2] / "scripts" / "prometheus.sh"], capture_output=True, text=True, check=False
    )
    if found.returncode != 0:
        reason = f"no promtool: {found.stderr.strip()}"
        if os.environ.get(MUST_RUN) == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return found.stdout.strip()

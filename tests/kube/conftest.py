"""One cluster for all tests of this folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.kube.cluster import Cluster
from tests.kube.programs import fetch
from tests.real.jars import StackUnavailable

#: Set to 1 where a Kubernetes that cannot be had must not pass as a skip.
MUST_RUN = "VECTIDE_KUBE_MUST_RUN"


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A real control plane."""
    try:
        programs: Path = fetch()
    except StackUnavailable as missing:
        if os.environ.get(MUST_RUN) == "1":
            pytest.fail(f"Kubernetes must run here: {missing}")
        pytest.skip(f"no Kubernetes: {missing}")
    with Cluster(programs, tmp_path_factory.mktemp("kube")) as running:
        yield running

"""What the pipeline tests share."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import pytest
from tests.pipeline.verbs import Ran, Vectide

from vectide import cli


@pytest.fixture
def vectide(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Vectide:
    """Runs a verb in this process: ``vectide(environment, "check", "--json")``."""

    def run(environment: Mapping[str, str], *arguments: str) -> Ran:
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["vectide", *arguments])
            capsys.readouterr()
            with pytest.raises(SystemExit) as ended:
                cli.main()
        code = ended.value.code
        printed = capsys.readouterr()
        return Ran(code if isinstance(code, int) else 0, printed.out, printed.err)

    return run

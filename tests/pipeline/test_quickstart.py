"""The part of the quickstart that needs nothing that runs, word for word."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_mapping_of_the_quickstart_gives_what_it_says(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "quickstart.md").read_text("utf-8")
    found = re.search(r"<<'END'\n(.*?)END\n(.*?)\n\$ vectide (preview [^\n]*)\n(.*?)```", text, re.DOTALL)
    assert found
    mapping, exports, call, said = found.groups()
    (tmp_path / "try.yaml").write_text(mapping, "utf-8")
    variables = dict(pair.split("=", 1) for pair in re.findall(r"VECTIDE_\w+=\S+", exports))
    assert variables["VECTIDE_TABLES_FILE"] == "try.yaml"
    outside = {name: value for name, value in os.environ.items() if not name.startswith("VECTIDE_")}
    *verb, recording = call.split()

    def preview() -> str:
        ran = subprocess.run(  # noqa: S603 (our own interpreter and module)
            [sys.executable, "-m", "vectide", *verb, str(ROOT / recording)],
            env={**outside, **variables},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    assert said.startswith("...\n")
    assert preview().endswith(said.removeprefix("..."))
    assert "Write `prize` for `price`" in text
    (tmp_path / "try.yaml").write_text(mapping.replace("price", "prize"), "utf-8")
    assert preview().count("the events lack mapped columns: prize; they have category, ") == 1

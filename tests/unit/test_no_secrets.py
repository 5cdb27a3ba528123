"""No file of the repository holds what looks like a credential."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: What the big providers' credentials look like, and private keys.
SECRETS = {
    "AWS key": r"\b(AKIA|ASIA)[0-9A-Z]{16}\b",
    "Azure storage key": r"AccountKey=[A-Za-z0-9+/]{60,}",
    "GitHub token": r"\b(gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{60,})",
    "GitLab token": r"\bglpat-[A-Za-z0-9_-]{20}",
    "Google API key": r"\bAIza[A-Za-z0-9_-]{35}",
    "Hugging Face token": r"\bhf_[A-Za-z0-9]{30,}",
    "JSON web token": r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",
    "OpenAI key": r"\bsk-(?:proj-)?[A-Za-z0-9_-]{32,}",
    "Pinecone key": r"\bpcsk_[A-Za-z0-9]{4,8}_[A-Za-z0-9]{40,}",
    "private key": r"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----\s+[A-Za-z0-9+/]{40,}",
    "Slack token": r"\bxox[abpr]-[A-Za-z0-9-]{20,}",
    "Voyage key": r"\bpa-[A-Za-z0-9_-]{40,}",
}


def found_in(text: str) -> Iterator[str]:
    return (name for name, pattern in SECRETS.items() if re.search(pattern, text))


def test_no_file_of_the_repository_holds_a_credential() -> None:
    git = shutil.which("git")
    listed = git and subprocess.run(  # noqa: S603
        [git, "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if not listed or listed.returncode != 0:
        pytest.skip("this is no clone")
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    assert len(files) > 100
    texts = {path: path.read_text("utf-8", errors="replace") for path in files if path.is_file()}
    assert [(str(path), name) for path, text in texts.items() for name in found_in(text)] == []


def test_no_model_tells_of_the_machine_that_made_it() -> None:
    """Exporters note the stack behind each node, with the paths of files."""
    graphs = list((ROOT / "tests" / "data").rglob("*.onnx"))
    assert graphs
    assert [path for path in graphs if b'File "' in path.read_bytes()] == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("AWS key", "AKIA" + "A" * 16),
        ("GitHub token", "ghp_" + "a" * 36),
        ("OpenAI key", "sk-" + "a" * 48),
        ("Pinecone key", "pcsk_5aBc6_" + "a" * 48),
        ("Voyage key", "pa-" + "a" * 43),
        ("private key", "-----BEGIN RSA " + "PRIVATE KEY-----\n" + "M" * 64),
    ],
)
def test_a_credential_would_be_found(name: str, text: str) -> None:
    assert list(found_in(f"key = '{text}'")) == [name]

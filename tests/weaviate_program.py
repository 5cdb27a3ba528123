"""Weaviate's server, built once from its Go module into the folder of the real stack's jars
(:func:`tests.real.jars.home`), which takes minutes::

    python -m tests.weaviate_program

All its ports but one listen on every interface. Those of the test's build listen on the loopback alone.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from tests.real.jars import StackUnavailable, filled, home, ran

VERSION: Final = "1.35.2"
_FOLDER: Final = f"weaviate-{VERSION}"
_NAME: Final = "weaviate-server"
_BUILD_S: Final = 3600.0
_MODULE: Final = f"github.com/weaviate/weaviate@v{VERSION}"

#: Where the source says to listen on every interface.
_LISTEN: Final = ("adapters/handlers/grpc/server.go", "adapters/handlers/rest/clusterapi/serve.go")


def program() -> Path:
    """The program. Raises :class:`StackUnavailable` where it has not been built."""
    path = home() / _FOLDER / _NAME
    if not path.exists():
        raise StackUnavailable("Weaviate is not there: `python -m tests.weaviate_program` builds it, with Go")
    return path


def fetch() -> Path:
    """The same, built if need be. Raises :class:`StackUnavailable` where Go is missing."""
    return filled(_FOLDER, _build) / _NAME


def _build(into: Path, scratch: Path) -> None:
    go = shutil.which("go")
    if go is None:
        raise StackUnavailable("no go on the PATH to build Weaviate")
    told = subprocess.run(  # noqa: S603
        [go, "mod", "download", "-json", _MODULE], cwd=scratch, capture_output=True, text=True, check=False
    )
    if told.returncode:
        raise StackUnavailable(f"the Go module of Weaviate cannot be had: {told.stdout}{told.stderr}")
    source = scratch / "weaviate"
    shutil.copytree(json.loads(told.stdout)["Dir"], source, copy_function=shutil.copyfile)
    for folder, _, _ in os.walk(source):
        Path(folder).chmod(0o755)
    for name in _LISTEN:
        path = source / name
        path.write_text(path.read_text().replace('Sprintf(":%d"', 'Sprintf("127.0.0.1:%d"'))
    build = [
        go,
        "build",
        "-C",
        str(source),
        "-buildvcs=false",
        "-trimpath",
        "-ldflags=-s -w",
        "-o",
        str(into),
    ]
    ran([*build, "./cmd/weaviate-server"], env={**os.environ, "CGO_ENABLED": "0"}, timeout_s=_BUILD_S)


if __name__ == "__main__":
    try:
        print(fetch())
    except StackUnavailable as missing:
        print(f"not built: {missing}")

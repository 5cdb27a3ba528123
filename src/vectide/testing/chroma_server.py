"""A real Chroma server of its own, as a process, for tests and the demo (package ``chromadb``)."""

from __future__ import annotations

import itertools
import sys
import urllib.request
from typing import Final

from vectide.testing.server_process import ServerProcess

#: What the command ``chroma`` does, without importing the rest of the package.
_RUN: Final = "import sys, chromadb_rust_bindings as chroma; chroma.cli(['chroma', *sys.argv[1:]])"
_ARGUMENTS: Final = ("run", "--path", "{folder}/data", "--host", "127.0.0.1", "--port", "{port}")


class ChromaServer(ServerProcess):
    """As :class:`~vectide.testing.server_process.ServerProcess`."""

    def __init__(self) -> None:
        self._databases = itertools.count()
        command = [sys.executable, "-c", _RUN, *_ARGUMENTS]
        super().__init__("Chroma", command, {"ANONYMIZED_TELEMETRY": "False"})

    def answers(self) -> bool:
        """Its heart beats."""
        with urllib.request.urlopen(f"{self.url}/api/v2/heartbeat", timeout=5):  # noqa: S310
            return True

    def new_database(self) -> str:
        """The name of a database with nothing in it."""
        name = f"database_{next(self._databases)}"
        request = urllib.request.Request(  # noqa: S310  (our own server)
            f"{self.url}/api/v2/tenants/default_tenant/databases",
            data=f'{{"name": "{name}"}}'.encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10):  # noqa: S310
            return name

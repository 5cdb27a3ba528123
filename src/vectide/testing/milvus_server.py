"""Milvus Lite as a server of its own process, for tests and the demo (package ``milvus-lite``)."""

from __future__ import annotations

import socket
import sys
from typing import Final

from vectide.testing.server_process import ServerProcess

#: What the command ``milvus-lite`` does.
_RUN: Final = "import sys; from milvus_lite.cmdline import main; sys.exit(main())"
_ARGUMENTS: Final = ("server", "--data-dir", "{folder}/data", "--port", "{port}")


class MilvusServer(ServerProcess):
    """As :class:`~vectide.testing.server_process.ServerProcess`."""

    def __init__(self) -> None:
        super().__init__("Milvus", [sys.executable, "-c", _RUN, *_ARGUMENTS])

    def answers(self) -> bool:
        """It takes connections."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True

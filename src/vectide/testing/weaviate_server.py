"""A real Weaviate server of its own, as a process, for tests. Its program comes from elsewhere."""

from __future__ import annotations

import urllib.request
from pathlib import Path
from typing import Final

from vectide.testing.server_process import ServerProcess, free_port

_ARGUMENTS: Final = ("--host", "127.0.0.1", "--port", "{port}", "--scheme", "http")

_ENVIRONMENT: Final = {
    "PERSISTENCE_DATA_PATH": "{folder}/data",
    "DEFAULT_VECTORIZER_MODULE": "none",
    "DISABLE_TELEMETRY": "true",
    "GO_PROFILING_DISABLE": "true",
    "LOG_LEVEL": "warning",
    "CLUSTER_HOSTNAME": "node1",
    "CLUSTER_ADVERTISE_ADDR": "127.0.0.1",
    "CLUSTER_BIND_ADDR": "127.0.0.1",
    # It is thrown away: when the disk is full is no concern of its.
    "DISK_USE_READONLY_PERCENTAGE": "100",
    "DISK_USE_WARNING_PERCENTAGE": "100",
}

#: Those for the other nodes of a cluster, and for gRPC.
_PORTS: Final = (
    "CLUSTER_GOSSIP_BIND_PORT",
    "CLUSTER_DATA_BIND_PORT",
    "RAFT_PORT",
    "RAFT_INTERNAL_RPC_PORT",
    "GRPC_PORT",
)


class WeaviateServer(ServerProcess):
    """As :class:`~vectide.testing.server_process.ServerProcess`. ``api_key``: the one that it asks for;
    None: it takes everybody."""

    def __init__(self, program: Path, api_key: str | None = None) -> None:
        access = {"AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED": "true"}
        if api_key is not None:
            access = {
                "AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED": "false",
                "AUTHENTICATION_APIKEY_ENABLED": "true",
                "AUTHENTICATION_APIKEY_ALLOWED_KEYS": api_key,
                "AUTHENTICATION_APIKEY_USERS": "vectide",
            }
        ports = {name: str(free_port()) for name in _PORTS}
        self.grpc_port = int(ports["GRPC_PORT"])
        super().__init__("Weaviate", [str(program), *_ARGUMENTS], {**_ENVIRONMENT, **access, **ports})

    def answers(self) -> bool:
        """It takes requests."""
        with urllib.request.urlopen(f"{self.url}/v1/.well-known/ready", timeout=5) as answer:  # noqa: S310
            ready: bool = answer.status == 200
            return ready

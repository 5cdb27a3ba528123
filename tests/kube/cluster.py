"""A Kubernetes of one's own on loopback ports: API server, controllers and scheduler are real, nodes are not.

kwok says of every pod that it runs: no image is pulled, and no probe is asked.
"""

from __future__ import annotations

import json
import secrets
import ssl
import subprocess
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import cache
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from tests.kube.crds import definitions
from tests.real.jars import StackError
from tests.real.processes import Child, free_port, wait_until

NODES: Final = 3
START_TIMEOUT_S: Final = 240.0
#: What a Deployment needs to become pods on nodes, and to go away again.
CONTROLLERS: Final = (
    "deployment",
    "disruption",
    "endpointslice",
    "garbage-collector",
    "namespace",
    "node-lifecycle",
    "persistentvolume-binder",
    "replicaset",
    "serviceaccount",
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the API server said: status, and the object (for a refusal a ``Status``)."""

    status: int
    body: Mapping[str, Any]

    @property
    def message(self) -> str:
        return str(self.body.get("message", ""))


class Cluster(AbstractContextManager["Cluster"]):
    """Runs from construction to the end of the ``with`` block."""

    def __init__(self, programs: Path, folder: Path):
        self._programs, self._folder = programs, folder
        self._token, self._port = secrets.token_hex(16), free_port()
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as running:
            self._running = running
            self._start_api(self._start_etcd())
            self.kubeconfig = folder / "kubeconfig.json"
            self.kubeconfig.write_text(json.dumps(self._access()), "utf-8")
            self._start_controllers()
            self._start_nodes()
            for definition in definitions():
                self._define(definition)
            self._running = running.pop_all()

    # --- the API ---

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Answer:
        """One request; raises OSError or HTTPException while nobody answers."""
        trusted = ssl.create_default_context(cafile=str(self._certificate))
        link = HTTPSConnection("127.0.0.1", self._port, timeout=60, context=trusted)
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        try:
            link.request(method, path, None if body is None else json.dumps(body), headers)
            response = link.getresponse()
            text = response.read().decode()
        finally:
            link.close()
        return Answer(response.status, json.loads(text) if text.startswith("{") else {"message": text})

    def make(self, document: Mapping[str, Any]) -> None:
        """An object that must not be refused."""
        answer = self.ask("POST", self._path(document), document)
        if answer.status >= 300:
            raise StackError(f"{document['kind']} was refused: {answer.status} {answer.message}")

    def judge(self, document: Mapping[str, Any]) -> Answer:
        """Would it be made? Unknown and repeated fields are refused too; nothing is kept."""
        query = "dryRun=All&fieldValidation=Strict"
        return self.ask("POST", f"{self._path(document)}?{query}", document)

    def get(self, api: str, kind: str, namespace: str, name: str) -> Answer:
        metadata = {"namespace": namespace}
        return self.ask(
            "GET", f"{self._path({'apiVersion': api, 'kind': kind, 'metadata': metadata})}/{name}"
        )

    def _path(self, document: Mapping[str, Any]) -> str:
        """Where objects of this kind are made."""
        api = document["apiVersion"]
        root = f"/apis/{api}" if "/" in api else f"/api/{api}"
        plural, namespaced = self._known(root)[document["kind"]]
        return (
            f"{root}/namespaces/{document['metadata']['namespace']}/{plural}"
            if namespaced
            else f"{root}/{plural}"
        )

    @cache  # noqa: B019 (there is one cluster)
    def _known(self, root: str) -> dict[str, tuple[str, bool]]:
        listed = self.ask("GET", root).body["resources"]
        return {one["kind"]: (one["name"], one["namespaced"]) for one in listed if "/" not in one["name"]}

    def _define(self, definition: Mapping[str, Any]) -> None:
        """A custom resource, until it is served."""
        self.make(definition)
        spec = definition["spec"]
        path = f"/apis/{spec['group']}/{spec['versions'][0]['name']}/{spec['names']['plural']}"
        wait_until(f"{path} is served", lambda: self.ask("GET", path).status == 200, START_TIMEOUT_S, 0.5)

    # --- the programs ---

    def _start(self, program: str, *flags: str) -> Child:
        return self._running.enter_context(
            Child(program, [str(self._programs / program), *flags], self._folder)
        )

    def _start_etcd(self) -> str:
        client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        self._start(
            "etcd",
            "--data-dir=etcd-data",
            "--unsafe-no-fsync",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
        )
        return client

    def _start_api(self, etcd: str) -> None:
        (self._folder / "tokens.csv").write_text(f"{self._token},admin,admin,system:masters\n", "utf-8")
        key = self._folder / "accounts.key"
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)  # noqa: S603, S607
        self._certificate = self._folder / "certificates" / "apiserver.crt"
        server = self._start(
            "kube-apiserver",
            f"--etcd-servers={etcd}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self._port}",
            "--cert-dir=certificates",
            "--token-auth-file=tokens.csv",
            "--authorization-mode=RBAC",
            "--endpoint-reconciler-type=none",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
        )
        server.wait_ready("is ready", self._api_is_ready, START_TIMEOUT_S)

    def _api_is_ready(self) -> bool:
        try:
            return self._certificate.exists() and self.ask("GET", "/readyz").status == 200
        except (OSError, HTTPException):
            return False

    def _access(self) -> dict[str, Any]:
        """A kubeconfig, as JSON."""
        cluster = {
            "server": f"https://127.0.0.1:{self._port}",
            "certificate-authority": str(self._certificate),
        }
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "admin", "user": {"token": self._token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
            "current-context": "test",
        }

    def _start_controllers(self) -> None:
        alone = (f"--kubeconfig={self.kubeconfig}", "--leader-elect=false", "--secure-port=0")
        named = ",".join(f"{name}-controller" for name in CONTROLLERS)
        self._start("kube-controller-manager", *alone, f"--controllers={named}")
        self._start("kube-scheduler", *alone)

    def _start_nodes(self) -> None:
        self._start(
            "kwok",
            f"--kubeconfig={self.kubeconfig}",
            f"--config={self._programs / 'stages.yaml'}",
            "--manage-all-nodes=true",
            f"--server-address=127.0.0.1:{free_port()}",
        )
        for number in range(NODES):
            labels = {
                "kubernetes.io/arch": "amd64",
                "kubernetes.io/hostname": f"node-{number}",
                "topology.kubernetes.io/zone": f"z{number}",
            }
            node = {"name": f"node-{number}", "labels": labels}
            self.make({"apiVersion": "v1", "kind": "Node", "metadata": node})

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.close()

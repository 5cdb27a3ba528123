"""A Kubernetes control plane, built once from Go modules into the folder of the real stack's jars.

``python -m tests.kube.programs`` does only that. It takes minutes, and 6 GB in Go's own caches, which may be
emptied afterwards.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from tests.real.jars import StackUnavailable, filled, ran

HERE: Final = Path(__file__).parent
VERSION: Final = "v1.36.3"
KWOK: Final = "sigs.k8s.io/kwok@v0.8.0"
#: Of each go.mod beside this: programs, and their packages.
PACKAGES: Final = {
    "etcd": {"etcd": "go.etcd.io/etcd/server/v3"},
    "kubernetes": {
        name: f"k8s.io/kubernetes/cmd/{name}"
        for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
    },
}
#: How kwok's nodes and pods behave: folders of its module.
STAGES: Final = ("node/fast", "node/heartbeat", "pod/fast")
#: Built like this it would not know its version, which Helm asks for.
FLAGS: Final = (
    "-trimpath",
    "-buildvcs=false",
    f"-ldflags=-s -w -X k8s.io/component-base/version.gitVersion={VERSION}",
)
GO_AT_LEAST: Final = (1, 26)
BUILD_TIMEOUT_S: Final = 3 * 3600.0


def fetch() -> Path:
    """The folder with the programs and kwok's ``stages.yaml``. Raises :class:`StackUnavailable` where they
    would have to be built and there is no Go that is new enough."""
    pins = b"".join(path.read_bytes() for path in sorted(HERE.glob("*.go.*")))
    digest = hashlib.sha256(pins + repr((KWOK, STAGES, FLAGS)).encode()).hexdigest()
    return filled(f"kube-{digest[:12]}", _build)


def _build(into: Path, scratch: Path) -> None:
    go = _find_go()
    environment = {**os.environ, "CGO_ENABLED": "0", "GOWORK": "off", "GOBIN": str(into)}
    for module, packages in PACKAGES.items():
        folder = scratch / module
        folder.mkdir()
        for suffix in ("mod", "sum"):
            shutil.copyfile(HERE / f"{module}.go.{suffix}", folder / f"go.{suffix}")
        for program, package in packages.items():
            command = [go, "build", "-C", str(folder), "-mod=mod", *FLAGS, "-o", str(into / program), package]
            ran(command, environment, BUILD_TIMEOUT_S)
    path, _, version = KWOK.partition("@")
    ran([go, "install", *FLAGS, f"{path}/cmd/kwok@{version}"], environment, BUILD_TIMEOUT_S)
    told = subprocess.run(  # noqa: S603
        [go, "mod", "download", "-json", KWOK], env=environment, capture_output=True, check=True
    )
    stages = Path(json.loads(told.stdout)["Dir"]) / "kustomize" / "stage"
    files = [file for stage in STAGES for file in sorted((stages / stage).glob("*.yaml"))]
    texts = [file.read_text("utf-8") for file in files if file.name != "kustomization.yaml"]
    (into / "stages.yaml").write_text("\n---\n".join(texts), "utf-8")


def _find_go() -> str:
    go = shutil.which("go")
    if go is None:
        raise StackUnavailable("no go on the PATH to build Kubernetes")
    told = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=True)  # noqa: S603
    major, minor, *_ = told.stdout.strip().removeprefix("go").split(".")
    if (int(major), int(minor)) < GO_AT_LEAST:
        raise StackUnavailable(
            f"Kubernetes needs Go 1.26 or newer to be built, this is {told.stdout.strip()}"
        )
    return go


if __name__ == "__main__":
    print(fetch())

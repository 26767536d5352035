"""The Kafka that tests talk to: one of their own, or the one that a variable names."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn
from urllib.parse import quote

import pytest
import trustme
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # exported, but not by name
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from tests.services.kafka import HOST, free_ports

VARIABLE = "CLIMATESTREAM_TEST_KAFKA"
REQUIRED = "CLIMATESTREAM_KAFKA_REQUIRED"
"""Where it is set, tests that find no Kafka fail instead of being skipped."""
ROOT = Path(__file__).resolve().parents[2]

USER, PASSWORD = "analyst", "a pass, word"

# SASL_SSL takes SCRAM passwords and unsecured tokens, each good until its expiry; SSL takes
# whoever has a certificate of our authority.
LISTENERS = """
listeners=PLAINTEXT://{host}:{{port}},CONTROLLER://{host}:{controller},SASL_SSL://{host}:{sasl},\
SSL://{host}:{ssl}
advertised.listeners=PLAINTEXT://{host}:{{port}},SASL_SSL://{host}:{sasl},SSL://{host}:{ssl}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL,SSL:SSL
ssl.keystore.type=PEM
ssl.keystore.location={folder}/server.pem
ssl.truststore.type=PEM
ssl.truststore.location={folder}/ca.pem
listener.name.ssl.ssl.client.auth=required
listener.name.sasl_ssl.sasl.enabled.mechanisms=SCRAM-SHA-512,OAUTHBEARER
listener.name.sasl_ssl.connections.max.reauth.ms=60000
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=\
org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.oauthbearer.sasl.jaas.config=\
org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required \
unsecuredLoginStringClaim_sub="broker";
group.consumer.min.heartbeat.interval.ms=200
group.consumer.heartbeat.interval.ms=200
"""


@dataclass(frozen=True)
class Kafka:
    """A running broker.

    Parameters
    ----------
    servers
        Where it listens without security.
    folder
        Its own folder; None: it is another's.
    sasl, ssl
        Where it wants a password or token, and a certificate.
    """

    servers: str
    folder: Path | None = None
    sasl: str = ""
    ssl: str = ""

    def url(self, topic: str, servers: str | int = "", **options: str | int) -> str:
        """A `kafka://` URL; a dot in an option's name is written `_`, and `_` is `__`."""
        names = [name.replace("__", " ").replace("_", ".").replace(" ", "_") for name in options]
        texts = [quote(str(value), safe="") for value in options.values()]
        pairs = [f"{name}={text}" for name, text in zip(names, texts, strict=True)]
        return f"kafka://{servers or self.servers}/{topic}" + ("?" * bool(pairs) + "&".join(pairs))

    def run(self, *arguments: str) -> str:
        """Start, stop or kill it; what that prints."""
        assert self.folder is not None
        return _run(*arguments, "--dir", str(self.folder / "broker"))

    @property
    def tls(self) -> Path:
        """The folder of certificates: ca.pem, client.pem, client.key, stranger.pem."""
        assert self.folder is not None
        return self.folder


def why_not() -> str | None:
    """Why no broker can be started here; None where one can."""
    missing = [program for program in ("java", "mvn") if shutil.which(program) is None]
    if not missing:
        return None
    return (
        f"no Kafka: {' and '.join(missing)} not found; install Java 17 and Maven, or set "
        f"{VARIABLE}=host:port"
    )


def _none(reason: str) -> NoReturn:
    """Skip what needs a broker; fail where one must be there."""
    if os.environ.get(REQUIRED):
        pytest.fail(f"{reason} ({REQUIRED} is set)")
    pytest.skip(reason)


@contextmanager
def started() -> Iterator[Kafka]:
    """A broker of its own, ended when it is left."""
    with tempfile.TemporaryDirectory(prefix="climatestream-kafka-") as name:
        folder = Path(name)
        port = free_ports(4)
        _certificates(folder)
        properties = folder / "extra.properties"
        properties.write_text(
            LISTENERS.format(
                host=HOST, controller=port + 1, sasl=port + 2, ssl=port + 3, folder=folder
            )
        )
        kafka = Kafka(f"{HOST}:{port}", folder, sasl=f"{HOST}:{port + 2}", ssl=f"{HOST}:{port + 3}")
        try:
            kafka.run("start", "--port", str(port), "--properties", str(properties))
            _make_user(kafka.servers)
            yield kafka
        finally:
            kafka.run("stop", "--kill")


@pytest.fixture(scope="session")
def kafka() -> Iterator[Kafka]:
    """A broker, shared by the tests: each has topics of its own."""
    named = os.environ.get(VARIABLE)
    if named:
        yield Kafka(named)
        return
    reason = why_not()
    if reason:
        _none(reason)
    with started() as server:
        yield server


@pytest.fixture(scope="class")
def own_kafka() -> Iterator[Kafka]:
    """A broker that tests may kill, and start again."""
    reason = why_not()
    if reason:
        _none(reason)
    with started() as server:
        yield server


_numbers = itertools.count()


def new_topic() -> str:
    """A name that no other test has, nor another run on the same broker."""
    return f"climatestream-test-{os.getpid()}-{next(_numbers)}"


def _run(*arguments: str) -> str:
    command = [sys.executable, "-m", "tests.services.kafka", *arguments]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, f"{' '.join(arguments)}: {ended.stderr}"
    return ended.stdout.strip()


def _certificates(folder: Path) -> None:
    """An authority, the server's certificate, a client's, and another authority."""
    authority = trustme.CA()
    server = authority.issue_cert(HOST)
    client = authority.issue_cert("analyst@example.org")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    trustme.CA().cert_pem.write_to_path(folder / "stranger.pem")
    _chain(server, folder / "server.pem")
    (folder / "server.pem").write_bytes(
        _pkcs8(server.private_key_pem.bytes()) + (folder / "server.pem").read_bytes()
    )
    _chain(client, folder / "client.pem")
    client.private_key_pem.write_to_path(folder / "client.key")


def _chain(certificate: trustme.LeafCert, file: Path) -> None:
    file.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))


def _pkcs8(key: bytes) -> bytes:
    """A key in the one form of PEM that Kafka reads."""
    loaded = load_pem_private_key(key, password=None)
    return loaded.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _make_user(servers: str) -> None:
    admin = AdminClient({"bootstrap.servers": servers})
    secret = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
    user = UserScramCredentialUpsertion(USER, secret, PASSWORD.encode())
    admin.alter_user_scram_credentials([user])[USER].result()

"""`kafka://host:port[,host:port]/topic?option=value` as settings of Kafka's clients.

Options are librdkafka's own names, with dots; ours have underscores. What the delivery guarantee
rests on can't be set, and a secret never stands in the URL. No I/O but reading a secret's file.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from climatestream.errors import UsageError

SCHEME: Final = "kafka://"
FORM: Final = "kafka://host:port[,host:port]/topic?option=value"
PORT: Final = 9092

OWN: Final = {
    "password_file": "a file that holds the password of sasl.username",
    "key_password_file": "a file that holds the password of ssl.key.location",
    "aws_region": "the region of an Amazon MSK cluster, for sasl.mechanisms=AWS_MSK_IAM",
}
"""Options that are not librdkafka's."""

SECRETS: Final = {"sasl.password": "password", "ssl.key.password": "key_password"}
"""By librdkafka's name: `<word>_file` in the URL and CLIMATESTREAM_KAFKA_<WORD> give the secret."""

MSK_IAM: Final = "AWS_MSK_IAM"
"""The mechanism as Java's clients name it; librdkafka knows it as OAUTHBEARER with a token."""


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


BOTH: Final = _names("""
    allow.auto.create.topics broker.address.family broker.address.ttl client.dns.lookup client.id
    client.rack connections.max.idle.ms debug enable.metrics.push
    enable.ssl.certificate.verification https.ca.location log.connection.close log_level
    max.in.flight max.in.flight.requests.per.connection message.copy.max.bytes message.max.bytes
    metadata.max.age.ms metadata.recovery.rebootstrap.trigger.ms metadata.recovery.strategy
    receive.message.max.bytes reconnect.backoff.max.ms reconnect.backoff.ms retry.backoff.max.ms
    retry.backoff.ms sasl.kerberos.keytab sasl.kerberos.kinit.cmd
    sasl.kerberos.min.time.before.relogin sasl.kerberos.principal sasl.kerberos.service.name
    sasl.mechanism sasl.mechanisms sasl.username security.protocol
    socket.connection.setup.timeout.ms socket.keepalive.enable socket.max.fails
    socket.nagle.disable socket.receive.buffer.bytes socket.send.buffer.bytes socket.timeout.ms
    ssl.ca.certificate.stores ssl.ca.location ssl.certificate.location ssl.cipher.suites
    ssl.crl.location ssl.curves.list ssl.endpoint.identification.algorithm ssl.key.location
    ssl.providers ssl.sigalgs.list topic.metadata.propagation.max.ms
    topic.metadata.refresh.fast.interval.ms topic.metadata.refresh.interval.ms
    topic.metadata.refresh.sparse
""")
OF_CONSUMERS: Final = _names("""
    check.crcs coordinator.query.interval.ms fetch.error.backoff.ms fetch.max.bytes
    fetch.message.max.bytes fetch.min.bytes fetch.queue.backoff.ms fetch.wait.max.ms
    group.instance.id group.protocol group.remote.assignor heartbeat.interval.ms
    max.partition.fetch.bytes max.poll.interval.ms queued.max.messages.kbytes queued.min.messages
    session.timeout.ms
""")
OF_PRODUCERS: Final = _names("""
    batch.num.messages batch.size compression.codec compression.level compression.type
    delivery.timeout.ms linger.ms message.send.max.retries message.timeout.ms
    queue.buffering.backpressure.threshold queue.buffering.max.kbytes queue.buffering.max.messages
    queue.buffering.max.ms request.timeout.ms retries sticky.partitioning.linger.ms
""")
"""librdkafka's names (its CONFIGURATION.md, 2.16), without deprecated ones and callbacks."""

_GUARANTEE = "the delivery guarantee rests on it"
FIXED: Final = {
    "bootstrap.servers": "the servers stand before the topic",
    "metadata.broker.list": "the servers stand before the topic",
    "group.id": "it is the option --group",
    "auto.offset.reset": "it is the option --from",
    "isolation.level": _GUARANTEE,
    "acks": _GUARANTEE,
    "request.required.acks": _GUARANTEE,
    "enable.idempotence": _GUARANTEE,
    "enable.gapless.guarantee": _GUARANTEE,
    "delivery.report.only.error": _GUARANTEE,
    "transactional.id": _GUARANTEE,
    "enable.auto.commit": _GUARANTEE,
    "auto.commit.enable": _GUARANTEE,
    "auto.commit.interval.ms": _GUARANTEE,
    "enable.auto.offset.store": _GUARANTEE,
    "enable.partition.eof": _GUARANTEE,
    "partitioner": "every producer must place a cell in the same partition",
    "partition.assignment.strategy": "rebalancing is cooperative",
}
"""Names that can't be set, with the reason."""

_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:(?P<port>\d{1,5}))?")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_SECRET = re.compile(r"password(?!_file$)|passphrase|secret|(?:^|\.)(?:key|keystore)\.pem$")
_MSK_REGION = re.compile(r"\.kafka(?:-serverless)?\.([a-z0-9-]+)\.amazonaws\.com")


@dataclass(frozen=True)
class KafkaOptions:
    """What a `kafka://` URL says, and the secrets that it only points at.

    Parameters
    ----------
    servers
        `host:port[,host:port]`.
    topic
        Its name.
    options
        By librdkafka's name, as typed.
    secrets
        By librdkafka's name; never printed.
    aws_region
        Where tokens of AWS IAM are signed for; None: another mechanism, or none.
    """

    servers: str
    topic: str
    options: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    aws_region: str | None = None

    def __str__(self) -> str:
        return f"{SCHEME}{self.servers}/{self.topic}"

    def of(self, *names: tuple[str, ...]) -> dict[str, str]:
        """The options of these tables, with the servers and the secrets."""
        chosen = {name for table in names for name in table}
        typed = {name: value for name, value in self.options.items() if name in chosen}
        return {"bootstrap.servers": self.servers, **typed, **self.secrets}


def parse(spec: str, environment: Mapping[str, str] | None = None) -> KafkaOptions:
    """Read a `kafka://` URL.

    Parameters
    ----------
    environment
        Where secrets are looked up that no file gives; None: this process's.

    Raises
    ------
    UsageError
        It is none, or one of its options is unknown, fixed, a secret, or given twice.
    """
    environment = os.environ if environment is None else environment
    place, _, query = spec.removeprefix(SCHEME).partition("?")
    servers, _, topic = place.partition("/")
    if "@" in servers:
        raise UsageError(
            f"the broker's URL names a user before its servers: write {FORM} with the option "
            f"sasl.username, and give the password in {_variable('password')} or password_file"
        )
    if not spec.startswith(SCHEME):
        raise UsageError(f"broker {spec!r} is not known: expected {FORM}")
    if not _TOPIC.fullmatch(topic) or topic in (".", ".."):
        raise UsageError(
            f"topic {topic!r} in {SCHEME}{place} is no name of a Kafka topic: expected 1 to 249 "
            f"letters, digits, dots, dashes and underscores, as in {FORM}"
        )
    typed = _options(query, f"{SCHEME}{place}")
    own = {name: typed.pop(name) for name in OWN if name in typed}
    listed = _servers(servers)
    return KafkaOptions(
        servers=listed,
        topic=topic,
        secrets=_secrets(typed, own, environment),
        aws_region=_iam(typed, own, listed, environment),
        options=typed,
    )


def _servers(text: str) -> str:
    servers = []
    for server in text.split(","):
        match = _HOST.fullmatch(server)
        if match is None or not 0 < int(match["port"] or PORT) < 65_536:
            raise UsageError(f"server {server!r} in {SCHEME}{text} is no host:port: write {FORM}")
        servers.append(server if match["port"] else f"{server}:{PORT}")
    return ",".join(servers)


def _options(query: str, place: str) -> dict[str, str]:
    """The pairs of a query; a `+` is a plus, as paths have it."""
    typed: dict[str, str] = {}
    for pair in filter(None, query.split("&")):
        name, equals, value = pair.partition("=")
        name = unquote(name)
        _allow(name, place)
        if not equals or not value:
            raise UsageError(f"option {name} of {place} has no value: write {name}=VALUE")
        if name in typed:
            raise UsageError(f"option {name} of {place} is given twice: leave one out")
        typed[name] = unquote(value)
    return typed


def _allow(name: str, place: str) -> None:
    """Whether a name may stand in a URL; its value is never shown, since it may be a secret."""
    known = (*OWN, *BOTH, *OF_CONSUMERS, *OF_PRODUCERS)
    if name in known:
        return
    if _SECRET.search(name):
        word = SECRETS.get(name, "key_password" if "key" in name else "password")
        raise UsageError(
            f"option {name} of {place} is a secret, which a URL must not hold: set "
            f"{_variable(word)}, or name a file with {word}_file"
        )
    if name in FIXED:
        raise UsageError(f"option {name} of {place} can't be set: {FIXED[name]}")
    near = difflib.get_close_matches(name, known, n=1)
    raise UsageError(
        f"option {name!r} of {place} is not known"
        + (f": did you mean {near[0]}?" if near else ": expected a name of librdkafka's")
    )


def _variable(word: str) -> str:
    return f"CLIMATESTREAM_KAFKA_{word.upper()}"


def _secrets(
    typed: Mapping[str, str], own: Mapping[str, str], environment: Mapping[str, str]
) -> dict[str, str]:
    """Those secrets that the options call for: a user's, a key's."""
    called_for = {
        "sasl.password": "sasl.username" in typed,
        "ssl.key.password": "ssl.key.location" in typed,
    }
    found = {}
    for name, word in SECRETS.items():
        file = own.get(f"{word}_file")
        secret = environment.get(_variable(word))
        if file is not None:
            secret = _read(file, word)
        if called_for[name] and secret:
            found[name] = secret
    if called_for["sasl.password"] and "sasl.password" not in found:
        raise UsageError(
            f"sasl.username={typed['sasl.username']} needs a password: set "
            f"{_variable('password')}, or name a file with password_file"
        )
    return found


def _read(file: str, word: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{word}_file={file} can't be read: {error}") from error


def _iam(
    typed: dict[str, str],
    own: Mapping[str, str],
    servers: str,
    environment: Mapping[str, str],
) -> str | None:
    """The region of MSK IAM, whose mechanism becomes librdkafka's; None without IAM."""
    names = [name for name in ("sasl.mechanisms", "sasl.mechanism") if typed.get(name) == MSK_IAM]
    if not names:
        if "aws_region" in own:
            raise UsageError(f"aws_region is for sasl.mechanisms={MSK_IAM}, which is not set")
        return None
    for name in names:
        del typed[name]
    typed["sasl.mechanisms"] = "OAUTHBEARER"
    typed.setdefault("security.protocol", "SASL_SSL")
    in_name = _MSK_REGION.search(servers)
    region = (
        own.get("aws_region")
        or (in_name and in_name[1])
        or environment.get("AWS_REGION")
        or environment.get("AWS_DEFAULT_REGION")
    )
    if not region:
        raise UsageError(
            f"sasl.mechanisms={MSK_IAM} needs a region, which {servers} does not name: add "
            f"aws_region=REGION, or set AWS_REGION"
        )
    return region

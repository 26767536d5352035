"""`kafka://` URLs, and what needs no broker: secrets, tokens, a broker that is not there."""

from __future__ import annotations

import builtins
import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError

from climatestream.brokers import kafka_options
from climatestream.brokers.kafka import KafkaBroker
from climatestream.brokers.kafka_clients import Clients
from climatestream.brokers.kafka_errors import Events, translate
from climatestream.brokers.kafka_options import KafkaOptions, parse
from climatestream.brokers.open import open_broker
from climatestream.errors import BrokerError, BrokerUnavailable, UsageError

NOBODY = "127.0.0.1:9"
"""The discard service, which no machine runs any more."""

MSK = "b-1.demo.a1b2c3.c4.kafka.eu-central-1.amazonaws.com:9098"


def of(spec: str, environment: Mapping[str, str] | None = None) -> KafkaOptions:
    return parse(spec, environment or {})


# ------------------------------------------------------------------------------------ URLs


def test_a_url_names_servers_and_topic() -> None:
    options = of("kafka://one:9092,two:9093/readings")
    assert (options.servers, options.topic) == ("one:9092,two:9093", "readings")
    assert (options.options, options.secrets, options.aws_region) == ({}, {}, None)


def test_a_server_without_a_port_has_kafkas() -> None:
    assert of("kafka://one,[::1]:9093,[::1]/t").servers == "one:9092,[::1]:9093,[::1]:9092"


def test_options_keep_librdkafkas_names_and_are_decoded() -> None:
    options = of("kafka://h/t?linger.ms=5&ssl.ca.location=/a%20b/c+d.pem&client.id=a%26b")
    assert options.options == {
        "linger.ms": "5",
        "ssl.ca.location": "/a b/c+d.pem",
        "client.id": "a&b",
    }


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("localhost:9092/t", "expected kafka://host:port"),
        ("kafka:/h/t", "expected kafka://host:port"),
        ("kafka://h", "no name of a Kafka topic"),
        ("kafka://h/", "no name of a Kafka topic"),
        ("kafka://h/..", "no name of a Kafka topic"),
        ("kafka://h/a/b", "no name of a Kafka topic"),
        ("kafka://h/" + "t" * 250, "no name of a Kafka topic"),
        ("kafka:///t", "server '' in kafka:// is no host:port"),
        ("kafka://h:x/t", "is no host:port"),
        ("kafka://h:70000/t", "is no host:port"),
        ("kafka://h:0/t", "is no host:port"),
        ("kafka://h,/t", "is no host:port"),
        ("kafka://h/t?linger.ms", "option linger.ms of kafka://h/t has no value"),
        ("kafka://h/t?linger.ms=", "has no value"),
        ("kafka://h/t?linger.ms=1&linger.ms=2", "is given twice"),
        ("kafka://h/t?aws_region=eu-west-1", "aws_region is for sasl.mechanisms=AWS_MSK_IAM"),
    ],
)
def test_a_url_that_is_none_gets_one_sentence(spec: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        of(spec)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("linger_ms", "linger.ms"),
        ("compresion.type", "compression.type"),
        ("group.instance.ids", "group.instance.id"),
        ("security.protocal", "security.protocol"),
        ("sesion.timeout.ms", "session.timeout.ms"),
        ("ssl.ca.file", "ssl.ca.location"),
        ("pasword_file", "password_file"),
    ],
)
def test_a_typo_is_an_error_that_names_the_nearest_option(typed: str, meant: str) -> None:
    with pytest.raises(UsageError, match=f"did you mean {meant}[?]"):
        of(f"kafka://h/t?{typed}=1")


@pytest.mark.parametrize("name", kafka_options.FIXED)
def test_what_delivery_rests_on_can_not_be_set(name: str) -> None:
    with pytest.raises(UsageError, match=f"option {name} of kafka://h/t can't be set: "):
        of(f"kafka://h/t?{name}=1")


def test_every_option_of_the_table_is_one_of_librdkafkas() -> None:
    """A name that the installed version does not know is refused as the client is made."""
    from confluent_kafka import Consumer, KafkaException

    tables = (kafka_options.BOTH, kafka_options.OF_CONSUMERS, kafka_options.OF_PRODUCERS)
    unknown = []
    for name in (name for table in tables for name in table):
        try:
            Consumer({"group.id": "g", name: ""}, logger=logging.getLogger("unheard"))
        except KafkaException as error:
            if "No such configuration property" in error.args[0].str():
                unknown.append(name)
    assert unknown == []


def test_options_that_do_not_fit_are_wrong_usage() -> None:
    """Librdkafka judges values: its words, in our sentence, before anything is connected."""
    for query in ("linger.ms=soon", "security.protocol=SASL_TSL", "socket.timeout.ms=-1"):
        broker = open_broker(f"kafka://{NOBODY}/t?{query}")
        with pytest.raises(UsageError, match=rf"the options of kafka://{NOBODY}/t don't fit"):
            Clients(parse(f"kafka://{NOBODY}/t?{query}", {})).producer()
        assert repr(broker) == f"KafkaBroker('kafka://{NOBODY}/t')"


def test_each_client_gets_the_options_that_are_its_own() -> None:
    options = of("kafka://h/t?linger.ms=5&session.timeout.ms=7000&client.id=x")
    servers = {"bootstrap.servers": "h:9092", "client.id": "x"}
    assert options.of(kafka_options.BOTH) == servers
    assert options.of(kafka_options.BOTH, kafka_options.OF_PRODUCERS) == servers | {
        "linger.ms": "5"
    }
    assert options.of(kafka_options.BOTH, kafka_options.OF_CONSUMERS) == servers | {
        "session.timeout.ms": "7000"
    }


def test_a_missing_package_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **more: Any) -> Any:
        if name == "climatestream.brokers.kafka":
            raise ModuleNotFoundError("gone", name="confluent_kafka")
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match="pip install confluent-kafka"):
        open_broker("kafka://h/t")


# --------------------------------------------------------------------------------- secrets

SCRAM = "kafka://h/t?security.protocol=SASL_SSL&sasl.mechanisms=SCRAM-SHA-512&sasl.username=u"
PASSWORD = {"CLIMATESTREAM_KAFKA_PASSWORD": "hunter2"}


def test_a_password_comes_from_the_environment() -> None:
    assert of(SCRAM, PASSWORD).secrets == {"sasl.password": "hunter2"}


def test_a_password_comes_from_a_file_first(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("from a file ü\n", encoding="utf-8")
    options = of(f"{SCRAM}&password_file={file}", PASSWORD)
    assert options.secrets == {"sasl.password": "from a file ü"}
    assert "password_file" not in options.options


def test_the_password_of_a_key_is_another() -> None:
    environment = PASSWORD | {"CLIMATESTREAM_KAFKA_KEY_PASSWORD": "key"}
    options = of("kafka://h/t?security.protocol=SSL&ssl.key.location=/k.pem", environment)
    assert options.secrets == {"ssl.key.password": "key"}


def test_a_password_that_no_option_calls_for_is_left_alone() -> None:
    assert of("kafka://h/t", PASSWORD).secrets == {}


def test_a_user_without_a_password_is_told_where_it_goes() -> None:
    with pytest.raises(UsageError, match="set CLIMATESTREAM_KAFKA_PASSWORD, or name a file"):
        of(SCRAM)


def test_a_password_file_that_can_not_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"password_file=.*absent can't be read"):
        of(f"{SCRAM}&password_file={tmp_path / 'absent'}")


@pytest.mark.parametrize(
    "query",
    [
        "sasl.password=hunter2",
        "password=hunter2",
        "ssl.key.password=hunter2",
        "ssl.keystore.password=hunter2",
        "ssl.key.pem=hunter2",
        "sasl.oauthbearer.client.secret=hunter2",
    ],
)
def test_a_secret_in_the_url_is_refused_and_not_repeated(query: str) -> None:
    with pytest.raises(UsageError, match="is a secret, which a URL must not hold") as caught:
        of(f"kafka://h/t?{query}")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["kafka://", "kafka:", ""])
def test_a_user_before_the_servers_is_refused_and_not_repeated(scheme: str) -> None:
    with pytest.raises(UsageError, match=r"sasl\.username") as caught:
        of(f"{scheme}u:hunter2@h:9092/t")
    assert "hunter2" not in str(caught.value)


def test_no_text_of_a_broker_shows_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIMATESTREAM_KAFKA_PASSWORD", "hunter2")
    options = parse(SCRAM)
    assert "hunter2" in options.secrets.values()
    for text in (repr(options), str(options), repr(open_broker(SCRAM)), str(open_broker(SCRAM))):
        assert "hunter2" not in text


# ------------------------------------------------------------------------------ AWS MSK IAM

IAM = "sasl.mechanisms=AWS_MSK_IAM"


def test_msk_iam_is_tls_with_tokens_for_the_region_in_the_servers_name() -> None:
    options = of(f"kafka://{MSK}/t?{IAM}")
    assert options.aws_region == "eu-central-1"
    assert options.options == {"sasl.mechanisms": "OAUTHBEARER", "security.protocol": "SASL_SSL"}


def test_the_region_may_be_said_or_come_from_the_environment() -> None:
    environment = {"AWS_DEFAULT_REGION": "eu-west-3"}
    assert of(f"kafka://h/t?{IAM}", environment).aws_region == "eu-west-3"
    assert of(f"kafka://h/t?{IAM}&aws_region=eu-west-1", environment).aws_region == "eu-west-1"
    serverless = "boot-x.c1.kafka-serverless.us-east-1.amazonaws.com:9098"
    assert of(f"kafka://{serverless}/t?sasl.mechanism=AWS_MSK_IAM").aws_region == "us-east-1"
    with pytest.raises(UsageError, match="add aws_region=REGION, or set AWS_REGION"):
        of(f"kafka://h/t?{IAM}")


def test_tokens_are_signed_again_before_they_expire() -> None:
    """By a thread of the client's own: a producer that is not used goes on too."""
    signed = threading.Semaphore(0)
    regions = []

    def sign(region: str) -> tuple[str, int]:
        regions.append(region)
        signed.release()
        return f"token-{len(regions)}", time.time_ns() // 1_000_000 + 1_500

    options = parse(f"kafka://{NOBODY}/t?{IAM}&aws_region=eu-central-1", {})
    _producer, _ = Clients(options, sign).producer()
    for _ in range(3):
        assert signed.acquire(timeout=20)
    assert set(regions) == {"eu-central-1"}


def test_a_token_that_can_not_be_signed_is_said_with_the_reason() -> None:
    def sign(_region: str) -> tuple[str, int]:
        raise RuntimeError("no credentials in the chain")

    options = parse(f"kafka://{NOBODY}/t?{IAM}&aws_region=eu-central-1", {})
    with pytest.raises(BrokerError, match="no credentials in the chain; check the AWS"):
        KafkaBroker(options, sign).__enter__()


def test_the_signer_is_that_of_amazon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its token is a signed URL of this region, for the credentials of this process."""
    import base64

    pytest.importorskip("aws_msk_iam_sasl_signer")
    from climatestream.brokers.kafka_iam import signer

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not a real one")
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    token, expires_ms = signer()("eu-central-1")
    url = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode()
    assert "kafka.eu-central-1.amazonaws.com" in url
    assert "AKIDEXAMPLE" in url
    assert expires_ms > time.time_ns() // 1_000_000


def test_a_missing_signer_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "aws_msk_iam_sasl_signer", None)
    with pytest.raises(UsageError, match="pip install aws-msk-iam-sasl-signer-python"):
        open_broker(f"kafka://{MSK}/t?{IAM}")


# --------------------------------------------------------------------- errors, without a broker


def test_a_broker_that_is_down_is_one_sentence_and_nothing_else(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(BrokerUnavailable) as caught:
        open_broker(f"kafka://{NOBODY}/t").__enter__()
    assert str(caught.value).startswith(
        f"no broker of {NOBODY} answers"
    )  # and why, where it is known by then
    todo = "; check the address and the security options, or start the broker"
    assert str(caught.value).endswith(todo)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_what_librdkafka_logs_is_python_logging(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "climatestream.kafka")
    with pytest.raises(BrokerUnavailable):
        open_broker(f"kafka://{NOBODY}/t").__enter__()
    assert any(record.name == "climatestream.kafka" for record in caplog.records)


Make = Callable[[int], KafkaError]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (KafkaError._TRANSPORT, BrokerUnavailable),
        (KafkaError._TIMED_OUT, BrokerUnavailable),
        (KafkaError._ALL_BROKERS_DOWN, BrokerUnavailable),
        (KafkaError.COORDINATOR_NOT_AVAILABLE, BrokerUnavailable),
        (KafkaError.NOT_LEADER_FOR_PARTITION, BrokerUnavailable),
        (KafkaError.NOT_ENOUGH_REPLICAS, BrokerUnavailable),
        (KafkaError.REBALANCE_IN_PROGRESS, BrokerUnavailable),
        (KafkaError._AUTHENTICATION, BrokerError),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, BrokerError),
        (KafkaError.GROUP_AUTHORIZATION_FAILED, BrokerError),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, BrokerError),
        (KafkaError.MSG_SIZE_TOO_LARGE, BrokerError),
        (KafkaError.UNSUPPORTED_VERSION, BrokerError),
    ],
)
def test_an_error_is_transient_or_permanent_by_its_code(code: int, kind: type[Exception]) -> None:
    assert type(translate(KafkaError(code), "no answer")) is kind


def test_a_fatal_error_is_permanent_whatever_its_code() -> None:
    fatal = KafkaError(KafkaError._TRANSPORT, "fenced", True)
    assert isinstance(translate(fatal, "no answer"), BrokerError)
    events = Events("h:9092")
    events(fatal)
    events.clear()
    assert isinstance(events.trouble(), BrokerError)


def test_a_refused_login_is_permanent_though_connections_go_on_failing() -> None:
    events = Events("h:9092")
    events(KafkaError(KafkaError._AUTHENTICATION, "h:9092/1: SASL authentication failed"))
    events(KafkaError(KafkaError._TRANSPORT, "h:9092/1: Disconnected"))
    events(KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"))
    trouble = events.trouble()
    assert isinstance(trouble, BrokerError)
    assert "does not let us in: SASL authentication failed" in str(trouble)

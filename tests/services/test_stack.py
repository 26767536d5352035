"""The stack as plain processes: each container's command with its environment.

Only addresses and folders are others: this machine's, on free ports. Kafka is configured by the
program that its image runs, from the environment of deploy/compose.yaml. Grafana's container is
left out; what `grafana-files` writes for it is looked at.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import httpx
import pytest
from dotenv import dotenv_values
from scripts import make_lambda, stack_check, stack_env

from tests.services import crate, kafka
from tests.services.kafka_server import why_not
from tests.test_stack import DEPLOY, SERVICES

HOST = "127.0.0.1"
PORTS = ("internal", "external", "controller", "page", "metrics")
CLASSES = {
    "kafka-topics.sh": "org.apache.kafka.tools.TopicCommand",
    "kafka-broker-api-versions.sh": "org.apache.kafka.tools.BrokerApiVersionsCommand",
}
"""What the scripts of Kafka's image start."""
DYING_WITH_US = crate._DYING_WITH_US


@dataclass
class Stack:
    """What runs, and where.

    Parameters
    ----------
    folder
        Of everything that is written.
    settings
        deploy/.env, as `make stack` makes it, with ports of this test.
    """

    folder: Path
    settings: dict[str, str]
    ports: dict[str, int]
    database: crate.Node
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    # ------------------------------------------------------------------- as Compose does it

    def text(self, text: str) -> str:
        """A word of compose.yaml with variables filled in, and addresses of this machine."""
        filled = re.sub(
            r"\$\{(\w+)(?::?[-?]([^}]*))?\}",
            lambda found: self.settings.get(found[1]) or found[2] or "",
            text,
        )
        for there, here in (
            ("kafka:19092", f"{HOST}:{self.ports['internal']}"),
            (":19092", f":{self.ports['internal']}"),
            ("kafka:29093", f"{HOST}:{self.ports['controller']}"),
            (":29093", f":{self.ports['controller']}"),
            ("EXTERNAL://:9092", f"EXTERNAL://:{self.ports['external']}"),
            ("://:", f"://{HOST}:"),
            ("/var/lib/kafka/data", str(self.folder / "kafka")),
            ("cratedb:4200", f"{HOST}:{self.database.address.port}"),
            (f"{HOST}:4200", f"{HOST}:{self.database.address.port}"),
            ("9464", str(self.ports["metrics"])),
            ("/grafana", f"{self.folder}/grafana"),
            ("/event-source.yaml", str(DEPLOY / "event-source.yaml")),
            ("/opt/climatestream/", f"{self.folder}/"),
            ("0.0.0.0", HOST),  # noqa: S104 - what the container listens on, and we do not
        ):
            filled = filled.replace(there, here)
        return filled

    def environment(self, name: str) -> dict[str, str]:
        kept = {key: os.environ[key] for key in ("PATH", "HOME", "JAVA_HOME") if key in os.environ}
        own = SERVICES[name].get("environment", {})
        return kept | {key: self.text(str(value)) for key, value in own.items()}

    def command(self, name: str) -> list[str]:
        words = [self.text(word) for word in SERVICES[name]["command"]]
        if "build" in SERVICES[name]:
            return [sys.executable, "-m", "climatestream", *words]
        return self.script(words, self.environment(name)["KAFKA_HEAP_OPTS"])

    def script(self, words: list[str], heap: str) -> list[str]:
        """A script of Kafka's image, as the Java program that it starts."""
        program, *arguments = words
        return self.java(heap, CLASSES[Path(program).name], *arguments)

    def java(self, heap: str, *command: str) -> list[str]:
        jars = f"{kafka.resolve_jars()}:{kafka.resolve_jars('kafka-tools')}"
        *_, most = heap.split("-Xmx")
        return kafka.java(jars, most, *command)

    # --------------------------------------------------------------------------- processes

    def run(self, name: str) -> str:
        """Run what ends by itself; what it said."""
        ended = subprocess.run(
            self.command(name),
            cwd=self.folder,
            env=self.environment(name),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert ended.returncode == 0, f"{name}: {ended.stdout}\n{ended.stderr}"
        return ended.stdout

    def start(self, name: str, command: list[str] | None = None) -> None:
        """Start what runs on."""
        with (self.folder / f"{name}.txt").open("ab") as output:
            self.running[name] = subprocess.Popen(
                [*DYING_WITH_US, *(command or self.command(name))],
                cwd=self.folder,
                env=self.environment(name),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def stop(self, name: str) -> int:
        """End it as Docker does: SIGTERM, and SIGKILL after its time of grace."""
        process = self.running.pop(name)
        process.send_signal(signal.SIGTERM)
        grace = float(SERVICES[name].get("stop_grace_period", "10s").removesuffix("s"))
        return process.wait(grace)

    def kill(self) -> None:
        for process in self.running.values():
            process.kill()
            process.wait()

    def healthy(self, name: str, within_s: float = 60.0) -> None:
        """Ask its own health check until that is content."""
        check = SERVICES[name]["healthcheck"]["test"]
        words = [self.text(word) for word in check[1:]]
        if check[0] == "CMD-SHELL" and "/opt/kafka/" in words[0]:
            heap, *script = words[0].split()
            words = self.script(script, heap)
        elif check[0] == "CMD-SHELL":
            words = ["sh", "-c", words[0]]
        elif words[0] == "python":
            words[0] = sys.executable
        end = time.monotonic() + within_s
        while True:
            asked = subprocess.run(
                words, env=self.environment(name), capture_output=True, check=False, timeout=60
            )
            if asked.returncode == 0:
                return
            process = self.running.get(name)
            said = self.said(name) + asked.stderr.decode()
            assert process is None or process.poll() is None, f"{name} ended: {said}"
            assert time.monotonic() < end, f"{name} is not healthy: {said}"
            time.sleep(0.3)

    def said(self, name: str) -> str:
        path = self.folder / f"{name}.txt"
        return path.read_text(errors="replace")[-3000:] if path.exists() else ""

    # --------------------------------------------------------------------------- questions

    def count(self, where: str = "1 = 1") -> int:
        self.database.sql("REFRESH TABLE demo.climate_data")
        rows = self.database.sql(f"SELECT count(*) FROM demo.climate_data WHERE {where}")["rows"]
        number: int = rows[0][0]
        return number

    def wait_for(self, wanted: int, where: str = "1 = 1", within_s: float = 60.0) -> None:
        """Until so many readings are stored."""
        end = time.monotonic() + within_s
        while self.count(where) < wanted:
            assert time.monotonic() < end, {name: self.said(name) for name in self.running}
            time.sleep(0.3)

    def findings(self) -> dict[str, str]:
        """What `make stack-check` says of the page, doctor and audit."""
        patience = stack_check.Patience(30.0)
        found = stack_check.findings(self.settings, patience, datetime.now(UTC), self.folder)
        return {finding.name: finding.wrong for finding in islice(found, 3)}


@contextmanager
def cratedb() -> Iterator[crate.Node]:
    """As its container is started."""
    words = SERVICES["cratedb"]["command"]
    options = dict(word.removeprefix("-C").split("=", 1) for word in words if word != "crate")
    # a full disk of the machine that runs tests is none of theirs
    options["cluster.routing.allocation.disk.threshold_enabled"] = "false"
    with crate.own(options, SERVICES["cratedb"]["environment"]["CRATE_HEAP_SIZE"]) as node:
        yield node


def start_kafka(stack: Stack) -> None:
    """As its image does it: settings from the environment, storage formatted, then the broker."""
    configured = stack.folder / "kafka-config"
    for name in ("default", "mounted", "final"):
        (configured / name).mkdir(parents=True)
    folders = [
        word
        for name in ("default", "mounted", "final")
        for word in (f"--{name}-configs-dir", str(configured / name))
    ]
    heap = stack.environment("kafka")["KAFKA_HEAP_OPTS"]
    subprocess.run(
        stack.java("-Xmx128m", "kafka.docker.KafkaDockerWrapper", "setup", *folders),
        env=stack.environment("kafka"),
        check=True,
        capture_output=True,
        timeout=60,
    )
    stack.start(
        "kafka", stack.java(heap, "kafka.Kafka", str(configured / "final/server.properties"))
    )


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """All of it, started in the order that compose.yaml gives."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with ExitStack() as stacked:
        folder = Path(stacked.enter_context(tempfile.TemporaryDirectory(prefix="climatestream-")))
        first = kafka.free_ports(len(PORTS))
        ports = {name: first + number for number, name in enumerate(PORTS)}
        (folder / ".env.example").write_text((DEPLOY / ".env.example").read_text())
        stack_env.make(folder)
        settings = {name: value or "" for name, value in dotenv_values(folder / ".env").items()}
        (folder / ".env").unlink()  # the commands run here, and containers have none
        node = stacked.enter_context(cratedb())
        settings |= {
            "KAFKA_PORT": str(ports["external"]),
            "CRATEDB_PORT": str(node.address.port),
            "PAGE_PORT": str(ports["page"]),
        }
        stack = Stack(folder, settings, ports, node)
        stacked.callback(stack.kill)
        start_kafka(stack)
        stack.healthy("cratedb")
        stack.run("tables")
        stack.healthy("kafka")
        stack.run("topic")
        stack.run("grafana-files")
        for name in ("producer", "worker", "page"):
            stack.start(name)
        stack.healthy("worker")
        stack.healthy("page")
        yield stack


def test_readings_go_from_the_producer_to_the_store(stack: Stack) -> None:
    stack.wait_for(4_000)
    assert stack.count("dataset = 'simulation' AND country = 'DEU'") >= 4_000


def test_the_check_finds_page_doctor_and_audit_right(stack: Stack) -> None:
    stack.wait_for(1)
    assert stack.findings() == {"page": "", "doctor": "", "audit": ""}


def test_the_page_wants_the_token_that_it_prints(stack: Stack) -> None:
    [url] = re.findall(r"^The page is at (\S+)$", stack.said("page"), re.MULTILINE)
    assert f":{stack.ports['page']}/?token=" in url or url.endswith(f":{stack.ports['page']}")
    with httpx.Client(follow_redirects=True, timeout=10) as client:
        assert "<canvas" in client.get(url).text
    assert httpx.get(f"http://{HOST}:{stack.ports['page']}/").status_code in (200, 401)


def test_the_alerts_have_the_limits_of_the_environment(stack: Stack) -> None:
    made = stack.folder / "grafana/provisioning/alerting"
    assert sorted(p.name for p in made.iterdir()) == [
        "contact-points.json",
        "policies.json",
        "rules.json",
    ]
    assert len(list((stack.folder / "grafana/boards").iterdir())) == 4
    groups = json.loads((made / "rules.json").read_text())["groups"]
    assert {group["name"] for group in groups} == {"weather", "pipeline"}


@pytest.mark.parametrize(
    ("user", "password"),
    [("reader", ""), ("writer", "guess"), ("admin", "admin"), ("reader", "reader")],
)
def test_no_password_that_everybody_knows_lets_anybody_in(
    stack: Stack, user: str, password: str
) -> None:
    assert _sql(stack, (user, password), "SELECT 1").status_code == 401


def test_the_reader_reads_and_does_not_write(stack: Stack) -> None:
    reader, writer = (
        (user, stack.settings[f"CLIMATESTREAM_{user.upper()}_PASSWORD"])
        for user in ("reader", "writer")
    )
    insert = "INSERT INTO demo.places (name, country, latitude, longitude) VALUES ('a', 'b', 1, 2)"
    assert _sql(stack, reader, "SELECT count(*) FROM demo.climate_data").status_code == 200
    assert _sql(stack, reader, insert).status_code == 401
    assert _sql(stack, writer, insert).status_code == 200
    assert _sql(stack, writer, "DROP TABLE demo.places").status_code == 401


def _sql(stack: Stack, user: tuple[str, str], statement: str) -> httpx.Response:
    address = stack.database.address
    url = f"http://{address.host}:{address.port}/_sql"
    return httpx.post(url, json={"stmt": statement}, auth=user, timeout=10)


def test_tables_and_topic_made_again_change_nothing(stack: Stack) -> None:
    """As after every restart of the machine."""
    before = stack.count()
    assert "made: nothing" in stack.run("tables")
    stack.run("topic")
    assert stack.count() >= before


def test_the_function_goes_on_where_the_worker_stopped(stack: Stack) -> None:
    """The profile `lambda`: the same group, the zip as it is deployed."""
    assert stack.stop("worker") == 130
    zip_ = make_lambda.make(
        make_lambda.TARGETS["local"], stack.folder, kafka.CACHE.parent / "lambda-wheels"
    )
    assert zip_.name in " ".join(SERVICES["lambda"]["command"])
    since = f"published_at > {time.time_ns() // 1_000_000}"
    stack.start("lambda")
    stack.wait_for(4_000, since)
    assert stack.stop("producer") == 130
    assert stack.stop("lambda") == 130
    assert stack.findings()["audit"] == ""


def test_the_page_ends_in_its_time(stack: Stack) -> None:
    assert stack.stop("page") == 130

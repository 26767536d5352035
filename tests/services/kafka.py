"""Run a real Apache Kafka broker on this machine, for tests, benchmarks and demos.

As `python -m tests.services.kafka`:

    start                          one broker on 127.0.0.1:9092
    start --dir D --port 0         one broker of its own folder, on a free port
    start --dir D --brokers 3      three brokers on three ports, replication 3
    status --dir D                 exit code 0: answers, 3: does not
    stop --dir D                   orderly end, data kept (--kill: end as in a crash)

`start` prints the bootstrap address, and nothing else, on standard output once every
broker answers. Started twice, it finds the brokers up and prints the address again.
After `stop`, or after a crash, `start` on the same folder serves the data it left there,
with the port and the number of brokers it had before.

Each broker is broker and controller in one (KRaft, no ZooKeeper), runs with a heap of
512 MB, listens on 127.0.0.1 only and creates no topic by itself. The jars come from Maven
Central once, into the cache folder: KAFKA_LOCAL_CACHE, or ~/.cache/kafka-local. Needs
Java 17, Maven and Python 3.11, nothing beyond the standard library.

    DIR/cluster.json             the address, the number of brokers, the cluster id
    DIR/broker-N/pid             process id
    DIR/broker-N/broker.log      what the broker says
    DIR/broker-N/data            the records; delete DIR to begin anew
"""

from __future__ import annotations

import argparse
import base64
import fcntl
import json
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

KAFKA_VERSION = "4.4.0"
SLF4J_VERSION = "1.7.36"  # the line of slf4j-api that Kafka itself depends on
COPY_JARS = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"

CACHE = Path(os.environ.get("KAFKA_LOCAL_CACHE", "~/.cache/kafka-local")).expanduser()
# Kafka's classes as Java has them in memory, kept from the first orderly end of a broker:
# a broker that maps this file starts with half the work.
ARCHIVE = CACHE / f"classes-{KAFKA_VERSION}.jsa"
HOST = "127.0.0.1"
DEFAULT_PORT = 9092
START_TIMEOUT_S = 180.0  # 2 to 17 s were measured, by how busy the machine was
STOP_TIMEOUT_S = 60.0  # then SIGKILL: a controller without its majority can wait for ever

POM = """\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>local</groupId>
  <artifactId>kafka-local</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>{artifact}</artifactId>
      <version>{kafka_version}</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId>
      <artifactId>slf4j-simple</artifactId>
      <version>{slf4j_version}</version>
    </dependency>
  </dependencies>
</project>
"""

PROPERTIES = """\
process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners=PLAINTEXT://{host}:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
log.dirs={data}

auto.create.topics.enable=false
num.partitions={partitions}
default.replication.factor={replication}
min.insync.replicas={in_sync}

# The internal topics: as many copies as there are brokers for, and a handful of
# partitions instead of 50, so that the first consumer group does not wait for them.
offsets.topic.replication.factor={replication}
offsets.topic.num.partitions=4
transaction.state.log.replication.factor={replication}
transaction.state.log.min.isr={in_sync}
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor={replication}
share.coordinator.state.topic.min.isr={in_sync}
share.coordinator.state.topic.num.partitions=4
group.initial.rebalance.delay.ms=0

# 128 MB by default, a quarter of the heap, for topics with few keys.
log.cleaner.dedupe.buffer.size=8388608
"""


class FailedError(Exception):
    """A sentence for the person at the terminal."""


class Broker:
    """One broker of the cluster in a folder."""

    def __init__(self, directory: Path, port: int, controller_port: int) -> None:
        self.directory = directory
        self.port = port
        self.controller_port = controller_port
        self.properties = directory / "server.properties"
        self.log = directory / "broker.log"
        self.data = directory / "data"
        self.pid_file = directory / "pid"
        self.archive = directory / "classes.jsa"

    def pid(self) -> int | None:
        """The id of the live process, None without one.

        A pid file left by a crash may name a stranger by now; where /proc exists, the
        command line has to name this broker's own properties file.
        """
        try:
            pid = int(self.pid_file.read_text())
            os.kill(pid, 0)
        except (FileNotFoundError, ValueError, ProcessLookupError, PermissionError):
            return None
        command = Path(f"/proc/{pid}/cmdline")
        if Path("/proc/self/cmdline").exists():
            try:
                ours = os.fsencode(self.properties) in command.read_bytes().split(b"\0")
            except (FileNotFoundError, ProcessLookupError):
                return None
            return pid if ours else None
        return pid

    def send(self, number: signal.Signals) -> None:
        pid = self.pid()
        if pid:
            with suppress(ProcessLookupError):  # it may have ended since
                os.kill(pid, number)

    def known_brokers(self) -> int:
        """How many registered brokers this one reports, 0 if it does not answer.

        One Metadata request (key 3, version 4: no topics, create none), by hand.
        """
        body = struct.pack(">hhihi?", 3, 4, 1, -1, 0, False)
        try:
            with socket.create_connection((HOST, self.port), timeout=5) as connection:
                connection.sendall(struct.pack(">i", len(body)) + body)
                with connection.makefile("rb") as stream:
                    (length,) = struct.unpack(">i", stream.read(4))
                    answer = stream.read(length)
            _correlation_id, _throttle_ms, brokers = struct.unpack_from(">iii", answer)
        except (OSError, struct.error):
            return 0
        return int(brokers)

    def last_words(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join([f"{self.log} ends with", *lines[-15:]])


class Cluster:
    """The brokers of one folder, and the facts that outlive their processes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.file = directory / "cluster.json"
        try:
            self.facts: dict[str, str | int] = json.loads(self.file.read_text())
        except FileNotFoundError:
            self.facts = {}

    def configure(self, port: int | None, brokers: int | None, partitions: int | None) -> None:
        """Settle the facts: what is asked for, else what was, else the default."""
        old = self.facts
        count = brokers or int(old.get("brokers", 1))
        if old and count != old["brokers"]:
            raise FailedError(
                f"{self.directory} holds the data of {old['brokers']} broker(s), not {count}: "
                "give another --dir"
            )
        if port is None:
            port = int(old.get("port", DEFAULT_PORT))
        elif port == 0:
            port = int(old.get("port", 0)) or free_ports(2 * count)
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        self.facts = {
            "port": port,
            "brokers": count,
            "partitions": partitions or int(old.get("partitions", 1)),
            "cluster_id": old.get("cluster_id", cluster_id),
        }
        if old and old != self.facts and any(broker.pid() for broker in self.brokers()):
            raise FailedError(f"{self.directory} runs with {old}: 'stop' it before changing that")
        for broker in self.brokers():
            for its_port in (broker.port, broker.controller_port):
                if not broker.pid() and taken(its_port):
                    raise FailedError(
                        f"{HOST}:{its_port} is in use by another program: "
                        "give another --port, or --port 0"
                    )
        self.file.write_text(json.dumps(self.facts, indent=2) + "\n")

    def brokers(self) -> list[Broker]:
        count, port = int(self.facts.get("brokers", 0)), int(self.facts.get("port", 0))
        return [
            Broker(self.directory / f"broker-{i + 1}", port + i, port + count + i)
            for i in range(count)
        ]

    def bootstrap(self) -> str:
        return ",".join(f"{HOST}:{broker.port}" for broker in self.brokers())

    def answers(self) -> bool:
        """Whether every broker of the folder is alive and sees all the others."""
        brokers = self.brokers()
        return bool(brokers) and all(
            broker.pid() and broker.known_brokers() == len(brokers) for broker in brokers
        )

    def launch(self, classpath: str, heap: str, extra: str) -> list[subprocess.Popen[bytes]]:
        """Write each missing broker's settings, prepare its folder, start its process."""
        launched = []
        brokers = self.brokers()
        count = len(brokers)
        voters = ",".join(f"{i}@{HOST}:{b.controller_port}" for i, b in enumerate(brokers, 1))
        for node, broker in enumerate(brokers, 1):
            if broker.pid():
                continue
            broker.directory.mkdir(parents=True, exist_ok=True)
            broker.properties.write_text(
                PROPERTIES.format(
                    node=node,
                    voters=voters,
                    host=HOST,
                    port=broker.port,
                    controller_port=broker.controller_port,
                    data=broker.data,
                    partitions=self.facts["partitions"],
                    replication=min(3, count),
                    in_sync=2 if count >= 3 else 1,
                )
                + extra.replace("{port}", str(broker.port))
            )
            with broker.log.open("ab") as log:
                if not (broker.data / "meta.properties").exists():
                    formatted = subprocess.run(
                        java(
                            classpath,
                            "128m",
                            "kafka.tools.StorageTool",
                            "format",
                            # With "=", since a cluster id may begin with a dash.
                            f"--cluster-id={self.facts['cluster_id']}",
                            f"--config={broker.properties}",
                        ),
                        stdout=log,
                        stderr=log,
                        check=False,
                    )
                    if formatted.returncode:
                        raise FailedError(broker.last_words())
                if ARCHIVE.exists():
                    archive = f"-XX:SharedArchiveFile={ARCHIVE}"
                else:
                    archive = f"-XX:ArchiveClassesAtExit={broker.archive}"
                process = subprocess.Popen(
                    java(classpath, heap, archive, "kafka.Kafka", str(broker.properties)),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            broker.pid_file.write_text(f"{process.pid}\n")
            launched.append(process)
        return launched

    def wait(self, launched: list[subprocess.Popen[bytes]]) -> None:
        """Return when the cluster answers; fail when a process ends or time runs out."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.answers():
            ended = any(process.poll() is not None for process in launched)
            if ended or time.monotonic() > deadline:
                why = "a broker ended" if ended else f"no answer in {START_TIMEOUT_S:.0f} s"
                raise FailedError(
                    "\n".join([why, *(broker.last_words() for broker in self.brokers())])
                )
            time.sleep(0.1)


def java(classpath: str, heap: str, *command: str) -> list[str]:
    home = os.environ.get("JAVA_HOME")
    program = str(Path(home, "bin", "java")) if home else shutil.which("java")
    if program is None:
        raise FailedError("no Java found: install Java 17 or set JAVA_HOME")
    return [
        program,
        f"-Xmx{heap}",
        "-XX:+UseG1GC",
        "-XX:MaxGCPauseMillis=20",
        "-Xlog:cds=off",
        "-Xlog:cds+dynamic=off",
        "-Djava.awt.headless=true",
        "-Djava.net.preferIPv4Stack=true",
        # Kafka prints every setting, a dozen times over; server.properties holds ours.
        "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.config.AbstractConfig=warn",
        "-Dorg.slf4j.simpleLogger.showDateTime=true",
        "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS",
        "-cp",
        classpath,
        *command,
    ]


def taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
        return False


def free_ports(count: int) -> int:
    """The first of `count` neighbouring free ports.

    Below the range from which systems number outgoing connections, so that the ports are
    still free when a stopped broker comes back.
    """
    for _ in range(100):
        first = random.randrange(20_000, 32_000)
        if not any(taken(first + i) for i in range(count)):
            return first
    raise FailedError(f"no {count} neighbouring free ports on {HOST}")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the folder's lock: two commands at once do their work one after the other."""
    path.mkdir(parents=True, exist_ok=True)
    with (path / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def resolve_jars(artifact: str = "kafka_2.13") -> str:
    """The class path of the broker; on first use Maven fetches the jars into the cache.

    `kafka-tools` is that of Kafka's own benchmarks.
    """
    kind = "jars" if artifact == "kafka_2.13" else artifact
    jars = CACHE / f"{kind}-{KAFKA_VERSION}"
    with locked(CACHE):
        if not jars.exists():
            maven = shutil.which("mvn")
            if maven is None:
                raise FailedError("no Maven found: install it (Debian: apt-get install maven)")
            pom, partial = CACHE / "pom.xml", CACHE / "jars.partial"
            pom.write_text(
                POM.format(
                    artifact=artifact, kafka_version=KAFKA_VERSION, slf4j_version=SLF4J_VERSION
                )
            )
            shutil.rmtree(partial, ignore_errors=True)
            print(f"fetching Kafka {KAFKA_VERSION} into {jars}", file=sys.stderr)
            fetched = subprocess.run(
                [maven, "-B", "-q", "-f", str(pom), COPY_JARS, f"-DoutputDirectory={partial}"],
                stdout=sys.stderr,
                check=False,
            )
            if fetched.returncode:
                raise FailedError(
                    f"Maven could not fetch Kafka {KAFKA_VERSION}; its reason is above"
                )
            partial.rename(jars)
    return str(jars / "*")


def start(arguments: argparse.Namespace) -> int:
    cluster_dir = directory_of(arguments)
    classpath = resolve_jars()
    with locked(cluster_dir):
        cluster = Cluster(cluster_dir)
        cluster.configure(arguments.port, arguments.brokers, arguments.partitions)
        if not cluster.answers():
            extra = Path(arguments.properties).read_text() if arguments.properties else ""
            cluster.wait(cluster.launch(classpath, arguments.heap, extra))
    print(cluster.bootstrap())
    return 0


def stop(arguments: argparse.Namespace) -> int:
    cluster_dir = directory_of(arguments)
    if not cluster_dir.exists():
        return 0
    with locked(cluster_dir):
        brokers = [broker for broker in Cluster(cluster_dir).brokers() if broker.pid()]
        for broker in brokers:
            broker.send(signal.SIGKILL if arguments.kill else signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for broker in brokers:
            while broker.pid():
                if time.monotonic() > deadline:
                    broker.send(signal.SIGKILL)
                time.sleep(0.05)
            broker.pid_file.unlink(missing_ok=True)
            if broker.archive.exists():
                shutil.move(broker.archive, ARCHIVE)
    return 0


def status(arguments: argparse.Namespace) -> int:
    cluster = Cluster(directory_of(arguments))
    for broker in cluster.brokers():
        pid = broker.pid()
        state = f"pid {pid}" if pid else "not running"
        print(f"{HOST}:{broker.port}  {state}  {broker.log}")
    up = cluster.answers()
    print("answers" if up else "does not answer", f"(Kafka {KAFKA_VERSION}, {cluster.directory})")
    return 0 if up else 3


def directory_of(arguments: argparse.Namespace) -> Path:
    return Path(arguments.dir or CACHE / "default").expanduser().resolve()


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.services.kafka",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--dir", help="the folder of this cluster (default: CACHE/default)")

    start_ = commands.add_parser("start", parents=[common], help="start, wait, print the address")
    start_.add_argument("--port", type=int, help=f"first port, 0: a free one ({DEFAULT_PORT})")
    start_.add_argument("--brokers", type=int, choices=[1, 3], help="how many brokers (1)")
    start_.add_argument("--partitions", type=int, help="of a topic created without a number (1)")
    start_.add_argument(
        "--properties", help="a file of settings over ours; {port} in it is the broker's port"
    )
    start_.add_argument("--heap", default="512m", help="of each broker (%(default)s)")
    start_.set_defaults(run=start)

    stop_ = commands.add_parser("stop", parents=[common], help="stop, keep the data")
    stop_.add_argument("--kill", action="store_true", help="SIGKILL: a crash, for tests")
    stop_.set_defaults(run=stop)

    status_ = commands.add_parser("status", parents=[common], help="say what runs where")
    status_.set_defaults(run=status)

    arguments = parser.parse_args()
    try:
        return int(arguments.run(arguments))
    except FailedError as failure:
        print(f"kafka: {failure}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())

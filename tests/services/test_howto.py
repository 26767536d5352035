"""The how-to of Kafka and CrateDB does what it says."""

from __future__ import annotations

from pathlib import Path

from tests import howto
from tests.services.crate import Server
from tests.services.kafka import free_ports
from tests.services.kafka_server import Kafka, new_topic

PAGE = Path(__file__).resolve().parents[2] / "docs" / "kafka-to-cratedb.md"
SCHEMA = "climatestream_test_howto"


def test_every_command_does_what_the_page_says(
    kafka: Kafka, cratedb: Server, tmp_path: Path
) -> None:
    """On the servers of the tests, in a topic and a schema of its own."""
    replacing = {
        "127.0.0.1:9092": kafka.servers,
        "127.0.0.1:4200/demo": f"{cratedb.address.server}/{SCHEMA}",
        "127.0.0.1:9464": f"127.0.0.1:{(port := free_ports(1))}",
        "--metrics-port 9464": f"--metrics-port {port}",
        "demo.climate_data": f"{SCHEMA}.climate_data",
        "era5": new_topic(),
        "climate_writer": "climatestream_test_howto_writer",
        "climate_reader": "climatestream_test_howto_reader",
    }
    howto.run(PAGE, tmp_path, replacing)

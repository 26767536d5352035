"""A broker's name as it is typed, as a broker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from climatestream.brokers.kafka_options import parse
from climatestream.errors import UsageError

if TYPE_CHECKING:
    from climatestream.brokers.kafka import KafkaBroker


def open_broker(spec: str) -> KafkaBroker:
    """The broker of a URL such as `kafka://localhost:9092/readings`, not yet opened.

    Raises
    ------
    UsageError
        The URL is of no broker that is known, or the package that it needs is not installed.
    """
    options = parse(spec)
    try:
        from climatestream.brokers.kafka import KafkaBroker
    except ModuleNotFoundError as error:
        if error.name != "confluent_kafka":
            raise
        raise UsageError(
            "Kafka needs a package that is not installed: pip install confluent-kafka"
        ) from error
    return KafkaBroker(options)

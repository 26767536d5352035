"""The Kafka broker against a real server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from climatestream.brokers.kafka import KafkaBroker
from climatestream.brokers.kafka_admin import TopicSettings
from climatestream.brokers.open import open_broker
from climatestream.testing.brokers import BrokerTests
from tests.services.kafka_server import Kafka, new_topic

QUICK = {"session_timeout_ms": 6_000, "heartbeat_interval_ms": 200, "fetch_wait_max_ms": 20}
"""Members that notice within a blink that others come and go."""


class TestKafkaBroker(BrokerTests):
    """`kafka://` keeps the promises of a broker."""

    patience_s = 30.0
    quiet_s = 0.3

    @pytest.fixture
    def broker(self, kafka: Kafka) -> Iterator[KafkaBroker]:
        with open_broker(kafka.url(new_topic(), **QUICK)) as broker:
            assert broker.ensure_topic(TopicSettings(partitions=3)) == []
            yield broker

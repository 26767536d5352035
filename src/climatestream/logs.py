"""Log lines on standard error: text for people, JSON for machines."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Final, Literal

import orjson

LogFormat = Literal["text", "json"]

LOGGER: Final = logging.getLogger("climatestream")
CLIENT: Final = "climatestream.kafka"
"""The logger of what the Kafka client says by itself: what matters of it is an error of a call."""

FIELDS: Final = "fields"
"""Where a record keeps what it says beside its message: `extra={FIELDS: {...}}`."""


class JsonFormatter(logging.Formatter):
    """A record as one JSON object: time, level, logger, message, and its fields."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        said = {
            "time": moment.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, FIELDS, {}),
        }
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(said, default=str).decode()


def configure(log_format: LogFormat) -> None:
    """Let the project's log lines go to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonFormatter() if log_format == "json" else logging.Formatter("%(message)s")
    )
    LOGGER.handlers = [handler]
    LOGGER.setLevel(logging.INFO if log_format == "json" else logging.WARNING)
    LOGGER.propagate = False
    logging.getLogger(CLIENT).setLevel(logging.INFO if log_format == "json" else logging.CRITICAL)

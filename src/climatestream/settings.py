"""Every setting in one table: name, environment variable, default, meaning.

A setting comes from the command's option, then from the environment, then from a file `.env` in
the current folder, then from its default. Importing this module reads none of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Setting:
    """A setting that commands share.

    Parameters
    ----------
    name
        As in the option: `--batch-rows`.
    default
        As it would be typed; None where there is none.
    meaning
        One sentence, with the unit; the help of the option.
    """

    name: str
    default: str | None
    meaning: str

    @property
    def environment(self) -> str:
        return "CLIMATESTREAM_" + self.name.upper().replace("-", "_")


SETTINGS: Final = (
    Setting(
        "store",
        "duckdb:climatestream.duckdb",
        "Where readings are kept: duckdb:FILE, or crate://user@host:port/schema.",
    ),
    Setting(
        "broker",
        None,
        "Where messages are: kafka://host:port/topic, or - for standard output (publish).",
    ),
    Setting(
        "group",
        "climatestream",
        "The consumer group whose offsets tell what is done.",
    ),
    Setting(
        "port",
        "8420",
        "Port of the page; where it is in use, the next free one is taken.",
    ),
    Setting(
        "host",
        "127.0.0.1",
        "Address of the page; beyond this machine it asks for the token in the printed address.",
    ),
    Setting(
        "batch-rows",
        None,
        "Readings handled at once; memory grows with it. Without it 50000, in consume 20000.",
    ),
    Setting(
        "duckdb-memory",
        "100MB",
        "Memory that DuckDB may use for itself (its memory_limit).",
    ),
    Setting(
        "dataset",
        None,
        "What a file, or a message that names no dataset, is: era5-land/daily-mean.",
    ),
    Setting(
        "region",
        None,
        "DEU, a box (west=5,south=47,east=15,north=55), a point (lat=50,lon=9), or GeoJSON.",
    ),
    Setting(
        "variables",
        None,
        "Variables, separated by commas: temperature,u10,v10,pressure.",
    ),
    Setting(
        "cache",
        None,
        "Folder of what services sent. Without it, the system's for what can be had again.",
    ),
    Setting(
        "cache-size",
        "20GB",
        "How much the cache holds at most; the longest unused goes first. 500MB, 20GB.",
    ),
    Setting(
        "keep",
        None,
        "How long readings are kept, by their own time: 15m, 12h, 30d. Without it, for ever.",
    ),
    Setting(
        "metrics-port",
        None,
        "Port on which Prometheus metrics are served. Without it, none are.",
    ),
    Setting(
        "metrics-host",
        "127.0.0.1",
        "Address on which metrics are served.",
    ),
    Setting(
        "map-tiles",
        None,
        "Map tiles below Grafana's maps: https://host/{z}/{x}/{y}.png. Without them, outlines.",
    ),
    Setting(
        "log-format",
        "text",
        "Log lines on standard error: text, or json.",
    ),
    Setting(
        "alert-heat",
        "30",
        "Temperature from which the heat alert fires [degC].",
    ),
    Setting(
        "alert-frost",
        "0",
        "Temperature below which the frost alert fires [degC].",
    ),
    Setting(
        "alert-storm",
        "20.8",
        "Wind speed from which the storm alert fires [m/s].",
    ),
    Setting(
        "alert-no-data",
        "10m",
        "Time without a new reading after which an alert fires.",
    ),
    Setting(
        "alert-lag",
        "50000",
        "Lag above which an alert fires [messages].",
    ),
    Setting(
        "alert-latency",
        "5s",
        "Event to stored, 95th percentile, above which an alert fires.",
    ),
    Setting(
        "alert-dead-letters",
        "0",
        "Dead letters of an hour above which an alert fires [messages].",
    ),
    Setting(
        "alert-email",
        None,
        "Whom Grafana writes to when an alert fires; it needs a mail server.",
    ),
    Setting(
        "alert-webhook",
        None,
        "Where Grafana posts alerts to, as JSON.",
    ),
)
BY_NAME: Final = {setting.name: setting for setting in SETTINGS}


@dataclass(frozen=True)
class Secret:
    """A secret, which no option takes: command lines are seen by others."""

    environment: str
    meaning: str


SECRETS: Final = (
    Secret(
        "CLIMATESTREAM_STORE_PASSWORD",
        "Password of the user in crate://user@host; or name a file with ?password_file=FILE.",
    ),
    Secret(
        "CLIMATESTREAM_KAFKA_PASSWORD",
        "Password of sasl.username in kafka://; or name a file with password_file=FILE.",
    ),
    Secret(
        "CLIMATESTREAM_KAFKA_KEY_PASSWORD",
        "Password of the key in ssl.key.location; or name a file with key_password_file=FILE.",
    ),
    Secret(
        "CLIMATESTREAM_WRITER_PASSWORD",
        "With which `store init --writer USER` makes the user.",
    ),
    Secret(
        "CLIMATESTREAM_READER_PASSWORD",
        "With which `store init --reader USER` makes the user.",
    ),
    Secret(
        "CDSAPI_KEY",
        "Key of the Climate Data Store; without it, the one in ~/.cdsapirc.",
    ),
    Secret(
        "EDH_API_KEY",
        "Key of Earth Data Hub; without it, the one in ~/.netrc.",
    ),
)

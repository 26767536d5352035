"""Alert rules of Grafana, its contact point and its notification policy.

A rule asks one question: a query whose text columns are labels and whose one number is the value,
compared with a limit. The query is CrateDB's SQL and runs on both stores, as a panel's does.

Limits are settings. Grafana reads environment variables in contact points, but not in the query
or the condition of a rule (https://github.com/grafana/grafana/issues/82774), so the limits are
written into the rules when the files are made: `climatestream dashboards build`.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import orjson
from grafana_foundation_sdk.builders import alerting as builders
from grafana_foundation_sdk.cog import variants
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import alerting as models

from climatestream import settings, units
from climatestream.dashboards.board_variables import DATASOURCE
from climatestream.dashboards.boards import CLIMATE, PIPELINE
from climatestream.dashboards.panels import COMPUTED, Panel
from climatestream.dashboards.visuals import Sql
from climatestream.errors import UsageError

EXPRESSION: Final = "__expr__"
"""Grafana's own data source of conditions."""
FOLDER: Final = "climatestream alerts"
"""Rules are provisioned before dashboards: another title than the folder of the boards, or Grafana
makes two folders of one name."""
ORGANISATION: Final = 1
CONTACT: Final = "climatestream"
NOBODY: Final = "operator@localhost"
"""Whom Grafana would write to where no one is named: it shows alerts, and its log says that it
has no mail server."""

Fires = Literal["gt", "gte", "lt"]
WORDS: Final[Mapping[Fires, str]] = {"gt": "above", "gte": "at or above", "lt": "below"}
COMPARE: Final[Mapping[Fires, Callable[[float, float], bool]]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
}


@dataclass(frozen=True)
class Alert:
    """One rule.

    Parameters
    ----------
    query
        Its words are `$from` and `$to`: the window that ends now.
    fires
        How the value lies to the limit when it does.
    limit
        The setting that holds the limit, in the unit of the query; or the limit.
    window
        The setting that holds the window, or the window [s].
    pending_s
        How long it must be so before anyone is told [s].
    silence
        What it means that the query gives no row.
    todo
        What to do about it.
    source, page
        Who says that the limit is one, and where; empty for limits of the pipeline.
    """

    query: Panel
    area: Literal["weather", "pipeline"]
    severity: Literal["warning", "critical"]
    fires: Fires
    limit: str | float
    window: str | int
    pending_s: int
    silence: Literal["OK", "Alerting"]
    todo: str
    source: str = ""
    page: str = ""

    @property
    def name(self) -> str:
        return self.query.name

    def is_over(self, value: float | None, limits: Mapping[str, float]) -> bool:
        """Whether the rule fires at this value, as Grafana's threshold expression compares."""
        return value is not None and COMPARE[self.fires](value, self.limit_of(limits))

    def limit_of(self, limits: Mapping[str, float]) -> float:
        """The limit [unit of the query]."""
        return limits[self.limit] if isinstance(self.limit, str) else self.limit

    def window_s(self, limits: Mapping[str, float]) -> int:
        """The window [s]."""
        return round(limits[self.window]) if isinstance(self.window, str) else self.window


LATEST_S: Final = 864_000.0
"""A weather alert is about readings of the ten days before they were published [s]: preliminary
ERA5-Land comes with a delay of about five days; the heat of an earlier year, loaded today, is no
news."""


def _weather(value: str) -> str:
    return f"""
SELECT dataset, coalesce(country, 'no country') AS country, {value} AS value
FROM demo.climate_data
WHERE published_at BETWEEN $from AND $to
  AND extract(epoch FROM published_at - "timestamp") <= {LATEST_S}
GROUP BY 1, 2 ORDER BY 1, 2
"""  # noqa: S608


WIND: Final = COMPUTED["wind_speed"].sql

ALERTS: Final = (
    Alert(
        Panel(
            "heat",
            "Climate",
            "Heat",
            "degC",
            "The highest temperature that was published in the last hour.",
            _weather("max(data['temperature'])"),
        ),
        area="weather",
        severity="warning",
        fires="gte",
        limit="alert-heat",
        window=3600,
        pending_s=0,
        silence="OK",
        todo="Open the Climate board: the map shows where. A daily mean is lower than a day's "
        "highest: MeteoSwiss warns from a daily mean of 25 degC "
        "(https://www.meteoswiss.admin.ch/weather/weather-and-climate-from-a-to-z/heat-warnings.html).",
        source="Environment and Climate Change Canada: a hot day reaches more than 30 degC",
        page="https://climate-scenarios.canada.ca/?page=climate-indices-definition",
    ),
    Alert(
        Panel(
            "frost",
            "Climate",
            "Frost",
            "degC",
            "The lowest temperature that was published in the last hour.",
            _weather("min(data['temperature'])"),
        ),
        area="weather",
        severity="warning",
        fires="lt",
        limit="alert-frost",
        window=3600,
        pending_s=0,
        silence="OK",
        todo="Open the Climate board: the map shows where.",
        source="WMO's Expert Team on Climate Change Detection and Indices, index FD: the lowest "
        "temperature of a frost day is below 0 degC",
        page="http://etccdi.pacificclimate.org/list_27_indices.shtml",
    ),
    Alert(
        Panel(
            "storm",
            "Climate",
            "Storm",
            "m/s",
            "The highest wind speed, 10 m above ground, that was published in the last hour. "
            "Reanalysis gives the wind of a whole cell: gusts are stronger.",
            _weather(f"max({WIND})"),
        ),
        area="weather",
        severity="critical",
        fires="gte",
        limit="alert-storm",
        window=3600,
        pending_s=0,
        silence="OK",
        todo="Open the Climate board: the map of wind speed shows where.",
        source="Deutscher Wetterdienst: a storm's mean wind is Beaufort 9, 41 knots or 20.8 m/s, "
        "and more",
        page="https://www.wettergefahren.de/warnungen/windwarnskala.html",
    ),
    Alert(
        Panel(
            "no-data",
            "Pipeline",
            "No data",
            "readings",
            "Readings that were published in the window and are stored.",
            """
SELECT count(*) AS value
FROM demo.climate_data
WHERE published_at BETWEEN $from AND $to
""",
        ),
        area="pipeline",
        severity="critical",
        fires="lt",
        limit=1.0,
        window="alert-no-data",
        pending_s=0,
        silence="Alerting",
        todo="Is the producer alive, is the consumer? If the lag grows, it is the consumer or the "
        "store; if there is none, the producer.",
    ),
    Alert(
        Panel(
            "lag",
            "Pipeline",
            "Lag",
            "messages",
            "Messages published and not yet answered for by the store, of all partitions of a "
            "topic.",
            """
SELECT topic, sum(lag) AS value
FROM (
  SELECT topic, "partition", max(high_water - "offset") AS lag
  FROM demo.pipeline
  WHERE "time" BETWEEN $from AND $to AND high_water IS NOT NULL AND "offset" IS NOT NULL
  GROUP BY topic, "partition"
) AS partitions
GROUP BY topic ORDER BY topic
""",
        ),
        area="pipeline",
        severity="warning",
        fires="gt",
        limit="alert-lag",
        window=60,
        pending_s=300,
        silence="OK",
        todo="Look at store errors and batch times on the Pipeline board. More consumers of the "
        "group help up to the number of partitions.",
    ),
    Alert(
        Panel(
            "latency",
            "Pipeline",
            "Latency",
            "ms",
            "From publishing to the store's answer, 95th percentile of the slowest partition.",
            """
SELECT topic, max(stored_p95_ms) AS value
FROM demo.pipeline
WHERE "time" BETWEEN $from AND $to AND stored_p95_ms IS NOT NULL
GROUP BY topic ORDER BY topic
""",
        ),
        area="pipeline",
        severity="warning",
        fires="gt",
        limit="alert-latency",
        window=60,
        pending_s=300,
        silence="OK",
        todo="With a lag, it is the backlog that is worked off. Without one, the store is slow: "
        "look at its load and at the batch times.",
    ),
    Alert(
        Panel(
            "dead-letters",
            "Pipeline",
            "Dead letters",
            "messages",
            "Messages of the last hour that can never be stored.",
            """
SELECT topic, reason, count(*) AS value
FROM demo.dead_letters
WHERE dead_at BETWEEN $from AND $to
GROUP BY topic, reason ORDER BY topic, reason
""",
        ),
        area="pipeline",
        severity="warning",
        fires="gt",
        limit="alert-dead-letters",
        window=3600,
        pending_s=0,
        silence="OK",
        todo="`climatestream dead-letters list` says what is wrong with them, `dead-letters retry` "
        "publishes them again once it is mended.",
    ),
)
BY_NAME: Final[Mapping[str, Alert]] = {alert.name: alert for alert in ALERTS}

# -------------------------------------------------------------------------------- the limits

DURATIONS_S: Final[Mapping[str, float]] = {"alert-no-data": 1.0, "alert-latency": 1000.0}
"""Settings that are typed as durations, and how many of the limit's unit a second is."""
SETTINGS: Final = tuple(
    sorted({word for a in ALERTS for word in (a.limit, a.window) if isinstance(word, str)})
)


def limits(given: Mapping[str, str | None] | None = None) -> dict[str, float]:
    """The limits by setting, in the unit of their rule: those given, and defaults for the rest.

    Raises
    ------
    UsageError
        One is no number, or no duration.
    """
    found = {}
    for name in SETTINGS:
        text = (given or {}).get(name) or settings.BY_NAME[name].default or ""
        if name in DURATIONS_S:
            found[name] = units.duration_s(text) * DURATIONS_S[name]
            continue
        try:
            found[name] = float(text)
        except ValueError:
            found[name] = math.nan
        if not math.isfinite(found[name]):
            raise UsageError(f"--{name} is {text!r}: expected a number, such as 30")
    return found


# --------------------------------------------------------------------------------- the files


@dataclass
class _Threshold(variants.Dataquery):
    """A condition of Grafana's expressions; importing the SDK's own warns of deprecated code."""

    ref: str
    of: str
    fires: Fires
    limit: float

    def to_json(self) -> dict[str, object]:
        return {
            "refId": self.ref,
            "datasource": {"type": EXPRESSION, "uid": EXPRESSION},
            "type": "threshold",
            "expression": self.of,
            "conditions": [{"evaluator": {"type": self.fires, "params": [self.limit]}}],
        }


def grafana_sql(alert: Alert) -> str:
    """The query with Grafana's macros in place of its words."""
    macros = {"from": "$__timeFrom()", "to": "$__timeTo()"}
    return re.sub(r"\$([a-z]+)", lambda word: macros[word[1]], alert.query.sql).strip()


def files(
    given: Mapping[str, str | None] | None = None, *, email: bool = False, webhook: bool = False
) -> dict[str, bytes]:
    """What Grafana reads from its folder provisioning/alerting, by file name.

    Parameters
    ----------
    given
        Limits by setting; the rest have their defaults.
    email, webhook
        Whether someone is to be told that way. The address itself stays in the environment of
        Grafana: CLIMATESTREAM_ALERT_EMAIL, CLIMATESTREAM_ALERT_WEBHOOK.
    """
    return {
        "rules.json": _dump(_rules(limits(given))),
        "contact-points.json": _dump(_contact_points(email, webhook)),
        "policies.json": _dump(_policies()),
    }


def _dump(content: dict[str, Any]) -> bytes:
    plain = orjson.loads(JSONEncoder(sort_keys=True).encode({"apiVersion": 1, **content}))
    return orjson.dumps(plain, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _rules(limits: Mapping[str, float]) -> dict[str, Any]:
    areas = sorted({alert.area for alert in ALERTS})
    return {
        "groups": [
            {
                "orgId": ORGANISATION,
                "name": area,
                "folder": FOLDER,
                "interval": "1m",
                "rules": [_rule(alert, limits) for alert in ALERTS if alert.area == area],
            }
            for area in areas
        ]
    }


def _rule(alert: Alert, limits: Mapping[str, float]) -> dict[str, Any]:
    limit = alert.limit_of(limits)
    window = models.RelativeTimeRange(from_val=alert.window_s(limits), to=0)
    value = "{{ with $values.A }}{{ .Value }}{{ end }}"
    unit = alert.query.unit
    annotations = {
        "summary": f"{alert.query.title}: {value} {unit}, {WORDS[alert.fires]} {limit:g} {unit}",
        "description": f"{alert.query.description} {alert.todo}",
        "limit": f"{limit:g} {unit}",
        "board": f"/d/{CLIMATE if alert.area == 'weather' else PIPELINE}",
    }
    if alert.source:
        annotations |= {"source": alert.source, "source_page": alert.page}
    rule = (
        builders.Rule(alert.query.title)
        .uid(f"climatestream-{alert.name}")
        .condition("B")
        .for_val(f"{alert.pending_s}s")
        .no_data_state(alert.silence)
        .exec_err_state("Error")
        .annotations(annotations)
        .labels({"area": alert.area, "severity": alert.severity})
        .build()
    )
    rule.data = [
        models.Query(
            ref_id="A",
            datasource_uid=DATASOURCE.uid,
            relative_time_range=window,
            model=Sql(grafana_sql(alert), "A"),
        ),
        models.Query(
            ref_id="B",
            datasource_uid=EXPRESSION,
            relative_time_range=models.RelativeTimeRange(from_val=0, to=0),
            model=_Threshold("B", "A", alert.fires, limit),
        ),
    ]
    # What belongs to the group stands there.
    left_out = {"folderUID", "ruleGroup", "orgID", "id", "provenance", "updated"}
    return {name: value for name, value in rule.to_json().items() if name not in left_out}


def _contact_points(email: bool, webhook: bool) -> dict[str, Any]:
    """Addresses are names of variables, which Grafana reads: no address is in a file."""
    receivers: list[tuple[str, str, str]] = []
    if email or not webhook:
        receivers.append(("email", "addresses", "$CLIMATESTREAM_ALERT_EMAIL" if email else NOBODY))
    if webhook:
        receivers.append(("webhook", "url", "$CLIMATESTREAM_ALERT_WEBHOOK"))
    return {
        "contactPoints": [
            {
                "orgId": ORGANISATION,
                "name": CONTACT,
                "receivers": [
                    {"uid": f"{CONTACT}-{kind}", "type": kind, "settings": {setting: value}}
                    for kind, setting, value in receivers
                ],
            }
        ]
    }


def _policies() -> dict[str, Any]:
    weather = models.NotificationPolicy(
        receiver=CONTACT,
        object_matchers=[["area", "=", "weather"]],
        group_by=["alertname", "dataset"],
        repeat_interval="12h",
    )
    policy = models.NotificationPolicy(
        receiver=CONTACT,
        group_by=["grafana_folder", "alertname"],
        group_wait="30s",
        group_interval="5m",
        repeat_interval="4h",
        routes=[weather],
    )
    return {"policies": [{"orgId": ORGANISATION, **policy.to_json()}]}

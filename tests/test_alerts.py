"""Alerts: each rule's query fires on data that it should fire on, and on no other; the files."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from climatestream import cli, settings
from climatestream.dashboards import alerts, generate
from climatestream.dashboards.alerts import ALERTS, BY_NAME, SETTINGS, Alert, files, limits
from climatestream.errors import UsageError
from climatestream.stores.open import open_store
from climatestream.testing.rows import rows
from tests import alert_cases as cases

if TYPE_CHECKING:
    from climatestream.ports import Store

FIRES_FOR: dict[str, set[tuple[str, ...]]] = {
    "heat": {("simulation", "DEU")},
    "frost": {("simulation", "FIN")},
    "storm": {("simulation", "no country")},
    "no-data": {()},
    "lag": {("era5",)},
    "latency": {("era5",)},
    "dead-letters": {("era5", "not-json")},
}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(f"duckdb:{tmp_path / 'alerts.duckdb'}") as store:
        yield store


def now_ms() -> int:
    # a store stamps dead letters with its own present
    return time.time_ns() // 1_000_000 + 1000


@pytest.fixture(scope="module")
def firing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, int]]:
    with open_store(f"duckdb:{tmp_path_factory.mktemp('firing') / 'alerts.duckdb'}") as store:
        now = now_ms()
        cases.fire(store, now)
        yield store, now


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, int]]:
    with open_store(f"duckdb:{tmp_path_factory.mktemp('quiet') / 'alerts.duckdb'}") as store:
        now = now_ms()
        cases.stay_quiet(store, now)
        yield store, now


by_name = pytest.mark.parametrize("alert", ALERTS, ids=[alert.name for alert in ALERTS])


# ------------------------------------------------------------------------------ the queries


@by_name
def test_an_alert_fires_for_what_is_wrong_and_names_it(
    firing: tuple[Store, int], alert: Alert
) -> None:
    store, now = firing
    assert cases.fired(store, alert, now) == FIRES_FOR[alert.name]


@by_name
def test_an_alert_is_quiet_where_all_is_well(quiet: tuple[Store, int], alert: Alert) -> None:
    store, now = quiet
    assert cases.fired(store, alert, now) == set()


@by_name
def test_an_empty_store_lacks_data_and_nothing_else(store: Store, alert: Alert) -> None:
    assert cases.fired(store, alert, now_ms()) == ({()} if alert.name == "no-data" else set())


@by_name
def test_what_is_over_alerts_no_more(firing: tuple[Store, int], alert: Alert) -> None:
    store, now = firing
    later = cases.fired(store, alert, now + 2 * cases.HOUR_MS)
    assert later == ({()} if alert.name == "no-data" else set())


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("heat", "30.5"),
        ("frost", "-0.1"),
        ("storm", "21"),
        ("no-data", "30m"),
        ("lag", "50002"),
        ("latency", "6s"),
        ("dead-letters", "1"),
    ],
)
def test_a_limit_is_a_setting(firing: tuple[Store, int], name: str, limit: str) -> None:
    store, now = firing
    given: dict[str, str | None] = {f"alert-{name}": limit}
    assert cases.fired(store, BY_NAME[name], now) != set()
    assert cases.fired(store, BY_NAME[name], now, given) == set()


def test_preliminary_readings_of_five_days_ago_are_news(store: Store) -> None:
    now = now_ms()
    late = cases.reading(
        now,
        1,
        time_ms=now - 5 * cases.DAY_MS,
        dataset="era5-land/daily-mean",
        preliminary=True,
        data={"temperature": 33.0},
    )
    assert store.write(rows(late)) == []
    assert cases.fired(store, BY_NAME["heat"], now) == {("era5-land/daily-mean", "DEU")}


def test_each_country_alerts_for_itself(store: Store) -> None:
    now = now_ms()
    readings = [
        cases.reading(now, 1, country=code, latitude=45.0 + i, data={"temperature": 29.0 + i})
        for i, code in enumerate(("AUT", "DEU", "FRA"))
    ]
    assert store.write(rows(*readings)) == []
    found = cases.answers(store, BY_NAME["heat"], now)
    assert found == {
        ("simulation", "AUT"): 29.0,
        ("simulation", "DEU"): 30.0,
        ("simulation", "FRA"): 31.0,
    }
    assert cases.fired(store, BY_NAME["heat"], now) == {
        ("simulation", "DEU"),
        ("simulation", "FRA"),
    }


# ------------------------------------------------------------------------------- the limits


def test_every_setting_of_an_alert_is_one() -> None:
    assert [name for name in SETTINGS if name not in settings.BY_NAME] == []
    named = {s.name for s in settings.SETTINGS if s.name.startswith("alert-")}
    assert named == {*SETTINGS, "alert-email", "alert-webhook"}


def test_durations_are_in_the_unit_of_their_rule() -> None:
    found = limits({"alert-no-data": "2h", "alert-latency": "250ms"})
    assert (found["alert-no-data"], found["alert-latency"]) == (7200.0, 250.0)


def test_a_limit_that_is_no_number_names_its_setting() -> None:
    with pytest.raises(UsageError, match="--alert-heat is 'hot': expected a number"):
        limits({"alert-heat": "hot"})


# -------------------------------------------------------------------------------- the files


def rules(**given: str) -> dict[str, dict[str, Any]]:
    text = files({name.replace("_", "-"): value for name, value in given.items()})["rules.json"]
    return {
        rule["uid"].removeprefix("climatestream-"): rule
        for group in orjson.loads(text)["groups"]
        for rule in group["rules"]
    }


def test_the_rules_are_those_of_the_list_and_each_has_an_identifier_of_its_own() -> None:
    assert sorted(rules()) == sorted(alert.name for alert in ALERTS)


def test_every_rule_is_whole() -> None:
    """Grafana shows these mistakes when a rule is evaluated; with a wrong state it won't start."""
    for name, rule in rules().items():
        assert len(rule["uid"]) <= 40, name
        assert rule["condition"] in {query["refId"] for query in rule["data"]}
        assert rule["noDataState"] in {"OK", "Alerting", "NoData", "KeepLast"}
        assert rule["execErrState"] in {"OK", "Alerting", "Error", "KeepLast"}
        assert {"summary", "description", "limit", "board"} <= rule["annotations"].keys()
        assert {"area", "severity"} == rule["labels"].keys()
        query, condition = rule["data"]
        assert query["datasourceUid"] == query["model"]["datasource"]["uid"] == "cratedb"
        assert query["model"]["format"] == "table"
        assert condition["model"]["expression"] == query["refId"]
        assert query["relativeTimeRange"]["from"] > query["relativeTimeRange"]["to"] == 0
        for part in rule["data"]:
            assert part["refId"] == part["model"]["refId"]


def test_weather_alerts_name_who_says_so_and_where() -> None:
    found = rules()
    for alert in ALERTS:
        annotations = found[alert.name]["annotations"]
        if alert.area == "weather":
            assert annotations["source"]
            assert annotations["source_page"].startswith("http")
        else:
            assert "source" not in annotations


def test_a_limit_stands_in_condition_and_words() -> None:
    rule = rules(alert_heat="35.5")["heat"]
    [condition] = rule["data"][1]["model"]["conditions"]
    assert condition["evaluator"] == {"params": [35.5], "type": "gte"}
    assert "35.5 degC" in rule["annotations"]["summary"]
    assert rules(alert_no_data="1h")["no-data"]["data"][0]["relativeTimeRange"]["from"] == 3600


def test_only_macros_that_grafana_has_are_left_in_a_query() -> None:
    for rule in rules().values():
        text = rule["data"][0]["model"]["rawSql"]
        assert text.replace("$__timeFrom()", "").replace("$__timeTo()", "").count("$") == 0


def test_nothing_that_grafana_would_take_for_a_variable_is_in_titles_and_labels() -> None:
    """It replaces them in these, and an unknown one by nothing."""
    for rule in rules().values():
        assert "$" not in rule["title"] + "".join(rule["labels"].values())
        assert "${" not in "".join(rule["annotations"].values())


@pytest.mark.parametrize(
    ("email", "webhook", "settings_of"),
    [
        (False, False, {"email": {"addresses": alerts.NOBODY}}),
        (True, False, {"email": {"addresses": "$CLIMATESTREAM_ALERT_EMAIL"}}),
        (False, True, {"webhook": {"url": "$CLIMATESTREAM_ALERT_WEBHOOK"}}),
        (
            True,
            True,
            {
                "email": {"addresses": "$CLIMATESTREAM_ALERT_EMAIL"},
                "webhook": {"url": "$CLIMATESTREAM_ALERT_WEBHOOK"},
            },
        ),
    ],
    ids=["nobody", "email", "webhook", "both"],
)
def test_contacts_are_those_that_are_set_and_no_address_is_in_a_file(
    email: bool, webhook: bool, settings_of: dict[str, Any]
) -> None:
    made = files(email=email, webhook=webhook)
    [contact] = orjson.loads(made["contact-points.json"])["contactPoints"]
    assert {r["type"]: r["settings"] for r in contact["receivers"]} == settings_of
    assert len({r["uid"] for r in contact["receivers"]}) == len(contact["receivers"])
    [policy] = orjson.loads(made["policies.json"])["policies"]
    assert policy["receiver"] == contact["name"]
    assert [route["receiver"] for route in policy["routes"]] == [contact["name"]]


ROOT = Path(__file__).resolve().parent.parent


def test_what_is_checked_in_is_what_is_made() -> None:
    """After a change of the rules: `climatestream dashboards build`."""
    made = generate.files()
    assert len(made) >= 3
    assert generate.different(ROOT / generate.FOLDER, made) == []


def test_build_writes_what_differs_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["dashboards", "build", "--to", str(tmp_path), "--alert-storm", "25", "--json"]
    assert cli.invoke(command) == 0
    first = orjson.loads(capsys.readouterr().out)
    assert sorted(first["written"]) == first["files"]
    assert b"at or above 25 m/s" in (tmp_path / "provisioning/alerting/rules.json").read_bytes()
    assert cli.invoke(command) == 0
    assert orjson.loads(capsys.readouterr().out)["written"] == []


def test_an_address_is_a_receiver_and_stays_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIMATESTREAM_ALERT_WEBHOOK", "https://hooks.example/secret")
    assert cli.invoke(["dashboards", "build", "--to", str(tmp_path)]) == 0
    text = (tmp_path / "provisioning/alerting/contact-points.json").read_text()
    assert "webhook" in text
    assert "secret" not in text


def test_a_folder_that_cannot_be_written_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "provisioning").write_text("a file")
    assert cli.invoke(["dashboards", "build", "--to", str(tmp_path)]) == 2
    assert str(tmp_path / "provisioning/alerting/rules.json") in capsys.readouterr().err

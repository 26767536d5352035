"""Normals: held against numpy, day by day, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from climatestream import cli_stream, normals
from climatestream.cli import invoke
from climatestream.errors import SourceError, UsageError
from climatestream.normals import Made, Period, Rule
from climatestream.stores.duckdb import DuckDBStore
from climatestream.testing.rows import Reading, Value, rows

DAILY = "era5-land/daily-mean"
EPOCH = date(1970, 1, 1)
SHORT = Rule(Period(1967, 1970), fewer=True)
"""Across 1970, where times change their sign, and a leap year."""


def ms(day: date, hour: int = 0) -> int:
    return (day - EPOCH).days * 86_400_000 + hour * 3_600_000


def days(first: int, last: int) -> list[date]:
    count = (date(last + 1, 1, 1) - date(first, 1, 1)).days
    return [date(first, 1, 1) + timedelta(days) for days in range(count)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DuckDBStore]:
    with DuckDBStore(tmp_path / "n.duckdb", threads=1) as opened:
        yield opened


def put(store: DuckDBStore, values: dict[date, float], **more: Any) -> None:
    readings = [
        Reading({"temperature": value}, time_ms=ms(day), offset=n, **more)
        for n, (day, value) in enumerate(values.items())
    ]
    assert store.write(rows(*readings)) == []


def made(
    store: DuckDBStore,
    rule: Rule,
    names: Sequence[str] | None = None,
    dataset: str = DAILY,
    **more: Any,
) -> dict[tuple[str, int, str], tuple[Any, ...]]:
    """By cell, day and variable: years, mean, deviation, percentiles."""
    normals.make(store, store, dataset, names, rule, Made(), **more)
    found = store.query(
        "SELECT cell, day_of_year, variable, years, mean, deviation, p10, p50, p90 "
        "FROM demo.climate_normals WHERE dataset = ?",
        [dataset],
    )
    return {row[:3]: row[3:] for row in found.rows}


def expected(values: dict[date, float], rule: Rule) -> dict[int, tuple[Any, ...]]:
    """The definition, in words of numpy: day D is 1 January and D - 1 days, of every year."""
    half = rule.window_days // 2
    answers = {}
    for of_year in range(1, 367):
        sample: dict[int, list[float]] = {}
        for year in range(rule.period.first, rule.period.last + 1):
            middle = date(year, 1, 1) + timedelta(of_year - 1)
            for shift in range(-half, half + 1):
                day = middle + timedelta(shift)
                if day in values and rule.period.first <= day.year <= rule.period.last:
                    sample.setdefault(year, []).append(values[day])
        if len(sample) >= rule.least_years:
            flat = [value for of_one in sample.values() for value in of_one]
            deviation = np.std(flat, ddof=1) if len(flat) > 1 else None
            percentiles = np.percentile(flat, [10, 50, 90])
            answers[of_year] = (len(sample), np.mean(flat), deviation, *percentiles)
    return answers


def assert_same(found: dict[Any, tuple[Any, ...]], wanted: dict[Any, tuple[Any, ...]]) -> None:
    assert found.keys() == wanted.keys()
    for key, values in wanted.items():
        for got, want in zip(found[key], values, strict=True):
            assert got == want if want is None else math.isclose(got, want, abs_tol=1e-9), key


# ------------------------------------------------------------------------------- definition


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    seed=st.integers(0, 2**32),
    window=st.sampled_from([1, 3, 5, 31]),
    share=st.sampled_from([0.02, 0.6, 1.0]),
    fewer=st.booleans(),
    parts_of=st.sampled_from([1, 10_000]),
)
def test_normals_are_what_numpy_says(
    tmp_path: Path, seed: int, window: int, share: float, fewer: bool, parts_of: int
) -> None:
    """Whatever is missing, however wide the window, in whatever parts it is read."""
    random = np.random.default_rng(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(normals, "STANDARD_YEARS", 4)
        rule = replace(SHORT, window_days=window, fewer=fewer)
    cells: dict[float, dict[date, float]] = {latitude: {} for latitude in (-10.0, 48.1)}
    path = tmp_path / f"{seed}-{window}-{share}-{fewer}-{parts_of}.duckdb"
    path.unlink(missing_ok=True)
    with DuckDBStore(path, threads=1) as store:
        for latitude, values in cells.items():
            values.update(
                {
                    day: float(random.normal(10.0, 8.0))
                    for day in days(1966, 1971)
                    if random.random() < share
                }
            )
            put(store, values, latitude=latitude)
        wanted = {
            (Reading(latitude=latitude).cell, of_year, "temperature"): answer
            for latitude, values in cells.items()
            for of_year, answer in expected(values, rule).items()
        }
        assert_same(made(store, rule, rows=parts_of), wanted)


def test_29_february_has_all_years_as_every_day_has(store: DuckDBStore) -> None:
    """It is day 60 of leap years, and so is 1 March of the others."""
    put(store, {day: float(day.year) for day in days(1967, 1970)})
    found = made(store, replace(SHORT, window_days=1))
    assert {key[1] for key in found} == set(range(1, 367))
    assert {years for years, *_ in found.values()} == {4, 3}
    short = {key[1] for key, (years, *_) in found.items() if years < 4}
    assert short == {366}, "of the last year its 366th day is the year after, out of the period"


def test_the_day_is_what_sql_calls_it(store: DuckDBStore) -> None:
    """A board joins by `extract(doy FROM "timestamp")`."""
    put(store, {day: float(day.timetuple().tm_yday) for day in days(1967, 1970)})
    made(store, replace(SHORT, window_days=1))
    joined = store.query(
        """SELECT count(*), max(abs(c.data['temperature'] - n.mean)) FROM demo.climate_data c
        JOIN demo.climate_normals n ON n.dataset = c.dataset AND n.cell = c.cell
            AND n.variable = 'temperature'
            AND n.day_of_year = extract(doy FROM c."timestamp")
        WHERE n.day_of_year < 366"""
    )
    assert joined.rows == [(4 * 365, 0.0)]


def test_days_of_hours_are_means_of_whole_days(store: DuckDBStore) -> None:
    hourly = "era5-land/hourly"
    readings = [
        Reading({"temperature": float(hour)}, time_ms=ms(day, hour), dataset=hourly)
        for day in days(1969, 1969)[:10]
        for hour in (0, 6, 12, 18)
        if (day.day, hour) != (10, 18)
    ]
    store.write(rows(*readings))
    rule = Rule(Period(1969, 1970), window_days=1, fewer=True)
    found = made(store, rule, dataset=hourly)
    assert {key[1]: answer[:2] for key, answer in found.items()} == dict.fromkeys(
        range(1, 10), (1, 9.0)
    )


def test_a_second_making_replaces_the_first(store: DuckDBStore) -> None:
    put(store, dict.fromkeys(days(1967, 1970), 1.0))
    first = made(store, SHORT)
    assert made(store, SHORT) == first
    again = made(store, Rule(Period(1970, 1970), window_days=1, fewer=True))
    assert {years for years, *_ in again.values()} == {1}
    assert len(again) == 365


def test_all_numbers_are_taken_but_places_and_running_sums(store: DuckDBStore) -> None:
    values: dict[str, Value] = {"temperature": 1.0, "total_precipitation": 2.0, "station": "a"}
    for dataset in (DAILY, "era5-land/hourly"):
        store.write(rows(Reading(values, time_ms=ms(date(1969, 5, 1)), dataset=dataset)))
    found = {key[2] for key in made(store, SHORT)}
    assert found == {"temperature", "total_precipitation"}
    found = {key[2] for key in made(store, SHORT, dataset="era5-land/hourly")}
    assert found == {"temperature"}
    with pytest.raises(UsageError, match="total_precipitation of era5-land/hourly is a sum since"):
        made(store, SHORT, ["tp"], dataset="era5-land/hourly")


# --------------------------------------------------------------------------------- refusals


def test_thirty_years_and_four_fifths_of_them_are_a_normal() -> None:
    assert Rule(Period(1991, 2020)).least_years == 24
    assert Rule(Period(1991, 2020), fewer=True).least_years == 1
    with pytest.raises(UsageError, match=r"2001-2020 is 20 years, expected 30 .* --allow-fewer"):
        Rule(Period(2001, 2020))


def test_too_few_years_in_the_store_are_refused_before_anything_is_kept(
    store: DuckDBStore,
) -> None:
    put(store, {date(year, 7, 1): 1.0 for year in range(1991, 2014)})
    wanted = r"there are 23 years \(1991 to 2013\) of the years 1991-2020, expected at least 24"
    with pytest.raises(SourceError, match=wanted):
        made(store, Rule(Period(1991, 2020)))
    assert len(made(store, Rule(Period(1991, 2020), fewer=True))) == 6
    with pytest.raises(SourceError, match="of era5/hourly there are none"):
        made(store, Rule(Period(1991, 2020)), dataset="era5/hourly")


def test_days_with_too_few_years_are_left_out_and_counted(store: DuckDBStore) -> None:
    put(store, {date(year, 7, 1): 1.0 for year in range(1991, 2015)})
    put(store, {date(year, 8, 1): 1.0 for year in range(1992, 2015)})
    counts = Made()
    normals.make(store, store, DAILY, None, Rule(Period(1991, 2020)), counts)
    # 1 July is day 182, or 183 of a leap year: of the days around it four have all 24 years
    assert (counts.kept, counts.left_out, counts.cells) == (4, 2 + 6, 1)


@pytest.mark.parametrize(
    "text", ["1991", "1991-", "2020-1991", "91-20", "1991 to 2020", "1800-1900"]
)
def test_a_period_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected one such as 1991-2020"):
        normals.parse_period(text)


@pytest.mark.parametrize("days_", [0, 4, -1, 63])
def test_a_window_without_a_middle_is_refused(days_: int) -> None:
    with pytest.raises(UsageError, match="expected an odd number of days"):
        Rule(Period(1991, 2020), days_)


def test_monthly_values_have_no_normal_day(store: DuckDBStore) -> None:
    with pytest.raises(UsageError, match="has no values of days"):
        made(store, SHORT, dataset="era5-land/monthly-mean")


def test_a_variable_that_was_never_stored_is_named(store: DuckDBStore) -> None:
    put(store, {date(1969, 1, 1): 1.0})
    with pytest.raises(UsageError, match="snow_depth is not in the store: expected some of temp"):
        made(store, SHORT, ["snow_depth"])


# ---------------------------------------------------------------------------------- command


def test_the_command_says_its_defaults_as_they_are() -> None:
    assert cli_stream.STANDARD_PERIOD == normals.STANDARD_PERIOD
    assert cli_stream.WINDOW_DAYS == normals.WINDOW_DAYS


def test_normals_of_a_source_are_those_of_the_store_that_it_fills(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = "simulation:?step=1d&days=1096&start=1991-01-01"
    place = ["--region", "west=8,south=48,east=8.05,north=48.1"]
    one, other = (f"duckdb:{tmp_path}/{name}.duckdb" for name in ("one", "other"))
    fewer = ["--years", "1991-1993", "--allow-fewer", "--variables", "temperature", "--json"]
    assert invoke(["run", source, *place, "--store", one]) == 0
    assert invoke(["normals", "--store", one, *fewer]) == 0
    assert invoke(["normals", source, *place, "--store", other, *fewer]) == 0
    assert capfd.readouterr().out.count('"normals":732,"left_out":0,"cells":2') == 2
    tables = []
    for spec in (one, other):
        with DuckDBStore(spec.removeprefix("duckdb:")) as opened:
            found = opened.query("SELECT * FROM demo.climate_normals ORDER BY cell, day_of_year")
            tables.append(found.rows)
    # several threads add up in no fixed order
    one_table, other_table = ({row[:4]: row[5:] for row in table} for table in tables)
    assert_same(one_table, other_table)
    assert tables[0][0][4] == "1991-1993"


def test_the_command_refuses_a_store_without_readings(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spec = f"duckdb:{tmp_path}/empty.duckdb"
    with DuckDBStore(f"{tmp_path}/empty.duckdb"):
        pass
    assert invoke(["normals", "--store", spec]) == 1
    assert "there are no readings of the years 1991-2020" in capfd.readouterr().err
    assert invoke(["normals", "--store", spec, "--region", "DEU"]) == 2
    assert "--region narrows files" in capfd.readouterr().err


def test_replays_have_no_normals(store: DuckDBStore) -> None:
    now = datetime.now(UTC)
    put(store, {date(1969, 1, 1): 1.0})
    put(store, {date(1969, 1, 1): 1.0}, dataset="era5-land/hourly/replay")
    put(store, {now.date(): 1.0}, dataset="simulation")
    assert normals.datasets(store, SHORT.period) == [DAILY]

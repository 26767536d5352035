"""The simulation: a source of weather that obeys its plainest laws."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import pytest

from climatestream import countries
from climatestream.errors import UsageError
from climatestream.model import BATCH_ROWS, Batch, Slice
from climatestream.region import parse_region
from climatestream.sources.selection import Selection, end_of, start_of
from climatestream.sources.simulation import VARIABLES, Simulation
from climatestream.sources.weather import EARTH_RADIUS, EARTH_ROTATION, at_height

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

DIGESTS = [
    "9b82a2a40b3079b30e98152a49b375befb2006dac9ba087f14b04def92bf0c94",
    "1511cea69c145dee41aec36eca3845bbdd928873c0e4aecf20a9129b12ef6f5a",
    "c411533e8e6ff8ebb0e9de1db16b5d60d64ca2dc41ba9c4bf3eaadc8aee31fa1",
]
"""SHA-256 of the first, the middle and the last hour of the default week."""
GERMANY = "west=5.9,south=47.3,east=15,north=55"


def batches(spec: str = "simulation:", region: str | None = None, at: int = 0) -> list[Batch]:
    selection = Selection(region=parse_region(region) if region else None)
    with Simulation(spec, selection) as source:
        return list(source.read(source.slices()[at]))


def week(spec: str, region: str) -> tuple[Batch, dict[str, NDArray[np.float64]]]:
    """A first batch, and by variable all values, shape (time, cell)."""
    with Simulation(spec, Selection(region=parse_region(region))) as source:
        read = [batch for slice_ in source.slices() for batch in source.read(slice_)]
    return read[0], {name: np.array([batch.values[name] for batch in read]) for name in VARIABLES}


@pytest.fixture(scope="module")
def august() -> tuple[Batch, dict[str, NDArray[np.float64]]]:
    """Germany's default week."""
    return week("simulation:", "DEU")


def height(batch: Batch) -> NDArray[np.float64]:
    metres: NDArray[np.float64] = batch.cells.cache["weather"].height
    return metres


def digest(read: Iterable[Batch]) -> str:
    state = hashlib.sha256()
    for batch in read:
        for column in (batch.cells.latitude, batch.cells.longitude, *batch.values.values()):
            state.update(np.asarray(column, "<f8").tobytes())
    return state.hexdigest()


# ------------------------------------------------------------------------- what it is


def test_default_is_a_week_of_hours_on_germanys_land() -> None:
    with Simulation("simulation:", Selection()) as source:
        slices = source.slices()
        (batch,) = source.read(slices[0])
    assert len(slices) == 7 * 24
    assert slices[0] == Slice(start_of("2025-08-10"), "simulation")
    assert slices[-1].time_ns == start_of("2025-08-16T23:00")
    assert 4_400 < len(batch) < 4_700
    assert set(batch.cells.country) == {"DEU"}
    assert tuple(batch.values) == VARIABLES
    assert (batch.dataset, batch.time_ns) == ("simulation", slices[0].time_ns)
    assert batch.preliminary is None


def test_cells_are_era5_lands_points_north_to_south() -> None:
    (batch,) = batches()
    latitude, longitude = np.asarray(batch.cells.latitude), np.asarray(batch.cells.longitude)
    assert {round(x * 10) / 10 for x in latitude} == set(latitude)
    assert {round(x * 10) / 10 for x in longitude} == set(longitude)
    assert (np.diff(latitude) <= 0).all()


def test_values_are_float32_in_float64() -> None:
    for column in batches()[0].values.values():
        values = np.asarray(column)
        assert values.dtype == np.float64
        assert (values.astype(np.float32).astype(np.float64) == values).all()


def test_same_seed_gives_the_same_bytes_on_any_machine() -> None:
    found = [digest(batches(at=at)) for at in (0, 84, 167)]
    assert found == DIGESTS


def test_another_seed_gives_other_weather() -> None:
    one, other = (batches(f"simulation:?seed={seed}")[0] for seed in (0, 1))
    for name in VARIABLES:
        assert (np.asarray(one.values[name]) != np.asarray(other.values[name])).mean() > 0.99


def test_weather_depends_on_seed_place_and_time_alone() -> None:
    """Not on the order of reading, the region, or the step."""
    with Simulation("simulation:", Selection()) as source:
        slices = source.slices()
        backwards = {s.time_ns: digest(source.read(s)) for s in reversed(slices[::24])}
        assert [digest(source.read(s)) for s in slices[::24]] == list(backwards.values())[::-1]
        (small,) = source.read(slices[30])
    (large,) = batches("simulation:?step=6h", "west=0,south=46,east=20,north=56", at=5)
    place = {
        cell: i
        for i, cell in enumerate(zip(large.cells.latitude, large.cells.longitude, strict=True))
    }
    common = [place[cell] for cell in zip(small.cells.latitude, small.cells.longitude, strict=True)]
    assert len(large) > 2 * len(small)
    for name in VARIABLES:
        assert (np.asarray(large.values[name])[common] == small.values[name]).all(), name


def test_any_time_can_be_read() -> None:
    with Simulation("simulation:", Selection()) as source:
        for year in (1900, 2025, 2199):
            time = Slice(start_of(f"{year}-08-10T12:34:56"), "simulation")
            (batch,) = source.read(time)
            assert batch.time_ns == time.time_ns
            assert 270 < np.mean(batch.values["temperature"]) < 310


# --------------------------------------------------------------------- what is asked for


@pytest.mark.parametrize(
    ("spec", "start", "end", "times", "count"),
    [
        ("simulation:?step=6h", None, None, ("2025-08-10", "2025-08-16T18:00"), 28),
        ("simulation:?step=10m&days=1", None, None, ("2025-08-10", "2025-08-10T23:50"), 144),
        ("simulation:?start=2024-02-28&step=1d", None, None, ("2024-02-28", "2024-03-05"), 7),
        ("simulation:", "2025-01-01", "2025-01-02", ("2025-01-01", "2025-01-02T23:00"), 48),
        ("simulation:", "2025-01-01", None, ("2025-01-01", "2025-01-07T23:00"), 168),
        ("simulation:", None, "2025-01-07", ("2025-01-01", "2025-01-07T23:00"), 168),
        ("simulation:", "2025-01-01T00:17", "2025-01-01T02:00", ("2025-01-01T01:00", None), 2),
        ("simulation:?days=60000&step=1m&start=1950-01-01", None, None, (None, None), 86_400_000),
    ],
)
def test_times_are_those_asked_for(
    spec: str, start: str | None, end: str | None, times: tuple[str | None, ...], count: int
) -> None:
    selection = Selection(
        start_ns=start_of(start) if start else None, end_ns=end_of(end) if end else None
    )
    slices = Simulation(spec, selection).slices()
    assert len(slices) == count
    for place, time in zip((0, -1), times, strict=True):
        if time is not None:
            assert slices[place].time_ns == start_of(time)


def test_a_period_without_a_whole_step_is_refused() -> None:
    selection = Selection(start_ns=start_of("2025-01-01T00:17"), end_ns=end_of("2025-01-01T02:00"))
    with pytest.raises(UsageError, match="no time between .* take a shorter step"):
        Simulation("simulation:?step=7d", selection)


def test_slices_are_a_sequence() -> None:
    slices = Simulation("simulation:", Selection()).slices()
    assert list(slices[2:5]) == [slices[2], slices[3], slices[4]]
    assert list(slices[::-1]) == list(reversed(slices)) == sorted(slices, reverse=True)
    assert len(slices[5:5]) == 0
    with pytest.raises(IndexError):
        _ = slices[168]


def test_variables_narrow_in_any_of_their_names() -> None:
    with Simulation("simulation:", Selection(variables=("surface_pressure", "t2m"))) as source:
        (batch,) = source.read(source.slices()[0])
    assert tuple(batch.values) == ("temperature", "pressure")


@pytest.mark.parametrize("region", ["FJI", "west=170,south=-50,east=-170,north=-30", "NZL"])
def test_region_may_cross_the_date_line(region: str) -> None:
    (batch,) = batches(region=region)
    longitude = np.asarray(batch.cells.longitude)
    assert ((longitude >= -180) & (longitude < 180)).all()
    assert (longitude > 170).any()
    assert (longitude < -170).any()
    assert set(batch.cells.country) <= {"FJI", "NZL", "TON", "WLF"}


def test_sea_is_left_out() -> None:
    (batch,) = batches(region="west=-10,south=50,east=2,north=59")
    assert None not in batch.cells.country
    assert {"GBR", "IRL"} <= set(batch.cells.country)
    assert len(batch) < 0.6 * 121 * 91


def test_a_large_region_comes_in_batches_of_bounded_size() -> None:
    read = batches(region="USA")
    assert [len(batch) for batch in read[:-1]] == [BATCH_ROWS, BATCH_ROWS]
    places = {
        place
        for batch in read
        for place in zip(batch.cells.latitude, batch.cells.longitude, strict=True)
    }
    assert len(places) == sum(map(len, read)) > 100_000


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("simulation:?stepp=1h", r"'stepp', expected each of step, seed, days, start at most once"),
        ("simulation:?seed=1&seed=2", r"'seed', expected each"),
        ("simulation:?seed", r"seed=, expected a whole number from 0 on"),
        ("simulation:germany", r"'germany', expected each"),
        ("simulation:?step=1", r"step=1, expected a length of time above zero such as 10m"),
        ("simulation:?step=0h", r"step=0h, expected a length of time above zero"),
        ("simulation:?step=1w", r"step=1w, expected a length of time"),
        ("simulation:?seed=-1", r"seed=-1, expected a whole number from 0 on"),
        ("simulation:?=1", r"'', expected each"),
        ("simulation:?days=0", r"days=0, expected a whole number from 1 on"),
        ("simulation:?days=1.5", r"days=1.5, expected a whole number from 1 on"),
        ("simulation:?days=99999", r"times before 1900 or after 2200"),
        ("simulation:?start=tomorrow", r"'tomorrow' is no time"),
    ],
)
def test_wrong_spec_is_answered_with_one_sentence(spec: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Simulation(spec, Selection())


def test_what_is_not_simulated_is_refused() -> None:
    with pytest.raises(UsageError, match="total_precipitation is not simulated: expected some of"):
        Simulation("simulation:", Selection(variables=("temperature", "total_precipitation")))
    with pytest.raises(UsageError, match="is the dataset simulation and can't be stated"):
        Simulation("simulation:", Selection(dataset="era5-land/hourly"))
    sea = Selection(region=parse_region("west=-30,south=40,east=-20,north=41"))
    with pytest.raises(UsageError, match="has no land on ERA5-Land's grid"):
        Simulation("simulation:", sea).__enter__()


def test_reading_needs_numpy_and_shapely_but_no_table_or_database_package() -> None:
    program = (
        "import sys\n"
        "from climatestream.sources.selection import Selection\n"
        "from climatestream.sources.simulation import Simulation\n"
        "with Simulation('simulation:', Selection()) as s: list(s.read(s.slices()[0]))\n"
        "print(*sys.modules)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout.split()
    assert not {"polars", "duckdb", "xarray", "pandas", "netCDF4", "scipy"} & set(loaded)


# ---------------------------------------------------------------------------- the weather


def test_values_are_plausible(august: tuple[Batch, dict[str, NDArray[np.float64]]]) -> None:
    batch, values = august
    celsius = values["temperature"] - 273.15
    wind = np.hypot(values["u10"], values["v10"])
    assert celsius.min() > 2
    assert celsius[:, height(batch) < 600].min() > 5
    assert celsius.max() < 38
    assert 15 < celsius.mean() < 21
    assert wind.max() < 20
    assert 2 < wind.mean() < 7
    at_sea_level = values["pressure"] / at_height(height(batch))
    assert 97_000 < at_sea_level.min() < 101_000
    assert 101_500 < at_sea_level.max() < 104_500
    assert values["pressure"].min() > 85_000


@pytest.mark.parametrize("day", ["2025-01-15", "2025-07-15"])
def test_values_are_plausible_everywhere(day: str) -> None:
    corners = [(-110, 35), (-65, -10), (40, -85), (-45, 70), (85, 30), (0, 20), (115, 62), (20, -5)]
    for west, south in corners:
        region = f"west={west},south={south},east={west + 8},north={south + 5}"
        spec = f"simulation:?start={day}&step=6h&days=1"
        for batch in batches(spec, region) + batches(spec, region, at=2):
            assert np.min(batch.values["temperature"]) > 273.15 - 75
            assert np.max(batch.values["temperature"]) < 273.15 + 48
            assert np.hypot(batch.values["u10"], batch.values["v10"]).max() < 40
            assert np.min(batch.values["pressure"]) > 45_000
            assert np.max(batch.values["pressure"]) < 107_000


def test_a_third_of_the_land_changes_colour_in_five_steps(
    august: tuple[Batch, dict[str, NDArray[np.float64]]],
) -> None:
    """By a step of a scale of 256 colours from -30 to 45 degrees."""
    celsius = august[1]["temperature"] - 273.15
    level = np.floor((celsius + 30) / 75 * 256)
    assert (level[5:] != level[:-5]).mean(axis=1).min() > 1 / 3


def test_afternoon_is_warmest_and_dawn_coldest(
    august: tuple[Batch, dict[str, NDArray[np.float64]]],
) -> None:
    mean = august[1]["temperature"].reshape(7, 24, -1).mean(axis=(0, 2))
    assert 12 <= mean.argmax() <= 16
    assert 2 <= mean.argmin() <= 6
    assert 5 < mean.max() - mean.min() < 14


def test_day_goes_round_the_earth() -> None:
    warmest = {}
    for longitude in (-100, 10, 100):
        _, values = week(
            "simulation:?days=28", f"west={longitude},south=38,east={longitude + 2},north=45"
        )
        course = values["temperature"].reshape(28, 24, -1).mean(axis=(0, 2))
        warmest[longitude] = (course.argmax() + longitude / 15) % 24
    assert list(warmest.values()) == pytest.approx([15, 15, 15], abs=1.5)


def test_summer_is_in_july_in_the_north_and_in_january_in_the_south() -> None:
    mean = {
        (region, month): np.mean(
            [
                np.mean(
                    batches(f"simulation:?start=2025-{month}-15", region, at)[0].values[
                        "temperature"
                    ]
                )
                for at in range(0, 168, 21)
            ]
        )
        for region in ("DEU", "NZL")
        for month in ("01", "07")
    }
    assert 13 < mean["DEU", "07"] - mean["DEU", "01"] < 25
    assert 8 < mean["NZL", "01"] - mean["NZL", "07"] < 25


def test_height_is_colder_and_has_less_air(
    august: tuple[Batch, dict[str, NDArray[np.float64]]],
) -> None:
    batch, values = august
    others = [np.ones(len(batch)), batch.cells.latitude, batch.cells.longitude]
    columns = np.stack([height(batch), *map(np.asarray, others)], axis=1)
    slope = np.linalg.lstsq(columns, values["temperature"].mean(axis=0))[0][0]
    assert slope == pytest.approx(-0.0065, abs=0.001)
    assert np.corrcoef(height(batch), values["pressure"].mean(axis=0))[0, 1] < -0.99
    assert np.asarray(batch.cells.latitude)[height(batch) > 700].max() < 52, "the north is flat"


def test_wind_fits_the_gradient_of_pressure() -> None:
    """It blows with low pressure on its left, turned towards it by friction, in the north."""
    turns, shares = gradient_and_wind(GERMANY)
    assert np.mean(turns) == pytest.approx(36, abs=6)
    assert np.percentile(np.abs(turns - np.mean(turns)), 90) < 25
    assert 0.3 < np.median(shares) < 0.6


def test_wind_turns_the_other_way_round_in_the_south() -> None:
    turns, shares = gradient_and_wind("west=145,south=-38,east=150,north=-30")
    assert np.mean(turns) == pytest.approx(-45, abs=8)
    assert np.percentile(np.abs(turns - np.mean(turns)), 90) < 25
    assert 0.2 < np.median(shares) < 0.6


def gradient_and_wind(region: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The wind against the geostrophic one: its turn to the left [degree] and its strength.

    The gradient is taken between neighbouring cells, from what was read alone.
    """
    turns, shares = [], []
    for at in range(0, 168, 12):
        (batch,) = batches("simulation:", region, at)
        latitude, longitude = np.asarray(batch.cells.latitude), np.asarray(batch.cells.longitude)
        row = np.rint((latitude.max() - latitude) * 10).astype(int)
        column = np.rint((longitude - longitude.min()) * 10).astype(int)
        field = np.full((row.max() + 1, column.max() + 1), np.nan)
        field[row, column] = batch.values["pressure"] / at_height(height(batch))
        step = np.radians(0.1) * EARTH_RADIUS
        # Over ten cells, so that the tenths of a pascal of the values do not show.
        south, east = np.full_like(field, np.nan), np.full_like(field, np.nan)
        south[5:-5] = (field[10:] - field[:-10]) / (10 * step)
        east[:, 5:-5] = (field[:, 10:] - field[:, :-10]) / (10 * step)
        scale = 1.2 * 2 * EARTH_ROTATION * np.sin(np.radians(latitude))
        u = south[row, column] / scale
        v = east[row, column] / np.cos(np.radians(latitude)) / scale
        geostrophic = u + 1j * v
        wind = np.asarray(batch.values["u10"]) + 1j * np.asarray(batch.values["v10"])
        clear = np.isfinite(u + v) & (np.abs(geostrophic) > 6)
        turns.append(np.degrees(np.angle(wind[clear] / geostrophic[clear])))
        shares.append(np.abs(wind[clear] / geostrophic[clear]))
    return np.concatenate(turns), np.concatenate(shares)


def test_southerly_wind_is_warmer_than_northerly(
    august: tuple[Batch, dict[str, NDArray[np.float64]]],
) -> None:
    _, values = august
    by_hour = values["temperature"].reshape(7, 24, -1)
    anomaly = (by_hour - by_hour.mean(axis=0)).reshape(168, -1)
    north = values["v10"]
    assert anomaly[north > 3].mean() - anomaly[north < -3].mean() > 2


def test_highs_and_lows_travel_east() -> None:
    """The pressure along 55 north is best seen again half a day later some degrees further on."""
    shifts = []
    with Simulation(
        "simulation:", Selection(region=parse_region("west=40,south=55,east=100,north=55.05"))
    ) as source:
        for at in range(0, 156, 12):
            line = []
            for slice_ in (source.slices()[at], source.slices()[at + 12]):
                (batch,) = source.read(slice_)
                line.append(batch.values["pressure"] / at_height(height(batch)))
            now, later = line
            match = [
                np.corrcoef(now[200:-200], later[200 + s : len(later) - 200 + s])[0, 1]
                for s in range(-200, 200, 5)
            ]
            shifts.append((np.argmax(match) * 5 - 200) / 10)
    assert 2 < np.median(shifts) < 15


def test_small_regions_give_what_they_hold() -> None:
    (batch,) = batches(region="LUX")
    assert 20 < len(batch) < 40
    assert countries.NAMES[batch.cells.country[0] or ""] == "Luxembourg"


def test_time_is_utc() -> None:
    first = Simulation("simulation:", Selection()).slices()[0].time_ns
    assert datetime.fromtimestamp(first / 1e9, UTC).isoformat() == "2025-08-10T00:00:00+00:00"

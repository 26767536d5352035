"""The DuckDB store: the contract of every store, and what is DuckDB's own."""

from __future__ import annotations

import itertools
import math
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import duckdb
import netCDF4
import numpy as np
import polars as pl
import pytest
import shapely

from climatestream.errors import StoreError, StoreUnavailable
from climatestream.model import Rows, cell_id
from climatestream.stores import duckdb_file
from climatestream.stores.duckdb import DuckDBStore
from climatestream.stores.duckdb_functions import EARTH_RADIUS_M
from climatestream.testing.rows import NOON_MS, Reading, rows
from climatestream.testing.stores import (
    BlockingStore,
    Crash,
    CrashingStore,
    FailingStore,
    RefusingStore,
    SlowStore,
    Stored,
    StoreTests,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Column: TypeAlias = NDArray[np.float64]

MS_PER_HOUR = 3_600_000


class TestDuckDBStore(StoreTests):
    """`duckdb:FILE` keeps the promises of a store."""

    @pytest.fixture
    def new_place(self, tmp_path: Path) -> Callable[[], Path]:
        numbers = itertools.count()
        return lambda: tmp_path / f"store{next(numbers)}.duckdb"

    def store(self, place: Path) -> DuckDBStore:
        return DuckDBStore(place, threads=1)

    def stored(self, place: Path) -> list[Stored]:
        with duckdb.connect(str(place), read_only=True) as connection:
            found = connection.execute(
                """SELECT data, epoch_ms("timestamp"), dataset, country, preliminary,
                    epoch_ms(published_at), source, "offset", geo_location, year,
                    epoch_ms(stored_at), cell FROM demo.climate_data"""
            ).fetchall()
        return [stored_row(row) for row in found]


def stored_row(row: tuple[Any, ...]) -> Stored:
    data, *columns, location, year, stored_at_ms, cell = row
    values = {name: value for name, value in data.items() if value is not None}
    latitude, longitude = values.pop("latitude"), values.pop("longitude")
    reading = Reading(values, latitude, longitude, *columns)
    assert reading.cell == cell
    return Stored(reading, location, year.replace(tzinfo=UTC), stored_at_ms)


@lru_cache
def square(cells: int) -> tuple[list[str], Column, Column]:
    """Ids, latitudes and longitudes of the cells of a square."""
    row, column = np.divmod(np.arange(cells), math.isqrt(cells))
    latitude, longitude = 45 + row * 0.1, 5 + column * 0.1
    places = zip(latitude.tolist(), longitude.tolist(), strict=True)
    return [cell_id(*place) for place in places], latitude, longitude


def field_of_rows(hour: int, cells: int) -> Rows:
    """One time of a square field: temperature is the cell's number plus the hour."""
    ids, latitude, longitude = square(cells)
    country: list[str | None] = [None] * cells
    return Rows(
        dataset=["simulation"] * cells,
        cell=ids,
        country=country,
        time_ms=np.full(cells, NOON_MS + hour * MS_PER_HOUR),
        latitude=latitude,
        longitude=longitude,
        preliminary=np.zeros(cells, dtype=bool),
        data={"temperature": np.arange(cells, dtype=np.float64) + hour},
        types={"temperature": "number"},
        published_at_ms=np.full(cells, NOON_MS),
        source=["climate/0"] * cells,
        offset=np.arange(cells) + hour * cells,
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.duckdb"


@pytest.fixture
def store(path: Path) -> Iterator[DuckDBStore]:
    with DuckDBStore(path) as store:
        yield store


def count(store: DuckDBStore) -> int:
    [[number]] = store.query("SELECT count(*) FROM demo.climate_data").rows
    assert isinstance(number, int)
    return number


# --------------------------------------------------------------------------------- the file


def test_a_file_called_demo_makes_no_query_ambiguous(tmp_path: Path) -> None:
    for _ in range(2):
        with DuckDBStore(tmp_path / "demo.duckdb") as store:
            store.write(rows(Reading()))
            assert count(store) == 1


def test_an_open_store_leaves_nothing_but_its_file(tmp_path: Path, path: Path) -> None:
    with DuckDBStore(path, memory_limit="64MB", threads=2) as store:
        spilling = "SELECT max(a) FROM (SELECT random() AS a FROM range(2000000) ORDER BY a DESC)"
        assert store.query(spilling).rows[0][0] < 1
        store.write(rows(Reading()))
    assert list(tmp_path.iterdir()) == [path]


def test_a_relative_path_survives_a_change_of_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with DuckDBStore("store.duckdb") as store:
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir("elsewhere")
        store.write(rows(Reading()))
    with DuckDBStore(tmp_path / "store.duckdb") as store:
        assert count(store) == 1


def test_what_write_answered_for_survives_a_crash(path: Path) -> None:
    code = f"""
import os
from climatestream.stores.duckdb import DuckDBStore
from climatestream.testing.rows import Reading, rows
store = DuckDBStore({str(path)!r}).open()
store.write(rows(Reading({{"temperature": 1.0, "soil": "dry"}})))
store.write(rows(Reading({{"temperature": 2.0}}, offset=1)))
os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    with DuckDBStore(path) as store:
        [[data]] = store.query("SELECT data FROM demo.climate_data").rows
        assert (data["temperature"], data["soil"]) == (2.0, "dry")


def make_text(path: Path) -> None:
    path.write_text("no database at all\n" * 1000)


def make_empty(path: Path) -> None:
    path.touch()


def make_other_program(path: Path) -> None:
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE invoices (id INTEGER); INSERT INTO invoices VALUES (1)")


def make_other_version(path: Path) -> None:
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE SCHEMA demo; CREATE TABLE demo.climate_data (cell VARCHAR)")


def make_truncated(path: Path) -> None:
    with DuckDBStore(path) as store:
        store.write(field_of_rows(0, 2500))
    path.write_bytes(path.read_bytes()[:20_000])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (make_text, "not a DuckDB file"),
        (make_empty, "not a DuckDB file"),
        (make_other_program, "of another program: it holds main.invoices"),
        (make_other_version, "lacks"),
        (make_truncated, "can't be opened"),
    ],
)
def test_a_file_that_is_not_ours_is_refused_and_left_as_it_was(
    tmp_path: Path, path: Path, make: Callable[[Path], None], words: str
) -> None:
    make(path)
    before = path.read_bytes()
    with pytest.raises(StoreError, match=words) as caught:
        DuckDBStore(path).open()
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_damage_inside_the_file_is_said_and_never_retried(path: Path) -> None:
    with DuckDBStore(path) as store:
        for hour in range(2):
            store.write(field_of_rows(hour, 31_000))
    content = bytearray(path.read_bytes())
    for block in range(300_000, len(content) - 300_000, 262_144):
        content[block : block + 64] = b"\xff" * 64
    path.write_bytes(content)
    with DuckDBStore(path) as store:
        for call in (store.write, store.find):
            with pytest.raises(StoreError, match="is damaged"):
                call(field_of_rows(1, 31_000))


def test_a_folder_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is a folder, expected a file"):
        DuckDBStore(tmp_path).open()


def test_a_missing_folder_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="does not exist: make it"):
        DuckDBStore(tmp_path / "nowhere" / "store.duckdb").open()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("which", ["file", "folder"])
def test_a_place_that_can_not_be_written_is_refused(
    path: Path, which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    DuckDBStore(path).__enter__().close()
    place = path if which == "file" else path.parent
    mode = place.stat().st_mode
    place.chmod(mode & ~0o222)
    if os.geteuid() == 0:  # who may write everything all the same
        monkeypatch.setattr(os, "access", lambda asked, _: asked != place)
    with pytest.raises(StoreError, match="can't be written by this user"):
        DuckDBStore(path).open()
    place.chmod(mode)


def test_an_empty_duckdb_file_becomes_a_store(path: Path) -> None:
    duckdb.connect(str(path)).close()
    with DuckDBStore(path) as store:
        assert count(store) == 0


def test_a_second_process_is_told_which_one_has_the_file(path: Path) -> None:
    code = f"""
from climatestream.stores.duckdb import DuckDBStore
with DuckDBStore({str(path)!r}):
    print("open", flush=True)
    input()
"""
    holder = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        before = path.read_bytes()
        with pytest.raises(StoreError, match=f"process {holder.pid} .*python") as caught:
            DuckDBStore(path).open()
        assert "\n" not in str(caught.value)
        assert path.read_bytes() == before
        holder.communicate("\n")
    assert holder.returncode == 0
    with DuckDBStore(path) as store:
        assert count(store) == 0


def test_a_second_store_in_this_process_is_refused(path: Path, store: DuckDBStore) -> None:
    with pytest.raises(StoreError, match="open in this process already"):
        DuckDBStore(path).open()
    store.write(rows(Reading()))
    assert count(store) == 1


def test_a_closed_store_says_so(path: Path) -> None:
    store = DuckDBStore(path)
    with store:
        pass
    store.close()
    for call in (lambda: store.query("SELECT 1"), lambda: store.write(rows(Reading()))):
        with pytest.raises(StoreError, match="is closed"):
            call()


# --------------------------------------------------------------------------------- failures


@pytest.mark.parametrize(
    "threshold", [pytest.param("64MB", id="log"), pytest.param("200KB", id="checkpoint")]
)
def test_a_full_disk_is_transient_and_what_was_answered_for_stays(
    path: Path, threshold: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit on the size of files stands in for the disk; what fails is told by `threshold`."""
    monkeypatch.setattr(duckdb_file, "CHECKPOINT_THRESHOLD", threshold)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    answered: list[int] = []

    def fill(store: DuckDBStore) -> None:
        for hour in range(len(answered), 100):
            assert store.write(field_of_rows(hour, 2500)) == []
            answered.append(hour)

    with DuckDBStore(path) as store:
        store.write(field_of_rows(0, 2500))
        resource.setrlimit(resource.RLIMIT_FSIZE, (800_000, limit[1]))
        try:
            for _ in range(2):
                with pytest.raises(StoreUnavailable, match="not available"):
                    fill(store)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        assert 0 < len(answered) < 30
        hours = len(answered) + 2
        for hour in range(hours):
            assert store.write(field_of_rows(hour, 2500)) == []
        assert count(store) == hours * 2500
    with DuckDBStore(path) as store:
        assert count(store) == hours * 2500


def test_closing_ends_a_query_under_way(path: Path) -> None:
    endless = "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE a.range * b.range = 7"
    store = DuckDBStore(path).open()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(store.query, endless)
        while not store._file._readers:
            assert not asked.done()
        store.close()
        with pytest.raises(StoreUnavailable):
            asked.result()
    with DuckDBStore(path) as again:
        assert count(again) == 0


def test_a_write_that_is_interrupted_leaves_nothing(
    store: DuckDBStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("climatestream.stores.duckdb.Merge.__call__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.write(rows(Reading({"soil": 1.0})))
    assert "soil" not in store.field_types()
    assert store.write(rows(Reading({"soil": "dry"}))) == []
    assert count(store) == 1


# -------------------------------------------------------------------------------- retention


def test_the_room_of_expired_readings_is_used_again(path: Path, store: DuckDBStore) -> None:
    cells, hours = 31_000, 4
    sizes = []
    for day in range(3):
        for hour in range(hours):
            store.write(field_of_rows(day * hours + hour, cells))
        store.expire("simulation", NOON_MS + (day + 1) * hours * MS_PER_HOUR)
        sizes.append(path.stat().st_size)
    assert count(store) == 0
    assert sizes[-1] <= 1.5 * sizes[0]


# ----------------------------------------------------------------------------------- fields


@pytest.mark.parametrize("cut", [0, 1, 2, 3, 4])
def test_a_name_that_differs_in_case_is_refused_whatever_the_cut(path: Path, cut: int) -> None:
    """The first row to name either settles which it is; a refused row settles nothing."""
    readings = [
        Reading({"Soil": 1.0, "soil": 2.0}, latitude=1.0),
        Reading({"soil": 3.0}, latitude=2.0),
        Reading({"SOIL": 4.0, "u10": 1.0}, latitude=3.0),
        Reading({"Temperature": 290.0}, latitude=4.0),
        Reading({"soil": 5.0, "É": 1.0, "é": 2.0}, latitude=5.0),
    ]
    refused = {}
    with DuckDBStore(path) as store:
        for start, end in ((0, cut), (cut, len(readings))):
            for refusal in store.write(rows(*readings[start:end])):
                assert not refusal.transient
                refused[start + refusal.row] = refusal.error
        found = store.query("SELECT data FROM demo.climate_data ORDER BY data['latitude']").rows
        names = set(store.field_types())
    assert sorted(refused) == [0, 2, 3]
    assert "'SOIL' differs from 'soil'" in refused[2]
    assert "'Temperature' differs from 'temperature'" in refused[3]
    assert [data.get("soil") for (data,) in found] == [3.0, 5.0]
    assert (found[1][0]["É"], found[1][0]["é"]) == (1.0, 2.0)
    assert {"soil", "É", "é"} <= names
    assert not {"Soil", "SOIL", "Temperature"} & names


def test_new_fields_come_into_a_table_that_is_larger_than_the_memory(tmp_path: Path) -> None:
    place = tmp_path / "large.duckdb"
    with DuckDBStore(place):
        pass
    with duckdb.connect(str(place)) as connection:
        connection.execute(
            """INSERT INTO demo.climate_data (dataset, cell, "timestamp", data)
            SELECT 'd', i::VARCHAR, make_timestamp(0), {temperature: random(), u10: random(),
                v10: random(), pressure: random(), latitude: random(), longitude: random()}
            FROM range(1_000_000) AS r(i)"""
        )
    with DuckDBStore(place, memory_limit="40MB") as store:
        assert store.write(rows(Reading({"soil": 1.0, "snow": 2.0, "rain": 3.0}))) == []
        assert store.write(rows(Reading({"ice": 1.0}, latitude=50.0))) == []
        assert {"soil", "snow", "rain", "ice"} <= set(store.field_types())
        assert count(store) == 1_000_002


def test_a_field_without_a_name_is_refused_alone(store: DuckDBStore) -> None:
    [refusal] = store.write(rows(Reading({"": 1.0}), Reading({"u10": 1.0}, latitude=50.0)))
    assert (refusal.row, refusal.transient) == (0, False)
    assert "without a name" in refusal.error
    assert count(store) == 1


def test_text_columns_may_be_polars_series(store: DuckDBStore) -> None:
    plain = rows(Reading({"station": "a"}), Reading({"u10": 1.0}, latitude=50.0, country=None))
    texts = ("dataset", "cell", "country", "source")
    series: dict[str, Any] = {name: pl.Series(getattr(plain, name)) for name in texts}
    series["data"] = {**plain.data, "station": pl.Series(plain.data["station"])}
    columns = replace(plain, **series)
    assert store.write(columns) == []
    assert store.query(
        "SELECT cell, country, data['station'] FROM demo.climate_data ORDER BY cell"
    ).rows == [("48.1000,11.6000", "DEU", "a"), ("50.0000,11.6000", None, None)]
    assert list(store.find(columns).present) == [True, True]


# ---------------------------------------------------------------------------------- queries


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1; SELECT 2",
        "WITH gone AS (DELETE FROM demo.climate_data RETURNING 1) SELECT * FROM gone",
        "EXPLAIN ANALYZE DELETE FROM demo.climate_data",
        "CREATE TEMP TABLE mine AS SELECT 1",
        "SET memory_limit = '1GB'",
        "PRAGMA database_list",
        "SELECT * FROM read_text('/etc/hostname')",
        "SELECT * FROM '/etc/hostname'",
        "SELECT * FROM glob('/*')",
        "ATTACH 'other.duckdb' AS other",
        "COPY (SELECT 1) TO 'out.csv'",
        "INSTALL spatial",
        "CHECKPOINT",
        "SELECT * FROM a_variable",
    ],
)
def test_a_query_reaches_nothing_but_the_tables(store: DuckDBStore, sql: str) -> None:
    a_variable = pl.DataFrame({"secret": [1]})  # noqa: F841 - DuckDB looks for it by its name
    store.write(rows(Reading()))
    with pytest.raises(StoreError):
        store.query(sql)
    assert count(store) == 1


def test_an_explanation_is_a_query(store: DuckDBStore) -> None:
    assert store.query("EXPLAIN SELECT * FROM demo.climate_data").rows


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DuckDBStore]:
    """A store that holds a field of 50 by 50 cells at one time, for queries."""
    with DuckDBStore(tmp_path_factory.mktemp("engine") / "engine.duckdb") as store:
        store.write(field_of_rows(0, 2500))
        yield store


def one(store: DuckDBStore, expression: str, parameters: tuple[Any, ...] = ()) -> Any:
    [[value]] = store.query(f"SELECT {expression}", parameters).rows
    return value


DATE_AND_TIME = "2025-08-09 06:07:08"


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("7 / 2", 3),
        ("7 / 2.0", 3.5),
        ("1.5", 1.5),
        ("(SELECT x FROM unnest([NULL, 1]) AS t(x) ORDER BY x DESC LIMIT 1)", None),
        ("(SELECT x FROM unnest([NULL, 1]) AS t(x) ORDER BY x LIMIT 1)", 1),
        # The values that CrateDB's documentation of these functions shows.
        ("(SELECT stddev(x) FROM unnest([1, 2, 3, 4, 5]) AS t(x))", 1.4142135623730951),
        ("(SELECT variance(x) FROM unnest([1, 2, 3, 4, 5]) AS t(x))", 2.0),
        ("within('POINT (9 9)', 'POLYGON ((5 5, 10 5, 10 10, 5 10, 5 5))')", True),
        ("(SELECT arbitrary(x) FROM unnest([4, 4]) AS t(x))", 4),
        ("(SELECT hyperloglog_distinct(x) FROM unnest([4, 4, 5]) AS t(x))", 2),
        ("latitude([11.5, 48.25])", 48.25),
        ("longitude([11.5, 48.25])", 11.5),
        ("latitude('POINT (11.5 48.25)')", 48.25),
        ("longitude('point(-11.5 48.25)')", -11.5),
        ("latitude(NULL)", None),
        ("within(NULL, 'POLYGON ((5 5, 10 5, 10 10, 5 10, 5 5))')", None),
        ("distance(NULL, 'POINT (1 2)')", None),
        ("date_format('%Y-%m-%d %H:%i:%s', '2025-08-09 06:07:08'::timestamp)", DATE_AND_TIME),
        ("date_format('%Y-%m-%d %T', '2025-08-09 06:07:08'::timestamp)", DATE_AND_TIME),
        ("date_format('%W, %e %M', '2025-08-09 06:07:08'::timestamp)", "Saturday, 9 August"),
        ("extract(epoch FROM '2025-08-10T00:00:01.5Z'::timestamp)", 1754784001.5),
    ],
)  # fmt: skip
def test_expressions_mean_what_cratedb_means(
    engine: DuckDBStore, expression: str, value: object
) -> None:
    assert one(engine, expression) == value


def test_distance_is_the_haversine_of_lucene(engine: DuckDBStore) -> None:
    documented = 152354.3209044634  # by CrateDB, of these points
    assert one(engine, "distance('POINT (10 20)', 'POINT (11 21)')") == pytest.approx(documented)
    assert one(engine, "distance([10.0, 20.0], [11.0, 21.0])") == pytest.approx(documented)
    quarter = math.pi / 2 * EARTH_RADIUS_M
    assert one(engine, "distance('POINT (0 0)', 'POINT (0 90)')") == pytest.approx(quarter)
    assert one(engine, "distance('POINT (-179.5 0)', 'POINT (179.5 0)')") == pytest.approx(
        quarter / 90
    )
    assert one(engine, "distance('POINT (1 2)', 'POINT (1 2)')") == 0


@pytest.mark.parametrize(
    ("width", "instant", "origin", "start"),
    [
        ("6 hours", "2025-08-10T07:59:59Z", "0", "2025-08-10T06:00:00Z"),
        ("6 hours", "2025-08-10T06:00:00Z", "0", "2025-08-10T06:00:00Z"),
        ("15 minutes", "1969-12-31T23:59:59Z", "0", "1969-12-31T23:45:00Z"),
        ("7 days", "1970-01-09T00:00:00Z", "0", "1970-01-08T00:00:00Z"),
        ("6 hours", "2025-08-10T07:59:59Z", "'2025-08-10T01:00:00Z'", "2025-08-10T07:00:00Z"),
        (
            "6 hours",
            "2025-08-10T00:59:59Z",
            "'2025-08-10T01:00:00Z'::timestamp",
            "2025-08-09T19:00:00Z",
        ),
        ("1 hour", "2025-08-10T00:59:59Z", "1800000", "2025-08-10T00:30:00Z"),
    ],
)
def test_date_bin_gives_the_start_of_the_bin(
    engine: DuckDBStore, width: str, instant: str, origin: str, start: str
) -> None:
    expression = f"date_bin('{width}'::interval, '{instant}'::timestamp, {origin})"
    assert one(engine, expression) == datetime.fromisoformat(start)


def test_now_is_utc_and_compares_with_the_times_of_the_tables(store: DuckDBStore) -> None:
    now_ms = int(datetime.now(UTC).timestamp() * 1000)
    store.write(rows(*(Reading(time_ms=now_ms - hours * MS_PER_HOUR) for hours in (0, 3))))
    for now in ("now()", "current_timestamp", "CURRENT_TIMESTAMP"):
        fresh = (
            f"SELECT count(*) FROM demo.climate_data WHERE timestamp > {now} - '1 hour'::interval"
        )
        assert store.query(fresh).rows == [(1,)]
        assert one(store, now).tzinfo is UTC


@pytest.mark.parametrize("size", [1, 2, 10, 99, 100])
def test_a_percentile_is_the_value_at_the_place_that_cratedb_takes(
    engine: DuckDBStore, size: int
) -> None:
    """Of up to 100 values its t-digest is exact: the value at floor(fraction * count)."""
    fractions = [0.0, 0.0013, 0.05, 0.25, 0.5, 0.8, 0.95, 0.9987, 1.0]
    expected = [float(min(int(fraction * size), size - 1)) for fraction in fractions]
    numbers = f"FROM (SELECT range AS x FROM range({size}) UNION ALL SELECT NULL)"
    assert engine.query(f"SELECT percentile(x, {fractions}) {numbers}").rows == [(expected,)]
    for fraction, value in zip(fractions, expected, strict=True):
        assert engine.query(f"SELECT percentile(x, {fraction}) {numbers}").rows == [(value,)]
        assert engine.query(f"SELECT percentile(x, ?) {numbers}", [fraction]).rows == [(value,)]


def test_a_percentile_of_nothing_is_null(engine: DuckDBStore) -> None:
    nothing = "FROM (SELECT NULL::DOUBLE AS x FROM range(3))"
    assert engine.query(f"SELECT percentile(x, 0.5), percentile(x, [0.5]) {nothing}").rows == [
        (None, None)
    ]


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("within([1.0, 2.0], 'LINESTRING(0 0, 1 1)')", "expected a shape as POLYGON"),
        ("within([1.0, 2.0], 'POLYGON((0 0, 1, 2 2))')", "expected a shape as POLYGON"),
        ("within([1.0, 2.0], 'POLYGON((a b, c d, e f))')", "expected a shape as POLYGON"),
        ("latitude('POINT(1)')", r"expected POINT\(longitude latitude\)"),
        ("(SELECT percentile(x, 1.5) FROM range(3) AS t(x))", "expected 0 to 1"),
        ("(SELECT percentile(x, [-0.5]) FROM range(3) AS t(x))", "expected 0 to 1"),
    ],
)
def test_a_wrong_argument_of_a_function_is_said(
    engine: DuckDBStore, expression: str, words: str
) -> None:
    with pytest.raises(StoreError, match=words):
        one(engine, expression)


SHAPES = {
    "convex": "POLYGON((5.95 46.02, 11.03 45.07, 9.04 49.06, 5.95 46.02))",
    "concave": "POLYGON((5.01 45.02, 9.98 45.03, 9.97 49.93, 7.51 46.04, 5.02 49.96, 5.01 45.02))",
    "hole": "POLYGON((5.01 45.02, 9.92 45.02, 9.92 49.92, 5.01 49.92, 5.01 45.02), "
    "(6.51 46.52, 8.42 46.52, 8.42 48.42, 6.51 48.42, 6.51 46.52))",
    "two, one with a hole": "multipolygon (((5.01 45.02,6.02 45.02,6.02 46.02,5.01 45.02)),"
    "((7.01 47.02, 9.9e0 47.02, 9.92 49.92, 7.01 49.92, 7.01 47.02),"
    " (8.01 48.02 , 8.92 48.02, 8.92 48.92, 8.01 48.02)))",
}


@pytest.mark.parametrize("shape", SHAPES)
def test_within_agrees_with_shapely(engine: DuckDBStore, shape: str) -> None:
    field = field_of_rows(0, 2500)
    inside = shapely.contains_xy(
        shapely.from_wkt(SHAPES[shape].upper()), np.array(field.longitude), np.array(field.latitude)
    )
    assert 0 < inside.sum() < len(field)
    sql = "SELECT cell FROM demo.climate_data WHERE within(geo_location, {}) ORDER BY cell"
    expected = sorted(itertools.compress(field.cell, inside))
    for found in (
        engine.query(sql.format(f"'{SHAPES[shape]}'")),
        engine.query(sql.format("?"), [SHAPES[shape]]),
    ):
        assert [cell for (cell,) in found.rows] == expected
    counted = (
        f"SELECT within(geo_location, '{SHAPES[shape]}') AS w, count(*) FROM demo.climate_data"
    )
    assert dict(engine.query(f"{counted} GROUP BY w").rows) == {
        True: inside.sum(),
        False: (~inside).sum(),
    }


def test_the_names_inside_a_function_are_not_taken_for_the_callers(engine: DuckDBStore) -> None:
    """Columns of the caller's that are named as the macro's own expressions name theirs."""
    found = engine.query(
        "SELECT within([x, y], 'POLYGON ((5 5, 10 5, 10 10, 5 10, 5 5))'), "
        "distance([x, y], [point, shape]), percentile(fraction, [0.5]) "
        "FROM (SELECT 9.0 AS x, 8.0 AS y, 9.0 AS point, 8.0 AS shape, 4.0 AS fraction) GROUP BY ALL"
    )
    assert found.rows == [(True, 0.0, [4.0])]


# ---------------------------------------------------------------- the reference's own queries

MUNICH = (11.576, 48.137)
FROM, TO = "2025-08-10T00:00:00Z", "2025-08-12T23:59:59Z"
TEMPERATURE, PRESSURE = "data['temperature']", "data['pressure']"
WIND = "sqrt(data['u10']*data['u10'] + data['v10']*data['v10'])"

_ANGLES = np.linspace(0, 2 * np.pi, 28)
CIRCLE = np.round(
    np.column_stack([MUNICH[0] + 0.9 * np.sin(_ANGLES), MUNICH[1] + 0.45 * np.cos(_ANGLES)]), 3
)
POLYGON = f"POLYGON(({', '.join(f'{lon} {lat}' for lon, lat in CIRCLE.tolist())}))"
NEAR_MUNICH = f" AND within(geo_location, '{POLYGON}')"

MAP = (
    "SELECT timestamp as time, latitude(geo_location) as latitude, "
    "longitude(geo_location) as longitude, {value} as {name} "
    'FROM demo.climate_data WHERE $__timeFilter("timestamp"){near} ORDER BY timestamp'
)
WIND_MAP = (
    "SELECT timestamp as time, latitude(geo_location) as latitude, "
    "longitude(geo_location) as longitude, {value} AS {name} "
    "FROM demo.climate_data WHERE timestamp BETWEEN $__timeFrom() AND $__timeTo(){near} "
    "ORDER BY timestamp"
)
SERIES = (
    'SELECT timestamp as ts, min({value}) as "min", max({value}) as "max", avg({value}) as "avg" '
    'FROM demo.climate_data WHERE $__timeFilter("timestamp"){near} '
    "GROUP BY timestamp ORDER BY timestamp"
)
VALUES = {"temperature": TEMPERATURE, "pressure": PRESSURE, "wind_speed": WIND}


def as_grafana_sends_it(template: str, name: str, near: str) -> str:
    """The query with Grafana 12.3's macros expanded."""
    sql = template.format(value=VALUES[name], name=name, near=near)
    sql = sql.replace('$__timeFilter("timestamp")', f"\"timestamp\" BETWEEN '{FROM}' AND '{TO}'")
    return sql.replace("$__timeFrom()", f"'{FROM}'").replace("$__timeTo()", f"'{TO}'")


@pytest.fixture(scope="module")
def germany(era5: Path) -> dict[str, Column]:
    """Germany's five days as flat columns: time_ms, latitude, longitude, and the values stored."""
    files = {
        "temperature": ("2m_temperature", "t2m"),
        "u10": ("10m_u_component_of_wind", "u10"),
        "v10": ("10m_v_component_of_wind", "v10"),
        "pressure": ("surface_pressure", "sp"),
    }
    columns: dict[str, Column] = {}
    for name, (file, short) in files.items():
        with netCDF4.Dataset(era5 / "germany-land-daily" / f"{file}_0_daily-mean.nc") as dataset:
            values = np.ma.filled(dataset[short][:].astype(np.float64), np.nan)
            time_ms = np.asarray(dataset["valid_time"][:]) * MS_PER_HOUR * 24 + NOON_MS
            time_ms -= time_ms[0] - (NOON_MS - 12 * MS_PER_HOUR)
            axes = (
                time_ms,
                np.asarray(dataset["latitude"][:]),
                np.asarray(dataset["longitude"][:]),
            )
        columns[name] = values.ravel() - (273.15 if name == "temperature" else 0.0)
    for name, axis in zip(
        ("time_ms", "latitude", "longitude"), np.meshgrid(*axes, indexing="ij"), strict=True
    ):
        columns[name] = axis.ravel()
    land = np.isfinite(columns["temperature"])
    columns = {name: column[land] for name, column in columns.items()}
    columns["wind_speed"] = np.sqrt(columns["u10"] ** 2 + columns["v10"] ** 2)
    return columns


@pytest.fixture(scope="module")
def german_store(
    germany: dict[str, Column], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DuckDBStore]:
    size = len(germany["time_ms"])
    places = zip(germany["latitude"].tolist(), germany["longitude"].tolist(), strict=True)
    names = ("temperature", "u10", "v10", "pressure")
    with DuckDBStore(tmp_path_factory.mktemp("germany") / "germany.duckdb") as store:
        refused = store.write(
            Rows(
                dataset=["era5-land/daily-mean"] * size,
                cell=[cell_id(*place) for place in places],
                country=["DEU"] * size,
                time_ms=germany["time_ms"].astype(np.int64),
                latitude=germany["latitude"],
                longitude=germany["longitude"],
                preliminary=np.zeros(size, dtype=bool),
                data={name: germany[name] for name in names},
                types=dict.fromkeys(names, "number"),
                published_at_ms=np.full(size, NOON_MS),
                source=["climate/0"] * size,
                offset=np.arange(size),
            )
        )
        assert refused == []
        assert count(store) == size == 31_275
        yield store


def chosen(germany: dict[str, Column], near: str) -> dict[str, Column]:
    """The readings that a query of the first three days asks for, by time."""
    kept = germany["time_ms"] < NOON_MS + 60 * MS_PER_HOUR
    if near:
        circle = shapely.Polygon(CIRCLE)
        kept &= shapely.contains_xy(circle, germany["longitude"], germany["latitude"])
    assert 0 < kept.sum() < len(kept)
    order = np.argsort(germany["time_ms"][kept], kind="stable")
    return {name: column[kept][order] for name, column in germany.items()}


NEAR = pytest.mark.parametrize("near", ["", NEAR_MUNICH], ids=["everywhere", "near Munich"])


@pytest.mark.parametrize("name", VALUES)
@NEAR
def test_the_references_maps_run_unchanged(
    germany: dict[str, Column], german_store: DuckDBStore, name: str, near: str
) -> None:
    template = WIND_MAP if name == "wind_speed" else MAP
    answer = german_store.query(as_grafana_sends_it(template, name, near))
    expected = chosen(germany, near)
    assert answer.columns == ("time", "latitude", "longitude", name)
    times = [row[0] for row in answer.rows]
    assert times == sorted(times)
    found = np.array([(time.timestamp() * 1000, *rest) for time, *rest in answer.rows])
    wanted = np.column_stack([expected[n] for n in ("time_ms", "latitude", "longitude", name)])
    assert found.shape == wanted.shape
    np.testing.assert_array_equal(in_order(found)[:, :3], in_order(wanted)[:, :3])
    np.testing.assert_allclose(in_order(found)[:, 3], in_order(wanted)[:, 3], rtol=1e-15)


def in_order(table: Column) -> Column:
    """The rows sorted by time, latitude and longitude."""
    return table[np.lexsort((table[:, 2], table[:, 1], table[:, 0]))]


@pytest.mark.parametrize("name", VALUES)
@NEAR
def test_the_references_series_run_unchanged(
    germany: dict[str, Column], german_store: DuckDBStore, name: str, near: str
) -> None:
    answer = german_store.query(as_grafana_sends_it(SERIES, name, near))
    expected = chosen(germany, near)
    assert answer.columns == ("ts", "min", "max", "avg")
    assert len(answer.rows) == 3
    for day, (time, *found) in enumerate(answer.rows):
        assert time == datetime(2025, 8, 10 + day, tzinfo=UTC)
        values = expected[name][expected["time_ms"] == time.timestamp() * 1000]
        assert found == pytest.approx([values.min(), values.max(), values.mean()], rel=1e-12)


# -------------------------------------------------------------------------- faulty doubles


@pytest.fixture
def closed(path: Path) -> DuckDBStore:
    return DuckDBStore(path, threads=1)


def test_a_failing_store_fails_before_the_write_as_often_as_it_is_told(
    closed: DuckDBStore,
) -> None:
    with FailingStore(closed, times=2) as store:
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                store.write(rows(Reading()))
            assert count(closed) == 0
        assert store.write(rows(Reading())) == []
        assert count(closed) == 1


def test_a_failing_store_fails_only_in_the_calls_it_is_told(closed: DuckDBStore) -> None:
    with FailingStore(closed, calls=["bury"]) as store:
        assert store.write(rows(Reading())) == []
        with pytest.raises(StoreUnavailable):
            store.bury([])


def test_a_crashing_store_has_written_when_it_dies(closed: DuckDBStore) -> None:
    with CrashingStore(closed) as store:
        with pytest.raises(Crash):
            store.write(rows(Reading()))
        assert count(closed) == 1
        assert store.write(rows(Reading())) == []
        assert count(closed) == 1


@pytest.mark.parametrize("transient", [True, False])
def test_a_refusing_store_stores_the_other_rows(closed: DuckDBStore, transient: bool) -> None:
    readings = [Reading({"temperature": float(n)}, latitude=n, offset=n) for n in range(4)]
    readings.append(Reading({"": 1.0}, offset=9))
    with RefusingStore(closed, {1, 2}, transient=transient, times=1) as store:
        refused = store.write(rows(*readings))
        assert [(answer.row, answer.transient) for answer in refused] == [
            (1, transient),
            (2, transient),
            (4, False),
        ]
        assert count(closed) == 2
        assert [answer.row for answer in store.write(rows(*readings))] == [4]
        assert count(closed) == 4


def test_a_blocking_store_holds_the_call_until_it_is_released(closed: DuckDBStore) -> None:
    with BlockingStore(closed) as store, ThreadPoolExecutor(1) as pool:
        writing = pool.submit(store.write, rows(Reading()))
        store.waiting.wait()
        assert count(closed) == 0
        assert not writing.done()
        store.release()
        assert writing.result() == []
        assert count(closed) == 1


def test_a_slow_store_answers_late_what_is_done_already(closed: DuckDBStore) -> None:
    answered, asleep = threading.Event(), threading.Event()

    def sleep(delay_s: float) -> None:
        assert delay_s == 3.0
        asleep.set()
        answered.wait()

    with SlowStore(closed, 3.0, sleep=sleep) as store, ThreadPoolExecutor(1) as pool:
        writing = pool.submit(store.write, rows(Reading()))
        asleep.wait()
        assert count(closed) == 1
        answered.set()
        assert writing.result() == []

"""The embedded page: what it shows of a store, how it stays live, and whom it answers."""

from __future__ import annotations

import io
import json
import re
import signal
import socket
import threading
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import numpy as np
import pytest
from PIL import Image
from websockets import Origin
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

import climatestream.web
from climatestream.colors import COLORS, Scale
from climatestream.errors import StoreUnavailable, UsageError
from climatestream.model import DeadLetter, Rows, cell_id
from climatestream.ports import Description, PipelineRow
from climatestream.stores.open import open_store
from climatestream.variables import find
from climatestream.web import fields
from climatestream.web.access import HEADERS
from climatestream.web.app import create_app
from climatestream.web.field import LONGEST_SIDE, Picture, draw
from climatestream.web.looks import BEAT_S
from climatestream.web.pace import IDLE_S
from climatestream.web.page import Page
from climatestream.web.server import Server

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from websockets.sync.client import ClientConnection

    from climatestream.model import FieldType
    from climatestream.ports import Answer, Store

    Floats = NDArray[np.float64]

STATIC = Path(climatestream.web.__file__).parent / "static"
NOON = datetime(2025, 8, 12, 12, tzinfo=UTC)
TENTHS = Scale("rain", (0.0, 0.5, 1.0))


class Clock:
    """Seconds since the epoch that pass when a test says so."""

    def __init__(self) -> None:
        self.now = NOON.timestamp()

    def __call__(self) -> float:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += seconds


class Counting:
    """A store that counts the queries that reach it, and fails when told to."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.queries = 0
        self.down = False

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> Answer:
        self.queries += 1
        if self.down:
            raise StoreUnavailable("the store does not answer")
        return self._store.query(sql, parameters)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class Down:
    """A store that never answers."""

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> Answer:
        raise StoreUnavailable(f"no answer to {sql} with {parameters}")

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the page only asks: {name}")


class Browser:
    """Asks the application without a network."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._app = create_app(Page(store, clock))

    def get(self, address: str, **said: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self._app)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as to:
                return await to.get(address, **said)

        return anyio.run(ask)


class Live:
    """The WebSocket of a page that is open in a browser."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    def ask(self, **said: str | None) -> None:
        self.send(json.dumps(said))

    def send(self, text: str) -> None:
        self._connection.send(text)

    def answer(self) -> dict[str, Any]:
        message = self._connection.recv(timeout=30.0)
        assert isinstance(message, bytes)
        length = int.from_bytes(message[:4], "little")
        answer: dict[str, Any] = json.loads(message[4 : 4 + length])
        self.field = message[4 + length :]
        return answer


@contextmanager
def opened(server: Server, origin: str | None = None) -> Iterator[Live]:
    address = f"{server.url.replace('http', 'ws')}/live"
    with connect(address, origin=Origin(origin or server.url)) as connection:
        yield Live(connection)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(f"duckdb:{tmp_path / 'page.duckdb'}") as opened:
        yield opened


@pytest.fixture
def page(store: Store, clock: Clock) -> Page:
    return Page(store, clock)


@pytest.fixture
def browser(store: Store, clock: Clock) -> Browser:
    return Browser(store, clock)


@pytest.fixture
def live(store: Store, clock: Clock) -> Iterator[Live]:
    with Server(store, port=0, clock=clock) as server, opened(server) as live:
        yield live


def put(
    store: Store,
    dataset: str,
    at: datetime,
    data: Mapping[str, list[float] | list[str]],
    *,
    offset: int = 0,
) -> None:
    """Store readings of cells on the grid of whole tenths, from 50 N 10 E to the east."""
    n = len(next(iter(data.values())))
    longitude = [10.0 + i / 10.0 for i in range(n)]
    types: dict[str, FieldType] = {
        name: "text" if any(isinstance(value, str) for value in column) else "number"
        for name, column in data.items()
    }
    refused = store.write(
        Rows(
            dataset=[dataset] * n,
            cell=[cell_id(50.0, lon) for lon in longitude],
            country=["DEU"] * n,
            time_ms=[round(at.timestamp() * 1000)] * n,
            latitude=[50.0] * n,
            longitude=longitude,
            preliminary=[False] * n,
            data={**data, "latitude": [50.0] * n, "longitude": longitude},
            types={**types, "latitude": "number", "longitude": "number"},
            published_at_ms=[round(at.timestamp() * 1000)] * n,
            source=["readings/0"] * n,
            offset=list(range(offset, offset + n)),
        )
    )
    assert refused == []


def pipeline_row(at: datetime, partition: int, **said: Any) -> PipelineRow:
    values: dict[str, Any] = {
        "time_ms": round(at.timestamp() * 1000),
        "instance": "here:1",
        "topic": "readings",
        "partition": partition,
        "offset": 90,
        "high_water": 100,
        "rows": 500,
        "batch_ms": 2.0,
        "dead": 0,
        "errors": 0,
        "stored_p50_ms": 10.0,
        "stored_p95_ms": 20.0,
        "stored_p99_ms": 30.0,
    }
    return PipelineRow(**{**values, **said})


def pixels(png: bytes) -> NDArray[np.uint8]:
    """A picture as RGBA, shape (rows from north, columns from west, 4)."""
    return np.array(Image.open(io.BytesIO(png)).convert("RGBA"))


def color(name: str, stop: int) -> list[int]:
    """A stop of a scale as RGBA."""
    return [*bytes.fromhex(COLORS[name][stop][1:]), 255]


# ------------------------------------------------------------------------------ the picture


def drawn(latitude: list[float], longitude: list[float], values: list[float]) -> Picture:
    return draw(np.array(latitude), np.array(longitude), np.array(values), TENTHS)


def test_a_picture_has_a_pixel_a_cell_in_the_colours_of_the_scale_north_up() -> None:
    picture = drawn([50.0, 50.0, 50.1], [10.0, 10.1, 10.1], [0.0, 0.5, 1.0])
    assert pixels(picture.png).tolist() == [
        [[128, 128, 128, 0], color("rain", -1)],
        [color("rain", 0), color("rain", 8)],
    ]
    edges = (picture.south, picture.north, picture.west, picture.east)
    assert edges == pytest.approx((49.95, 50.15, 9.95, 10.15))


def test_a_missing_value_is_transparent_and_one_beyond_the_scale_has_its_last_colour() -> None:
    picture = drawn([50.0] * 3, [10.0, 10.1, 10.2], [-9.0, np.nan, 9.0])
    assert pixels(picture.png).tolist() == [
        [color("rain", 0), [128, 128, 128, 0], color("rain", -1)]
    ]


def test_a_cell_of_another_file_with_noise_in_its_coordinates_is_the_same_pixel() -> None:
    picture = drawn([50.0, 50.1, 50.2], [12.7, 12.700000000000001, 12.8], [0.0, 1.0, 0.0])
    assert pixels(picture.png).shape == (3, 2, 4)


def test_rows_and_columns_without_a_cell_stay_empty() -> None:
    picture = drawn([50.0, 50.1, 50.5], [10.0, 10.1, 10.4], [0.0, 0.0, 0.0])
    assert pixels(picture.png).shape == (6, 5, 4)
    assert (pixels(picture.png)[..., 3] == 255).sum() == 3


def test_a_field_across_the_date_line_is_drawn_in_one_piece() -> None:
    picture = drawn([0.0] * 4, [-180.0, -179.9, 179.8, 179.9], [0.0, 0.0, 1.0, 1.0])
    assert pixels(picture.png)[0].tolist() == [color("rain", -1)] * 2 + [color("rain", 0)] * 2
    assert (picture.west, picture.east) == pytest.approx((179.75, 180.15))


def test_the_whole_globe_begins_at_the_date_line() -> None:
    longitude = np.arange(-180.0, 180.0, 20.0)
    picture = draw(np.zeros(18), longitude, np.linspace(0.0, 1.0, 18), TENTHS)
    assert (picture.west, picture.east) == pytest.approx((-190.0, 170.0))
    assert pixels(picture.png)[0, 0].tolist() == color("rain", 0)


def test_a_single_cell_is_a_picture() -> None:
    assert pixels(drawn([50.0], [10.0], [1.0]).png).shape == (1, 1, 4)


def test_places_on_no_grid_make_no_picture_of_any_size() -> None:
    chance = np.random.default_rng(0)
    place = chance.uniform(0.0, 50.0, (2, 2000))
    height, width, _ = pixels(draw(place[0], place[1], np.zeros(2000), TENTHS).png).shape
    assert max(height, width) <= LONGEST_SIDE + 1


def test_a_real_files_grid_that_lies_beside_the_tenths_has_no_seams(era5: Path) -> None:
    import netCDF4

    with netCDF4.Dataset(era5 / "germany-land-daily/2m_temperature_0_daily-mean.nc") as file:
        field = np.ma.filled(file["t2m"][0].astype(np.float64), np.nan) - 273.15
        latitude, longitude = (file[name][:].data for name in ("latitude", "longitude"))
    land = np.isfinite(field)
    y, x = np.meshgrid(latitude, longitude, indexing="ij")
    picture = draw(y[land], x[land], field[land], find("temperature").scale)
    np.testing.assert_array_equal(pixels(picture.png)[..., 3] == 255, land)


# --------------------------------------------------------------------- what the page shows


def test_an_empty_store_shows_that_nothing_has_arrived(page: Page) -> None:
    state = page.state()
    assert (state.dataset, state.frame, state.readings, state.pace) == (None, None, 0, None)


def test_the_newest_field_is_shown_in_the_units_that_people_read(store: Store, page: Page) -> None:
    put(store, "era5-land/hourly", NOON - timedelta(hours=1), {"pressure": [90_000.0]})
    put(store, "era5-land/hourly", NOON, {"pressure": [100_000.0, 101_000.0, 102_600.0]})
    state = page.state()
    assert state.dataset == "era5-land/hourly"
    assert state.variable == "pressure"
    assert state.frame is not None
    assert state.legend is not None
    assert state.frame.time == NOON
    assert (state.frame.low, state.frame.mean, state.frame.high) == pytest.approx(
        (1000.0, 1012.0, 1026.0)
    )
    assert state.frame.cells == 3
    assert (state.frame.west, state.frame.east) == pytest.approx((9.95, 10.25))
    assert state.legend.unit == "hPa"
    assert state.legend.ticks == ("500", "700", "850", "950", "1000", "1025", "1050")
    assert state.readings == 4


def test_the_picture_changes_when_a_newer_time_is_stored(
    store: Store, clock: Clock, browser: Browser
) -> None:
    put(store, "simulation", NOON, {"temperature": [10.0, 20.0]})
    first = browser.get("/state").json()["frame"]
    put(store, "simulation", NOON + timedelta(hours=1), {"temperature": [20.0, 30.0]})
    clock.pass_(BEAT_S)
    second = browser.get("/state").json()["frame"]
    assert first["time"] < second["time"]
    pictures = [browser.get(frame["picture"]) for frame in (first, second)]
    assert {answer.headers["content-type"] for answer in pictures} == {"image/png"}
    shades = [pixels(answer.content)[0].tolist() for answer in pictures]
    assert shades[0][1] == shades[1][0]
    assert shades[0][0] != shades[1][0]


def test_a_picture_changes_when_readings_of_its_time_arrive_late(
    store: Store, clock: Clock, page: Page
) -> None:
    put(store, "simulation", NOON, {"temperature": [10.0, 20.0]})
    first = page.png("simulation", "temperature", NOON)
    put(store, "simulation", NOON, {"temperature": [10.0, 20.0, 30.0]}, offset=2)
    clock.pass_(BEAT_S)
    state = page.state()
    assert state.frame is not None
    assert state.frame.cells == 3
    assert pixels(first).shape[1] == 2
    assert pixels(page.png("simulation", "temperature", NOON)).shape[1] == 3


def test_a_time_that_is_still_being_stored_is_shown_when_it_is_whole(
    store: Store, clock: Clock, page: Page
) -> None:
    def cells_shown() -> tuple[datetime, int]:
        clock.pass_(BEAT_S)
        frame = page.state().frame
        assert frame is not None
        return frame.time, frame.cells

    later = NOON + timedelta(seconds=1)
    put(store, "simulation", NOON, {"temperature": [1.0, 2.0, 3.0, 4.0]})
    assert cells_shown() == (NOON, 4)
    put(store, "simulation", later, {"temperature": [1.0, 2.0]})
    assert cells_shown() == (NOON, 4)
    put(store, "simulation", later, {"temperature": [1.0, 2.0, 3.0]}, offset=2)
    assert cells_shown() == (NOON, 4)
    put(store, "simulation", later, {"temperature": [1.0, 2.0, 3.0, 4.0]}, offset=5)
    assert cells_shown() == (later, 4)


def test_a_time_with_fewer_cells_is_shown_when_it_stops_growing(
    store: Store, clock: Clock, page: Page
) -> None:
    put(store, "simulation", NOON, {"temperature": [1.0, 2.0]})
    page.state()
    put(store, "simulation", NOON + timedelta(hours=1), {"temperature": [1.0]})
    times = []
    for _ in range(2):
        clock.pass_(BEAT_S)
        frame = page.state().frame
        assert frame is not None
        times.append(frame.time)
    assert times == [NOON, NOON + timedelta(hours=1)]


def test_a_stream_quicker_than_the_page_is_followed(store: Store, clock: Clock, page: Page) -> None:
    """Each newest time is caught half stored; the one before it is whole."""
    put(store, "simulation", NOON, {"temperature": [1.0, 2.0]})
    page.state()
    shown = []
    for second in range(1, 5):
        at = NOON + timedelta(seconds=second)
        put(store, "simulation", at, {"temperature": [1.0]})
        clock.pass_(BEAT_S)
        frame = page.state().frame
        assert frame is not None
        shown.append((frame.time, frame.cells))
        put(store, "simulation", at, {"temperature": [1.0, 2.0]}, offset=1)
    assert shown == [
        (NOON, 2),
        *((NOON + timedelta(seconds=second), 2) for second in range(1, 4)),
    ]


def test_simulated_data_is_never_shown_without_saying_so(store: Store, page: Page) -> None:
    put(store, "simulation", NOON, {"temperature": [1.0], "original_timestamp": [1.7e12]})
    assert page.state().notice == "simulated data, not ERA5-Land"


def test_replayed_data_says_of_when_it_is(store: Store, page: Page) -> None:
    original_ms = datetime(2025, 8, 12, tzinfo=UTC).timestamp() * 1000.0
    data: dict[str, Any] = {"temperature": [1.0], "original_timestamp": [original_ms]}
    put(store, "era5-land/daily-mean/replay", NOON, data)
    state = page.state()
    assert state.notice == "data of 2025-08-12 00:00 UTC, replayed"
    assert [choice.name for choice in state.variables] == ["temperature"]


def test_real_data_at_its_own_time_needs_no_notice(store: Store, page: Page) -> None:
    put(store, "era5-land/daily-mean", NOON, {"temperature": [1.0]})
    assert page.state().notice is None


def test_variables_are_offered_in_the_order_of_the_registry_with_label_and_unit(
    store: Store, page: Page
) -> None:
    store.describe([Description("era5/hourly", "u100", "m s-1", "wind at 100 m")])
    put(
        store,
        "era5/hourly",
        NOON,
        {"u100": [3.0], "u10": [2.0], "temperature": [1.0], "note": ["a text is no variable"]},
    )
    choices = page.state().variables
    assert [(c.name, c.label, c.unit) for c in choices] == [
        ("temperature", "Air temperature, 2 m", "°C"),
        ("u10", "Wind to the east, 10 m", "m/s"),
        ("u100", "u100", "m s-1"),
    ]


def test_a_variable_that_only_older_times_have_can_be_chosen_too(
    store: Store, clock: Clock, browser: Browser
) -> None:
    put(store, "simulation", NOON - timedelta(hours=1), {"pressure": [1e5]})
    put(store, "simulation", NOON, {"temperature": [1.0]})
    store.describe(
        [Description("simulation", name, "", "") for name in ("temperature", "pressure")]
    )
    names = [choice.name for choice in Page(store, clock).state().variables]
    assert names == ["temperature", "pressure"]
    said = {"dataset": "simulation", "variable": "pressure"}
    assert browser.get("/state", params=said).json()["frame"] is None
    assert browser.get("/series", params=said).json()["avg"] == [1000.0]


def test_a_variable_that_the_registry_does_not_know_has_a_scale_that_only_grows(
    store: Store, clock: Clock, page: Page
) -> None:
    def ticks() -> list[float]:
        legend = page.state("era5/hourly", "u100").legend
        assert legend is not None
        return [float(tick.replace("\N{MINUS SIGN}", "-")) for tick in legend.ticks]

    put(store, "era5/hourly", NOON, {"u100": [2.0, 7.0]})
    first = ticks()
    assert first[0] <= 2.0
    assert first[-1] >= 7.0
    for hour, values in enumerate(([3.0, 4.0], [-12.0, 5.0], [0.0, 1.0]), 1):
        put(store, "era5/hourly", NOON + timedelta(hours=hour), {"u100": values})
        clock.pass_(BEAT_S)
        if hour == 1:
            assert ticks() == first
    widest = ticks()
    assert widest == ticks()
    assert len(widest) >= 3


def test_a_field_that_the_registry_does_not_know_may_have_any_name(
    store: Store, page: Page
) -> None:
    put(store, "unstated", NOON, {"it's": [1.0, 2.0]})
    frame = page.state("unstated", "it's").frame
    assert frame is not None
    assert frame.high == 2.0


def test_what_is_not_there_is_replaced_and_a_note_says_so(store: Store, page: Page) -> None:
    put(store, "simulation", NOON, {"temperature": [1.0]})
    other = page.state("era5-land/hourly", None)
    assert (other.dataset, other.note) == (
        "simulation",
        "there is no dataset era5-land/hourly in this store",
    )
    another = page.state("simulation", "snowfall")
    assert (another.variable, another.note) == (
        "temperature",
        "there is no variable snowfall in simulation",
    )


def test_a_time_without_a_value_of_the_variable_has_no_picture_but_the_legend(
    store: Store, clock: Clock, browser: Browser
) -> None:
    put(store, "simulation", NOON, {"temperature": [1.0], "u10": [1.0]})
    browser.get("/state")
    later = NOON + timedelta(hours=1)
    put(store, "simulation", later, {"temperature": [1.0]})
    clock.pass_(BEAT_S)
    state = browser.get("/state", params={"dataset": "simulation", "variable": "u10"}).json()
    assert state["variable"] == "u10"
    assert state["frame"] is None
    assert state["legend"]["unit"] == "m/s"
    missing = browser.get(
        "/field.png",
        params={"dataset": "simulation", "variable": "u10", "time": later.isoformat()},
    )
    assert (missing.status_code, missing.json()["error"]) == (
        404,
        f"no u10 of dataset simulation at {later.isoformat()}",
    )


def test_readings_that_expire_while_the_page_is_open_are_gone_from_it(
    store: Store, clock: Clock, page: Page
) -> None:
    put(store, "simulation", NOON, {"temperature": [1.0]})
    assert page.state().dataset == "simulation"
    store.expire("simulation", round((NOON + timedelta(hours=1)).timestamp() * 1000))
    clock.pass_(BEAT_S)
    assert page.state("simulation", "temperature").frame is None
    clock.pass_(BEAT_S)
    assert page.state("simulation", "temperature").datasets == ()


def test_a_field_with_more_cells_than_a_picture_needs_is_drawn_in_boxes(
    store: Store, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fields, "MAX_CELLS", 10)
    values = [float(i) for i in range(100)]
    put(store, "simulation", NOON, {"temperature": values})
    frame = page.state().frame
    assert frame is not None
    assert (frame.low, frame.mean, frame.high, frame.cells) == (0.0, 49.5, 99.0, 100)
    picture = pixels(page.png("simulation", "temperature", NOON))
    assert picture.shape[0] == 1
    assert picture.shape[1] < 100
    assert (picture[..., 3] == 255).all()


def test_the_series_has_lowest_mean_and_highest_of_each_time_oldest_first(
    store: Store, browser: Browser
) -> None:
    for hour in range(3):
        put(store, "simulation", NOON + timedelta(hours=hour), {"pressure": [1e5, 1e5 + hour]})
    answer = browser.get("/series", params={"dataset": "simulation", "variable": "pressure"})
    series = answer.json()
    assert series["time"] == [
        round((NOON + timedelta(hours=hour)).timestamp() * 1000) for hour in range(3)
    ]
    last = [series[name][2] for name in ("min", "avg", "max")]
    assert last == pytest.approx([1000.0, 1000.01, 1000.02])


def test_counts_rate_and_latency_come_from_the_store(store: Store, page: Page) -> None:
    put(store, "simulation", NOON, {"temperature": [1.0, 2.0]})
    letter = DeadLetter("readings", 0, 7, 0, None, b"", (), "empty", "no value")
    store.bury([letter])
    store.record(
        [
            pipeline_row(NOON - timedelta(seconds=5), 0, rows=9999),
            pipeline_row(NOON, 0, rows=500, stored_p50_ms=10.0, stored_p95_ms=20.0),
            pipeline_row(NOON, 1, rows=1500, stored_p50_ms=20.0, stored_p95_ms=15.0),
            pipeline_row(NOON, 2, rows=0, offset=None, stored_p50_ms=None, stored_p95_ms=None),
            pipeline_row(NOON, 0, instance="there:1", rows=100, stored_p50_ms=17.5),
        ]
    )
    state = page.state()
    assert (state.readings, state.dead_letters) == (2, 1)
    assert state.pace is not None
    # 2,000 rows in the five seconds since the row before, and 100 in a first row's second
    assert state.pace.rate == pytest.approx(500.0)
    assert state.pace.lag == 30
    assert state.pace.p50_ms == pytest.approx(17.5)
    assert state.pace.p95_ms == 20.0


def test_a_pipeline_that_has_stopped_has_no_rate(store: Store, clock: Clock, page: Page) -> None:
    store.record([pipeline_row(NOON, 0)])
    clock.pass_(IDLE_S + 1.0)
    pace = page.state().pace
    assert pace is not None
    assert (pace.rate, pace.p50_ms, pace.lag) == (0.0, None, None)


def test_however_many_browsers_look_the_store_is_asked_once(store: Store, clock: Clock) -> None:
    put(store, "simulation", NOON, {"temperature": [1.0]})
    counting = Counting(store)
    page = Page(counting, clock)
    first = page.state()
    asked = counting.queries
    assert [page.state() for _ in range(10)] == [first] * 10
    assert counting.queries == asked
    clock.pass_(BEAT_S)
    page.state()
    # the newest time, what it holds, all times, and what has expired
    assert counting.queries == asked + 4


# ------------------------------------------------------------------------- whom it answers


@pytest.mark.parametrize("address", ["/", "/main.js", "/page.css", "/state", "/nothing"])
def test_every_answer_says_what_a_browser_may_do_with_it(browser: Browser, address: str) -> None:
    headers = browser.get(address).headers
    assert {name: headers[name] for name in HEADERS} == HEADERS
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]


def test_the_page_holds_no_code_inline_and_asks_no_other_machine() -> None:
    html = (STATIC / "index.html").read_text("utf-8")
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", html)
    for path in STATIC.iterdir():
        foreign = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+[\w./]*", path.read_text("utf-8")))
        assert foreign <= {"http://www.w3.org/2000/svg"}, path.name


def test_the_pages_files_have_their_types_and_are_sent_once(clock: Clock) -> None:
    """A browser that has them is told that they are as they were."""
    browser = Browser(Down(), clock)
    types = {"": "text/html", "main.js": "text/javascript", "page.css": "text/css"}
    for name, kind in types.items():
        answer = browser.get(f"/{name}")
        assert answer.headers["content-type"].startswith(kind)
        assert answer.content == (STATIC / (name or "index.html")).read_bytes()
        again = browser.get(f"/{name}", headers={"if-none-match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    assert browser.get("/nothing.js").status_code == 404
    assert browser.get("/%2e%2e/app.py").status_code == 404


def test_every_control_of_the_page_has_a_label() -> None:
    html = (STATIC / "index.html").read_text("utf-8")
    for control in re.findall(r'<(?:select|input|textarea)[^>]*id="(\w+)"', html):
        assert f'<label for="{control}"' in html
    assert all("alt=" in image for image in re.findall(r"<img[^>]*>", html))
    assert '<html lang="en">' in html


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "192.168.1.1:8765"])
def test_a_name_that_was_made_to_point_here_gets_no_answer(clock: Clock, host: str) -> None:
    browser = Browser(Down(), clock)
    assert browser.get("/main.js", headers={"host": host}).status_code == 400
    assert browser.get("/main.js", headers={"host": "localhost:8765"}).status_code == 200


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"variable": "temperature", "time": "2025-08-12T12:00Z"}, "parameter dataset"),
        ({"dataset": "simulation", "time": "2025-08-12T12:00Z"}, "parameter variable"),
        ({"dataset": "simulation", "variable": "temperature"}, "parameter time"),
        (
            {"dataset": "era5", "variable": "temperature", "time": "2025-08-12T12:00Z"},
            "dataset 'era5' is not in this store; there is: simulation",
        ),
        (
            {"dataset": "simulation", "variable": "rain", "time": "2025-08-12T12:00Z"},
            "variable 'rain' is not in dataset simulation; there is: temperature",
        ),
        (
            {"dataset": "simulation", "variable": "temperature", "time": "noon"},
            "time 'noon' is none",
        ),
        (
            {"dataset": "simulation", "variable": "temperature", "time": "2025-08-12T12:00"},
            "says no offset",
        ),
    ],
)
def test_a_wrong_parameter_is_refused_with_a_sentence(
    store: Store, browser: Browser, parameters: dict[str, str], sentence: str
) -> None:
    put(store, "simulation", NOON, {"temperature": [1.0]})
    answer = browser.get("/field.png", params=parameters)
    assert answer.status_code == 400
    assert sentence in answer.json()["error"]


def test_a_series_of_what_is_not_there_is_refused(store: Store, browser: Browser) -> None:
    put(store, "simulation", NOON, {"temperature": [1.0]})
    answer = browser.get("/series", params={"dataset": "simulation", "variable": "rain"})
    assert (answer.status_code, "rain" in answer.json()["error"]) == (400, True)


def test_a_store_that_does_not_answer_is_said_and_asked_again(store: Store, clock: Clock) -> None:
    counting = Counting(store)
    browser = Browser(counting, clock)
    counting.down = True
    answer = browser.get("/state")
    assert (answer.status_code, answer.json()) == (503, {"error": "the store does not answer"})
    counting.down = False
    assert browser.get("/state").status_code == 200


# ---------------------------------------------------------------------------- live updates


def test_the_first_request_is_answered_at_once(store: Store, browser: Browser, live: Live) -> None:
    put(store, "simulation", NOON, {"temperature": [1.0]})
    live.ask(dataset=None, variable=None, seen=None)
    assert live.answer()["state"] == browser.get("/state").json()


def test_a_slow_browser_gets_the_newest_time_and_none_of_those_between(
    store: Store, clock: Clock, browser: Browser, live: Live
) -> None:
    put(store, "simulation", NOON, {"temperature": [1.0]})
    live.ask(seen=None)
    token = live.answer()["token"]
    for second in range(1, 6):
        put(store, "simulation", NOON + timedelta(seconds=second), {"temperature": [1.0]})
        clock.pass_(BEAT_S)
        browser.get("/state")
    live.ask(seen=token)
    newest = live.answer()["state"]["frame"]["time"]
    assert newest == (NOON + timedelta(seconds=5)).isoformat()


def test_a_request_waits_until_there_is_something_newer(
    store: Store, clock: Clock, live: Live
) -> None:
    put(store, "simulation", NOON, {"temperature": [1.0]})
    later = NOON + timedelta(seconds=1)
    live.ask(seen=None)
    live.ask(seen=live.answer()["token"])
    put(store, "simulation", later, {"temperature": [2.0]})
    clock.pass_(BEAT_S)
    assert live.answer()["state"]["frame"]["time"] == later.isoformat()


def test_a_newer_request_takes_the_place_of_one_that_waits(store: Store, live: Live) -> None:
    put(store, "simulation", NOON, {"temperature": [1.0], "u10": [1.0]})
    live.ask(variable="temperature", seen=None)
    token = live.answer()["token"]
    live.ask(variable="temperature", seen=token)
    live.ask(variable="u10", seen=token)
    assert live.answer()["state"]["variable"] == "u10"


def test_a_browser_hears_of_a_store_in_trouble_and_of_its_recovery(
    store: Store, clock: Clock
) -> None:
    put(store, "simulation", NOON, {"temperature": [1.0]})
    counting = Counting(store)
    counting.down = True
    with Server(counting, port=0, clock=clock) as server, opened(server) as live:
        live.ask(seen=None)
        trouble = live.answer()
        assert trouble["error"] == "the store does not answer"
        counting.down = False
        live.ask(seen=trouble["token"])
        assert live.answer()["state"]["dataset"] == "simulation"


@pytest.mark.parametrize(
    "request_",
    ["{", "[]", '"temperature"', '{"dataset": 1}', '{"variable": {}}', '{"sql": "DROP TABLE"}'],
)
def test_a_request_of_another_form_ends_the_connection(request_: str) -> None:
    with Server(Down(), port=0) as server, opened(server) as live:
        live.send(request_)
        with pytest.raises(ConnectionClosed) as end:
            live.answer()
    assert end.value.rcvd is not None
    assert end.value.rcvd.code == 1008
    assert "a request is" in end.value.rcvd.reason or "are text" in end.value.rcvd.reason


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1"])
def test_another_sites_page_gets_no_updates(origin: str) -> None:
    with (
        Server(Down(), port=0) as server,
        pytest.raises(InvalidStatus) as refusal,
        opened(server, origin),
    ):
        pytest.fail("connected")
    assert refusal.value.response.status_code == 403


# ------------------------------------------------------------------------------- the server


def test_the_server_answers_on_this_machine_alone(store: Store) -> None:
    put(store, "simulation", NOON, {"temperature": [1.0]})
    with Server(store, port=0) as server:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", server.url)
        assert "climatestream" in httpx.get(server.url).text
        assert httpx.get(f"{server.url}/state").json()["dataset"] == "simulation"
        with opened(server) as live:
            live.ask()
            assert live.answer()["state"]["dataset"] == "simulation"


def test_a_busy_port_is_answered_by_the_next_free_one() -> None:
    with Server(Down(), port=0) as first:
        port = int(first.url.rpartition(":")[2])
        with Server(Down(), port=port) as second:
            other = int(second.url.rpartition(":")[2])
            assert port < other
            assert httpx.get(second.url).status_code == 200


def test_a_port_that_can_not_be_had_is_a_usage_error() -> None:
    with (
        closing(socket.create_server(("127.0.0.1", 65535))),
        pytest.raises(UsageError, match=r"65535.* in use; name another with --port"),
        Server(Down(), port=65535),
    ):
        pytest.fail("started")


def test_the_server_stops_though_browsers_are_connected_and_the_store_hangs(
    store: Store,
) -> None:
    """A query that never returns keeps its own thread and nothing else."""
    hangs, resume = threading.Event(), threading.Event()

    class Hanging(Counting):
        def query(self, sql: str, parameters: Sequence[Any] = ()) -> Answer:
            hangs.set()
            resume.wait()
            return super().query(sql, parameters)

    try:
        server = Server(Hanging(store), port=0)
        with ExitStack() as browser:
            with server:
                live = browser.enter_context(opened(server))
                live.ask()
                assert hangs.wait(10.0)
            with pytest.raises(ConnectionClosed):
                live.answer()
        with pytest.raises(httpx.ConnectError):
            httpx.get(server.url)
    finally:
        resume.set()


def test_the_store_may_be_closed_after_the_server(store: Store) -> None:
    """Leaving the server waits for the query under way, within its time to stop."""
    under_way, answered = threading.Event(), threading.Event()

    class Slow(Counting):
        def query(self, sql: str, parameters: Sequence[Any] = ()) -> Answer:
            under_way.set()
            threading.Event().wait(0.1)
            answered.set()
            return super().query(sql, parameters)

    slow = Slow(store)
    with ExitStack() as browser, Server(slow, port=0) as server:
        browser.enter_context(opened(server)).ask()
        assert under_way.wait(10.0)
    assert answered.is_set()
    assert slow.queries == 1


def test_signals_stay_with_whoever_starts_the_server() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with Server(Down(), port=0):
        during = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert during == before

"""The page, driven as a person drives it."""

from __future__ import annotations

import re
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import polars as pl
import pytest

from climatestream.model import Rows, cell_id
from climatestream.stores.open import open_store
from climatestream.web.server import Server
from tests.page.conftest import Open, Opened, serving
from tests.page.feeding import FedPage, Nothing
from tests.page.stores import WEATHER, fill
from tests.test_web import pipeline_row

SIZES = {"laptop": (1440, 900), "phone": (390, 844), "screen": (2560, 1440)}
MONTHS = "dataset=era5-land%2Fmonthly-mean"


def clock(page: Opened) -> str:
    text: str = page.tab.inner_text("#clock")
    return text


def colors(page: Opened) -> int:
    """How many different colours the layer of the field has."""
    count: int = page.tab.evaluate(
        """() => { const context = climatestream.map.layers.field; const { canvas } = context;
          const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
          const seen = new Set(new Uint32Array(data.buffer)); return seen.size; }"""
    )
    return count


# ------------------------------------------------------------------------------- first sight


@pytest.mark.parametrize("theme", ["dark", "light"])
@pytest.mark.parametrize("size", SIZES)
def test_the_page_is_whole_at_every_size_in_both_themes_and_accessible(
    url: str, open_page: Open, size: str, theme: str
) -> None:
    page = open_page(url, SIZES[size], color_scheme=theme)
    page.ready()
    page.tab.wait_for_timeout(700)
    page.picture(f"{size}-{theme}", full_page=size == "phone")
    assert colors(page) > 50
    wide: int = page.tab.evaluate("document.documentElement.scrollWidth")
    assert wide <= SIZES[size][0]
    assert page.findings() == []


@pytest.mark.parametrize("theme", ["dark", "light"])
@pytest.mark.parametrize("board", ["pipeline", "quality"])
def test_the_boards_are_accessible(url: str, open_page: Open, board: str, theme: str) -> None:
    page = open_page(f"{url}/?board={board}", color_scheme=theme)
    page.until("window.climatestream?.field()")
    page.until(f"document.querySelector('#{board} table, #{board} .none')")
    page.picture(f"{board}-{theme}")
    assert page.findings() == []


def test_latencies_of_several_powers_of_ten_have_ticks_that_are_whole(
    open_page: Open, tmp_path: Path
) -> None:
    path = tmp_path / "ran.duckdb"
    now = datetime.now(UTC)
    with open_store(f"duckdb:{path}") as store, Server(store, port=0) as server:
        store.write(readings(now, 10.0))
        store.record(
            [
                pipeline_row(now - timedelta(seconds=5 * ago), partition, rows=100)
                for ago in range(10)
                for partition in range(2)
            ]
        )
        page = open_page(f"{server.url}/?board=pipeline")
        ticks = """[...document.querySelectorAll('#panel-latency .ytick text')]
            .map((tick) => tick.textContent)"""
        page.until(f"{ticks}.length > 1")
        assert page.tab.evaluate(ticks) == ["10", "20", "50"]
        assert page.tab.inner_text("#panel-lag strong").endswith("messages")
        assert page.tab.inner_text("#panel-latency strong").startswith("p95 ")
        page.close()


def test_every_chart_of_the_first_screen_has_a_hundred_points(url: str, open_page: Open) -> None:
    page = open_page(url)
    page.ready()
    page.until("document.querySelectorAll('#climate .js-plotly-plot').length >= 7")
    points: list[int] = page.tab.evaluate(
        """[...document.querySelectorAll('#climate .js-plotly-plot')].map((plot) =>
          plot.data.reduce((sum, trace) => sum + (trace.y ?? trace.r).length, 0))"""
    )
    assert min(points) >= 100


def test_a_field_of_land_is_clipped_to_its_country_where_it_is_smooth(
    url: str, open_page: Open
) -> None:
    page = open_page(url)
    page.ready()
    page.until("climatestream.map.outlines.arcs.length")
    alpha = """(() => { const m = climatestream.map; const c = m.layers.field;
      const r = c.canvas.width / m.view.width;
      return c.getImageData(Math.round(m.view.x(7.3) * r), Math.round(m.view.y(48.3) * r), 1, 1)
        .data[3]; })()"""
    page.until(f"{alpha} === 0")  # France
    page.tab.click("#smooth")
    page.until(f"{alpha} === 255")


# ---------------------------------------------------------------------------------- controls


def test_dataset_and_variable_are_chosen(url: str, open_page: Open) -> None:
    page = open_page(url)
    page.ready()
    assert page.tab.locator("#dataset option").all_inner_texts() == [
        "era5-land/monthly-mean",
        "simulation",
    ]
    page.tab.select_option("#dataset", "simulation")
    page.tab.select_option("#variable", "pressure")
    page.until("climatestream.field().variable === 'pressure'")
    assert "hPa" in page.tab.inner_text("#legend")
    page.tab.select_option("#dataset", "era5-land/monthly-mean")
    page.until("climatestream.field().dataset === 'era5-land/monthly-mean'")
    assert page.tab.input_value("#variable") == "temperature"
    assert "no variable pressure" in page.tab.inner_text("#note")
    assert "Copernicus" in page.tab.inner_text("#credit")
    assert clock(page) == "2024-12-01 00:00 UTC"


def test_the_map_zooms_and_moves_by_wheel_drag_pinch_buttons_and_keys(
    url: str, open_page: Open
) -> None:
    page = open_page(f"{url}/?dataset=simulation", has_touch=True)
    page.ready()
    view = (
        "(({ latitude, longitude, scale }) => [latitude, longitude, scale])(climatestream.map.view)"
    )
    seen = [page.tab.evaluate(view)]

    def changed() -> list[float]:
        page.until(f"JSON.stringify({view}) !== {str(seen[-1]).replace(' ', '')!r}")
        page.tab.wait_for_timeout(60)
        now: list[float] = page.tab.evaluate(view)
        seen.append(now)
        return now

    page.tab.mouse.move(500, 450)
    page.tab.mouse.wheel(0, -300)
    assert changed()[2] > seen[-2][2]
    page.tab.mouse.down()
    page.tab.mouse.move(600, 450, steps=4)
    page.tab.mouse.up()
    assert changed()[1] < seen[-2][1]
    page.tab.click("#zoom-in")
    assert changed()[2] > seen[-2][2]
    page.tab.click("#zoom-out")
    assert changed()[2] < seen[-2][2]
    page.tab.focus("#map")
    page.tab.keyboard.press("ArrowUp")
    assert changed()[0] > seen[-2][0]
    page.tab.keyboard.press("+")
    assert changed()[2] > seen[-2][2]
    cdp = page.tab.context.new_cdp_session(page.tab)
    for kind, apart in (("touchStart", 40), ("touchMove", 80), ("touchMove", 160)):
        points = [{"x": 500 - apart, "y": 400, "id": 1}, {"x": 500 + apart, "y": 400, "id": 2}]
        cdp.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    cdp.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert changed()[2] > 1.5 * seen[-2][2]
    page.tab.click("#fit")
    assert changed()[2] == pytest.approx(seen[0][2])


def test_the_cell_under_the_pointer_is_read_out_with_all_its_values(
    url: str, open_page: Open
) -> None:
    page = open_page(f"{url}/?dataset=simulation&time=2025-08-05T06:00Z")
    page.ready()
    x, y = page.tab.evaluate("[climatestream.map.view.x(9.5), climatestream.map.view.y(50.5)]")
    top = page.tab.locator("#map").bounding_box()["y"]
    page.tab.mouse.move(x, y + top)
    page.until("document.getElementById('reading').innerText.includes('Surface pressure')")
    text = page.tab.inner_text("#reading")
    assert "50.50° N 9.50° E" in text
    assert "Germany" in text
    assert re.search(r"Wind\n[\d.]+ m/s from [NESW]+", text)
    assert "2025-08-05 06:00 UTC" in text
    stored = page.tab.evaluate(
        "fetch('/reading?dataset=simulation&variable=temperature&cell=50.5,9.5"
        "&time=2025-08-05T06:00Z').then((answer) => answer.json())"
    )
    value = {name: value for name, _, value, _ in stored["values"]}["temperature"]
    assert f"{value:.1f} °C".replace("-", "\N{MINUS SIGN}") in text


def test_of_a_field_too_large_to_draw_cells_are_read_out_and_zooming_shows_them(
    open_page: Open, tmp_path: Path
) -> None:
    path = tmp_path / "wide.duckdb"
    fill(path, "simulation", 1, "1 hour", WEATHER, cells=160_000)
    with serving(path) as url:
        page = open_page(url)
        page.ready()
        assert page.tab.evaluate("climatestream.field().boxed") is True
        script = "[climatestream.map.view.x(20), climatestream.map.view.y(60)]"
        x, y = page.tab.evaluate(script)
        y += page.tab.locator("#map").bounding_box()["y"]

        def stored() -> str:
            place = page.tab.inner_text("#reading .place b")
            latitude, longitude = (float(one) for one in re.findall(r"[\d.]+(?=°)", place))
            value: float = page.tab.evaluate(
                "fetch('/reading?dataset=simulation&variable=temperature&cell="
                f"{latitude},{longitude}').then((answer) => answer.json())"
                ".then((found) => found.values.find(([name]) => name === 'temperature')[2])"
            )
            return f"{value:.1f} °C".replace("-", "\N{MINUS SIGN}")

        page.tab.mouse.move(x, y)
        page.until("document.getElementById('reading').innerText.includes('mean of the cells')")
        page.until("document.getElementById('reading').innerText.includes('Surface pressure')")
        assert stored() in page.tab.inner_text("#reading .main + .main")
        page.tab.mouse.click(x, y)
        page.until("document.querySelector('#series-temperature .plot').data.length === 4")
        page.picture("boxes")
        for _ in range(5):
            page.tab.mouse.wheel(0, -500)
        page.until("climatestream.map.part && !climatestream.map.part.boxed")
        page.tab.mouse.move(x + 40, y + 40)
        page.until("document.getElementById('reading').innerText.includes('Surface pressure')")
        assert "mean of" not in page.tab.inner_text("#reading")
        assert stored() in page.tab.inner_text("#reading .main + .main")
        page.picture("boxes-near")
        page.close()


def test_cities_have_names_that_can_be_hidden_and_tell_where_a_cell_is(
    url: str, open_page: Open
) -> None:
    page = open_page(f"{url}/?dataset=simulation")
    page.ready()
    page.until("climatestream.map.places.length === 7")
    assert page.tab.evaluate("climatestream.map.places[0].name") == "München"
    assert "GeoNames" in page.tab.inner_text("#credit")
    pixels = """(() => { const { canvas } = climatestream.map.layers.lines;
      const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
      return data.filter((one, i) => i % 4 === 3 && one).length; })()"""
    page.picture("cities")
    named = page.tab.evaluate(pixels)
    page.tab.click("#names")
    page.tab.wait_for_timeout(200)
    assert page.tab.evaluate(pixels) < named
    page.until("location.search.includes('names=off')")
    assert page.tab.is_hidden("#credit")
    x, y = page.tab.evaluate("[climatestream.map.view.x(11.1), climatestream.map.view.y(49.4)]")
    page.tab.mouse.move(x, y + page.tab.locator("#map").bounding_box()["y"])
    page.until("document.getElementById('reading').innerText.includes('Nürnberg, Germany')")


def test_a_cell_is_picked_by_click_and_by_keyboard_and_joins_the_charts(
    url: str, open_page: Open
) -> None:
    page = open_page(f"{url}/?dataset=simulation")
    page.ready()
    page.tab.mouse.click(480, 430)
    lines = "document.querySelector('#series-temperature .plot').data.length"
    page.until(f"{lines} === 4")
    page.tab.focus("#map")
    page.tab.keyboard.press("Escape")
    page.until(f"{lines} === 3")
    page.tab.keyboard.press("0")
    page.tab.keyboard.press("Enter")
    page.until(f"{lines} === 4")
    assert "picked" in page.tab.inner_text("#said")


def test_time_is_stepped_slid_played_paused_and_followed_again(url: str, open_page: Open) -> None:
    page = open_page(f"{url}/?dataset=simulation")
    page.ready()
    page.until("climatestream.timeline.times.length === 200")
    newest = clock(page)
    page.tab.click("#back")
    page.until(f"document.getElementById('clock').textContent !== '{newest}'")
    assert clock(page) == "2025-08-09 06:00 UTC"
    assert page.tab.get_attribute("#live", "aria-pressed") == "false"
    page.tab.click("#forward")
    page.until(f"document.getElementById('clock').textContent === '{newest}'")
    page.tab.focus("#slider")
    page.tab.keyboard.press("Home")
    page.until("document.getElementById('clock').textContent === '2025-08-01 00:00 UTC'")
    assert page.tab.get_attribute("#slider", "aria-valuetext") == "2025-08-01 00:00 UTC"
    page.tab.select_option("#speed", "10")
    page.tab.click("#play")
    page.until("climatestream.timeline.place() > 8")
    page.tab.click("#play")
    page.tab.wait_for_timeout(300)
    stopped = clock(page)
    page.tab.wait_for_timeout(400)
    assert clock(page) == stopped
    page.tab.click("#live")
    page.until(f"document.getElementById('clock').textContent === '{newest}'")


def test_thirty_years_of_months_play_without_a_stall(url: str, open_page: Open) -> None:
    page = open_page(f"{url}/?{MONTHS}")
    page.ready()
    page.until("climatestream.timeline.times.length === 360")
    page.tab.select_option("#speed", "20")
    page.tab.evaluate(
        """() => { const { map } = climatestream; const show = map.show.bind(map);
          window.shown = []; map.show = (field, ...said) => {
            shown.push(field.time); show(field, ...said); }; }"""
    )
    page.tab.click("#play")
    page.until("shown.length >= 360", 200.0)
    times: list[int] = page.tab.evaluate("climatestream.timeline.times")
    assert page.tab.evaluate("shown.slice(0, 360)") == times


def test_zooming_a_chart_moves_the_slider_and_all_times_come_back(
    url: str, open_page: Open
) -> None:
    page = open_page(f"{url}/?dataset=simulation")
    page.ready()
    box = page.tab.locator("#series-temperature .plot").bounding_box()
    middle = box["y"] + 30
    page.tab.mouse.move(box["x"] + 120, middle)
    page.tab.mouse.down()
    page.tab.mouse.move(box["x"] + 220, middle, steps=6)
    page.tab.mouse.up()
    page.until("climatestream.timeline.span")
    low, high = (int(page.tab.get_attribute("#slider", name)) for name in ("min", "max"))
    assert 0 < low < high < 199
    page.until("climatestream.timeline.live === false")
    ranges = (
        "[...document.querySelectorAll('.series .js-plotly-plot')]"
        ".map((plot) => plot.layout.xaxis.range[0].slice(0, 13))"
    )
    page.until(f"new Set({ranges}).size === 1")
    page.tab.click("#whole")
    page.until("!climatestream.timeline.span")


def test_a_click_into_a_chart_shows_that_time_and_the_cursor_is_in_all(
    url: str, open_page: Open
) -> None:
    page = open_page(f"{url}/?dataset=simulation")
    page.ready()
    box = page.tab.locator("#series-temperature .plot").bounding_box()
    page.tab.mouse.move(box["x"] + 150, box["y"] + 40)
    page.tab.wait_for_timeout(200)
    page.tab.mouse.click(box["x"] + 150, box["y"] + 40)
    page.until("!climatestream.timeline.live")
    page.tab.wait_for_timeout(200)
    places: list[str] = page.tab.evaluate(
        "[...document.querySelectorAll('.series .cursor')].map((one) => one.style.transform)"
    )
    assert len({place for place in places if place}) == 1


def test_cells_arrows_theme_and_motion_are_switched(url: str, open_page: Open) -> None:
    page = open_page(f"{url}/?dataset=simulation", reduced_motion="reduce")
    page.ready()
    assert page.tab.evaluate("climatestream.map.still") is True
    for control in ("smooth", "winds"):
        page.tab.click(f"#{control}")
        assert page.tab.get_attribute(f"#{control}", "aria-pressed") == "false"
    page.tab.wait_for_timeout(200)
    drawn = page.tab.evaluate(
        "climatestream.map.layers.wind.getImageData(0, 0, 900, 700).data.some((one) => one)"
    )
    assert drawn is False
    assert page.tab.evaluate("document.documentElement.dataset.theme") == "dark"
    page.tab.click("#theme")
    assert page.tab.evaluate("document.documentElement.dataset.theme") == "light"
    page.tab.reload()
    assert page.tab.evaluate("document.documentElement.dataset.theme") == "light"


def test_arrows_are_where_the_field_is_drawn(url: str, open_page: Open) -> None:
    """The field's cells west of the Rhine are of no country that it is clipped to."""
    page = open_page(f"{url}/?dataset=simulation")
    page.ready()
    page.until("climatestream.map.outlines.arcs.length")
    inked = """([west, east]) => { const { view, layers, ratio } = climatestream.map;
        const [x, y] = [view.x(west), view.y(48.8)].map((one) => one * ratio);
        const [width, height] = [view.x(east) * ratio - x, view.y(48.1) * ratio - y];
        const { data } = layers.wind.getImageData(x, y, width, height);
        return data.some((one) => one); }"""
    france, germany = [7.05, 7.35], [8.2, 8.5]
    page.tab.wait_for_timeout(200)
    assert [page.tab.evaluate(inked, place) for place in (france, germany)] == [False, True]
    page.tab.click("#smooth")
    page.tab.wait_for_timeout(200)
    assert [page.tab.evaluate(inked, place) for place in (france, germany)] == [True, True]


def test_tabs_are_moved_through_by_keyboard(url: str, open_page: Open) -> None:
    page = open_page(url)
    page.ready()
    page.tab.focus("#tab-climate")
    page.tab.keyboard.press("ArrowRight")
    assert page.tab.evaluate("document.activeElement.id") == "tab-pipeline"
    assert page.tab.is_visible("#pipeline")
    assert page.tab.is_hidden("#climate")
    page.tab.keyboard.press("ArrowLeft")
    assert page.tab.is_visible("#climate")


def test_every_control_can_be_reached_by_the_tab_key(url: str, open_page: Open) -> None:
    page = open_page(f"{url}/?dataset=simulation")
    page.ready()
    reached = set()
    for _ in range(60):
        page.tab.keyboard.press("Tab")
        reached.add(page.tab.evaluate("document.activeElement.id"))
    controls = {"dataset", "variable", "share", "exports", "theme", "map", "zoom-in", "zoom-out"}
    controls |= {
        "fit",
        "smooth",
        "winds",
        "names",
        "tab-climate",
        "back",
        "play",
        "forward",
        "speed",
    }
    assert controls | {"slider", "live"} <= reached


# -------------------------------------------------------------------------- sharing, exports


def test_the_address_of_a_view_shows_the_same_view(url: str, open_page: Open) -> None:
    page = open_page(f"{url}/?dataset=simulation")
    page.ready()
    page.tab.select_option("#variable", "pressure")
    page.until("climatestream.field().variable === 'pressure'")
    page.tab.click("#back")
    page.tab.mouse.move(500, 450)
    page.tab.mouse.wheel(0, -400)
    page.tab.mouse.click(500, 450)
    page.tab.click("#smooth")
    page.until("location.search.includes('zoom=') && location.search.includes('cell=')")
    page.tab.wait_for_timeout(500)
    address, before = page.tab.url, clock(page)
    said = parse_qs(urlsplit(address).query, keep_blank_values=True)
    assert {"dataset", "variable", "time", "at", "zoom", "cell", "cells"} <= said.keys()
    other = open_page(address)
    other.ready()
    assert clock(other) == before
    assert other.tab.get_attribute("#smooth", "aria-pressed") == "false"
    for name in ("scale", "latitude", "longitude"):
        ours, theirs = (one.tab.evaluate(f"climatestream.map.view.{name}") for one in (page, other))
        assert theirs == pytest.approx(ours, rel=1e-3)
    assert other.tab.evaluate("climatestream.map.marked.latitude") == pytest.approx(
        page.tab.evaluate("climatestream.map.marked.latitude"), abs=1e-3
    )


def test_what_is_shown_is_exported_as_png_csv_and_parquet(
    url: str, open_page: Open, tmp_path: Path
) -> None:
    page = open_page(f"{url}/?dataset=simulation&time=2025-08-05T06:00Z", accept_downloads=True)
    page.ready()

    def saved(control: str) -> Path:
        page.tab.click("#exports")
        with page.tab.expect_download() as download:
            page.tab.click(control)
        path: Path = tmp_path / download.value.suggested_filename
        download.value.save_as(path)
        page.tab.keyboard.press("Escape")
        return path

    png = saved("#export-png")
    assert png.read_bytes()[:4] == b"\x89PNG"
    assert png.stat().st_size > 20_000
    csv = pl.read_csv(saved("#export-field-csv"), try_parse_dates=True)
    parquet = pl.read_parquet(saved("#export-field-parquet"))
    assert csv.columns == parquet.columns
    assert len(csv) == len(parquet) == 2500
    shown: Any = page.tab.evaluate(
        "[climatestream.field().low, climatestream.field().high, climatestream.field().mean]"
    )
    column = parquet["temperature"]
    assert [column.min(), column.max(), column.mean()] == pytest.approx(shown, abs=1e-6)
    assert len(pl.read_parquet(saved("#export-series-parquet"))) == 200


def test_the_sql_behind_a_panel_can_be_read_copied_and_run(weather: Path, open_page: Open) -> None:
    with open_store(f"duckdb:{weather}") as store, Server(store, port=0) as server:
        page = open_page(
            f"{server.url}/?dataset=simulation", permissions=["clipboard-write", "clipboard-read"]
        )
        page.ready()
        for board in ("climate", "pipeline", "quality"):
            page.tab.click(f"#tab-{board}")
            for button in page.tab.locator(f"#{board} .sql").all():
                button.click()
                page.until("document.getElementById('query').open")
                page.tab.click("#query-copy")
                sql: str = page.tab.evaluate("navigator.clipboard.readText()")
                assert sql == page.tab.inner_text("#query-sql")
                store.query(sql)
                page.tab.keyboard.press("Escape")
        page.close()


# ------------------------------------------------------------------------------ who may look


def test_the_printed_address_opens_the_page_where_it_wants_a_token(
    weather: Path, open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("climatestream.web.server.is_loopback", lambda _: False)
    with open_store(f"duckdb:{weather}") as store, Server(store, port=0) as server:
        address, _, token = server.url.partition("/?token=")
        page = open_page(server.url)
        page.ready()
        assert token not in page.tab.url
        page.tab.reload()
        page.ready()
        page.close()
        for wrong in (f"{address}/?token={token[:-1]}", address):
            stranger = open_page(wrong)
            stranger.allow("401")
            assert "open the address that was printed" in stranger.tab.inner_text("body")
            stranger.close()


ASK_ANOTHER = """async (url) => [
  await fetch(`${url}/state`).then(() => "answered", () => "refused"),
  await new Promise((done) => {
    const socket = new WebSocket(`${url.replace("http", "ws")}/live`);
    socket.onopen = () => done("answered");
    socket.onerror = () => done("refused");
  })]"""


def test_another_sites_page_can_neither_fetch_nor_listen(url: str, open_page: Open) -> None:
    page = open_page("about:blank")
    page.allow("403|CORS|WebSocket|ERR_FAILED|Failed to load")
    assert page.tab.evaluate(ASK_ANOTHER, url) == ["refused", "refused"]
    other = FedPage(100, 1.0)
    with Server(Nothing(), port=0, page=other) as server:  # type: ignore[arg-type]
        page = open_page(server.url)  # its own policy forbids it besides
        page.allow("Content Security Policy|Fetch API|Refused to connect|Connecting to")
        assert page.tab.evaluate(ASK_ANOTHER, url) == ["refused", "refused"]
        page.close()


# ------------------------------------------------------------------------------------- live


def readings(at: datetime, value: float) -> Rows:
    n = 100
    latitude = [48.0 + (i // 10) / 10.0 for i in range(n)]
    longitude = [9.0 + (i % 10) / 10.0 for i in range(n)]
    numbers = {"temperature": [value + i / 50.0 for i in range(n)]}
    ms = round(at.timestamp() * 1000)
    return Rows(
        dataset=["simulation"] * n,
        cell=[cell_id(*place) for place in zip(latitude, longitude, strict=True)],
        country=["DEU"] * n,
        time_ms=[ms] * n,
        latitude=latitude,
        longitude=longitude,
        preliminary=[False] * n,
        data={**numbers, "latitude": latitude, "longitude": longitude},
        types=dict.fromkeys(("temperature", "latitude", "longitude"), "number"),
        published_at_ms=[ms] * n,
        source=["readings/0"] * n,
        offset=list(range(n)),
    )


def test_an_empty_store_says_so_and_comes_to_life_with_the_first_readings(
    open_page: Open, tmp_path: Path
) -> None:
    with (
        open_store(f"duckdb:{tmp_path / 'new.duckdb'}") as store,
        Server(store, port=0) as server,
    ):
        page = open_page(server.url)
        page.until("document.getElementById('nothing').textContent.includes('waiting')")
        page.picture("empty")
        assert page.findings() == []
        store.write(readings(datetime(2025, 8, 1, tzinfo=UTC), 10.0))
        page.until("window.climatestream.field()")
        page.until("document.getElementById('clock').textContent === '2025-08-01 00:00 UTC'")
        store.write(readings(datetime(2025, 8, 1, 1, tzinfo=UTC), 20.0))
        page.until("document.getElementById('clock').textContent.includes('01:00')")
        page.close()


def test_a_variable_without_values_at_a_time_says_so(open_page: Open, tmp_path: Path) -> None:
    path = tmp_path / "holes.duckdb"
    fill(
        path, "simulation", 3, "1 hour", "'temperature': 1.0 + t, 'pressure': IF(t = 1, NULL, 9e4)"
    )
    with serving(path) as url:
        page = open_page(f"{url}/?variable=pressure&time=2025-08-01T01:00Z")
        page.until("document.getElementById('nothing').textContent.includes('no values of')")
        assert page.tab.is_visible("#nothing")
        page.close()


def test_the_page_survives_its_server_and_catches_up(weather: Path, open_page: Open) -> None:
    with serving(weather) as url:
        port = int(url.rpartition(":")[2])
        page = open_page(f"{url}/?dataset=simulation")
        page.allow("ERR_CONNECTION_REFUSED|WebSocket|Failed to load resource")
        page.ready()
    page.until("document.getElementById('status').textContent === 'disconnected'")
    assert page.tab.is_visible("#problem")
    assert page.tab.inner_text("#live") == "not live"
    assert page.tab.title().startswith("disconnected · ")
    titles = page.tab.evaluate(
        """[["trouble", "The store is away"], ["disconnected"]].map((said) => {
            climatestream.link.said(...said);
            return document.title.split(" · ")[0]; })"""
    )
    assert titles == ["store trouble", "disconnected"]
    page.picture("disconnected")
    assert page.findings() == []
    page.tab.click("#zoom-in")
    page.tab.select_option("#variable", "pressure")
    with serving(weather, port):
        page.until("document.getElementById('status').textContent === 'connected'")
        page.until("climatestream.field().variable === 'pressure'")
        assert page.tab.is_hidden("#problem")
        assert page.tab.inner_text("#live") == "live"
        assert page.tab.title().endswith(" hPa · Surface pressure · climatestream")
        page.close()


def test_a_time_that_was_asked_for_in_vain_is_shown_when_the_server_is_back(
    weather: Path, open_page: Open
) -> None:
    with serving(weather) as url:
        port = int(url.rpartition(":")[2])
        pages = [open_page(f"{url}/?dataset=simulation") for _ in range(2)]
        for page in pages:
            page.allow("ERR_CONNECTION_REFUSED|WebSocket|Failed to load resource")
            page.ready()
            page.until("climatestream.timeline.times.length === 200")
    stepping, playing = pages
    for page in pages:
        page.until("document.getElementById('status').textContent === 'disconnected'")
    stepping.tab.focus("#slider")
    stepping.tab.keyboard.press("Home")
    playing.tab.click("#play")
    playing.tab.wait_for_timeout(500)
    assert playing.tab.evaluate("climatestream.timeline.place()") == 0
    with serving(weather, port):
        stepping.until("climatestream.field().time === climatestream.timeline.times[0]")
        assert clock(stepping) == "2025-08-01 00:00 UTC"
        playing.until("climatestream.timeline.place() > 2")
        playing.until("climatestream.field().time < climatestream.timeline.times[100]")
        for page in pages:
            page.close()


@pytest.mark.parametrize("rate", [10.0, 100.0])
def test_the_newest_field_wins_however_many_arrive(open_page: Open, rate: float) -> None:
    fed = FedPage(8_000, rate)
    with Server(Nothing(), port=0, page=fed) as server:  # type: ignore[arg-type]
        pages = [open_page(server.url) for _ in range(2)]
        for page in pages:
            page.until("window.climatestream?.map.drawn.fields > 3")
            page.tab.wait_for_timeout(1500)
        for page in pages:
            number = int(page.tab.evaluate("climatestream.field().version.split('.').at(-1)"))
            newest = int(fed.newest("simulation").version)
            assert newest - number <= 2 * rate
        moved = pages[0].tab.evaluate("climatestream.map.drawn.fields")
        pages[0].tab.wait_for_timeout(500)
        assert pages[0].tab.evaluate("climatestream.map.drawn.fields") > moved
        for page in pages:
            page.close()


def test_ten_million_readings_are_shown_like_a_few(open_page: Open, tmp_path: Path) -> None:
    path = tmp_path / "large.duckdb"
    fill(path, "simulation", 4000, "1 hour", WEATHER)
    with serving(path) as url:
        page = open_page(url)
        page.ready()
        page.until("climatestream.timeline.times.length === 4000", 60.0)
        assert page.tab.inner_text("#readings") == "10.0 M"
        page.tab.focus("#slider")
        page.tab.keyboard.press("Home")
        page.until("document.getElementById('clock').textContent === '2025-08-01 00:00 UTC'")
        page.tab.click("#tab-quality")
        page.until("document.querySelector('#panel-range table')", 60.0)
        page.picture("large")
        page.close()


def test_a_slow_store_keeps_no_browser_from_the_page(open_page: Open, weather: Path) -> None:
    """What one asks for and waits for is no one else's wait."""
    release = threading.Event()
    with open_store(f"duckdb:{weather}") as store:

        class Slow:
            def query(self, sql: str, parameters: Any = ()) -> Any:
                if "count(DISTINCT" in sql:
                    release.wait(60.0)
                return store.query(sql, parameters)

        try:
            with Server(Slow(), port=0) as server:  # type: ignore[arg-type]
                waiting = open_page(f"{server.url}/?board=quality")
                waiting.until("window.climatestream?.field()")
                page = open_page(server.url)
                page.until("window.climatestream?.field()")
                release.set()
                waiting.close()
                page.close()
        finally:
            release.set()

"""`open-meteo:` against an archive on loopback: a point, within its limits, and what goes wrong."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

from climatestream.errors import NotServed, SourceError, SourceUnavailable
from climatestream.region import parse_region
from climatestream.sources.open import open_source
from climatestream.sources.open_meteo import DATASET, URL_ENVIRONMENT, OpenMeteo
from climatestream.sources.selection import Selection, end_of, start_of

CHOSEN = Selection(
    region=parse_region("latitude=50.13,longitude=8.68"),
    variables=("temperature", "u10", "v10", "pressure", "total_precipitation"),
    start_ns=start_of("2025-08-01"),
    end_ns=end_of("2025-08-02"),
)
VALUES = {
    "temperature_2m": 20.5,
    "surface_pressure": 1001.2,
    "precipitation": 1.5,
    "wind_speed_10m": 5.0,
    "wind_direction_10m": 270.0,
}
CUT = 0
"""A status of 200 whose answer ends in its middle."""
UNITS = dict(zip(VALUES, ("°C", "hPa", "mm", "m/s", "°"), strict=True))


@dataclass
class Service:
    """Open-Meteo's archive: an hour's values are all the same."""

    asked: list[dict[str, str]] = field(default_factory=list)
    faults: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    change: dict[str, Any] = field(default_factory=dict)

    def answer(self, query: dict[str, str]) -> tuple[int, dict[str, Any]]:
        self.asked.append(query)
        if self.faults:
            return self.faults.pop(0)
        start, end = (start_of(query[n]) // 1_000_000_000 for n in ("start_date", "end_date"))
        times = list(range(start, end + 86_400, 3600))
        names = query["hourly"].split(",")
        columns: dict[str, list[float | None]] = {n: [VALUES[n]] * len(times) for n in names}
        for column in columns.values():
            column[-1] = None  # not yet there
        units = {name: UNITS[name] for name in names}
        return 200, {"hourly_units": units, "hourly": {"time": times, **columns}} | self.change


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    made = Service()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = {k: v[0] for k, v in parse_qs(urlsplit(self.path).query).items()}
            status, answer = made.answer(query)
            content = json.dumps(answer).encode()
            self.send_response(200 if status == CUT else status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if status == CUT else content)

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    monkeypatch.setenv(URL_ENVIRONMENT, f"http://127.0.0.1:{server.server_address[1]}/v1/archive")
    yield made
    server.shutdown()
    server.server_close()
    thread.join()


def source(chosen: Selection = CHOSEN, said: list[str] | None = None) -> OpenMeteo:
    say = ([] if said is None else said).append
    now = lambda: start_of("2026-11-25")  # noqa: E731
    spec = "open-meteo:era5-land/hourly"
    return OpenMeteo(spec, chosen, threading.Event(), say=say, now_ns=now, wait_s=0.0)


def test_a_points_hours_come_in_the_files_units_under_a_name_of_their_own(
    service: Service,
) -> None:
    said: list[str] = []
    with source(said=said) as opened:
        batches = [b for slice_ in opened.slices() for b in opened.read(slice_)]
    assert len(batches) == 47, "the last hour is not there yet"
    first = batches[0]
    assert (first.dataset, first.time_ns, first.cells.country) == (
        DATASET,
        CHOSEN.start_ns,
        ["DEU"],
    )
    assert (float(first.cells.latitude[0]), float(first.cells.longitude[0])) == (50.1, 8.7)
    values = {name: float(np.asarray(column)[0]) for name, column in first.values.items()}
    assert values == pytest.approx(
        {
            "temperature": 293.65,
            "pressure": 100_120.0,
            "total_precipitation": 0.0015,
            "u10": 5.0,
            "v10": 0.0,
        }
    )
    assert "rounded and without a key: 1 requests, 1 calls of its 10,000 a day" in said[0]
    [query] = service.asked
    assert (query["models"], query["elevation"], query["latitude"]) == ("era5_land", "nan", "50.1")


def test_years_are_asked_for_one_after_the_other(service: Service) -> None:
    with source(replace(CHOSEN, start_ns=start_of("2023-01-01"))) as opened:
        assert len(opened.slices()) == 945 * 24 - 3
    assert [query["start_date"] for query in service.asked] == [
        "2023-01-01",
        "2024-01-02",
        "2025-01-02",
    ]


@pytest.mark.parametrize(
    ("change", "lack"),
    [
        ({"region": parse_region("DEU")}, "region"),
        ({"region": None}, "region"),
        ({"variables": ("skin_temperature",)}, "variable"),
    ],
)
def test_what_it_does_not_give_is_said_before_anything_is_asked(
    service: Service, change: dict[str, Any], lack: str
) -> None:
    with pytest.raises(NotServed) as refused:
        source(replace(CHOSEN, **change))
    assert refused.value.lack == lack
    assert service.asked == []


def test_another_dataset_is_refused() -> None:
    with pytest.raises(NotServed, match="open-meteo: has no era5-land/daily-mean"):
        open_source(["open-meteo:era5-land/daily-mean"], CHOSEN)


def test_an_answer_that_is_cut_short_is_asked_for_again(service: Service) -> None:
    service.faults = [(CUT, {"reason": "cut"})]
    with source() as opened:
        assert opened.slices()
    service.faults = [(CUT, {"reason": "cut"})] * 9
    with pytest.raises(SourceUnavailable, match="does not answer: IncompleteRead"):
        source().__enter__()


@pytest.mark.parametrize("status", [429, 503])
def test_what_fails_for_now_is_tried_again_some_times(service: Service, status: int) -> None:
    service.faults = [(status, {"reason": "later"})]
    with source() as opened:
        assert opened.slices()
    service.faults = [(status, {"reason": "later"})] * 9
    with pytest.raises(SourceUnavailable, match=f"does not answer: {status} later"):
        source().__enter__()


def test_a_refusal_is_told_in_its_own_words(service: Service) -> None:
    service.faults = [(400, {"reason": "end_date is out of allowed range"})]
    with pytest.raises(NotServed, match="out of allowed range") as refused:
        source().__enter__()
    assert refused.value.lack == "time"


def test_an_answer_in_other_units_is_refused(service: Service) -> None:
    service.change = {"hourly_units": UNITS | {"temperature_2m": "°F"}}
    with pytest.raises(SourceError, match="temperature_2m in °F"):
        source().__enter__()

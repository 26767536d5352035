"""Zarr archives on loopback that are cut as ECMWF's and Earth Data Hub's are, and fail on purpose.

Written with the real libraries, read by the real clients; every request is kept.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

HOUR_NS: Final = 3_600_000_000_000
START_H: Final = 488_544
"""2025-09-25 00 UTC [hours since 1970]."""
HOURS: Final = 240

ARCO_GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "007/arco/reanalysis_era5_land/sfc-2m-temperature": ("t2m", "d2m"),
    "008/arco/reanalysis_era5_land/sfc-wind": ("u10", "v10"),
    "009/arco/reanalysis_era5_land/sfc-pressure-precipitation": ("sp", "tp"),
}
UNITS: Final = {
    "t2m": "K",
    "d2m": "K",
    "u10": "m s**-1",
    "v10": "m s**-1",
    "sp": "Pa",
    "tp": "m",
}
GEO: Final = (240, 16, 16)
TIME: Final = (1, 128, 256)
EDH: Final = (96, 20, 40)

Numbers = NDArray[Any]


def value(name: str, hour: Any, latitude: Any, longitude: Any) -> Any:
    """What is at a place and time, exactly representable; rain adds up since midnight."""
    base = np.float64(sum(map(ord, name)))
    place = np.rint(latitude * 10) + np.rint((longitude + 180.0) % 360.0) / 8
    if name == "tp":
        return (np.rint(latitude * 10) % 7) / 1024.0
    return base + place / 4 + (hour % 97) / 2


def since_midnight(hour: Any, latitude: Any, longitude: Any) -> Any:
    """Rain as the Data Store has it: at 00 UTC the whole day before."""
    return value("tp", hour, latitude, longitude) * ((hour - 1) % 24 + 1)


def is_sea(latitude: Any, longitude: Any) -> Any:
    return (latitude > 54.45) & ((longitude + 180.0) % 360.0 - 180.0 < 8.0)


def cube(
    names: tuple[str, ...],
    latitude: Numbers,
    longitude: Numbers,
    hours: NDArray[np.int64],
    time_name: str,
    sums: bool,
) -> xr.Dataset:
    """A part of the earth, NaN at sea."""
    hour = hours[:, None, None].astype(np.float64)
    row, column = latitude[None, :, None], longitude[None, None, :]
    found = {}
    for name in names:
        made = since_midnight if sums and name == "tp" else lambda *at, n=name: value(n, *at)
        values = np.where(is_sea(row, column), np.nan, made(hour, row, column))
        values = np.broadcast_to(values, (len(hours), len(latitude), len(longitude)))
        dimensions = (time_name, "latitude", "longitude")
        found[name] = (dimensions, values.astype("f4"), {"units": UNITS[name]})
    return xr.Dataset(
        found,
        coords={
            time_name: (time_name, hours, {"units": "hours since 1970-01-01"}),
            "latitude": ("latitude", latitude),
            "longitude": ("longitude", longitude),
        },
    )


def write(dataset: xr.Dataset, path: Path, chunks: tuple[int, int, int], zarr_format: int) -> None:
    encoding = {str(name): {"chunks": chunks} for name in dataset.data_vars}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # consolidated metadata is no part of Zarr 3 yet
        dataset.to_zarr(path, encoding=encoding, zarr_format=zarr_format, consolidated=True)


def make_archives(folder: Path) -> None:
    """ARCO's groups of ERA5-Land, and Earth Data Hub's hours and days, over central Europe."""
    hours = np.arange(START_H, START_H + HOURS)
    # float noise as in the archives themselves
    latitude = np.arange(450, 561) * 0.1
    longitude = np.arange(-40, 161) * 0.1
    for group, names in ARCO_GROUPS.items():
        land = cube(names, latitude, longitude, hours, "time", sums=False)
        for cut, chunks in (("geo", GEO), ("time", TIME)):
            write(land, folder / f"cadl-arco-{cut}-{group}" / f"{cut}Chunked.zarr", chunks, 2)
    around = np.concatenate([np.arange(0, 161), np.arange(3560, 3600)]) * 0.1
    hourly = cube(tuple(UNITS), latitude[::-1], around, hours, "valid_time", sums=True)
    write(hourly, folder / "era5-land-v0.zarr", EDH, 3)
    days = hourly.isel(valid_time=slice(0, None, 24))[["t2m", "sp", "u10", "v10", "d2m"]]
    write(days, folder / "era5-land-daily-utc-v1.zarr", (10, 20, 40), 3)


@dataclass
class Fault:
    """What happens to requests instead of an answer, some times.

    Parameters
    ----------
    part
        Of the paths that it happens to.
    kind
        A status, `cut` (the answer ends in its middle), or `damage` (other bytes).
    """

    part: str
    kind: int | str
    times: float = float("inf")


@dataclass
class ZarrServer:
    """Serves a folder; what it was asked for, and with which key."""

    folder: Path
    port: int = 0
    delay_s: float = 0.0
    keys: tuple[str, ...] = ("Bearer secret-of-arco", "Basic ZWRoOnNlY3JldC1vZi1lZGg=")
    paths: list[str] = field(default_factory=list)
    size: int = 0
    at_once: int = 0
    most_at_once: int = 0
    faults: list[Fault] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def chunks(self, variable: str = "") -> list[str]:
        """The chunks of variables that were asked for, axes left out."""
        return [
            path
            for path in self.paths
            if (parts := path.split(".zarr/")[-1].split("/"))[0] in UNITS
            and not parts[-1].startswith((".z", "zarr.json"))
            and parts[0].startswith(variable)
        ]

    @contextmanager
    def serving(self) -> Iterator[ZarrServer]:
        server = ThreadingHTTPServer(("127.0.0.1", self.port), _handler(self))
        server.daemon_threads = True
        self.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def fault_of(self, path: str) -> int | str | None:
        with self.lock:
            for fault in self.faults:
                if fault.part in path and fault.times > 0:
                    fault.times -= 1
                    return fault.kind
        return None


def _handler(archive: ZarrServer) -> Callable[..., BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            with archive.lock:
                archive.paths.append(self.path)
                archive.at_once += 1
                archive.most_at_once = max(archive.most_at_once, archive.at_once)
            try:
                self._answer()
            finally:
                with archive.lock:
                    archive.at_once -= 1

        def _answer(self) -> None:
            fault = archive.fault_of(self.path)
            if fault is None:
                time.sleep(archive.delay_s)
            file = archive.folder / self.path.lstrip("/")
            if self.headers.get("Authorization") not in archive.keys:
                self._send(401, b"no key")
            elif isinstance(fault, int):
                self._send(fault, b"as the test wants it")
            elif not file.is_file():
                self._send(404, b"")
            else:
                content = file.read_bytes()
                self._send(200, content[::-1] if fault == "damage" else content, fault == "cut")

        def _send(self, status: int, content: bytes, cut: bool = False) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if cut else content)
            archive.size += len(content)
            self.close_connection = cut

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    return Handler

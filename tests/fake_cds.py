"""A Climate Data Store on loopback: the ECMWF Data Stores Processing API, with all its moods.

Written from the API's published description (OGC API - Processes, as ECMWF's service and client
speak it: https://cds.climate.copernicus.eu/api/retrieve/v1/docs). It answers with real NetCDF
files, laid out as the Data Store lays them out, whose values are known: `value` and `amount`.
"""

from __future__ import annotations

import io
import json
import math
import re
import tempfile
import threading
import time
import uuid
import zipfile
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import netCDF4
import numpy as np
from numpy.typing import NDArray

from climatestream import variables

KEY = "5b6f1c9e-0000-4000-8000-c0ffee000000"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Json = dict[str, Any]


def value(cds_name: str, hour: Any, latitude: Any, longitude: Any) -> Any:
    """An instant's value: exact in float32, distinct from hour to hour and cell to cell.

    Hours since 1970; numbers, or arrays that go together.
    """
    return 250.0 + len(cds_name) + (_place(latitude, longitude) + 5 * hour) % 512 / 8


def amount(cds_name: str, hour: Any, latitude: Any, longitude: Any) -> Any:
    """What comes in the hour that ends at this hour since 1970; sums of a day are exact too."""
    return (_place(latitude, longitude) + len(cds_name) + hour) % 8 / 1024


def since_midnight(cds_name: str, hour: Any, latitude: Any, longitude: Any) -> Any:
    """As ERA5-Land has it: the sum since 00 UTC, at 00 UTC that of the day before."""
    length = (hour - 1) % 24
    return sum(amount(cds_name, hour - k, latitude, longitude) * (k <= length) for k in range(24))


def _place(latitude: Any, longitude: Any) -> Any:
    return np.rint(latitude * 10) * 7 + np.rint(longitude * 10) * 3


def accumulates(cds_name: str) -> bool:
    known = variables.by_cds_name(cds_name)
    return known is not None and known.accumulated


@dataclass
class Job:
    """A request, as the service knows it."""

    id: str
    collection: str
    inputs: Json
    created: datetime
    status: str = "accepted"
    looks: int = 0
    error: str = ""
    content: bytes = b""
    name: str = ""
    served: int = 0
    """Bytes of its answer that were sent."""


@dataclass
class Moods:
    """How the service behaves. Counts go down as they are used up."""

    looks_queued: int = 0
    looks_running: int = 0
    """How many looks at a job find it so before it is successful."""
    cost_limit: int = 10**9
    execution_limit: int = 10**9
    """What is refused at execution, though the estimate let it pass [values]."""
    queue_limit: int = 100
    """Jobs of a dataset that may wait or run; others are rejected."""
    failures: int = 0
    failure: str = "MARS has returned an error, please check your selection."
    rate_limited: int = 0
    busy: int = 0
    """Answers 429 with Retry-After, and 502."""
    drop_submissions: int = 0
    """The job is made, and the connection breaks before the answer."""
    drops: list[int] = field(default_factory=list)
    """After how many bytes downloads break."""
    ranges: bool = True
    forgets: int = 0
    """Looks at jobs that answer 404, for good."""
    expires: int = 0
    """Answers that have been dropped when they are asked for."""
    licence: bool = True
    newest: date = date(2200, 1, 1)
    stalls: threading.Event | None = None
    """Downloads wait in the middle until it is set."""
    always_zip: bool = False
    files: dict[str, bytes] | None = None
    """What answers hold, instead of files that are made."""
    invalid: str = ""
    """Why a request is refused, whatever it is."""


class FakeDataStore:
    """Serves until it is closed; what it was asked is in `seen` and `jobs`."""

    def __init__(self) -> None:
        self.moods = Moods()
        self.jobs: dict[str, Job] = {}
        self.seen: list[tuple[str, str]] = []
        self.tokens: set[str | None] = set()
        self.download_headers: list[dict[str, str]] = []
        self.most_in_flight = 0
        self.impolite = 0
        """Calls that came before the time that Retry-After said."""
        self._quiet_until = 0.0
        self.lock = threading.RLock()
        handler = type("Handler", (_Handler,), {"store": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.moods.stalls is not None:
            self.moods.stalls.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def site(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def url(self) -> str:
        return f"{self.site}/api"

    @property
    def environment(self) -> dict[str, str]:
        return {"CDSAPI_URL": self.url, "CDSAPI_KEY": KEY}

    def asked(self, kind: str) -> int:
        """How often a path with this in it was called."""
        return sum(kind in path for _, path in self.seen)

    @property
    def served(self) -> int:
        return sum(job.served for job in self.jobs.values())

    # ----------------------------------------------------------------------------- answers

    def refusal(self) -> tuple[int, Json, dict[str, str]] | None:
        """What every call may be answered, whatever it is."""
        with self.lock:
            if time.monotonic() < self._quiet_until:
                self.impolite += 1
            if self.moods.rate_limited:
                self.moods.rate_limited -= 1
                self._quiet_until = time.monotonic() + 0.9
                return 429, _problem("rate limit exceeded", 429), {"Retry-After": "1"}
            if self.moods.busy:
                self.moods.busy -= 1
                return 502, {}, {}
        return None

    def execute(self, collection: str, inputs: Json) -> tuple[int, Json]:
        if not self.moods.licence:
            page = f"{self.site}/datasets/{collection}?tab=download#manage-licences"
            detail = (
                "Not all the required licences have been accepted; please visit "
                f"{page} to accept the required licence(s)."
            )
            return 403, _problem("required licences not accepted", 403, detail)
        if self.moods.invalid:
            return 400, _problem("invalid request", 400, self.moods.invalid)
        if _values(inputs) > min(self.moods.execution_limit, self.moods.cost_limit):
            detail = "Your request is too large, please reduce your selection."
            return 403, _problem("cost limits exceeded", 403, detail)
        job = Job(str(uuid.uuid4()), collection, inputs, datetime.now(UTC))
        with self.lock:
            flying = [j for j in self.jobs.values() if j.status in {"accepted", "running"}]
            self.jobs[job.id] = job
            self.most_in_flight = max(self.most_in_flight, len(flying) + 1)
            if sum(j.collection == collection for j in flying) >= self.moods.queue_limit:
                job.status = "rejected"
                job.error = (
                    "Number queued requests for this dataset is temporarily limited.\n"
                    "Please configure your scripts accordingly"
                )
        return 201, self.status(job, "monitor")

    def look(self, job: Job) -> None:
        """A job gets on when someone looks."""
        moods = self.moods
        with self.lock:
            if job.status not in {"accepted", "running"}:
                return
            job.looks += 1
            if job.looks <= moods.looks_queued:
                return
            if job.looks <= moods.looks_queued + moods.looks_running:
                job.status = "running"
            elif moods.failures:
                moods.failures -= 1
                job.status, job.error = "failed", moods.failure
            else:
                files = moods.files or _files(job)
                job.name, job.content = _answer(job, files, zipped=moods.always_zip)
                job.status = "successful"

    def status(self, job: Job, rel: str) -> Json:
        link = f"{self.url}/retrieve/v1/jobs/{job.id}"
        links = [{"rel": rel, "href": link, "type": "application/json"}]
        if job.status == "successful":
            links.append({"rel": "results", "href": f"{link}/results"})
        return {
            "processID": job.collection,
            "type": "process",
            "jobID": job.id,
            "status": job.status,
            "created": job.created.replace(tzinfo=None).isoformat(),
            "updated": job.created.replace(tzinfo=None).isoformat(),
            "links": links,
            "metadata": {"request": {"ids": job.inputs, "labels": {}}, "log": []},
        }

    def results(self, job: Job) -> tuple[int, Json]:
        if job.status in {"failed", "rejected"}:
            return 400, {
                "type": "job results failed",
                "title": f"The job has {'failed' if job.status == 'failed' else 'been rejected'}",
                "status": 400,
                "traceback": job.error,
            }
        with self.lock:
            if self.moods.expires:
                self.moods.expires -= 1
                return 404, _problem("results expired", 404, f"results of job {job.id} expired")
        href = f"{self.site}/download/{job.id}/{job.name}"
        value = {"type": "application/octet-stream", "href": href, "file:size": len(job.content)}
        return 200, {"asset": {"value": value}}

    def constraints(self, inputs: Json) -> Json:
        year, month = int(inputs["year"][0]), int(inputs["month"][0])
        first = date(year, month, 1)
        days = (first + timedelta(days=number) for number in range(31))
        there = [day for day in days if day.month == month and day <= self.moods.newest]
        return {"day": [f"{day.day:02d}" for day in there], "time": [], "variable": []}


class _Handler(BaseHTTPRequestHandler):
    store: FakeDataStore
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Tests have their own."""

    def do_GET(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(json.loads(body or b"{}"))

    def _answer(self, body: Json) -> None:
        store, path = self.store, urlsplit(self.path).path
        with store.lock:
            store.seen.append((self.command, path))
        if path.startswith("/download/"):
            self._download(*path.split("/")[2:4])
            return
        store.tokens.add(self.headers.get("PRIVATE-TOKEN"))
        if path == "/api/catalogue/v1/messages":
            self._json(200, {"messages": []})
            return
        refused = store.refusal()
        if refused is not None:
            self._json(*refused)
            return
        if self.headers.get("PRIVATE-TOKEN") != KEY:
            self._json(401, _problem("permission denied", 401, "authentication failed"))
            return
        self._retrieve(path, body.get("inputs", {}))

    def _retrieve(self, path: str, inputs: Json) -> None:
        store, moods = self.store, self.store.moods
        found = re.fullmatch(r"/api/retrieve/v1/(processes|jobs)(?:/([^/]+))?(?:/(\w+))?", path)
        kind, name, what = found.groups() if found else ("", "", "")
        if kind == "processes":
            if not _known(name):
                self._json(404, _problem("process not found", 404, f"dataset {name} not found"))
            elif what == "costing":
                cost = {"id": "size", "cost": _values(inputs), "limit": moods.cost_limit}
                self._json(200, {**cost, "request_is_valid": True, "invalid_reason": None})
            elif what == "constraints":
                self._json(200, store.constraints(inputs))
            elif what == "execution":
                status, said = store.execute(name, inputs)
                if status == 201 and moods.drop_submissions:
                    moods.drop_submissions -= 1
                    self.close_connection = True
                    return
                self._json(status, said)
            else:
                self._json(200, {"id": name, "version": "1.0.0", "links": []})
        elif kind == "jobs" and name is None:
            self._json(200, self._jobs())
        else:
            self._job(name or "", what)

    def _jobs(self) -> Json:
        query = parse_qs(urlsplit(self.path).query)
        jobs = sorted(self.store.jobs.values(), key=lambda job: job.created, reverse=True)
        asked = [job for job in jobs if job.status in query.get("status", [job.status])]
        limit = int(query.get("limit", ["10"])[0])
        shown = [self.store.status(job, "self") for job in asked[:limit]]
        return {"jobs": [{**job, "metadata": {}} for job in shown], "links": []}

    def _job(self, name: str, what: str | None) -> None:
        store = self.store
        job = store.jobs.get(name)
        if job is not None and store.moods.forgets:
            store.moods.forgets -= 1
            del store.jobs[name]
            job = None
        if job is None:
            self._json(404, _problem("job not found", 404, f"job {name} not found"))
        elif what == "results":
            self._json(*store.results(job))
        else:
            store.look(job)
            self._json(200, store.status(job, "self"))

    def _json(self, status: int, said: Json, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(said).encode() if said else b"<html>Bad Gateway</html>"
        self.send_response(status)
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _download(self, name: str, _: str) -> None:
        store, job = self.store, self.store.jobs[name]
        store.download_headers.append(dict(self.headers))
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked and store.moods.ranges else 0
        content = job.content[start:]
        self.send_response(206 if start else 200)
        if start:
            whole = len(job.content)
            self.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        cut = store.moods.drops.pop(0) if store.moods.drops else len(content)
        middle = len(content) // 2 if store.moods.stalls is not None else 0
        for first, last in ((0, middle), (middle, min(cut, len(content)))):
            self.wfile.write(content[first:last])
            self.wfile.flush()
            with store.lock:
                job.served += max(0, last - first)
            if store.moods.stalls is not None and last == middle:
                store.moods.stalls.wait(60)
        if cut < len(content):
            self.close_connection = True


def _problem(title: str, status: int, detail: str = "") -> Json:
    return {"type": title, "title": title, "status": status, "detail": detail}


def _known(name: str | None) -> bool:
    return name in {
        "reanalysis-era5-land",
        "derived-era5-land-daily-statistics",
        "reanalysis-era5-land-timeseries",
        "derived-era5-single-levels-daily-statistics",
    }


def _values(inputs: Json) -> int:
    lists = (inputs.get(name) for name in ("variable", "day", "time"))
    return math.prod(len(some) for some in lists if isinstance(some, list))


# --------------------------------------------------------------------------------- files


def _files(job: Job) -> dict[str, bytes]:
    """The files of an answer, by their names."""
    inputs = job.inputs
    if "location" in inputs:
        # Each group of variables comes from a Zarr store of its own, and so in a file of its own.
        return {
            f"{job.collection}-sfc-{name.replace('_', '-')}{job.id[:8]}.nc": _series(inputs, [name])
            for name in inputs["variable"]
        }
    if "daily_statistic" in inputs:
        statistic = inputs["daily_statistic"].replace("_", "-").replace("imum", "")
        return {f"{name}_0_{statistic}.nc": _daily(inputs, name) for name in inputs["variable"]}
    sums = [name for name in inputs["variable"] if accumulates(name)]
    others = [name for name in inputs["variable"] if not accumulates(name)]
    return {
        f"data_stream-oper_stepType-{kind}.nc": _hourly(inputs, names)
        for kind, names in (("accum", sums), ("instant", others))
        if names
    }


def _answer(job: Job, files: dict[str, bytes], zipped: bool) -> tuple[str, bytes]:
    """The name and bytes of an answer: one file, or a ZIP of several."""
    if len(files) == 1 and not zipped:
        return next(iter(files.items()))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return f"{job.id[:8]}.zip", packed.getvalue()


def _axis(first: float, last: float, step: float) -> NDArray[np.float64]:
    return np.round(first + np.arange(round(abs(last - first) / abs(step)) + 1) * step, 6)


def _grid(inputs: Json) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    north, west, south, east = inputs["area"]
    step = 0.25 if "product_type" in inputs else 0.1
    return _axis(north, south, -step), _axis(west, east, step)


def _hours_of(inputs: Json) -> list[int]:
    year, month = int(inputs["year"]), int(inputs["month"])
    return [
        round((datetime(year, month, int(day), int(t[:2]), tzinfo=UTC) - EPOCH).total_seconds())
        // 3600
        for day in inputs["day"]
        for t in inputs.get("time", ["00:00"])
    ]


def _hourly(inputs: Json, names: list[str]) -> bytes:
    latitude, longitude = _grid(inputs)
    hours = _hours_of(inputs)
    of = since_midnight if accumulates(names[0]) else value
    at = np.array(hours)[:, None, None], latitude[:, None], longitude
    fields = {name: of(name, *at) for name in names}
    return _write(latitude, longitude, hours, fields, {}, {"units": "hours since 1970-01-01"})


def _daily(inputs: Json, name: str) -> bytes:
    """The mean, or another statistic, of the hours of each day in the time zone."""
    latitude, longitude = _grid(inputs)
    days = [hour // 24 for hour in _hours_of(inputs)]
    zone = int(inputs["time_zone"].removeprefix("utc")[:3])
    step = int(inputs["frequency"][0])
    ended = accumulates(name)
    shift = zone - 1 if ended else zone
    how = inputs["daily_statistic"].removeprefix("daily_").replace("imum", "")
    hours = np.arange(0, 24, step)[:, None, None, None] - shift
    at = hours + 24 * np.array(days)[:, None, None], latitude[:, None], longitude
    every = (amount if ended else value)(name, *at)
    fields = {name: getattr(np, how)(every, axis=0)}
    history = (
        "2025-10-29T07:53 GRIB to CDM+CF via cfgrib-0.9.15.0/ecCodes-2.42.0\n"
        f"earthkit.transforms.aggregate.temporal.daily_reduce({name}_0, how={how}, "
        f"**{{'time_shift': {{'hours': {shift}}}}})"
    )
    return _write(
        latitude, longitude, days, fields, {"history": history}, {"units": "days since 1970-01-01"}
    )


def _series(inputs: Json, names: list[str]) -> bytes:
    first, last = (date.fromisoformat(day) for day in inputs["date"][0].split("/"))
    start = (first - date(1970, 1, 1)).days * 24
    hours = list(range(start, start + 24 * ((last - first).days + 1)))
    at = inputs["location"]
    latitude, longitude = (np.round(np.array([at[k]]), 1) for k in ("latitude", "longitude"))
    fields = {
        name: (amount if accumulates(name) else value)(
            name, np.array(hours), latitude[0], longitude[0]
        )
        for name in names
    }
    return _write(latitude, longitude, hours, fields, {}, {"units": "hours since 1970-01-01"})


def _write(
    latitude: NDArray[np.float64],
    longitude: NDArray[np.float64],
    times: list[int],
    fields: dict[str, Any],
    attributes: dict[str, str],
    time_attributes: dict[str, str],
) -> bytes:
    with tempfile.TemporaryDirectory(prefix="fake-cds-") as folder:
        path = Path(folder, "answer.nc")
        with netCDF4.Dataset(path, "w") as dataset:
            dataset.setncatts({"GRIB_centre": "ecmf", "Conventions": "CF-1.7", **attributes})
            flat = np.ndim(next(iter(fields.values()))) == 1
            axes: dict[str, Any] = {"latitude": latitude, "longitude": longitude}
            dataset.createDimension("valid_time", len(times))
            for name, axis in axes.items():
                if not flat:
                    dataset.createDimension(name, len(axis))
                made = dataset.createVariable(name, "f8", () if flat else (name,))
                made.units = "degrees_north" if name == "latitude" else "degrees_east"
                made[...] = axis[0] if flat else axis
            when = dataset.createVariable("valid_time", "i8", ("valid_time",))
            when.setncatts({"calendar": "proleptic_gregorian", **time_attributes})
            when[:] = times
            dimensions = ("valid_time",) if flat else ("valid_time", "latitude", "longitude")
            for cds_name, values in fields.items():
                known = variables.by_cds_name(cds_name)
                short = known.short_names[0] if known else cds_name
                made = dataset.createVariable(short, "f4", dimensions, fill_value=np.nan)
                made.setncatts(
                    {
                        "units": known.file_unit if known else "1",
                        "GRIB_stepType": "accum" if accumulates(cds_name) else "instant",
                        "coordinates": "latitude longitude valid_time",
                    }
                )
                made[...] = np.asarray(values, np.float32)
        return path.read_bytes()

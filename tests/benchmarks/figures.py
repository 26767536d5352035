"""Each figure calls the very functions that `pipeline` calls."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import duckdb
import msgspec
import netCDF4
import numpy as np
import orjson
import polars as pl

from climatestream import codec, fastcodec, pipeline, replay
from climatestream.arrow import ArrowStream
from climatestream.brokers.memory import MemoryBroker
from climatestream.ingest import UNSTATED, Ingest
from climatestream.meter import Meter
from climatestream.model import Batch, Messages
from climatestream.sources.open import open_source
from climatestream.sources.selection import Selection
from climatestream.stores.duckdb import DuckDBStore
from tests.benchmarks.timing import Figure, compare, peak_mb

VARIABLES = {"t2m": "K", "u10": "m s**-1", "v10": "m s**-1", "sp": "Pa"}
POISON_EVERY = 1000
REFERENCE_PER_S = 500
"""Readings a second of the slowest stage of the public demo that this project is held against."""


def make_file(
    path: Path,
    *,
    rows: int,
    columns: int,
    times: int,
    land: float = 1.0,
    variables: Mapping[str, str] = VARIABLES,
) -> int:
    """A file as the Climate Data Store sends it; the readings in it.

    Hourly, float32, a mask that is the same at every time.
    """
    rng = np.random.default_rng(0)
    valid = rng.random((rows, columns)) < land
    with netCDF4.Dataset(path, "w") as file:
        for name, size in (("valid_time", times), ("latitude", rows), ("longitude", columns)):
            file.createDimension(name, size)
        time_ = file.createVariable("valid_time", "i8", ("valid_time",))
        time_.units, time_.standard_name = "hours since 2025-08-01", "time"
        time_[:] = np.arange(times)
        for name, first, step in (("latitude", 90.0, -0.1), ("longitude", 0.0, 0.1)):
            axis = file.createVariable(name, "f8", (name,))
            axis.standard_name = name
            axis.units = "degrees_north" if name == "latitude" else "degrees_east"
            axis[:] = np.round(first + step * np.arange(file.dimensions[name].size), 4)
        for name, unit in variables.items():
            variable = file.createVariable(
                name,
                "f4",
                ("valid_time", "latitude", "longitude"),
                fill_value=np.nan,
                compression="zlib",
                complevel=1,
                chunksizes=(1, rows, columns),
            )
            variable.units = unit
            for at in range(times):
                field = rng.normal(280, 8, (rows, columns)).astype("f4")
                variable[at] = np.where(valid, field, np.nan)
    return int(valid.sum()) * times


def batches(readings: int) -> list[Batch]:
    """Simulated readings of Germany, each time one batch; at least so many."""
    found: list[Batch] = []
    with open_source(("simulation:?days=60",), Selection()) as source:
        for slice_ in source.slices():
            found += source.read(slice_)
            if sum(map(len, found)) >= readings:
                break
    return found


def encode(readings: int) -> Figure:
    """Readings to JSON bytes, one message a reading."""
    made = batches(readings)
    count = sum(map(len, made))

    def one_dict_a_reading() -> None:
        for batch in made:
            names = ["latitude", "longitude", *batch.values]
            columns = [batch.cells.latitude, batch.cells.longitude, *batch.values.values()]
            for row, country in zip(
                zip(*(np.asarray(c).tolist() for c in columns), strict=True),
                batch.cells.country,
                strict=True,
            ):
                document = dict(zip(names, row, strict=True))
                orjson.dumps(
                    {
                        "timestamp": batch.time_ns,
                        "dataset": batch.dataset,
                        **document,
                        "country": country,
                    }
                )

    ours, theirs = compare(lambda: [fastcodec.encode(b) for b in made], one_dict_a_reading)
    return Figure("readings to JSON", "orjson, a dict a reading", ours, theirs, count, "4x")


class Document(msgspec.Struct):
    """A message as a typed struct, as the yardstick decodes it."""

    timestamp: int
    dataset: str
    temperature: float
    u10: float
    v10: float
    pressure: float
    latitude: float
    longitude: float
    country: str | None


def decode(readings: int, poison: int = 0) -> Figure:
    """JSON bytes to columns, validated and converted, with cell ids."""
    values = [value for batch in batches(readings) for value in fastcodec.encode(batch)]
    poisoned = [
        b'{"broken' if poison and n % poison == poison - 1 else v for n, v in enumerate(values)
    ]
    size = 50_000
    blocks = [
        _block(poisoned[start : start + size], start) for start in range(0, len(values), size)
    ]
    decoder = msgspec.json.Decoder(Document)

    def struct_a_message() -> None:
        for start in range(0, len(values), size):
            read = [decoder.decode(value) for value in values[start : start + size]]
            for name in Document.__struct_fields__:
                column = [getattr(one, name) for one in read]
                if name not in ("dataset", "country"):
                    np.array(column)

    ours, theirs = compare(
        lambda: [fastcodec.decode([block], UNSTATED, {}) for block in blocks], struct_a_message
    )
    name = "JSON to rows" + (f", one in {poison} poison" if poison else "")
    return Figure(name, "msgspec, a struct a message", ours, theirs, len(values), "2x")


def decode_by_message(readings: int) -> Figure:
    """The path of the Lambda handler: message by message, without numpy."""
    values = [value for batch in batches(readings) for value in fastcodec.encode(batch)]
    block = _block(values, 0)

    def loads() -> None:
        for value in values:
            orjson.loads(value)

    ours, theirs = compare(lambda: codec.decode([block], UNSTATED, {}), loads)
    return Figure("JSON to rows, by message", "orjson.loads alone", ours, theirs, len(values), "")


def _block(values: list[bytes], first: int) -> Messages:
    n = len(values)
    return Messages("t", 0, range(first, first + n), [0] * n, [None] * n, values, [()] * n)


# ------------------------------------------------------------------------- file to store


def run_file(file: Path, store: Path, poison: int = 0) -> None:
    """The whole pipeline, as `climatestream run FILE` opens it."""
    never = threading.Event()
    with (
        open_source((str(file),), Selection()) as source,
        DuckDBStore(str(store)) as opened,
        MemoryBroker() as broker,
    ):
        ingest = Ingest(opened, UNSTATED, fastcodec.decode)
        partitions = list(broker.committed(pipeline.GROUP))
        with Meter(opened, broker.topic, lambda: broker.high_water(partitions)) as meter:
            read = replay.paced(source, replay.Pace(), replay.Clock(never))
            with _poisoned(poison):
                pipeline.run(read, broker, ingest, meter, stop=never, abandon=never)
        assert meter.published == meter.stored + meter.dead > 0


@contextmanager
def _poisoned(every: int) -> Iterator[None]:
    """Every so many messages that are published are cut in half."""
    real = fastcodec.encode

    def cut(batch: Batch) -> list[bytes]:
        values = real(batch)
        for index in range(every - 1, len(values), every):
            values[index] = values[index][: len(values[index]) // 2]
        return values

    with patch.object(pipeline, "encode", cut) if every else nullcontext():
        yield


def file_to_store(rows: int, columns: int, times: int, poison: int = 0) -> Figure:
    """A file to DuckDB through the in-process broker, against MERGE of ready batches."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / "era5-land.nc"
        count = make_file(file, rows=rows, columns=columns, times=times)
        ready = _ready(file)
        stores = (folder / f"{number}.duckdb" for number in range(1000))
        ours, theirs = compare(
            lambda: run_file(file, next(stores), poison),
            lambda: _merge(ready, next(stores)),
        )
    said = f"file to DuckDB, {rows * columns:,} cells"
    said += f", one in {poison} poison" if poison else ""
    return Figure(said, "MERGE of ready Arrow batches", ours, theirs, count, "0.5x")


def _ready(file: Path) -> list[pl.DataFrame]:
    """The rows of a file as the store's table has them, a frame a batch."""
    frames = []
    with open_source((str(file),), Selection()) as source:
        for slice_ in source.slices():
            for batch in source.read(slice_):
                n = len(batch)
                data = {name: np.asarray(column) for name, column in batch.values.items()}
                frames.append(
                    pl.DataFrame(
                        {
                            "dataset": [batch.dataset] * n,
                            "cell": fastcodec.cell_ids(batch.cells.latitude, batch.cells.longitude),
                            "country": pl.Series(batch.cells.country, dtype=pl.String),
                            "timestamp": pl.Series([batch.time_ns // 1000] * n).cast(
                                pl.Datetime("us")
                            ),
                            "latitude": np.asarray(batch.cells.latitude),
                            "longitude": np.asarray(batch.cells.longitude),
                            **data,
                            "published_at": pl.Series([batch.time_ns // 1000] * n).cast(
                                pl.Datetime("us")
                            ),
                            "source": ["t/0"] * n,
                            "offset": np.arange(n),
                        }
                    )
                )
    return frames


def _merge(ready: list[pl.DataFrame], store: Path) -> None:
    """The yardstick: the plain statement, one transaction a batch."""
    row = """SELECT dataset, cell, country, "timestamp", date_trunc('year', "timestamp") AS year,
        [longitude, latitude]::DOUBLE[2] AS geo_location,
        {temperature: temperature, u10: u10, v10: v10, pressure: pressure,
         latitude: latitude, longitude: longitude} AS data,
        false AS preliminary, published_at, now()::TIMESTAMP AS stored_at, source, "offset"
        FROM ready"""
    with duckdb.connect(str(store)) as connection:
        connection.execute(
            """CREATE TABLE readings (dataset TEXT, cell TEXT, country TEXT,
            "timestamp" TIMESTAMP, year TIMESTAMP, geo_location DOUBLE[2],
            data STRUCT(temperature DOUBLE, u10 DOUBLE, v10 DOUBLE, pressure DOUBLE,
            latitude DOUBLE, longitude DOUBLE), preliminary BOOLEAN, published_at TIMESTAMP,
            stored_at TIMESTAMP, source TEXT, "offset" BIGINT)"""
        )
        for frame in ready:
            connection.register("ready", ArrowStream(frame))
            connection.execute(
                f"""MERGE INTO readings AS t USING ({row}) AS s
                ON t."timestamp" = s."timestamp" AND t.cell = s.cell AND t.dataset = s.dataset
                WHEN MATCHED AND s.published_at > t.published_at THEN UPDATE SET data = s.data
                WHEN NOT MATCHED THEN INSERT"""
            )


# -------------------------------------------------------------------------------- memory


def memory(rows: int, columns: int, times: int) -> Figure:
    """Peak memory of `climatestream run`: a field at successive times against once."""
    with tempfile.TemporaryDirectory() as name:
        peaks = []
        for count in (times, 1):
            file = Path(name) / f"{count}.nc"
            make_file(
                file, rows=rows, columns=columns, times=count, land=0.34, variables={"t2m": "K"}
            )
            where = ["--store", f"duckdb:{name}/{count}.duckdb", "--dataset", "era5-land/hourly"]
            peaks.append(peak_mb(["run", str(file), *where]))
            file.unlink()
    return Figure(
        f"peak memory, {rows:,} x {columns:,} at {times} times",
        "the same at one time",
        peaks[0],
        peaks[1],
        times,
        "1.1x, 500 MB",
        unit="MB",
    )


# ---------------------------------------------------------------------------------- demo


def first_reading_s() -> float:
    """Seconds from the start of `climatestream demo` to the first reading in its store."""
    with tempfile.TemporaryDirectory() as name:
        began = time.perf_counter()
        with subprocess.Popen(
            [sys.executable, "-m", "climatestream.cli", "demo", "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=name,
            text=True,
        ) as process:
            assert process.stdout is not None
            match = re.search(r"http://\S+$", process.stdout.readline().strip())
            assert match is not None
            while _count(match[0]) == 0:
                time.sleep(0.02)
            took = time.perf_counter() - began
            process.send_signal(signal.SIGINT)
    return took


def _count(url: str) -> int:
    import httpx

    state: dict[str, Any] = httpx.get(f"{url}/state").json()
    return int(state["readings"])

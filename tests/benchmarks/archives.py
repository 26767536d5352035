"""What reading Germany from the archives takes: `python -m tests.benchmarks.archives`.

With `speed` as argument: readings a second from a Zarr archive on this machine into a DuckDB file,
through the whole pipeline.

Counted with the planner's own arithmetic from the archives' shapes and chunks as they were in
2026: ARCO 1,801 x 3,600 cells from 90 S and 180 W, cut 33,792 x 4 x 8 (geo) and, as ECMWF's other
archive on this grid, 1 x 1,024 x 1,024 (time); Earth Data Hub from 90 N and 0 E, 1,440 x 50 x 100.
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Final

import numpy as np

from climatestream.region import parse_region
from climatestream.sources import archives
from climatestream.sources.request import snapped
from climatestream.sources.selection import end_of, start_of
from climatestream.sources.zarr_array import Cut, Plan, Traffic, chunks_of

HOUR_NS: Final = 3_600_000_000_000
BYTES: Final = 4
VARIABLES: Final = 4
GLOBE: Final = (1801, 3600)

CUTS: Final = {
    "`arco:`, geo": ((33792, 4, 8), False),
    "`arco:`, time": ((1, 1024, 1024), False),
    "`edh:`": ((1440, 50, 100), True),
}
SPANS: Final = {"a month": ("2024-08-01", "2024-08-31"), "a year": ("2024-01-01", "2024-12-31")}


def cut_of(since: str, until: str, from_north: bool) -> Cut:
    """Germany on an archive's axes, which begin in 1950."""
    area = snapped(parse_region("DEU"), 10)
    begin = start_of("1950-01-01")
    times = slice((start_of(since) - begin) // HOUR_NS, (end_of(until) - begin) // HOUR_NS)
    south, north = round((area.south + 90) * 10), round((area.north + 90) * 10)
    rows = slice(1800 - north, 1801 - south) if from_north else slice(south, north + 1)
    west = round(area.west * 10) + (0 if from_north else 1800)
    columns = np.arange(west, west + area.shape[1])
    return Cut(times, rows, columns)


def plan(name: str, span: str, everywhere: bool = False) -> Plan:
    """What four variables take; `everywhere`: without a region, all chunks of these times."""
    chunks, from_north = CUTS[name]
    cut = cut_of(*SPANS[span], from_north)
    if everywhere:
        cut = Cut(cut.times, slice(0, GLOBE[0]), np.arange(GLOBE[1]))
    count = VARIABLES * chunks_of(cut, chunks)
    return Plan(count, count * math.prod(chunks) * BYTES)


def zarr_to_store(service: str, folder: Path) -> tuple[int, float, Traffic]:
    """Readings stored, seconds, and what was asked of the archive: ten days of hours of Germany."""
    from climatestream import pipeline, replay
    from climatestream.brokers.memory import MemoryBroker
    from climatestream.fastcodec import decode
    from climatestream.ingest import Ingest
    from climatestream.meter import Meter
    from climatestream.sources.selection import Selection
    from climatestream.sources.zarr_source import ZarrSource
    from climatestream.stores.duckdb import DuckDBStore

    chosen = Selection(
        parse_region("DEU"),
        ("temperature", "u10", "v10", "pressure"),
        start_of("2025-09-25"),
        end_of("2025-10-04"),
    )
    stop = threading.Event()
    began = time.monotonic()
    with (
        ZarrSource(f"{service}:era5-land/hourly", chosen) as source,
        DuckDBStore(folder / f"{service}.duckdb") as store,
        MemoryBroker() as broker,
        Meter(store, broker.topic, dict) as meter,
    ):
        batches = replay.paced(source, replay.Pace(), replay.Clock(stop))
        ingest = Ingest(store, "unstated", decode)
        pipeline.run(batches, broker, ingest, meter, stop=stop, abandon=stop)
        return meter.stored, time.monotonic() - began, source.traffic


def speed() -> None:
    """Print readings a second, medians of three."""
    from tests.zarr_server import ZarrServer, make_archives

    with tempfile.TemporaryDirectory() as made:
        make_archives(Path(made))
        with ZarrServer(Path(made)).serving() as server:
            os.environ |= {"CDSAPI_KEY": "secret-of-arco", archives.EDH_KEY: "secret-of-edh"}
            os.environ |= dict.fromkeys(archives.URL_ENVIRONMENT.values(), server.url)
            for service in archives.URL_ENVIRONMENT:
                runs = []
                for _ in range(3):
                    with tempfile.TemporaryDirectory() as folder:
                        stored, seconds, traffic = zarr_to_store(service, Path(folder))
                    runs.append(stored / seconds)
                print(
                    f"{service}: {stored:,} readings, {sorted(runs)[1]:,.0f}/s, "
                    f"{traffic.requests:,} requests, {traffic.size / 1e6:.1f} MB"
                )


def main() -> None:
    """Print a Markdown table, or the speed."""
    if "speed" in sys.argv[1:]:
        speed()
        return
    print("| source | span | requests | before compression | naive: the globe |")
    print("| --- | --- | --- | --- | --- |")
    for span in SPANS:
        for name in CUTS:
            ours, naive = plan(name, span), plan(name, span, everywhere=True)
            print(
                f"| {name} | {span} | {ours.requests:,} | {ours.size / 1e9:,.2f} GB "
                f"| {naive.requests:,}, {naive.size / 1e9:,.0f} GB |"
            )


if __name__ == "__main__":
    main()

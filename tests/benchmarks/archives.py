"""What reading Germany from the archives takes: `python -m tests.benchmarks.archives`.

Counted with the planner's own arithmetic from the archives' shapes and chunks as they were in
2026: ARCO 1,801 x 3,600 cells from 90 S and 180 W, cut 33,792 x 4 x 8 (geo) and, as ECMWF's other
archive on this grid, 1 x 1,024 x 1,024 (time); Earth Data Hub from 90 N and 0 E, 1,440 x 50 x 100.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from climatestream.region import parse_region
from climatestream.sources.request import snapped
from climatestream.sources.selection import end_of, start_of
from climatestream.sources.zarr_array import Cut, Plan, chunks_of

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


def main() -> None:
    """Print a Markdown table."""
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

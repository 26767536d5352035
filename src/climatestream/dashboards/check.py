"""Whether the boards are as they must be: as checked in, well formed, and answered by a store.

Needs no server: the store is one of its own, filled by the pipeline itself.
"""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from climatestream import normals, pipeline, places
from climatestream.brokers.memory import MemoryBroker
from climatestream.dashboards import generate, runs
from climatestream.dashboards.lint import problems
from climatestream.errors import DashboardError, StoreError
from climatestream.fastcodec import decode
from climatestream.ingest import Ingest
from climatestream.interrupt import Interrupt
from climatestream.meter import Meter
from climatestream.ports import PipelineRow
from climatestream.sources.open import open_source
from climatestream.sources.selection import Selection, end_of, start_of
from climatestream.stores.open import open_store

if TYPE_CHECKING:
    from climatestream.model import Batch
    from climatestream.ports import Store

REGION: Final = "west=13.2,south=52.3,east=13.7,north=52.7"
"""Berlin: the largest city of the country must have cells around it."""
DAYS: Final = 7
STEP: Final = "1h"
PRELIMINARY_DAYS: Final = 2
YEARS: Final = 3
"""Years that the normals are of: averages, in WMO's words, but of the same tables."""
POISON: Final = (b"", b"not json", b"[]", b'{"timestamp": 1}', b'{"latitude": 95.0}')


def check(folder: Path, made: Mapping[str, bytes], interrupt: Interrupt | None = None) -> list[str]:
    """What is wrong with Grafana's files in a folder, each as a sentence; none: nothing.

    Parameters
    ----------
    made
        By path in the folder, what is to be checked in; those in `generate.BOARDS` are boards.
    interrupt
        Ends it: what was found by then.
    """
    interrupt = interrupt or Interrupt()
    found = list(_differences(folder, made))
    boards = {}
    for name, content in made.items():
        path = folder / name
        if PurePath(name).parent.name != generate.BOARDS:
            continue
        try:
            boards[path.name] = json.loads(path.read_bytes() if path.is_file() else content)
        except ValueError as error:
            found.append(f"{path} is no JSON: {error}")
    uids = frozenset(board.get("uid") for board in boards.values())
    malformed = {name: problems(board, uids) for name, board in boards.items()}
    found += [f"{name}: {sentence}" for name in malformed for sentence in malformed[name]]
    if any(malformed.values()):
        return found
    with (
        tempfile.TemporaryDirectory(prefix="climatestream-") as temporary,
        open_store(f"duckdb:{temporary}/check.duckdb") as store,
    ):
        fill(store, interrupt)
        now = datetime.now(UTC) + timedelta(seconds=1)
        for name, board in boards.items():
            if interrupt.stop.is_set():
                break
            found += [f"{name}: {sentence}" for sentence in run(board, store, now)]
    return found


def _differences(folder: Path, made: Mapping[str, bytes]) -> Iterator[str]:
    for name in generate.different(folder, made):
        what = "is not what the code makes" if (folder / name).is_file() else "is missing"
        yield f"{folder / name} {what}: run `climatestream dashboards build`"
    for path in sorted((folder / generate.BOARDS).glob("*.json")):
        if f"{generate.BOARDS}/{path.name}" not in made:
            yield f"{path} is no board of ours: delete it"


def run(board: Any, store: Store, now: datetime, choices: Sequence[Choice] = ()) -> list[str]:
    """What is wrong with the answers of a store to a board, with one choice after the other."""
    found: list[str] = []
    time = runs.span(board, now)
    seen: dict[str, set[str]] = {}
    answered: dict[str, dict[str, Sequence[str]]] = {}
    for chosen, filled in choices or choices_of(board):
        try:
            values = runs.resolve(board, store.query, time, chosen)
            for query in runs.queries(board, values, time):
                answer = store.query(query.sql)
                wrong = runs.answer_problems(query, answer)
                if wrong != [runs.EMPTY] or filled:
                    found += [
                        f"{query.panel}: query {query.ref} with {chosen} {one}" for one in wrong
                    ]
                seen.setdefault(query.panel, set()).update(answer.columns)
                answered.setdefault(query.panel, {})[query.ref] = answer.columns
        except DashboardError as error:
            return [*found, str(error)]
        except StoreError as error:
            return [*found, f"{query.panel}: query {query.ref}: {error}: {query.sql}"]
    for panel in board["panels"]:
        title = panel["title"]
        if title in answered:
            found += [
                f"{title}: {sentence}"
                for sentence in runs.field_problems(panel, answered[title], seen[title])
            ]
    return found


Choice: TypeAlias = tuple[dict[str, str], bool]
"""Values of some variables, and whether every panel must have rows with them."""


def choices_of(board: Any) -> list[Choice]:
    """What is chosen, run after run.

    Every option of what has several comes once. Of other variables there are no normals, and
    nothing that is not plausible.
    """
    options = {
        variable["name"]: [option["value"] for option in variable["options"]]
        for variable in board["templating"]["list"]
        if variable["type"] == "custom"
    }
    most = max(map(len, options.values()), default=1)
    found: list[Choice] = [
        ({name: values[min(n, len(values) - 1)] for name, values in options.items()}, True)
        for n in range(most)
    ]
    names = {variable["name"] for variable in board["templating"]["list"]}
    if "variable" in names:
        found += [({"variable": "wind_speed"}, False), ({"variable": "pressure"}, False)]
    if "polygon" in names:
        found.append(({"polygon": "POLYGON((13 52, 14 52, 14 53, 13 53, 13 52))"}, True))
    return found


# ----------------------------------------------------------------------------------- the store


def fill(store: Store, interrupt: Interrupt | None = None) -> None:
    """Readings up to now, preliminary ones among them, normals, dead letters, pipeline rows.

    One reading is not plausible, one time is missing. After an interrupt much is.
    """
    interrupt = interrupt or Interrupt()
    today = datetime.now(UTC).date()
    recent = list(_simulated(today - timedelta(days=DAYS), DAYS + 1))
    gap = len({batch.time_ns for batch in recent}) // 2
    missing = sorted({batch.time_ns for batch in recent})[gap]
    since_ns = round(
        datetime.combine(today - timedelta(days=PRELIMINARY_DAYS), datetime.min.time(), UTC)
        .timestamp()
    ) * 1_000_000_000  # fmt: skip
    _publish(
        store, (_marked(b, since_ns) for b in recent if b.time_ns != missing), POISON, interrupt
    )
    past = (
        batch
        for year in range(1, YEARS + 1)
        for batch in _simulated(_same_day(today, year) - timedelta(days=3), 7)
    )
    _publish(store, past, (), interrupt)
    if interrupt.stop.is_set():
        return
    period = normals.Period(today.year - YEARS, today.year - 1)
    rule = normals.Rule(period, fewer=True)
    normals.make(store, store, "simulation", None, rule, normals.Made())
    places.keep(store)
    store.record([_report(seconds) for seconds in range(0, 60, 5)])


def _same_day(today: date, years: int) -> date:
    return today - timedelta(days=round(365.25 * years))


def _simulated(first: date, days: int) -> Iterator[Batch]:
    from climatestream.region import parse_region

    last = min(first + timedelta(days=days - 1), datetime.now(UTC).date())
    selection = Selection(
        region=parse_region(REGION), start_ns=start_of(str(first)), end_ns=end_of(str(last))
    )
    now_ns = round(datetime.now(UTC).timestamp()) * 1_000_000_000
    with open_source([f"simulation:?step={STEP}"], selection) as source:
        for slice_ in source.slices():
            if slice_.time_ns <= now_ns:
                yield from source.read(slice_)


def _marked(batch: Batch, since_ns: int) -> Batch:
    """Preliminary from a time on, with one value that can't be."""
    late = batch.time_ns >= since_ns
    values = {name: np.array(column, np.float64) for name, column in batch.values.items()}
    if late:
        values["temperature"][0] = 400.0
    return replace(batch, values=values, preliminary=np.full(len(batch), late))


def _publish(
    store: Store, batches: Iterator[Batch], poison: Sequence[bytes], interrupt: Interrupt
) -> None:
    with MemoryBroker() as broker:
        ingest = Ingest(store, decode=decode)
        partitions = list(broker.committed(pipeline.GROUP))
        with (
            broker.producer() as producer,
            Meter(store, broker.topic, lambda: broker.high_water(partitions)) as meter,
        ):
            producer.publish([b"poison"] * len(poison), list(poison))
            stop, abandon = interrupt.stop, interrupt.abandon
            wanted = itertools.takewhile(lambda _: not stop.is_set(), batches)
            pipeline.run(wanted, broker, ingest, meter, stop=stop, abandon=abandon)


def _report(seconds: int) -> PipelineRow:
    """A report of a consumer that polls for what it has stored."""
    now_ms = round(datetime.now(UTC).timestamp() * 1000)
    return PipelineRow(
        time_ms=now_ms - 1000 * seconds,
        instance="checked:1",
        topic="readings",
        partition=seconds % 2,
        offset=1000 - seconds,
        high_water=1000,
        rows=100,
        batch_ms=5.0,
        dead=0,
        errors=int(seconds == 0),
        stored_p50_ms=8.0,
        stored_p95_ms=12.0,
        stored_p99_ms=20.0,
        queryable_ms=30.0,
    )

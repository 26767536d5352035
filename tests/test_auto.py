"""`auto:`: which source is taken, why, and what happens when it fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import pytest

from climatestream.errors import NotServed, SourceError, SourceUnavailable, UsageError
from climatestream.fastcodec import keys
from climatestream.model import Batch, Cells, Slice
from climatestream.region import parse_region
from climatestream.sources.auto import AutoSource, Offer, candidates
from climatestream.sources.open import Around, open_source
from climatestream.sources.request import Request
from climatestream.sources.selection import Selection, start_of
from tests.test_zarr_source import assert_true, selection
from tests.zarr_server import Fault, ZarrServer

HOUR_NS = 3_600_000_000_000
START_NS = start_of("2025-09-26")
CHOSEN = Selection(
    region=parse_region("west=6,south=50,east=6.4,north=50.05"),
    variables=("temperature",),
    start_ns=START_NS,
    end_ns=START_NS + 4 * HOUR_NS,
)
DATASET = "era5-land/hourly"


@dataclass
class Scripted:
    """A source, and a candidate, that does what it is told.

    Parameters
    ----------
    mark
        The value of all its readings, by which they are known.
    fails
        By hour, what reading it raises after half of it was given.
    drift
        How far its coordinates are off the grid [degree].
    """

    mark: float
    seconds: float = 1.0
    hours: int = 4
    refuses: Exception | None = None
    breaks: Exception | None = None
    fails: Mapping[int, Exception] = field(default_factory=dict)
    drift: float = 0.0
    opened: int = 0

    def offer(self, kept: ExitStack) -> Offer:
        if self.refuses is not None:
            raise self.refuses
        return Offer(self.seconds, START_NS + self.hours * HOUR_NS, "scripted")

    def open(self, kept: ExitStack) -> Any:
        if self.breaks is not None:
            raise self.breaks
        self.opened += 1
        return kept.enter_context(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.opened -= 1

    def slices(self) -> Sequence[Slice]:
        return [Slice(START_NS + n * HOUR_NS, DATASET) for n in range(self.hours)]

    def read(self, slice_: Slice) -> Iterator[Batch]:
        latitude = np.full(5, 50.0) + self.drift
        longitude = np.arange(60, 65) / 10 - self.drift
        whole = Batch(
            DATASET,
            slice_.time_ns,
            Cells(latitude, longitude, ["DEU"] * 5),
            {"temperature": np.full(5, self.mark)},
        )
        yield whole.part(0, 2)
        if error := self.fails.get((slice_.time_ns - START_NS) // HOUR_NS):
            raise error
        yield whole.part(2, 5)


def auto(said: list[str], **sources: Scripted) -> AutoSource:
    named: Callable[[Request, Selection], Any] = lambda *_: {  # noqa: E731
        f"{name}:": source for name, source in sources.items()
    }
    return AutoSource(DATASET, CHOSEN, named, say=said.append)


def marks(source: AutoSource) -> list[list[float]]:
    """By slice the value of each of its readings."""
    return [
        [v for batch in source.read(slice_) for v in np.asarray(batch.values["temperature"])]
        for slice_ in source.slices()
    ]


AWAY = SourceUnavailable("it does not answer")


def test_the_quickest_is_taken_and_said_with_the_others() -> None:
    said: list[str] = []
    slow, quick = Scripted(1.0, seconds=600.0), Scripted(2.0, seconds=3.0)
    keyless = Scripted(3.0, refuses=NotServed("key", "there is no key"))
    with auto(said, slow=slow, quick=quick, keyless=keyless) as source:
        assert marks(source) == [[2.0] * 5] * 4
    took = "auto: takes quick: for era5-land/hourly, about 3 s (scripted)"
    assert said == [f"{took}; slow: about 10 min; keyless: no key"]
    assert (slow.opened, quick.opened) == (0, 0)


def test_one_that_has_all_goes_before_a_quicker_one_that_lacks_days() -> None:
    chosen = replace(CHOSEN, end_ns=START_NS + 48 * HOUR_NS)
    part, all_ = Scripted(1.0, hours=4), Scripted(2.0, seconds=600.0, hours=48)
    said: list[str] = []
    source = AutoSource(DATASET, chosen, lambda *_: {"part:": part, "all:": all_}, say=said.append)
    with source:
        assert len(source.slices()) == 48
    assert "part: about 1 s, up to 2025-09-26T03:59:59Z" in said[0]


def test_another_goes_on_where_one_fails_and_no_reading_is_doubled_or_mixed() -> None:
    said: list[str] = []
    first = Scripted(1.0, fails={2: AWAY})
    second = Scripted(2.0, seconds=5.0)
    with auto(said, first=first, second=second) as source:
        assert marks(source) == [[1.0] * 5, [1.0] * 5, [2.0] * 5, [2.0] * 5]
    assert said[1:] == [
        "auto: first: failed at 2025-09-26T02:00:00Z: it does not answer",
        "auto: takes second: for era5-land/hourly, about 5 s (scripted); first: failed",
    ]


@pytest.mark.parametrize(
    "error", [AWAY, SourceError("damaged"), NotServed("key", "no longer taken")]
)
def test_whatever_a_source_says_the_next_is_tried(error: Exception) -> None:
    first, second = Scripted(1.0, breaks=error), Scripted(2.0, seconds=5.0, fails={0: error})
    third = Scripted(3.0, seconds=9.0)
    with auto([], first=first, second=second, third=third) as source:
        assert marks(source) == [[3.0] * 5] * 4


def test_a_time_that_the_next_lacks_is_no_silent_gap() -> None:
    first = Scripted(1.0, fails={3: AWAY})
    second = Scripted(2.0, seconds=5.0, hours=3)
    with (
        auto([], first=first, second=second) as source,
        pytest.raises(SourceUnavailable, match="first: it does not answer; second: does"),
    ):
        marks(source)


@pytest.mark.parametrize(
    ("errors", "expected", "lack"),
    [
        ([NotServed("key", "a"), NotServed("dataset", "b")], SourceError, None),
        ([NotServed("key", "a"), AWAY], SourceUnavailable, None),
        ([NotServed("time", "a"), NotServed("key", "b")], NotServed, "time"),
    ],
)
def test_where_none_has_it_each_says_why(
    errors: list[Exception], expected: type[Exception], lack: str | None
) -> None:
    one, other = (Scripted(1.0, refuses=error) for error in errors)
    sentence = f"no source has era5-land/hourly .*: one: {errors[0]}; other: {errors[1]}"
    with pytest.raises(expected, match=sentence) as refused:
        auto([], one=one, other=other).__enter__()
    assert getattr(refused.value, "lack", None) == lack


def test_cells_are_the_same_whichever_source_they_come_from() -> None:
    first = Scripted(1.0, fails={1: AWAY}, drift=0.003)
    with auto([], first=first, second=Scripted(2.0, seconds=5.0, drift=-1e-13)) as source:
        ids = [
            sorted(key for batch in source.read(slice_) for key in keys(batch.cells))
            for slice_ in source.slices()
        ]
    assert ids[0] == ids[1]
    assert ids[0][0] == b"50.0000,6.0000"


def test_cells_between_those_of_the_grid_are_refused() -> None:
    with (
        auto([], first=Scripted(1.0, drift=0.04)) as source,
        pytest.raises(SourceError, match="first: has cells off the grid of 0.1 degree"),
    ):
        marks(source)


def test_another_dataset_can_not_be_stated() -> None:
    with pytest.raises(UsageError, match="leave --dataset out"):
        AutoSource(DATASET, replace(CHOSEN, dataset="era5/hourly"), lambda *_: {})


# -------------------------------------------------------------------------- real candidates


@pytest.fixture
def around(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Around:
    """No key of the Data Store: ARCO needs it too."""
    monkeypatch.setenv("CDSAPI_RC", str(tmp_path / "none"))
    return Around(cache_folder=tmp_path / "cache")


@dataclass
class Later:
    """A candidate that says it takes an hour."""

    candidate: Any

    def offer(self, kept: ExitStack) -> Offer:
        offer: Offer = self.candidate.offer(kept)
        return replace(offer, seconds=3600.0)

    def open(self, kept: ExitStack) -> Any:
        return self.candidate.open(kept)


def test_an_archive_that_fails_is_followed_by_the_other(
    zarr_server: ZarrServer, around: Around, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("climatestream.sources.merge.WINDOW_BYTES", 66 * 5 * 2 * 24)
    monkeypatch.setattr("climatestream.sources.zarr_array.CONCURRENT", 1)
    chosen = selection("2025-09-28", "2025-09-29", "temperature,pressure")
    said: list[str] = []

    def choose(request: Request, narrowed: Selection) -> Any:
        found = candidates(request, narrowed, around, say=said.append)
        return {"arco:": Later(found["arco:"]), "edh:": found["edh:"]}

    with AutoSource(DATASET, chosen, choose, say=said.append) as source:
        slices = source.slices()
        # Earth Data Hub's chunks end with the first of the two days
        batches = [b for s in slices[:24] for b in source.read(s)]
        zarr_server.faults.append(Fault("era5-land-v0.zarr", 403))
        batches += [b for s in slices[24:] for b in source.read(s)]
    assert_true(batches, 48, 66)
    told = ["takes edh:", "Data Hub: ", "failed at 2025-09-29T00:00:00Z", "takes arco:"]
    assert [w for sentence in said for w in told if w in sentence] == told


def test_the_command_line_takes_it_and_the_data_stores_names(
    zarr_server: ZarrServer, around: Around, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.delenv("CDSAPI_KEY")
    chosen = selection("2025-09-26", "2025-09-26")
    with open_source(["auto:reanalysis-era5-land"], chosen, around) as source:
        batches = [b for s in source.slices() for b in source.read(s)]
    assert_true(batches, 24, 66)
    said = capfd.readouterr().err
    assert "climatestream: auto: takes edh: for era5-land/hourly" in said
    assert "arco: no key; cds: no key" in said

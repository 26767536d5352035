"""`publish --follow`: whole days, once, final after preliminary, whatever happens in between."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import netCDF4
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from climatestream.cli import invoke
from climatestream.errors import (
    DeliveryFailed,
    NotServed,
    SourceError,
    SourceUnavailable,
    UsageError,
)
from climatestream.follow import DAY_NS, Follower, Memory
from climatestream.model import Batch, Cells, Slice
from climatestream.sources.selection import start_of

HOUR_NS = DAY_NS // 24
HOURLY = "era5-land/hourly"
DAILY = "era5-land/daily-mean"
FIRST = start_of("2026-08-01") // DAY_NS
CELLS = Cells(np.array([50.0, 50.1, 50.2]), np.full(3, 8.0), ["DEU"] * 3)


@dataclass
class Hour:
    """What the service has for a time."""

    mark: float = 1.0
    preliminary: bool | None = True
    cells: int = 3
    names: tuple[str, ...] = ("temperature",)


@dataclass
class Service:
    """A source that grows: what it has, by time."""

    dataset: str = DAILY
    has: dict[int, Hour] = field(default_factory=dict)
    error: Exception | None = None
    looks: list[tuple[int | None, int]] = field(default_factory=list)
    span: tuple[int | None, int] = (None, 0)

    def day(self, day: int, hours: Iterable[int] = (0,), **more: Any) -> None:
        for hour in hours:
            self.has[(FIRST + day) * DAY_NS + hour * HOUR_NS] = Hour(**more)

    def look(self, start_ns: int | None, end_ns: int) -> Self:
        self.looks.append((start_ns, end_ns))
        self.span = (start_ns, end_ns)
        return self

    def __enter__(self) -> Self:
        if self.error is not None:
            raise self.error
        if not self.slices():
            raise NotServed("time", "nothing at these times")
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def slices(self) -> Sequence[Slice]:
        start, end = self.span
        return [
            Slice(time_ns, self.dataset)
            for time_ns in sorted(self.has)
            if (start is None or start <= time_ns) and time_ns < end
        ]

    def read(self, slice_: Slice) -> Iterator[Batch]:
        hour = self.has[slice_.time_ns]
        if hour.cells:
            values = {name: np.full(3, hour.mark) for name in hour.names}
            flags = None if hour.preliminary is None else np.full(3, hour.preliminary)
            yield Batch(self.dataset, slice_.time_ns, CELLS, values, flags).part(0, hour.cells)


@dataclass
class Time:
    """A clock that a wait moves on, and that stops after some rounds."""

    now: int
    rounds: int = 1
    waited: list[float] = field(default_factory=list)
    meanwhile: Callable[[], object] = lambda: None

    def now_ns(self) -> int:
        return self.now

    def wait(self, seconds: float) -> bool:
        self.waited.append(seconds)
        self.now += round(seconds * 1e9)
        self.meanwhile()
        return len(self.waited) >= self.rounds

    def stopped(self) -> bool:
        return False


@dataclass
class Desk:
    """A follower and all around it; started again it is another process."""

    service: Service
    path: Path
    now: int = field(default_factory=lambda: start_of("2026-08-20T06:00Z"))
    published: list[tuple[int, float, bool]] = field(default_factory=list)
    """Of each slice time, mark and whether it was preliminary."""
    said: list[str] = field(default_factory=list)
    of: Mapping[str, Any] = field(default_factory=lambda: {"source": ["auto:x"]})
    fails: Callable[[], object] = lambda: None

    def publish(self, batches: Iterable[Batch]) -> None:
        for batch in batches:
            flag = batch.preliminary is not None and bool(np.asarray(batch.preliminary).all())
            mark = float(np.asarray(batch.values["temperature"])[0])
            self.published.append((batch.time_ns, mark, flag))
            self.fails()

    def run(self, rounds: int = 1, since: int | None = FIRST, **more: Any) -> Time:
        memory = Memory(self.path, self.of)
        memory.load()
        clock = Time(self.now, rounds, **more)
        Follower(
            self.service.look,
            self.publish,
            memory,
            clock,
            None if since is None else since * DAY_NS,
            poll_s=3600.0,
            say=self.said.append,
        ).run()
        self.now = clock.now
        return clock

    @property
    def days(self) -> list[int]:
        """The days published, from the first, in order."""
        return [time_ns // DAY_NS - FIRST for time_ns, *_ in self.published]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(Service(), tmp_path / "state.json")


# ------------------------------------------------------------------------------ what appears


def test_what_appears_is_published_once_across_restarts(desk: Desk) -> None:
    desk.service.day(0)
    desk.service.day(1)
    desk.run()
    assert desk.days == [0, 1]
    desk.run()
    desk.service.day(2)
    desk.run(rounds=3)
    assert desk.days == [0, 1, 2]
    assert desk.said[-1].startswith("nothing new yet")


def test_only_what_is_missing_is_asked_for(desk: Desk) -> None:
    for day in (0, 1, 3):
        desk.service.day(day)
    desk.run()
    desk.run()
    today = desk.now // DAY_NS
    assert desk.service.looks == [
        (FIRST * DAY_NS, today * DAY_NS),
        ((FIRST + 2) * DAY_NS, today * DAY_NS),
    ]
    desk.service.day(2)
    desk.run()
    assert desk.days == [0, 1, 3, 2]


def test_the_present_day_is_never_looked_at(desk: Desk) -> None:
    desk.service.day(18)
    desk.service.day(19)
    desk.run()
    assert desk.days == [18]


def test_it_looks_again_after_the_polling_time(desk: Desk) -> None:
    days = iter(range(5))
    desk.service.day(next(days))
    clock = desk.run(rounds=4, meanwhile=lambda: desk.service.day(next(days)))
    assert clock.waited == [3600.0] * 4
    assert desk.days == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "half",
    [
        {"hours": range(23)},
        {"hours": [*range(12), *range(13, 24)]},
        {"hours": range(24), "cells": 0},
    ],
    ids=["the last hour lacks", "an hour in the middle lacks", "no values yet"],
)
def test_no_day_is_published_half(desk: Desk, half: dict[str, Any]) -> None:
    desk.service.dataset = HOURLY
    desk.service.day(0, range(24))
    desk.service.day(1, **half)
    desk.run()
    assert desk.days == [0] * 24
    assert f"2026-08-02 of {HOURLY} is not whole yet" in desk.said[-1]
    desk.service.day(1, range(24))
    desk.run()
    assert desk.days == [0] * 24 + [1] * 24


@pytest.mark.parametrize("change", [{"cells": 2}, {"names": ("u10", "temperature")}])
def test_a_day_whose_hours_differ_is_not_whole(desk: Desk, change: dict[str, Any]) -> None:
    """The chunks of some cells, or of a variable, are not there yet."""
    desk.service.dataset = HOURLY
    desk.service.day(0, range(24))
    desk.service.day(0, [7], **change)
    desk.run()
    assert desk.days == []


def test_without_a_first_date_all_there_is_is_published(desk: Desk) -> None:
    desk.service.day(-400)
    desk.run(since=None)
    assert desk.days == [-400]
    desk.run(since=None)
    assert desk.days == [-400]


# ------------------------------------------------------------------------ preliminary, final


def test_final_values_follow_preliminary_ones(desk: Desk) -> None:
    desk.service.day(0, mark=1.0)
    desk.service.day(1, mark=1.0)
    desk.run()
    desk.service.day(0, mark=2.0, preliminary=False)
    desk.run()
    assert desk.days == [0, 1], "not before they should be there"
    desk.now = start_of("2026-12-02T06:00Z")
    desk.run(rounds=3)
    assert [(day, *rest) for day, (_, *rest) in zip(desk.days, desk.published, strict=True)] == [
        (0, 1.0, True),
        (1, 1.0, True),
        (0, 2.0, False),
    ]
    assert "final, replaces preliminary" in "".join(desk.said)
    desk.service.day(1, mark=3.0, preliminary=False)
    desk.run()
    assert len(desk.published) == 3 + 1
    desk.run()
    assert len(desk.published) == 3 + 1


def test_days_that_are_not_final_in_time_are_looked_at_once_a_day(desk: Desk) -> None:
    desk.service.day(0)
    desk.run()
    desk.now = start_of("2026-12-02T06:00Z")
    desk.service.looks.clear()
    desk.run(rounds=48)
    again = [look for look in desk.service.looks if look == (FIRST * DAY_NS, (FIRST + 1) * DAY_NS)]
    assert len(again) == 3
    assert desk.days == [0]


# ------------------------------------------------------------------------------------ faults


@pytest.mark.parametrize(
    "error", [SourceUnavailable("does not answer"), NotServed("time", "not yet")]
)
def test_what_a_service_can_not_give_now_is_waited_for(desk: Desk, error: Exception) -> None:
    desk.service.day(0)
    desk.service.error = error

    def mend() -> None:
        desk.service.error = None

    desk.run(rounds=2, meanwhile=mend)
    assert desk.days == [0]
    assert str(error) in desk.said[0]


@pytest.mark.parametrize("error", [NotServed("key", "no key"), SourceError("damaged")])
def test_what_will_not_mend_itself_ends_it(desk: Desk, error: Exception) -> None:
    desk.service.error = error
    with pytest.raises(type(error)):
        desk.run()


def test_a_day_that_was_not_acknowledged_comes_again_whole(desk: Desk) -> None:
    desk.service.dataset = HOURLY
    desk.service.day(0, range(24))

    def fail() -> None:
        if len(desk.published) == 30:
            raise DeliveryFailed("6 messages were not acknowledged")

    desk.service.day(1, range(24))
    desk.fails = fail
    with pytest.raises(DeliveryFailed):
        desk.run()
    assert desk.days == [0] * 24 + [1] * 6
    desk.run()
    assert desk.days[30:] == [1] * 24


class Killed(BaseException):
    """The process is gone: nothing after this line ran."""


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    kills=st.lists(st.integers(0, 60), max_size=6), grows=st.lists(st.integers(1, 3), max_size=5)
)
def test_killed_at_any_moment_nothing_is_lost(
    tmp_path: Path, kills: list[int], grows: list[int]
) -> None:
    path = tmp_path / "killed.json"
    path.unlink(missing_ok=True)
    desk = Desk(Service(dataset=HOURLY), path)
    days = 0
    for turn in range(max(len(kills), len(grows)) + 1):
        for _ in range(grows[turn] if turn < len(grows) else 0):
            desk.service.day(days, range(24))
            days += 1
        until = len(desk.published) + kills[turn] if turn < len(kills) else None

        def die(until: int | None = until) -> None:
            if until is not None and len(desk.published) > until:
                raise Killed

        desk.fails = die
        try:
            desk.run()
        except Killed:
            continue
    desk.fails = lambda: None
    desk.run()
    for day in range(days):
        times = [time_ns for time_ns, *_ in desk.published if time_ns // DAY_NS == FIRST + day]
        last = times[-24:]
        assert last == [(FIRST + day) * DAY_NS + hour * HOUR_NS for hour in range(24)], "whole"
    before = len(desk.published)
    desk.run()
    assert len(desk.published) == before, "and nothing twice once it is remembered"


def test_a_crash_while_remembering_leaves_the_memory_before(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.service.day(0)
    desk.run()
    before = desk.path.read_bytes()
    desk.service.day(1)

    def crash(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", crash)
        with pytest.raises(Killed):
            desk.run()
    assert desk.path.read_bytes() == before
    desk.run()
    assert desk.days == [0, 1, 1]


# ------------------------------------------------------------------------------------ memory


def test_the_memory_is_ranges_of_days(desk: Desk) -> None:
    for day in (0, 1, 2, 5):
        desk.service.day(day, preliminary=None if day == 5 else True)
    desk.run()
    days = json.loads(desk.path.read_text())["datasets"][DAILY]
    assert days == {
        "published": [["2026-08-01", "2026-08-03"], ["2026-08-06", "2026-08-06"]],
        "preliminary": [["2026-08-01", "2026-08-03"]],
    }


def test_a_memory_that_can_not_be_written_is_told(desk: Desk) -> None:
    desk.service.day(0)
    desk.path.with_name(desk.path.name + ".new").mkdir()
    with pytest.raises(SourceError, match=r"can't be written: Is a directory; make room, and"):
        desk.run()


def test_the_memory_of_something_else_is_refused(desk: Desk) -> None:
    desk.service.day(0)
    desk.run()
    desk.of = {"source": ["cds:x"]}
    with pytest.raises(UsageError, match=r"something else \(source auto:x\): name another file"):
        desk.run()
    desk.path.write_text('{"version": 9}')
    with pytest.raises(UsageError, match="is no memory of publish --follow"):
        desk.run()


# ----------------------------------------------------------------------------------- command


def file_of_day(path: Path, day: int, hours: int = 24) -> None:
    """ERA5-Land's hours of a day over six cells; appears in its folder at once."""
    beside = path / ".being-written"
    with netCDF4.Dataset(beside, "w") as file:
        for name, values, units in (
            ("time", np.arange(hours) + day * 24, "hours since 2025-08-01"),
            ("latitude", np.array([50.1, 50.0]), "degrees_north"),
            ("longitude", np.array([8.0, 8.1, 8.2]), "degrees_east"),
        ):
            file.createDimension(name, len(values))
            file.createVariable(name, "f8", (name,)).units = units
            file[name][:] = values
        file.createVariable("t2m", "f4", ("time", "latitude", "longitude")).units = "K"
        file["t2m"][:] = 280.0 + day
    beside.rename(path / f"era5-land-{day:02d}.nc")


def followed(folder: Path, *more: str) -> list[str]:
    state = ["--state", str(folder / "state.json")]
    data = str(folder / "data")
    return ["publish", data, "--broker", "-", "--follow", "--poll", "0.2s", *state, *more]


def test_a_process_killed_at_any_moment_goes_on_where_it_was(tmp_path: Path) -> None:
    """Really killed, again and again, while days appear."""
    (tmp_path / "data").mkdir()
    lines: list[bytes] = []
    for turn, kill_after in enumerate((1, 200, 433)):
        file_of_day(tmp_path / "data", 2 * turn)
        file_of_day(tmp_path / "data", 2 * turn + 1)
        with subprocess.Popen(
            [sys.executable, "-m", "climatestream", *followed(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as process:
            assert process.stdout is not None
            for _ in range(kill_after):
                if not (line := process.stdout.readline()):
                    break
                lines.append(line)
                if turn == 2 and done(lines) == 6:
                    break
            process.send_signal(signal.SIGINT if turn == 2 else signal.SIGKILL)
            lines += process.stdout.readlines()
            assert process.wait() == (130 if turn == 2 else -signal.SIGKILL)
    assert done(lines) == 6
    state = json.loads((tmp_path / "state.json").read_text())
    assert state["datasets"]["era5-land/hourly"]["published"] == [["2025-08-01", "2025-08-06"]]
    shutil.rmtree(tmp_path / "data")


def done(lines: Sequence[bytes]) -> int:
    """Days of which all 24 hours of all six cells were published."""
    seen = {
        (m["timestamp"], m["latitude"], m["longitude"])
        for line in lines
        if line.endswith(b"}\n") and (m := json.loads(line))
    }
    days: dict[int, int] = {}
    for timestamp, *_ in seen:
        days[timestamp // DAY_NS] = days.get(timestamp // DAY_NS, 0) + 1
    return sum(count == 24 * 6 for count in days.values())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--loop"], "leave the pace out"),
        (["--to", "2025-08-03"], "--follow has no end: leave --to out"),
        (["--poll", "soon"], "soon"),
    ],
)
def test_wrong_arguments_are_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    assert invoke(followed(tmp_path, *more)) == 2
    assert message in capfd.readouterr().err


def test_two_followers_do_not_share_a_memory(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from filelock import FileLock

    (tmp_path / "data").mkdir()
    file_of_day(tmp_path / "data", 0)
    with FileLock(str(tmp_path / "state.json.lock")):
        assert invoke(followed(tmp_path)) == 2
    assert "is another process's that follows" in capfd.readouterr().err

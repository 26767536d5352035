"""What part of a source is asked for: a region, variables, times, and what the data are."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING

from climatestream.errors import UsageError

if TYPE_CHECKING:
    from climatestream.region import Region

EXPECTED = "a date (2025-08-10) or an ISO 8601 time (2025-08-10T12:00Z) of 1900..2200"


@dataclass(frozen=True)
class Selection:
    """What to read of a source; the default is all of it.

    Parameters
    ----------
    region
        Cells outside are left out.
    variables
        Names as a user gives them: ours, the Data Store's, or a file's.
    start_ns, end_ns
        From the one, up to but without the other [ns, UTC].
    dataset
        States what the data are (`era5-land/daily-mean`), where they don't say it themselves.
    """

    region: Region | None = None
    variables: tuple[str, ...] | None = None
    start_ns: int | None = None
    end_ns: int | None = None
    dataset: str | None = None

    def __post_init__(self) -> None:
        if self.dataset is not None and not (self.dataset and self.dataset.isprintable()):
            raise UsageError(
                f"dataset {self.dataset!r} is no name: expected text such as era5-land/hourly"
            )
        if self.start_ns is not None and self.end_ns is not None and self.start_ns >= self.end_ns:
            raise UsageError(
                f"the time from which to read, {time_text(self.start_ns)}, is after the time up "
                f"to which to read, {time_text(self.end_ns - 1)}: give the earlier one first"
            )


def start_of(text: str) -> int:
    """The first instant that `--from TEXT` includes [ns, UTC].

    Raises
    ------
    UsageError
        The text is neither a date nor a time.
    """
    return _parse(text)[0]


def end_of(text: str) -> int:
    """The first instant that `--to TEXT` no longer includes [ns, UTC].

    A date means the whole day, a time that very instant.

    Raises
    ------
    UsageError
        The text is neither a date nor a time.
    """
    start, length = _parse(text)
    return start + length


def time_text(time_ns: int) -> str:
    """An instant for people, to the second: `2025-08-10T00:00:00Z`."""
    return f"{datetime.fromtimestamp(time_ns // 1_000_000_000, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _parse(text: str) -> tuple[int, int]:
    """An instant, and how long what the text names is [ns]."""
    try:
        try:
            day = date.fromisoformat(text)
        except ValueError:
            instant, length = datetime.fromisoformat(text), 1
        else:
            instant, length = datetime.combine(day, time()), 86_400_000_000_000
    except ValueError:
        raise UsageError(f"{text!r} is no time: expected {EXPECTED}") from None
    instant = instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
    if not 1900 <= instant.year <= 2200:
        raise UsageError(f"{text!r} is out of range: expected {EXPECTED}")
    since = instant - datetime(1970, 1, 1, tzinfo=UTC)
    return since // timedelta(microseconds=1) * 1000, length

"""What the Data Store is asked: all of what is wanted, and nothing twice."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from climatestream.region import parse_region
from climatestream.sources.cds_plan import Ask, plan
from climatestream.sources.request import Request, request_of
from climatestream.sources.selection import Selection, end_of, start_of

DATASETS = ("era5-land/daily-mean", "era5-land/hourly", "era5-land/daily-sum", "era5/daily-maximum")
DAYS = st.dates(date(1951, 1, 1), date(2030, 12, 31))


def wanted(dataset: str, first: date, days: int, names: tuple[str, ...]) -> Request:
    selection = Selection(
        region=parse_region("LUX"),
        variables=names,
        start_ns=start_of(str(first)),
        end_ns=end_of(str(first + timedelta(days=days - 1))),
    )
    return request_of(dataset, selection)


def values(ask: Ask) -> Iterator[tuple[date, str, str]]:
    year, month = ask.month or ("", "")
    for day, name, time in product(
        ask.inputs["day"], ask.inputs["variable"], ask.inputs.get("time", [""])
    ):
        yield date(int(year), int(month), int(day)), name, time


def divided(ask: Ask, limit: int) -> list[Ask]:
    halves = ask.halves() if ask.values > limit else None
    return [ask] if halves is None else [part for half in halves for part in divided(half, limit)]


@given(st.sampled_from(DATASETS), DAYS, st.integers(1, 800))
def test_every_day_is_asked_for_once_and_none_besides(dataset: str, first: date, days: int) -> None:
    names = ("tp",) if dataset.endswith("sum") else ("t2m", "sp")
    asks = plan(wanted(dataset, first, days, names))
    asked = [each for ask in asks for each in values(ask)]
    later = timedelta(days=dataset.endswith("sum"))
    assert len(asked) == len(set(asked))
    assert {day for day, *_ in asked} == {first + later + timedelta(days=n) for n in range(days)}
    assert [ask.label for ask in asks] == sorted(ask.label for ask in asks)
    assert len(asks) <= days // 28 + 2


@given(DAYS, st.integers(1, 60), st.integers(1, 500))
def test_parts_are_the_whole_and_no_larger_than_allowed(first: date, days: int, limit: int) -> None:
    for ask in plan(wanted("era5-land/hourly", first, days, ("t2m", "u10", "sp"))):
        parts = divided(ask, limit)
        together = [each for part in parts for each in values(part)]
        assert sorted(together) == sorted(values(ask))
        assert all(part.values <= limit for part in parts)
        assert len({part.key for part in parts}) == len({part.label for part in parts})
        assert max(part.last_day for part in parts) == ask.last_day

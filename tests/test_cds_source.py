"""The Climate Data Store: the real client against a fake service, readings against known values."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from climatestream.errors import NotServed, SourceError, SourceUnavailable, UsageError
from climatestream.region import parse_region
from climatestream.sources import cds_client
from climatestream.sources.archives import URL_ENVIRONMENT
from climatestream.sources.cache import Cache
from climatestream.sources.cds import DataStoreRequest, DataStoreSource, Fetched
from climatestream.sources.cds_client import DataStore, credentials
from climatestream.sources.cds_fetch import Gate, Pace
from climatestream.sources.files import FileSource
from climatestream.sources.open import Around, open_source
from climatestream.sources.selection import Selection, end_of, start_of
from tests.fake_cds import KEY, FakeDataStore, amount, value
from tests.make_files import HOUR_NS, rows

QUICK = Pace(0.01, 0.02, 0.01, 0.02, retries=3, queue_s=0.01)
BOX = "west=8,south=50,east=8.2,north=50.1"
LATITUDE, LONGITUDE = (50.0, 50.1), (8.0, 8.1, 8.2)
NAMES = {"temperature": "2m_temperature", "u10": "10m_u_component_of_wind"}


@pytest.fixture
def store() -> Iterator[FakeDataStore]:
    with FakeDataStore() as fake:
        yield fake


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", 10**9)


def selection(
    since: str = "2025-08-30", until: str = "2025-09-02", region: str | None = BOX, **more: Any
) -> Selection:
    return Selection(
        region=None if region is None else parse_region(region),
        variables=more.pop("variables", ("temperature",)),
        start_ns=start_of(since),
        end_ns=end_of(until),
        **more,
    )


def request(
    store: FakeDataStore, cache: Cache, name: str = "era5-land/hourly", **select: Any
) -> DataStoreRequest:
    who = credentials(store.environment)
    return DataStoreRequest(
        name, selection(**select), cache, pace=QUICK, open_store=lambda: DataStore(who)
    )


def fetched(of: DataStoreRequest) -> Fetched:
    with ExitStack() as kept:
        return of.fetch(kept)


def read(of: DataStoreRequest) -> dict[tuple[str, int, float, float], dict[str, float]]:
    with DataStoreSource(of) as source:
        return rows([batch for slice_ in source.slices() for batch in source.read(slice_)])


def hour_of(text: str) -> int:
    return start_of(text) // HOUR_NS


def expected(
    dataset: str, of: dict[str, Any], hours: range, step_hours: int = 1
) -> dict[tuple[str, int, float, float], dict[str, float]]:
    return {
        (dataset, hour * HOUR_NS, a, o): {name: float(f(hour, a, o)) for name, f in of.items()}
        for hour in hours[::step_hours]
        for a in LATITUDE
        for o in LONGITUDE
    }


# ---------------------------------------------------------------------------- what comes


def test_hours_come_month_by_month_as_they_are_in_the_service(
    store: FakeDataStore, cache: Cache
) -> None:
    found = read(request(store, cache, variables=("temperature", "u10")))
    of = {ours: lambda *at, n=name: value(n, *at) for ours, name in NAMES.items()}
    assert found == expected(
        "era5-land/hourly", of, range(hour_of("2025-08-30"), hour_of("2025-09-03"))
    )
    asked = [(job.inputs["month"], job.inputs["day"]) for job in store.jobs.values()]
    assert sorted(asked) == [("08", ["30", "31"]), ("09", ["01", "02"])]
    assert {tuple(job.inputs["area"]) for job in store.jobs.values()} == {(50.1, 8.0, 50.0, 8.2)}


@pytest.mark.parametrize("always_zip", [False, True])
def test_answer_is_read_as_what_it_is_not_as_what_was_asked_for(
    store: FakeDataStore, cache: Cache, always_zip: bool
) -> None:
    """One variable may come as NetCDF or in a ZIP, several daily statistics come as a ZIP."""
    store.moods.always_zip = always_zip
    got = fetched(request(store, cache))
    assert {file.suffix for file in got.files} == {".zip" if always_zip else ".nc"}
    assert len(read(request(store, cache))) == 4 * 24 * 6


@pytest.mark.parametrize(
    ("name", "dataset"),
    [
        ("era5-land/daily-mean", "era5-land/daily-mean"),
        ("derived-era5-land-daily-statistics", "era5-land/daily-mean"),
        ("era5-land/daily-maximum", "era5-land/daily-maximum"),
        ("era5-land/daily-minimum/utc-05", "era5-land/daily-minimum/utc-05"),
        ("era5-land/daily-mean/utc+01/6-hourly", "era5-land/daily-mean/utc+01/6-hourly"),
    ],
)
def test_day_is_of_its_time_zone_and_sampling_and_says_so(
    store: FakeDataStore, cache: Cache, name: str, dataset: str
) -> None:
    zone = int(dataset.partition("/utc")[2][:3] or 0)
    step = 6 if dataset.endswith("6-hourly") else 1
    how: dict[str, Any] = {"mean": np.mean, "maximum": np.max, "minimum": np.min}
    reduce = how[dataset.split("/")[1].removeprefix("daily-")]

    def day(hour: int, a: float, o: float) -> float:
        hours = np.arange(hour - zone, hour - zone + 24, step)
        return float(np.float32(reduce(value("2m_temperature", hours, a, o))))

    found = read(request(store, cache, name, variables=("t2m",)))
    days = range(hour_of("2025-08-30"), hour_of("2025-09-03"))
    assert found == expected(dataset, {"temperature": day}, days, 24)


@pytest.mark.parametrize("folder", ["germany-land-daily", "kerala-zip-named-nc"])
def test_real_answers_are_read_as_the_files_they_are(
    store: FakeDataStore, cache: Cache, era5: Path, folder: str
) -> None:
    """Those of a request for Germany, and a ZIP as it came; with what they say of themselves."""
    files = sorted((era5 / folder).iterdir())
    store.moods.files = {file.name: file.read_bytes() for file in files}
    daily = folder.startswith("germany")
    name = "era5-land/daily-mean" if daily else "era5-land/hourly"
    select = selection(
        *(("2025-08-10", "2025-08-14") if daily else ("2025-09-10", "2025-09-10")),
        region="DEU" if daily else "west=75.8,south=8.8,east=77.2,north=10.8",
        variables=("temperature", "u10", "v10", "pressure" if daily else "tp"),
    )
    with FileSource([str(era5 / folder)], replace(select, dataset=name)) as source:
        direct = [batch for slice_ in source.slices() for batch in source.read(slice_)]
    of = replace(request(store, cache, name), selection=select)
    with DataStoreSource(on("2026-03-01", of)) as fetched_source:
        came = [b for slice_ in fetched_source.slices() for b in fetched_source.read(slice_)]
    assert rows(came) == rows(direct)
    assert len(came) == (5 if daily else 15)
    flags = [batch.preliminary for batch in came if batch.preliminary is not None]
    assert set(np.concatenate(flags).tolist()) == {not daily}


def test_rain_of_an_hour_is_what_fell_in_it_from_the_first_hour_on(
    store: FakeDataStore, cache: Cache
) -> None:
    """Sums since midnight become amounts, across months and at the first midnight."""
    found = read(request(store, cache, variables=("tp",)))
    of = {"total_precipitation": lambda *at: amount("total_precipitation", *at)}
    hours = range(hour_of("2025-08-30"), hour_of("2025-09-03"))
    assert found == expected("era5-land/hourly", of, hours)
    extra = [job.inputs for job in store.jobs.values() if job.inputs["time"] == ["23:00"]]
    assert [(inputs["month"], inputs["day"]) for inputs in extra] == [("08", ["29"])]


def test_rain_of_a_day_is_the_00_utc_step_of_the_next(store: FakeDataStore, cache: Cache) -> None:
    def day(hour: int, a: float, o: float) -> float:
        return float(amount("total_precipitation", np.arange(hour + 1, hour + 25), a, o).sum())

    found = read(request(store, cache, "era5-land/daily-sum", variables=("tp",)))
    days = range(hour_of("2025-08-30"), hour_of("2025-09-03"))
    assert found == expected("era5-land/daily-sum", {"total_precipitation": day}, days, 24)
    asked = [(job.inputs["month"], job.inputs["day"]) for job in store.jobs.values()]
    assert sorted(asked) == [("08", ["31"]), ("09", ["01", "02", "03"])]
    assert {tuple(job.inputs["time"]) for job in store.jobs.values()} == {("00:00",)}


def test_rain_of_a_day_of_era5_is_the_sum_of_its_hours(store: FakeDataStore, cache: Cache) -> None:
    """The service shifts what accumulates by an hour, which is no time zone."""
    box = "west=8,south=50,east=8.25,north=50.25"
    found = read(request(store, cache, "era5/daily-sum", region=box, variables=("tp",)))
    assert {dataset for dataset, *_ in found} == {"era5/daily-sum"}
    for (_, time_ns, a, o), values in found.items():
        hours = np.arange(time_ns // HOUR_NS + 1, time_ns // HOUR_NS + 25)
        assert values == {
            "total_precipitation": pytest.approx(amount("total_precipitation", hours, a, o).sum())
        }
    assert len(found) == 4 * 4


def test_point_is_one_request_for_all_years(store: FakeDataStore, cache: Cache) -> None:
    """Its rain is that of the hour already."""
    point = "latitude=50.11,longitude=8.13"
    found = read(
        request(store, cache, since="2024-12-30", region=point, variables=("temperature", "tp"))
    )
    assert [job.collection for job in store.jobs.values()] == ["reanalysis-era5-land-timeseries"]
    hours = range(hour_of("2024-12-30"), hour_of("2025-09-03"))
    assert found == {
        ("era5-land/hourly", hour * HOUR_NS, 50.1, 8.1): {
            "temperature": value("2m_temperature", hour, 50.1, 8.1),
            "total_precipitation": amount("total_precipitation", hour, 50.1, 8.1),
        }
        for hour in hours
    }


def test_box_across_the_date_line_is_asked_for_on_each_side(
    store: FakeDataStore, cache: Cache
) -> None:
    box = "west=179.85,south=50,east=-179.85,north=50.1"
    found = read(request(store, cache, since="2025-09-02", region=box))
    assert len(store.jobs) == 2
    assert {o for *_, o in found} == {179.9, -180.0, -179.9}


# ------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("name", "more", "lack", "says"),
    [
        ("era5-land/daily-mean", {"variables": ("tp",)}, "variable", "cds:era5-land/daily-sum"),
        ("era5-land/daily-sum", {"variables": ("t2m",)}, "variable", "no amount"),
        ("era5/hourly", {}, "dataset", "does not give era5/hourly"),
        ("era5-land/daily-mean/utc+05:30", {}, "dataset", "in whole hours of -12..+14"),
        ("era5-land/daily-mean/utc+15", {}, "dataset", "in whole hours of -12..+14"),
        ("era5-land/daily-mean/utc+00", {}, "dataset", "other than UTC's"),
        ("era5-land/daily-mean/6-hourly/utc+01", {}, "dataset", "then 3-hourly or 6-hourly"),
        ("reanalysis-era5-land-timeseries", {}, "region", "gives a single point"),
        ("era5-land/hourly", {"since": "1940-01-01", "until": "1940-02-01"}, "time", "1950-01-01"),
    ],
)
def test_what_the_service_lacks_is_told_before_anything_is_asked(
    store: FakeDataStore, cache: Cache, name: str, more: Any, lack: str, says: str
) -> None:
    with pytest.raises(NotServed, match=says.replace("+", r"\+")) as told:
        fetched(request(store, cache, name, **more))
    assert told.value.lack == lack
    assert not store.seen


def test_unknown_variable_of_era5_land_is_a_mistake(store: FakeDataStore, cache: Cache) -> None:
    with pytest.raises(UsageError, match="'temperatur' is not one of ERA5-Land, nearest: temp"):
        fetched(request(store, cache, variables=("temperatur",)))


def test_dataset_option_does_not_rename_what_a_service_gives(
    store: FakeDataStore, cache: Cache
) -> None:
    with pytest.raises(UsageError, match="--dataset mine states what files are, but cds:era5-land"):
        fetched(request(store, cache, dataset="mine"))


def test_licence_that_is_not_accepted_names_the_page(store: FakeDataStore, cache: Cache) -> None:
    store.moods.licence = False
    with pytest.raises(NotServed) as told:
        fetched(request(store, cache))
    page = f"{store.site}/datasets/reanalysis-era5-land?tab=download#manage-licences"
    assert told.value.lack == "licence"
    assert str(told.value) == (
        f"the licence of reanalysis-era5-land is not accepted: open {page}, once"
    )


def test_wrong_key_is_said_without_saying_it(store: FakeDataStore, cache: Cache) -> None:
    wrong = "5b6f1c9e-0000-4000-8000-deadbeef0000"
    who = credentials({**store.environment, "CDSAPI_KEY": wrong})
    of = DataStoreRequest(
        "era5-land/hourly", selection(), cache, pace=QUICK, open_store=lambda: DataStore(who)
    )
    with pytest.raises(NotServed, match="does not take the key in CDSAPI_KEY: open https") as told:
        fetched(of)
    assert told.value.lack == "key"
    assert wrong not in str(told.value) + repr(who)


def test_key_is_read_where_cdsapi_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "rc"
    file.write_text(f"# mine\nurl: https://cds.example/api/v2\nkey: {KEY}\nverify: 0\n")
    who = credentials({"CDSAPI_RC": str(file)})
    assert (who.url, who.key, who.where) == ("https://cds.example/api", KEY, str(file))
    both = credentials({"CDSAPI_RC": str(file), "CDSAPI_KEY": "other"})
    assert (both.url, both.key) == (cds_client.URL, "other")
    assert credentials({"CDSAPI_KEY": f" {KEY}\n"}).key == KEY, "as $(cat key) leaves it"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "there is no key for the Climate Data Store in CDSAPI_KEY or"),
        ("url: https://cds.example/api\n", "there is no key"),
        ("key: 12345:5b6f1c9e-0000-4000-8000-c0ffee000000\n", "switched off in 2024"),
    ],
)
def test_missing_key_names_the_page_to_open(tmp_path: Path, content: str | None, says: str) -> None:
    file = tmp_path / "rc"
    if content is not None:
        file.write_text(content)
    with pytest.raises(NotServed, match=f"{says}.*open https://cds.climate.copernicus.eu") as told:
        credentials({"CDSAPI_RC": str(file)})
    assert told.value.lack == "key"
    assert "c0ffee" not in str(told.value)


@pytest.mark.parametrize("key", ["c0f\nfee", "c0f fee", "c0f\u2026fee"])
def test_key_that_none_can_be_is_said_without_saying_it(key: str) -> None:
    with pytest.raises(NotServed, match="has a character that no key has.*copy it again") as told:
        credentials({"CDSAPI_KEY": key})
    assert told.value.lack == "key"
    assert "fee" not in str(told.value)


def test_address_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match=r"address https://\[::cds/api is none"):
        credentials({"CDSAPI_URL": "https://[::cds/api", "CDSAPI_KEY": KEY})


def test_key_is_not_sent_unencrypted() -> None:
    with pytest.raises(UsageError, match="would send the key unencrypted"):
        credentials({"CDSAPI_URL": "http://cds.example/api", "CDSAPI_KEY": KEY})


def test_missing_client_is_told_with_the_command_to_type(
    store: FakeDataStore, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ecmwf.datastores", None)
    with pytest.raises(NotServed, match=r"pip install 'climatestream\[cds\]'") as told:
        fetched(request(store, cache))
    assert told.value.lack == "package"


# ------------------------------------------------------------------- how it is asked


def test_what_is_in_the_cache_needs_neither_service_nor_key(
    store: FakeDataStore, cache: Cache
) -> None:
    first = fetched(request(store, cache))
    calls = len(store.seen)

    def no_store() -> DataStore:
        raise AssertionError("nothing is asked for")

    again = DataStoreRequest("era5-land/hourly", selection(), cache, open_store=no_store)
    found = fetched(again)
    assert found.files == first.files
    assert (first.asked, found.asked, found.downloaded) == (2, 0, 0)
    assert len(store.seen) == calls


def test_fetch_larger_than_the_cache_stays_until_the_next(
    store: FakeDataStore, cache: Cache
) -> None:
    small = Cache(cache.folder, 1)
    assert len(fetched(request(store, small, since="2025-06-01")).files) == 4
    assert len(small.entries()) == 4
    fetched(request(store, small, since="2025-05-01", until="2025-05-02"))
    assert [entry.asked.label for entry in small.entries()] == ["2025-05-01..02"]


def test_key_goes_to_the_service_and_to_no_download(store: FakeDataStore, cache: Cache) -> None:
    fetched(request(store, cache))
    assert store.tokens <= {KEY, None}
    assert all(KEY not in str(headers) for headers in store.download_headers)
    everything = [p.read_bytes() for p in cache.folder.rglob("*") if p.is_file()]
    assert all(KEY.encode() not in content for content in everything)


@pytest.mark.parametrize("limit", ["cost_limit", "execution_limit"])
def test_request_above_the_cost_limit_is_asked_for_in_parts(
    store: FakeDataStore, cache: Cache, limit: str
) -> None:
    """Whether the estimate tells it, or only the refusal does; and the parts are known again."""
    setattr(store.moods, limit, 12)
    of = {"since": "2025-08-31", "until": "2025-08-31"}
    found = read(request(store, cache, **of))
    assert len(found) == 24 * 6
    assert [len(job.inputs["time"]) for job in store.jobs.values()] == [12, 12]
    store.seen.clear()
    assert read(request(store, cache, **of)) == found
    assert not store.seen


def test_days_are_divided_before_variables_and_hours(store: FakeDataStore, cache: Cache) -> None:
    store.moods.cost_limit = 48
    found = read(request(store, cache, since="2025-08-01", until="2025-08-05"))
    assert len(found) == 5 * 24 * 6
    assert sorted(job.inputs["day"] for job in store.jobs.values()) == [
        ["01", "02"],
        ["03"],
        ["04", "05"],
    ]
    assert all(len(job.inputs["time"]) == 24 for job in store.jobs.values())


def test_what_can_not_be_divided_any_more_is_refused(store: FakeDataStore, cache: Cache) -> None:
    store.moods.cost_limit = 0
    with pytest.raises(NotServed, match="can't be divided: name a smaller --region") as told:
        fetched(request(store, cache, since="2025-09-02"))
    assert told.value.lack == "limit"
    assert " for 2025-09-02 00:00 at once" in str(told.value)


def test_few_requests_are_in_flight(store: FakeDataStore, cache: Cache) -> None:
    store.moods.looks_queued = 2
    fetched(request(store, cache, since="2025-01-01", until="2025-06-30"))
    assert len(store.jobs) == 6
    assert store.most_in_flight == 2


def test_earlier_requests_go_first() -> None:
    gate = Gate(1, threading.Event())
    went: list[date] = []

    def go(day: date) -> None:
        with gate.inside(day):
            went.append(day)

    days = [date(2025, 1, day) for day in (3, 1, 4, 2)]
    threads = [threading.Thread(target=go, args=(day,)) for day in days]
    with gate.inside(date(2025, 1, 31)):
        for thread in threads:
            thread.start()
        while gate.waiting < len(threads):
            threading.Event().wait(0.01)
    for thread in threads:
        thread.join()
    assert went == sorted(days)


def test_a_bug_is_no_interrupt(
    store: FakeDataStore, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that raises what an empty queue raises."""

    def broken(*_: object) -> list[str]:
        raise IndexError("a bug")

    monkeypatch.setattr("climatestream.sources.cds_fetch.Fetch._fetch", broken)
    with pytest.raises(IndexError, match="a bug"):
        fetched(request(store, cache, since="2025-01-01", until="2025-01-31"))


def test_full_queue_is_waited_for_one_at_a_time(store: FakeDataStore, cache: Cache) -> None:
    store.moods.queue_limit = 1
    store.moods.looks_queued = 2
    got = fetched(request(store, cache, since="2025-05-01"))
    assert len(got.files) == 5
    assert sum(job.status == "successful" for job in store.jobs.values()) == 5


def test_rate_limit_is_waited_for_as_long_as_it_says(store: FakeDataStore, cache: Cache) -> None:
    store.moods.rate_limited = 1
    got = fetched(request(store, cache))
    assert len(got.files) == 2
    assert store.impolite == 0


def test_service_that_is_down_for_a_while_is_tried_again(
    store: FakeDataStore, cache: Cache
) -> None:
    store.moods.busy = 2
    assert len(fetched(request(store, cache)).files) == 2


def test_service_that_stays_down_is_said(store: FakeDataStore, cache: Cache) -> None:
    store.moods.busy = 1000
    with pytest.raises(SourceUnavailable, match="the Climate Data Store .* answered 502"):
        fetched(request(store, cache))


def test_service_that_is_not_there_is_said(store: FakeDataStore, cache: Cache) -> None:
    who = credentials({"CDSAPI_URL": "http://127.0.0.1:9/api", "CDSAPI_KEY": KEY})
    of = DataStoreRequest(
        "era5-land/hourly", selection(), cache, pace=QUICK, open_store=lambda: DataStore(who)
    )
    with pytest.raises(SourceUnavailable, match=r"127.0.0.1:9\) does not answer \(.*refused\)"):
        fetched(of)


def test_request_that_fails_is_asked_for_anew(store: FakeDataStore, cache: Cache) -> None:
    store.moods.failures = 2
    assert len(fetched(request(store, cache, since="2025-09-01")).files) == 1
    assert [job.status for job in store.jobs.values()] == ["failed", "failed", "successful"]


def test_request_that_the_service_refuses_is_said_in_its_words(
    store: FakeDataStore, cache: Cache
) -> None:
    """Of ERA5, variables are known that are not in the registry; the service says which are not."""
    store.moods.invalid = "invalid value '100m_temperature' for parameter 'variable'"
    names = ("100m_temperature",)
    with pytest.raises(
        SourceError, match=r"refuses .* for 2025-09-01..02 \(400\): .*'100m_temperature'"
    ):
        fetched(request(store, cache, "era5/daily-mean", since="2025-09-01", variables=names))
    assert not store.jobs


def test_request_that_always_fails_is_said_in_the_services_words(
    store: FakeDataStore, cache: Cache
) -> None:
    store.moods.failures = 100
    with pytest.raises(
        SourceUnavailable, match="for 2025-09-01..02 failed there: .*MARS has returned"
    ):
        fetched(request(store, cache, since="2025-09-01"))
    assert len(store.jobs) == 3


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"<html>Bad Gateway</html>", "is text"),
        (b"", "is empty"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "is damaged or cut short"),
        (b"PK\x03\x04" + bytes(100), "is a damaged ZIP"),
    ],
)
def test_answer_that_is_no_data_is_asked_for_anew_and_never_kept(
    store: FakeDataStore, cache: Cache, content: bytes, says: str
) -> None:
    store.moods.files = {"data.nc": content}
    of = request(store, cache, since="2025-09-01")
    says = f"answer to reanalysis-era5-land for 2025-09-01..02 {says}"
    with pytest.raises(SourceUnavailable, match=says):
        fetched(of)
    assert (len(store.jobs), cache.entries()) == (3, [])
    store.moods.files = None
    assert len(read(of)) == 2 * 24 * 6


def test_data_that_the_service_does_not_have_is_asked_for_once(
    store: FakeDataStore, cache: Cache
) -> None:
    store.moods.failures, store.moods.failure = 1, "MarsNoDataError: no data for your request"
    with pytest.raises(NotServed, match="there is no such data") as told:
        fetched(request(store, cache, since="2025-09-01"))
    assert (told.value.lack, len(store.jobs)) == ("time", 1)


def test_request_that_the_service_forgets_is_asked_for_anew(
    store: FakeDataStore, cache: Cache
) -> None:
    store.moods.forgets = 1
    assert len(fetched(request(store, cache, since="2025-09-01")).files) == 1


def test_answer_that_the_service_has_dropped_is_asked_for_anew(
    store: FakeDataStore, cache: Cache
) -> None:
    store.moods.expires = 1
    assert len(fetched(request(store, cache, since="2025-09-01")).files) == 1
    assert len(store.jobs) == 2


def test_submission_whose_answer_is_lost_is_found_again(store: FakeDataStore, cache: Cache) -> None:
    """The service has the request, and this side does not know its name: it is not asked twice."""
    store.moods.drop_submissions = 1
    assert len(fetched(request(store, cache, since="2025-09-01")).files) == 1
    assert len(store.jobs) == 1


@pytest.mark.parametrize("drops", [[0], [1], [5_000], [1_000, 0, 3_000]])
def test_download_that_breaks_goes_on_where_it_stopped(
    store: FakeDataStore, cache: Cache, drops: list[int]
) -> None:
    store.moods.drops = list(drops)
    got = fetched(request(store, cache, since="2025-09-01"))
    assert store.served == got.downloaded == got.files[0].stat().st_size
    assert len(store.download_headers) == len(drops) + 1


def test_server_without_ranges_sends_all_again(store: FakeDataStore, cache: Cache) -> None:
    store.moods.drops, store.moods.ranges = [5_000], False
    got = fetched(request(store, cache, since="2025-09-01"))
    assert store.served == got.files[0].stat().st_size + 5_000
    assert len(read(request(store, cache, since="2025-09-01"))) == 2 * 24 * 6


def test_two_at_once_ask_once(store: FakeDataStore, cache: Cache) -> None:
    store.moods.looks_queued = 3
    found: list[Fetched] = []
    threads = [
        threading.Thread(target=lambda: found.append(fetched(request(store, cache))))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.jobs) == 2
    assert len({got.files for got in found}) == 1
    assert len(found) == 3


def test_stopped_fetch_goes_on_without_asking_again(store: FakeDataStore, cache: Cache) -> None:
    store.moods.looks_queued = 10**6
    of = request(store, cache)
    stopper = threading.Thread(target=_stop_when_asked, args=(of.stop, store))
    stopper.start()
    with pytest.raises(KeyboardInterrupt):
        fetched(of)
    stopper.join()
    store.moods.looks_queued = 0
    got = fetched(request(store, cache))
    assert (len(store.jobs), got.asked, len(got.files)) == (2, 0, 2)


def _stop_when_asked(stop: threading.Event, store: FakeDataStore) -> None:
    while len(store.jobs) < 2:
        threading.Event().wait(0.01)
    stop.set()


# ------------------------------------------------------------------------ what is new


def on(day: str, of: DataStoreRequest) -> DataStoreRequest:
    return replace(of, now_s=lambda: start_of(day) / 1e9)


def test_days_that_are_not_there_yet_are_told_and_not_asked_for(
    store: FakeDataStore, cache: Cache, capfd: pytest.CaptureFixture[str]
) -> None:
    store.moods.newest = date(2025, 9, 1)
    got = fetched(on("2025-09-06", request(store, cache)))
    assert sorted(job.inputs["day"] for job in store.jobs.values()) == [["01"], ["30", "31"]]
    assert (got.newest, len(got.files)) == ("2025-09-01", 2)
    assert "the Climate Data Store has era5-land/hourly up to 2025-09-01" in capfd.readouterr().err


def test_nothing_there_yet_is_said(store: FakeDataStore, cache: Cache) -> None:
    store.moods.newest = date(2025, 8, 1)
    with pytest.raises(NotServed, match="has nothing of reanalysis-era5-land .* yet") as told:
        fetched(on("2025-09-06", request(store, cache)))
    assert told.value.lack == "time"


def test_what_was_preliminary_is_fetched_once_more_when_it_is_final(
    store: FakeDataStore, cache: Cache
) -> None:
    days = ("2025-09-10", "2025-11-01", "2026-01-01", "2026-02-01")
    of = request(store, cache, since="2025-09-01")
    assert [fetched(on(day, of)).asked for day in days] == [1, 0, 1, 0]


def test_values_are_preliminary_by_their_date_where_the_answer_does_not_say(
    store: FakeDataStore, cache: Cache, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of daily statistics; by the day on which they were fetched, not read."""
    of = request(store, cache, "era5-land/daily-mean")
    early = []
    for day in ("2025-12-10", "2025-12-20", "2026-01-10"):
        with DataStoreSource(on(day, of)) as source:
            flags = [b.preliminary for s in source.slices() for b in source.read(s)]
        early.append([bool(flag[0]) for flag in flags if flag is not None])
        assert ("2025-09-01T00:00:00Z on are taken for it" in capsys.readouterr().err) == any(
            early[-1]
        )
    assert early == [[False, False, True, True]] * 2 + [[False] * 4]


@pytest.mark.parametrize("dataset", ["era5-land/hourly", "era5-land/daily-mean"])
def test_auto_takes_the_data_store_where_no_archive_has_it(
    store: FakeDataStore, cache: Cache, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    archives = dict.fromkeys(URL_ENVIRONMENT.values(), store.site)
    for name, text in {**store.environment, **archives, "EDH_API_KEY": "token"}.items():
        monkeypatch.setenv(name, text)
    around = Around(cache.folder, cache.size)
    chosen = selection(since="2025-08-01", until="2025-08-01")
    with open_source((f"auto:{dataset}",), chosen, around) as source:
        found = rows([batch for slice_ in source.slices() for batch in source.read(slice_)])
    assert len(found) == (24 if dataset.endswith("hourly") else 1) * 6
    assert len(store.jobs) == 1

"""What every store promises, as tests, and stores that fail on purpose.

A store's tests inherit `StoreTests` and say how to open one and how to read its table without
the adapter. A faulty double is a wrapper around a working store; each fails in one way.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from climatestream.errors import StoreError, StoreUnavailable
from climatestream.model import DeadLetter, Normals, Place
from climatestream.ports import HISTORY_ROWS, Description, PipelineRow, Refusal
from climatestream.testing.rows import NOON_MS, Form, Reading, Value, colliding_readings, rows

if TYPE_CHECKING:
    from types import TracebackType

    from climatestream.model import FieldType, History, Rows
    from climatestream.ports import Answer, Found, Store

# ------------------------------------------------------------------------------ the promises


@dataclass(frozen=True)
class Stored:
    """A row of `demo.climate_data` as it is on disk, read without the adapter.

    Parameters
    ----------
    reading
        What the row holds. Its `data` has the fields that are not null, without the coordinates,
        which are `latitude` and `longitude`.
    location
        `geo_location`: longitude, latitude [degree].
    """

    reading: Reading
    location: tuple[float, float]
    year: datetime
    stored_at_ms: int


def merged(readings: Sequence[Reading]) -> list[Reading]:
    """The rows that messages give when they arrive in this order, sorted by key.

    The design's rule, one message at a time: what a store is held against.
    """
    table: dict[tuple[str, str, int], Reading] = {}
    for message in readings:
        row = table.get(message.key)
        if row is None:
            table[message.key] = message
        elif message.rank > row.rank:
            table[message.key] = replace(
                message,
                data={**row.data, **message.data},
                country=message.country or row.country,
            )
        else:
            table[message.key] = replace(
                row,
                data={**message.data, **row.data},
                country=row.country or message.country,
            )
    return sorted(table.values(), key=lambda row: row.key)


HIGHER_RANKS: Final = {
    "published later": (Reading(published_at_ms=1), Reading(published_at_ms=2)),
    "at the same time, with the higher offset": (Reading(offset=9), Reading(offset=10)),
    "at the same time and offset, from the later source": (
        Reading(source="climate/0"),
        Reading(source="climate/1"),
    ),
    "final, though published first": (
        Reading(preliminary=True, published_at_ms=9),
        Reading(preliminary=False, published_at_ms=1),
    ),
    "published later, with a lower offset": (
        Reading(published_at_ms=1, offset=9),
        Reading(published_at_ms=2, offset=1),
    ),
}

ODD_NAMES: Final = ("with space", 'quo"te', "it's", "SELECT", "é", "_id", "n" * 300, "雨", "100")


class StoreTests:
    """The contract of `Store`.

    A subclass says what a place is (a path, a schema on a server): the `new_place` fixture gives
    an empty one each time it is called; `store` is a store over it, not yet opened, the same one
    when it is called again; `stored` reads the table there while no store is open.
    """

    SEEN_WHOLE: ClassVar[bool] = True
    """Whether a query sees a write under way whole or not at all; else it may see a part."""

    @pytest.fixture
    def new_place(self) -> Callable[[], Any]:
        """What gives an empty place for a store, a new one at each call."""
        raise NotImplementedError

    def store(self, place: Any) -> Store:
        """A store over the place, not yet opened."""
        raise NotImplementedError

    def stored(self, place: Any) -> list[Stored]:
        """Every row there, by a way of its own."""
        raise NotImplementedError

    @pytest.fixture
    def place(self, new_place: Callable[[], Any]) -> Any:
        """An empty place."""
        return new_place()

    def write(self, place: Any, *calls: Sequence[Reading], form: Form = "numpy") -> list[Stored]:
        """Open the store, write each call's readings, close it; the rows then on disk by key."""
        with self.store(place) as store:
            for readings in calls:
                assert store.write(rows(*readings, form=form)) == []
        return self.rows_at(place)

    def rows_at(self, place: Any) -> list[Stored]:
        return sorted(self.stored(place), key=lambda row: row.reading.key)

    # ------------------------------------------------------------------------- readings

    def test_a_new_reading_is_stored_with_all_that_it_says(self, place: Any) -> None:
        reading = Reading(
            {"temperature": 22.471551513671898, "u10": -1.5, "station": "Zugspitze", "ice": True},
            latitude=47.40000000000115,
            longitude=-11.100000000000172,
            time_ms=NOON_MS + 1,
            preliminary=True,
            offset=2**40,
        )
        before_ms = time.time_ns() // 1_000_000
        [row] = self.write(place, [reading])
        assert row.reading == reading
        # CrateDB's index keeps a point to 1e-8 degrees; data has the coordinates exactly
        assert row.location == pytest.approx((reading.longitude, reading.latitude), abs=1e-6)
        assert row.year == datetime(2025, 1, 1, tzinfo=UTC)
        assert before_ms <= row.stored_at_ms <= time.time_ns() // 1_000_000

    @pytest.mark.parametrize("time_ms", [-2_208_988_800_000, -1, 0, 7_258_118_399_999])
    def test_times_from_1900_to_2200_are_kept_to_the_millisecond(
        self, place: Any, time_ms: int
    ) -> None:
        [row] = self.write(place, [Reading(time_ms=time_ms)])
        assert row.reading.time_ms == time_ms
        assert row.year.year == (datetime(1970, 1, 1) + timedelta(milliseconds=time_ms)).year

    def test_no_rows_are_no_work(self, place: Any) -> None:
        assert self.write(place, []) == []

    def test_a_replay_changes_nothing(self, place: Any) -> None:
        readings = [Reading({"temperature": 1.0}), Reading({"u10": 2.0}, offset=1, latitude=50.0)]
        first = self.write(place, readings)
        time.sleep(0.002)
        assert self.write(place, readings) == first
        assert self.write(place, readings[1:], readings[:1]) == first

    def test_a_higher_rank_overrides_what_it_names_and_gives_the_row_its_rank(
        self, place: Any
    ) -> None:
        old = Reading({"temperature": 1.0, "u10": 2.0}, country="AUT", published_at_ms=100)
        new = Reading({"temperature": 9.0, "v10": 3.0}, published_at_ms=200, offset=5)
        [first] = self.write(place, [old])
        time.sleep(0.002)
        [row] = self.write(place, [new])
        assert row.reading == replace(new, data={"temperature": 9.0, "u10": 2.0, "v10": 3.0})
        assert row.stored_at_ms > first.stored_at_ms

    def test_a_lower_rank_fills_what_is_absent_and_leaves_the_rank(self, place: Any) -> None:
        new = Reading({"temperature": 9.0}, country=None, published_at_ms=200, offset=5)
        old = Reading({"temperature": 1.0, "u10": 2.0}, country="AUT", published_at_ms=100)
        [first] = self.write(place, [new])
        time.sleep(0.002)
        [row] = self.write(place, [old])
        expected = replace(new, data={"temperature": 9.0, "u10": 2.0}, country="AUT")
        assert row == replace(first, reading=expected)

    def test_a_message_without_a_country_leaves_the_row_its_own(self, place: Any) -> None:
        old, new = Reading(country="AUT"), Reading(country=None, offset=1)
        [row] = self.write(place, [old], [new])
        assert row.reading.country == "AUT"

    @pytest.mark.parametrize("case", HIGHER_RANKS)
    @pytest.mark.parametrize("in_order", [True, False])
    def test_the_higher_rank_wins_in_whatever_order(
        self, place: Any, case: str, in_order: bool
    ) -> None:
        low, high = HIGHER_RANKS[case]
        low, high = replace(low, data={"pressure": 1.0}), replace(high, data={"pressure": 2.0})
        order = [low, high] if in_order else [high, low]
        [row] = self.write(place, *([message] for message in order))
        assert row.reading == high

    def test_wind_at_400_then_1_at_100_then_2_at_300_leaves_1(self, place: Any) -> None:
        [row] = self.write(
            place,
            [Reading({"u10": 5.0}, published_at_ms=400)],
            [Reading({"temperature": 1.0}, published_at_ms=100)],
            [Reading({"temperature": 2.0}, published_at_ms=300)],
        )
        assert row.reading == Reading({"u10": 5.0, "temperature": 1.0}, published_at_ms=400)

    @pytest.mark.parametrize("stored_before", [True, False])
    def test_equal_keys_in_one_call_are_applied_one_after_the_other(
        self, place: Any, stored_before: bool
    ) -> None:
        messages = [
            Reading({"u10": 5.0}, published_at_ms=400),
            Reading({"temperature": 1.0}, published_at_ms=100),
            Reading({"temperature": 8.0}, latitude=50.0),
            Reading({"temperature": 2.0}, published_at_ms=300),
            Reading({"v10": 3.0}, published_at_ms=500),
            Reading({"temperature": 7.0}, latitude=50.0, offset=1),
        ]
        before = [messages[:1]] if stored_before else []
        found = self.write(place, *before, messages)
        assert [row.reading for row in found] == merged(messages)
        assert found[0].reading.data == {"u10": 5.0, "temperature": 1.0, "v10": 3.0}

    @settings(
        max_examples=15,
        deadline=None,
        # one suite, inherited by the tests of every store
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,
            HealthCheck.differing_executors,
        ],
    )
    @given(
        readings=colliding_readings(),
        cuts=st.sets(st.integers(1, 11)),
        form=st.sampled_from(["numpy", "list"]),
    )
    def test_any_cut_into_calls_gives_the_rows_that_the_rule_gives(
        self,
        new_place: Callable[[], Any],
        readings: list[Reading],
        cuts: set[int],
        form: Form,
    ) -> None:
        place = new_place()
        ends = [0, *sorted(cut for cut in cuts if cut < len(readings)), len(readings)]
        calls = [readings[start:end] for start, end in itertools.pairwise(ends)]
        found = self.write(place, *calls, form=form)
        assert [row.reading for row in found] == merged(readings)
        assert self.write(place, readings, form=form) == found

    def test_both_forms_of_rows_give_the_same_table(self, new_place: Callable[[], Any]) -> None:
        readings = [
            Reading({"temperature": 1.0, "station": "a"}),
            Reading({"u10": 2.0, "ice": False}, latitude=50.0, country=None),
        ]
        tables = [self.write(new_place(), readings, form=form) for form in ("numpy", "list")]
        assert [row.reading for row in tables[0]] == [row.reading for row in tables[1]]

    def test_datasets_cells_and_times_are_rows_of_their_own(self, place: Any) -> None:
        readings = [
            Reading(),
            Reading(dataset="era5/daily-mean"),
            Reading(latitude=48.2),
            Reading(time_ms=NOON_MS + 1),
        ]
        assert len(self.write(place, readings)) == len(readings)

    def test_what_is_written_is_there_after_closing_and_opening(self, place: Any) -> None:
        readings = [Reading({"temperature": 1.0, "station": "a"})]
        first = self.write(place, readings)
        with self.store(place) as store:
            assert store.field_types()["station"] == "text"
            assert store.query("SELECT count(*) FROM demo.climate_data").rows == [(1,)]
        assert self.rows_at(place) == first

    # --------------------------------------------------------------------------- fields

    @pytest.mark.parametrize(
        ("value", "kind"), [(3.5, "number"), ("dry", "text"), (False, "boolean")]
    )
    def test_a_new_field_becomes_one_of_the_table(
        self, place: Any, value: Value, kind: FieldType
    ) -> None:
        with self.store(place) as store:
            store.write(rows(Reading()))
            assert "soil" not in store.field_types()
            store.write(rows(Reading({"soil": value}, latitude=50.0)))
            assert store.field_types()["soil"] == kind
            answer = store.query(
                "SELECT data['soil'] AS soil FROM demo.climate_data WHERE data['soil'] IS NOT NULL"
            )
            assert answer.rows == [(value,)]
        assert [row.reading.data.get("soil") for row in self.rows_at(place)] == [None, value]

    def test_the_reference_has_its_fields_before_anything_arrives(self, place: Any) -> None:
        with self.store(place) as store:
            types = store.field_types()
        assert {types[name] for name in ("temperature", "u10", "v10", "pressure")} == {"number"}

    def test_field_types_are_the_callers_own(self, place: Any) -> None:
        with self.store(place) as store:
            store.field_types()["invented"] = "text"
            assert "invented" not in store.field_types()

    @pytest.mark.parametrize("name", ODD_NAMES)
    def test_a_field_may_have_an_odd_name(self, place: Any, name: str) -> None:
        readings = [Reading({name: 1.5}), Reading({name: 2.5}, published_at_ms=NOON_MS * 2)]
        [row] = self.write(place, *([reading] for reading in readings))
        assert row.reading.data == {name: 2.5}

    def test_a_field_that_no_row_names_is_not_made(self, place: Any) -> None:
        chosen = rows(Reading(), Reading({"ghost": 1.0}), Reading({"phantom": "x"})).take([0])
        with self.store(place) as store:
            assert store.write(chosen) == []
            assert not {"ghost", "phantom"} & set(store.field_types())

    def test_nan_never_reaches_the_store(self, place: Any) -> None:
        nan = float("nan")
        whole = Reading({"temperature": 1.0, "u10": 2.0})
        holes = Reading({"temperature": nan, "v10": 3.0}, published_at_ms=NOON_MS * 2)
        [row] = self.write(place, [whole, Reading({"u10": nan}, offset=1)], [holes])
        assert row.reading.data == {"temperature": 1.0, "u10": 2.0, "v10": 3.0}

    def test_a_row_with_a_field_of_another_type_is_refused_alone(self, place: Any) -> None:
        clash = [Reading({"station": 7.0}, latitude=1.0), Reading(latitude=2.0)]
        with self.store(place) as store:
            store.write(rows(Reading({"station": "a"})))
            [refusal] = store.write(rows(*clash))
            assert (refusal.row, refusal.transient) == (0, False)
            assert "station" in refusal.error
            assert store.field_types()["station"] == "text"
        assert {row.reading.latitude for row in self.rows_at(place)} == {48.1, 2.0}

    # ------------------------------------------------------------------------------ find

    def test_find_says_what_is_stored_for_the_keys_of_rows(self, place: Any) -> None:
        stored = Reading(
            {"temperature": 1.5, "station": "a", "ice": True}, preliminary=True, offset=7
        )
        asked = rows(
            Reading({"temperature": 9.0, "never": 1.0}, latitude=50.0),
            Reading({"station": "b", "ice": False}, offset=8),
        )
        with self.store(place) as store:
            store.write(rows(stored))
            found = store.find(asked)
        assert list(found.present) == [False, True]
        rank = (found.preliminary, found.published_at_ms, found.offset, found.source)
        assert [column[1] for column in rank] == [True, stored.published_at_ms, 7, "climate/0"]
        assert set(found.data) == {"temperature", "never", "station", "ice"}
        assert [found.data[name][1] for name in ("temperature", "station", "ice")] == [
            1.5,
            "a",
            True,
        ]
        assert found.data["never"][1] != found.data["never"][1], "a number that is absent is NaN"

    def test_find_answers_in_the_order_of_the_rows(self, place: Any) -> None:
        readings = [Reading({"u10": float(n)}, latitude=n / 100, offset=n) for n in range(500)]
        with self.store(place) as store:
            store.write(rows(*readings))
            backwards = [*reversed(readings), readings[3], readings[3]]
            found = store.find(rows(*backwards))
        assert list(found.offset) == [reading.offset for reading in backwards]
        assert list(found.data["u10"]) == [reading.data["u10"] for reading in backwards]

    # ------------------------------------------------------------------------ retention

    def test_expiring_drops_what_is_older_and_remembers_the_latest_horizon(
        self, place: Any
    ) -> None:
        times = [NOON_MS - 1, NOON_MS, NOON_MS + 1]
        others = [Reading(time_ms=NOON_MS - 1, dataset="simulation")]
        with self.store(place) as store:
            assert store.horizons() == {}
            store.write(rows(*(Reading(time_ms=time_ms) for time_ms in times), *others))
            store.expire("era5-land/daily-mean", NOON_MS)
            store.expire("era5-land/daily-mean", NOON_MS - 1)
            assert store.horizons() == {"era5-land/daily-mean": NOON_MS}
        with self.store(place) as store:
            assert store.horizons() == {"era5-land/daily-mean": NOON_MS}
        kept = [(row.reading.dataset, row.reading.time_ms) for row in self.rows_at(place)]
        assert kept == [
            ("era5-land/daily-mean", NOON_MS),
            ("era5-land/daily-mean", NOON_MS + 1),
            ("simulation", NOON_MS - 1),
        ]

    # --------------------------------------------------------------------- dead letters

    @pytest.mark.parametrize(
        "letter",
        [
            pytest.param({"key": None, "value": None}, id="null"),
            pytest.param({"key": b"", "value": b""}, id="empty"),
            pytest.param({"key": b"\x00\xff", "value": b"\xc3\x28 {"}, id="no text"),
            pytest.param({"value": bytes(range(256)) * 4096}, id="1 MB"),
            pytest.param(
                {"headers": (("a", b"1"), ("b", b"\xff"), ("a", b""), ("ü", b"2"))}, id="headers"
            ),
            pytest.param({"attempt": 3, "error": "x" * 40_000}, id="a long error"),
        ],
    )
    def test_a_dead_letter_is_kept_whole(self, place: Any, letter: dict[str, Any]) -> None:
        kept = replace(LETTER, **letter)
        before_ms = time.time_ns() // 1_000_000
        with self.store(place) as store:
            store.bury([kept])
        with self.store(place) as store:
            [(found, dead_at_ms)] = store.dead_letters()
        assert found == kept
        assert before_ms <= dead_at_ms <= time.time_ns() // 1_000_000

    def test_a_dead_letter_that_is_there_stays_as_it_is(self, place: Any) -> None:
        with self.store(place) as store:
            store.bury([LETTER, replace(LETTER, error="again")])
            first = store.dead_letters()
            time.sleep(0.002)
            store.bury([replace(LETTER, error="and again"), replace(LETTER, offset=9)])
            store.bury([])
            assert store.dead_letters(position=("climate", 0, 7)) == first
            assert [letter.error for letter, _ in first] == [LETTER.error]

    def test_an_offset_published_anew_is_another_dead_letter(self, place: Any) -> None:
        with self.store(place) as store:
            store.bury([LETTER, replace(LETTER, published_at_ms=LETTER.published_at_ms + 1)])
            assert len(store.dead_letters(position=("climate", 0, 7))) == 2

    def test_dead_letters_come_newest_first_and_as_many_as_asked_for(self, place: Any) -> None:
        with self.store(place) as store:
            for offset in range(5):
                store.bury([replace(LETTER, offset=offset)])
                time.sleep(0.002)
            assert [letter.offset for letter, _ in store.dead_letters()] == [4, 3, 2, 1, 0]
            assert [letter.offset for letter, _ in store.dead_letters(limit=2)] == [4, 3]

    def test_a_dead_letter_that_was_published_again_stays_and_says_when(self, place: Any) -> None:
        with self.store(place) as store:
            store.bury([LETTER, replace(LETTER, offset=8)])
            found = store.dead_letters(position=("climate", 0, 7))
            store.mark_retried(found, 1_754_784_000_123)
            [(letter, dead_at_ms)] = store.dead_letters(position=("climate", 0, 7))
            [(other, _)] = store.dead_letters(position=("climate", 0, 8))
            assert store.dead_offsets("climate", 0) == {7, 8}
        assert letter == replace(LETTER, retried_at_ms=1_754_784_000_123)
        assert dead_at_ms == found[0][1]
        assert other.retried_at_ms is None

    def test_dead_offsets_are_those_of_one_partition(self, place: Any) -> None:
        with self.store(place) as store:
            store.bury(
                [
                    LETTER,
                    replace(LETTER, offset=8),
                    replace(LETTER, partition=1, offset=9),
                    replace(LETTER, topic="other", offset=10),
                ]
            )
            assert store.dead_offsets("climate", 0) == {7, 8}
            assert store.dead_offsets("climate", 5) == set()

    # -------------------------------------------------------------------------- history

    @pytest.mark.parametrize("parts_of", [1, 3, 1000])
    def test_a_history_has_every_reading_once_and_each_cell_whole(
        self, place: Any, parts_of: int
    ) -> None:
        start, end = NOON_MS, NOON_MS + 3
        readings = [
            Reading({"temperature": cell + time_ms - NOON_MS}, latitude=cell, time_ms=time_ms)
            for cell in (-1.0, 2.0, 10.0, 48.1)
            for time_ms in (NOON_MS - 1, NOON_MS, NOON_MS + 2, NOON_MS + 3)
        ]
        others = [Reading(dataset="era5/hourly"), Reading({"u10": 1.0}, latitude=80.0)]
        with self.store(place) as store:
            store.write(rows(*readings, *others))
            names = ["temperature", "never stored"]
            parts = list(store.history("era5-land/daily-mean", names, start, end, rows=parts_of))
        found = [
            (cell, int(time_ms), float(value))
            for part in parts
            for cell, time_ms, value in zip(
                list(part.cell), part.time_ms, part.data["temperature"], strict=True
            )
            if value == value  # noqa: PLR0124 - NaN: the reading of wind alone
        ]
        expected = [
            (r.cell, r.time_ms, r.data["temperature"]) for r in readings if start <= r.time_ms < end
        ]
        assert sorted(found) == sorted(expected)
        cells = [cell for part in parts for cell in set(part.cell)]
        assert len(cells) == len(set(cells)) == 5, "no cell is in two parts"
        for part in parts:
            assert {part.first, part.last} <= set(part.cell)
            assert min(part.cell) == part.first
            assert max(part.cell) == part.last
            assert all(value != value for value in part.data["never stored"])  # noqa: PLR0124
            assert len(part) <= max(parts_of, 2)

    def test_the_years_of_a_dataset_are_known_once_they_are_written(self, place: Any) -> None:
        """Also those of the last moment, which a query may not see yet."""
        year_ms = 366 * 86_400_000
        with self.store(place) as store:
            assert store.years() == {}
            times = [NOON_MS, NOON_MS - 56 * year_ms, NOON_MS - year_ms, NOON_MS + 1]
            store.write(rows(*(Reading(time_ms=time_ms) for time_ms in times)))
            store.write(rows(Reading(time_ms=NOON_MS, dataset="simulation")))
            assert store.years() == {
                "era5-land/daily-mean": [1969, 2024, 2025],
                "simulation": [2025],
            }

    def test_of_a_dataset_without_readings_there_is_no_history(self, place: Any) -> None:
        with self.store(place) as store:
            store.write(rows(Reading()))
            assert list(store.history("era5/hourly", ["temperature"], 0, 2 * NOON_MS)) == []

    # -------------------------------------------------------------------------- normals

    def test_normals_are_kept_in_place_of_those_before(self, place: Any) -> None:
        normals = NORMALS
        with self.store(place) as store:
            store.keep_normals(normals)
            store.keep_normals(replace(normals, variable="u10", period="1981-2010"))
            store.keep_normals(replace(normals, first="b", last="c", cell=["b", "c"]))
            store.keep_normals(replace(normals, mean=[9.0, 9.5]))
            found = {
                variable: store.query(
                    "SELECT cell, day_of_year, period, years, mean, deviation, p10, p50, p90 "
                    "FROM demo.climate_normals WHERE dataset = ? AND variable = ? ORDER BY cell",
                    [normals.dataset, variable],
                ).rows
                for variable in ("temperature", "u10")
            }
        assert found["u10"] == [
            ("a", 1, "1981-2010", 30, 1.0, 0.5, 0.1, 0.2, 0.3),
            ("b", 366, "1981-2010", 1, 2.0, None, 1.1, 1.2, 1.3),
        ]
        assert found["temperature"] == [
            ("a", 1, "1991-2020", 30, 9.0, 0.5, 0.1, 0.2, 0.3),
            ("b", 366, "1991-2020", 1, 9.5, None, 1.1, 1.2, 1.3),
            ("c", 366, "1991-2020", 1, 2.0, None, 1.1, 1.2, 1.3),
        ]

    # --------------------------------------------------------------------------- places

    def test_places_are_kept_once_with_their_newest_inhabitants(self, place: Any) -> None:
        cities = [
            Place("Berlin", "DEU", 52.5244, 13.4105, 3_426_354),
            Place("Frankfurt", "DEU", 50.1155, 8.6842, 650_000),
            Place("Frankfurt", "DEU", 52.3471, 14.5506, 51_691),
        ]
        with self.store(place) as store:
            store.keep_places(cities)
            store.keep_places([])
            store.keep_places([cities[0]._replace(population=4_000_000), cities[1]])
            found = store.query(
                "SELECT name, country, latitude, longitude, population FROM demo.places "
                "ORDER BY population DESC"
            ).rows
        assert found == [
            ("Berlin", "DEU", 52.5244, 13.4105, 4_000_000),
            ("Frankfurt", "DEU", 50.1155, 8.6842, 650_000),
            ("Frankfurt", "DEU", 52.3471, 14.5506, 51_691),
        ]

    # ---------------------------------------------------------------------- bookkeeping

    def test_the_newest_description_of_a_variable_stays(self, place: Any) -> None:
        first = Description("era5-land/hourly", "sd", "m", "Snow depth")
        with self.store(place) as store:
            store.describe([first, replace(first, variable="u10", unit="m s-1")])
            store.describe([replace(first, unit="mm"), replace(first, unit="cm")])
            store.describe([])
            found = store.query(
                "SELECT dataset, variable, unit, description FROM demo.datasets ORDER BY variable"
            )
        assert found.rows == [
            ("era5-land/hourly", "sd", "cm", "Snow depth"),
            ("era5-land/hourly", "u10", "m s-1", "Snow depth"),
        ]

    def test_the_pipeline_is_recorded_row_by_row(self, place: Any) -> None:
        row = PipelineRow(
            NOON_MS, "worker-1", "climate", 0, 41, 50, 40, 12.5, 1, 0, 3.0, 9.5, 11.0, 20.0
        )
        bare = PipelineRow(
            NOON_MS + 1, "lambda", "climate", 1, None, None, 0, None, 0, 2, None, None, None
        )
        with self.store(place) as store:
            store.record([row, bare])
            store.record([row])
            store.record([])
            found = store.query('SELECT * FROM demo.pipeline ORDER BY "time"')
        noon = datetime(2025, 8, 10, 12, tzinfo=UTC)
        assert found.columns == (
            *("time", "instance", "topic", "partition", "offset", "high_water", "rows"),
            *("batch_ms", "dead", "errors", "stored_p50_ms", "stored_p95_ms", "stored_p99_ms"),
            "queryable_ms",
        )
        full = (noon, *(getattr(row, name) for name in found.columns[1:]))
        assert found.rows[:2] == [full, full]
        assert found.rows[2][4:6] == (None, None)

    # -------------------------------------------------------------------------- queries

    def test_a_query_answers_with_plain_values(self, place: Any) -> None:
        reading = Reading({"temperature": 1.5, "station": "a"}, longitude=11.625, latitude=48.125)
        with self.store(place) as store:
            store.write(rows(reading))
            answer = store.query(
                'SELECT "timestamp", geo_location, data, preliminary, "offset", '
                "data['u10'] AS nothing FROM demo.climate_data"
            )
        assert answer.columns == (
            *("timestamp", "geo_location", "data", "preliminary", "offset", "nothing"),
        )
        [(instant, location, data, *rest)] = answer.rows
        assert instant == datetime(2025, 8, 10, 12, tzinfo=UTC)
        assert instant.utcoffset() == timedelta(0)
        assert tuple(location) == pytest.approx((11.625, 48.125), abs=1e-6)
        assert data == {"temperature": 1.5, "station": "a", "latitude": 48.125, "longitude": 11.625}
        assert rest == [False, 0, None]

    def test_a_query_takes_parameters(self, place: Any) -> None:
        readings = [Reading(time_ms=NOON_MS + hour * 3_600_000) for hour in range(3)]
        zone = datetime(2025, 8, 10, 13, tzinfo=UTC).astimezone()
        with self.store(place) as store:
            store.write(rows(*readings))
            found = store.query(
                "SELECT count(*) FROM demo.climate_data "
                'WHERE dataset = ? AND "timestamp" >= ? AND "timestamp" < ?',
                ["era5-land/daily-mean", zone, "2025-08-10T14:00:00Z"],
            )
        assert found.rows == [(1,)]

    @pytest.mark.parametrize(
        "sql",
        [
            "DELETE FROM demo.climate_data",
            "INSERT INTO demo.places (name) VALUES ('here')",
            "DROP TABLE demo.climate_data",
            "SELECT nothing FROM demo.climate_data",
            "SELECT 1 FROM demo.nowhere",
            "SELEC 1",
            "",
        ],
    )
    def test_a_query_that_writes_or_is_wrong_is_an_error(self, place: Any, sql: str) -> None:
        with self.store(place) as store:
            store.write(rows(Reading()))
            with pytest.raises(StoreError):
                store.query(sql)
        assert len(self.rows_at(place)) == 1

    def test_threads_may_query_while_one_writes(self, place: Any) -> None:
        counting = "SELECT count(*), count(data['late']) FROM demo.climate_data"
        done = threading.Event()

        def watch(store: Store) -> list[int]:
            seen = []
            while not done.is_set():
                seen.append(store.query(counting.replace(", count(data['late'])", "")).rows[0][0])
            return seen

        with self.store(place) as store, ThreadPoolExecutor(3) as pool:
            watchers = [pool.submit(watch, store) for _ in range(3)]
            for n in range(10):
                store.write(rows(Reading(latitude=float(n)), Reading(latitude=n + 0.5)))
            store.write(rows(Reading({"late": 1.0}, latitude=80.0)))
            done.set()
            histories = [watcher.result() for watcher in watchers]
            assert store.query(counting).rows == [(21, 1)]
        for history in histories:
            assert history == sorted(history), "a query never sees less than one before it"
            halves = [count for count in history if count <= 20 and count % 2]
            assert not (self.SEEN_WHOLE and halves), "a write is seen whole"


NORMALS: Final = Normals(
    dataset="era5-land/daily-mean",
    variable="temperature",
    period="1991-2020",
    first="a",
    last="b",
    cell=["a", "b"],
    day_of_year=[1, 366],
    years=[30, 1],
    mean=[1.0, 2.0],
    deviation=[0.5, float("nan")],
    p10=[0.1, 1.1],
    p50=[0.2, 1.2],
    p90=[0.3, 1.3],
)

LETTER: Final = DeadLetter(
    topic="climate",
    partition=0,
    offset=7,
    published_at_ms=NOON_MS,
    key=b"48.1000,11.6000",
    value=b'{"temperature": "warm"}',
    headers=(("unit", b"K"),),
    reason="wrong-type",
    error="climate[0]@7: temperature is text, expected a number",
)


# --------------------------------------------------------------------------- faulty doubles


class WrappedStore:
    """Hands every call to a store; what a double does besides is in `before` and `after`.

    Parameters
    ----------
    store
        Opened and closed with the wrapper.
    calls
        Names of the methods that are interfered with.
    """

    def __init__(self, store: Store, *, calls: Collection[str] = ("write",)) -> None:
        self._store = store
        self._calls = frozenset(calls)

    def before(self, call: str) -> None:
        """Run before a call among `calls` reaches the store."""

    def after(self, call: str) -> None:
        """Run after the store has answered, before the caller knows."""

    def _pass(self, call: str, *arguments: Any, **named: Any) -> Any:
        if call in self._calls:
            self.before(call)
        answer = getattr(self._store, call)(*arguments, **named)
        if call in self._calls:
            self.after(call)
        return answer

    def __enter__(self) -> Self:
        self._store.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._store.__exit__(kind, error, trace)

    def write(self, rows: Rows) -> list[Refusal]:
        answer: list[Refusal] = self._pass("write", rows)
        return answer

    def bury(self, letters: Sequence[DeadLetter]) -> None:
        self._pass("bury", letters)

    def field_types(self) -> dict[str, FieldType]:
        answer: dict[str, FieldType] = self._pass("field_types")
        return answer

    def describe(self, entries: Sequence[Description]) -> None:
        self._pass("describe", entries)

    def record(self, rows: Sequence[PipelineRow]) -> None:
        self._pass("record", rows)

    def expire(self, dataset: str, before_ms: int) -> None:
        self._pass("expire", dataset, before_ms)

    def horizons(self) -> dict[str, int]:
        answer: dict[str, int] = self._pass("horizons")
        return answer

    def find(self, rows: Rows) -> Found:
        answer: Found = self._pass("find", rows)
        return answer

    def dead_offsets(self, topic: str, partition: int) -> set[int]:
        answer: set[int] = self._pass("dead_offsets", topic, partition)
        return answer

    def dead_letters(
        self, *, limit: int | None = None, position: tuple[str, int, int] | None = None
    ) -> list[tuple[DeadLetter, int]]:
        answer: list[tuple[DeadLetter, int]] = self._pass(
            "dead_letters", limit=limit, position=position
        )
        return answer

    def mark_retried(self, letters: Sequence[tuple[DeadLetter, int]], at_ms: int) -> None:
        self._pass("mark_retried", letters, at_ms)

    def years(self) -> dict[str, list[int]]:
        answer: dict[str, list[int]] = self._pass("years")
        return answer

    def history(
        self,
        dataset: str,
        names: Sequence[str],
        start_ms: int,
        end_ms: int,
        *,
        rows: int = HISTORY_ROWS,
    ) -> Iterator[History]:
        answer: Iterator[History] = self._pass(
            "history", dataset, names, start_ms, end_ms, rows=rows
        )
        return answer

    def keep_normals(self, normals: Normals) -> None:
        self._pass("keep_normals", normals)

    def keep_places(self, places: Sequence[Place]) -> None:
        self._pass("keep_places", places)

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> Answer:
        answer: Answer = self._pass("query", sql, parameters)
        return answer


class FailingStore(WrappedStore):
    """Fails some times before the store is reached, then works.

    Parameters
    ----------
    times
        Calls that fail; `math.inf`: all.
    error
        What they raise.
    """

    def __init__(
        self,
        store: Store,
        times: float = 1,
        *,
        error: Exception | None = None,
        calls: Collection[str] = ("write",),
    ) -> None:
        super().__init__(store, calls=calls)
        self.left = times
        self._error = error or StoreUnavailable("the store is away, as the test wants it")

    def before(self, call: str) -> None:  # noqa: ARG002
        if self.left > 0:
            self.left -= 1
            raise self._error


class Crash(RuntimeError):
    """The process died: nobody is there to hear the answer."""


class CrashingStore(FailingStore):
    """Dies after the write and before the answer, some times: the rows are there, unreported."""

    def __init__(
        self,
        store: Store,
        times: float = 1,
        *,
        error: Exception | None = None,
        calls: Collection[str] = ("write",),
    ) -> None:
        super().__init__(store, times, error=error or Crash("died after the write"), calls=calls)

    def before(self, call: str) -> None:
        """Let the call through."""

    def after(self, call: str) -> None:
        super().before(call)


class RefusingStore(WrappedStore):
    """Refuses the rows of some offsets and stores the others.

    Parameters
    ----------
    offsets
        Of the messages whose rows are refused.
    transient
        Whether the same rows may be taken later.
    times
        Calls with such rows that are refused; after them they are taken.
    """

    def __init__(
        self,
        store: Store,
        offsets: Collection[int],
        *,
        transient: bool = False,
        times: float = float("inf"),
    ) -> None:
        super().__init__(store)
        self._offsets = frozenset(offsets)
        self._transient = transient
        self.left = times

    def write(self, rows: Rows) -> list[Refusal]:
        bad = [row for row, offset in enumerate(rows.offset) if int(offset) in self._offsets]
        if not bad or self.left <= 0:
            return super().write(rows)
        self.left -= 1
        good = sorted(set(range(len(rows))) - set(bad))
        others = [
            replace(answer, row=good[answer.row]) for answer in super().write(rows.take(good))
        ]
        refused = [Refusal(row, self._transient, "refused, as the test wants it") for row in bad]
        return sorted([*others, *refused], key=lambda answer: answer.row)


class BlockingStore(WrappedStore):
    """Holds a call until `release`; `waiting` is set while one is held."""

    def __init__(self, store: Store, *, calls: Collection[str] = ("write",)) -> None:
        super().__init__(store, calls=calls)
        self.waiting = threading.Event()
        self._released = threading.Event()

    def release(self) -> None:
        """Let the call that is held go on, and all that follow."""
        self._released.set()

    def before(self, call: str) -> None:  # noqa: ARG002
        self.waiting.set()
        self._released.wait()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()
        super().__exit__(kind, error, trace)


class SlowStore(WrappedStore):
    """Answers late.

    Parameters
    ----------
    delay_s
        Between the store's answer and the caller's.
    sleep
        What waits.
    """

    def __init__(
        self,
        store: Store,
        delay_s: float,
        *,
        sleep: Callable[[float], None] = time.sleep,
        calls: Collection[str] = ("write",),
    ) -> None:
        super().__init__(store, calls=calls)
        self._delay_s = delay_s
        self._sleep = sleep

    def after(self, call: str) -> None:  # noqa: ARG002
        self._sleep(self._delay_s)

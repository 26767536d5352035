"""The tables, as `store init` makes them on a real CrateDB, and what `--keep` drops of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from climatestream.errors import StoreError
from climatestream.stores.crate import CrateStore
from climatestream.stores.crate_tables import User
from climatestream.stores.schema import TABLES
from climatestream.testing.rows import NOON_MS, Reading, rows
from tests.services.crate import Server

SCHEMA = "climatestream_test_setup"
DAY_MS = 86_400_000
YEAR_MS = 366 * DAY_MS
DATASET = "era5-land/daily-mean"


@pytest.fixture
def bare(cratedb: Server) -> Iterator[CrateStore]:
    """A store over a schema that is not there."""
    store = CrateStore(cratedb.at(SCHEMA))
    store.drop()
    yield store
    store.drop()


def names(tables: tuple[str, ...]) -> set[str]:
    return {name.removeprefix(f"{SCHEMA}.") for name in tables}


ALL = {table.name for table in TABLES}


def test_a_schema_without_tables_names_the_command_that_makes_them(bare: CrateStore) -> None:
    with pytest.raises(StoreError, match="climatestream store init"):
        bare.open()


def test_init_makes_all_tables_once_and_drop_removes_them(bare: CrateStore) -> None:
    first, again = bare.init(), bare.init()
    assert (names(first.created), first.existing, first.different) == (ALL, (), ())
    assert (again.created, names(again.existing), again.different) == ((), ALL, ())
    with bare:
        pass
    bare.drop()
    bare.drop()
    assert names(bare.init().created) == ALL


def test_settings_are_those_asked_for(cratedb: Server, bare: CrateStore) -> None:
    bare.init(shards=3, replicas="0-2", refresh_interval_ms=2000)
    settings = cratedb.sql(
        """SELECT table_name, number_of_shards, number_of_replicas, settings['refresh_interval']
        FROM information_schema.tables WHERE table_schema = ?""",
        [SCHEMA],
    )["rows"]
    assert {row[0]: row[1:] for row in settings} == {
        name: [3 if name == "climate_data" else 1, "0-2", 2000] for name in ALL
    }


def test_a_table_with_other_settings_is_reported_and_left_as_it_is(
    cratedb: Server, bare: CrateStore
) -> None:
    bare.init(shards=1, replicas="0", refresh_interval_ms=1000)
    different = bare.init(shards=4, replicas="1", refresh_interval_ms=1000).different
    assert f"{SCHEMA}.climate_data has number_of_shards 1, not 4: left as it is" in different
    assert f"{SCHEMA}.places has number_of_replicas 0, not 1: left as it is" in different
    assert not any("refresh_interval" in sentence for sentence in different)
    assert bare.init(shards=1, replicas="0").different == ()


def test_a_table_that_lacks_a_column_is_reported_and_not_opened(
    cratedb: Server, bare: CrateStore
) -> None:
    bare.init()
    cratedb.sql(f"ALTER TABLE {SCHEMA}.places DROP COLUMN population")
    [sentence] = bare.init().different
    assert sentence == f"{SCHEMA}.places.population is missing, expected bigint"
    with pytest.raises(StoreError, match=sentence):
        bare.open()


def test_the_references_own_table_is_not_taken_for_ours(cratedb: Server, bare: CrateStore) -> None:
    cratedb.sql(f'CREATE TABLE {SCHEMA}.climate_data ("timestamp" TIMESTAMP, data OBJECT)')
    assert "climate_data.cell is missing" in "; ".join(bare.init().different)
    with pytest.raises(StoreError, match="another version"):
        bare.open()


def test_a_user_that_exists_keeps_its_password_and_gets_its_rights(
    cratedb: Server, bare: CrateStore
) -> None:
    writer = User("climatestream_test_twice", "one")
    assert writer.name in bare.init(writer=writer).created
    try:
        again = bare.init(writer=User(writer.name, "two"))
        assert writer.name in again.existing
        assert again.different == (f"user {writer.name} existed: its password is as it was",)
        assert "one" not in repr(writer)
    finally:
        bare.drop(users=[writer.name])


def test_a_user_without_a_password_is_not_made(bare: CrateStore) -> None:
    with pytest.raises(StoreError, match="Password must not be empty"):
        bare.init(reader=User("climatestream_test_empty", ""))


# -------------------------------------------------------------------------------- retention


def years(server: Server) -> int:
    found = server.sql(
        "SELECT count(*) FROM information_schema.table_partitions WHERE table_schema = ?", [SCHEMA]
    )["rows"]
    number: int = found[0][0]
    return number


def test_a_year_wholly_before_the_horizon_is_dropped_as_a_partition(
    cratedb: Server, bare: CrateStore
) -> None:
    bare.init(shards=1, replicas="0")
    with bare as store:
        old = [Reading(time_ms=NOON_MS - n * YEAR_MS, offset=n) for n in range(4)]
        store.write(rows(*old))
        assert years(cratedb) == 4
        store.expire(DATASET, NOON_MS - DAY_MS)
        assert years(cratedb) == 1
        assert list(store.find(rows(*old)).present) == [True, False, False, False]


def test_a_year_that_another_dataset_has_readings_of_stays(
    cratedb: Server, bare: CrateStore
) -> None:
    bare.init(shards=1, replicas="0")
    with bare as store:
        old = Reading(time_ms=NOON_MS - 2 * YEAR_MS)
        other = Reading(time_ms=NOON_MS - 2 * YEAR_MS, dataset="simulation")
        store.write(rows(old, other, Reading()))
        store.expire(DATASET, NOON_MS - DAY_MS)
        assert years(cratedb) == 2
        assert list(store.find(rows(old, other, Reading())).present) == [False, True, True]


def test_a_year_that_the_horizon_lies_in_loses_its_older_rows(
    cratedb: Server, bare: CrateStore
) -> None:
    bare.init(shards=1, replicas="0")
    with bare as store:
        series = [Reading(time_ms=NOON_MS - n * DAY_MS, offset=n) for n in range(10)]
        store.write(rows(*series))
        store.expire(DATASET, NOON_MS - 4 * DAY_MS)
        assert list(store.find(rows(*series)).present) == [True] * 5 + [False] * 5

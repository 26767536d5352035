"""What the real CrateDB refuses, when it refuses everything, and when it dies."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from climatestream.errors import StoreError, StoreUnavailable
from climatestream.model import DeadLetter, Rows
from climatestream.stores import crate_merge
from climatestream.stores.crate import CrateStore
from climatestream.stores.crate_tables import User
from climatestream.testing.rows import NOON_MS, Reading, rows
from tests.crate_answers import BY_NAME
from tests.services.crate import Server, raw
from tests.services.test_crate_store import clean

SCHEMA = "climatestream_test_faults"
TABLE = f"{SCHEMA}.climate_data"


@pytest.fixture(scope="module", autouse=True)
def schema(cratedb: Server) -> Iterator[None]:
    yield
    CrateStore(cratedb.at(SCHEMA)).drop()


@pytest.fixture
def store(cratedb: Server) -> Iterator[CrateStore]:
    with clean(cratedb, SCHEMA) as opened:
        yield opened


@pytest.fixture
def own(cratedb: Server) -> Any:
    """A server that is ours to kill and configure."""
    if not cratedb.own:
        pytest.skip("a server that was named is not killed, frozen or configured by tests")
    return cratedb


def readings(count: int, **more: Any) -> list[Reading]:
    return [
        Reading({"temperature": float(n)}, latitude=n / 1000, offset=n, **more)
        for n in range(count)
    ]


def count(server: Server) -> int:
    server.sql(f"REFRESH TABLE {TABLE}")
    number: int = server.sql(f"SELECT count(*) FROM {TABLE}")["rows"][0][0]
    return number


# ------------------------------------------------------------- the recorded answers again

INSERT = (
    f'INSERT INTO {TABLE} (dataset, cell, "timestamp", geo_location, data, preliminary, '
    'published_at, source, "offset") VALUES (?, ?, ?, ?, ?, false, 0, ?, 0)'
)


def row(cell: str | None = "c", data: Any = None, **more: Any) -> list[Any]:
    values = {"geo": [10.0, 50.0], "time": NOON_MS, "source": "climate/0", **more}
    fields = data or {"temperature": 1.5}
    return ["d", cell, values["time"], values["geo"], fields, values["source"]]


BAD_ROWS = {
    "text in a number": row(data={"temperature": "hot"}),
    "a latitude of 95": row(geo=[10.0, 95.0]),
    "null in the key": row(cell=None),
    "a name of 60,000 letters": row(data={"y" * 60_000: 1.0}),
    "a text of 40,000 letters": row(data={"station": "x" * 40_000}),
    "too many fields": row(data={f"k{n}": 1.0 for n in range(1100)}),
    "null where there must be a value": row(source=None),
    "a name with a dot": row(data={"with.dot": 1.0}),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_a_bad_row_is_answered_as_recorded(cratedb: Server, store: CrateStore, name: str) -> None:
    recorded = BY_NAME[name]
    status, content = raw(cratedb, INSERT, [row("before"), BAD_ROWS[name], row("after")])
    if recorded.scope == "request":
        assert (status, content["error"]["code"]) == (recorded.status, recorded.code)
        assert content["error"]["message"].startswith(recorded.message[:60])
        assert count(cratedb) == 0
    else:
        assert status == 200
        assert [result["rowcount"] for result in content["results"]] == [1, -2, 1]
        error = content["results"][1]["error"]
        assert error["code"] == recorded.code
        assert error["message"].startswith(recorded.message)


STATEMENTS = {
    "no column": f"SELECT nope FROM {TABLE}",
    "no table": f"SELECT 1 FROM {SCHEMA}.nope",
    "no schema": "SELECT 1 FROM climatestream_nowhere.t",
    "a statement that does not parse": "INSERT INTO t (a) VALUES (1) ON CONFLICT (a) "
    "DO UPDATE SET a = 1 WHERE a = 2",
}


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_is_answered_as_recorded(cratedb: Server, store: CrateStore, name: str) -> None:
    recorded = BY_NAME[name]
    status, content = raw(cratedb, STATEMENTS[name])
    assert (status, content["error"]["code"]) == (recorded.status, recorded.code)
    assert content["error"]["message"].startswith(recorded.message.split("[")[0])


def test_only_ten_failed_rows_come_with_a_reason(cratedb: Server, store: CrateStore) -> None:
    _, content = raw(cratedb, INSERT, [row(f"c{n}", {"with.dot": 1.0}) for n in range(30)])
    assert ["error" in result for result in content["results"]] == [True] * 10 + [False] * 20


def test_a_body_of_105_mib_is_answered_413_with_nothing_more(
    own: Server, store: CrateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row that is too large is refused; the one that was to travel with it is stored."""
    monkeypatch.setattr(crate_merge, "REQUEST_BYTES", 200 << 20)
    huge = Reading({"station": "x" * (105 << 20)}, latitude=1.0)
    [refusal] = store.write(rows(Reading(), huge))
    assert (refusal.row, refusal.transient) == (1, False)
    assert "413" in refusal.error
    assert count(own) == 1


# ------------------------------------------------------------------------- poison messages

POISON: dict[str, Callable[[Reading], Reading]] = {
    "a text of 40,000 letters": lambda r: replace(r, data={"station": "x" * 40_000}),
    "a name with a dot": lambda r: replace(r, data={"with.dot": 1.0}),
    "a name of 60,000 letters": lambda r: replace(r, data={"y" * 60_000: 1.0}),
    "a latitude of 95": lambda r: replace(r, latitude=95.0),
    "1,100 new fields": lambda r: replace(r, data={f"k{n}": 1.0 for n in range(1100)}),
}


@pytest.mark.parametrize("kind", POISON)
def test_a_poison_message_is_refused_alone(cratedb: Server, store: CrateStore, kind: str) -> None:
    chosen = readings(60)
    chosen[37] = POISON[kind](chosen[37])
    [refusal] = store.write(rows(*chosen))
    assert (refusal.row, refusal.transient) == (37, False)
    assert len(refusal.error) < 500
    assert count(cratedb) == 59


def test_poison_in_every_hundred_of_all_kinds_is_refused_and_nothing_else(
    cratedb: Server, store: CrateStore
) -> None:
    chosen = readings(2000)
    kinds = [kind for kind in POISON if kind != "1,100 new fields"]
    bad = range(50, 2000, 100)
    for place, n in enumerate(bad):
        chosen[n] = POISON[kinds[place % len(kinds)]](chosen[n])
    refusals = store.write(rows(*chosen))
    assert [refusal.row for refusal in refusals] == list(bad)
    assert not any(refusal.transient for refusal in refusals)
    assert count(cratedb) == 2000 - len(bad)


def test_forty_refused_rows_have_each_their_reason(store: CrateStore) -> None:
    chosen = [
        replace(r, data={"station": "x" * 40_000} if n % 2 else {"with.dot": 1.0})
        for n, r in enumerate(readings(40))
    ]
    refusals = store.write(rows(*chosen))
    assert [refusal.row for refusal in refusals] == list(range(40))
    for n, refusal in enumerate(refusals):
        assert ("immense" if n % 2 else "dot") in refusal.error


# ---------------------------------------------------------------------- a schema that grows


def test_two_writers_may_name_a_new_field_with_different_types(
    cratedb: Server, store: CrateStore
) -> None:
    """One type holds; every row is either stored with it or refused, none is lost or cut."""
    with CrateStore(cratedb.at(SCHEMA)) as other, ThreadPoolExecutor(2) as pool:
        started = threading.Barrier(2)

        def write(opened: CrateStore, chosen: Rows) -> int:
            started.wait()
            return len(opened.write(chosen))

        numbers = rows(*(replace(r, data={"soil": r.offset + 0.5}) for r in readings(50)))
        texts = rows(*(replace(r, data={"soil": "dry"}, longitude=7.0) for r in readings(50)))
        refused = [
            future.result()
            for future in [pool.submit(write, store, numbers), pool.submit(write, other, texts)]
        ]
        kind = store.field_types()["soil"]
    assert refused == ([0, 50] if kind == "number" else [50, 0])


@pytest.mark.parametrize("stored", [30, 300])
def test_new_fields_reach_all_rows_that_were_there_before_them(
    cratedb: Server, store: CrateStore, stored: int
) -> None:
    """CrateDB 6.4.3 stores the first of a request, and drops them, or all, from the others."""
    old = readings(stored)
    new = [
        replace(
            r, data={"soil": r.offset + 0.5, f"f{r.offset % 7}": 1.0}, published_at_ms=NOON_MS * 2
        )
        for r in readings(2 * stored)
    ]
    store.write(rows(*old))
    assert store.write(rows(*new, *new[:5])) == []
    found = store.find(rows(*new))
    assert list(found.data["soil"]) == [r.offset + 0.5 for r in new]
    for n in range(7):
        assert list(found.data[f"f{n}"])[n::7] == [1.0] * len(new[n::7])
    temperatures = store.find(rows(*old)).data["temperature"]
    assert list(temperatures) == [r.data["temperature"] for r in old]


def test_new_fields_of_several_writers_reach_all_rows(cratedb: Server, store: CrateStore) -> None:
    store.write(rows(*readings(400)))
    new = [
        replace(r, data={"soil": r.offset + 0.5}, published_at_ms=NOON_MS * 2)
        for r in readings(400)
    ]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(store.write, [rows(*new[n::4]) for n in range(4)])) == [[]] * 4
    assert list(store.find(rows(*new)).data["soil"]) == [r.offset + 0.5 for r in new]


def test_the_server_still_drops_new_fields_of_a_request(cratedb: Server, store: CrateStore) -> None:
    """The fault that `Merge._apply` goes round; when this fails, that may go."""
    assert store.write(rows(*readings(10))) == []
    new = rows(*(replace(r, data={"soil": 1.5}) for r in readings(10)))
    parameters = crate_merge.parameters(new)
    results = store._http.sql(store._merge._upsert, bulk=parameters)["results"]
    assert {result["rowcount"] for result in results} == {1}
    assert sum(value == 1.5 for value in store.find(new).data["soil"]) < 10


def test_an_integer_that_came_first_does_not_cut_what_follows(
    cratedb: Server, store: CrateStore
) -> None:
    whole = rows(Reading({"soil": 5.0}), form="list")
    store.write(replace(whole, data={"soil": [5]}))
    assert store.write(rows(Reading({"soil": 5.75}, latitude=1.0))) == []
    found = store.find(rows(Reading({"soil": 0.0}), Reading({"soil": 0.0}, latitude=1.0)))
    assert list(found.data["soil"]) == [5.0, 5.75]


def test_a_column_that_another_program_made_an_integer_takes_no_numbers(
    cratedb: Server, store: CrateStore
) -> None:
    """CrateDB would cut 5.75 to 5 without a word."""
    cratedb.sql(INSERT, row(data={"soil": 5}))
    [refusal] = store.write(rows(Reading({"soil": 5.75}), Reading(latitude=2.0)))
    assert (refusal.row, refusal.transient) == (0, False)
    assert "bigint" in refusal.error


# ------------------------------------------------------------------------ takes nothing now


@contextmanager
def setting(server: Server, name: str, value: str = "true") -> Iterator[None]:
    server.sql(f'ALTER TABLE {TABLE} SET ("{name}" = {value})')
    try:
        yield
    finally:
        server.sql(f'ALTER TABLE {TABLE} RESET ("{name}")')


@contextmanager
def cluster(server: Server, name: str, value: str) -> Iterator[None]:
    server.sql(f'SET GLOBAL TRANSIENT "{name}" = {value}')
    try:
        yield
    finally:
        server.sql(f'RESET GLOBAL "{name}"')


@pytest.mark.parametrize("block", ["blocks.write", "blocks.read_only"])
def test_a_table_that_is_read_only_is_unavailable_and_loses_nothing(
    cratedb: Server, store: CrateStore, block: str
) -> None:
    chosen = rows(*readings(10))
    store.write(rows(Reading(longitude=7.0)))
    with setting(cratedb, block):
        with pytest.raises(StoreUnavailable, match="INSERT operations"):
            store.write(chosen)
        assert store.query(f"SELECT 1 FROM {TABLE} LIMIT 0").rows == []
    assert store.write(chosen) == []
    assert count(cratedb) == 11


def test_a_table_that_is_read_only_is_read_whole(cratedb: Server, store: CrateStore) -> None:
    """`audit` and the lists of dead letters refresh first, which CrateDB does not allow there."""
    written = rows(*readings(1_000))
    store.write(written)
    letter = DeadLetter("t", 0, 7, 1, None, b"v", (), "not-json", "not JSON")
    store.bury([letter])
    tables = (TABLE, f"{SCHEMA}.dead_letters")
    for table in tables:
        cratedb.sql(f'ALTER TABLE {table} SET ("blocks.read_only" = true)')
    try:
        assert all(store.find(written).present)
        assert store.dead_offsets("t", 0) == {7}
        assert [found for found, _ in store.dead_letters()] == [letter]
    finally:
        for table in tables:
            cratedb.sql(f'ALTER TABLE {table} RESET ("blocks.read_only")')


def test_a_disk_that_is_full_holds_the_rows_of_its_partitions(
    cratedb: Server, store: CrateStore
) -> None:
    store.write(rows(Reading(longitude=7.0)))
    chosen = rows(*readings(30))
    with setting(cratedb, "blocks.read_only_allow_delete"):
        refusals = store.write(chosen)
        assert len(refusals) == 30
        assert {refusal.transient for refusal in refusals} == {True}
        assert "RELATION_READ_DELETE_ONLY" in refusals[29].error
    assert store.write(chosen) == []
    assert count(cratedb) == 31


def test_a_dead_letter_that_can_not_be_written_now_is_transient(
    cratedb: Server, store: CrateStore
) -> None:
    letter = DeadLetter("climate", 0, 7, NOON_MS, b"k" * 100_000, b"v", (), "empty", "why")
    letters = f"{SCHEMA}.dead_letters"
    for block in ("blocks.write", "blocks.read_only_allow_delete"):
        cratedb.sql(f'ALTER TABLE {letters} SET ("{block}" = true)')
        with pytest.raises(StoreUnavailable):
            store.bury([letter])
        cratedb.sql(f'ALTER TABLE {letters} RESET ("{block}")')
    store.bury([letter])
    assert [found for found, _ in store.dead_letters()] == [letter]


def test_a_year_that_finds_no_room_for_its_shards_is_no_reason_for_a_dead_letter(
    own: Server, store: CrateStore
) -> None:
    chosen = rows(*readings(5), Reading(time_ms=0))
    shards = own.sql("SELECT count(*) FROM sys.shards WHERE routing_state <> 'UNASSIGNED'")
    limit = str(max(1, shards["rows"][0][0]))
    with (
        cluster(own, "cluster.max_shards_per_node", limit),
        pytest.raises(StoreUnavailable, match="maximum shards"),
    ):
        store.write(chosen)
    assert store.write(chosen) == []
    assert count(own) == 6


def test_a_memory_breaker_makes_requests_smaller_and_loses_nothing(
    own: Server, store: CrateStore
) -> None:
    chosen = rows(*readings(3000))
    with cluster(own, "indices.breaker.query.limit", "'1mb'"):
        refusals = store.write(chosen)
        assert refusals
        assert {refusal.transient for refusal in refusals} == {True}
        assert "CircuitBreakingException" in refusals[-1].error
        tries = 0
        while store.write(chosen):
            tries += 1
            assert tries < 20
    assert count(own) == 3000


def test_a_table_that_was_dropped_is_awaited_and_then_written_to(
    cratedb: Server, store: CrateStore
) -> None:
    """A server that starts says the same of tables that it has."""
    store.write(rows(Reading({"soil": 1.5})))
    cratedb.sql(f"DROP TABLE {TABLE}")
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="climatestream store init"):
            store.write(rows(Reading({"soil": 2.5})))
    with pytest.raises(StoreUnavailable):
        store.field_types()
    CrateStore(store.address).init()
    assert store.write(rows(Reading({"soil": "wet"}))) == []
    assert store.field_types()["soil"] == "text"


# -------------------------------------------------------------------------- killed, frozen


def test_a_server_that_answers_nothing_is_unavailable_in_time(own: Any, store: CrateStore) -> None:
    with CrateStore(own.at(SCHEMA, timeout_s=1.0)) as hasty:
        own.freeze()
        try:
            begun = time.monotonic()
            with pytest.raises(StoreUnavailable, match="in time"):
                hasty.write(rows(Reading()))
            assert time.monotonic() - begun < 20
        finally:
            own.thaw()
        assert hasty.write(rows(Reading())) == []


def test_killed_and_restarted_while_writing_it_has_all_that_it_answered_for(
    own: Any, store: CrateStore
) -> None:
    """SIGKILL under two writers, who send again what was not answered for."""
    calls, size = 40, 250
    written = threading.Semaphore(0)

    def write(part: int) -> int:
        failures = 0
        for call in range(calls):
            chosen = rows(
                *(
                    Reading(
                        {"temperature": float(n)},
                        latitude=n / 1000,
                        longitude=float(part),
                        time_ms=NOON_MS + call,
                        offset=call * size + n,
                        source=f"climate/{part}",
                    )
                    for n in range(size)
                )
            )
            while True:
                try:
                    if not store.write(chosen):
                        break
                except StoreUnavailable:
                    pass
                failures += 1
                time.sleep(0.1)
            written.release()
        return failures

    with ThreadPoolExecutor(2) as pool:
        writers = [pool.submit(write, part) for part in range(2)]
        for _ in range(10):
            written.acquire()
        own.kill()
        own.start()
        failures = [writer.result() for writer in writers]
    assert any(failures), "the kill came while they wrote"
    assert count(own) == 2 * calls * size
    [[distinct]] = own.sql(f'SELECT count(DISTINCT source || "offset"::text) FROM {TABLE}')["rows"]
    assert distinct == 2 * calls * size


def test_writers_of_the_same_keys_leave_the_highest_rank(
    cratedb: Server, store: CrateStore
) -> None:
    def write(rank: int) -> None:
        chosen = rows(
            *(
                replace(r, data={"temperature": float(rank)}, published_at_ms=rank)
                for r in readings(300)
            )
        )
        while store.write(chosen):
            pass  # rows that others wrote at the same moment

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, [3, 1, 4, 2, 7, 5, 6, 0]))
    found = store.find(rows(*readings(300)))
    assert set(found.published_at_ms) == {7}
    assert set(found.data["temperature"]) == {7.0}


# --------------------------------------------------------------------------------- users

WRITER, READER = User("climatestream_test_writer", "w' \"pass"), User("climatestream_test_r", "r")


@pytest.fixture
def users(cratedb: Server, store: CrateStore) -> Iterator[None]:
    setup = CrateStore(cratedb.at(SCHEMA)).init(writer=WRITER, reader=READER)
    assert setup.created == (WRITER.name, READER.name)
    yield
    for user in (WRITER, READER):
        cratedb.sql(f"DROP USER IF EXISTS {user.name}")


@pytest.fixture
def as_user(
    cratedb: Server, users: None, monkeypatch: pytest.MonkeyPatch
) -> Callable[[User], CrateStore]:
    def opened(user: User) -> CrateStore:
        monkeypatch.setenv("CLIMATESTREAM_STORE_PASSWORD", user.password)
        return CrateStore(cratedb.at(SCHEMA, user.name))

    return opened


def test_the_writer_may_do_what_a_pipeline_does(
    cratedb: Server, as_user: Callable[[User], CrateStore]
) -> None:
    with as_user(WRITER) as store:
        chosen = rows(*readings(120), Reading({"soil": 1.5}, time_ms=0))
        assert store.write(chosen) == []
        assert store.write(chosen) == []
        assert all(store.find(chosen).present)
        store.bury([DeadLetter("climate", 0, 7, NOON_MS, None, b"v", (), "empty", "why")])
        assert store.dead_offsets("climate", 0) == {7}
        store.expire("era5-land/daily-mean", NOON_MS - 1)
        assert store.horizons() == {"era5-land/daily-mean": NOON_MS - 1}
    assert count(cratedb) == 120


def test_the_writer_may_not_change_tables(
    cratedb: Server, as_user: Callable[[User], CrateStore]
) -> None:
    with as_user(WRITER) as store, pytest.raises(StoreError, match="DDL"):
        store._http.sql(f"DROP TABLE {TABLE}")
    with pytest.raises(StoreError, match="DDL"):
        as_user(WRITER).drop()


def test_the_reader_reads_and_writes_nothing(
    cratedb: Server, as_user: Callable[[User], CrateStore]
) -> None:
    with CrateStore(cratedb.at(SCHEMA)) as admin:
        admin.write(rows(Reading()))
    with as_user(READER) as store:
        store._look_up.refresh()
        assert store.query(f"SELECT count(*) FROM {TABLE}").rows == [(1,)]
        with pytest.raises(StoreError, match="Missing 'DML' privilege"):
            store.write(rows(Reading(latitude=2.0)))


def test_a_wrong_password_is_an_error_where_passwords_are_asked_for(
    own: Server, as_user: Callable[[User], CrateStore]
) -> None:
    with pytest.raises(StoreError, match="password authentication failed") as caught:
        as_user(replace(WRITER, password="wr0ng")).open()  # noqa: S106
    assert "wr0ng" not in str(caught.value)


def test_a_user_without_rights_is_told_so(
    own: Server, store: CrateStore, as_user: Callable[[User], CrateStore]
) -> None:
    own.sql(f"REVOKE DQL, DML ON TABLE {TABLE} FROM {WRITER.name}")
    with pytest.raises(StoreError, match=f"lacks the tables climate_data, or {WRITER.name} has"):
        as_user(WRITER).open()

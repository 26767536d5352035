"""The CrateDB store against recorded answers: no server. See tests/services for the real one."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import orjson
import pytest

from climatestream.errors import StoreError, StoreUnavailable, UsageError
from climatestream.model import DeadLetter
from climatestream.stores import crate_http, crate_merge
from climatestream.stores.crate import CrateStore
from climatestream.stores.crate_address import PASSWORD_ENVIRONMENT, Address, parse
from climatestream.stores.crate_errors import RULES, Verdict, words
from climatestream.stores.crate_query import _in_schema
from climatestream.stores.open import open_store
from climatestream.testing.rows import NOON_MS, Reading, rows
from climatestream.testing.stores import Stored, StoreTests, merged
from tests.crate_answers import ANSWERS, BY_NAME, Recorded
from tests.crate_double import SCHEMA, CrateDouble, Request


@pytest.fixture
def double() -> Iterator[CrateDouble]:
    with CrateDouble().serving() as served:
        yield served


@pytest.fixture
def store(double: CrateDouble) -> Iterator[CrateStore]:
    with CrateStore(double.address) as opened:
        yield opened


def readings(count: int, **more: Any) -> list[Reading]:
    """Readings of different cells, their offsets from 0."""
    return [
        Reading({"temperature": float(n)}, latitude=n / 100, offset=n, **more) for n in range(count)
    ]


# ------------------------------------------------------------------------------- contract


class TestAgainstTheDouble(StoreTests):
    """The promises that need no SQL engine behind them."""

    @pytest.fixture
    def new_place(self, double: CrateDouble) -> Callable[[], Any]:
        def made() -> CrateDouble:
            double.rows.clear()
            double.fields = CrateDouble().fields
            return double

        return made

    def store(self, place: Any) -> CrateStore:
        return CrateStore(place.address)

    def stored(self, place: Any) -> list[Stored]:
        return [_stored(key, row) for key, row in place.rows.items()]

    def test_a_new_reading_is_stored_with_all_that_it_says(self, place: Any) -> None:
        """As in the contract, but for `stored_at`, which the double's own clock gives."""
        reading = Reading({"u10": -1.5, "station": "Zugspitze", "ice": True}, preliminary=True)
        [row] = self.write(place, [reading])
        assert row.reading == reading
        assert row.location == (reading.longitude, reading.latitude)


_SQL_ENGINE_NEEDED = (
    "test_what_is_written_is_there_after_closing_and_opening",
    "test_a_new_field_becomes_one_of_the_table",
    "test_expiring_drops_what_is_older_and_remembers_the_latest_horizon",
    "test_a_dead_letter_is_kept_whole",
    "test_a_dead_letter_that_is_there_stays_as_it_is",
    "test_an_offset_published_anew_is_another_dead_letter",
    "test_dead_letters_come_newest_first_and_as_many_as_asked_for",
    "test_a_dead_letter_that_was_published_again_stays_and_says_when",
    "test_dead_offsets_are_those_of_one_partition",
    "test_a_history_has_every_reading_once_and_each_cell_whole",
    "test_of_a_dataset_without_readings_there_is_no_history",
    "test_normals_are_kept_in_place_of_those_before",
    "test_places_are_kept_once_with_their_newest_inhabitants",
    "test_the_newest_description_of_a_variable_stays",
    "test_the_pipeline_is_recorded_row_by_row",
    "test_a_query_answers_with_plain_values",
    "test_a_query_takes_parameters",
    "test_a_query_that_writes_or_is_wrong_is_an_error",
    "test_threads_may_query_while_one_writes",
)
for _name in _SQL_ENGINE_NEEDED:
    assert hasattr(StoreTests, _name)
    setattr(TestAgainstTheDouble, _name, None)


def _stored(key: tuple[str, str, int], row: dict[str, Any]) -> Stored:
    dataset, cell, time_ms = key
    data = dict(row["data"])
    preliminary, published_at_ms, source, offset = row["rank"]
    reading = Reading(
        latitude=data.pop("latitude"),
        longitude=data.pop("longitude"),
        data=data,
        time_ms=time_ms,
        dataset=dataset,
        country=row["country"],
        preliminary=preliminary,
        published_at_ms=published_at_ms,
        source=source,
        offset=offset,
    )
    assert reading.cell == cell
    time = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=time_ms)
    year = datetime(time.year, 1, 1, tzinfo=UTC)
    return Stored(reading, tuple(row["location"]), year, row["stored_at"])


# ------------------------------------------------------------------------------ the errors


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: answer.name)
def test_each_recorded_answer_means_what_the_table_says(answer: Recorded) -> None:
    assert answer.classified() is answer.verdict


def test_each_rule_of_the_table_has_a_recorded_answer() -> None:
    def holds(rule: Any, answer: Recorded) -> bool:
        code = answer.status if answer.code is None else answer.code
        return (
            rule.scope == answer.scope
            and code in rule.codes
            and answer.message.startswith(rule.words)
            and rule.verdict is answer.verdict
        )

    unproven = [rule for rule in RULES if not any(holds(rule, answer) for answer in ANSWERS)]
    assert unproven == []


LATER = (Verdict.UNAVAILABLE, Verdict.OVERLOADED)


@pytest.mark.parametrize(
    "answer",
    [a for a in ANSWERS if a.scope == "request" and a.verdict in LATER],
    ids=lambda answer: answer.name,
)
def test_a_store_that_takes_nothing_now_is_unavailable_and_later_takes_all(
    double: CrateDouble, store: CrateStore, answer: Recorded
) -> None:
    double.script(answer)
    with pytest.raises(StoreUnavailable, match=str(double.port)):
        store.write(rows(*readings(3)))
    assert store.write(rows(*readings(3))) == []
    assert len(double.rows) == 3


@pytest.mark.parametrize(
    "answer",
    [a for a in ANSWERS if a.scope == "row" and a.verdict in LATER],
    ids=lambda answer: answer.name,
)
def test_a_row_that_is_not_taken_now_is_to_be_sent_again(
    double: CrateDouble, store: CrateStore, answer: Recorded
) -> None:
    double.script(answer, offset=1)
    [refusal] = store.write(rows(*readings(3)))
    assert (refusal.row, refusal.transient) == (1, True)
    assert refusal.error == words(answer.message)
    assert store.write(rows(*readings(3))) == []
    assert len(double.rows) == 3


@pytest.mark.parametrize(
    "answer", [a for a in ANSWERS if a.verdict is Verdict.REFUSED], ids=lambda answer: answer.name
)
def test_a_row_that_the_server_refuses_is_refused_alone_with_the_servers_reason(
    double: CrateDouble, store: CrateStore, answer: Recorded
) -> None:
    double.script(answer, times=99, offset=13)
    [refusal] = store.write(rows(*readings(40)))
    assert (refusal.row, refusal.transient) == (13, False)
    assert words(answer.message) in refusal.error
    assert len(double.rows) == 39


@pytest.mark.parametrize(
    "answer",
    [a for a in ANSWERS if a.verdict in (Verdict.UNKNOWN, Verdict.DENIED) and a.code is not None],
    ids=lambda answer: answer.name,
)
def test_what_the_operator_must_mend_or_nobody_has_seen_stops_the_run(
    double: CrateDouble, store: CrateStore, answer: Recorded
) -> None:
    double.script(answer, times=99)
    with pytest.raises(StoreError) as caught:
        store.write(rows(*readings(3)))
    assert words(answer.message) in str(caught.value)


@pytest.mark.parametrize(
    "answer", [a for a in ANSWERS if a.verdict is Verdict.MISSING], ids=lambda answer: answer.name
)
def test_tables_that_were_there_may_be_there_again(
    double: CrateDouble, store: CrateStore, answer: Recorded
) -> None:
    """A server that starts knows no schema for some moments (seen on 6.4.3)."""
    double.script(answer)
    with pytest.raises(StoreUnavailable, match="climatestream store init"):
        store.write(rows(Reading({"soil": 1.0})))
    double.script(answer, statement="SELECT nope")
    with pytest.raises(StoreError, match="can't be answered"):
        store.query("SELECT nope")
    assert store.write(rows(Reading({"soil": 1.0}))) == []


def test_a_server_that_shows_no_tables_yet_says_nothing_of_their_fields(
    double: CrateDouble, store: CrateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taken for an answer, it would mean that no type holds."""
    with monkeypatch.context() as starting:
        starting.setattr(double, "_columns", list)
        with pytest.raises(StoreUnavailable):
            store.field_types()
        with pytest.raises(StoreUnavailable):
            store.write(rows(Reading({"soil": 1.0})))
    assert store.field_types()["u10"] == "number"


def test_a_request_that_is_too_large_is_sent_in_parts(
    double: CrateDouble, store: CrateStore
) -> None:
    def too_large(request: dict[str, Any]) -> tuple[int, bytes] | None:
        return (413, b"") if len(request.get("bulk_args", [])) > 8 else None

    double.respond(too_large, 99)
    assert store.write(rows(*readings(50))) == []
    assert len(double.rows) == 50


def test_a_row_that_alone_is_too_large_is_refused(double: CrateDouble, store: CrateStore) -> None:
    double.script(BY_NAME["too large"], times=99, offset=2)
    [refusal] = store.write(rows(*readings(5)))
    assert (refusal.row, refusal.transient) == (2, False)
    assert len(double.rows) == 4


def test_rows_that_fail_without_a_reason_are_asked_for_theirs(
    double: CrateDouble, store: CrateStore
) -> None:
    """CrateDB gives ten reasons an answer: every row gets its own all the same."""
    bad = [
        Reading({"station": "x" * 40_000} if n % 2 else {"with.dot": 1.0}, latitude=n / 100)
        for n in range(30)
    ]
    refusals = store.write(rows(*bad, *readings(2, longitude=7.0)))
    assert [refusal.row for refusal in refusals] == list(range(30))
    assert not any(refusal.transient for refusal in refusals)
    for n, refusal in enumerate(refusals):
        assert ("immense" if n % 2 else "dot") in refusal.error
    assert len(double.rows) == 2


def test_rows_without_a_reason_beside_rows_for_later_are_for_later_too(
    double: CrateDouble, store: CrateStore
) -> None:
    double.script(BY_NAME["the write queue is full"])
    refusals = store.write(rows(*readings(30)))
    assert len(refusals) == 30
    assert {refusal.transient for refusal in refusals} == {True}
    assert len(double.inserts()) == 1, "an overloaded server is not asked for its reasons"


def test_every_hundredth_message_may_be_poison(double: CrateDouble, store: CrateStore) -> None:
    chosen = [
        replace(reading, data={"station": "x" * 40_000}) if n % 100 == 7 else reading
        for n, reading in enumerate(readings(1000))
    ]
    refusals = store.write(rows(*chosen))
    assert [refusal.row for refusal in refusals] == list(range(7, 1000, 100))
    assert len(double.rows) == 990


def test_rows_that_the_server_takes_for_others_are_found(
    double: CrateDouble, store: CrateStore
) -> None:
    """Seen of 6.4.3 where the statement makes the partition: the right number, the wrong rows."""

    def shifted(request: dict[str, Any]) -> tuple[int, bytes] | None:
        if len(request.get("bulk_args", [])) < 100:
            return None
        status, content = double.write(request)
        answer = orjson.loads(content)
        answer["results"] = answer["results"][-40:] + answer["results"][:-40]
        return status, orjson.dumps(answer)

    double.respond(shifted)
    chosen = [
        replace(reading, data={"station": "x" * 40_000}) if n in (7, 17) else reading
        for n, reading in enumerate(readings(100))
    ]
    refusals = store.write(rows(*chosen))
    assert [refusal.row for refusal in refusals] == [7, 17]
    assert all("immense" in refusal.error for refusal in refusals)
    assert len(double.rows) == 98


def test_an_overloaded_server_gets_smaller_requests_and_then_larger_ones_again(
    double: CrateDouble, store: CrateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crate_merge, "REQUEST_ROWS", 400)
    store._merge._request_rows = 400
    double.script(BY_NAME["the memory breaker stops a write"])
    sizes = []
    for n in range(4):
        store.write(rows(*readings(400, longitude=float(n))))
        sizes.append(max(len(request["bulk_args"]) for request in double.inserts()))
        double.asked.clear()
    assert sizes[:2] == [400, 200]
    assert sizes[1:] == sorted(sizes[1:])
    assert sizes[-1] == 400


def test_a_servers_words_are_cut_and_put_on_one_line() -> None:
    body = "SQLParseException[Can't parse [" + "secret " * 10_000
    said = words(body + "\n\tat io.crate.Action.java")
    assert len(said) == 300
    assert "\n" not in said
    assert words("a\n  b") == "a b"


# ----------------------------------------------------------------------------- the merge


def test_a_replay_costs_look_ups_and_no_writes(double: CrateDouble, store: CrateStore) -> None:
    chosen = rows(*readings(200))
    assert store.write(chosen) == []
    assert store.write(chosen) == []  # learns that the rows are there
    before = dict(double.rows)
    double.asked.clear()
    assert store.write(chosen) == []
    assert double.inserts() == []
    assert double.rows == before


def test_rows_that_exist_and_bring_nothing_are_not_merged(
    double: CrateDouble, store: CrateStore
) -> None:
    superseded, newer = readings(200), readings(200, published_at_ms=NOON_MS * 2)
    filling = [replace(reading, data={"u10": 1.0}) for reading in superseded[:60]]
    for chosen in (superseded, newer):
        assert store.write(rows(*chosen)) == []
    double.asked.clear()
    assert store.write(rows(*filling, *superseded[60:])) == []
    merged_rows = [
        row
        for request in double.inserts()
        if "DO UPDATE" in request["stmt"]
        for row in request["bulk_args"]
    ]
    assert sorted(row[-1] for row in merged_rows) == list(range(60))


def test_new_rows_are_not_looked_up(double: CrateDouble, store: CrateStore) -> None:
    assert store.write(rows(*readings(200))) == []
    assert [request["stmt"].split()[0] for request in double.asked[-1:]] == ["INSERT"]
    assert not any(request["stmt"].startswith("SELECT dataset") for request in double.asked)


def test_a_row_waits_for_the_one_of_its_key_that_is_not_stored_yet(
    double: CrateDouble, store: CrateStore
) -> None:
    """Stored before it, it would give the row what the other must give."""
    first = Reading({"temperature": 1.0}, published_at_ms=100, offset=1)
    second = Reading({"temperature": 2.0}, published_at_ms=300, offset=2)
    other = Reading(latitude=9.0, offset=3)
    wind = Reading({"u10": 5.0}, published_at_ms=400)
    store.write(rows(wind))
    double.script(BY_NAME["the disk is full"], offset=1)
    refusals = store.write(rows(first, second, other))
    assert [(refusal.row, refusal.transient) for refusal in refusals] == [(0, True), (1, True)]
    assert store.write(rows(first, second)) == []
    table = sorted((_stored(*item).reading for item in double.rows.items()), key=lambda r: r.key)
    assert table == merged([wind, other, first, second])


def test_requests_are_cut_by_rows_and_by_bytes(
    double: CrateDouble, store: CrateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crate_merge, "REQUEST_ROWS", 100)
    monkeypatch.setattr(crate_merge, "REQUEST_BYTES", 20_000)
    store._merge._request_rows = 100
    long = [replace(reading, data={"station": "x" * 900}) for reading in readings(100)]
    assert store.write(rows(*readings(250, longitude=7.0), *long)) == []
    sizes = [len(request["bulk_args"]) for request in double.inserts()]
    assert max(sizes) == 100
    assert min(sizes) < 20
    assert len(double.rows) == 350


def test_requests_of_a_call_are_under_way_at_once(
    double: CrateDouble, store: CrateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store._merge._request_rows = 10
    both = threading.Barrier(crate_merge.IN_FLIGHT)
    write = double.write

    def waiting(request: dict[str, Any], *more: Any) -> tuple[int, bytes]:
        double.lock.release()
        try:
            both.wait(timeout=10)
        finally:
            double.lock.acquire()
        return write(request, *more)

    monkeypatch.setattr(double, "write", waiting)
    monkeypatch.setattr(crate_merge, "REQUEST_ROWS", 10)
    assert store.write(rows(*readings(40))) == []
    assert len(double.rows) == 40


def test_numbers_always_travel_as_floats(double: CrateDouble, store: CrateStore) -> None:
    """A field that began as an integer would cut every value after it."""
    whole = rows(Reading({"soil": 5.0}), form="list")
    assert store.write(replace(whole, data={"soil": [5]})) == []
    assert double.fields["soil"] == "double precision"


def test_a_new_field_reaches_all_rows_that_were_there_before_it(
    double: CrateDouble, store: CrateStore
) -> None:
    """One row makes it a field of the table, alone: CrateDB would drop it from the next ones."""
    chosen = readings(80)
    store.write(rows(*chosen))
    wind = [replace(r, data={"gust": r.offset + 0.5}, published_at_ms=NOON_MS * 2) for r in chosen]
    double.asked.clear()
    assert store.write(rows(*wind)) == []
    assert [row["data"]["gust"] for row in double.rows.values()] == [n + 0.5 for n in range(80)]
    merges = [len(q["bulk_args"]) for q in double.inserts() if "DO UPDATE" in q["stmt"]]
    assert merges == [1, 79]


def test_a_field_that_another_writer_made_meanwhile_is_refused(
    double: CrateDouble, store: CrateStore
) -> None:
    """CrateDB would take the number for a text without a word."""
    double.fields["soil"] = "text"
    [refusal] = store.write(rows(Reading({"soil": 5.5}), Reading(latitude=2.0)))
    assert (refusal.row, refusal.transient) == (0, False)
    assert "'soil' is number, expected text" in refusal.error
    assert len(double.rows) == 1


def test_a_field_that_another_writer_makes_at_the_same_moment_is_refused(
    double: CrateDouble, store: CrateStore
) -> None:
    def other_writer(request: dict[str, Any]) -> None:
        if request["stmt"].startswith("INSERT"):
            double.fields.setdefault("soil", "text")

    double.respond(other_writer)
    [refusal] = store.write(rows(Reading({"soil": 5.5}), Reading(latitude=2.0)))
    assert (refusal.row, refusal.transient) == (0, False)


def test_a_field_of_a_type_that_is_none_of_ours_is_refused(
    double: CrateDouble, store: CrateStore
) -> None:
    double.fields["count"] = "bigint"
    [refusal] = store.write(rows(Reading({"count": 5.5})))
    assert "bigint" in refusal.error
    assert "count" not in store.field_types()


def test_keys_are_looked_up_by_times_or_by_cells_whichever_are_fewer(
    double: CrateDouble, store: CrateStore
) -> None:
    series = [
        Reading({"u10": float(n)}, time_ms=NOON_MS + n * 3_600_000, offset=n) for n in range(300)
    ]
    scattered = [replace(reading, latitude=n / 100) for n, reading in enumerate(series)]
    store.write(rows(*series, *scattered))
    double.asked.clear()
    for chosen, statements in ((series, 1), (scattered, 3)):
        found = store.find(rows(*reversed(chosen)))
        assert list(found.offset) == list(reversed(range(300)))
        asked = [q for q in double.asked if q["stmt"].startswith("SELECT dataset")]
        assert len(asked) == statements
        double.asked.clear()


# ------------------------------------------------------------------------------ the client


def test_the_store_imports_nothing_heavier_than_orjson() -> None:
    code = (
        "import sys, climatestream.stores.crate; "
        "heavy = {'numpy', 'polars', 'duckdb', 'pyarrow', 'urllib3', 'requests', 'pydantic'}; "
        "sys.exit(', '.join(heavy & set(sys.modules)) or None)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ})


def test_a_connection_serves_many_statements(double: CrateDouble, store: CrateStore) -> None:
    for n in range(5):
        store.write(rows(Reading(latitude=float(n))))
    assert double.connections == 1


def test_a_connection_that_has_been_idle_is_not_used_again(
    double: CrateDouble, store: CrateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crate_http, "_IDLE_S", 0.0)
    store.write(rows(Reading()))
    store.write(rows(Reading(latitude=2.0)))
    assert double.connections >= 3


def _raw_server(content: bytes, status: int = 200, length: int | None = None) -> Any:
    """A server that always gives this answer, and closes the connection after it."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Length", str(len(content) if length is None else length))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    return server


@pytest.fixture
def served() -> Iterator[Callable[..., Address]]:
    servers = []

    def serve(*arguments: Any, **named: Any) -> Address:
        servers.append(_raw_server(*arguments, **named))
        return Address("127.0.0.1", servers[-1].server_address[1], timeout_s=5.0)

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def test_an_answer_that_breaks_off_is_no_answer(served: Callable[..., Address]) -> None:
    with pytest.raises(StoreUnavailable, match="no whole answer"):
        CrateStore(served(b'{"rows": [', length=100)).open()


def test_a_server_that_is_no_cratedb_is_an_error_that_says_so(
    served: Callable[..., Address],
) -> None:
    with pytest.raises(StoreError, match="is it CrateDB's HTTP endpoint"):
        CrateStore(served(b"<html>hello</html>")).open()


def test_a_server_that_is_away_is_unavailable(served: Callable[..., Address]) -> None:
    address = served(b"")
    with pytest.raises(StoreUnavailable, match="is not reached"):
        CrateStore(replace(address, port=1)).open()


def test_a_server_without_our_tables_names_the_command_that_makes_them(
    served: Callable[..., Address],
) -> None:
    address = served(b'{"cols":[],"col_types":[],"rows":[],"rowcount":0}')
    with pytest.raises(StoreError, match="climatestream store init --store") as caught:
        CrateStore(address).open()
    assert f"crate://crate@127.0.0.1:{address.port}/demo" in str(caught.value)


def test_a_server_that_does_not_speak_tls_is_an_error_that_says_so(double: CrateDouble) -> None:
    with pytest.raises(StoreError, match="leave ssl=true away"):
        CrateStore(replace(double.address, ssl=True)).open()


@pytest.fixture
def authority() -> Any:
    """Makes certificates."""
    return pytest.importorskip("trustme", reason="trustme makes the certificates").CA()


@pytest.fixture
def over_tls(authority: Any) -> Iterator[CrateDouble]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with CrateDouble().serving(context) as served:
        yield served


def test_a_server_is_believed_whose_certificate_the_named_issuer_made(
    over_tls: CrateDouble, authority: Any, tmp_path: Path
) -> None:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    address = replace(over_tls.address, host="localhost", ssl=True, ca_file=tmp_path / "ca.pem")
    with CrateStore(address) as store:
        assert store.write(rows(*readings(3))) == []
    assert len(over_tls.rows) == 3
    with pytest.raises(StoreError, match="is not trusted"):  # the name of another server
        CrateStore(replace(address, host="127.0.0.1")).open()


def test_a_server_whose_certificate_is_not_trusted_is_told_nothing(over_tls: CrateDouble) -> None:
    address = replace(over_tls.address, host="localhost", ssl=True)
    with pytest.raises(StoreError, match=r"is not trusted.*ca_file=FILE"):
        CrateStore(address).open()
    assert over_tls.authorizations == []


def test_a_certificate_file_that_is_not_there_is_an_error(
    double: CrateDouble, tmp_path: Path
) -> None:
    with pytest.raises(StoreError, match="nowhere"):
        CrateStore(replace(double.address, ssl=True, ca_file=tmp_path / "nowhere")).open()


def test_a_store_that_is_closed_says_so(double: CrateDouble) -> None:
    closed = CrateStore(double.address)
    with pytest.raises(StoreError, match="open the store first"):
        closed.write(rows(Reading()))
    with closed:
        pass
    with pytest.raises(StoreError, match="open the store first"):
        closed.write(rows(Reading()))


def test_a_connection_that_was_idle_for_long_by_the_wall_clock_is_not_used_again(
    double: CrateDouble, store: CrateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frozen process's other clocks stand still, and what lies between forgets connections."""
    now = time.time()
    assert double.connections == 1
    for later, connections in ((29, 1), (29 + 31, 2)):
        monkeypatch.setattr(time, "time", lambda later=later: now + later)
        store.field_types()
        assert double.connections == connections


def test_what_is_not_answered_by_a_moment_is_unavailable(
    double: CrateDouble, store: CrateStore
) -> None:
    """However long the store's own timeout is."""
    answered = threading.Event()

    def hang(_: Request) -> None:
        answered.wait(10)

    double.respond(hang, times=1)
    store.answer_by(time.monotonic() + 0.2)
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="did not answer in time"):
            store.field_types()
    answered.set()
    store.answer_by(None)
    assert "temperature" in store.field_types()


# ---------------------------------------------------------------------------- the password


def _basic(user: str, password: str) -> str:
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


def test_the_password_comes_from_the_environment(
    double: CrateDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PASSWORD_ENVIRONMENT, "gehéim")
    with CrateStore(replace(double.address, user="writer")):
        assert double.authorizations == [_basic("writer", "gehéim")] * len(double.authorizations)


def test_a_password_that_was_renewed_is_read_again(double: CrateDouble, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("old\n")
    with CrateStore(replace(double.address, password_file=file)) as store:
        file.write_text("new\n")
        double.script(BY_NAME["a wrong password"])
        assert store.write(rows(Reading())) == []
    assert double.authorizations[0] == _basic("crate", "old")
    assert double.authorizations[-1] == _basic("crate", "new")


def test_a_password_that_held_and_does_no_more_is_transient(
    double: CrateDouble, store: CrateStore
) -> None:
    double.script(BY_NAME["a wrong password"])
    with pytest.raises(StoreUnavailable, match="no longer takes the password"):
        store.write(rows(Reading()))
    assert store.write(rows(Reading())) == []


def test_a_wrong_password_at_the_start_is_an_error(double: CrateDouble) -> None:
    double.script(BY_NAME["a wrong password"], statement="SELECT")
    with pytest.raises(StoreError, match="password authentication failed"):
        CrateStore(double.address).open()


def test_a_password_file_that_is_not_there_is_wrong_usage(
    double: CrateDouble, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="nowhere"):
        CrateStore(replace(double.address, password_file=tmp_path / "nowhere")).open()


# ----------------------------------------------------------------------------- its name


def test_a_store_is_named_by_a_url() -> None:
    spec = (
        "crate://writer@db.example:4201/weather?ssl=true&ca_file=ca.pem&password_file=p&timeout=9"
    )
    store = open_store(spec)
    assert isinstance(store, CrateStore)
    assert store.address == Address(
        "db.example", 4201, "writer", "weather", True, Path("ca.pem"), Path("p"), 9.0
    )
    assert str(store.address) == "crate://writer@db.example:4201/weather"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("crate://localhost", Address("localhost", 4200, "crate", "demo")),
        ("crate://[::1]:4201/", Address("::1", 4201)),
        ("crate://a%40b@h/demo", Address("h", user="a@b")),
    ],
)
def test_what_a_url_leaves_out_is_cratedbs_own(spec: str, expected: Address) -> None:
    assert parse(spec) == expected
    assert parse(str(expected)) == expected


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("crate://u:secret@h/demo", PASSWORD_ENVIRONMENT),
        ("crate://h/demo?sssl=true", "did you mean 'ssl'"),
        ("crate://h/demo?pasword_file=x", "did you mean 'password_file'"),
        ("crate://h/demo?zzz=x", "expected one of ssl, ca_file"),
        ("crate://h/demo?ssl=yes", "expected true or false"),
        ("crate://h/demo?timeout=soon", "expected seconds"),
        ("crate://h/demo?timeout=0", "expected seconds"),
        ("crate://h:port/demo", "Port"),
        ("crate://", "expected crate://user@host:port/schema"),
        ("crate:demo", "expected crate://user@host:port/schema"),
        ("crate://h/demo/more", "expected crate://user@host:port/schema"),
        ("mysql://h/demo", "crate://user@host:port/schema"),
    ],
)
def test_a_url_that_is_wrong_says_what_was_expected(spec: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        open_store(spec)
    assert "secret" not in str(caught.value)


# ------------------------------------------------------------------------------- queries


@pytest.mark.parametrize(
    "sql",
    [
        "select 1",
        "  -- a word\n/* more */ WITH a AS (SELECT 1) SELECT * FROM a",
        "EXPLAIN ANALYZE SELECT 1",
        "EXPLAIN (COSTS FALSE) SELECT 1",
        "SHOW TABLES",
        "VALUES (1)",
    ],
)
def test_statements_that_read_are_sent(double: CrateDouble, store: CrateStore, sql: str) -> None:
    double.script(BY_NAME["no column"], statement=sql)
    with pytest.raises(StoreError, match="the query can't be answered"):
        store.query(sql)
    assert double.asked[-1]["stmt"] == sql


@pytest.mark.parametrize(
    "sql",
    [
        "",
        "DELETE FROM demo.climate_data",
        "/* SELECT */ DROP TABLE demo.climate_data",
        "EXPLAIN ANALYZE DELETE FROM demo.climate_data",
        "SELECTED",
        "COPY demo.climate_data TO DIRECTORY '/tmp'",
        "KILL ALL",
        "SET GLOBAL a = 1",
        "-- SELECT\nREFRESH TABLE demo.climate_data",
    ],
)
def test_statements_that_do_more_than_read_are_not_sent(
    double: CrateDouble, store: CrateStore, sql: str
) -> None:
    asked = len(double.asked)
    with pytest.raises(StoreError, match="queries only read"):
        store.query(sql)
    assert len(double.asked) == asked


def test_the_schema_of_a_query_is_the_stores_own() -> None:
    sql = """SELECT demo.climate_data.cell, 'demo.x', "demo".places.name, data['demo.y'], x.demo.z
        FROM demo.climate_data"""
    assert _in_schema(sql, "Weather") == (
        """SELECT "Weather".climate_data.cell, 'demo.x', "Weather".places.name, data['demo.y'], """
        """x.demo.z
        FROM "Weather".climate_data"""
    )
    assert _in_schema(sql, SCHEMA) == sql


def test_values_of_an_answer_are_plain_pythons(double: CrateDouble, store: CrateStore) -> None:
    """As recorded (A.4, `?types`): times in ms, points as lists, NaN as text, arrays by element."""
    noon = datetime(2025, 8, 10, 12, tzinfo=UTC)
    content = {
        "cols": ["t", "g", "d", "o", "a", "n", "i", "nothing"],
        "col_types": [11, 13, 6, 12, [100, 11], 22, 10, 11],
        "rows": [
            [NOON_MS, [10.0, 50.0], "NaN", {"a": 1.5, "b": None}, [NOON_MS, None], "1.5", 7, None]
        ],
        "rowcount": 1,
    }
    double.respond(lambda _: (200, orjson.dumps(content)))
    [row] = store.query("SELECT 1").rows
    assert row[2] != row[2]
    assert (*row[:2], *row[3:]) == (
        *(noon, (10.0, 50.0)),
        *({"a": 1.5}, [noon, None], 1.5, 7, None),
    )


def test_a_dead_letter_that_is_not_taken_now_is_tried_again_and_one_never_taken_stops_the_run(
    double: CrateDouble, store: CrateStore
) -> None:
    letter = DeadLetter("climate", 0, 7, NOON_MS, b"k", b"v", (), "empty", "why")
    for name, error in (
        ("the disk is full", StoreUnavailable),
        ("blocked for writing", StoreUnavailable),
        ("a text of 40,000 letters", StoreError),
    ):
        answer = BY_NAME[name]
        whole = (answer.status, answer.content)
        double.respond(
            lambda _, answer=answer, whole=whole: (  # type: ignore[misc]
                whole if answer.scope == "request" else (200, _results([answer.result]))
            )
        )
        with pytest.raises(error):
            store.bury([letter])


def _results(results: list[Any]) -> bytes:
    return orjson.dumps({"cols": [], "duration": 1.0, "results": results})


def test_letters_of_many_megabytes_are_sent_in_parts(
    double: CrateDouble, store: CrateStore
) -> None:
    sizes = []

    def kept(request: dict[str, Any]) -> tuple[int, bytes]:
        sizes.append(len(request["bulk_args"]))
        return 200, _results([{"rowcount": 1}] * sizes[-1])

    double.respond(kept, 99)
    letters = [
        DeadLetter("climate", 0, n, NOON_MS, None, b"x" * 1_000_000, (), "empty", "why")
        for n in range(20)
    ]
    store.bury(letters)
    assert sum(sizes) == 20
    assert max(sizes) <= 12

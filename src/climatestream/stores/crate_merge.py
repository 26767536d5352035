"""The merge of rows into CrateDB's table of readings, by rank.

The rules are the design's: a message of higher rank than its row overrides the fields that it
names and gives the row its rank; one of equal or lower rank fills what is absent; rows with one
key are applied one after the other.

What each statement costs decides the order of the steps (seen, server's CPU a row): to look a key
up 5 us, to insert a new row 45 us, to find by INSERT that it exists 20 us, to merge 170 us. So
rows are inserted first, DO NOTHING where they exist; those are looked up, and only those that
bring something are merged. While most rows exist, as in a replay, the look-up comes first.
"""

# ruff: noqa: S608 - SQL is put together of our own tables' names and of quoted() names

from __future__ import annotations

import itertools
import operator
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from climatestream.errors import StoreUnavailable
from climatestream.ports import Refusal
from climatestream.stores.crate_errors import (
    LATER,
    RequestRefused,
    Verdict,
    classify,
    words,
)
from climatestream.stores.crate_http import CrateHttp, body
from climatestream.stores.crate_lookup import Key, LookUp
from climatestream.stores.crate_tables import primary_key, table_name
from climatestream.stores.schema import READINGS, quoted

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from climatestream.model import Rank, Rows

Parameters: TypeAlias = tuple[Any, ...]
"""A row as the statements take it: the columns of `_WRITTEN`."""

REQUEST_ROWS: Final = 5_000
"""Rows of a request at most. Fewer cost the server more a row, more only take longer: at 5,000 an
answer comes within a few tenths of a second."""
REQUEST_BYTES: Final = 16 << 20
"""Bytes of a request at most; the server takes 100 MB and needs several times that in memory."""
IN_FLIGHT: Final = 2
"""Requests under way at once: one is made and sent while the server works on another."""

_FEWEST_ROWS: Final = 100
_FEW: Final = 50
"""Rows that are merged without being looked up: a refresh and a look-up would cost more."""
_TEXTS: Final = 10
"""Failed rows of one answer that CrateDB gives a reason for; from the next on only `-2`."""

_RANK: Final = ("preliminary", "published_at", "source", '"offset"')
_WRITTEN: Final = (
    *("dataset", "cell", "country", '"timestamp"', "geo_location", "data"),
    *_RANK,
)
DATA: Final = _WRITTEN.index("data")
_COUNTRY: Final = _WRITTEN.index("country")
_RANK_FROM: Final = len(_WRITTEN) - len(_RANK)
_COORDINATES: Final = ("latitude", "longitude")

# (final, published_at, offset, source) of the message, compared in this order with the row's.
_NEWER: Final = """CASE WHEN excluded.preliminary <> preliminary THEN preliminary
    WHEN excluded.published_at <> published_at THEN excluded.published_at > published_at
    WHEN excluded."offset" <> "offset" THEN excluded."offset" > "offset"
    ELSE excluded.source > source END"""


# ---------------------------------------------------------------------------------- rows


def listed(column: Any) -> list[Any]:
    """A column in any of its forms as a plain list."""
    if isinstance(column, list):
        return column
    return list(column.tolist() if hasattr(column, "tolist") else column.to_list())


def keys_of(rows: Rows) -> list[Key]:
    """The keys of rows, in their order."""
    return list(zip(listed(rows.dataset), listed(rows.cell), listed(rows.time_ms), strict=True))


def parameters(rows: Rows) -> list[Parameters]:
    """Rows as the statements take them: what is missing is left out of the object."""
    latitude, longitude = listed(rows.latitude), listed(rows.longitude)
    columns = [_values(column, rows.types[name]) for name, column in rows.data.items()]
    names = [*rows.data, *_COORDINATES]
    each = zip(*columns, latitude, longitude, strict=True)
    objects = (
        [dict(zip(names, values, strict=True)) for values in each]
        if all(map(_is_whole, columns))
        else [
            {
                name: value
                for name, value in zip(names, values, strict=True)
                if value is not None and value == value  # NaN is not itself  # noqa: PLR0124
            }
            for values in each
        ]
    )
    return list(
        zip(
            listed(rows.dataset),
            listed(rows.cell),
            listed(rows.country),
            listed(rows.time_ms),
            zip(longitude, latitude, strict=True),
            objects,
            listed(rows.preliminary),
            listed(rows.published_at_ms),
            listed(rows.source),
            listed(rows.offset),
            strict=True,
        )
    )


def _is_whole(column: list[Any]) -> bool:
    """Whether no value is missing, as None or NaN."""
    return None not in column and all(map(operator.eq, column, column))


def _values(column: Any, kind: str) -> list[Any]:
    """A field's values; a number always as a float: an integer would cut all that follow it."""
    values = listed(column)
    if kind == "number" and isinstance(column, list):
        return [None if value is None else float(value) for value in values]
    return values


def _rank(row: Parameters) -> Rank:
    preliminary, published_at_ms, source, offset = row[_RANK_FROM:]
    return not preliminary, published_at_ms, offset, source


# --------------------------------------------------------------------------------- merge


class Merge:
    """Brings rows into the table.

    Parameters
    ----------
    http
        Open.
    schema
        Where the table is.
    fields
        Gives the fields that the table has now.
    """

    def __init__(self, http: CrateHttp, schema: str, fields: Callable[[], Collection[str]]) -> None:
        self._http = http
        self._look_up = LookUp(http, schema)
        self._insert, self._upsert = _statements(table_name(schema, READINGS))
        self._fields = fields
        self._request_rows = REQUEST_ROWS
        self._mostly_known = False
        self._guard = threading.Lock()
        self._threads: ThreadPoolExecutor | None = None

    def close(self) -> None:
        """End the threads that send."""
        with self._guard:
            threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown()

    def __call__(
        self, rows: Mapping[int, Parameters], keys: Sequence[Key], fields: Collection[str]
    ) -> dict[int, Refusal]:
        """Merge rows, given by their place in the call; those not stored, by their place.

        Rows with different keys are sent at once; where a key comes again, after its first row,
        in order.

        Parameters
        ----------
        fields
            Those that the table has; it may have got more since.
        """
        call = _Call(rows, keys, frozenset(fields))
        firsts, repeats = _repeats(rows, keys)
        self._at_once(lambda part: self._merge(call, part), self._cut(firsts))
        for part in self._cut(repeats):
            held = {keys[row] for row, refusal in call.refused.items() if refusal.transient}
            late = [row for row in part if keys[row] in held]
            self._apply(call, [row for row in part if keys[row] not in held])
            for row in late:
                # Stored now, it would come before the row of its key that is to be sent again.
                call.refuse(row, True, "a row of the same key before it is not stored yet")
        return call.refused

    # ------------------------------------------------------------------------- the steps

    def _merge(self, call: _Call, part: list[int]) -> None:
        """Merge rows with different keys."""
        known = 0
        bringing: list[int] = []
        inserted = part
        if self._mostly_known:
            inserted, bringing = self._sorted_out(call, part)
            known = len(part) - len(inserted)
        existing = self._send(call, self._insert, inserted)
        self._mostly_known = 2 * (known + len(existing)) > len(part)
        if len(existing) > _FEW:
            self._look_up.refresh()
            absent, bringing_too = self._sorted_out(call, existing)
            existing = absent + bringing_too
        self._apply(call, bringing + existing)

    def _apply(self, call: _Call, part: list[int]) -> None:
        """Merge rows into those that are there, in order.

        Of rows of one request that give rows which exist a field that the table lacks, CrateDB
        6.4.3 stores the first and answers 1 for all: the others lose the field, or all of `data`.
        So a row with such a field goes alone; then the table has it.
        """
        ready: list[int] = []
        for row in part:
            if call.rows[row][DATA].keys() <= call.fields:
                ready.append(row)
                continue
            self._send(call, self._upsert, ready)
            self._send(call, self._upsert, [row])
            ready = []
            if row not in call.refused:
                call.fields = frozenset(self._fields())
        self._send(call, self._upsert, ready)

    def _sorted_out(self, call: _Call, part: list[int]) -> tuple[list[int], list[int]]:
        """Of these rows, those that have none in the table, and those that bring theirs something.

        What is not visible yet counts as absent; what is seen may be older than what is there.
        Neither does harm: the rank of a row never falls, and a field once there stays.
        """
        named = {name for row in part for name in call.rows[row][DATA]}
        names = sorted(named & call.fields)
        present = [f"{field_of(name)} IS NOT NULL" for name in names]
        found = self._look_up(
            [call.keys[row] for row in part],
            [*_RANK, "country IS NOT NULL", *present],
        )
        unknown = named - call.fields
        absent, bringing = [], []
        for row in part:
            stored = found.get(call.keys[row])
            if stored is None:
                absent.append(row)
                continue
            preliminary, published_at_ms, source, offset, has_country, *has = stored
            mine = call.rows[row]
            lacking = unknown
            if not all(has):
                lacking = unknown.union(itertools.compress(names, map(operator.not_, has)))
            if (
                _rank(mine) > (not preliminary, published_at_ms, offset, source)
                or (mine[_COUNTRY] is not None and not has_country)
                or (lacking and not lacking.isdisjoint(mine[DATA]))
            ):
                bringing.append(row)
        return absent, bringing

    # --------------------------------------------------------------------------- sending

    def _cut(self, rows: Sequence[int]) -> Iterator[list[int]]:
        """Requests' worths of rows; how many that is may change on the way."""
        start = 0
        while start < len(rows):
            stop = start + self._request_rows
            yield list(rows[start:stop])
            start = stop

    def _at_once(self, do: Callable[[list[int]], None], parts: Iterator[list[int]]) -> None:
        """Do it for every part, several at once; raise the first error after the last has ended."""
        work = list(parts)
        if len(work) < 2:
            for part in work:
                do(part)
            return
        from concurrent.futures import ThreadPoolExecutor, wait  # a Lambda's batch is one part

        with self._guard:
            threads = self._threads = self._threads or ThreadPoolExecutor(
                IN_FLIGHT, thread_name_prefix="crate"
            )
        futures = [threads.submit(do, part) for part in work]
        wait(futures)
        for future in futures:
            future.result()

    def _send(self, call: _Call, statement: str, part: list[int]) -> list[int]:
        """Run a statement for rows; those that it left as they were (`rowcount` 0)."""
        if not part:
            return []
        request = body(statement, bulk=[call.rows[row] for row in part])
        if len(request) > REQUEST_BYTES and len(part) > 1:
            return self._halves(call, statement, part)
        try:
            results = self._http.send(request)["results"]
        except StoreUnavailable:
            self._slower(len(part))
            raise
        except RequestRefused as error:
            if error.verdict not in (Verdict.TOO_LARGE, Verdict.REFUSED):
                raise
            if error.verdict is Verdict.TOO_LARGE:
                self._slower(len(part))
            if len(part) > 1:
                return self._halves(call, statement, part)
            call.refuse(part[0], False, str(error))
            return []
        if len(results) != len(part):
            raise RequestRefused(
                f"{self._http.address} answers for {len(results)} rows of {len(part)}: what became "
                "of the others is not known",
                Verdict.UNKNOWN,
            )
        return self._read(call, statement, part, results)

    def _halves(self, call: _Call, statement: str, part: list[int]) -> list[int]:
        middle = len(part) // 2
        first = self._send(call, statement, part[:middle])
        return first + self._send(call, statement, part[middle:])

    def _read(
        self, call: _Call, statement: str, part: list[int], results: Sequence[Mapping[str, Any]]
    ) -> list[int]:
        """Note every row that failed; those that the statement left as they were."""
        unchanged = []
        failed: list[int] = []
        texts: dict[int, str] = {}
        verdicts: set[Verdict] = set()
        said = ""
        for row, result in zip(part, results, strict=True):
            if result["rowcount"] == 0:
                unchanged.append(row)
            elif result["rowcount"] < 0 and "error" not in result:
                failed.append(row)
            elif result["rowcount"] < 0:
                verdict, said = self._judged(result["error"])
                verdicts.add(verdict)
                if verdict in LATER:
                    call.refuse(row, True, said)
                else:
                    failed.append(row)
                    texts[row] = said
        if Verdict.OVERLOADED in verdicts:
            self._slower(len(part))
        else:
            self._faster(len(part))
        if verdicts and verdicts <= set(LATER):
            # Whatever ails these, the same rows may be taken later: nothing is learnt by asking.
            for row in failed:
                call.refuse(row, True, said)
        elif not self._confirmed(call, statement, part, failed, texts):
            return self._halves(call, statement, part)
        return unchanged

    def _judged(self, error: Mapping[str, Any]) -> tuple[Verdict, str]:
        """What a row's error means, and its words."""
        said = words(error["message"])
        verdict = classify("row", error["code"], error["message"])
        if verdict is Verdict.UNKNOWN:
            raise RequestRefused(
                f"{self._http.address} refuses a row for a reason that is not known: "
                f"{error['code']} {said}",
                verdict,
            )
        return verdict, said

    def _confirmed(
        self,
        call: _Call,
        statement: str,
        part: list[int],
        failed: list[int],
        texts: Mapping[int, str],
    ) -> bool:
        """Refuse the rows that are said to have failed, with their texts; whether it was them.

        How many rows failed is believed, which ones is not: where its statement makes the
        table's partition, CrateDB 6.4.3 may name others of the request (seen: ten rows, each 620
        too far). Where all of a request failed there is no doubt; else those named are sent again
        by themselves, which also tells the reason of those that have none.
        """
        if len(texts) == len(part):
            for row, text in texts.items():
                call.refuse(row, False, text)
            return True
        for start in range(0, len(failed), _TEXTS):
            self._send(call, statement, failed[start : start + _TEXTS])
        return all(row in call.refused for row in failed)

    def _slower(self, rows: int) -> None:
        """A request of so many rows was too much: half of it is the most for a while."""
        self._request_rows = max(_FEWEST_ROWS, min(self._request_rows, rows // 2))

    def _faster(self, rows: int) -> None:
        """One of so many was not; only one as large as may be says that more may be."""
        if rows >= self._request_rows:
            self._request_rows = min(REQUEST_ROWS, self._request_rows * 3 // 2)


@dataclass
class _Call:
    """The rows of one call by their places, and what became of those that were not stored."""

    rows: Mapping[int, Parameters]
    keys: Sequence[Key]
    fields: frozenset[str]
    refused: dict[int, Refusal] = field(default_factory=dict)

    def refuse(self, row: int, transient: bool, error: str) -> None:
        self.refused[row] = Refusal(row, transient, error)


def field_of(name: str) -> str:
    """A field of `data` as SQL."""
    escaped = name.replace("'", "''")
    return f"data['{escaped}']"


def _repeats(rows: Mapping[int, Parameters], keys: Sequence[Key]) -> tuple[list[int], list[int]]:
    """The first row of each key, and the others, both in order."""
    seen: set[Key] = set()
    firsts, repeats = [], []
    for row in rows:
        if keys[row] in seen:
            repeats.append(row)
        else:
            seen.add(keys[row])
            firsts.append(row)
    return firsts, repeats


def _statements(table: str) -> tuple[str, str]:
    """To insert what is new, and to merge."""
    columns = ", ".join(_WRITTEN)
    insert = f"INSERT INTO {table} ({columns}) VALUES ({', '.join('?' * len(_WRITTEN))})"
    chosen = {
        "data": ("data || excluded.data", "excluded.data || data"),
        "country": ("coalesce(excluded.country, country)", "coalesce(country, excluded.country)"),
        "stored_at": ("now()", "stored_at"),
    }
    for name in ("geo_location", "preliminary", "published_at", "source", "offset"):
        chosen[name] = (f"excluded.{quoted(name)}", quoted(name))
    sets = ", ".join(
        f"{quoted(name)} = CASE WHEN {_NEWER} THEN {mine} ELSE {theirs} END"
        for name, (mine, theirs) in chosen.items()
    )
    target = ", ".join(map(quoted, primary_key(READINGS)))
    return (
        f"{insert} ON CONFLICT DO NOTHING",
        f"{insert} ON CONFLICT ({target}) DO UPDATE SET {sets}",
    )

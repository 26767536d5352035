"""The wire format: exact, columnar, and the same in both forms."""

from __future__ import annotations

import json
import math
import struct
import subprocess
import sys
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from climatestream import codec, fastcodec
from climatestream.codec import Decoded
from climatestream.errors import SourceError
from climatestream.model import Batch, Cells, FieldType, Messages, cell_id

NS = 1_756_684_800_000_000_000
GOOD: dict[str, Any] = {
    "timestamp": NS,
    "temperature": 295.6215515136719,
    "latitude": 40.90000000000115,
    "longitude": 31.100000000000172,
}


def messages(values: list[bytes | None], *, partition: int = 0) -> Messages:
    n = len(values)
    return Messages("t", partition, range(n), [7] * n, [None] * n, values, [()] * n)


def plain(decoded: Decoded) -> dict[str, Any]:
    """Rows and dead letters as plain values that compare: NaN as 'nan', floats by their bits."""
    rows = decoded.rows

    def values(column: Any) -> list[Any]:
        listed = (
            column
            if isinstance(column, list)
            else column.to_list()
            if hasattr(column, "to_list")
            else column.tolist()
        )
        return [
            ("bits", struct.pack("<d", v) if not math.isnan(v) else "nan")
            if isinstance(v, float)
            else v
            for v in listed
        ]

    return {
        "rows": {
            name: values(getattr(rows, name))
            for name in (
                "dataset",
                "cell",
                "country",
                "time_ms",
                "latitude",
                "longitude",
                "preliminary",
                "published_at_ms",
                "source",
                "offset",
            )
        },
        "data": {name: values(column) for name, column in sorted(rows.data.items())},
        "types": dict(sorted(rows.types.items())),
        "dead": sorted(decoded.dead, key=lambda letter: (letter.partition, letter.offset)),
    }


def both(values: list[bytes | None], types: dict[str, FieldType] | None = None) -> dict[str, Any]:
    """What both forms make of messages, having checked that it is the same."""
    slow_types, fast_types = dict(types or {}), dict(types or {})
    cut = len(values) // 3
    blocks = [messages(values[:cut]), messages(values[cut:], partition=1)]
    slow = plain(codec.decode(blocks, "unstated", slow_types))
    fast = plain(fastcodec.decode(blocks, "unstated", fast_types))
    assert fast == slow
    assert fast_types == slow_types
    return slow


# ---------------------------------------------------------------------------- round trips

finite = st.floats(allow_nan=False, allow_infinity=False)
value = st.one_of(finite, st.just(math.nan), st.just(-0.0))


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    n = draw(st.integers(1, 12))
    names = draw(
        st.lists(
            st.sampled_from(["temperature", "u10", "pressure", "u100", "odd name", "Émile"]),
            min_size=1,
            unique=True,
        )
    )
    values = {
        name: np.array(draw(st.lists(value, min_size=n, max_size=n)), np.float64) for name in names
    }
    values[names[0]] = np.where(np.isnan(values[names[0]]), 1.5, values[names[0]])
    return Batch(
        dataset=draw(st.sampled_from(["era5-land/hourly", 'a "name", ', "ü"])),
        time_ns=draw(st.integers(codec.FIRST_NS, codec.END_NS - 1)),
        cells=Cells(
            np.array(draw(st.lists(st.floats(-90, 90), min_size=n, max_size=n)), np.float64),
            np.array(draw(st.lists(st.floats(-180, 360), min_size=n, max_size=n)), np.float64),
            draw(st.lists(st.sampled_from(["DEU", None]), min_size=n, max_size=n)),
        ),
        values=values,
        preliminary=draw(st.none() | st.just(np.arange(n) % 2 == 0)),
    )


@pytest.mark.parametrize("encode", [codec.encode, fastcodec.encode_columns])
@given(batch=batches())
def test_what_is_encoded_comes_back_bit_for_bit(encode: Any, batch: Batch) -> None:
    """decode(encode(batch)) is the batch, in the units of the store, in both forms."""
    rows = both(encode(batch))["rows"]
    documents = [orjson.loads(document) for document in encode(batch)]
    for row, document in enumerate(documents):
        assert document["timestamp"] == batch.time_ns
        for name, column in batch.values.items():
            if not math.isnan(column[row]):
                assert struct.pack("<d", document[name]) == struct.pack("<d", column[row])
            else:
                assert document[name] is None
    assert rows["dataset"] == [batch.dataset] * len(batch)
    assert rows["time_ms"] == [batch.time_ns // 1_000_000] * len(batch)
    assert rows["country"] == list(batch.cells.country)


@given(batch=batches())
def test_both_encoders_write_the_same_documents(batch: Batch) -> None:
    slow = [orjson.loads(document) for document in codec.encode(batch)]
    assert [orjson.loads(document) for document in fastcodec.encode_columns(batch)] == slow


def test_a_float32_is_widened_before_it_is_written() -> None:
    cells = Cells(np.array([50.0]), np.array([8.0]), ["DEU"])
    values = {"temperature": np.array([295.6215515136719], np.float32).astype(np.float64)}
    for encode in (codec.encode, fastcodec.encode_columns):
        (document,) = encode(Batch("x", NS, cells, values))
        assert b"295.6215515136719" in document


@pytest.mark.parametrize("rows", [1, fastcodec.FEW - 1, fastcodec.FEW])
def test_few_readings_are_written_as_many_are(rows: int) -> None:
    cells = Cells(np.linspace(47.0, 55.0, rows), np.linspace(6.0, 15.0, rows), ["DEU"] * rows)
    values = {"temperature": np.linspace(280.0, 290.0, rows), "u10": np.full(rows, math.nan)}
    batch = Batch("x", NS, cells, values, np.arange(rows) % 2 == 0, extra={"height": 2.0})
    assert fastcodec.encode(batch) == codec.encode(batch) == fastcodec.encode_columns(batch)


def test_an_infinite_value_is_refused_and_never_left_out() -> None:
    cells = Cells(np.array([50.0]), np.array([8.0]), ["DEU"])
    with pytest.raises(SourceError, match="temperature .* infinite at latitude 50.0"):
        fastcodec.encode(Batch("x", NS, cells, {"temperature": np.array([math.inf])}))


# ---------------------------------------------------------------------------------- cells


@given(latitude=st.floats(-90, 90), longitude=st.floats(-180, 360))
@example(latitude=-0.00004, longitude=-0.00004)
@example(latitude=0.00005, longitude=179.99995)
@example(latitude=12.700000000000001, longitude=360.0)
def test_the_id_of_a_cell_is_one_rule_in_both_forms(latitude: float, longitude: float) -> None:
    (bulk,) = fastcodec.cell_ids(np.array([latitude]), np.array([longitude])).to_list()
    assert bulk == cell_id(latitude, longitude)
    lat, lon = map(float, bulk.split(","))
    assert -90 <= lat <= 90
    assert -180 <= lon < 180
    assert "-0.0000" not in bulk


@pytest.mark.parametrize(
    ("latitude", "longitude", "cell"),
    [
        (54.903, 8.6883, "54.9030,8.6883"),
        (12.7, 12.700000000000001, "12.7000,12.7000"),
        (-0.00001, 359.99999, "0.0000,0.0000"),
        (10.0, 180.0, "10.0000,-180.0000"),
        (10.0, 179.99999, "10.0000,-180.0000"),
    ],
)
def test_a_cell_has_one_id_however_it_is_written(
    latitude: float, longitude: float, cell: str
) -> None:
    assert cell_id(latitude, longitude) == cell


# --------------------------------------------------------------------------- dead letters

POISON: list[tuple[str, bytes | None, str, str]] = [
    ("no value", None, "empty", "empty"),
    ("empty value", b"", "empty", "empty"),
    ("white space", b"  ", "not-json", "not JSON"),
    ("truncated", b'{"timestamp":17', "not-json", "not JSON"),
    ("two documents", orjson.dumps(GOOD) * 2, "not-json", "not JSON"),
    ("trailing comma", orjson.dumps(GOOD)[:-1] + b",}", "not-json", "not JSON"),
    ("invalid UTF-8", orjson.dumps(GOOD)[:-1] + b',"x":"\xff"}', "not-json", "not JSON"),
    ("NaN literal", json.dumps({**GOOD, "u10": math.nan}).encode(), "not-json", "not JSON"),
    ("infinite number", orjson.dumps(GOOD)[:-1] + b',"u10":1e400}', "not-json", "not JSON"),
    ("array", b"[1]", "not-an-object", "array"),
    ("null", b"null", "not-an-object", "null"),
    *(
        (
            f"no {name}",
            orjson.dumps({k: v for k, v in GOOD.items() if k != name}),
            "missing-field",
            name,
        )
        for name in ("timestamp", "latitude", "longitude")
    ),
    ("null latitude", orjson.dumps({**GOOD, "latitude": None}), "missing-field", "latitude"),
    ("only place", orjson.dumps({**GOOD, "temperature": None}), "no-value", "finite"),
    ("only text", orjson.dumps({**GOOD, "temperature": None, "x": "y"}), "no-value", "finite"),
    ("temperature as text", orjson.dumps({**GOOD, "temperature": "warm"}), "wrong-type", "warm"),
    ("numeric text", orjson.dumps({**GOOD, "temperature": "2.5"}), "wrong-type", "2.5"),
    ("boolean as number", orjson.dumps({**GOOD, "temperature": True}), "wrong-type", "boolean"),
    ("float timestamp", orjson.dumps({**GOOD, "timestamp": 1.5}), "wrong-type", "timestamp"),
    ("text timestamp", orjson.dumps({**GOOD, "timestamp": "2025"}), "wrong-type", "timestamp"),
    ("dataset a number", orjson.dumps({**GOOD, "dataset": 5}), "wrong-type", "dataset"),
    ("empty dataset", orjson.dumps({**GOOD, "dataset": ""}), "wrong-type", "dataset"),
    ("country a number", orjson.dumps({**GOOD, "country": 5}), "wrong-type", "country"),
    (
        "preliminary as text",
        orjson.dumps({**GOOD, "preliminary": "true"}),
        "wrong-type",
        "preliminary",
    ),
    ("latitude 95.2", orjson.dumps({**GOOD, "latitude": 95.2}), "out-of-range", "-90..90"),
    ("longitude -181", orjson.dumps({**GOOD, "longitude": -181}), "out-of-range", "-180..360"),
    ("seconds", orjson.dumps({**GOOD, "timestamp": -3 * 10**18}), "out-of-range", "1900..2200"),
    (
        "year 2201",
        orjson.dumps({**GOOD, "timestamp": 7_289_654_400_000_000_000}),
        "out-of-range",
        "1900..2200",
    ),
    ("object field", orjson.dumps({**GOOD, "x": {"a": 1}}), "wrong-type", "x"),
    ("array field", orjson.dumps({**GOOD, "x": [1]}), "wrong-type", "x"),
    ("dot in a name", orjson.dumps({**GOOD, "a.b": 1}), "bad-field-name", "a.b"),
    ("bracket in a name", orjson.dumps({**GOOD, "a[0]": 1}), "bad-field-name", "bracket"),
]


@pytest.mark.parametrize(
    ("poison", "reason", "word"), [case[1:] for case in POISON], ids=[case[0] for case in POISON]
)
def test_a_message_that_can_never_be_stored_is_a_dead_letter(
    poison: bytes | None, reason: str, word: str
) -> None:
    good = orjson.dumps(GOOD)
    decoded = both([good, poison, good, good])
    (letter,) = decoded["dead"]
    assert (letter.reason, letter.value) == (reason, poison)
    assert word in letter.error
    assert letter.error.startswith("t[1]@0: ")
    assert decoded["rows"]["offset"] == [0, 1, 2]


ACCEPTED: list[tuple[str, bytes, dict[str, Any]]] = [
    ("integers for floats", orjson.dumps({**GOOD, "u10": 5}), {"u10": 5.0}),
    ("the last of a duplicate key", orjson.dumps(GOOD)[:-1] + b',"u10":1,"u10":2}', {"u10": 2.0}),
    ("an escaped key", orjson.dumps(GOOD)[:-1] + rb',"u\u00310":2.5}', {"u10": 2.5}),
    ("a null unknown object", orjson.dumps({**GOOD, "a.b": None}), {}),
    ("an unknown number", orjson.dumps({**GOOD, "fsr": 0.7}), {"fsr": 0.7}),
    ("an unknown text", orjson.dumps({**GOOD, "note": "x\ty"}), {"note": "x\ty"}),
    ("an unknown boolean", orjson.dumps({**GOOD, "ok": False}), {"ok": False}),
    ("another case of a name", orjson.dumps({**GOOD, "U10": 2}), {"U10": 2.0}),
    ("spaces and newlines", json.dumps(GOOD, indent=2).encode(), {}),
    (
        "a very large integer",
        orjson.dumps(GOOD)[:-1] + b',"u10":123456789012345678901234}',
        {"u10": 123456789012345678901234.0},
    ),
]


@pytest.mark.parametrize(
    ("document", "data"), [case[1:] for case in ACCEPTED], ids=[case[0] for case in ACCEPTED]
)
def test_whatever_else_is_json_is_kept(document: bytes, data: dict[str, Any]) -> None:
    types: dict[str, FieldType] = {}
    decoded = codec.decode([messages([document])], "unstated", types)
    assert decoded.dead == []
    row = {name: column[0] for name, column in decoded.rows.data.items()}
    assert row == {"temperature": 295.6215515136719 - 273.15, **data}
    both([orjson.dumps(GOOD), document, document, orjson.dumps(GOOD)])


def test_the_first_type_of_an_unknown_field_holds() -> None:
    number, text = (orjson.dumps({**GOOD, "x": x}) for x in (1.5, "2.5"))
    decoded = both([number, text, number])
    assert [letter.offset for letter in decoded["dead"]] == [0]
    assert "expected a number" in decoded["dead"][0].error
    assert len(both([number, text, text], {"x": "text"})["dead"]) == 1


def test_a_dead_letter_gives_no_type() -> None:
    dead = orjson.dumps({**GOOD, "x": "text", "latitude": 95})
    assert both([dead, orjson.dumps({**GOOD, "x": 1}), dead])["types"]["x"] == "number"


def test_longitude_is_normalised_in_the_row_and_kept_in_the_message() -> None:
    decoded = both([orjson.dumps({**GOOD, "longitude": 359.9})])
    (bits,) = decoded["rows"]["longitude"]
    assert bits == ("bits", struct.pack("<d", 359.9 - 360))
    assert decoded["rows"]["cell"] == ["40.9000,-0.1000"]


@pytest.mark.parametrize("decode", [codec.decode, fastcodec.decode])
def test_a_message_published_again_has_the_rank_of_its_origin(decode: Any) -> None:
    origin = codec.Origin("t", 3, 17, 123, attempt=2)
    headers: list[Any] = [(), origin.headers(), (("origin", b"not ours"),)]
    good = orjson.dumps(GOOD)
    block = Messages("t", 0, range(3), [7] * 3, [None] * 3, [good] * 3, headers)
    rows = decode([block], "unstated", {}).rows
    assert list(rows.published_at_ms) == [7, 123, 7]
    assert list(rows.source) == ["t/0", "t/3", "t/0"]
    assert list(rows.offset) == [0, 17, 2]
    dead = Messages("t", 0, range(1), [7], [None], [b"x"], [origin.headers()])
    assert decode([dead], "unstated", {}).dead[0].attempt == 2


# ------------------------------------------------------------------------------- property

scalar = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=4),
    st.sampled_from(["2.5", "true", "NaN", "a,b", 'q"q', "\\"]),
    st.lists(st.integers(), max_size=1),
)
name = st.sampled_from(
    [
        "temperature",
        "u10",
        "x",
        "y",
        "X",
        "a.b",
        "dataset",
        "country",
        "preliminary",
        "timestamp",
        "latitude",
        "longitude",
        "",
        "odd name",
    ]
)
changes = st.dictionaries(name, scalar, max_size=3)
raw = st.sampled_from([case[1] for case in POISON] + [case[1] for case in ACCEPTED])
common = st.fixed_dictionaries(
    {"temperature": st.floats(200, 320), "x": st.floats(-5, 5)},
    optional={"preliminary": st.booleans(), "country": st.sampled_from(["DEU", "FRA", None])},
)
dumps = st.sampled_from([orjson.dumps, lambda d: json.dumps(d).encode()])
document = st.one_of(
    st.builds(lambda d, c: d({**GOOD, **c}), dumps, common),
    st.builds(lambda c: json.dumps({**GOOD, **c}).encode(), changes),
    raw,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(values=st.lists(document, max_size=24))
def test_both_decoders_give_the_same_rows_fields_and_dead_letters(
    values: list[bytes | None],
) -> None:
    both(values)


def test_the_message_path_and_ingest_need_nothing_heavier_than_orjson() -> None:
    """A fresh interpreter that imports both has loaded no heavy package."""
    heavy = ["numpy", "polars", "duckdb", "pandas", "xarray", "pyarrow", "shapely", "click", "rich"]
    code = (
        "import sys, climatestream.codec, climatestream.ingest;"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert loaded.stdout.strip() == b"[]"

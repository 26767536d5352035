"""Handing columns from Polars to DuckDB by the Arrow C stream interface, without pyarrow."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl


class ArrowStream:
    """A frame that shows nothing but its Arrow stream.

    DuckDB takes a Polars frame for what it is and wants pyarrow to read it; any other object
    with `__arrow_c_stream__` it reads by itself.
    """

    def __init__(self, frame: pl.DataFrame) -> None:
        self._frame = frame

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._frame.__arrow_c_stream__(requested_schema)

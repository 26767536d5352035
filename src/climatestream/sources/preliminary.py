"""Which values are preliminary where a source does not say so (`expver`): by their date."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

MONTHS: Final = 3
"""How long after its end a month of ERA5-Land is final at the latest [months]: preliminary values
(ERA5-Land-T) come about five days after, final ones two to three months.
https://confluence.ecmwf.int/display/CKB/ERA5-Land%3A+data+documentation"""


def final_before_ns(now_ns: int) -> int:
    """The time before which values are taken for final [ns]: the beginning of a month.

    Too early a time would be the worse mistake: a value taken for preliminary is replaced by the
    final one whenever that comes, one taken for final is not by a preliminary one.

    Parameters
    ----------
    now_ns
        The present.
    """
    now = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=now_ns // 1000)
    months = now.year * 12 + now.month - 1 - MONTHS
    first = datetime(months // 12, months % 12 + 1, 1, tzinfo=UTC)
    return (first - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000

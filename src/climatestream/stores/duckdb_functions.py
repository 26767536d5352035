r"""CrateDB's functions that panels use and DuckDB lacks, or means otherwise, as SQL macros.

They let the text of a panel's query that is sent to CrateDB run on DuckDB unchanged. What each
must do is CrateDB's own documentation:
https://cratedb.com/docs/crate/reference/en/latest/general/builtins/scalar-functions.html and
https://cratedb.com/docs/crate/reference/en/latest/general/builtins/aggregation.html

A macro is no aggregate function to DuckDB's parser: `FILTER`, `DISTINCT` and `OVER` can't follow
those that aggregate (`percentile`, `stddev`, `variance`, `arbitrary`, `hyperloglog_distinct`).
Say `percentile(CASE WHEN ... THEN x END, 0.5)`, which both engines understand.

The names of lambda parameters and of columns inside a macro begin with two underscores: the
caller's expressions are put into the macro's text, and a column of the caller's with the same
name would be taken for the macro's own.
"""

from __future__ import annotations

from typing import Final

EARTH_RADIUS_M: Final = 6_371_008.7714
"""Mean radius that Lucene measures distances with [m]; another one moves every distance.
https://github.com/apache/lucene/blob/main/lucene/core/src/java/org/apache/lucene/util/SloppyMath.java"""

_POINT: Final = r"^\s*POINT\s*\(\s*([^\s()]+)\s+([^\s()]+)\s*\)\s*$"
_NUMBER: Final = "[-+.0-9eE]+"
_POLYGON: Final = (
    rf"^\s*(MULTI)?POLYGON\s*\(\s*\([\s(]*{_NUMBER}\s+{_NUMBER}"
    rf"([\s)]*,[\s(]*{_NUMBER}\s+{_NUMBER})*\s*\)[\s)]*$"
)
_RING: Final = r"\(([^()]+)\)"

_GEO: Final = (
    # Of a point as [longitude, latitude] or as WKT has it. An overload for each type would not do:
    # DuckDB can't choose one for the untyped parameter of a macro that calls it.
    *(
        f"""
        {name}(point) AS CASE WHEN typeof(point) = 'VARCHAR' THEN
            CASE WHEN regexp_matches(point::VARCHAR, '{_POINT}', 'i')
                THEN regexp_extract(point::VARCHAR, '{_POINT}', {place}, 'i')::DOUBLE
                ELSE error('got "' || point::VARCHAR || '", expected POINT(longitude latitude)') END
            ELSE TRY_CAST(point[{place}] AS DOUBLE) END
        """
        for place, name in ((1, "longitude"), (2, "latitude"))
    ),
    # Haversine. That of no point would be the way to the other side: least() skips null.
    f"""
    distance(here, there) AS CASE WHEN here IS NOT NULL AND there IS NOT NULL THEN
        2 * {EARTH_RADIUS_M} * asin(sqrt(least(1.0,
            sin(radians(latitude(there) - latitude(here)) / 2) ** 2
            + cos(radians(latitude(here))) * cos(radians(latitude(there)))
            * sin(radians(longitude(there) - longitude(here)) / 2) ** 2))) END
    """,
    # The edges of all rings of a polygon, holes and further polygons included. Of a constant
    # text they are computed once a query; error() inside the lambda would make that once a row.
    f"""
    polygon_edges(wkt) AS flatten(list_transform(
        CASE WHEN regexp_matches(wkt, '{_POLYGON}', 'i')
            THEN regexp_extract_all(wkt, '{_RING}', 1)
            ELSE error('got "' || wkt || '", expected a shape as POLYGON((longitude latitude, '
                || '...)) or MULTIPOLYGON(((...)))') END,
        lambda __text: list_transform(
            list_zip(ring_points(__text)[:-2], ring_points(__text)[2:]),
            lambda __edge: {{
                __x: __edge[1].__x, __y: __edge[1].__y, __end: __edge[2].__y,
                __slope: (__edge[2].__x - __edge[1].__x) / (__edge[2].__y - __edge[1].__y)}})))
    """,
    # Even-odd rule, with straight edges in longitude and latitude, as Lucene's. The box comes
    # first so that DuckDB filters by it; the subquery is answered once for each different point.
    """
    within(point, shape) AS
        longitude(point) BETWEEN
            list_min(list_transform(polygon_edges(shape), lambda __e: __e.__x))
            AND list_max(list_transform(polygon_edges(shape), lambda __e: __e.__x))
        AND latitude(point) BETWEEN
            list_min(list_transform(polygon_edges(shape), lambda __e: __e.__y))
            AND list_max(list_transform(polygon_edges(shape), lambda __e: __e.__y))
        AND (SELECT CASE WHEN longitude(point) IS NOT NULL THEN count(*) % 2 = 1 END
             FROM (SELECT unnest(polygon_edges(shape), recursive := true)) AS __edges
             WHERE (__y > latitude(point)) <> (__end > latitude(point))
               AND longitude(point) < __x + (latitude(point) - __y) * __slope)
    """,
)

_RING_POINTS: Final = r"""
    ring_points(ring) AS list_transform(string_split(ring, ','), lambda __point: {
        __x: string_split_regex(trim(__point), '\s+')[1]::DOUBLE,
        __y: string_split_regex(trim(__point), '\s+')[2]::DOUBLE})
    """

_TIME: Final = (
    # Times in the tables are TIMESTAMP in UTC: buckets of TIMESTAMP WITH TIME ZONE are far slower.
    "now() AS transaction_timestamp() AT TIME ZONE 'UTC'",
    "get_current_timestamp() AS transaction_timestamp() AT TIME ZONE 'UTC'",
    """
    date_bin(width, instant, origin TIMESTAMP) AS time_bucket(width, instant, origin),
        (width, instant, origin BIGINT) AS time_bucket(width, instant, make_timestamp_ms(origin)),
        (width, instant, origin VARCHAR) AS time_bucket(width, instant, origin::TIMESTAMP)
    """,
    # MySQL's letters, as CrateDB has them, to those of strftime; %M is freed before %i takes it.
    """
    date_format(format, instant) AS strftime(instant, replace(replace(replace(replace(replace(
        replace(replace(format, '%M', '%B'), '%i', '%M'), '%s', '%S'), '%h', '%I'), '%W', '%A'),
        '%T', '%H:%M:%S'), '%e', '%-d')),
        (instant) AS strftime(instant, '%Y-%m-%dT%H:%M:%S.%fZ')
    """,
)

_AGGREGATES: Final = (
    "sorted_values(x) AS list_sort(list(x::DOUBLE) FILTER (x IS NOT NULL))",
    """
    fraction_place(fraction, count) AS CASE WHEN fraction BETWEEN 0 AND 1
        THEN least(floor(fraction * count), count - 1)::BIGINT + 1
        ELSE error('got the fraction ' || fraction || ', expected 0 to 1') END
    """,
    # CrateDB's t-digest, of up to 100 values exactly: the one at place floor(fraction * count).
    """
    percentile(x, fraction DOUBLE) AS sorted_values(x)[fraction_place(fraction, count(x))],
        (x, fractions DOUBLE[]) AS list_select(sorted_values(x),
            list_transform(fractions, lambda __f: fraction_place(__f, count(x))))
    """,
    # Of the whole population; DuckDB's own are of a sample.
    "stddev(x) AS stddev_pop(x)",
    "variance(x) AS var_pop(x)",
    "arbitrary(x) AS any_value(x)",
    "hyperloglog_distinct(x) AS approx_count_distinct(x)",
)

FUNCTIONS: Final = tuple(
    f"CREATE MACRO memory.main.{text.strip()}"
    for text in (_RING_POINTS, *_GEO, *_TIME, *_AGGREGATES)
)
"""Statements that define the macros in a connection's own memory; the file holds none of them."""

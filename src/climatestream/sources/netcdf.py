"""NetCDF files, classic (3) and HDF5 (4), by the CF conventions.

Values are read raw, through the netCDF4 library alone: docs/decisions/reading-files.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from climatestream.errors import SourceError
from climatestream.sources import times
from climatestream.sources.dataset_name import Evidence
from climatestream.sources.field import (
    UNSAID,
    Field,
    check_axis,
    mask,
    preliminary_of,
)
from climatestream.sources.netcdf3 import length_needed
from climatestream.sources.netcdf_values import Layout, Opened, VariableReader, fills_of, packing_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    import netCDF4
    from numpy.typing import NDArray

LATITUDE, LONGITUDE = "latitude", "longitude"
NAMES = {LATITUDE: {"latitude", "lat"}, LONGITUDE: {"longitude", "lon"}}
UNITS = {
    LATITUDE: {"degrees_north", "degree_north", "degree_n", "degrees_n", "degreen", "degreesn"},
    LONGITUDE: {"degrees_east", "degree_east", "degree_e", "degrees_e", "degreee", "degreese"},
}
"""CF conventions, sections 4.1 and 4.2."""


def read_fields(
    path: Path,
    label: str,
    names: tuple[str, ...],
    opened: Opened,
    wanted: Callable[[str], bool],
) -> list[Field]:
    """The variables of a file that lie on a latitude-longitude grid and have times.

    Parameters
    ----------
    path
        A local file.
    label, names
        What to call it in messages, and what may tell the dataset.
    opened
        Keeps it open.
    wanted
        Says of a variable's name whether it is asked for; others are left alone.

    Raises
    ------
    SourceError
        Damaged, or of a shape that is no reading for each cell and time.
    """
    _check_length(path, label)
    with opened.use(path, label) as dataset:
        return _File(dataset, path, label, names, opened).fields(wanted)


def format_of(path: Path, label: str, opened: Opened) -> str:
    """The format's name in the NetCDF library: NETCDF4, NETCDF3_64BIT_OFFSET, ..."""
    with opened.use(path, label) as dataset:
        return str(dataset.data_model)


def _check_length(path: Path, label: str) -> None:
    with path.open("rb") as file:
        if file.read(3) != b"CDF":
            return
        file.seek(0)
        try:
            needed = length_needed(file)
        except EOFError:
            raise SourceError(f"{label} is cut short within its header: get it again") from None
        except (ValueError, IndexError) as error:
            raise SourceError(f"{label} is damaged ({error}): get it again") from error
        found = file.seek(0, 2)
    if found < needed:
        raise SourceError(
            f"{label} is cut short: its header needs {needed:,} bytes, it has {found:,}; get it "
            "again"
        )


class _File:
    """An open file while its fields are made out."""

    def __init__(
        self,
        dataset: netCDF4.Dataset,
        path: Path,
        label: str,
        names: tuple[str, ...],
        opened: Opened,
    ) -> None:
        self._path = path
        self._label = label
        self._names = names
        self._opened = opened
        self._variables: Mapping[str, Any] = dataset.variables
        self._attributes = {name: str(dataset.getncattr(name)) for name in dataset.ncattrs()}
        self._axes: dict[str, NDArray[np.float64]] = {}

    def fields(self, wanted: Callable[[str], bool]) -> list[Field]:
        """Every variable asked for that has a latitude, a longitude and times."""
        gridded = [v for v in self._data() if self._has_grid(v)]
        if not gridded:
            raise SourceError(self._no_grid())
        chosen = [variable for variable in gridded if wanted(variable.name)]
        found = [field for variable in chosen if (field := self._field(variable))]
        if chosen and not found:
            raise SourceError(
                f"{self._label} has no time for {', '.join(v.name for v in chosen)}: expected a "
                "coordinate with units such as 'hours since 1970-01-01'"
            )
        return found

    def _data(self) -> Iterator[Any]:
        """The variables that may hold data: no bounds, coordinates or descriptions of others."""
        used: set[str] = set()
        for variable in self._variables.values():
            for attribute in ("bounds", "coordinates", "grid_mapping", "climatology"):
                used.update(str(getattr(variable, attribute, "")).split())
        for name, variable in self._variables.items():
            scalar = not variable.dimensions and any(name.lower() in n for n in NAMES.values())
            if _numeric(variable) and not scalar and name not in (*used, *variable.dimensions):
                yield variable

    def _coordinate(self, kind: str, dimension: str | None) -> Any | None:
        """The variable that says which latitudes, or longitudes, are along a dimension.

        Without a dimension, the one that says the latitude, or longitude, of a single point.
        """
        dimensions = () if dimension is None else (dimension,)
        along = [v for v in self._variables.values() if v.dimensions == dimensions and _numeric(v)]
        along.sort(key=lambda variable: variable.name != dimension)
        for variable in along:
            if (
                getattr(variable, "standard_name", "") == kind
                or str(getattr(variable, "units", "")).lower() in UNITS[kind]
                or variable.name.lower() in NAMES[kind]
            ):
                return variable
        return None

    def _grid(self, variable: Any) -> dict[str, str | None]:
        """The dimensions that are latitude and longitude, by these words; may lack them.

        None where the file holds a single one, for all values of the variable.
        """
        return {
            kind: dimension
            for kind in (LATITUDE, LONGITUDE)
            for dimension in (None, *variable.dimensions)
            if self._coordinate(kind, dimension) is not None
        }

    def _has_grid(self, variable: Any) -> bool:
        """Whether a variable has a latitude and a longitude, each of its own."""
        grid = self._grid(variable)
        dimensions = [dimension for dimension in grid.values() if dimension is not None]
        return len(grid) == 2 and len(set(dimensions)) == len(dimensions)

    def _no_grid(self) -> str:
        """Why there is nothing to read."""
        there = ", ".join(self._variables) or "none"
        for kind in (LATITUDE, LONGITUDE):
            like = [v for n, v in self._variables.items() if n.lower() in NAMES[kind]]
            if any(variable.ndim == 2 for variable in like):
                return (
                    f"{self._label} has a two-dimensional {kind}, expected one that is the same "
                    "along rows or columns: put it on a regular grid, with 'cdo remapbil' for one"
                )
        for variable in self._data():
            grid = self._grid(variable)
            if len(grid) == 2:
                return (
                    f"{self._label} has a latitude and a longitude of its own for each "
                    f"{grid[LATITUDE]!r}, expected a grid: points that form none can't be read"
                )
        kinds = {kind for variable in self._variables.values() for kind in self._grid(variable)}
        missing = [kind for kind in (LATITUDE, LONGITUDE) if kind not in kinds]
        what = " and no ".join(missing) or "variable with a latitude and a longitude"
        return (
            f"{self._label} has no {what}: its variables are {there}; expected values on a grid "
            "with axes called latitude and longitude, or with units degrees_north and degrees_east"
        )

    def _field(self, variable: Any) -> Field | None:
        where = f"{variable.name} in {self._label}"
        grid = self._grid(variable)
        others = [d for d in variable.dimensions if d not in grid.values()]
        time = self._time(others)
        if time is None:
            return None
        versions = "expver" if "expver" in others else None
        for dimension, size in zip(variable.dimensions, variable.shape, strict=True):
            known = dimension in (*grid.values(), *time.dimensions, versions)
            if not known and size != 1:
                raise SourceError(
                    f"{where} has {size} places along {dimension!r}, expected one value for each "
                    f"cell and time: choose one, with 'cdo sellevidx' or 'ncks -d {dimension},0' "
                    "for one"
                )
        time_name = f"coordinate {time.name} of {where}"
        time_ns = times.decode(
            self._numbers(time),
            str(time.units),
            str(getattr(time, "calendar", "standard")),
            time_name,
        )
        expver, flags = self._expver(others, len(time_ns), where)
        layout = Layout(
            dimensions=variable.dimensions,
            times=tuple(time.dimensions),
            time_shape=tuple(time.shape),
            versions=versions,
            final_first=_order(flags) if versions else (),
            rows=grid[LATITUDE],
            columns=grid[LONGITUDE],
        )
        preliminary = np.full(len(time_ns), UNSAID, np.int8)
        if not versions:
            preliminary[:] = flags
        chunks = variable.chunking()
        chunk_times = 1
        if len(layout.times) == 1 and isinstance(chunks, list):
            chunk_times = chunks[variable.dimensions.index(layout.times[0])]
        many = len(layout.final_first) or 1
        return Field(
            file=self._label,
            name=variable.name,
            units=str(variable.units) if "units" in variable.ncattrs() else None,
            latitude=self._axis(LATITUDE, layout.rows),
            longitude=self._axis(LONGITUDE, layout.columns),
            time_ns=time_ns,
            preliminary=preliminary,
            expver=expver,
            value_bytes=variable.dtype.itemsize * many,
            chunk_times=chunk_times,
            evidence=self._evidence(variable, time),
            read=VariableReader(self._opened, self._path, self._label, variable.name, layout),
        )

    def _axis(self, kind: str, dimension: str | None) -> NDArray[np.float64]:
        """An axis in degrees, checked once a file; of a single point, that one place."""
        key = dimension or f"the {kind}"
        if key not in self._axes:
            coordinate = self._coordinate(kind, dimension)
            axis = self._numbers(coordinate).astype(np.float64)
            if (packing := packing_of(coordinate)) is not None:
                axis = axis * packing[0] + packing[1]
            check_axis(kind, axis, self._label)
            self._axes[key] = axis
        return self._axes[key]

    def _numbers(self, variable: Any) -> NDArray[Any]:
        """All values of a coordinate, in one dimension; none may be missing."""
        raw = np.asarray(variable[...]).reshape(-1)
        if not mask(raw, fills_of(variable)).all():
            raise SourceError(
                f"{variable.name} in {self._label} has missing values, expected one at every place"
            )
        return raw

    def _time(self, others: list[str]) -> Any | None:
        """The variable that holds the times of another: along its other dimensions, or a scalar.

        `valid_time` is what the values are valid at, whatever its `standard_name` says (the CDS
        calls that of monthly means the time of reference).
        """

        def rank(candidate: Any) -> tuple[bool, bool, bool]:
            return (
                candidate.name == "valid_time",
                getattr(candidate, "standard_name", "") == "time",
                candidate.name.lower() == "time",
            )

        candidates = [
            v
            for v in self._variables.values()
            if _numeric(v)
            and set(v.dimensions) <= set(others) - {"expver"}
            and " since " in str(getattr(v, "units", ""))
        ]
        return max(candidates, key=rank, default=None)

    def _expver(
        self, others: list[str], count: int, where: str
    ) -> tuple[tuple[str, ...], NDArray[np.int8]]:
        """The experiment versions, and whether each is preliminary.

        Of each time, or of each place along a dimension of that name.
        """
        variable = self._variables.get("expver")
        values = np.asarray([] if variable is None else variable[...])
        along: tuple[str, ...] = () if variable is None else variable.dimensions
        if values.dtype.kind == "S":
            import netCDF4

            values, along = np.asarray(netCDF4.chartostring(values)), along[:-1]
        if variable is None or not set(along) <= set(others):
            if "expver" in others:
                raise SourceError(f"{where} has a dimension expver, but no values for it")
            return (), np.full(count, UNSAID, np.int8)
        texts = [str(value) for value in values.reshape(-1).tolist()]
        flags = np.array([preliminary_of(text) for text in texts], np.int8)
        known = tuple(dict.fromkeys(texts))
        if "expver" in others:
            if UNSAID in flags or len(set(flags.tolist())) != len(flags):
                raise SourceError(
                    f"{where} mixes the versions {', '.join(known)} along 'expver', expected 1 "
                    "(final) and 5 (preliminary): choose one, with 'ncks -d expver,0' for one"
                )
            return known, flags
        if len(flags) not in {1, count}:
            raise SourceError(f"{where} has {len(flags)} values of expver for {count} times")
        return known, flags

    def _evidence(self, variable: Any, time: Any) -> Evidence:
        said = self._attributes
        words = ("title", "source", "summary", "comment", "references", "product", "dataset")
        return Evidence(
            names=self._names,
            history=said.get("history", ""),
            cell_methods=str(getattr(variable, "cell_methods", "")),
            time_shift=str(getattr(time, "time_shift", "")),
            step_type=str(getattr(variable, "GRIB_stepType", "")),
            centre=said.get("GRIB_centre", ""),
            text=" ".join(said.get(word, "") for word in words),
        )


def _numeric(variable: Any) -> bool:
    return getattr(variable.dtype, "kind", "O") in "iuf"


def _order(flags: NDArray[np.int8]) -> tuple[int, ...]:
    """The places along expver, the final version first."""
    return tuple(np.argsort(flags, kind="stable").tolist())

"""Small NetCDF and GRIB files, made for a test."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import netCDF4
import numpy as np
import pytest

from climatestream.sources.files import FileSource, open_files
from climatestream.sources.selection import Selection

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import ArrayLike

    from climatestream.model import Batch

LATITUDE = np.array([50.2, 50.1, 50.0])
LONGITUDE = np.array([8.0, 8.1, 8.2, 8.3])
TWO_HOURS = np.array([0, 1])
SINCE_2025 = "hours since 2025-01-01"
Kind = Literal["NETCDF4", "NETCDF3_CLASSIC", "NETCDF3_64BIT_OFFSET", "NETCDF3_64BIT_DATA"]
JANUARY_NS = 1_735_689_600_000_000_000
HOUR_NS = 3_600_000_000_000


@dataclass
class Var:
    """A variable to write: values are what the file holds, packed where they are packed."""

    values: ArrayLike
    dimensions: Sequence[str] = ("time", "latitude", "longitude")
    attributes: Mapping[str, Any] = field(default_factory=dict)
    fill: Any = None
    dtype: str = "f4"


def axes(
    latitude: ArrayLike = LATITUDE,
    longitude: ArrayLike = LONGITUDE,
    time: ArrayLike = TWO_HOURS,
    units: str = SINCE_2025,
) -> dict[str, Var]:
    """Coordinates by name."""
    return {
        "time": Var(time, ["time"], {"units": units, "standard_name": "time"}, dtype="i4"),
        "latitude": Var(latitude, ["latitude"], {"units": "degrees_north"}, dtype="f8"),
        "longitude": Var(longitude, ["longitude"], {"units": "degrees_east"}, dtype="f8"),
    }


def field_of(start: float = 280.0, shape: tuple[int, ...] = (2, 3, 4)) -> np.ndarray:
    """Distinct float32 values."""
    return (start + np.arange(np.prod(shape), dtype=np.float32) / 8).reshape(shape)


def write(
    path: Path,
    variables: Mapping[str, Var],
    attributes: Mapping[str, Any] | None = None,
    kind: Kind = "NETCDF4",
) -> str:
    """Write a file; its name, as a user would type it."""
    with netCDF4.Dataset(path, "w", format=kind) as dataset:
        dataset.setncatts(dict(attributes or {}))
        for name, variable in variables.items():
            values = np.asarray(variable.values)
            for dimension, size in zip(variable.dimensions, values.shape, strict=True):
                if dimension not in dataset.dimensions:
                    dataset.createDimension(dimension, size)
            dtype: Any = str if variable.dtype == "str" else variable.dtype
            made = dataset.createVariable(
                name, dtype, tuple(variable.dimensions), fill_value=variable.fill
            )
            made.set_auto_maskandscale(False)
            made.setncatts(dict(variable.attributes))
            made[...] = values.astype(object) if dtype is str else values
    return str(path)


def t2m(values: ArrayLike | None = None, **options: Any) -> dict[str, Var]:
    """2 metre temperature, K."""
    attributes = {"units": "K", **options.pop("attributes", {})}
    shown = field_of() if values is None else values
    return {"t2m": Var(shown, attributes=attributes, **options)}


def batches(specs: Sequence[str], **select: Any) -> list[Batch]:
    """Every batch that files give, in order."""
    with open_files(specs, Selection(**select)) as source:
        return everything(source)


def everything(source: FileSource) -> list[Batch]:
    """Every batch of an open source, in order."""
    return [batch for slice_ in source.slices() for batch in source.read(slice_)]


def column(batch: Batch, name: str) -> list[float]:
    """The values of a variable in a batch."""
    values: list[float] = np.asarray(batch.values[name]).tolist()
    return values


def rows(found: Sequence[Batch]) -> dict[tuple[str, int, float, float], dict[str, float]]:
    """The values of each reading, by dataset, time, latitude and longitude."""
    read: dict[tuple[str, int, float, float], dict[str, float]] = {}
    for batch in found:
        places = zip(batch.cells.latitude, batch.cells.longitude, strict=True)
        for i, (latitude, longitude) in enumerate(places):
            key = (batch.dataset, batch.time_ns, float(latitude), float(longitude))
            assert key not in read, f"{key} is read twice"
            read[key] = {
                name: float(column[i])
                for name, column in batch.values.items()
                if not np.isnan(column[i])
            }
    return read


def grib(path: Path, messages: Sequence[Mapping[str, Any]], edition: int = 1) -> str:
    """Write a GRIB file of messages of 3 by 4 places; skips where ecCodes is missing."""
    eccodes = pytest.importorskip("eccodes", reason="ecCodes is missing: make env-grib")
    with path.open("wb") as file:
        for message in messages:
            handle = eccodes.codes_grib_new_from_samples(f"regular_ll_sfc_grib{edition}")
            keys = {
                "Ni": 4,
                "Nj": 3,
                "latitudeOfFirstGridPointInDegrees": 50.2,
                "latitudeOfLastGridPointInDegrees": 50.0,
                "longitudeOfFirstGridPointInDegrees": 8.0,
                "longitudeOfLastGridPointInDegrees": 8.3,
                "iDirectionIncrementInDegrees": 0.1,
                "jDirectionIncrementInDegrees": 0.1,
                "centre": "ecmf",
                "class": "l5",
                "stream": "oper",
                "type": "fc",
                "expver": "0001",
                "shortName": "2t",
                "dataDate": 20250101,
                "dataTime": 0,
                "bitsPerValue": 24,
                **message,
            }
            values = keys.pop("values", field_of(shape=(12,)).astype(np.float64))
            missing = keys.pop("missingValue", None)
            if edition == 2:
                eccodes.codes_set(handle, "setLocalDefinition", 1)
            for key, value in keys.items():
                eccodes.codes_set(handle, key, value)
            if missing is not None:
                eccodes.codes_set(handle, "bitmapPresent", 1)
                eccodes.codes_set(handle, "missingValue", missing)
            eccodes.codes_set_values(handle, np.asarray(values, np.float64).ravel())
            eccodes.codes_write(handle, file)
            eccodes.codes_release(handle)
    return str(path)

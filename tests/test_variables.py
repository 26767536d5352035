"""The registry: what it covers, that its names are unique, and that real files agree with it."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from climatestream import variables
from climatestream.colors import COLORS, Scale
from climatestream.errors import UsageError
from climatestream.variables import VARIABLES, normal_unit, to_store

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    Field = tuple[str, str, NDArray[np.float64]]
    """A variable of a file: short name, unit, its values that are not missing."""

CDS_VARIABLES = [
    "2m_dewpoint_temperature",
    "2m_temperature",
    "skin_temperature",
    "soil_temperature_level_1",
    "soil_temperature_level_2",
    "soil_temperature_level_3",
    "soil_temperature_level_4",
    "lake_bottom_temperature",
    "lake_ice_depth",
    "lake_ice_temperature",
    "lake_mix_layer_depth",
    "lake_mix_layer_temperature",
    "lake_shape_factor",
    "lake_total_layer_temperature",
    "snow_albedo",
    "snow_cover",
    "snow_density",
    "snow_depth",
    "snow_depth_water_equivalent",
    "snowfall",
    "snowmelt",
    "temperature_of_snow_layer",
    "skin_reservoir_content",
    "volumetric_soil_water_layer_1",
    "volumetric_soil_water_layer_2",
    "volumetric_soil_water_layer_3",
    "volumetric_soil_water_layer_4",
    "forecast_albedo",
    "surface_latent_heat_flux",
    "surface_net_solar_radiation",
    "surface_net_thermal_radiation",
    "surface_sensible_heat_flux",
    "surface_solar_radiation_downwards",
    "surface_thermal_radiation_downwards",
    "evaporation_from_bare_soil",
    "evaporation_from_open_water_surfaces_excluding_oceans",
    "evaporation_from_the_top_of_canopy",
    "evaporation_from_vegetation_transpiration",
    "potential_evaporation",
    "runoff",
    "snow_evaporation",
    "sub_surface_runoff",
    "surface_runoff",
    "total_evaporation",
    "10m_u_component_of_wind",
    "10m_v_component_of_wind",
    "surface_pressure",
    "total_precipitation",
    "leaf_area_index_high_vegetation",
    "leaf_area_index_low_vegetation",
    "high_vegetation_cover",
    "glacier_mask",
    "lake_cover",
    "low_vegetation_cover",
    "lake_total_depth",
    "geopotential",
    "land_sea_mask",
    "soil_type",
    "type_of_high_vegetation",
    "type_of_low_vegetation",
]
"""The download form of `reanalysis-era5-land`; that of the daily statistics is a part of it."""

FOREIGN = {"u100", "v100", "fsr", "fdir"}
"""Variables of the sample files that ERA5-Land does not have."""


@pytest.fixture(scope="module")
def fields(era5: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Field]:
    """Every variable of every NetCDF sample file, unpacked."""
    unpacked = tmp_path_factory.mktemp("unpacked")
    return [field for path in sorted(era5.rglob("*.nc")) for field in _read(path, unpacked)]


def _read(path: Path, unpacked: Path) -> Iterator[Field]:
    import netCDF4

    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            path = unpacked / archive.extract(archive.namelist()[0], unpacked)
    with netCDF4.Dataset(path) as file:
        for name, variable in file.variables.items():
            if variable.ndim >= 3 and not name.endswith("_bnds"):
                values = np.ma.filled(variable[:].astype(np.float64), np.nan).ravel()
                yield name, variable.units, values[np.isfinite(values)]


def _pooled(fields: list[Field]) -> Mapping[str, NDArray[np.float64]]:
    """All values of the samples by our name, in the unit of the store."""
    by_name: dict[str, list[NDArray[np.float64]]] = {}
    for short, _, values in fields:
        variable = variables.by_short_name(short)
        if variable is not None:
            by_name.setdefault(variable.name, []).append(to_store(variable.name, values))
    return {name: np.concatenate(parts) for name, parts in by_name.items()}


def test_every_variable_of_the_cds_forms_is_in_the_registry_and_no_other() -> None:
    assert sorted(v.cds_name for v in VARIABLES) == sorted(CDS_VARIABLES)


def test_a_name_of_any_kind_means_one_variable() -> None:
    names = [
        name.lower()
        for v in VARIABLES
        for name in {v.name, v.cds_name, *v.short_names, *(f"var_{s}" for s in v.short_names)}
    ]
    assert len(names) == len(set(names))
    assert len({v.label for v in VARIABLES}) == len(VARIABLES)


def test_four_names_are_the_wire_formats_and_every_other_is_that_of_a_cds_request() -> None:
    renamed = {v.cds_name: v.name for v in VARIABLES if v.name != v.cds_name}
    assert renamed == {
        "2m_temperature": "temperature",
        "10m_u_component_of_wind": "u10",
        "10m_v_component_of_wind": "v10",
        "surface_pressure": "pressure",
    }


@pytest.mark.parametrize(
    ("token", "name"),
    [
        ("temperature", "temperature"),
        ("2m_temperature", "temperature"),
        ("2m temperature", "temperature"),
        ("T2M", "temperature"),
        ("2t", "temperature"),
        ("VAR_2T", "temperature"),
        ("tas", "temperature"),
        ("10u", "u10"),
        ("sp", "pressure"),
        ("tp", "total_precipitation"),
        ("Total-Precipitation", "total_precipitation"),
        ("sd", "snow_depth_water_equivalent"),
        ("sde", "snow_depth"),
    ],
)
def test_a_variable_is_found_by_any_of_its_names(token: str, name: str) -> None:
    assert variables.find(token).name == name


@pytest.mark.parametrize(
    ("token", "nearest"),
    [
        ("temprature", "temperature"),
        ("preciptation", "total_precipitation"),
        ("u_component", "u10"),
        ("soil_temperature", "soil_temperature_level_1"),
    ],
)
def test_an_unknown_variable_is_refused_with_the_nearest_names(token: str, nearest: str) -> None:
    with pytest.raises(UsageError, match=rf"'{token}'.*nearest: .*{nearest}"):
        variables.find(token)


def test_what_resembles_nothing_is_refused_without_a_guess() -> None:
    with pytest.raises(UsageError) as refusal:
        variables.find("")
    assert "nearest" not in str(refusal.value)


def test_the_sample_files_variables_resolve_but_those_that_era5_land_lacks(
    fields: list[Field],
) -> None:
    shorts = {short for short, _, _ in fields}
    assert shorts >= FOREIGN | {"t2m", "d2m", "tp", "u10", "v10", "sp", "tas", "ssrd"}
    assert {short for short in shorts if variables.by_short_name(short) is None} == FOREIGN


def test_units_of_the_sample_files_are_those_of_the_registry(fields: list[Field]) -> None:
    for short, unit, _ in fields:
        variable = variables.by_short_name(short)
        if variable is not None:
            assert normal_unit(unit) == variable.file_unit, short


def test_all_values_of_the_sample_files_are_plausible(fields: list[Field]) -> None:
    for name, values in _pooled(fields).items():
        variable = variables.find(name)
        assert values.min() >= variable.valid_min, name
        assert values.max() <= variable.valid_max, name


def test_98_in_100_values_of_the_sample_files_have_a_colour_of_their_own(
    fields: list[Field],
) -> None:
    for name, values in _pooled(fields).items():
        scale = variables.find(name).scale
        inside = (values >= scale.vmin) & (values <= scale.vmax)
        assert inside.mean() >= 0.98, name


@pytest.mark.parametrize("variable", VARIABLES, ids=lambda v: v.name)
def test_an_entry_is_consistent(variable: variables.Variable) -> None:
    scale = variable.scale
    assert scale.colors in COLORS
    assert all(low < high for low, high in itertools.pairwise(scale.knots))
    assert len(scale.knots) >= 3
    assert variable.valid_min < variable.valid_max
    assert variable.valid_why
    assert scale.vmax > variable.valid_min
    assert scale.vmin < variable.valid_max
    for unit in (variable.file_unit, variable.store_unit):
        assert normal_unit(unit) == unit
    assert (variable.store_unit == "degC") == (variable.file_unit == "K")
    converts = (variable.factor, variable.offset) != (1.0, 0.0)
    assert converts == (variable.file_unit != variable.store_unit)
    assert variable.accumulated <= (variable.file_unit in {"m", "J m-2"})


def test_every_temperature_is_stored_in_degrees_celsius() -> None:
    assert {v.name for v in VARIABLES if v.store_unit == "degC"} == {
        v.name for v in VARIABLES if "temperature" in v.cds_name
    }
    assert to_store("temperature", [273.15]) == [0.0]


@given(
    hnp.arrays(np.float64, 20, elements=st.floats(allow_infinity=False)),
    st.sampled_from([v.name for v in VARIABLES] + ["u100"]),
)
def test_list_and_array_convert_to_the_same_bits(column: NDArray[np.float64], name: str) -> None:
    from_array = to_store(name, column)
    from_list = np.array(to_store(name, column.tolist()))
    np.testing.assert_array_equal(from_array.view(np.int64), from_list.view(np.int64))


def test_what_needs_no_conversion_is_not_copied() -> None:
    column = [1.0, math.nan]
    array = np.array(column)
    assert to_store("u10", column) is column
    assert to_store("unknown_to_the_registry", array) is array


@pytest.mark.parametrize(
    ("spellings", "unit"),
    [
        (["m s**-1", "m s-1", "m s^-1", "m/s", "m s⁻¹"], "m s-1"),
        (["J m**-2", "J m-2", "J/m2", "J/m²"], "J m-2"),
        (["m**3 m**-3", "m3 m-3", "m3/m3"], "m3 m-3"),
        (["(0 - 1)", "0 - 1", "dimensionless", "~", "", "1", "(Code table 4.234)"], "1"),
        (["m of water equivalent", "m"], "m"),
        (["K", "Kelvin", "kelvin"], "K"),
        (["degC", "°C", "celsius", "degrees_celsius", "C"], "degC"),
        (["kg m**-3", "kg/m3"], "kg m-3"),
        (["%", "percent"], "%"),
        (["Pa"], "Pa"),
        (["furlong"], "furlong"),
    ],
)
def test_equal_units_compare_equal_however_they_are_spelled(
    spellings: list[str], unit: str
) -> None:
    assert {normal_unit(spelling) for spelling in spellings} == {unit}


def test_the_registry_needs_the_standard_library_alone() -> None:
    code = (
        "import sys, climatestream.variables as v; v.find('tp'); "
        "print(*sorted({m.split('.')[0] for m in sys.modules} - sys.stdlib_module_names))"
    )
    loaded = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path[:] = {sys.path!r}; {code}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert set(loaded) <= {"__main__", "climatestream"}


# ------------------------------------------------------------------------------ the colours

# Machado, Oliveira and Fernandes (2009), severity 1.0, on linear RGB: doi:10.1109/TVCG.2009.113
COLOUR_BLIND = {
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def _oklab(name: str, blindness: str | None = None) -> NDArray[np.float64]:
    """A scale's stops in OKLab, shape (stops, 3), as someone with this vision sees them."""
    srgb = np.array([[int(stop[i : i + 2], 16) / 255 for i in (1, 3, 5)] for stop in COLORS[name]])
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    if blindness is not None:
        linear = np.clip(linear @ np.array(COLOUR_BLIND[blindness]).T, 0.0, 1.0)
    to_lms = np.array(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    to_lab = np.array(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    lab: NDArray[np.float64] = np.cbrt(linear @ to_lms.T) @ to_lab.T
    return lab


@pytest.mark.parametrize("name", COLORS)
def test_steps_of_a_colour_scale_look_equal(name: str) -> None:
    steps = np.linalg.norm(np.diff(_oklab(name), axis=0), axis=1)
    assert steps.max() <= 1.25 * steps.min()


@pytest.mark.parametrize("name", COLORS)
def test_lightness_of_a_colour_scale_has_one_direction_or_one_peak(name: str) -> None:
    rising = np.diff(_oklab(name)[:, 0]) > 0
    middle = len(rising) // 2
    assert rising.all() or (rising[:middle].all() and not rising[middle:].any())


@pytest.mark.parametrize("blindness", COLOUR_BLIND)
@pytest.mark.parametrize("name", COLORS)
def test_colours_three_steps_apart_differ_for_the_colour_blind(name: str, blindness: str) -> None:
    """0.07 is three and a half times what is just seen side by side (about 0.02 in OKLab)."""
    lab = _oklab(name, blindness)
    distance = np.linalg.norm(lab[:, None] - lab[None], axis=2)
    assert distance[np.triu_indices(len(lab), 3)].min() >= 0.07


def test_a_scale_knows_its_ends() -> None:
    scale = Scale("rain", (0.0, 1.0, 10.0))
    assert (scale.vmin, scale.vmax) == (0.0, 10.0)

"""The registry: every variable of ERA5-Land, in one declared table.

It covers the variables of the Climate Data Store's datasets `derived-era5-land-daily-statistics`
and `reanalysis-era5-land`, the ten fixed fields (masks, cover, geopotential) included.

One rule names them: a variable is called what a CDS request calls it (`total_precipitation`),
but for the four whose names the wire format fixes (`RENAMED`). ERA5's `snow_depth` is the water
equivalent (`sd`), ERA5-Land's the depth (`sde`): files are therefore read by short name.

Needs nothing but the standard library: the Lambda handler imports it.

Sources: the CDS download forms (names), the ECMWF parameter database (short names, units,
https://codes.ecmwf.int/grib/param-db), the CF standard name table, version 93.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, overload

from climatestream.colors import Scale
from climatestream.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

RENAMED: Final[Mapping[str, str]] = {
    "2m_temperature": "temperature",
    "10m_u_component_of_wind": "u10",
    "10m_v_component_of_wind": "v10",
    "surface_pressure": "pressure",
}
"""CDS request name to our name, where the two differ."""


@dataclass(frozen=True, kw_only=True)
class Variable:
    """What is known of a variable.

    Parameters
    ----------
    cds_name
        The name in a CDS request.
    short_names
        The names in NetCDF and GRIB files, old and new, the newest first; compared without
        regard to case and to the `VAR_` that NCAR's files put before them.
    label
        What it is, in plain English.
    standard_name
        CF's name; None where CF has none of that quantity, dimension and sign (CF's evaporation
        is positive upward, ECMWF's downward).
    file_unit, store_unit
        Unit in files and messages, and in the store, as `normal_unit` writes them.
    factor, offset
        store = file * factor + offset.
    valid_min, valid_max, valid_why
        The plausible range in the unit of the store, and where it comes from. Zero is widened
        where GRIB packing is known to leave small negative values.
    scale
        The colours of its values, in the unit of the store.
    accumulated
        An amount that comes in the course of an hour or a day, not the value of an instant. What
        files hold of it, and what is made of that: `sources/accumulated.py`.
    shown_unit, shown_factor
        The unit in which people read it: shown = store * shown_factor.
    """

    cds_name: str
    short_names: tuple[str, ...]
    label: str
    standard_name: str | None = None
    file_unit: str
    store_unit: str
    factor: float = 1.0
    offset: float = 0.0
    valid_min: float
    valid_max: float
    valid_why: str
    scale: Scale
    accumulated: bool = False
    shown_unit: str
    shown_factor: float = 1.0

    @property
    def name(self) -> str:
        """Our name: the field in messages and in the store."""
        return RENAMED.get(self.cds_name, self.cds_name)


_TEMPERATURE = partial(
    Variable,
    file_unit="K",
    store_unit="degC",
    offset=-273.15,
    shown_unit="°C",
    scale=Scale("thermal", (-50.0, -20.0, 0.0, 10.0, 15.0, 20.0, 25.0, 30.0, 45.0)),
)
_SOIL_TEMPERATURE = partial(
    _TEMPERATURE,
    standard_name="soil_temperature",
    valid_min=-100.0,
    valid_max=85.0,
    valid_why="within the extremes of the skin, which soil damps",
)
_LAKE_TEMPERATURE = partial(
    _TEMPERATURE,
    valid_min=-1.0,
    valid_max=50.0,
    valid_why="fresh water between freezing and the warmest shallow lakes",
)
_FRACTION = partial(
    Variable,
    file_unit="1",
    store_unit="1",
    shown_unit="",
    valid_min=0.0,
    valid_max=1.0,
    valid_why="a fraction",
)
_CODE = partial(
    Variable,
    file_unit="1",
    store_unit="1",
    shown_unit="",
    scale=Scale("dusk", (0.0, 5.0, 10.0, 15.0, 20.0)),
)
_LENGTH = partial(Variable, file_unit="m", store_unit="m", shown_unit="m")
_WATER = partial(Variable, file_unit="m", store_unit="m", shown_unit="mm", shown_factor=1000.0)
_WATER_SUM = partial(
    _WATER,
    accumulated=True,
    valid_min=-1e-5,
    valid_max=2.0,
    valid_why="most rain measured in a day: 1.825 m (WMO, La Réunion 1966); GRIB packing",
    scale=Scale("rain", (0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)),
)
_EVAPORATION = partial(
    _WATER,
    accumulated=True,
    valid_min=-0.1,
    valid_max=0.03,
    valid_why="negative: evaporation; a day's sunshine (48 MJ m-2) can evaporate 20 mm",
    scale=Scale("balance", (-0.01, -0.006, -0.003, 0.0, 0.003, 0.006, 0.01)),
)
_SOIL_WATER = partial(
    Variable,
    standard_name="volume_fraction_of_condensed_water_in_soil",
    file_unit="m3 m-3",
    store_unit="m3 m-3",
    shown_unit="m³/m³",
    valid_min=-1e-5,
    valid_max=1.0,
    valid_why="a share of the volume; GRIB packing",
    scale=Scale("moss", (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)),
)
_ENERGY = partial(
    Variable,
    file_unit="J m-2",
    store_unit="J m-2",
    shown_unit="MJ/m²",
    shown_factor=1e-6,
    accumulated=True,
)
_ENERGY_DOWN = partial(
    _ENERGY,
    valid_min=-1e3,
    valid_max=55e6,
    valid_why="a day above the atmosphere gives at most 48 MJ m-2, a sky of 50 degC 53; packing",
    scale=Scale("ember", (0.0, 5e6, 10e6, 15e6, 20e6, 25e6, 30e6, 40e6)),
)
_ENERGY_BALANCE = partial(
    _ENERGY,
    valid_min=-55e6,
    valid_max=55e6,
    valid_why="no more in either direction than a day's radiation",
    scale=Scale("balance", (-20e6, -10e6, -5e6, 0.0, 5e6, 10e6, 20e6)),
)
_WIND = partial(
    Variable,
    file_unit="m s-1",
    store_unit="m s-1",
    shown_unit="m/s",
    valid_min=-113.2,
    valid_max=113.2,
    valid_why="strongest gust measured (WMO, Barrow Island 1996); no mean exceeds it",
    scale=Scale("balance", (-20.0, -10.0, -5.0, -2.0, 0.0, 2.0, 5.0, 10.0, 20.0)),
)
_LEAVES = partial(
    Variable,
    standard_name="leaf_area_index",
    file_unit="m2 m-2",
    store_unit="m2 m-2",
    shown_unit="m²/m²",
    valid_min=0.0,
    valid_max=10.0,
    valid_why="dense tropical forest stays below 10",
    scale=Scale("moss", (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0)),
)
_COVER = Scale("moss", (0.0, 0.25, 0.5, 0.75, 1.0))
_ICE_COVER = Scale("ice", (0.0, 0.25, 0.5, 0.75, 1.0))
_SNOW_DEPTH = Scale("ice", (0.0, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0))

VARIABLES: Final[tuple[Variable, ...]] = (
    # ------------------------------------------------------------------------- temperature
    _TEMPERATURE(
        cds_name="2m_temperature",
        short_names=("t2m", "2t", "tas"),
        label="Air temperature, 2 m",
        standard_name="air_temperature",
        valid_min=-95.0,
        valid_max=60.0,
        valid_why="WMO extremes -89.2 (Vostok 1983) and 56.7 (Death Valley 1913), and a margin",
    ),
    _TEMPERATURE(
        cds_name="2m_dewpoint_temperature",
        short_names=("d2m", "2d", "tdps"),
        label="Dew point, 2 m",
        standard_name="dew_point_temperature",
        valid_min=-110.0,
        valid_max=40.0,
        valid_why="highest reported 35 (Dhahran 2003), lowest below the coldest air; a margin",
    ),
    _TEMPERATURE(
        cds_name="skin_temperature",
        short_names=("skt", "ts"),
        label="Surface temperature",
        standard_name="surface_temperature",
        valid_min=-105.0,
        valid_max=85.0,
        valid_why="satellites saw -98.6 (doi:10.1029/2018GL078133), 80.8 (Lut, Iran); a margin",
    ),
    _SOIL_TEMPERATURE(
        cds_name="soil_temperature_level_1",
        short_names=("stl1",),
        label="Soil temperature, 0 to 7 cm",
    ),
    _SOIL_TEMPERATURE(
        cds_name="soil_temperature_level_2",
        short_names=("stl2",),
        label="Soil temperature, 7 to 28 cm",
    ),
    _SOIL_TEMPERATURE(
        cds_name="soil_temperature_level_3",
        short_names=("stl3",),
        label="Soil temperature, 28 to 100 cm",
    ),
    _SOIL_TEMPERATURE(
        cds_name="soil_temperature_level_4",
        short_names=("stl4",),
        label="Soil temperature, 100 to 289 cm",
    ),
    # ------------------------------------------------------------------------------- lakes
    _LAKE_TEMPERATURE(
        cds_name="lake_bottom_temperature",
        short_names=("lblt",),
        label="Lake temperature at the bottom",
    ),
    _LENGTH(
        cds_name="lake_ice_depth",
        short_names=("licd",),
        label="Lake ice thickness",
        valid_min=0.0,
        valid_max=10.0,
        valid_why="ice of polar lakes grows to a few metres",
        scale=Scale("ice", (0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0)),
    ),
    _TEMPERATURE(
        cds_name="lake_ice_temperature",
        short_names=("lict",),
        label="Lake ice temperature",
        valid_min=-100.0,
        valid_max=1.0,
        valid_why="ice melts at 0; where there is none the model keeps the melting point",
    ),
    _LENGTH(
        cds_name="lake_mix_layer_depth",
        short_names=("lmld",),
        label="Lake mixed layer depth",
        valid_min=0.0,
        valid_max=1700.0,
        valid_why="the deepest lake (Baikal) has 1,642 m",
        scale=Scale("rain", (0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0)),
    ),
    _LAKE_TEMPERATURE(
        cds_name="lake_mix_layer_temperature",
        short_names=("lmlt",),
        label="Lake temperature, mixed layer",
    ),
    _FRACTION(
        cds_name="lake_shape_factor",
        short_names=("lshf",),
        label="Lake shape factor",
        valid_why="the model keeps it between 0.5 and 0.8",
        scale=Scale("dusk", (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8)),
    ),
    _LAKE_TEMPERATURE(
        cds_name="lake_total_layer_temperature",
        short_names=("ltlt",),
        label="Lake temperature, whole column",
    ),
    # -------------------------------------------------------------------------------- snow
    _FRACTION(cds_name="snow_albedo", short_names=("asn",), label="Snow albedo", scale=_ICE_COVER),
    Variable(
        cds_name="snow_cover",
        short_names=("snowc",),
        label="Snow cover",
        standard_name="surface_snow_area_fraction",
        file_unit="%",
        store_unit="%",
        shown_unit="%",
        valid_min=0.0,
        valid_max=100.0,
        valid_why="a share of the cell",
        scale=Scale("ice", (0.0, 25.0, 50.0, 75.0, 100.0)),
    ),
    Variable(
        cds_name="snow_density",
        short_names=("rsn",),
        label="Snow density",
        standard_name="surface_snow_density",
        file_unit="kg m-3",
        store_unit="kg m-3",
        shown_unit="kg/m³",
        valid_min=20.0,
        valid_max=917.0,
        valid_why="lightest fresh snow to solid ice",
        scale=Scale("ice", (50.0, 100.0, 200.0, 300.0, 400.0, 500.0)),
    ),
    _LENGTH(
        cds_name="snow_depth",
        short_names=("sde",),
        label="Snow depth",
        standard_name="surface_snow_thickness",
        valid_min=0.0,
        valid_max=100.0,
        valid_why="glaciers hold 10 m of water, at no less than 100 kg m-3",
        scale=_SNOW_DEPTH,
    ),
    _LENGTH(
        cds_name="snow_depth_water_equivalent",
        short_names=("sd",),
        label="Snow water equivalent",
        standard_name="lwe_thickness_of_surface_snow_amount",
        valid_min=0.0,
        valid_max=20.0,
        valid_why="glaciers hold 10 m of water; a margin for what accumulates",
        scale=_SNOW_DEPTH,
    ),
    _WATER_SUM(
        cds_name="snowfall",
        short_names=("sf",),
        label="Snowfall, as water",
        standard_name="lwe_thickness_of_snowfall_amount",
    ),
    _WATER_SUM(cds_name="snowmelt", short_names=("smlt",), label="Snowmelt, as water"),
    _TEMPERATURE(
        cds_name="temperature_of_snow_layer",
        short_names=("tsn",),
        label="Snow temperature",
        standard_name="temperature_in_surface_snow",
        valid_min=-105.0,
        valid_max=85.0,
        valid_why="defined without snow too, where it follows the ground",
    ),
    # -------------------------------------------------------------------------- soil water
    _WATER(
        cds_name="skin_reservoir_content",
        short_names=("src",),
        label="Water on leaves and ground",
        valid_min=-1e-6,
        valid_max=0.01,
        valid_why="0.2 mm a leaf layer; GRIB packing",
        scale=Scale("rain", (0.0, 0.0001, 0.0002, 0.0005, 0.001, 0.002)),
    ),
    _SOIL_WATER(
        cds_name="volumetric_soil_water_layer_1",
        short_names=("swvl1",),
        label="Soil water, 0 to 7 cm",
    ),
    _SOIL_WATER(
        cds_name="volumetric_soil_water_layer_2",
        short_names=("swvl2",),
        label="Soil water, 7 to 28 cm",
    ),
    _SOIL_WATER(
        cds_name="volumetric_soil_water_layer_3",
        short_names=("swvl3",),
        label="Soil water, 28 to 100 cm",
    ),
    _SOIL_WATER(
        cds_name="volumetric_soil_water_layer_4",
        short_names=("swvl4",),
        label="Soil water, 100 to 289 cm",
    ),
    # ------------------------------------------------------------------ radiation and heat
    _FRACTION(
        cds_name="forecast_albedo",
        short_names=("fal",),
        label="Albedo",
        standard_name="surface_albedo",
        scale=_ICE_COVER,
    ),
    _ENERGY_BALANCE(
        cds_name="surface_latent_heat_flux",
        short_names=("slhf",),
        label="Latent heat, downward",
        standard_name="integral_wrt_time_of_surface_downward_latent_heat_flux",
    ),
    _ENERGY_DOWN(
        cds_name="surface_net_solar_radiation",
        short_names=("ssr",),
        label="Net solar radiation",
        standard_name="integral_wrt_time_of_surface_net_downward_shortwave_flux",
    ),
    _ENERGY_BALANCE(
        cds_name="surface_net_thermal_radiation",
        short_names=("str",),
        label="Net thermal radiation",
        standard_name="integral_wrt_time_of_surface_net_downward_longwave_flux",
    ),
    _ENERGY_BALANCE(
        cds_name="surface_sensible_heat_flux",
        short_names=("sshf",),
        label="Sensible heat, downward",
        standard_name="integral_wrt_time_of_surface_downward_sensible_heat_flux",
    ),
    _ENERGY_DOWN(
        cds_name="surface_solar_radiation_downwards",
        short_names=("ssrd",),
        label="Solar radiation, downward",
        standard_name="integral_wrt_time_of_surface_downwelling_shortwave_flux_in_air",
    ),
    _ENERGY_DOWN(
        cds_name="surface_thermal_radiation_downwards",
        short_names=("strd",),
        label="Thermal radiation, downward",
        standard_name="integral_wrt_time_of_surface_downwelling_longwave_flux_in_air",
    ),
    # -------------------------------------------------------------- evaporation and runoff
    # ECMWF's known issue: in ERA5-Land the values of evabs, evaow and evavt are in each other's
    # place (evabs holds transpiration, evaow bare soil, evavt open water). They are kept as
    # they are named.
    _EVAPORATION(
        cds_name="evaporation_from_bare_soil",
        short_names=("evabs",),
        label="Evaporation from bare soil",
    ),
    _EVAPORATION(
        cds_name="evaporation_from_open_water_surfaces_excluding_oceans",
        short_names=("evaow",),
        label="Evaporation from open water",
    ),
    _EVAPORATION(
        cds_name="evaporation_from_the_top_of_canopy",
        short_names=("evatc",),
        label="Evaporation from the canopy",
    ),
    _EVAPORATION(
        cds_name="evaporation_from_vegetation_transpiration",
        short_names=("evavt",),
        label="Transpiration",
    ),
    _WATER(
        cds_name="potential_evaporation",
        short_names=("pev",),
        label="Potential evaporation",
        accumulated=True,
        valid_min=-0.5,
        valid_max=0.1,
        valid_why="negative: evaporation; an open pan in hot dry wind, with a margin",
        scale=Scale("balance", (-0.05, -0.02, -0.01, 0.0, 0.01, 0.02, 0.05)),
    ),
    _WATER_SUM(cds_name="runoff", short_names=("ro",), label="Runoff"),
    _EVAPORATION(cds_name="snow_evaporation", short_names=("es",), label="Snow evaporation"),
    _WATER_SUM(cds_name="sub_surface_runoff", short_names=("ssro",), label="Subsurface runoff"),
    _WATER_SUM(cds_name="surface_runoff", short_names=("sro",), label="Surface runoff"),
    _EVAPORATION(cds_name="total_evaporation", short_names=("e",), label="Evaporation"),
    # ------------------------------------------------------- wind, pressure, precipitation
    _WIND(
        cds_name="10m_u_component_of_wind",
        short_names=("u10", "10u", "uas"),
        label="Wind to the east, 10 m",
        standard_name="eastward_wind",
    ),
    _WIND(
        cds_name="10m_v_component_of_wind",
        short_names=("v10", "10v", "vas"),
        label="Wind to the north, 10 m",
        standard_name="northward_wind",
    ),
    Variable(
        cds_name="surface_pressure",
        short_names=("sp", "ps"),
        label="Surface pressure",
        standard_name="surface_air_pressure",
        file_unit="Pa",
        store_unit="Pa",
        shown_unit="hPa",
        shown_factor=0.01,
        valid_min=30_000.0,
        valid_max=110_000.0,
        valid_why="about 33,000 on Everest; WMO's highest is 108,480 at sea level; a margin",
        scale=Scale(
            "dusk", (50_000.0, 70_000.0, 85_000.0, 95_000.0, 100_000.0, 102_500.0, 105_000.0)
        ),
    ),
    _WATER_SUM(
        cds_name="total_precipitation",
        short_names=("tp",),
        label="Precipitation",
        standard_name="lwe_thickness_of_precipitation_amount",
    ),
    # -------------------------------------------------------------------------- vegetation
    _LEAVES(
        cds_name="leaf_area_index_high_vegetation",
        short_names=("lai_hv",),
        label="Leaf area index, trees",
    ),
    _LEAVES(
        cds_name="leaf_area_index_low_vegetation",
        short_names=("lai_lv",),
        label="Leaf area index, low plants",
    ),
    # ------------------------------------------------------------------------ fixed fields
    _FRACTION(
        cds_name="high_vegetation_cover", short_names=("cvh",), label="Tree cover", scale=_COVER
    ),
    _FRACTION(
        cds_name="low_vegetation_cover",
        short_names=("cvl",),
        label="Low vegetation cover",
        scale=_COVER,
    ),
    _CODE(
        cds_name="type_of_high_vegetation",
        short_names=("tvh",),
        label="Type of trees (code)",
        valid_min=0.0,
        valid_max=20.0,
        valid_why="codes of the ECMWF land surface model",
    ),
    _CODE(
        cds_name="type_of_low_vegetation",
        short_names=("tvl",),
        label="Type of low vegetation (code)",
        valid_min=0.0,
        valid_max=20.0,
        valid_why="codes of the ECMWF land surface model",
    ),
    _CODE(
        cds_name="soil_type",
        short_names=("slt",),
        label="Soil type (code)",
        standard_name="soil_type",
        valid_min=0.0,
        valid_max=8.0,
        valid_why="codes of the ECMWF land surface model",
        scale=Scale("dusk", (0.0, 2.0, 4.0, 6.0, 8.0)),
    ),
    _FRACTION(
        cds_name="glacier_mask",
        short_names=("glm",),
        label="Glacier mask",
        standard_name="land_ice_area_fraction",
        scale=_ICE_COVER,
    ),
    _FRACTION(
        cds_name="land_sea_mask",
        short_names=("lsm",),
        label="Land-sea mask",
        standard_name="land_area_fraction",
        scale=_COVER,
    ),
    _FRACTION(
        cds_name="lake_cover",
        short_names=("cl",),
        label="Lake cover",
        scale=Scale("rain", (0.0, 0.25, 0.5, 0.75, 1.0)),
    ),
    _LENGTH(
        cds_name="lake_total_depth",
        short_names=("dl",),
        label="Lake depth",
        valid_min=0.0,
        valid_max=1700.0,
        valid_why="the deepest lake (Baikal) has 1,642 m",
        scale=Scale("rain", (0.0, 5.0, 10.0, 25.0, 50.0, 100.0, 500.0)),
    ),
    Variable(
        cds_name="geopotential",
        short_names=("z",),
        label="Geopotential of the ground",
        standard_name="surface_geopotential",
        file_unit="m2 s-2",
        store_unit="m2 s-2",
        shown_unit="m²/s²",
        valid_min=-5_000.0,
        valid_max=90_000.0,
        valid_why="9.80665 times -430 m (Dead Sea) to 8,849 m (Everest), and a margin",
        scale=Scale(
            "dusk", (-1_000.0, 0.0, 1_000.0, 2_500.0, 5_000.0, 10_000.0, 25_000.0, 60_000.0)
        ),
    ),
)


def _short_key(short_name: str) -> str:
    return short_name.lower().removeprefix("var_")


_BY_NAME = {v.name: v for v in VARIABLES}
_BY_CDS_NAME = {v.cds_name: v for v in VARIABLES}
_BY_SHORT_NAME = {_short_key(short): v for v in VARIABLES for short in v.short_names}


def by_name(name: str) -> Variable | None:
    """The variable of our name; None where the registry does not know it."""
    return _BY_NAME.get(name)


def by_cds_name(cds_name: str) -> Variable | None:
    """The variable of a CDS request name; None where the registry does not know it."""
    return _BY_CDS_NAME.get(cds_name)


def by_short_name(short_name: str) -> Variable | None:
    """The variable of a name in a file; None where the registry does not know it."""
    return _BY_SHORT_NAME.get(_short_key(short_name))


def find(token: str) -> Variable:
    """The variable that someone means: by our name, its CDS name or a short name.

    Raises
    ------
    UsageError
        No variable is called that: names the nearest.
    """
    wanted = token.strip().lower().replace(" ", "_").replace("-", "_")
    found = by_name(wanted) or by_cds_name(wanted) or by_short_name(wanted)
    if found is not None:
        return found
    import difflib

    names = {**_BY_SHORT_NAME, **_BY_CDS_NAME, **_BY_NAME}
    near = [names[name].name for name in difflib.get_close_matches(wanted, names, n=3)]
    near += [name for name in _BY_NAME if wanted and wanted in name]
    hint = f", nearest: {', '.join(dict.fromkeys(near[:4]))}" if near else ""
    raise UsageError(
        f"variable {token!r} is not one of ERA5-Land{hint}; use the name in a CDS request "
        "(total_precipitation), a short name (tp), or temperature, u10, v10, pressure"
    )


@overload
def to_store(name: str, column: list[float]) -> list[float]: ...
@overload
def to_store(name: str, column: NDArray[np.float64]) -> NDArray[np.float64]: ...
def to_store(
    name: str, column: list[float] | NDArray[np.float64]
) -> list[float] | NDArray[np.float64]:
    """A column of a variable from the unit of the file to that of the store.

    Parameters
    ----------
    name
        Our name. What the registry does not know is kept as it is.
    column
        float64, NaN = missing; array or list. Both forms do the same two IEEE operations, a
        product and a sum, each rounded, so that they agree bit for bit.

    Returns
    -------
    The same form; the very column where there is nothing to convert.
    """
    variable = _BY_NAME.get(name)
    if variable is None or (variable.factor == 1.0 and variable.offset == 0.0):
        return column
    factor, offset = variable.factor, variable.offset
    if isinstance(column, list):
        return [value * factor + offset for value in column]
    return column * factor + offset


_SAME_UNITS: Final[Mapping[str, str]] = {
    "kelvin": "K",
    "k": "K",
    "c": "degC",
    "°c": "degC",
    "degc": "degC",
    "deg_c": "degC",
    "celsius": "degC",
    "degree_celsius": "degC",
    "degrees_celsius": "degC",
    "degree_c": "degC",
    "degrees_c": "degC",
    "pascal": "Pa",
    "pa": "Pa",
    "percent": "%",
    "m_of_water_equivalent": "m",
    "m_of_water": "m",
    "m_water_equivalent": "m",
    "": "1",
    "~": "1",
    "-": "1",
    "0-1": "1",
    "0_-_1": "1",
    "dimensionless": "1",
    "fraction": "1",
    "numeric": "1",
    "proportion": "1",
    "code_table_4.234": "1",
    "code_table_4.213": "1",
}
"""Spellings of the ECMWF's, the CDS's and others' files, lower case and joined by underscores.
A depth of water is a length, whether the file says so or not."""


_PLAIN: Final = str.maketrans("¹²³⁻", "123-", "^()")


def normal_unit(unit: str) -> str:
    """A unit's one spelling: `m s**-1`, `m s^-1` and `m/s` are all `m s-1`.

    Powers are written without a sign for the operator, a division as a negative power, and what
    has no dimension (`(0 - 1)`, `dimensionless`, nothing) is `1`. Unknown units stay as they are.
    """
    plain = unit.replace("**", "").translate(_PLAIN)
    text = " ".join(plain.split())
    same = _SAME_UNITS.get(text.lower().replace(" ", "_"))
    if same is not None:
        return same
    first, *divisors = (part.strip() for part in text.split("/"))
    return " ".join([first, *(_inverse(part) for part in divisors)])


def _inverse(unit: str) -> str:
    base = unit.rstrip("0123456789")
    return f"{base}-{unit[len(base) :] or '1'}"

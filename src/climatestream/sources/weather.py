"""The physics of the simulation: what the weather is at a time, from the seed and the time alone.

Everything that moves is a sum of waves, each a pattern that drifts at a speed of its own:
large ones for highs and lows, small ones for clouds and showers. They are smooth, defined on the
whole earth and for all times, and known with their gradients, from which the wind follows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from climatestream.sources.grid import Block

    Floats = NDArray[np.float64]

DAY_S = 86_400.0
YEAR_DAYS = 365.2422
J2000_S = 946_684_800
"""2000-01-01T00:00Z, from which time is counted here [s since 1970]."""

EARTH_RADIUS = 6.371e6  # m
EARTH_ROTATION = 7.2921e-5  # s-1
TILT = math.radians(23.44)
"""Obliquity of the ecliptic."""
AIR_DENSITY = 1.2  # kg m-3

LAPSE = 0.0065  # K m-1
SEA_LEVEL_TEMPERATURE = 288.15  # K
SEA_LEVEL_PRESSURE = 101_325.0  # Pa
BAROMETRIC_EXPONENT = 9.80665 / (287.053 * LAPSE)
"""g / (R L). With the three above the ICAO standard atmosphere (ISO 2533)."""

STORMY = math.radians(50.0)
"""The latitude of most storms, for which the waves' lengths and speeds hold."""
PARALLEL_RADIUS = EARTH_RADIUS * math.cos(STORMY)  # m

FRICTION = 8e-5
"""Rayleigh friction of the lowest air [s-1]: at 50 degrees wind and isobar differ by 36 degrees,
as is observed over land."""
SURFACE_WIND = 0.5
"""The wind at 10 m as a share of that above the ground's roughness."""

STEPS = {"temperature": 512.0, "u10": 1024.0, "v10": 1024.0, "pressure": 16.0}
"""Values are multiples of 1/512 K, 1/1024 m s-1 and 1/16 Pa, as packed ERA5-Land's are of some
step: float32 holds them exactly, and the last bits of a machine's sines do not show."""

RANGES = (
    # ends: latitude, longitude; latitude, longitude; half-width [km]; height [m]
    (44.3, 6.8, 46.3, 8.5, 55, 1900),  # Alps
    (46.3, 8.5, 47.1, 13.5, 55, 1900),
    (50.3, 6.8, 50.5, 13.0, 90, 420),  # German uplands
    (47.9, 8.1, 48.7, 8.4, 35, 750),  # Black Forest
    (48.8, 13.8, 50.6, 12.6, 60, 650),  # Bohemian Forest
    (42.8, -1.0, 42.4, 2.5, 40, 1600),  # Pyrenees
    (45.3, 2.8, 44.3, 3.8, 80, 850),  # Massif Central
    (40.5, -4.0, 38.5, -3.0, 220, 750),  # Meseta
    (59.5, 8.0, 68.0, 18.0, 90, 1050),  # Scandinavian Mountains
    (49.3, 19.5, 45.5, 25.0, 80, 950),  # Carpathians
    (46.0, 14.5, 41.5, 21.5, 80, 1050),  # Dinarides
    (38.5, 31.0, 34.0, 52.0, 260, 1400),  # Anatolia, Zagros
    (43.2, 41.0, 41.5, 47.0, 60, 2000),  # Caucasus
    (34.0, 79.0, 33.0, 99.0, 380, 4500),  # Tibet
    (41.0, 71.0, 43.0, 86.0, 150, 2400),  # Tien Shan
    (50.0, 88.0, 51.0, 101.0, 200, 1600),  # Altai, Sayan
    (60.0, 130.0, 67.0, 160.0, 320, 750),  # East Siberia
    (52.0, 58.5, 66.0, 62.0, 60, 450),  # Urals
    (36.0, 137.5, 39.5, 140.5, 50, 750),  # Japan
    (22.0, 76.0, 14.0, 76.5, 230, 550),  # Deccan
    (-4.0, 137.0, -6.5, 145.0, 90, 1900),  # New Guinea
    (-16.0, 145.5, -37.0, 148.5, 110, 550),  # Great Dividing Range
    (-45.0, 168.0, -42.0, 172.5, 50, 1100),  # Southern Alps
    (61.0, -140.0, 50.0, -118.0, 230, 1350),  # Rocky Mountains
    (50.0, -115.0, 36.0, -107.5, 330, 1900),
    (31.0, -107.5, 19.5, -98.5, 200, 1700),  # Mexican Plateau
    (34.5, -84.0, 42.0, -75.0, 90, 550),  # Appalachians
    (8.0, -72.5, -5.0, -78.5, 110, 2500),  # Andes
    (-5.0, -78.5, -17.0, -69.5, 150, 3500),
    (-17.0, -68.0, -33.0, -69.5, 160, 3400),
    (-33.0, -70.0, -51.0, -73.0, 70, 1100),
    (-14.0, -47.0, -22.0, -45.0, 380, 700),  # Brazilian Highlands
    (31.5, -6.5, 35.5, 3.0, 90, 1250),  # Atlas
    (7.0, 37.5, 13.0, 38.5, 210, 1900),  # Ethiopian Highlands
    (-10.0, 34.0, 1.0, 36.0, 260, 1250),  # East Africa
    (-27.0, 27.0, -22.0, 20.0, 430, 1200),  # Southern Africa
    (66.0, -44.0, 78.0, -40.0, 360, 2500),  # Greenland
    (-85.0, 30.0, -78.0, 110.0, 1100, 3000),  # East Antarctica
    (-80.0, -100.0, -78.0, -130.0, 600, 1500),  # West Antarctica
)
"""The great mountain ranges and plateaus, with a broad brush."""

TERRAIN_SEED = 1
"""The ground is the same for every seed of the weather."""


@dataclass(frozen=True, eq=False)
class Waves:
    """A sum of waves A cos(m longitude + n latitude + phase - frequency t).

    Parameters
    ----------
    m
        Whole waves on a circle of latitude: integers, so that there is no seam.
    n
        Waves in 2 pi of latitude.
    amplitude, phase, frequency
        In the unit of the sum; radians; radians a second.
    """

    m: Floats
    n: Floats
    amplitude: Floats
    phase: Floats
    frequency: Floats

    @classmethod
    def systems(cls, seed: int, deviation: float) -> Waves:
        """Highs and lows: waves of 2,000 to 6,500 km that travel as Rossby waves do.

        c = U - beta / (k2 + l2), so that long waves stand and short ones go with the westerlies
        (Rossby 1939, J. Marine Res. 2, 38; Haurwitz 1940, ibid. 3, 35), with U = 15 m s-1.
        """
        of_m, of_n, of_phase, of_size = _uniform(seed, 0, 4, 48)
        m = 4.0 + np.floor(10.0 * of_m)
        n = 10.0 * (2.0 * of_n - 1.0)
        eastward, northward = m / PARALLEL_RADIUS, n / EARTH_RADIUS
        beta = 2.0 * EARTH_ROTATION * math.cos(STORMY) / EARTH_RADIUS
        speed = 15.0 - beta / (eastward**2 + northward**2)
        size = (0.5 + of_size) * m**-0.7
        return cls(m, n, _scaled(size, deviation), 2.0 * math.pi * of_phase, eastward * speed)

    @classmethod
    def texture(
        cls, seed: int, stream: int, lengths_km: tuple[float, float], *, drifts: bool = True
    ) -> Waves:
        """Detail of unit variance between two wavelengths, drifting east by 7 to 15 m s-1."""
        of_length, of_course, of_phase, of_east, of_north = _uniform(seed, stream, 5, 48)
        short, long = lengths_km
        wavenumber = 2.0 * math.pi / (1000.0 * short * (long / short) ** of_length)
        course = 2.0 * math.pi * of_course
        m = np.rint(wavenumber * np.cos(course) * PARALLEL_RADIUS)
        n = wavenumber * np.sin(course) * EARTH_RADIUS
        east, north = 7.0 + 8.0 * of_east, 8.0 * of_north - 4.0
        frequency = m / PARALLEL_RADIUS * east + n / EARTH_RADIUS * north
        amplitude = _scaled(wavenumber**-0.8, 1.0)
        return cls(m, n, amplitude, 2.0 * math.pi * of_phase, frequency * float(drifts))

    def along(self, longitude: Floats) -> Floats:
        """What depends on longitude [radian] alone, for `sum` and `gradient`."""
        turns = np.outer(self.m, longitude)
        return np.concatenate([np.cos(turns), -np.sin(turns)])

    def sum(self, latitude: Floats, along: Floats, seconds: float) -> Floats:
        """The sum at a time, shape (latitude, longitude)."""
        cos, sin = self._across(latitude, seconds)
        return np.hstack([cos, sin]) @ along

    def gradient(self, latitude: Floats, along: Floats, seconds: float) -> tuple[Floats, Floats]:
        """The sum's derivatives by longitude and by latitude [1/radian], shaped as the sum."""
        cos, sin = self._across(latitude, seconds)
        by_longitude = np.hstack([-self.m * sin, self.m * cos]) @ along
        by_latitude = np.hstack([-self.n * sin, self.n * cos]) @ along
        return by_longitude, by_latitude

    def _across(self, latitude: Floats, seconds: float) -> tuple[Floats, Floats]:
        turns = np.outer(latitude, self.n) + (self.phase - self.frequency * seconds)
        return self.amplitude * np.cos(turns), self.amplitude * np.sin(turns)


@dataclass(frozen=True, eq=False)
class Places:
    """The cells of a block, and what of the weather does not change there.

    Parameters
    ----------
    rows, index
        The grid's rows that the block touches, and its cells within these, flattened.
    latitude, longitude
        Radians.
    height
        Metres above the sea.
    """

    rows: slice
    index: NDArray[np.intp]
    latitude: Floats
    longitude: Floats
    height: Floats


class Weather:
    """The weather on a grid.

    Parameters
    ----------
    seed
        Another seed, other weather.
    latitude, longitude
        The grid's axes, degrees.
    """

    def __init__(self, seed: int, latitude: Floats, longitude: Floats) -> None:
        self._latitude, self._longitude = np.radians(latitude), np.radians(longitude)
        self._systems = Waves.systems(seed, deviation=950.0)
        self._clouds = Waves.texture(seed, 1, (70.0, 600.0))
        self._detail = Waves.texture(seed, 2, (50.0, 350.0))
        self._along = {
            waves: waves.along(self._longitude)
            for waves in (self._systems, self._clouds, self._detail)
        }

    def at(self, time_ns: int, block: Block) -> dict[str, Floats]:
        """Temperature [K], u10 and v10 [m s-1], and surface pressure [Pa] of a block's cells."""
        places = self._places(block)
        seconds = time_ns / 1e9 - J2000_S
        days = seconds / DAY_S
        phi, height = places.latitude, places.height
        sine, cosine = np.sin(phi), np.cos(phi)

        showers = self._sum(self._clouds, places, seconds)
        detail = self._sum(self._detail, places, seconds)
        season = math.cos(2.0 * math.pi * (days - 200.0) / YEAR_DAYS)
        anomaly, eastward, northward = self._pressure(places, seconds, season)

        # Wind: balance of pressure gradient, Coriolis force and friction (Guldberg and Mohn
        # 1876). It turns towards low pressure, and stays finite at the equator.
        coriolis = 2.0 * EARTH_ROTATION * sine
        both = coriolis**2 + FRICTION**2
        u = -(FRICTION * eastward + coriolis * northward) / both
        v = (coriolis * eastward - FRICTION * northward) / both
        southerly = coriolis * eastward / both

        # Sun: Cooper's declination (1969, Solar Energy 12, 333), the hour angle, and the span of
        # the sun's height between midnight and noon.
        declination = -TILT * math.cos(2.0 * math.pi * (days + 10.0) / YEAR_DAYS)
        hour = 2.0 * math.pi * (days % 1.0) + places.longitude - math.pi
        span = np.maximum(np.cos(phi - declination), 0.0) - np.maximum(
            -np.cos(phi + declination), 0.0
        )
        # Warmest at 15, coldest at 5 o'clock: the fall takes longer than the rise.
        late = hour - math.radians(45.0)
        course = span * np.cos(late - 0.26 * (1.0 - np.cos(late)))

        cloud = 0.5 + 0.5 * np.tanh(-anomaly / 900.0 + 0.8 * showers - 0.2)
        # The mean over land at sea level by latitude, and its swing over the year.
        climate = 303.15 - 18.0 * sine**2 - 22.0 * sine**4 + 13.0 * sine * season
        temperature = (
            climate
            - LAPSE * height
            + 7.0 * course * (1.0 - 0.7 * cloud)
            # Air from the south is warm ahead of a low, from the north cold behind it.
            + 4.2 * np.sin(2.0 * phi) * np.tanh(southerly / 5.0 + 0.25 * detail)
            + 0.7 * detail
        )

        # The atmosphere's tide: highest at 10 and 22 o'clock (Haurwitz 1956).
        tide = 116.0 * cosine**3 * np.cos(2.0 * (hour + math.radians(30.0)))
        mean = SEA_LEVEL_PRESSURE - 500.0 * np.cos(6.0 * phi)
        pressure = (mean + anomaly + tide) * at_height(height)

        # The sun stirs the air, so that more of the wind reaches the ground.
        share = SURFACE_WIND * (1.0 + 0.3 * course)
        values = {
            "temperature": temperature,
            "u10": share * u + 0.6 * detail,
            "v10": share * v + 0.6 * showers,
            "pressure": pressure,
        }
        return {name: np.rint(values[name] * step) / step for name, step in STEPS.items()}

    def _pressure(
        self, places: Places, seconds: float, season: float
    ) -> tuple[Floats, Floats, Floats]:
        """The pressure of the systems [Pa], and the acceleration by the whole gradient [m s-2].

        Storms are strongest at 45 degrees and in winter, and vanish at the equator and the poles;
        the mean has its belt of highs at 30 and of lows at 60 degrees.
        """
        rows, along = self._latitude[places.rows], self._along[self._systems]
        waves = self._sum(self._systems, places, seconds)
        by_longitude, by_latitude = (
            part.ravel()[places.index] for part in self._systems.gradient(rows, along, seconds)
        )
        phi = places.latitude
        sine = np.sin(2.0 * phi)
        winter, of_winter = 1.0 - 0.55 * season * np.sin(phi), -0.55 * season * np.cos(phi)
        belt, of_belt = sine**2 * winter, 2.0 * np.sin(4.0 * phi) * winter + sine**2 * of_winter
        eastward = belt * by_longitude / np.maximum(np.cos(phi), 1e-6)
        northward = belt * by_latitude + of_belt * waves + 3000.0 * np.sin(6.0 * phi)
        scale = 1.0 / (AIR_DENSITY * EARTH_RADIUS)
        return belt * waves, eastward * scale, northward * scale

    def _sum(self, waves: Waves, places: Places, seconds: float) -> Floats:
        field = waves.sum(self._latitude[places.rows], self._along[waves], seconds)
        return field.ravel()[places.index]

    def _places(self, block: Block) -> Places:
        kept = block.cells.cache.get("weather")
        if kept is None:
            width = len(self._longitude)
            row, column = np.divmod(block.index, width)
            rows = slice(int(row[0]), int(row[-1]) + 1)
            latitude, longitude = self._latitude[row], self._longitude[column]
            terrain = Waves.texture(TERRAIN_SEED, 3, (30.0, 250.0), drifts=False)
            rough = terrain.sum(self._latitude[rows], terrain.along(self._longitude), 0.0)
            index = block.index - rows.start * width
            height = _height(latitude, longitude, rough.ravel()[index])
            kept = Places(rows, index, latitude, longitude, height)
            block.cells.cache["weather"] = kept
        places: Places = kept
        return places


def at_height(height: Floats) -> Floats:
    """Pressure at a height [m] as a share of that at sea level (ISO 2533)."""
    return (1.0 - LAPSE * height / SEA_LEVEL_TEMPERATURE) ** BAROMETRIC_EXPONENT


def _height(latitude: Floats, longitude: Floats, rough: Floats) -> Floats:
    """Height above the sea [m]: the ranges, with hills and valleys of variance one on them."""
    height = np.zeros(len(latitude))
    cosine = np.cos(latitude)
    for lat0, lon0, lat1, lon1, width, top in RANGES:
        # Everything in km east and north of the range's first end, on the point's latitude.
        x = _turned(longitude - math.radians(lon0)) * cosine
        y = latitude - math.radians(lat0)
        along_x, along_y = math.radians(lon1 - lon0) * cosine, math.radians(lat1 - lat0)
        share = np.clip((x * along_x + y * along_y) / (along_x**2 + along_y**2), 0.0, 1.0)
        distance = np.hypot(x - share * along_x, y - share * along_y) * EARTH_RADIUS / 1000.0
        height = np.maximum(height, top * np.exp(-0.5 * (distance / width) ** 2))
    hills = np.tanh(rough)
    return height * (1.0 + 0.3 * hills) + 60.0 * (1.0 + hills)


def _turned(angle: Floats) -> Floats:
    return (angle + math.pi) % (2.0 * math.pi) - math.pi


def _scaled(size: Floats, deviation: float) -> Floats:
    """Amplitudes of a sum with this standard deviation."""
    return size * (deviation / math.sqrt(0.5 * float(np.sum(size**2))))


def _uniform(seed: int, stream: int, rows: int, columns: int) -> Floats:
    """Random numbers of [0, 1), the same for ever: PCG64's own bits, whose stream is fixed."""
    bits = np.random.PCG64([seed, stream]).random_raw(rows * columns)
    return (bits >> np.uint64(11)).astype(np.float64).reshape(rows, columns) * 2.0**-53

"""The variables of a dataset: what a person calls them, their units and their colours."""

from __future__ import annotations

import math
import threading
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from climatestream import variables
from climatestream.colors import COLORS, Scale
from climatestream.dashboards.panels import COMPUTED, iso
from climatestream.ingest import ORIGINAL_TIME

if TYPE_CHECKING:
    from climatestream.variables import Variable
    from climatestream.web.asking import Asking
    from climatestream.web.frames import Frame
    from climatestream.web.looks import Slice

UNITS_S: Final = 5.0
"""Age of the units that messages stated at most [s]."""
NO_VARIABLES: Final = frozenset({"latitude", "longitude", ORIGINAL_TIME})
"""Numbers in `data` that are no variables."""
_NO_SCALE: Final = Scale("dusk", (0.0, 0.5, 1.0))


@dataclass(frozen=True)
class Choice:
    """A variable that can be chosen: what a person calls it, its unit and its colours.

    `factor` leads from the unit of the store to the one shown; `knots` and the plausible range
    are as shown. Without a plausible range `plausible` is None.
    """

    name: str
    label: str
    unit: str
    factor: float
    colors: tuple[str, ...]
    knots: tuple[float, ...]
    plausible: tuple[float, float] | None


class Choices:
    """What there is to choose from in each dataset, and what its data is not."""

    def __init__(self, asking: Asking) -> None:
        self._asking = asking
        self._lock = threading.Lock()
        self._samples: dict[str, tuple[datetime, float | None]] = {}
        self._seen: defaultdict[str, set[str]] = defaultdict(set)
        self._free_scales: dict[tuple[str, str], Scale] = {}

    def describe(self, dataset: str, slice_: Slice) -> tuple[tuple[Choice, ...], str | None]:
        """The variables of a dataset, the registry's first, and what to say of its data."""
        with self._lock:
            at, original_ms = self._samples.get(dataset, (None, None))
            if at != slice_.time:
                fields, original_ms = self._ask_sample(dataset, slice_.time)
                self._seen[dataset] |= fields
                self._samples[dataset] = slice_.time, original_ms
            names = self._seen[dataset] | set(self._units(dataset)) - NO_VARIABLES
        names |= {name for name, computed in COMPUTED.items() if names.issuperset(computed.of)}
        order = {variable.name: float(n) for n, variable in enumerate(variables.VARIABLES)}
        order |= {name: order[one.of[0]] - 0.5 for name, one in COMPUTED.items()}
        ordered = sorted(names, key=lambda name: (order.get(name, 999), name))
        return tuple(self.choice(dataset, name) for name in ordered), _notice(dataset, original_ms)

    def _ask_sample(self, dataset: str, at: datetime) -> tuple[set[str], float | None]:
        """The variables of some readings, and the newest time that they were read from [ms]."""
        objects = [
            row[0]
            for row in self._asking.query(
                'SELECT data FROM demo.climate_data WHERE dataset = ? AND "timestamp" = ? LIMIT 50',
                [dataset, iso(at)],
            ).rows
        ]
        names = {
            name
            for data in objects
            for name, value in data.items()
            if isinstance(value, float | int) and not isinstance(value, bool)
        }
        times = [data[ORIGINAL_TIME] for data in objects if data.get(ORIGINAL_TIME)]
        return names - NO_VARIABLES, max(times, default=None)

    def choice(self, dataset: str, name: str) -> Choice:
        """What is to be said of a variable."""
        known = known_variable(name)
        scale = known.scale if known else self._free_scales.get((dataset, name), _NO_SCALE)
        factor = known.shown_factor if known else 1.0
        return Choice(
            name=name,
            label=known.label if known else name,
            unit=known.shown_unit if known else self._units(dataset).get(name, ""),
            factor=factor,
            colors=COLORS[scale.colors],
            knots=tuple(float(f"{knot * factor:.12g}") for knot in scale.knots),
            plausible=(known.valid_min * factor, known.valid_max * factor) if known else None,
        )

    def _units(self, dataset: str) -> dict[str, str]:
        return self._asking.fresh(
            ("units", dataset),
            lambda: dict(
                self._asking.query(
                    "SELECT variable, unit FROM demo.datasets WHERE dataset = ?", [dataset]
                ).rows
            ),
            UNITS_S,
        )

    def scale(self, dataset: str, variable: str, frame: Frame) -> Scale:
        """The registry's scale; for what it does not know one that only ever grows."""
        known = known_variable(variable)
        if known is not None:
            return known.scale
        scale = self._free_scales.get((dataset, variable))
        found = frame.range()
        if found is None:
            return scale or _NO_SCALE
        low, _, high = found
        if scale is None:
            scale = _round_scale(low, high)
        elif low < scale.vmin or high > scale.vmax:
            scale = _round_scale(min(low, scale.vmin), max(high, scale.vmax))
        self._free_scales[dataset, variable] = scale
        return scale


def known_variable(name: str) -> Variable | None:
    """The variable as the registry has it, or as it is computed; None where neither knows it."""
    computed = COMPUTED.get(name)
    return computed.variable if computed is not None else variables.by_name(name)


def _notice(dataset: str, original_ms: float | None) -> str | None:
    if dataset.partition("/")[0] == "simulation":
        return "simulated data, not ERA5-Land"
    if not dataset.endswith("/replay"):
        return None
    if original_ms is None:
        return "replayed data: the times are not those of the readings"
    original = datetime.fromtimestamp(original_ms / 1000.0, UTC)
    return f"data of {original:%Y-%m-%d %H:%M} UTC, replayed"


def _round_scale(low: float, high: float) -> Scale:
    """Five steps or so of 1, 2 or 5 times a power of ten; around zero where there are two signs."""
    if low < 0.0 < high:
        high = max(-low, high)
        low = -high
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / 4.0))
    step = power * next(m for m in (1.0, 2.0, 5.0, 10.0) if m * power * 4.0 >= span)
    first, last = math.floor(low / step), max(math.ceil(high / step), math.floor(low / step) + 2)
    knots = tuple(round(place * step, 12) for place in range(first, last + 1))
    return Scale("balance" if low < 0.0 < high else "dusk", knots)

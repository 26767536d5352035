"""The colour scales: which colour a value has, in every picture, legend and dashboard.

The colours were designed for this project: paths through the OKLab space, drawn by hand and cut
into steps of equal perceived difference. Sequential scales grow steadily lighter; diverging ones
are lightest in the middle. Lightness carries the order, so they can be read without telling red
from green; the tests simulate the three kinds of colour blindness.

OKLab: https://bottosson.github.io/posts/oklab/
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


def _stops(text: str) -> tuple[str, ...]:
    return tuple(text.split())


COLORS: Final[dict[str, tuple[str, ...]]] = {
    "thermal": _stops(  # cold, pale, hot
        "#2a2388 #2c3fac #2c5ec8 #2e7fd8 #3b9fe2 #53bde5 #88d3da #c2e2c4 #f7efa8 "
        "#fbd06f #fbb044 #f68e35 #ec6b30 #dd452f #c12d35 #9e1f39 #7d0f3a"
    ),
    "balance": _stops(  # what can be negative or positive
        "#4a2a86 #5f409f #7456b9 #896fc9 #9f89d5 #b5a2e0 #cabce6 #ded7ea #f4f1ee "
        "#f4dcc1 #f2c692 #ebae6b #e19547 #d17d24 #b96a1b #a15811 #8a4607"
    ),
    "dusk": _stops(  # pressure, and what has no nearer scale
        "#2a1e5c #3b256d #4c2b7e #5f328d #743a94 #8a4296 #a04997 #b25495 #c3618f "
        "#d46d89 #e17c86 #e98e86 #f1a086 #f7b38e #fac79f #fcdbb1 #fdeec4"
    ),
    "rain": _stops(  # water, dark where there is none
        "#162a4a #18355e #1a4072 #1c4b87 #1d5998 #1f69a4 #2078b1 #2388ba #2998be "
        "#30a7c2 #41b7c4 #5bc4c4 #74d2c3 #90dec5 #afe8cb #cdf2d2 #eafbd9"
    ),
    "ember": _stops(  # radiation
        "#33142e #481833 #5d1c39 #731f3d #89263e #9d2f3c #b33839 #c54635 #d35933 "
        "#e06c30 #eb8030 #f19537 #f7aa40 #fbbf52 #fdd278 #fee49e #fff6c2"
    ),
    "moss": _stops(  # soil and plants
        "#3d2a1c #49351f #564121 #634d23 #6d5a26 #746929 #7b782d #7d8733 #7a983c "
        "#74a846 #78b857 #88c56c #97d280 #abde95 #c1e7a9 #d8f1be #eefad2"
    ),
    "ice": _stops(  # snow and ice
        "#22304a #293b59 #304669 #375279 #3f5e88 #496b96 #5478a3 #5f85af #6b92bc "
        "#799fc6 #89adcf #98bad8 #a9c7e1 #bbd4e9 #cee1f0 #e1edf8 #f4faff"
    ),
}
"""The scales by name: sRGB stops at equal distances from the lowest to the highest."""


@dataclass(frozen=True)
class Scale:
    """A colour scale with the values that it stands for; fixed, so that pictures compare.

    Parameters
    ----------
    colors
        A name in `COLORS`.
    knots
        Ascending values in the unit of the store at equal distances along the scale, linear in
        between; the ticks of the legend. Uneven knots give more of the colours to the values
        that are frequent. Values outside have the colour of the end.
    """

    colors: str
    knots: tuple[float, ...]

    @property
    def vmin(self) -> float:
        """The value of the first colour, in the unit of the store."""
        return self.knots[0]

    @property
    def vmax(self) -> float:
        """The value of the last colour, in the unit of the store."""
        return self.knots[-1]

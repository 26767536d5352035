"""A latitude-longitude grid as the cells of batches, computed once and shared by all times."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from climatestream import countries
from climatestream.model import BATCH_ROWS, Cells

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from climatestream.region import Region

KEPT_CELLS = 200_000
"""Cells of a grid up to which its blocks are kept between times [cells]: with what the codec
derives from them about 300 bytes a cell. A larger grid makes them anew for each time."""


@dataclass(frozen=True, eq=False)
class Block:
    """Some cells of a grid, and their places in a flattened (latitude, longitude) field."""

    cells: Cells
    index: NDArray[np.intp]


class Grid:
    """A rectilinear grid, narrowed to a region.

    Parameters
    ----------
    latitude, longitude
        The axes, float64 degrees as the file has them, in the file's order.
    region
        Cells outside are left out; None keeps all. Asked once.
    """

    def __init__(
        self,
        latitude: NDArray[np.float64],
        longitude: NDArray[np.float64],
        region: Region | None = None,
        rows: int = BATCH_ROWS,
    ) -> None:
        self.latitude = latitude
        self.longitude = longitude
        self.shape = (len(latitude), len(longitude))
        self._rows = rows
        self._inside = None if region is None else region.contains(latitude, longitude).ravel()
        self._country: NDArray[np.int16] | None = None
        self._kept: tuple[NDArray[np.bool_], list[Block]] | None = None

    def blocks(self, valid: NDArray[np.bool_]) -> Iterator[Block]:
        """The cells that are valid and in the region, cut into blocks.

        Parameters
        ----------
        valid
            Shape (latitude, longitude) or flat: the cells with at least one value.
        """
        chosen = valid.ravel()
        if self._inside is not None:
            chosen = chosen & self._inside
        if self._kept is not None and np.array_equal(self._kept[0], chosen):
            yield from self._kept[1]
            return
        index = np.flatnonzero(chosen)
        blocks = self._cut(index)
        if len(index) <= KEPT_CELLS:
            self._kept = (chosen.copy(), list(blocks))
            blocks = iter(self._kept[1])
        yield from blocks

    def _cut(self, index: NDArray[np.intp]) -> Iterator[Block]:
        if self._country is None:
            self._country = countries.lookup(self.latitude, self.longitude).ravel()
        for start in range(0, len(index), self._rows):
            part = index[start : start + self._rows]
            row, column = np.divmod(part, len(self.longitude))
            country = countries.CODES_OR_NONE[self._country[part]].tolist()
            yield Block(Cells(self.latitude[row], self.longitude[column], country), part)

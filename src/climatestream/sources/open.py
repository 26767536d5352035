"""SOURCE as it is typed, as a source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from climatestream.errors import UsageError
from climatestream.sources.selection import Selection

if TYPE_CHECKING:
    from climatestream.ports import Source

SIMULATION = "simulation:"
DATASET = "simulation"
"""The name that no real reading may have."""


def open_source(specs: Sequence[str], selection: Selection) -> Source:
    """The source that some arguments name: files, folders and globs, or `simulation:`.

    Raises
    ------
    UsageError, SourceError
        What they name can't be read.
    """
    if not any(spec.startswith(SIMULATION) for spec in specs):
        from climatestream.sources.files import open_files

        if selection.dataset == DATASET:
            raise UsageError(
                f"dataset {DATASET!r} is what simulation: makes: name what the files are, such as "
                f"era5-land/hourly"
            )
        return open_files(specs, selection)
    if len(specs) > 1:
        raise UsageError(
            f"simulation: can't be mixed with other sources, got {' '.join(specs)}: "
            f"publish one after the other"
        )
    from climatestream.sources.simulation import Simulation

    return Simulation(specs[0], selection)

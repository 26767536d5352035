"""SOURCE as it is typed, as a source."""

from __future__ import annotations

import glob
import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from climatestream.errors import UsageError
from climatestream.sources.selection import Selection

if TYPE_CHECKING:
    from climatestream.ports import Source
    from climatestream.sources.cache import Cache

SIMULATION = "simulation:"
DATASET = "simulation"
"""The name that no real reading may have."""


GIB: Final = 1024**3


@dataclass(frozen=True)
class Around:
    """What sources need besides what is asked of them.

    Parameters
    ----------
    cache_folder
        Where what services send is kept; None: where the system keeps what can be had again.
    cache_size
        How much of it at most [bytes].
    stop
        Ends a wait for a service.
    """

    cache_folder: Path | None = None
    cache_size: int = 20 * GIB
    stop: threading.Event = field(default_factory=threading.Event)

    def cache(self) -> Cache:
        """The cache, made where it is not there."""
        from climatestream.sources import cache

        return cache.Cache(self.cache_folder or cache.default_folder(), self.cache_size)


def open_source(specs: Sequence[str], selection: Selection, around: Around = Around()) -> Source:
    """The source that some arguments name: files, folders and globs, `simulation:`, or a service.

    Raises
    ------
    UsageError, SourceError
        What they name can't be read.
    """
    named = [spec for spec in specs if service_of(spec)]
    if not named:
        for spec in specs:
            _check_meant(spec)
        from climatestream.sources.files import open_files

        if selection.dataset == DATASET:
            raise UsageError(
                f"dataset {DATASET!r} is what simulation: makes: name what the files are, such as "
                f"era5-land/hourly"
            )
        return open_files(specs, selection)
    if len(specs) > 1:
        raise UsageError(
            f"{service_of(named[0])} can't be mixed with other sources, got {' '.join(specs)}: "
            f"publish one after the other"
        )
    return _SERVICES[service_of(specs[0])](specs[0], selection, around)


def service_of(spec: str) -> str:
    """The service that a source names, its colon included; empty of a file."""
    prefix = spec.partition(":")[0] + ":"
    return prefix if prefix in _SERVICES else ""


def _check_meant(spec: str) -> None:
    """Refuse what is no file and was meant for a service: mistyped, or without its name."""
    prefix = re.match(r"[A-Za-z_-]{2,}:(?!//)", spec)
    dataset = re.match(r"(reanalysis-|derived-)?era5(-land)?[/-]", spec)
    if not (prefix or dataset) or glob.has_magic(spec) or os.path.lexists(spec):
        return
    services = ", ".join(_SERVICES)
    if prefix:
        raise UsageError(
            f"{spec} is no file, and {prefix[0]} no service: expected one of {services}"
        )
    raise UsageError(
        f"there is no file or folder {spec}: a dataset is read from a service ({services}), as in "
        f"auto:{spec}"
    )


def _simulation(spec: str, selection: Selection, _: Around) -> Source:
    from climatestream.sources.simulation import Simulation

    return Simulation(spec, selection)


def _cds(spec: str, selection: Selection, around: Around) -> Source:
    from climatestream.sources.cds import PREFIX, DataStoreRequest, DataStoreSource

    name = spec.removeprefix(PREFIX)
    request = DataStoreRequest(name, selection, around.cache(), around.stop)
    return DataStoreSource(request)


def _archive(spec: str, selection: Selection, _: Around) -> Source:
    from climatestream.sources.zarr_source import ZarrSource

    return ZarrSource(spec, selection)


def _auto(spec: str, selection: Selection, around: Around) -> Source:
    from climatestream.sources.auto import open_auto

    return open_auto(spec, selection, around)


def _open_meteo(spec: str, selection: Selection, around: Around) -> Source:
    from climatestream.sources.open_meteo import OpenMeteo

    return OpenMeteo(spec, selection, around.stop)


_SERVICES: Final[Mapping[str, Callable[[str, Selection, Around], Source]]] = {
    SIMULATION: _simulation,
    "cds:": _cds,
    "auto:": _auto,
    "arco:": _archive,
    "edh:": _archive,
    "open-meteo:": _open_meteo,
}

"""`arco:` and `edh:`: readings from an archive that is read as Zarr, without a queue.

What there is, is known from metadata and axes alone; values are read when a slice is asked for,
and only the chunks that the region and the dates lie in. Each variable becomes a `Field`, as one
of a file does, and goes the same way from there: names, units, sums since midnight, merging.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Self

import numpy as np

from climatestream import variables
from climatestream.errors import NotServed, SourceError, UsageError
from climatestream.progress import say
from climatestream.sources import accumulated, archives, naming, times
from climatestream.sources.dataset_name import Evidence
from climatestream.sources.field import Field
from climatestream.sources.files import layers_of
from climatestream.sources.preliminary import final_before_ns
from climatestream.sources.request import Area, Request, request_of
from climatestream.sources.selection import time_text
from climatestream.sources.zarr_array import (
    PATIENCE,
    Array,
    Cut,
    CutReader,
    Patience,
    Plan,
    Traffic,
    ZarrStore,
    open_store,
    total,
)

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import NDArray

    from climatestream.model import Batch, Slice
    from climatestream.sources.merge import Layer
    from climatestream.sources.selection import Selection

SERVICES: Final = {"arco": "ECMWF's ARCO archive", "edh": "Earth Data Hub"}

REQUEST_COSTS: Final = 1024 * 1024
"""What a request costs beside its bytes [bytes]: which of two cuts of a store is the quicker is
told by bytes and requests together; at 10 MB/s and 0.1 s a request they are equal here."""

_OFF_GRID: Final = 0.02
"""How far off its place on the grid a coordinate may be [degree]: a fifth of a step."""


@dataclass(frozen=True, eq=False)
class _Found:
    """A variable, the part of it that is asked for, and what reading that takes."""

    array: Array
    cut: Cut
    since_midnight: bool

    @property
    def plan(self) -> Plan:
        return self.array.plan(self.cut)


class ZarrSource:
    """The source `arco:DATASET` or `edh:DATASET`.

    Parameters
    ----------
    spec
        As it is typed; the dataset's name is ours, or the service's.
    selection
        With both dates; without a region all of the grid.
    say
        Told what will be asked for before it is.
    now_ns
        The present, for what the archive does not say: which values are preliminary.

    Raises
    ------
    UsageError
        No dataset is named, another one is stated, or there are no dates.
    """

    def __init__(
        self,
        spec: str,
        selection: Selection,
        *,
        say: Callable[[str], None] = say,
        now_ns: Callable[[], int] = time.time_ns,
        patience: Patience = PATIENCE,
    ) -> None:
        self.service = spec.partition(":")[0]
        dataset = archives.dataset_of(spec)
        if selection.dataset not in {None, dataset}:
            raise UsageError(
                f"{spec} is the dataset {dataset} and can't be stated to be "
                f"{selection.dataset!r}: leave --dataset out"
            )
        self._selection = replace(selection, dataset=dataset)
        self.request = request_of(dataset, selection)
        self._say = say
        self._now_ns = now_ns
        self._patience = patience
        self._resources = ExitStack()
        self._layers: list[Layer] = []
        self._stores: dict[str, ZarrStore] = {}
        self._axes: dict[
            str, tuple[NDArray[np.int64], Cut, NDArray[np.float64], NDArray[np.float64]]
        ]
        self._axes = {}
        self.traffic = Traffic()
        self.plan = Plan(0, 0)
        """What reading all of it takes."""

    def __enter__(self) -> Self:
        """Read metadata and axes, and say what will be read.

        Raises
        ------
        NotServed
            The service lacks something of what is asked for, or there is no key.
        SourceUnavailable
            It does not answer.
        SourceError
            What it has is not what is expected.
        """
        try:
            self._open()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _open(self) -> None:
        request = self.request
        places = archives.whereabouts(self.service, request.dataset, request.variables)
        headers = archives.headers(self.service)
        folder = self._resources.enter_context(tempfile.TemporaryDirectory(prefix="climatestream-"))
        found = {name: self._find(name, where, headers) for name, where in places.items()}
        self.plan = total([each.plan for each in found.values()])
        cutoff_ns = final_before_ns(self._now_ns())
        fields = [self._field(each, folder, cutoff_ns) for each in found.values()]
        self._layers = layers_of(fields, self._selection)
        self._say_plan({each.array.store.url for each in found.values()})
        if any((field.time_ns >= cutoff_ns).any() for field in fields):
            self._say(
                f"{SERVICES[self.service]} does not say which values are preliminary: those from "
                f"{time_text(cutoff_ns)} on are taken for it, by their date"
            )
        newest_ns = max((slice_.time_ns for slice_ in self.slices()), default=request.end_ns)
        if newest_ns + request.step_ns < request.end_ns:
            self._say(
                f"{SERVICES[self.service]} has {request.dataset} up to {time_text(newest_ns)}"
            )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._layers = []
        self._stores.clear()
        self.traffic.give_up()
        self._resources.close()

    def slices(self) -> Sequence[Slice]:
        """What there is of what is asked for."""
        from climatestream.model import Slice

        found = {
            Slice(time_ns, layer.dataset)
            for layer in self._layers
            for time_ns in layer.time_ns.tolist()
        }
        return sorted(found)

    def read(self, slice_: Slice) -> Iterator[Batch]:
        """The readings of a slice.

        Raises
        ------
        SourceUnavailable
            The service does not answer any more.
        NotServed
            It does not take the key any more.
        SourceError
            A chunk is damaged.
        """
        for layer in self._layers:
            if layer.dataset == slice_.dataset:
                yield from layer.read(slice_.time_ns)

    # -------------------------------------------------------------------------------- pieces

    def _find(self, name: str, where: archives.Where, headers: dict[str, str]) -> _Found:
        """A variable in the store whose chunks suit the request best."""
        choices = []
        for url in where.urls:
            store = self._store(url, headers)
            here = [str(n) for n in store.dataset.variables if naming.our_name(str(n)) == name]
            if not here:
                raise NotServed("variable", f"{url} holds no {name}: leave it out, or take cds:")
            array = Array(store, here[0])
            choices.append(_Found(array, self._cut(array, url), where.since_midnight))
        return min(choices, key=lambda found: found.plan.requests * REQUEST_COSTS + found.plan.size)

    def _store(self, url: str, headers: dict[str, str]) -> ZarrStore:
        if url not in self._stores:
            self._stores[url] = open_store(url, headers, self.traffic, self._patience)
        return self._stores[url]

    def _cut(self, array: Array, url: str) -> Cut:
        """The part of an array that is asked for; of a store all arrays have the same axes."""
        if url not in self._axes:
            store, request = array.store, self.request
            latitude, longitude = (
                store.coordinate(kind).astype(np.float64) for kind in ("latitude", "longitude")
            )
            time_ns = _times_of(store)
            rows = _within(latitude, request.area, url)
            columns = _around(longitude, request.area, url)
            cut = Cut(self._span(time_ns, url), rows, columns)
            self._axes[url] = (time_ns[cut.times], cut, latitude[rows], longitude[columns])
        return self._axes[url][1]

    def _span(self, time_ns: NDArray[np.int64], url: str) -> slice:
        """The places of the times that are asked for, and of those that these are made of."""
        request = self.request
        start_ns, end_ns = request.start_ns, request.end_ns
        if request.dataset == accumulated.DAILY_SUM:
            start_ns, end_ns = start_ns + accumulated.DAY_NS, end_ns + accumulated.DAY_NS
        elif self.service == "edh" and any(map(_accumulates, request.variables)):
            start_ns -= accumulated.HOUR_NS
        start, stop = np.searchsorted(time_ns, [start_ns, end_ns]).tolist()
        if start >= stop or time_ns[stop - 1] < request.start_ns:
            raise NotServed(
                "time",
                f"{url} has no time between {time_text(request.start_ns)} and "
                f"{time_text(request.end_ns - 1)}: it holds {time_text(int(time_ns[0]))} to "
                f"{time_text(int(time_ns[-1]))}",
            )
        return slice(start, stop)

    def _field(self, found: _Found, folder: str, cutoff_ns: int) -> Field:
        array = found.array
        time_ns, cut, latitude, longitude = self._axes[array.store.url]
        units = array.variable.attrs.get("units")
        return Field(
            file=array.store.url,
            name=array.name,
            units=None if units is None else str(units),
            latitude=latitude,
            longitude=longitude,
            time_ns=time_ns,
            preliminary=(time_ns >= cutoff_ns).astype(np.int8),
            expver=(),
            value_bytes=array.variable.dtype.itemsize,
            chunk_times=1,
            evidence=self._evidence(found),
            read=CutReader(array, cut, folder),
        )

    def _evidence(self, found: _Found) -> Evidence:
        """What a file of this would say."""
        request: Request = self.request
        hourly = found.since_midnight or request.statistic == "hourly"
        said = request.product if hourly else f"{request.product} {request.statistic}"
        if not found.since_midnight:
            said += f" {accumulated.TIME_SERIES}"
        return Evidence(names=(said,), centre="ecmf", stream="oper" if hourly else "")

    def _say_plan(self, urls: set[str]) -> None:
        request, plan = self.request, self.plan
        largest = max(1, plan.size // max(1, plan.requests))
        cuts = {
            cut for url in urls for cut in ("geo", "time") if url.endswith(f"/{cut}Chunked.zarr")
        }
        cut = f", cut by {' and '.join(sorted(cuts))}" if cuts else ""
        self._say(
            f"{request.dataset} from {SERVICES[self.service]}: {plan.requests:,} chunks of "
            f"{_size(largest)}{cut}, {_size(plan.size)} before compression"
        )


def _accumulates(name: str) -> bool:
    variable = variables.by_name(name)
    return variable is not None and variable.accumulated


def _size(count: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count} bytes"


def _times_of(store: ZarrStore) -> NDArray[np.int64]:
    """The times of a store, ascending [ns, UTC]."""
    name = store.name_of("time")
    variable = store.dataset.variables[name]
    where = f"coordinate {name} of {store.url}"
    said = {**variable.attrs, **variable.encoding}
    found = times.decode(
        store.coordinate("time"),
        str(said.get("units", "")),
        str(said.get("calendar", "standard")),
        where,
    )
    if (np.diff(found) <= 0).any():
        raise SourceError(f"{where} does not ascend: a store like that can't be read by date")
    return found


def _within(latitude: NDArray[np.float64], area: Area, url: str) -> slice:
    """The successive rows whose latitudes are in a box."""
    near = np.flatnonzero(
        (latitude >= area.south - _OFF_GRID) & (latitude <= area.north + _OFF_GRID)
    )
    if not near.size:
        raise NotServed(
            "region",
            f"{url} has no latitude of {area.south:g}..{area.north:g}: it holds "
            f"{latitude.min():g}..{latitude.max():g}",
        )
    return slice(int(near[0]), int(near[-1]) + 1)


def _around(longitude: NDArray[np.float64], area: Area, url: str) -> NDArray[np.intp]:
    """The columns whose longitudes are in a box, from west to east, around the circle."""
    width = (area.east - area.west) % 360.0
    east_of = (longitude - area.west + _OFF_GRID) % 360.0
    near = np.flatnonzero(east_of <= width + 2 * _OFF_GRID)
    if not near.size:
        raise NotServed("region", f"{url} has no longitude of {area.west:g}..{area.east:g}")
    return near[np.argsort(east_of[near], kind="stable")]

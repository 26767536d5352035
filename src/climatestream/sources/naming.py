"""What the variables of files are called, what unit they have, and which dataset they are of."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from climatestream import codec, variables
from climatestream.errors import SourceError, UsageError
from climatestream.sources import dataset_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from climatestream.sources.field import Field

RESERVED = {*codec.PLACE_AND_TIME, *codec.LABELS, "original_timestamp"}
"""What a message says beside values: no variable may be called that."""


class Wanted:
    """Which variables are asked for; notes which there are.

    Parameters
    ----------
    tokens
        As a user names them; None: all.
    """

    def __init__(self, tokens: Sequence[str] | None) -> None:
        self._tokens: dict[str, str] | None = None
        self._unknown: dict[str, UsageError] = {}
        self._there: dict[str, None] = {}
        if tokens is not None:
            self._tokens = {}
            for token in tokens:
                try:
                    self._tokens[token] = variables.find(token).name
                except UsageError as error:
                    # It may be a variable that only the file knows.
                    self._tokens[token] = token
                    self._unknown[token] = error

    def __call__(self, name: str) -> bool:
        """Whether a variable of this name in a file is asked for."""
        self._there[name] = None
        return self._tokens is None or our_name(name) in self._tokens.values()

    def check(self) -> None:
        """Refuse what is asked for and is in no file.

        Raises
        ------
        UsageError
            No such variable is known.
        SourceError
            It is known, but not there.
        """
        ours = {our_name(name) for name in self._there}
        for token, name in (self._tokens or {}).items():
            if name not in ours:
                there = ", ".join(self._there)
                if token in self._unknown:
                    raise UsageError(f"{self._unknown[token]}; the files hold {there}")
                raise SourceError(f"no file given holds {token}: they hold {there}")


def known(name: str) -> variables.Variable | None:
    """The registry's entry for a variable's name in a file."""
    return variables.by_short_name(name) or variables.by_name(name) or variables.by_cds_name(name)


def our_name(name: str) -> str:
    """Our name for a variable of a file: its own where the registry does not know it."""
    variable = known(name)
    return name if variable is None else variable.name


def unit_of(field: Field) -> str | None:
    """The unit to be told with a variable: of one that the registry does not know, its own.

    A known variable without a unit has the registry's: its name is ECMWF's, and so says it.

    Raises
    ------
    SourceError
        A known variable has another unit, or the name of an unknown one can't be sent.
    """
    variable = known(field.name)
    if variable is None:
        if field.name in RESERVED or any(letter in field.name for letter in ".[]"):
            raise SourceError(
                f"{field.where} can't be sent under that name, expected one without dot and "
                "bracket that says nothing else in a message: rename it, with 'ncrename -v' for "
                "one, or name others with --variables"
            )
        return field.units
    if field.units is not None:
        found = variables.normal_unit(field.units)
        if found != variable.file_unit:
            raise SourceError(
                f"{field.where} has units {field.units!r}, expected {variable.file_unit!r} for "
                f"{variable.label}: convert it first, or leave it out with --variables"
            )
    return None


def check_units(fields: Sequence[Field]) -> None:
    """Refuse a variable that the registry does not know and that has two units.

    Raises
    ------
    SourceError
        Names both.
    """
    first: dict[str, Field] = {}
    for field in fields:
        other = first.setdefault(field.name, field)
        if known(field.name) is None and field.units != other.units:
            raise SourceError(
                f"{field.where} has units {field.units!r}, but {other.where} has {other.units!r}: "
                "publish them one after the other, each with a --dataset of its own"
            )


def datasets(fields: Sequence[Field]) -> list[str | dataset_name.Unknown]:
    """The dataset of each field, or why it can't be known.

    A file of a single time may leave open what those of its kind say together: the times of
    files that leave it open are looked at as one, by variable and grid.
    """
    found = [_dataset(field, field.time_ns) for field in fields]
    alike: dict[tuple[str, bytes, bytes], list[int]] = defaultdict(list)
    for i, name in enumerate(found):
        if isinstance(name, dataset_name.Unknown):
            field = fields[i]
            alike[field.name, field.latitude.tobytes(), field.longitude.tobytes()].append(i)
    for places in alike.values():
        if len(places) > 1:
            time_ns = np.concatenate([fields[i].time_ns for i in places])
            for i in places:
                found[i] = _dataset(fields[i], time_ns)
    return found


def _dataset(field: Field, time_ns: NDArray[np.int64]) -> str | dataset_name.Unknown:
    try:
        return dataset_name.find(field.evidence, field.latitude, field.longitude, time_ns)
    except dataset_name.Unknown as unknown:
        return unknown


def state_datasets(
    fields: Sequence[Field], found: Sequence[str | dataset_name.Unknown], stated: str | None
) -> list[str]:
    """The dataset of each field: as stated, or as `datasets` found it.

    Raises
    ------
    UsageError
        It is not stated and can't be known, or one name is stated for several datasets.
    """
    if stated is not None:
        names: dict[str, str] = {}
        for field, name in zip(fields, found, strict=True):
            if isinstance(name, str):
                names.setdefault(name, field.where)
        if len(names) > 1:
            several = ", ".join(f"{name} ({where})" for name, where in names.items())
            raise UsageError(
                f"--dataset {stated} is one name for several datasets, {several}: publish them "
                "one after the other"
            )
        return [stated] * len(fields)
    unknown = [
        (field, name)
        for field, name in zip(fields, found, strict=True)
        if not isinstance(name, str)
    ]
    if unknown:
        field, why = unknown[0]
        raise UsageError(
            f"the dataset of {field.where} can't be known: {why}; state it with --dataset, as in "
            "--dataset era5-land/hourly"
        )
    return [name for name in found if isinstance(name, str)]

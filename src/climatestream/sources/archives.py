"""The archives that are read as Zarr, without a queue: ECMWF's ARCO and Earth Data Hub.

What is in which store, and how a key is given, from their documentation:

- ARCO: "ERA5-Land hourly Analysis Ready Cloud Optimised (ARCO) data on single levels", Product
  User Guide (https://confluence.ecmwf.int/spaces/CKB/pages/536218894) and that of ERA5
  (https://confluence.ecmwf.int/spaces/CKB/pages/505390919): every group twice, cut for long series
  of small places (geo) and for maps of short times (time); amounts of an hour, not sums since
  midnight; the key of the Data Store as a bearer token.
- Earth Data Hub (https://earthdatahub.destine.eu/collections/era5): one store a dataset, as the
  Data Store has the values; a personal access token as password of the user `edh`, in netrc.
"""

from __future__ import annotations

import netrc
import os
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from climatestream import variables
from climatestream.errors import NotServed, UsageError
from climatestream.sources.cds_client import credentials

EDH_KEY: Final = "EDH_API_KEY"

ARCO_URL: Final = "https://arco.datastores.ecmwf.int"
EDH_URL: Final = "https://data.earthdatahub.destine.eu/era5"
URL_ENVIRONMENT: Final = {"arco": "CLIMATESTREAM_ARCO_URL", "edh": "CLIMATESTREAM_EDH_URL"}

_ARCO_LAND: Final[Mapping[tuple[str, str], str]] = {
    ("005", "sfc-soil-water"): "swvl1 swvl2 swvl3 swvl4",
    ("006", "sfc-soil-temperature"): "stl1 stl2 stl3 stl4",
    ("007", "sfc-2m-temperature"): "t2m d2m",
    ("008", "sfc-wind"): "u10 v10",
    ("009", "sfc-pressure-precipitation"): "sp tp",
    ("010", "sfc-radiation-heat"): "ssrd strd",
    ("043", "sfc-skin-temperature"): "skt",
}
_ARCO_ERA5: Final = (
    "blh cdir d2m fdir fg10 msl skt slhf sp sshf ssrd sst strd t2m tcc tp u10 u100 v10 v100"
)
_EDH_DAILY: Final = "d2m sp swvl1 swvl2 t2m u10 v10"
"""Those of the daily store that are means; sums are taken from the hours, whose rule is known."""

OWN_NAMES: Final[Mapping[str, str]] = {
    "reanalysis-era5-land": "era5-land/hourly",
    "reanalysis_era5_land": "era5-land/hourly",
    "reanalysis-era5-single-levels": "era5/hourly",
    "reanalysis_era5_single_levels": "era5/hourly",
    "era5-land-v0.zarr": "era5-land/hourly",
    "era5-land-daily-utc-v1.zarr": "era5-land/daily-mean",
}
"""What the services call their datasets, and what we do."""


@dataclass(frozen=True)
class Where:
    """Where a variable is.

    Parameters
    ----------
    urls
        Stores that hold the same values, cut into chunks differently.
    since_midnight
        Accumulated values are sums since 00 UTC, as in the Data Store's hourly files.
    """

    urls: tuple[str, ...]
    since_midnight: bool = False


def whereabouts(service: str, dataset: str, names: tuple[str, ...]) -> dict[str, Where]:
    """By our name, where each variable of a dataset is.

    Parameters
    ----------
    service
        `arco` or `edh`.

    Raises
    ------
    NotServed
        The service lacks the dataset or a variable.
    """
    find = {"arco": _in_arco, "edh": _in_edh}[service]
    found, lacking = {}, []
    for name in names:
        where = find(dataset, name)
        if where is None:
            lacking.append(name)
        else:
            found[name] = where
    if lacking:
        raise NotServed(
            "variable",
            f"{service}: has no {', '.join(lacking)} of {dataset}: leave it out, or take cds:",
        )
    return found


def headers(service: str, environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """What carries the key.

    Raises
    ------
    NotServed
        There is none: where to get one, and where to put it.
    """
    said = os.environ if environment is None else environment
    if service == "arco":
        return {"Authorization": f"Bearer {credentials(said).key}"}
    host = urlsplit(base_url("edh", said)).hostname or ""
    token = (said.get(EDH_KEY) or "").strip() or _token_of_netrc(host, said)
    if not token:
        raise NotServed(
            "key",
            f"edh: needs a personal access token: get it at https://earthdatahub.destine.eu "
            f"(account settings) and put it into ~/.netrc (machine {host} password TOKEN) or "
            f"{EDH_KEY}",
        )
    return {"Authorization": f"Basic {b64encode(f'edh:{token}'.encode()).decode()}"}


def base_url(service: str, environment: Mapping[str, str] | None = None) -> str:
    """The service's address; another one for a mirror, or a test.

    Raises
    ------
    UsageError
        The key would be sent where it can be read.
    """
    said = os.environ if environment is None else environment
    default = {"arco": ARCO_URL, "edh": EDH_URL}[service]
    url = said.get(URL_ENVIRONMENT[service], default).rstrip("/")
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise UsageError(
            f"{URL_ENVIRONMENT[service]} is {url!r}, which is no address ({error}): expected one "
            f"such as {default}"
        ) from error
    if parts.scheme != "https" and parts.hostname != "127.0.0.1":
        raise UsageError(
            f"{URL_ENVIRONMENT[service]} is {url!r}, which would send the key unencrypted: "
            f"expected https, as in {default}"
        )
    return url


def dataset_of(spec: str) -> str:
    """Our name of the dataset that `SERVICE:NAME` asks for: ours already, or the service's.

    Raises
    ------
    UsageError
        None is named.
    """
    service, _, name = spec.partition(":")
    if not name:
        raise UsageError(
            f"{spec} names no dataset: expected one after the colon, as in "
            f"{service}:era5-land/hourly"
        )
    return OWN_NAMES.get(name, name)


# ------------------------------------------------------------------------------------ pieces


def _in_arco(dataset: str, name: str) -> Where | None:
    if dataset == "era5-land/hourly":
        for (number, group), short_names in _ARCO_LAND.items():
            if _named(name, short_names):
                return Where(_arco_urls(number, f"reanalysis_era5_land/{group}"))
        return None
    if dataset == "era5/hourly":
        urls = _arco_urls("002", "reanalysis_era5_single_levels/sfc")
        return Where(urls) if _named(name, _ARCO_ERA5) else None
    raise NotServed(
        "dataset", f"arco: has no {dataset}, only era5-land/hourly and era5/hourly: take cds:"
    )


def _arco_urls(number: str, group: str) -> tuple[str, ...]:
    base = base_url("arco")
    return tuple(
        f"{base}/cadl-arco-{cut}-{number}/arco/{group}/{cut}Chunked.zarr" for cut in ("geo", "time")
    )


def _in_edh(dataset: str, name: str) -> Where | None:
    base = base_url("edh")
    variable = variables.by_name(name)
    hourly = f"{base}/era5-land-v0.zarr"
    if dataset == "era5-land/hourly":
        return Where((hourly,), since_midnight=True) if variable else None
    if dataset == "era5-land/daily-sum":
        summed = variable is not None and variable.accumulated
        return Where((hourly,), since_midnight=True) if summed else None
    if dataset == "era5-land/daily-mean":
        daily = f"{base}/era5-land-daily-utc-v1.zarr"
        return Where((daily,)) if _named(name, _EDH_DAILY) else None
    raise NotServed(
        "dataset",
        f"edh: has no {dataset}, only hourly, daily-mean and daily-sum of era5-land: take cds:",
    )


def _named(name: str, short_names: str) -> bool:
    """Whether a variable, ours or only a file's, is among these short names."""
    for short in short_names.split():
        variable = variables.by_short_name(short)
        if name == (short if variable is None else variable.name):
            return True
    return False


def _token_of_netrc(host: str, said: Mapping[str, str]) -> str | None:
    path = Path(said.get("NETRC") or Path(said.get("HOME", "~")) / ".netrc").expanduser()
    try:
        found = netrc.netrc(str(path)).authenticators(host)
    except (OSError, netrc.NetrcParseError):
        return None
    return found[2] if found else None

"""What the tests share: the folder of real sample files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tests.zarr_server import ZarrServer

# an example that takes long on a busy machine is no failure
settings.register_profile("climatestream", deadline=None)
settings.load_profile("climatestream")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def era5() -> Path:
    """The folder of real ERA5 and ERA5-Land files; skips where there is none."""
    folder = Path(os.environ.get("CLIMATESTREAM_TEST_DATA", ROOT / "../shared/data/era5"))
    if not folder.is_dir():
        pytest.skip(f"no sample files in {folder}: set CLIMATESTREAM_TEST_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def zarr_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Zarr archives as ECMWF and Earth Data Hub have them."""
    from tests.zarr_server import make_archives

    folder = tmp_path_factory.mktemp("archives")
    make_archives(folder)
    return folder


@pytest.fixture
def zarr_server(
    zarr_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[ZarrServer]:
    """Those archives on loopback, with keys that it takes."""
    from climatestream.sources.archives import EDH_KEY, URL_ENVIRONMENT
    from tests.zarr_server import ZarrServer

    with ZarrServer(zarr_folder).serving() as served:
        for name in URL_ENVIRONMENT.values():
            monkeypatch.setenv(name, served.url)
        monkeypatch.setenv("CDSAPI_KEY", "secret-of-arco")
        monkeypatch.setenv(EDH_KEY, "secret-of-edh")
        monkeypatch.setenv("HOME", str(tmp_path))
        yield served

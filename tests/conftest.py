"""What the tests share: the folder of real sample files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def era5() -> Path:
    """The folder of real ERA5 and ERA5-Land files; skips where there is none."""
    folder = Path(os.environ.get("CLIMATESTREAM_TEST_DATA", ROOT / "../shared/data/era5"))
    if not folder.is_dir():
        pytest.skip(f"no sample files in {folder}: set CLIMATESTREAM_TEST_DATA to their folder")
    return folder

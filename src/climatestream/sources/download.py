"""A file of a known size over HTTP, gone on with where it stopped."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from climatestream.errors import SourceError, SourceUnavailable
from climatestream.sources.cds_client import BUSY, TIMEOUT_S, Gone, retry_after_s

if TYPE_CHECKING:
    from collections.abc import Callable

    import requests

BLOCK: Final = 256 * 1024


def download(url: str, part: Path, size: int, received: Callable[[int, int], object]) -> None:
    """Have all bytes of a file; those that are there already are not asked for again.

    Parameters
    ----------
    url
        Without any key in it or sent to it.
    part
        What has arrived; grows as more does, so that a crash costs nothing.
    size
        Of the whole file [bytes].
    received
        Told how many bytes have come, and how many there are; may raise to stop.

    Raises
    ------
    SourceUnavailable
        The connection broke, or the server can't answer now: the same call goes on.
    Gone
        The server has it no more.
    SourceError
        It can't be written, or is not of this size.
    """
    import requests
    from urllib3.exceptions import HTTPError

    have = part.stat().st_size if part.exists() else 0
    if have > size:
        have = 0
    if have == size:
        part.touch()
        received(0, size)
        return
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as response:
            have = _begin(response, have)
            # Unbuffered: what has arrived is there after a crash.
            with part.open("r+b" if have else "wb", buffering=0) as file:
                file.seek(have)
                file.truncate()
                # What came before a connection broke counts: never a block of a fixed size.
                while block := response.raw.read1(BLOCK):
                    file.write(block)
                    have += len(block)
                    received(len(block), have)
    except (requests.RequestException, HTTPError, ConnectionError, TimeoutError) as error:
        raise SourceUnavailable(f"the download stopped at {have:,} of {size:,} bytes") from error
    except OSError as error:
        raise SourceError(
            f"{part} can't be written: {error.strerror}; make room with 'climatestream cache "
            "clear', or name another folder with --cache"
        ) from error
    if have > size:
        part.unlink()
        raise SourceError(
            f"an answer has {have:,} bytes, and the service said {size:,}: get it again"
        )
    if have < size:
        raise SourceUnavailable(f"the download stopped at {have:,} of {size:,} bytes")


def _begin(response: requests.Response, have: int) -> int:
    """Where the bytes begin that an answer holds."""
    status = response.status_code
    if status == 206:
        said = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
        if said is None or int(said[1]) != have:
            raise SourceUnavailable("the server sent another part of a file than was asked for")
        return have
    if status == 200:
        return 0
    if status in BUSY:
        raise SourceUnavailable(
            f"the download's server answered {status}", retry_after_s=retry_after_s(response)
        )
    raise Gone(f"the download's server has the answer no more ({status})")

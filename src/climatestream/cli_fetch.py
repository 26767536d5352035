"""The commands of what services send: fetched into the cache, listed, cleared."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click
import orjson

from climatestream import units
from climatestream.errors import UsageError
from climatestream.interrupt import EXIT_CODE, Interrupt
from climatestream.options import around_of, as_json, example, selecting, selection, setting

if TYPE_CHECKING:
    from climatestream.sources.cache import Cache, Entry

F = TypeVar("F", bound=Callable[..., Any])

SHORT_KEY = 8
"""How much of a key is shown: enough to tell a few thousand apart."""


@click.command()
@click.argument("dataset_name", metavar="DATASET")
@selecting
@as_json
@example("climatestream fetch era5-land/daily-mean --region DEU --from 2025-08-01 --to 2025-08-31")
def fetch(dataset_name: str, json_: bool, **select: Any) -> int:
    """Fetch a dataset from the Climate Data Store into the cache.

    DATASET is ours (era5-land/hourly, era5-land/daily-mean/utc+01, era5-land/daily-sum) or the
    Data Store's. `run` and `publish` take the same as cds:DATASET, fetch what is missing, and
    read it. Ctrl-C loses nothing: the same command goes on.
    """
    from climatestream.sources.cds import PREFIX, DataStoreRequest
    from climatestream.sources.open import service_of

    name = dataset_name.removeprefix(PREFIX)
    if service_of(name):
        raise UsageError(
            f"fetch keeps files of the Climate Data Store, and {service_of(name)} is read without "
            f"any: climatestream run {name} --store duckdb:FILE keeps its readings"
        )
    narrowed = {key: text for key, text in select.items() if not key.startswith("cache")}
    began = time.monotonic()
    with Interrupt() as interrupt, ExitStack() as kept:
        around = around_of(select["cache"], select["cache_size"], interrupt)
        request = DataStoreRequest(name, selection(**narrowed), around.cache(), around.stop)
        with interrupt.at_once():
            fetched = request.fetch(kept)
        sizes = [file.stat().st_size for file in fetched.files]
    result = {
        "dataset": fetched.dataset,
        "files": [
            {"path": str(file), "bytes": size}
            for file, size in zip(fetched.files, sizes, strict=True)
        ],
        "asked": fetched.asked,
        "downloaded_bytes": fetched.downloaded,
        "newest": fetched.newest,
        "seconds": round(time.monotonic() - began, 3),
    }
    if json_:
        click.echo(orjson.dumps(result))
    else:
        for file, size in zip(fetched.files, sizes, strict=True):
            click.echo(f"{file}  {_megabytes(size)}")
        click.echo(
            f"{fetched.dataset}: {_count(len(sizes), 'file')}, {_megabytes(sum(sizes))}; "
            f"{_count(fetched.asked, 'request')} made, {_megabytes(fetched.downloaded)} downloaded"
        )
    return EXIT_CODE if interrupt.interrupted else 0


@click.group("cache")
def cache_commands() -> None:
    """What services sent, kept on disk.

    \b
    Example:
      climatestream cache list
    """


def _of_cache(command: F) -> F:
    return setting("cache-size")(setting("cache")(command))


@cache_commands.command("list")
@_of_cache
@as_json
@example("climatestream cache list")
def list_cache(cache: str | None, cache_size: str, json_: bool) -> int:
    """List what is in the cache, the last used first."""
    opened = _cache(cache, cache_size)
    entries = opened.entries()[::-1]
    total = sum(entry.bytes for entry in entries)
    if json_:
        said = {"folder": str(opened.folder), "bytes": total, "at_most_bytes": opened.size}
        click.echo(orjson.dumps({**said, "entries": [_as_json(entry) for entry in entries]}))
        return 0
    for entry in entries:
        used = datetime.fromtimestamp(entry.used_at_s, UTC)
        asked = entry.asked
        click.echo(
            f"{entry.key[:SHORT_KEY]}  {used:%Y-%m-%d %H:%M}  {_megabytes(entry.bytes):>12}  "
            f"{asked.collection}  {asked.label}  {_state(entry)}"
        )
    click.echo(
        f"{opened.folder}: {_entries(len(entries))}, {_megabytes(total)} of at most "
        f"{_megabytes(opened.size)}"
    )
    return 0


@cache_commands.command("clear")
@click.argument("keys", nargs=-1, metavar="[KEY...]")
@click.option("--older-than", metavar="TIME", help="Only what was not used for so long: 30d.")
@_of_cache
@as_json
@example("climatestream cache clear --older-than 30d")
def clear_cache(
    keys: tuple[str, ...], older_than: str | None, cache: str | None, cache_size: str, json_: bool
) -> int:
    """Remove what is in the cache, or the entries whose keys begin so.

    What is being fetched or read stays. Requests that were asked for and have not arrived are
    forgotten here; at the service they go on.
    """
    opened = _cache(cache, cache_size)
    before_s = time.time() - (0.0 if older_than is None else units.duration_s(older_than))
    entries = opened.entries()
    for key in keys:
        if not any(entry.key.startswith(key) for entry in entries):
            raise UsageError(f"no key in the cache begins with {key!r}: climatestream cache list")
    chosen = [
        entry
        for entry in entries
        if (older_than is None or entry.used_at_s <= before_s)
        and (not keys or entry.key.startswith(keys))
    ]
    removed = [entry for entry in chosen if opened.remove(entry.key)]
    size, busy = sum(entry.bytes for entry in removed), len(chosen) - len(removed)
    if json_:
        click.echo(orjson.dumps({"removed": len(removed), "bytes": size, "in_use": busy}))
    else:
        stayed = f"; {busy} in use stayed" if busy else ""
        click.echo(f"removed {_entries(len(removed))}, {_megabytes(size)}{stayed}")
    return 0


def _cache(folder: str | None, size: str) -> Cache:
    return around_of(folder, size, Interrupt()).cache()


def _as_json(entry: Entry) -> dict[str, Any]:
    asked = asdict(entry.asked)
    return {
        "key": entry.key,
        "bytes": entry.bytes,
        "used_at_s": entry.used_at_s,
        "state": _state(entry),
        **{name: asked[name] for name in ("service", "collection", "label", "inputs")},
        "request_id": entry.asked.request_id,
    }


def _state(entry: Entry) -> str:
    if entry.complete:
        return "here"
    if entry.asked.parts:
        return "in parts"
    return "asked for" if entry.asked.request_id else "not asked for"


def _entries(number: int) -> str:
    return f"{number:,} {'entry' if number == 1 else 'entries'}"


def _count(number: int, of: str) -> str:
    return f"{number:,} {of}{'' if number == 1 else 's'}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 or size == 0 else f"{size / 1e3:,.1f} kB"

"""The commands that make Grafana's files."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import click
import orjson

from climatestream.errors import UsageError
from climatestream.interrupt import EXIT_CODE, Interrupt
from climatestream.options import alerting, as_json, example, setting

DEPLOY = "deploy/grafana"


@click.group()
def dashboards() -> None:
    """Grafana's boards and alerts, as files.

    \b
    Example:
      climatestream dashboards build
    """


def _generate() -> ModuleType:
    try:
        from climatestream.dashboards import generate
    except ModuleNotFoundError as error:
        if error.name != "grafana_foundation_sdk":
            raise
        raise UsageError(
            "making boards needs a package that is not installed: "
            "pip install grafana-foundation-sdk==0.0.21"
        ) from error
    return generate


@dashboards.command("build")
@click.option(
    "--to",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=DEPLOY,
    show_default=True,
    help="Folder to write to.",
)
@setting("map-tiles")
@alerting
@as_json
@example("climatestream dashboards build --alert-heat 35")
def build(folder: Path, json_: bool, **given: str | None) -> int:
    """Write the files that Grafana is provisioned with."""
    generate = _generate()
    made = generate.files(_settings(given))
    written = generate.build(folder, made)
    if json_:
        click.echo(orjson.dumps({"files": sorted(made), "written": written}))
    else:
        for name in written:
            click.echo(f"wrote {folder / name}")
        click.echo(f"{len(made)} files, {len(made) - len(written)} as they were")
    return 0


@dashboards.command("check")
@click.option(
    "--in",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=DEPLOY,
    show_default=True,
    help="Folder to look at.",
)
@setting("map-tiles")
@alerting
@as_json
@example("climatestream dashboards check")
def check(folder: Path, json_: bool, **given: str | None) -> int:
    """Say what is wrong with Grafana's files; exit 1 where something is.

    They must be what `build` writes, boards must name nothing that Grafana does not know, and a
    store must answer every query of theirs: one of its own, for no server is asked.
    """
    generate = _generate()
    from climatestream.dashboards.check import check as problems

    made = generate.files(_settings(given))
    with Interrupt() as interrupt:
        found = problems(folder, made, interrupt)
    if interrupt.interrupted:
        return EXIT_CODE
    if json_:
        click.echo(orjson.dumps({"ok": not found, "problems": found}))
    else:
        for sentence in found:
            click.echo(sentence)
        click.echo(f"{len(made)} files, {len(found) or 'no'} problems")
    return 1 if found else 0


def _settings(given: dict[str, str | None]) -> dict[str, str | None]:
    return {name.replace("_", "-"): value for name, value in given.items()}

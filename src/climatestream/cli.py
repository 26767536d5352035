"""The commands: thin, over the library.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted. A mistake gets one sentence on
standard error. `--json` is one line, the last on standard output.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click
import orjson
from dotenv import load_dotenv

from climatestream import settings, units
from climatestream.cli_dashboards import dashboards
from climatestream.cli_fetch import cache_commands, fetch
from climatestream.cli_lambda import lambda_
from climatestream.cli_stream import (
    audit,
    consume,
    dead_letters,
    normals,
    publish,
    store_commands,
)
from climatestream.errors import ClimatestreamError
from climatestream.interrupt import EXIT_CODE, Interrupt
from climatestream.options import (
    as_json,
    end,
    example,
    open_source_of,
    pace_of,
    pacing,
    say_page,
    selecting,
    setting,
)

F = TypeVar("F", bound=Callable[..., Any])

# Neither this nor the store of a demo comes from the environment: a replay never reaches a store
# that someone keeps real readings in unless it is named on the spot.
DEMO_KEEP = "15m"
DEMO_SOURCE = "simulation:"


def main() -> NoReturn:
    """Run the command line."""
    load_dotenv(Path(".env"))
    try:
        code = invoke(sys.argv[1:])
    except BrokenPipeError:
        # whoever read the output has gone: nothing more to say, and nowhere to say it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)


def invoke(arguments: Sequence[str]) -> int:
    """Run a command; its exit code. What it raises beyond its own errors is a bug."""
    try:
        code = cli.main(arguments, prog_name="climatestream", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 2
    except click.ClickException as error:
        return _fail(error.format_message().replace("\n", " "), 2, arguments)
    except ClimatestreamError as error:
        return _fail(str(error), error.exit_code, arguments)
    except (click.Abort, KeyboardInterrupt):
        return EXIT_CODE
    except SystemError as error:
        # the interrupt came inside a function of an extension that returned all the same
        if isinstance(error.__cause__, KeyboardInterrupt):
            return EXIT_CODE
        raise
    except RuntimeError as error:
        # DuckDB's word for an interrupt while a query runs: it takes the KeyboardInterrupt away
        if str(error) == "Query interrupted":
            return EXIT_CODE
        raise
    return code or 0


def _fail(sentence: str, exit_code: int, arguments: Sequence[str]) -> int:
    click.echo(f"climatestream: {sentence}", err=True)
    if "--json" in arguments:
        click.echo(orjson.dumps({"error": sentence}))
    return exit_code


@click.group(no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="climatestream")
def cli() -> None:
    """Gridded climate data in real time.

    \b
    Example:
      climatestream demo
    """


# ------------------------------------------------------------------------------- commands


@cli.command()
@click.argument("sources", nargs=-1, metavar="[SOURCE...]")
@click.option(
    "--store", metavar="S", help="Keep what is replayed: duckdb:FILE. Without it, nothing."
)
@setting("port", type=click.IntRange(0, 65535))
@setting("host")
@click.option("--keep", default=DEMO_KEEP, show_default=True, help=settings.BY_NAME["keep"].meaning)
@selecting
@as_json
@example("climatestream demo data/*.nc")
def demo(
    sources: tuple[str, ...],
    store: str | None,
    port: int,
    host: str,
    keep: str,
    json_: bool,
    **select: Any,
) -> int:
    """Show the whole pipeline in one process, with its page, until Ctrl-C.

    Replays files, or a simulation where none is named, as if it happened now. The store is
    a new one at each start, unless --store names one.
    """
    from climatestream import replay
    from climatestream.embedded import embedded

    with (
        Interrupt() as interrupt,
        tempfile.TemporaryDirectory(prefix="climatestream-") as folder,
        open_source_of(sources or (DEMO_SOURCE,), select, interrupt) as source,
        embedded(
            store or f"duckdb:{folder}/demo.duckdb",
            interrupt,
            keep_s=units.duration_s(keep),
            port=port,
            host=host,
        ) as pipeline,
    ):
        say_page(pipeline.url)
        clock = replay.Clock(interrupt.stop)
        pipeline.run(replay.demo(source, clock, pipeline.caught_up), slices=None)
        return end(pipeline.result(), json_, interrupt)


@cli.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@setting("store")
@setting("keep")
@setting("batch-rows", type=click.IntRange(1))
@setting("duckdb-memory")
@setting("port", type=click.IntRange(0, 65535))
@setting("host")
@click.option("--serve", is_flag=True, help="Show the page, also after the last reading.")
@click.option("--audit", is_flag=True, help="Prove at the end that nothing is lost.")
@pacing
@selecting
@as_json
@example("climatestream run era5-land-2025-08.nc --store duckdb:germany.duckdb --audit")
def run(
    sources: tuple[str, ...],
    store: str,
    keep: str | None,
    batch_rows: int | None,
    duckdb_memory: str,
    port: int,
    host: str,
    serve: bool,
    audit: bool,
    rate: str | None,
    speed: str | None,
    loop: bool,
    shift_to_now: bool,
    json_: bool,
    **select: Any,
) -> int:
    """Take readings from files, folders, globs or a simulation: into a store."""
    from climatestream import replay
    from climatestream.embedded import embedded
    from climatestream.model import BATCH_ROWS

    pace = pace_of(rate, speed, loop, shift_to_now)
    keep_s = None if keep is None else units.duration_s(keep)
    with Interrupt() as interrupt, open_source_of(sources, select, interrupt) as source:
        batches = replay.paced(source, pace, replay.Clock(interrupt.stop))
        slices = None if loop else len(source.slices())
        with embedded(
            store,
            interrupt,
            dataset=select["dataset"],
            keep_s=keep_s,
            port=port if serve else None,
            host=host,
            batch_rows=batch_rows or BATCH_ROWS,
            duckdb_memory=duckdb_memory,
            audited=audit,
        ) as pipeline:
            if serve:
                say_page(pipeline.url)
            pipeline.run(batches, slices=slices)
            result = pipeline.result()
            if audit and not interrupt.stop.is_set():
                result["audit"] = pipeline.audit()
            if serve:
                interrupt.wait()
        return end(result, json_, interrupt, ok=result.get("audit", {}).get("ok", True))


@cli.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@setting("dataset")
@as_json
@example("climatestream inspect 2m_temperature_0_daily-mean.nc")
def inspect(files: tuple[str, ...], dataset: str | None, json_: bool) -> int:
    """Say what files are: dataset, variables, grid, times, missing share."""
    from rich.console import Console

    from climatestream import inspect as inspecting

    found = inspecting.inspect_files(files, dataset=dataset)
    if json_:
        click.echo(orjson.dumps({"files": [inspecting.as_json(file) for file in found]}))
    else:
        for file in found:
            Console().print(inspecting.table(file))
    return 0


@cli.command()
@setting("store")
@setting("port", type=click.IntRange(0, 65535))
@setting("host")
@as_json
@example("climatestream serve --store duckdb:germany.duckdb")
def serve(store: str, port: int, host: str, json_: bool) -> int:
    """Show the page over a store, until Ctrl-C."""
    from climatestream import places
    from climatestream.stores.open import open_store
    from climatestream.web.server import Server

    began = time.monotonic()
    with (
        Interrupt() as interrupt,
        open_store(store, existing=True) as opened,
        Server(opened, port=port, host=host) as page,
    ):
        if store.startswith("duckdb:"):  # `store init` fills the table of a server
            places.settle(opened)
        say_page(page.url)
        interrupt.wait()
    if json_:
        click.echo(orjson.dumps({"url": page.url, "seconds": round(time.monotonic() - began, 3)}))
    return EXIT_CODE


@cli.command()
@setting("store")
@setting("broker", help="A broker to look at: kafka://host:port/topic.")
@setting("group")
@setting("port", type=click.IntRange(0, 65535))
@as_json
@example("climatestream doctor --broker kafka://127.0.0.1:9092/era5 --store crate://127.0.0.1")
def doctor(store: str, broker: str | None, group: str, port: int, json_: bool) -> int:
    """Say what works here, what does not, and what to do.

    Of a broker and of a CrateDB store: whether they are reached and let us in, what the topic
    and the tables are like, and what this user may do with them.
    """
    from climatestream import findings
    from climatestream.doctor import examine

    found = examine(store=store, port=port, broker=broker, group=group)
    if json_:
        click.echo(orjson.dumps(findings.as_json(found)))
    else:
        findings.print_table(found)
    return 1 if any(finding.state == "broken" for finding in found) else 0


for command in (
    publish,
    consume,
    lambda_,
    audit,
    dead_letters,
    normals,
    store_commands,
    dashboards,
    fetch,
    cache_commands,
):
    cli.add_command(command)


if __name__ == "__main__":
    main()

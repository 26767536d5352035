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
from inspect import cleandoc
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click
import orjson
from dotenv import load_dotenv

from climatestream import settings, units
from climatestream.errors import ClimatestreamError, UsageError
from climatestream.interrupt import EXIT_CODE, Interrupt

if TYPE_CHECKING:
    from climatestream.ports import Source
    from climatestream.replay import Pace
    from climatestream.sources.selection import Selection

F = TypeVar("F", bound=Callable[..., Any])

# Neither this nor the store of a demo comes from the environment: a replay never reaches a store
# that someone keeps real readings in unless it is named on the spot.
DEMO_KEEP = "15m"
DEMO_SOURCE = "simulation:?days=3650"
"""Ten years of hours, made as they are shown: the weather goes on for as long as anyone looks."""


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
    return code or 0


def _fail(sentence: str, exit_code: int, arguments: Sequence[str]) -> int:
    click.echo(f"climatestream: {sentence}", err=True)
    if "--json" in arguments:
        click.echo(orjson.dumps({"error": sentence}))
    return exit_code


# -------------------------------------------------------------------------------- options


def setting(name: str, **more: Any) -> Callable[[F], F]:
    """The option of a setting: its name, environment variable, default and help."""
    of = settings.BY_NAME[name]
    return click.option(
        f"--{name}",
        envvar=of.environment,
        show_envvar=True,
        **{"default": of.default, "show_default": of.default is not None, "help": of.meaning}
        | more,
    )


def selecting(command: F) -> F:
    """The options that narrow a source."""
    for option in (
        setting("dataset"),
        click.option("--to", "until", metavar="TIME", help="Last date or time to read."),
        click.option("--from", "since", metavar="TIME", help="First date or time to read."),
        setting("variables"),
        setting("region"),
    ):
        command = option(command)
    return command


def pacing(command: F) -> F:
    """The options that say when readings are published."""
    for option in (
        click.option(
            "--shift-to-now", is_flag=True, help="Stamp each slice with the present (NAME/replay)."
        ),
        click.option("--loop", is_flag=True, help="Begin again after the last slice, for ever."),
        click.option("--speed", metavar="TIME/s", help="The data's time in a second: 1d/s."),
        click.option("--rate", metavar="N/s", help="Readings a second, at most: 1000/s."),
    ):
        command = option(command)
    return command


def as_json(command: F) -> F:
    """The option that every command has."""
    return click.option(
        "--json", "json_", is_flag=True, help="One JSON object on standard output, at the end."
    )(command)


def example(text: str) -> Callable[[F], F]:
    """A command's example, at the end of its help."""

    def add(command: F) -> F:
        command.__doc__ = f"{cleandoc(command.__doc__ or '')}\n\n\b\nExample:\n  {text}\n"
        return command

    return add


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
@click.option("--keep", default=DEMO_KEEP, show_default=True, help=settings.BY_NAME["keep"].meaning)
@selecting
@as_json
@example("climatestream demo data/*.nc")
def demo(
    sources: tuple[str, ...], store: str | None, port: int, keep: str, json_: bool, **select: Any
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
        _open_source(sources or (DEMO_SOURCE,), select) as source,
        embedded(
            store or f"duckdb:{folder}/demo.duckdb",
            interrupt,
            keep_s=units.duration_s(keep),
            port=port,
        ) as pipeline,
    ):
        _say_page(pipeline.url)
        clock = replay.Clock(interrupt.stop)
        pipeline.run(replay.demo(source, clock, pipeline.caught_up), slices=None)
        return _end(pipeline.result(), json_, interrupt)


@cli.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@setting("store")
@setting("keep")
@setting("batch-rows", type=click.IntRange(1))
@setting("duckdb-memory")
@setting("port", type=click.IntRange(0, 65535))
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
    batch_rows: int,
    duckdb_memory: str,
    port: int,
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

    pace = _pace(rate, speed, loop, shift_to_now)
    keep_s = None if keep is None else units.duration_s(keep)
    with Interrupt() as interrupt, _open_source(sources, select) as source:
        batches = replay.paced(source, pace, replay.Clock(interrupt.stop))
        slices = None if loop else len(source.slices())
        with embedded(
            store,
            interrupt,
            dataset=select["dataset"],
            keep_s=keep_s,
            port=port if serve else None,
            batch_rows=batch_rows,
            duckdb_memory=duckdb_memory,
            audited=audit,
        ) as pipeline:
            if serve:
                _say_page(pipeline.url)
            pipeline.run(batches, slices=slices)
            result = pipeline.result()
            if audit and not interrupt.stop.is_set():
                result["audit"] = pipeline.audit()
            if serve:
                interrupt.stop.wait()
        return _end(result, json_, interrupt, ok=result.get("audit", {}).get("ok", True))


@cli.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("--broker", required=True, metavar="B", help="-: print the messages, one a line.")
@pacing
@selecting
@as_json
@example("climatestream publish simulation: --broker - | head -n 1")
def publish(
    sources: tuple[str, ...],
    broker: str,
    rate: str | None,
    speed: str | None,
    loop: bool,
    shift_to_now: bool,
    json_: bool,
    **select: Any,
) -> int:
    """Publish readings as JSON messages."""
    from climatestream import pipeline, replay
    from climatestream.brokers.stdout import LineProducer
    from climatestream.meter import Counts
    from climatestream.progress import Progress

    if broker != "-":
        raise UsageError(f"broker {broker!r} is not known: expected - (standard output)")
    pace = _pace(rate, speed, loop, shift_to_now)
    began = time.monotonic()
    with Interrupt() as interrupt, _open_source(sources, select) as source:
        batches = replay.paced(source, pace, replay.Clock(interrupt.stop))
        counts = Counts()
        slices = None if loop else len(source.slices())
        with LineProducer(sys.stdout.buffer) as producer, Progress(counts, slices) as progress:
            published = pipeline.publish(progress.watch(batches), producer, counts)
        if json_:
            result = {
                "published": published,
                "stored": 0,
                "dead_letters": 0,
                "seconds": round(time.monotonic() - began, 3),
                "datasets": sorted(progress.datasets),
            }
            click.echo(orjson.dumps(result), err=True)
        return EXIT_CODE if interrupt.stop.is_set() else 0


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
@as_json
@example("climatestream serve --store duckdb:germany.duckdb")
def serve(store: str, port: int, json_: bool) -> int:
    """Show the page over a store, until Ctrl-C."""
    from climatestream.stores.open import open_store
    from climatestream.web.app import Server

    began = time.monotonic()
    with Interrupt() as interrupt, open_store(store) as opened, Server(opened, port=port) as page:
        _say_page(page.url)
        interrupt.stop.wait()
    if json_:
        click.echo(orjson.dumps({"url": page.url, "seconds": round(time.monotonic() - began, 3)}))
    return EXIT_CODE


@cli.group("dead-letters")
def dead_letters() -> None:
    """Messages that can never be stored, with the reason.

    \b
    Example:
      climatestream dead-letters list
    """


@dead_letters.command("list")
@setting("store")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True)
@as_json
@example("climatestream dead-letters list --limit 20")
def list_letters(store: str, limit: int, json_: bool) -> int:
    """List dead letters, newest first."""
    from climatestream import letters
    from climatestream.stores.open import open_store

    with open_store(store) as opened:
        found = opened.dead_letters(limit=limit)
    if json_:
        click.echo(orjson.dumps({"dead_letters": [letters.as_json(*one) for one in found]}))
    else:
        letters.print_table(found)
    return 0


@dead_letters.command("show")
@click.argument("message", metavar="TOPIC/PARTITION@OFFSET")
@setting("store")
@as_json
@example("climatestream dead-letters show era5/0@1201")
def show_letter(message: str, store: str, json_: bool) -> int:
    """Show a dead letter whole."""
    from climatestream import letters
    from climatestream.stores.open import open_store

    position = letters.parse_position(message)
    with open_store(store) as opened:
        found = opened.dead_letters(position=position)
    if not found:
        raise UsageError(
            f"{message} is no dead letter of {store}; `climatestream dead-letters list` has them"
        )
    if json_:
        click.echo(orjson.dumps(letters.as_json(*found[0], whole=True)))
    else:
        letters.print_whole(*found[0])
    return 0


@cli.command()
@setting("store")
@setting("port", type=click.IntRange(0, 65535))
@as_json
@example("climatestream doctor")
def doctor(store: str, port: int, json_: bool) -> int:
    """Say what works here, what does not, and what to do."""
    from climatestream import doctor as doctoring

    findings = doctoring.examine(store=store, port=port)
    if json_:
        click.echo(orjson.dumps(doctoring.as_json(findings)))
    else:
        doctoring.print_table(findings)
    return 1 if any(finding.state == "broken" for finding in findings) else 0


# ---------------------------------------------------------------------- what they share


def _open_source(specs: tuple[str, ...], select: dict[str, Any]) -> Source:
    from climatestream.sources.open import open_source

    return open_source(specs, _selection(**select))


def _selection(
    region: str | None,
    variables: str | None,
    since: str | None,
    until: str | None,
    dataset: str | None,
) -> Selection:
    from climatestream.region import parse_region
    from climatestream.sources.selection import Selection, end_of, start_of

    names = tuple(name.strip() for name in (variables or "").split(",") if name.strip())
    return Selection(
        region=None if region is None else parse_region(region),
        variables=names or None,
        start_ns=None if since is None else start_of(since),
        end_ns=None if until is None else end_of(until),
        dataset=dataset,
    )


def _pace(rate: str | None, speed: str | None, loop: bool, shift_to_now: bool) -> Pace:
    from climatestream.replay import Pace

    return Pace(
        rate_per_s=None if rate is None else units.rate_per_s(rate),
        speed=None if speed is None else units.speed(speed),
        loop=loop,
        shift_to_now=shift_to_now,
    )


def _say_page(url: str) -> None:
    """The address alone at the end of its line, so that a script can take it from there."""
    click.echo(f"The page is at {url}")
    sys.stdout.flush()


def _end(result: dict[str, Any], json_: bool, interrupt: Interrupt, *, ok: bool = True) -> int:
    """Say what was done; the exit code."""
    if json_:
        click.echo(orjson.dumps(result))
    else:
        words = (
            f"{key.replace('_', ' ')} {value:,}"
            for key, value in result.items()
            if isinstance(value, int | float)
        )
        click.echo(", ".join(words))
    if interrupt.stop.is_set():
        return EXIT_CODE
    return 0 if ok else 1


if __name__ == "__main__":
    main()

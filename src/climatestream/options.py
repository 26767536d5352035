"""What the commands share: options, sources, and how a result is said."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from inspect import cleandoc
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import orjson

from climatestream import settings, units
from climatestream.interrupt import EXIT_CODE, Interrupt

if TYPE_CHECKING:
    from climatestream.ports import Source
    from climatestream.replay import Pace
    from climatestream.sources.open import Around
    from climatestream.sources.selection import Selection

F = TypeVar("F", bound=Callable[..., Any])


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
    """The options that narrow a source, and say where what services send is kept."""
    for option in (
        setting("cache-size"),
        setting("cache"),
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


def alerting(command: F) -> F:
    """The options that say when alerts fire, and who is told."""
    for name in reversed([name for name in settings.BY_NAME if name.startswith("alert-")]):
        command = setting(name)(command)
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


@contextmanager
def open_source_of(
    specs: tuple[str, ...], select: dict[str, Any], interrupt: Interrupt
) -> Iterator[Source]:
    """The source that a command's arguments and options name, open.

    A signal ends the opening at once: nothing is published yet.
    """
    from climatestream.sources.open import open_source

    narrowed = {name: text for name, text in select.items() if not name.startswith("cache")}
    around = around_of(select["cache"], select["cache_size"], interrupt)
    with ExitStack() as stack:
        with interrupt.at_once():
            source = open_source(specs, selection(**narrowed), around)
            opened = stack.enter_context(source)
        yield opened


def around_of(cache: str | None, cache_size: str, interrupt: Interrupt) -> Around:
    """What the options of the cache ask for."""
    from climatestream.sources.open import Around

    folder = None if cache is None else Path(cache).expanduser()
    return Around(folder, units.size_bytes(cache_size), interrupt.stop)


def selection(
    region: str | None,
    variables: str | None,
    since: str | None,
    until: str | None,
    dataset: str | None,
) -> Selection:
    """What the options of `selecting` ask for."""
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


def pace_of(rate: str | None, speed: str | None, loop: bool, shift_to_now: bool) -> Pace:
    """What the options of `pacing` ask for."""
    from climatestream.replay import Pace

    return Pace(
        rate_per_s=None if rate is None else units.rate_per_s(rate),
        speed=None if speed is None else units.speed(speed),
        loop=loop,
        shift_to_now=shift_to_now,
    )


def say_page(url: str) -> None:
    """The address alone at the end of its line, so that a script can take it from there."""
    click.echo(f"The page is at {url}")
    sys.stdout.flush()


def end(result: dict[str, Any], json_: bool, interrupt: Interrupt, *, ok: bool = True) -> int:
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
    if interrupt.interrupted:
        return EXIT_CODE
    return 0 if ok else 1

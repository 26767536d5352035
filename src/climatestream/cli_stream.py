"""The commands around a broker and a store between processes, and those of a store itself."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import orjson

from climatestream import units
from climatestream.errors import BrokerError, DeliveryFailed, SourceError, UsageError
from climatestream.interrupt import EXIT_CODE, Interrupt
from climatestream.options import (
    around_of,
    as_json,
    end,
    example,
    open_source_of,
    pace_of,
    pacing,
    selecting,
    selection,
    setting,
)

if TYPE_CHECKING:
    from climatestream.meter import Counts
    from climatestream.normals import Rule
    from climatestream.ports import Producer, Start, Store
    from climatestream.stores.crate_tables import User

STDOUT = "-"
UNMENDED = 10
"""Dead letters that can't be mended of which `retry` says why, one by one."""
ON_FAILURE = "Count what `lambda --on-failure WHERE` holds among the dead letters."

STANDARD_PERIOD = "1991-2020"
WINDOW_DAYS = 5
"""As `normals` has them; a test compares. Its imports are too heavy for `--help`."""

PUBLISH_DRAIN_S = 8.0
"""Time that the broker has after a signal to acknowledge what it was given [s]."""


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@setting("broker", required=True)
@click.option("--partitions", type=click.IntRange(1), help="Of a topic that is missing.")
@click.option("--replication", type=click.IntRange(1), help="Copies, of a topic that is missing.")
@click.option("--retention", metavar="TIME", help="How long a missing topic keeps messages: 30d.")
@click.option("--follow", is_flag=True, help="Go on with what appears, whole days, until Ctrl-C.")
@click.option(
    "--poll", default="1h", show_default=True, metavar="TIME", help="Between two looks: 15m, 6h."
)
@click.option(
    "--state",
    default="climatestream-follow.json",
    show_default=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Remembers what --follow has published.",
)
@pacing
@selecting
@setting("metrics-port", type=click.IntRange(0, 65535))
@setting("metrics-host")
@setting("log-format", type=click.Choice(["text", "json"]))
@as_json
@example("climatestream publish simulation: --broker - | head -n 1")
def publish(
    sources: tuple[str, ...],
    broker: str,
    partitions: int | None,
    replication: int | None,
    retention: str | None,
    follow: bool,
    poll: str,
    state: Path,
    rate: str | None,
    speed: str | None,
    loop: bool,
    shift_to_now: bool,
    metrics_port: int | None,
    metrics_host: str,
    log_format: str,
    json_: bool,
    **select: Any,
) -> int:
    """Publish readings as JSON messages: to Kafka, or to standard output.

    With --follow it stays, publishes each day once it is whole, and final values after
    preliminary ones; killed at any moment, it goes on where it was.
    """
    from climatestream import logs, pipeline, replay
    from climatestream.meter import Counts
    from climatestream.progress import Progress

    logs.configure("json" if log_format == "json" else "text")
    pace = pace_of(rate, speed, loop, shift_to_now)
    topic = _topic(partitions, replication, retention)
    counts = Counts()
    metrics = _metrics(counts, metrics_port, metrics_host)
    if follow:
        if rate or speed or loop or shift_to_now:
            raise UsageError("--follow publishes what appears when it does: leave the pace out")
        poll_s = units.duration_s(poll)
        with metrics:
            return _follow(sources, select, broker, topic, poll_s, state, counts, json_)
    began = time.monotonic()
    with (
        metrics,
        ExitStack() as stack,
        # closing the producer ends what waits for a broker that is away
        Interrupt(PUBLISH_DRAIN_S, stack.close) as interrupt,
        open_source_of(sources, select, interrupt) as source,
    ):
        batches = replay.paced(source, pace, replay.Clock(interrupt.stop))
        slices = None if loop else len(source.slices())
        with interrupt.at_once():
            producer = _producer(broker, topic, stack)
        with Progress(counts, slices) as progress:
            try:
                published = pipeline.publish(progress.watch(batches), producer, counts)
            except (BrokerError, DeliveryFailed) as error:
                if not interrupt.abandon.is_set():
                    raise
                click.echo(f"climatestream: {error}", err=True)
                if json_ and broker != STDOUT:
                    click.echo(orjson.dumps({"error": str(error)}))
                return EXIT_CODE
        result = {
            "published": published,
            "stored": 0,
            "dead_letters": 0,
            "seconds": round(time.monotonic() - began, 3),
            "datasets": sorted(progress.datasets),
        }
        if broker != STDOUT:
            return end(result, json_, interrupt)
        if json_:
            click.echo(orjson.dumps(result), err=True)
        return EXIT_CODE if interrupt.interrupted else 0


def _follow(
    sources: tuple[str, ...],
    select: dict[str, Any],
    broker: str,
    topic: dict[str, Any],
    poll_s: float,
    state: Path,
    counts: Counts,
    json_: bool,
) -> int:
    """`publish --follow`: until a signal comes."""
    from filelock import FileLock, Timeout

    from climatestream import pipeline
    from climatestream.follow import Follower, Memory, Waiting
    from climatestream.sources.open import open_source

    narrowed = {name: text for name, text in select.items() if not name.startswith("cache")}
    chosen = selection(**narrowed)
    if chosen.end_ns is not None:
        raise UsageError("--follow has no end: leave --to out")
    asked = {name: narrowed[name] for name in ("region", "variables", "dataset")}
    of = {"source": list(sources), "broker": broker.partition("?")[0], **asked}
    memory = Memory(state, of)
    began = time.monotonic()
    with ExitStack() as stack, Interrupt(PUBLISH_DRAIN_S, stack.close) as interrupt:
        try:
            stack.enter_context(FileLock(f"{state}.lock", timeout=0))
        except Timeout as error:
            raise UsageError(
                f"{state} is another process's that follows: end that one, or name another file "
                "with --state"
            ) from error
        memory.load()
        around = around_of(select["cache"], select["cache_size"], interrupt)
        with interrupt.at_once():
            producer = _producer(broker, topic, stack)
        follower = Follower(
            look=lambda start_ns, end_ns: open_source(
                sources, replace(chosen, start_ns=start_ns, end_ns=end_ns), around
            ),
            publish=lambda batches: pipeline.publish(batches, producer, counts),
            memory=memory,
            clock=Waiting(interrupt.stop),
            since_ns=chosen.start_ns,
            poll_s=poll_s,
            say=lambda sentence: click.echo(f"climatestream: {sentence}", err=True),
        )
        try:
            follower.run()
        except (BrokerError, DeliveryFailed, KeyboardInterrupt):
            if not interrupt.interrupted:
                raise
    result = {
        "published": counts.published,
        "stored": 0,
        "dead_letters": 0,
        "seconds": round(time.monotonic() - began, 3),
        "datasets": sorted(memory.datasets),
    }
    if broker != STDOUT:
        return end(result, json_, interrupt)
    if json_:
        click.echo(orjson.dumps(result), err=True)
    return EXIT_CODE if interrupt.interrupted else 0


def _metrics(counts: Counts, port: int | None, host: str) -> AbstractContextManager[None]:
    """Serves what is published, where that was asked for."""
    if port is None:
        return nullcontext()
    from climatestream import metrics

    return metrics.served(metrics.PublishedCollector(counts), port, host)


def _topic(
    partitions: int | None, replication: int | None, retention: str | None
) -> dict[str, Any]:
    retention_ms = None if retention is None else round(units.duration_s(retention) * 1000)
    return {"partitions": partitions, "replication": replication, "retention_ms": retention_ms}


def _producer(broker: str, topic: dict[str, Any], stack: ExitStack) -> Producer:
    """A producer, opened; what differs of a topic that exists is said."""
    if broker == STDOUT:
        from climatestream.brokers.stdout import LineProducer

        return stack.enter_context(LineProducer(sys.stdout.buffer))
    from climatestream.brokers.kafka_admin import TopicSettings
    from climatestream.brokers.open import open_broker

    opened = stack.enter_context(open_broker(broker))
    for difference in opened.ensure_topic(TopicSettings(**topic)):
        click.echo(f"climatestream: {difference}", err=True)
    return stack.enter_context(opened.producer())


@click.command()
@setting("broker", required=True)
@setting("store")
@setting("group")
@click.option("--from", "since", metavar="WHERE", help="earliest, latest or a time.")
@click.option("--yes", is_flag=True, help="Let --from reset a group that has offsets.")
@click.option("--until-caught-up", is_flag=True, help="End when all there is now is done.")
@click.option(
    "--copy-dead-letters", is_flag=True, help="Copy each dead letter into the topic TOPIC.dead too."
)
@setting("dataset")
@setting("keep")
@setting("batch-rows", type=click.IntRange(1))
@setting("duckdb-memory")
@setting("metrics-port", type=click.IntRange(0, 65535))
@setting("metrics-host")
@setting("log-format", type=click.Choice(["text", "json"]))
@as_json
@example("climatestream consume --broker kafka://127.0.0.1:9092/era5 --store duckdb:era5.duckdb")
def consume(
    broker: str,
    store: str,
    group: str,
    since: str | None,
    yes: bool,
    until_caught_up: bool,
    copy_dead_letters: bool,
    dataset: str | None,
    keep: str | None,
    batch_rows: int | None,
    duckdb_memory: str,
    metrics_port: int | None,
    metrics_host: str,
    log_format: str,
    json_: bool,
) -> int:
    """Take messages from Kafka into a store, as a member of a consumer group."""
    from climatestream import logs
    from climatestream.brokers.open import open_broker
    from climatestream.consume import CONSUMED_ROWS, DRAIN_S, Worker, give_up, reset
    from climatestream.stores.open import open_store

    logs.configure("json" if log_format == "json" else "text")
    start = _start(since)
    keep_s = None if keep is None else units.duration_s(keep)
    with Interrupt(DRAIN_S, give_up) as interrupt, ExitStack() as stack:
        with interrupt.at_once():
            kafka = stack.enter_context(open_broker(broker))
            opened = stack.enter_context(open_store(store, duckdb_memory=duckdb_memory))
        if since is not None:
            reset(kafka, group, start, agreed=lambda: yes or _agrees(group, since))
        worker = Worker(
            broker=kafka,
            store=opened,
            group=group,
            start=start,
            dataset=dataset,
            keep_s=keep_s,
            until_caught_up=until_caught_up,
            batch_rows=batch_rows or CONSUMED_ROWS,
            copy_dead_letters=copy_dead_letters,
            metrics_port=metrics_port,
            metrics_host=metrics_host,
        )
        return end(worker.run(interrupt), json_, interrupt)


def _agrees(group: str, since: str) -> bool:
    """Ask, where someone is there to answer."""
    return sys.stdin.isatty() and click.confirm(
        f"Group {group} has offsets already: let it go on from {since}?", err=True
    )


def _start(since: str | None) -> Start:
    from climatestream.sources.selection import start_of

    if since is None or since == "earliest":
        return "earliest"
    return "latest" if since == "latest" else start_of(since) // 1_000_000


@click.command()
@setting("broker", required=True)
@setting("store")
@setting("group")
@click.option("--from", "since", metavar="WHERE", help="earliest, latest or a time.")
@setting("dataset")
@click.option("--on-failure", metavar="WHERE", help=ON_FAILURE)
@as_json
@example("climatestream audit --broker kafka://127.0.0.1:9092/era5 --store duckdb:era5.duckdb")
def audit(
    broker: str,
    store: str,
    group: str,
    since: str | None,
    dataset: str | None,
    on_failure: str | None,
    json_: bool,
) -> int:
    """Prove that nothing is lost: read every message again, and hold it against the store."""
    from climatestream import audit as auditing
    from climatestream.aws.destination import discarded_offsets
    from climatestream.brokers.open import open_broker
    from climatestream.fastcodec import decode
    from climatestream.ingest import UNSTATED
    from climatestream.progress import Spinner
    from climatestream.stores.open import open_store

    target = open_store(store, existing=True)
    with Interrupt() as interrupt, ExitStack() as stack:
        with interrupt.at_once():
            kafka = stack.enter_context(open_broker(broker))
            opened = stack.enter_context(target)
            start = _start(since)
            count = kafka.count(start)
        auditor = auditing.Auditor(
            kafka, opened, group, dataset or UNSTATED, decode, interrupt.stop.is_set
        )
        if on_failure is not None:
            auditor.discarded = discarded_offsets(on_failure, broker, kafka.topic)
        takes_s = count / auditing.RATE_PER_S
        click.echo(f"audit of about {count:,} messages: some {takes_s:,.0f} s", err=True)
        with Spinner(auditor.said):
            found = auditor.audit(start)
    if json_:
        click.echo(orjson.dumps(found.as_json()))
    else:
        auditing.print_table(found)
    return 0 if found.ok else 1


# ---------------------------------------------------------------------------- dead letters


@click.group("dead-letters")
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

    with open_store(store, existing=True) as opened:
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
    with open_store(store, existing=True) as opened:
        found = letters.find(opened, position)
    if json_:
        click.echo(orjson.dumps(letters.as_json(*found, whole=True)))
    else:
        letters.print_whole(*found)
    return 0


@dead_letters.command("retry")
@click.argument("messages", nargs=-1, metavar="[TOPIC/PARTITION@OFFSET...]")
@setting("broker", required=True)
@setting("store")
@click.option("--set", "changes", multiple=True, metavar="FIELD=VALUE", help="Correct a field.")
@click.option(
    "--from",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Publish this document instead; for one message.",
)
@click.option("--on-failure", metavar="WHERE", help=f"{ON_FAILURE} Listed from then on.")
@as_json
@example("climatestream dead-letters retry era5/0@1201 --set latitude=52.5 --broker kafka://...")
def retry_letters(
    messages: tuple[str, ...],
    broker: str,
    store: str,
    changes: tuple[str, ...],
    file: Path | None,
    on_failure: str | None,
    json_: bool,
) -> int:
    """Publish dead letters again: those named, or all that were not retried yet."""
    from climatestream import letters, retry
    from climatestream.aws.destination import read_destination
    from climatestream.brokers.open import open_broker
    from climatestream.stores.open import open_store

    if file is not None and (len(messages) != 1 or changes):
        raise UsageError("--from FILE is the document of one message: name that one, without --set")
    positions = [letters.parse_position(message) for message in messages]
    correct: retry.Correct = lambda letter: letter.value  # noqa: E731 - one of three
    if changes:
        correct = retry.with_fields(dict(map(retry.parse_change, changes)))
    elif file is not None:
        document = file.read_bytes()
        correct = lambda _: document  # noqa: E731 - one of three
    letters_of = open_store(store, existing=on_failure is None)
    with open_broker(broker) as kafka, letters_of as opened, kafka.producer() as producer:
        if on_failure is not None:
            opened.bury(list(read_destination(on_failure, broker)))
        found = [letters.find(opened, place, again=True) for place in positions]
        if not positions:
            found = opened.dead_letters()
        retried = retry.retry(opened, producer, found, correct, named=bool(positions))
    for sentence in retried.unmended[:UNMENDED]:
        click.echo(sentence, err=True)
    if len(retried.unmended) > UNMENDED:
        click.echo(f"and {len(retried.unmended) - UNMENDED:,} more like these", err=True)
    if json_:
        click.echo(orjson.dumps({"published": retried.published, "left_dead": retried.left}))
    else:
        click.echo(f"{retried.published} published again, {retried.left} left dead")
    return 0


# --------------------------------------------------------------------------------- normals


@click.command()
@click.argument("sources", nargs=-1, metavar="[SOURCE...]")
@setting("store")
@click.option(
    "--years", default=STANDARD_PERIOD, show_default=True, help="The period, both included."
)
@click.option(
    "--window",
    type=int,
    default=WINDOW_DAYS,
    show_default=True,
    help="Days whose values are taken for one, itself in the middle.",
)
@click.option(
    "--allow-fewer", is_flag=True, help="Take fewer years than a normal needs, for an average."
)
@setting("region")
@setting("variables")
@setting("dataset")
@setting("cache")
@setting("cache-size")
@as_json
@example("climatestream normals --store duckdb:germany.duckdb --variables temperature")
def normals(
    sources: tuple[str, ...],
    store: str,
    years: str,
    window: int,
    allow_fewer: bool,
    region: str | None,
    variables: str | None,
    dataset: str | None,
    cache: str | None,
    cache_size: str,
    json_: bool,
) -> int:
    """Compute what is normal for each cell and day of the year, into demo.climate_normals.

    Of what the store holds, or of files. A normal is of 30 years (WMO-No. 1203), 1991 to 2020,
    and of at least 24 of them for each day.
    """
    from climatestream import normals as computing
    from climatestream.progress import Spinner
    from climatestream.stores.open import open_store

    if region is not None and not sources:
        raise UsageError("--region narrows files: name some, or leave it out for all of the store")
    rule = computing.Rule(computing.parse_period(years), window, allow_fewer)
    names = [name.strip() for name in (variables or "").split(",") if name.strip()] or None
    made = computing.Made()
    began = time.monotonic()
    with ExitStack() as stack:
        interrupt = stack.enter_context(Interrupt())
        target = stack.enter_context(open_store(store, existing=not sources))
        source = target
        if sources:
            select = {
                "region": region,
                "variables": variables,
                "dataset": dataset,
                "cache": cache,
                "cache_size": cache_size,
            }
            source = stack.enter_context(_gathered(sources, select, rule, interrupt))
        taken = [dataset] if dataset else computing.datasets(source, rule.period)
        if not taken:
            raise SourceError(f"there are no readings of the years {rule.period}: name others")
        with Spinner(lambda: f"{made.kept:,} normals of {made.cells:,} cells"):
            for name in taken:
                if not interrupt.stop.is_set():
                    computing.make(source, target, name, names, rule, made, interrupt.stop.is_set)
    result = {
        "normals": made.kept,
        "left_out": made.left_out,
        "cells": made.cells,
        "period": str(rule.period),
        "seconds": round(time.monotonic() - began, 3),
        "datasets": taken,
    }
    return end(result, json_, interrupt)


@contextmanager
def _gathered(
    sources: tuple[str, ...],
    select: dict[str, Any],
    rule: Rule,
    interrupt: Interrupt,
) -> Iterator[Store]:
    """A store for the time being, with the readings of files, as the pipeline makes them."""
    from climatestream import replay
    from climatestream.embedded import embedded
    from climatestream.stores.open import open_store

    period = {"since": f"{rule.period.first}-01-01", "until": f"{rule.period.last}-12-31"}
    with tempfile.TemporaryDirectory(prefix="climatestream-") as folder:
        name = f"duckdb:{folder}/readings.duckdb"
        with (
            open_source_of(sources, select | period, interrupt) as source,
            embedded(name, interrupt, dataset=select["dataset"]) as pipeline,
        ):
            clock = replay.Clock(interrupt.stop)
            batches = replay.paced(source, pace_of(None, None, False, False), clock)
            pipeline.run(batches, slices=len(source.slices()))
        with open_store(name) as opened:
            yield opened


# ---------------------------------------------------------------------------------- stores


@click.group("store")
def store_commands() -> None:
    """The tables, users and grants of a CrateDB store.

    \b
    Example:
      climatestream store init --store crate://crate@127.0.0.1:4200/demo
    """


@store_commands.command("init")
@setting("store")
@click.option("--shards", type=click.IntRange(1), help="Of each year of readings.")
@click.option("--replicas", help="Copies of each shard: 1, or a range such as 0-1.")
@click.option("--refresh-interval", metavar="TIME", help="Until a row can be found: 1s.")
@click.option("--writer", metavar="USER", help="Make a user that may write, and no more.")
@click.option("--reader", metavar="USER", help="Make a user that may read, for Grafana.")
@as_json
@example("climatestream store init --store crate://crate@127.0.0.1:4200/demo --reader grafana")
def init_store(
    store: str,
    shards: int | None,
    replicas: str | None,
    refresh_interval: str | None,
    writer: str | None,
    reader: str | None,
    json_: bool,
) -> int:
    """Make what is missing; what is there with other settings is told, not changed.

    The cities of the world are kept too, by which the boards find places.

    The passwords of new users come from CLIMATESTREAM_WRITER_PASSWORD and
    CLIMATESTREAM_READER_PASSWORD.
    """
    from climatestream import places
    from climatestream.stores.crate import CrateStore
    from climatestream.stores.open import open_store

    opened = open_store(store)
    if not isinstance(opened, CrateStore):
        with opened:
            places.keep(opened)
        return _say_setup((), (), (), json_)
    refresh_ms = (
        None if refresh_interval is None else round(units.duration_s(refresh_interval) * 1e3)
    )
    chosen: dict[str, Any] = {} if shards is None else {"shards": shards}
    setup = opened.init(
        **chosen,
        replicas=replicas,
        refresh_interval_ms=refresh_ms,
        writer=_user(writer, "CLIMATESTREAM_WRITER_PASSWORD"),
        reader=_user(reader, "CLIMATESTREAM_READER_PASSWORD"),
    )
    with opened:
        places.keep(opened)
    return _say_setup(setup.created, setup.existing, setup.different, json_)


def _say_setup(
    created: tuple[str, ...], existing: tuple[str, ...], different: tuple[str, ...], json_: bool
) -> int:
    if json_:
        said = {"created": created, "existing": existing, "different": different}
        click.echo(orjson.dumps(said))
    else:
        click.echo(f"made: {', '.join(created) or 'nothing'}")
        click.echo(f"there already: {', '.join(existing) or 'nothing'}")
        for sentence in different:
            click.echo(sentence)
    return 0


def _user(name: str | None, variable: str) -> User | None:
    from climatestream.stores.crate_tables import User

    if name is None:
        return None
    password = os.environ.get(variable)
    if not password:
        raise UsageError(f"user {name} needs a password: set {variable}")
    return User(name, password)


@store_commands.command("drop")
@setting("store")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--user", "users", multiple=True, help="Drop this user too.")
@as_json
@example("climatestream store drop --store crate://crate@127.0.0.1:4200/demo")
def drop_store(store: str, yes: bool, users: tuple[str, ...], json_: bool) -> int:
    """Drop every table, with all that is in them."""
    from climatestream.stores.crate import CrateStore
    from climatestream.stores.open import open_store

    opened = open_store(store)
    if not isinstance(opened, CrateStore):
        raise UsageError(f"{store} is a file: delete it, there is nothing else to drop")
    if not yes and not (sys.stdin.isatty() and click.confirm(f"Drop all of {store}?", err=True)):
        raise UsageError(f"{store} was not dropped: add --yes to drop every reading in it")
    opened.drop(users=users)
    if json_:
        click.echo(orjson.dumps({"dropped": store}))
    else:
        click.echo(f"dropped {store}")
    return 0

"""`climatestream lambda`: the command around the function and its event source mapping."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from climatestream import units
from climatestream.errors import UsageError
from climatestream.interrupt import Interrupt
from climatestream.options import F, as_json, end, example, setting


def aws(command: F) -> F:
    """The options that are properties of the function and its mapping, with AWS's names."""
    for property_, kind, meaning in reversed((*OF_MAPPING, *OF_FUNCTION)):
        name = "".join(f"-{c.lower()}" if c.isupper() else c for c in property_).strip("-")
        if kind is bool:
            names = (f"--{name}/--no-{name}", f"--{property_}/--No{property_}")
            option = click.option(*names, property_.lower(), default=None, help=meaning)
        else:
            option = click.option(
                f"--{name}", f"--{property_}", property_.lower(), type=kind, help=meaning
            )
        command = option(command)
    return command


NO_RESPONSE_TYPES = "[]"
OF_MAPPING: tuple[tuple[str, Any, str], ...] = (
    ("BatchSize", int, "Records of an event at most, 1 to 10000."),
    ("MaximumBatchingWindowInSeconds", int, "How long records are gathered, 0 to 300 [s]."),
    ("StartingPosition", str, "TRIM_HORIZON, LATEST or AT_TIMESTAMP, for a new group."),
    ("StartingPositionTimestamp", int, "With AT_TIMESTAMP [s since 1970]."),
    ("MaximumRetryAttempts", int, "0 to 10000; -1: for ever."),
    ("MaximumRecordAgeInSeconds", int, "60 to 604800; -1: any [s]."),
    ("BisectBatchOnFunctionError", bool, "Cut a batch in two when it fails as a whole."),
    (
        "FunctionResponseTypes",
        click.Choice(["ReportBatchItemFailures", NO_RESPONSE_TYPES]),
        "Whether an answer names the records that failed.",
    ),
)
OF_FUNCTION: tuple[tuple[str, Any, str], ...] = (
    ("MemorySize", int, "What the function may use, 128 to 10240 [MB]."),
    ("Timeout", int, "What an invocation may take, 1 to 840 [s]."),
)


def _given(table: tuple[tuple[str, Any, str], ...], properties: dict[str, Any]) -> dict[str, Any]:
    """The properties of a table that options give."""
    given = {name: properties[name.lower()] for name, _, _ in table}
    types = given.get("FunctionResponseTypes")
    if types is not None:
        given["FunctionResponseTypes"] = [] if types == NO_RESPONSE_TYPES else [types]
    return {name: value for name, value in given.items() if value is not None}


@click.command("lambda")
@setting("broker", required=True)
@setting("store")
@click.option(
    "--group",
    envvar="CLIMATESTREAM_GROUP",
    show_envvar=True,
    help="The consumer group; by default ConsumerGroupId, or else climatestream.",
)
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Function and mapping as they are deployed: deploy/event-source.yaml.",
)
@aws
@click.option(
    "--on-failure",
    metavar="WHERE",
    help="Where records go that are given up: kafka://topic, or a folder in place of an S3 bucket.",
)
@click.option(
    "--zip",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The function, from `make lambda`; by default that for AWS, or else for this Python.",
)
@click.option("--python", help="Runs it; by default that of `make env-lambda`, or else this one.")
@click.option("--in-process", is_flag=True, help="Run the handler here instead, for a debugger.")
@click.option("--log", type=click.File("ab"), help="Where the function's output goes.")
@click.option("--until-caught-up", is_flag=True, help="End when all there is now is done.")
@setting("dataset")
@setting("keep")
@setting("metrics-port", type=click.IntRange(0, 65535))
@setting("metrics-host")
@setting("log-format", type=click.Choice(["text", "json"]))
@as_json
@example(
    "climatestream lambda --broker kafka://127.0.0.1:9092/era5 "
    "--store crate://crate@127.0.0.1:4200/demo"
)
def lambda_(
    broker: str,
    store: str,
    group: str | None,
    config: Path | None,
    on_failure: str | None,
    file: Path | None,
    python: str | None,
    in_process: bool,
    log: Any,
    until_caught_up: bool,
    dataset: str | None,
    keep: str | None,
    metrics_port: int | None,
    metrics_host: str,
    log_format: str,
    json_: bool,
    **properties: Any,
) -> int:
    """Run the Lambda function over a topic, as AWS's event source mapping does.

    What --config says is what is deployed; the options named as AWS names its properties come
    before it.
    """
    from climatestream import logs
    from climatestream.aws import laptop
    from climatestream.aws.environments import Environments
    from climatestream.aws.in_process import InProcess
    from climatestream.aws.mapping_settings import OURS, function_of, mapping_of, read_deployment
    from climatestream.brokers.kafka_options import parse
    from climatestream.brokers.open import open_broker

    logs.configure("json" if log_format == "json" else "text")
    if keep is not None:
        units.duration_s(keep)
    deployment = OURS if config is None else read_deployment(config)
    mapping = mapping_of(deployment.mapping | _given(OF_MAPPING, properties))
    if on_failure is not None:
        mapping = replace(mapping, destination=on_failure)
    function = function_of(deployment.function | _given(OF_FUNCTION, properties))
    variables = laptop.variables_of(store, dataset, keep, os.environ)
    function = replace(function, variables={**function.variables, **variables})
    options = parse(broker)
    if mapping.topics and mapping.topics[0] != options.topic:
        click.echo(
            f"climatestream: Topics is {mapping.topics[0]} in {config}, and the broker's URL names "
            f"{options.topic}: that is read",
            err=True,
        )
    if in_process and (file, python, log) != (None, None, None):
        raise UsageError("--in-process runs the handler here: leave out --zip, --python and --log")
    with (
        Interrupt(laptop.DRAIN_S, lambda: laptop.give_up(invoke.kill)) as interrupt,
        ExitStack() as stack,
    ):
        invoke: laptop.Invoker
        with interrupt.at_once():
            if in_process:
                mapping = replace(mapping, pollers=1)
                invoke = stack.enter_context(InProcess(function))
            else:
                environments = Environments(function, *laptop.artefact(file, python), log)
                invoke = stack.enter_context(environments)
            kafka = stack.enter_context(open_broker(broker))
        run = laptop.Laptop(
            broker=kafka,
            url=broker,
            servers=options.servers,
            group=group or mapping.group or "climatestream",
            mapping=mapping,
            function=function,
            until_caught_up=until_caught_up,
            metrics_port=metrics_port,
            metrics_host=metrics_host,
        )
        return end(run.run(invoke, interrupt, alone=in_process), json_, interrupt)

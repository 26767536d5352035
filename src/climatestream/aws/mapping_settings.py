"""The function and its event source mapping, as AWS names their properties.

One YAML file drives the deploy and the laptop: `deploy/event-source.yaml`. It has two parts,
`Function` (AWS::Lambda::Function) and `EventSourceMapping` (AWS::Lambda::EventSourceMapping).
Ranges are those of the CloudFormation schema, and where AWS's guide says less, the guide's.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from climatestream.errors import UsageError

if TYPE_CHECKING:
    from climatestream.ports import Start

GUIDE: Final = "https://docs.aws.amazon.com/lambda/latest/dg/"
RETRIES: Final = GUIDE + "kafka-retry-configurations.html"
SCALING: Final = GUIDE + "kafka-scaling-modes.html"
ON_FAILURE: Final = GUIDE + "kafka-on-failure-destination.html"
PARAMETERS: Final = GUIDE + "msk-esm-parameters.html"
BATCHING: Final = GUIDE + "invocation-eventsourcemapping.html"
STARTING: Final = GUIDE + "kafka-starting-positions.html"
LIMITS: Final = GUIDE + "gettingstarted-limits.html"
TIMEOUT: Final = GUIDE + "with-msk-configure.html"
FUNCTION: Final = (
    "https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/"
    "aws-resource-lambda-function.html"
)

DEFAULT_WINDOW_S: Final = 0.5
"""The batching window where none is set [s]: `BATCHING`."""
RETRIES_WITH_DESTINATION: Final = 10
"""Retries at most where they are unlimited and there is a destination: `ON_FAILURE`."""
REPORT: Final = "ReportBatchItemFailures"
KAFKA: Final = "kafka://"


@dataclass(frozen=True)
class EventSourceMapping:
    """How records are taken from a topic to the function.

    Parameters
    ----------
    batch_size
        Records of an event, at most.
    window_s
        Time that records are gathered [s], from the first one or the end of the last batch on.
    start
        Where a group begins that has committed nothing.
    retries
        How often a batch is sent again after an error; None: for ever.
    record_age_s
        Older records are not sent [s]; None: all are.
    bisect
        Whether a batch is cut in two before it is sent again.
    partial
        Whether the function's answer names the records that failed.
    destination
        Where discarded records go: `kafka://topic`, or a folder in place of an S3 bucket; None:
        they are dropped.
    pollers
        Event pollers. AWS scales them between two numbers; here the lower one runs.
    event_source_arn
        Of an Amazon MSK cluster; None: the events are those of a self-managed Kafka.
    group
        The consumer group that the file names.
    topics
        The topics that the file names: one, or none.
    """

    batch_size: int = 10_000
    window_s: float = 1.0
    start: Start = "earliest"
    retries: int | None = None
    record_age_s: int | None = None
    bisect: bool = False
    partial: bool = True
    destination: str | None = None
    pollers: int = 1
    event_source_arn: str | None = "arn:aws:kafka:us-east-1:000000000000:cluster/laptop/0"
    group: str | None = None
    topics: tuple[str, ...] = ()

    @property
    def most_retries(self) -> int | None:
        """How often a batch is really sent again; None: for ever."""
        if self.retries is None and self.destination is not None:
            return RETRIES_WITH_DESTINATION
        return self.retries


@dataclass(frozen=True)
class Function:
    """The function as it is deployed.

    Parameters
    ----------
    name
        As AWS would call it.
    handler
        Module and function, with dots.
    memory_mb
        What its process may use [MB]; it is killed above.
    timeout_s
        What an invocation may take [s]; the process is killed after.
    variables
        Its environment, besides AWS's own.
    """

    name: str = "climatestream"
    handler: str = "climatestream.aws.handler.handler"
    memory_mb: int = 512
    timeout_s: int = 60
    variables: Mapping[str, str] = field(default_factory=dict)


# ------------------------------------------------------------------------------- checking

Check = Callable[[str, Any], Any]
"""Takes a property's name and value; gives the value as we have it, or raises UsageError."""


def _wrong(name: str, value: Any, expected: str, page: str) -> UsageError:
    return UsageError(f"{name} is {value!r}: expected {expected}; see {page}")


def _integer(low: int, high: int, page: str, unlimited: bool = False) -> Check:
    """An integer of a range; with `unlimited`, -1 is None."""
    expected = f"an integer of {low} to {high}" + (", or -1 for no limit" if unlimited else "")

    def check(name: str, value: Any) -> int | None:
        if type(value) is not int or not (low <= value <= high or (unlimited and value == -1)):
            raise _wrong(name, value, expected, page)
        return None if unlimited and value == -1 else value

    return check


def _boolean(page: str) -> Check:
    def check(name: str, value: Any) -> bool:
        if not isinstance(value, bool):
            raise _wrong(name, value, "true or false", page)
        return value

    return check


def _text(pattern: str, expected: str, page: str) -> Check:
    def check(name: str, value: Any) -> str:
        if not isinstance(value, str) or re.fullmatch(pattern, value) is None:
            raise _wrong(name, value, expected, page)
        return value

    return check


def _list_of(choices: tuple[str, ...], page: str) -> Check:
    def check(name: str, value: Any) -> tuple[str, ...]:
        if not isinstance(value, list) or len(value) > 1 or not set(value) <= set(choices):
            raise _wrong(name, value, f"a list of at most one of {', '.join(choices)}", page)
        return tuple(value)

    return check


def _one_topic(name: str, value: Any) -> tuple[str, ...]:
    good = isinstance(value, list) and len(value) == 1 and isinstance(value[0], str)
    if not good or re.fullmatch(r"[A-Za-z0-9._-]{1,249}", value[0]) is None:
        raise _wrong(name, value, "a list of exactly one topic's name", PARAMETERS)
    return tuple(value)


def _object(keys: Mapping[str, Check], page: str) -> Check:
    def check(name: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _wrong(name, value, f"an object with {', '.join(keys)}", page)
        return _checked(name, value, keys, page)

    return check


def _anything(_: str, value: Any) -> Any:
    """A property for the deploy alone."""
    return value


def _absent(why: str) -> Check:
    def check(name: str, value: Any) -> None:
        raise UsageError(f"{name} is {value!r}: {why}")

    return check


def _enabled(name: str, value: Any) -> None:
    if value is not True:
        raise _wrong(name, value, "true: a mapping that is not enabled polls nothing", PARAMETERS)


def _checked(
    where: str, given: Mapping[str, Any], known: Mapping[str, Check], page: str
) -> dict[str, Any]:
    """Every property of a part, checked; an unknown one is answered with the nearest name."""
    found = {}
    for name, value in given.items():
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            raise UsageError(
                f"{where}.{name} is no property of it"
                + (f": did you mean {near[0]}?" if near else "")
                + f" see {page}"
            )
        found[name] = known[name](f"{where}.{name}", value)
    return found


_DESTINATION = _text(
    r"|kafka://[^.][a-zA-Z0-9\-_.]{0,248}|arn:[\w-]+:(s3|sqs|sns):.+",
    "kafka://TOPIC, or the ARN of an S3 bucket, an SQS queue or an SNS topic",
    ON_FAILURE,
)
_KAFKA_CONFIG = _object(
    {
        "ConsumerGroupId": _text(r"[a-zA-Z0-9\-/*:_+=.@]{1,200}", "1 to 200 letters", PARAMETERS),
        "SchemaRegistryConfig": _absent("our messages are JSON, without a schema registry"),
    },
    PARAMETERS,
)
_MAPPING: Final[Mapping[str, Check]] = {
    "BatchSize": _integer(1, 10_000, PARAMETERS),
    "MaximumBatchingWindowInSeconds": _integer(0, 300, BATCHING),
    "StartingPosition": _text(
        "TRIM_HORIZON|LATEST|AT_TIMESTAMP", "TRIM_HORIZON, LATEST or AT_TIMESTAMP", STARTING
    ),
    "StartingPositionTimestamp": _integer(0, 2**40, STARTING),
    "MaximumRetryAttempts": _integer(0, 10_000, RETRIES, unlimited=True),
    "MaximumRecordAgeInSeconds": _integer(60, 604_800, RETRIES, unlimited=True),
    "BisectBatchOnFunctionError": _boolean(RETRIES),
    "FunctionResponseTypes": _list_of((REPORT,), RETRIES),
    "DestinationConfig": _object(
        {"OnFailure": _object({"Destination": _DESTINATION}, ON_FAILURE)}, ON_FAILURE
    ),
    "ProvisionedPollerConfig": _object(
        {
            "MinimumPollers": _integer(1, 200, SCALING),
            "MaximumPollers": _integer(1, 2_000, SCALING),
            "PollerGroupName": _text(".{0,128}", "at most 128 letters", SCALING),
        },
        SCALING,
    ),
    "Topics": _one_topic,
    "Enabled": _enabled,
    "EventSourceArn": _text("arn:.+", "the ARN of an Amazon MSK cluster", PARAMETERS),
    "AmazonManagedKafkaEventSourceConfig": _KAFKA_CONFIG,
    "SelfManagedKafkaEventSourceConfig": _KAFKA_CONFIG,
    "FilterCriteria": _absent("a filter would drop records that audit then misses"),
    **dict.fromkeys(
        ("FunctionName", "KmsKeyArn", "LoggingConfig", "MetricsConfig"),
        _anything,
    ),
    **dict.fromkeys(("SelfManagedEventSource", "SourceAccessConfigurations", "Tags"), _anything),
}
_FUNCTION: Final[Mapping[str, Check]] = {
    "FunctionName": _text(r"[a-zA-Z0-9-_]{1,64}", "1 to 64 letters, digits, - and _", FUNCTION),
    "Handler": _text(r"[\w/]+(\.\w+)+", "MODULE.FUNCTION", FUNCTION),
    "MemorySize": _integer(128, 10_240, LIMITS),
    "Timeout": _integer(1, 840, TIMEOUT),
    "Runtime": _text(r"python3\.1\d", "a Python runtime, such as python3.13", FUNCTION),
    "Architectures": _list_of(("arm64", "x86_64"), FUNCTION),
    "Environment": _object({"Variables": _anything}, FUNCTION),
    **dict.fromkeys(("Description", "EphemeralStorage", "LoggingConfig", "Tags"), _anything),
    **dict.fromkeys(("TracingConfig", "ReservedConcurrentExecutions"), _anything),
}
OF_PROVISIONED_MODE: Final = (
    "MaximumRetryAttempts",
    "MaximumRecordAgeInSeconds",
    "BisectBatchOnFunctionError",
    "FunctionResponseTypes",
)


def mapping_of(properties: Mapping[str, Any]) -> EventSourceMapping:
    """An event source mapping of its properties; what is absent is as AWS has it by default.

    Raises
    ------
    UsageError
        A property is unknown, out of its range, or does not fit another: its name, and the page.
    """
    found = _checked("EventSourceMapping", properties, _MAPPING, PARAMETERS)
    pollers = found.get("ProvisionedPollerConfig")
    _fit(found, pollers)
    destination = found.get("DestinationConfig", {}).get("OnFailure", {}).get("Destination")
    managed = "AmazonManagedKafkaEventSourceConfig" in found or "EventSourceArn" in found
    groups = [
        found.get(f"{kind}KafkaEventSourceConfig", {}).get("ConsumerGroupId")
        for kind in ("AmazonManaged", "SelfManaged")
    ]
    return EventSourceMapping(
        batch_size=found.get("BatchSize", 100),
        window_s=found.get("MaximumBatchingWindowInSeconds", DEFAULT_WINDOW_S),
        start=_start(found),
        retries=found.get("MaximumRetryAttempts"),
        record_age_s=found.get("MaximumRecordAgeInSeconds"),
        bisect=found.get("BisectBatchOnFunctionError", False),
        partial=REPORT in found.get("FunctionResponseTypes", ()),
        destination=destination or None,
        pollers=(pollers or {}).get("MinimumPollers", 1),
        event_source_arn=found.get("EventSourceArn", EventSourceMapping.event_source_arn)
        if managed
        else None,
        group=next(filter(None, groups), None),
        topics=found.get("Topics", ()),
    )


def _fit(found: Mapping[str, Any], pollers: Mapping[str, Any] | None) -> None:
    """What the schema does not say: which properties go with which."""
    if pollers is None:
        for name in OF_PROVISIONED_MODE:
            if found.get(name) not in (None, False, ()):
                raise UsageError(
                    f"EventSourceMapping.{name} is for provisioned mode alone: add "
                    f"ProvisionedPollerConfig; see {RETRIES}"
                )
    elif pollers.get("MinimumPollers", 1) > pollers.get("MaximumPollers", 200):
        raise UsageError(
            f"EventSourceMapping.ProvisionedPollerConfig.MinimumPollers is "
            f"{pollers['MinimumPollers']}, more than MaximumPollers, which is "
            f"{pollers.get('MaximumPollers', 200)}; see {SCALING}"
        )
    if (found.get("StartingPosition") == "AT_TIMESTAMP") != ("StartingPositionTimestamp" in found):
        raise UsageError(
            f"EventSourceMapping.StartingPosition AT_TIMESTAMP and StartingPositionTimestamp "
            f"[s since 1970] go together; see {STARTING}"
        )
    destination = found.get("DestinationConfig", {}).get("OnFailure", {}).get("Destination") or ""
    if destination.startswith(KAFKA):
        if pollers is None:
            raise UsageError(
                f"EventSourceMapping.DestinationConfig names a Kafka topic, which is for "
                f"provisioned mode alone: add ProvisionedPollerConfig; see {ON_FAILURE}"
            )
        not_the_source(destination, *found.get("Topics", ()))


def not_the_source(destination: str | None, *topics: str) -> None:
    """See that discarded records do not come back.

    Raises
    ------
    UsageError
        The destination is the topic that they come from.
    """
    if destination is not None and destination.removeprefix(KAFKA) in topics:
        raise UsageError(
            f"EventSourceMapping.DestinationConfig.OnFailure.Destination is {destination}, the "
            f"topic that is read: name another; see {ON_FAILURE}"
        )


def _start(found: Mapping[str, Any]) -> Start:
    position = found.get("StartingPosition", "TRIM_HORIZON")
    if position == "AT_TIMESTAMP":
        return int(found["StartingPositionTimestamp"]) * 1000
    return "latest" if position == "LATEST" else "earliest"


def function_of(properties: Mapping[str, Any]) -> Function:
    """A function of its properties; what is absent is as we deploy it.

    Raises
    ------
    UsageError
        A property is unknown or out of its range.
    """
    found = _checked("Function", properties, _FUNCTION, FUNCTION)
    default = Function()
    return Function(
        name=found.get("FunctionName", default.name),
        handler=found.get("Handler", default.handler),
        memory_mb=found.get("MemorySize", default.memory_mb),
        timeout_s=found.get("Timeout", default.timeout_s),
        variables={
            str(name): str(value)
            for name, value in found.get("Environment", {}).get("Variables", {}).items()
        },
    )


@dataclass(frozen=True)
class Deployment:
    """What a YAML file says, as it is typed: properties by part."""

    function: dict[str, Any] = field(default_factory=dict)
    mapping: dict[str, Any] = field(default_factory=dict)


OURS: Final = Deployment(
    mapping={
        "StartingPosition": "TRIM_HORIZON",
        "BatchSize": EventSourceMapping.batch_size,
        "MaximumBatchingWindowInSeconds": int(EventSourceMapping.window_s),
        "FunctionResponseTypes": [REPORT],
        "ProvisionedPollerConfig": {"MinimumPollers": 1, "MaximumPollers": 4},
        "AmazonManagedKafkaEventSourceConfig": {},
    }
)
"""What holds where no file is named: what `deploy/event-source.yaml` says."""


def read_deployment(path: Path) -> Deployment:
    """Read `deploy/event-source.yaml`, or one like it.

    Raises
    ------
    UsageError
        It can't be read, is no YAML, or has other parts than `Function` and `EventSourceMapping`.
    """
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{path} is YAML, for which a package is missing: pip install 'climatestream[lambda]'"
        ) from error
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} can't be read: {error}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    parts = ("Function", "EventSourceMapping")
    good = isinstance(found, dict) and set(found) <= set(parts)
    if not good or not all(isinstance(part or {}, dict) for part in found.values()):
        raise UsageError(f"{path} has other parts than expected: {' and '.join(parts)}")
    return Deployment(found.get("Function") or {}, found.get("EventSourceMapping") or {})

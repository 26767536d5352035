"""Kafka's errors as ours, translated once; librdkafka's log as Python's."""

from __future__ import annotations

import logging
import re
from typing import Final, cast

from confluent_kafka import KafkaError, KafkaException

from climatestream.errors import BrokerError, BrokerUnavailable, UsageError

LOGGER: Final = logging.getLogger("climatestream.kafka")
"""What librdkafka says of its connections; silent until someone adds a handler."""
LOGGER.addHandler(logging.NullHandler())

TRANSIENT: Final = frozenset(
    {
        # librdkafka's own
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TRANSPORT,
        KafkaError._RESOLVE,
        KafkaError._TIMED_OUT,
        KafkaError._TIMED_OUT_QUEUE,
        KafkaError._MSG_TIMED_OUT,
        KafkaError._WAIT_COORD,
        KafkaError._IN_PROGRESS,
        KafkaError._PREV_IN_PROGRESS,
        KafkaError._MAX_POLL_EXCEEDED,
        KafkaError._NODE_UPDATE,
        KafkaError._DESTROY_BROKER,
        KafkaError._RETRY,
        KafkaError._NOENT,  # of a partition without a leader
        # the broker's
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError.NOT_CONTROLLER,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.REPLICA_NOT_AVAILABLE,
        KafkaError.KAFKA_STORAGE_ERROR,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.NOT_ENOUGH_REPLICAS,
        KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.THROTTLING_QUOTA_EXCEEDED,
        KafkaError.UNSTABLE_OFFSET_COMMIT,
        KafkaError.FETCH_SESSION_ID_NOT_FOUND,
        KafkaError.INVALID_FETCH_SESSION_EPOCH,
    }
)
"""Codes after which the same call may succeed; after any other it fails again."""

REFUSED: Final = frozenset(
    {
        KafkaError._AUTHENTICATION,
        KafkaError._SSL,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.UNSUPPORTED_SASL_MECHANISM,
        KafkaError.ILLEGAL_SASL_STATE,
    }
)
"""Codes of a connection that comes about no better the next time."""

NOT_THE_OWNER: Final = frozenset(
    {
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.STALE_MEMBER_EPOCH,
        KafkaError.FENCED_MEMBER_EPOCH,
        KafkaError._ASSIGNMENT_LOST,
    }
)
"""Answers to a commit of a member whose partitions others have by now."""

_WHERE = re.compile(r"^(?:\[thrd:[^]]*\]: )?(?:\S+/\w+: )?")
_STATE = re.compile(r" ?\(after \d+ms in state \w+.*?\)")


def error_of(exception: KafkaException) -> KafkaError:
    """The error that an exception carries."""
    return cast("KafkaError", exception.args[0])


def words(error: KafkaError) -> str:
    """What an error says, without librdkafka's threads and states."""
    return _STATE.sub("", _WHERE.sub("", error.str())).strip().rstrip(".")


def translate(error: KafkaError, what: str) -> BrokerError | BrokerUnavailable:
    """An error of Kafka's as ours.

    Parameters
    ----------
    what
        What was not done, and where: the beginning of the sentence.
    """
    if not error.fatal() and (error.code() in TRANSIENT or error.retriable()):
        return BrokerUnavailable(f"{what}: {words(error)}; the broker may answer later")
    return BrokerError(f"{what}: {words(error)} ({error.name()})")


def misconfigured(exception: KafkaException, place: object) -> UsageError:
    """Why librdkafka makes no client of some options."""
    return UsageError(f"the options of {place} don't fit together: {words(error_of(exception))}")


class Events:
    """What librdkafka says of a client's connections: its `error_cb`.

    It goes on trying by itself; what is kept here is why a call that waits gets no answer.

    Parameters
    ----------
    let_in
        Whether the broker took these credentials before: then a refusal may pass (a token was
        renewed too late, a password is being changed), and is no reason to end.
    """

    def __init__(self, servers: str, *, let_in: bool = False) -> None:
        self._servers = servers
        self._let_in = let_in
        self._cause: KafkaError | None = None
        self._fatal: KafkaError | None = None
        self._down = False

    def __call__(self, error: KafkaError) -> None:
        if error.fatal() or error.code() == KafkaError._FATAL:
            self._fatal = error
        elif error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._down = True
        elif self._cause is None or self._cause.code() not in REFUSED:
            self._cause = error
        LOGGER.info("%s: %s", self._servers, error.str())

    def clear(self) -> None:
        """Forget what was said: what comes now belongs to the call that begins."""
        self._cause = None
        self._down = False

    @property
    def fatal(self) -> BrokerError | None:
        """Why the client can never go on; None while it can."""
        if self._fatal is None:
            return None
        return BrokerError(
            f"the client of {self._servers} can't go on: {words(self._fatal)} "
            f"({self._fatal.name()}); start the command again"
        )

    def trouble(self) -> BrokerError | BrokerUnavailable | None:
        """Why there is no answer, if that is known; None while there may still be one."""
        if self._fatal is not None:
            return self.fatal
        cause = self._cause
        if cause is not None and cause.code() in REFUSED:
            kind = BrokerUnavailable if self._let_in else BrokerError
            return kind(
                f"{self._servers} does not let us in: {words(cause)}; check security.protocol, "
                f"sasl.*, ssl.* and the password"
            )
        if not self._down:
            return None
        reason = f": {words(cause)}" if cause is not None else ""
        return BrokerUnavailable(
            f"no broker of {self._servers} answers{reason}; check the address and the "
            f"security options, or start the broker"
        )

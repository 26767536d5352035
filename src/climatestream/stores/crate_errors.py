"""What CrateDB's failures mean: one table, from an answer to what is done about it.

Each rule was seen on a real server (6.4 and 6.5), or is taken from the list of codes that the
server's documentation and sources give:
https://cratedb.com/docs/crate/reference/en/latest/interfaces/http.html#error-codes
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal

from climatestream.errors import StoreError, StoreUnavailable

Scope = Literal[
    "request",  # the whole request failed: nothing of it was stored
    "row",  # one row failed in an answer with status 200: the others were stored
]


class Verdict(Enum):
    """What is done about a failure."""

    UNAVAILABLE = "again later"
    OVERLOADED = "again later, with smaller requests"
    TOO_LARGE = "again in halves; a row alone is refused"
    REFUSED = "the row is refused for good; a request with more rows than one is cut in halves"
    DENIED = "the user may not do this, or is not known: the operator must act"
    MISSING = "a table is not there, or not to be seen: as for DENIED, but see `failure`"
    UNKNOWN = "nobody has seen this before: stop"


@dataclass(frozen=True)
class Rule:
    """A failure as the server reports it.

    Parameters
    ----------
    codes
        CrateDB's error codes, of which the first three digits are an HTTP status; or HTTP
        statuses, of answers without a code.
    words
        How the message begins.
    """

    scope: Scope
    codes: frozenset[int]
    words: str
    verdict: Verdict


def _rule(scope: Scope, codes: int | set[int], words: str, verdict: Verdict) -> Rule:
    return Rule(scope, frozenset({codes} if isinstance(codes, int) else codes), words, verdict)


_BLOCKED: Final = {4007, 4031, 4032, 4033, 4034, 4035, 4036, 4037}
"""A table or a node is closed, read-only, or blocked because the disk is full."""
_NOT_ALLOWED: Final = 4007
_PARTS_AWAY: Final = {5002, 5003, 5030, 5031, 5032, 5033, 5034, 5035}
"""Shards, nodes or the master are not there now."""
_MISSING: Final = {4041, 4043, 4045}

OVERLOADED_WORDS: Final = ("EsRejectedExecutionException", "CircuitBreakingException")
PARTS_AWAY_WORDS: Final = (
    # What the server's own SQLExceptions.maybeTemporary counts as passing, by class.
    "AlreadyClosedException",
    "ClusterBlockException",
    "ConnectException",
    "ConnectTransportException",
    "ElasticsearchTimeoutException",
    "IllegalIndexShardStateException",
    "IndexNotFoundException",
    "IndexShardClosedException",
    "NoSeedNodeLeftException",
    "NoShardAvailableActionException",
    "NodeClosedException",
    "NodeDisconnectedException",
    "NodeNotConnectedException",
    "ShardNotFoundException",
    "UnavailableShardsException",
    "IOException[No space left on device",
)

_VALIDATION: Final = "SQLParseException[Validation Failed"
"""A partition for the row's year can't be made: the node holds as many shards as it may."""

RULES: Final = (
    _rule("request", 401, "", Verdict.DENIED),
    _rule("request", {4010, 4011}, "", Verdict.DENIED),
    _rule("request", 413, "", Verdict.TOO_LARGE),
    _rule("request", {429, 4290}, "", Verdict.OVERLOADED),
    _rule("request", {502, 503, 504}, "", Verdict.UNAVAILABLE),
    # A row that does not fit its types fails the request before anything of it is stored.
    _rule("request", 4000, "SQLParseException[Cannot cast ", Verdict.REFUSED),
    _rule("request", 4000, "SQLParseException[A primary key value must not be", Verdict.REFUSED),
    _rule("request", 4000, 'SQLParseException["', Verdict.REFUSED),  # "source" must not be null
    # As does one that the JSON parser's limits are too small for: a name of 50,000 letters.
    _rule("request", 4000, "SQLParseException[Can't parse [", Verdict.REFUSED),
    _rule("request", 4000, _VALIDATION, Verdict.UNAVAILABLE),
    _rule("request", _MISSING, "", Verdict.MISSING),
    *(
        rule
        for scope in ("request", "row")
        for rule in (
            _rule(scope, _BLOCKED, "", Verdict.UNAVAILABLE),
            _rule(scope, 4046, "", Verdict.UNAVAILABLE),  # the partition was dropped meanwhile
            _rule(scope, 4092, "", Verdict.UNAVAILABLE),  # written by others at the same moment
            _rule(scope, _PARTS_AWAY, "", Verdict.UNAVAILABLE),
            *(_rule(scope, 5000, words, Verdict.OVERLOADED) for words in OVERLOADED_WORDS),
            *(_rule(scope, 5000, words, Verdict.UNAVAILABLE) for words in PARTS_AWAY_WORDS),
        )
    ),
    _rule("row", 4000, _VALIDATION, Verdict.UNAVAILABLE),
    # Another type than the field has, too long a text, too many fields, an impossible name.
    _rule("row", {4000, 4003, 4008}, "", Verdict.REFUSED),
)
"""The first that matches holds."""

LATER: Final = (Verdict.UNAVAILABLE, Verdict.OVERLOADED)

RETRY_AFTER_S: Final = 1.0
"""How long to leave an overloaded server alone, at least [s]."""

WORDS_LENGTH: Final = 300
"""Characters of a server's message that are kept: it may repeat the whole request."""


def classify(scope: Scope, code: int, message: str) -> Verdict:
    """What is done about a failure with this code, or HTTP status, and message."""
    for rule in RULES:
        if rule.scope == scope and code in rule.codes and message.startswith(rule.words):
            return rule.verdict
    return Verdict.UNKNOWN


def words(message: str) -> str:
    """The server's message, fit for a sentence: one line, not too long."""
    line = " ".join(message[: 2 * WORDS_LENGTH].split())
    return line if len(line) <= WORDS_LENGTH else line[: WORDS_LENGTH - 3] + "..."


class RelationBlocked(StoreUnavailable):
    """A table does not allow the statement now: it is read-only, or closed."""


class RequestRefused(StoreError):
    """A request that will fail again as it is.

    `verdict` says whether parts of it may be taken: `TOO_LARGE` and `REFUSED`.
    """

    def __init__(self, message: str, verdict: Verdict) -> None:
        super().__init__(message)
        self.verdict = verdict


def failure(
    place: str, code: int, message: str, *, was_there: bool
) -> StoreUnavailable | RequestRefused:
    """What to raise where a whole request failed.

    Parameters
    ----------
    place
        The store, as messages name it.
    was_there
        Whether what the statement names was there before. A server that starts answers for some
        moments that it knows no schema, so that what was there may be there again.
    """
    verdict = classify("request", code, message)
    said = f"{place} answers {code}: {words(message) or 'nothing more'}"
    if verdict is Verdict.MISSING:
        said += f"; its tables are made with `climatestream store init --store '{place}'`"
    if verdict is Verdict.UNAVAILABLE and code == _NOT_ALLOWED:
        return RelationBlocked(said)
    if verdict in LATER or (verdict is Verdict.MISSING and was_there):
        retry_after_s = RETRY_AFTER_S if verdict is Verdict.OVERLOADED else None
        return StoreUnavailable(said, retry_after_s=retry_after_s)
    return RequestRefused(said, verdict)

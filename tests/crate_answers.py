"""Answers of real CrateDB servers, recorded: what the store's table of errors is held against.

`fact` names the observation (a section of the notes that were made on CrateDB 6.5, or 6.4.3 where
it was seen there, or the server's own documentation or sources). tests/services makes a real
server give those again that it can be made to give.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from climatestream.stores.crate_errors import (
    OVERLOADED_WORDS,
    PARTS_AWAY_WORDS,
    Scope,
    Verdict,
    classify,
)


@dataclass(frozen=True)
class Recorded:
    """An answer that says that something failed.

    Parameters
    ----------
    status
        Of the whole answer; 200 where a row failed.
    code
        CrateDB's; None where the answer is no JSON.
    message
        Its beginning at least; of an answer that is no JSON, the content.
    """

    name: str
    fact: str
    status: int
    code: int | None
    message: str
    verdict: Verdict

    @property
    def scope(self) -> Scope:
        return "row" if self.status == 200 else "request"

    @property
    def content(self) -> bytes:
        """Of the whole answer."""
        if self.code is None:
            return self.message.encode()
        return orjson.dumps({"error": {"message": self.message, "code": self.code}})

    @property
    def result(self) -> dict[str, Any]:
        """Of a row in an answer with status 200."""
        return {"rowcount": -2, "error": {"code": self.code, "message": self.message}}

    def classified(self) -> Verdict:
        code = self.status if self.code is None else self.code
        return classify(self.scope, code, self.message)


_CASTS = "a cast error while binding fails the whole request"
_BLOCK = "ClusterBlockException[blocked by: [RELATION_READ_DELETE_ONLY/12/index read-only / allow"

ANSWERS = (
    # ------------------------------------------------------------------ whole requests
    Recorded(
        "text in a number",
        f"A.3: {_CASTS}",
        400,
        4000,
        "SQLParseException[Cannot cast object element `temperature` with value `hot` to type "
        "`double precision`]",
        Verdict.REFUSED,
    ),
    Recorded(
        "a latitude of 95",
        f"A.3: {_CASTS}",
        400,
        4000,
        "SQLParseException[Cannot cast value `[10.0, 95.0]` to type `geo_point`]",
        Verdict.REFUSED,
    ),
    Recorded(
        "null in the key",
        "A.2: NULL in a column of the primary key",
        400,
        4000,
        "SQLParseException[A primary key value must not be NULL]",
        Verdict.REFUSED,
    ),
    Recorded(
        "null where there must be a value",
        "seen on 6.4.3: fails the whole request of a partitioned table",
        400,
        4000,
        'SQLParseException["source" must not be null]',
        Verdict.REFUSED,
    ),
    Recorded(
        "a name of 60,000 letters",
        "A.2: the error repeats the whole body; seen on 6.4.3 for names of more than 50,000",
        400,
        4000,
        'SQLParseException[Can\'t parse [{"stmt":"INSERT INTO',
        Verdict.REFUSED,
    ),
    Recorded(
        "too many shards",
        "seen on 6.4.3 where a new year's partition would exceed cluster.max_shards_per_node",
        400,
        4000,
        "SQLParseException[Validation Failed: 1: this action would add [1] total shards, but this "
        "cluster currently has",
        Verdict.UNAVAILABLE,
    ),
    Recorded(
        "blocked for writing",
        "A.3: blocks.write and blocks.read_only",
        400,
        4007,
        'OperationOnInaccessibleRelationException[The relation "',
        Verdict.UNAVAILABLE,
    ),
    Recorded(
        "a single row under the flood-stage block",
        "A.3: blocks.read_only_allow_delete, single args",
        403,
        4037,
        f"{_BLOCK} delete (api)];]",
        Verdict.UNAVAILABLE,
    ),
    Recorded("too large", "A.4: 105 MiB", 413, None, "", Verdict.TOO_LARGE),
    Recorded(
        "no table",
        "A.2: unknown table",
        404,
        4041,
        "RelationUnknown[Relation '",
        Verdict.MISSING,
    ),
    Recorded(
        "no schema",
        "A.7: what a user has no right on is hidden",
        404,
        4045,
        "SchemaUnknownException[Schema '",
        Verdict.MISSING,
    ),
    Recorded(
        "no column",
        "A.2: unknown column",
        404,
        4043,
        "ColumnUnknownException[Column nope unknown]",
        Verdict.MISSING,
    ),
    Recorded(
        "a reader writes",
        "A.7: reader INSERT",
        401,
        4011,
        "MissingPrivilegeException[Missing 'DML' privilege for user '",
        Verdict.DENIED,
    ),
    Recorded(
        "not authorized",
        "the server's list of codes",
        401,
        4010,
        "UnauthorizedException[User ",
        Verdict.DENIED,
    ),
    Recorded(
        "a wrong password",
        "A.7: wrong",
        401,
        None,
        'password authentication failed for user "',
        Verdict.DENIED,
    ),
    Recorded(
        "a query that the memory breaker stops",
        "A.6: memory breaker",
        500,
        5000,
        "CircuitBreakingException[Allocating 618kb for 'collect: 0' failed, breaker would use "
        "1.2mb in total. Limit is 1mb.",
        Verdict.OVERLOADED,
    ),
    Recorded(
        "too many requests",
        "the server's list of codes; A.6: never seen",
        429,
        4290,
        "TooManyRequests",
        Verdict.OVERLOADED,
    ),
    Recorded(
        "a proxy's too many requests",
        "HTTP: 429 of what stands between",
        429,
        None,
        "slow down",
        Verdict.OVERLOADED,
    ),
    *(
        Recorded(
            f"a proxy's {status}",
            f"HTTP: {status} of what stands between",
            status,
            None,
            "<html><body>no upstream</body></html>",
            Verdict.UNAVAILABLE,
        )
        for status in (502, 503, 504)
    ),
    *(
        Recorded(
            f"code {code}",
            "the server's list of codes: shards, nodes or master are not there now",
            500 if code < 5030 else 503,
            code,
            "something is not available",
            Verdict.UNAVAILABLE,
        )
        for code in (5002, 5003, 5030, 5031, 5032, 5033, 5034, 5035)
    ),
    Recorded(
        "an error that nobody has seen",
        "A.6: 5000 may be tried again only where its words say so",
        500,
        5000,
        "NullPointerException[something is null]",
        Verdict.UNKNOWN,
    ),
    Recorded(
        "a statement that does not parse",
        "A.2: WHERE after DO UPDATE SET",
        400,
        4000,
        "ParsingException[line 1:220: mismatched input 'WHERE' expecting {<EOF>, ';'}]",
        Verdict.UNKNOWN,
    ),
    # ------------------------------------------------------------------- single rows
    Recorded(
        "a text of 40,000 letters",
        "A.3: TEXT > 32766 bytes",
        200,
        4000,
        "SQLParseException[Document contains at least one immense term in field=",
        Verdict.REFUSED,
    ),
    Recorded(
        "another type in one request",
        "A.3: a new key as number and as text in one bulk",
        200,
        4000,
        "SQLParseException[Column `data['mix']` already exists with type `text`. Cannot add same "
        "column with type `double precision`]",
        Verdict.REFUSED,
    ),
    Recorded(
        "too many fields",
        "A.3: 1100 new keys in one row",
        200,
        4000,
        "SQLParseException[Limit of total columns [1000] in table [",
        Verdict.REFUSED,
    ),
    Recorded(
        "null where there must be a value, for a row",
        "A.3: NOT NULL violated; on 6.4.3 of a table without partitions",
        200,
        4000,
        'SQLParseException["source" must not be null]',
        Verdict.REFUSED,
    ),
    Recorded(
        "a name with a dot",
        "A.3: with.dot",
        200,
        4008,
        'InvalidColumnNameException["with.dot" contains a dot]',
        Verdict.REFUSED,
    ),
    Recorded(
        "a field that is not valid",
        "the server's list of codes",
        200,
        4003,
        "ColumnValidationException[Validation failed for",
        Verdict.REFUSED,
    ),
    Recorded(
        "too many shards, for a row",
        "as for the whole request",
        200,
        4000,
        "SQLParseException[Validation Failed: 1: this action would add [1] total shards",
        Verdict.UNAVAILABLE,
    ),
    Recorded(
        "the disk is full",
        "A.3: blocks.read_only_allow_delete, set by the server at the flood stage",
        200,
        4037,
        f"{_BLOCK} delete (api)];]",
        Verdict.UNAVAILABLE,
    ),
    Recorded(
        "the write queue is full",
        "A.6: tiny pools",
        200,
        5000,
        "EsRejectedExecutionException[rejected execution of processing of",
        Verdict.OVERLOADED,
    ),
    Recorded(
        "the memory breaker stops a write",
        "A.6; seen on 6.4.3 for rows with indices.breaker.query.limit = 1mb",
        200,
        5000,
        "CircuitBreakingException[Allocating",
        Verdict.OVERLOADED,
    ),
    *(
        Recorded(
            f"written by others at the same moment, {status}",
            "the server's list of codes",
            status,
            4092,
            "VersionConflictException[version conflict",
            Verdict.UNAVAILABLE,
        )
        for status in (200, 409)
    ),
    Recorded(
        "a shard is away",
        "the server's list of codes",
        200,
        5002,
        "UnavailableShardsException[primary shard is not active]",
        Verdict.UNAVAILABLE,
    ),
    *(
        Recorded(
            f"the partition was dropped meanwhile, {status}",
            "the server's list of codes",
            status,
            4046,
            "PartitionUnknownException[No partition for table",
            Verdict.UNAVAILABLE,
        )
        for status in (200, 404)
    ),
    Recorded(
        "a row's error that nobody has seen",
        "none: a bug of one of us",
        200,
        5000,
        "NullPointerException[something is null]",
        Verdict.UNKNOWN,
    ),
    *(
        Recorded(
            f"{words} of a {scope}",
            "the server's sources: SQLExceptions.maybeTemporary",
            status,
            5000,
            f"{words}[...]",
            Verdict.UNAVAILABLE,
        )
        for words in PARTS_AWAY_WORDS
        for status, scope in ((500, "request"), (200, "row"))
    ),
    *(
        Recorded(
            f"{words} of a {scope}",
            "A.6: overload",
            status,
            5000,
            f"{words}[...]",
            Verdict.OVERLOADED,
        )
        for words in OVERLOADED_WORDS
        for status, scope in ((500, "request"), (200, "row"))
    ),
)

BY_NAME = {answer.name: answer for answer in ANSWERS}

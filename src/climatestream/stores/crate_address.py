"""What `crate://user@host:port/schema?ssl=true` names, and where its password comes from."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from climatestream.errors import UsageError
from climatestream.stores.schema import SCHEMA

if TYPE_CHECKING:
    from pathlib import Path

SCHEME: Final = "crate"
PORT: Final = 4200
"""CrateDB's HTTP endpoint, unless configured otherwise."""
USER: Final = "crate"
"""The superuser that CrateDB is installed with; by its own default without password, and from the
same machine only."""

PASSWORD_ENVIRONMENT: Final = "CLIMATESTREAM_STORE_PASSWORD"  # noqa: S105 - its name, not it

OPTIONS: Final = ("ssl", "ca_file", "password_file", "timeout")
TIMEOUT_S: Final = 60.0
"""How long an answer may take, unless the URL says otherwise [s]. After a restart of the server
the first query of a table waits until its shards are there: 12 s were seen."""

_FORM: Final = "crate://user@host:port/schema?ssl=true"
_FLAGS: Final = {"true": True, "false": False}


@dataclass(frozen=True)
class Address:
    """A schema on a CrateDB server. Prints without options, and never with a password.

    Parameters
    ----------
    ssl
        Whether to speak TLS; the server's certificate is then verified.
    ca_file
        Certificates to verify it with, PEM; None: those that the system trusts.
    password_file
        A file that holds the password, read at every `password` so that it may be renewed.
    timeout_s
        How long an answer may take.
    secret
        Fetches the password from where it is kept; in place of file and environment.
    """

    host: str
    port: int = PORT
    user: str = USER
    schema: str = SCHEMA
    ssl: bool = False
    ca_file: Path | None = None
    password_file: Path | None = None
    timeout_s: float = TIMEOUT_S
    secret: Callable[[], str] | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        return f"{SCHEME}://{self.user}@{self.server}/{self.schema}"

    @property
    def server(self) -> str:
        """The host and port, as they are written in a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def password(self) -> str | None:
        """The password as it is now; None where there is none.

        Raises
        ------
        UsageError
            The password file can't be read.
        Transient
            The secret can't be fetched now.
        """
        if self.secret is not None:
            return self.secret()
        if self.password_file is None:
            return os.environ.get(PASSWORD_ENVIRONMENT) or None
        try:
            return self.password_file.read_text().rstrip("\r\n") or None
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                f"the password file {self.password_file} of {self} can't be read: {error}"
            ) from error


def parse(spec: str) -> Address:
    """The address that a URL such as `crate://writer@db.example:4200/demo?ssl=true` names.

    Raises
    ------
    UsageError
        It names none, has an unknown option, or holds a password.
    """
    try:
        parts = urlsplit(spec)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"a store of CrateDB is not {_FORM}: {error}") from error
    if parts.password is not None:
        raise UsageError(
            f"the URL of the store at {host} holds a password, which would be printed and kept by "
            f"the shell: put it into {PASSWORD_ENVIRONMENT}, or into a file that "
            "?password_file=FILE names"
        )
    schema = unquote(parts.path).strip("/")
    if parts.scheme != SCHEME or not host or "/" in schema or parts.fragment:
        raise UsageError(f"store {spec!r} is not known: expected {_FORM}")
    options = _options(parts.query, spec)
    return Address(
        host=host,
        port=PORT if port is None else port,
        user=unquote(parts.username or USER),
        schema=schema or SCHEMA,
        ssl=_flag(options.get("ssl", "false"), spec),
        ca_file=_path(options.get("ca_file")),
        password_file=_path(options.get("password_file")),
        timeout_s=_seconds(options.get("timeout"), spec),
    )


def _options(query: str, spec: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in OPTIONS:
            raise UsageError(f"store {spec!r} has the unknown option {name!r}: {_nearest(name)}")
        options[name] = value
    return options


def _nearest(name: str) -> str:
    from difflib import get_close_matches  # only a mistake needs it

    near = get_close_matches(name, OPTIONS, n=1)
    return f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(OPTIONS)}"


def _flag(text: str, spec: str) -> bool:
    if text not in _FLAGS:
        raise UsageError(f"store {spec!r} has ssl={text!r}: expected true or false")
    return _FLAGS[text]


def _path(text: str | None) -> Path | None:
    if not text:
        return None
    from pathlib import Path  # a Lambda function names no files, and starts without it

    return Path(text)


def _seconds(text: str | None, spec: str) -> float:
    try:
        seconds = TIMEOUT_S if text is None else float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise UsageError(f"store {spec!r} has timeout={text!r}: expected seconds, as in timeout=60")
    return seconds

"""What the environment variables of the function say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from climatestream import settings, units
from climatestream.aws.secret import fetch
from climatestream.errors import UsageError
from climatestream.ingest import UNSTATED
from climatestream.stores.crate_address import PASSWORD_ENVIRONMENT, SCHEME, Address, parse

STORE: Final = settings.BY_NAME["store"].environment
DATASET: Final = settings.BY_NAME["dataset"].environment
KEEP: Final = settings.BY_NAME["keep"].environment
SECRET: Final = "CLIMATESTREAM_STORE_SECRET"  # noqa: S105 - its name, not it
"""Where the password is: the name or ARN of a secret of Secrets Manager, or `ssm:` and the name of
a parameter of SSM Parameter Store."""


@dataclass(frozen=True)
class Configuration:
    """What the function was told.

    Parameters
    ----------
    store
        A schema on a CrateDB server.
    dataset
        What a message is that names none.
    keep_s
        How long readings are kept, by their own time [s]; None: for ever.
    """

    store: Address
    dataset: str = UNSTATED
    keep_s: float | None = None

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Configuration:
        """What these variables say; an empty one is none.

        Raises
        ------
        UsageError
            One is missing or wrong: which, and what is expected.
        """
        spec = environment.get(STORE)
        if not spec:
            raise UsageError(
                f"the environment variable {STORE} is not set: expected the store, as in "
                "crate://writer@db.example:4200/demo?ssl=true"
            )
        if not spec.startswith(f"{SCHEME}:"):
            raise UsageError(
                f"{STORE} is {spec!r}, expected {SCHEME}://user@host:port/schema: the function "
                "writes to CrateDB only"
            )
        keep = environment.get(KEEP)
        try:
            address = parse(spec)
            keep_s = units.duration_s(keep) if keep else None
        except UsageError as error:
            raise UsageError(f"an environment variable of the function is wrong: {error}") from None
        secret = environment.get(SECRET)
        if secret:
            if environment.get(PASSWORD_ENVIRONMENT) or address.password_file:
                raise UsageError(
                    f"{SECRET} is set, and so is another password: set one of {SECRET}, "
                    f"{PASSWORD_ENVIRONMENT} and ?password_file in {STORE}"
                )
            address = replace(address, secret=partial(fetch, secret))
        return cls(address, environment.get(DATASET) or UNSTATED, keep_s)

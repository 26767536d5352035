"""Tokens of AWS IAM for Amazon MSK, as librdkafka asks for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from climatestream.errors import UsageError

Signer: TypeAlias = Callable[[str], tuple[str, int]]
"""From a region to a token and the time at which it expires [ms since the epoch]."""


def signer() -> Signer:
    """The signer of the package of Amazon MSK.

    Raises
    ------
    UsageError
        The package is not installed.
    """
    try:
        from aws_msk_iam_sasl_signer import MSKAuthTokenProvider
    except ImportError as error:
        raise UsageError(
            "sasl.mechanisms=AWS_MSK_IAM needs a package that is not installed: "
            "pip install aws-msk-iam-sasl-signer-python"
        ) from error
    sign: Signer = MSKAuthTokenProvider.generate_auth_token
    return sign


def token_callback(region: str, sign: Signer) -> Callable[[str], tuple[str, float]]:
    """What librdkafka asks for the first token, and again before each one expires."""

    def callback(_config: str) -> tuple[str, float]:
        token, expires_ms = sign(region)
        return token, expires_ms / 1000.0

    return callback

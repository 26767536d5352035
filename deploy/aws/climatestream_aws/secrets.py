"""The stack of secrets: it comes first, so that the store's users exist before they are used."""

from __future__ import annotations

import json

from aws_cdk import RemovalPolicy, Stack
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from climatestream_aws.config import Config

PASSWORD_LENGTH = 32


class Secrets(Stack):
    """What only the parts themselves may read, each its own.

    `writer` and `reader` hold CrateDB's users as `{"username": ..., "password": ...}`, `admin`
    Grafana's, generated here and never shown; `cds` the key of the Climate Data Store, as
    `{"url": ..., "key": ...}`, empty until its owner puts one in.
    """

    def __init__(self, scope: Construct, config: Config, **kwargs: object) -> None:
        super().__init__(scope, "Secrets", stack_name=f"{config.name}-secrets", **kwargs)  # type: ignore[arg-type]
        self.writer = self._user(config, "writer", "writes readings into CrateDB")
        self.reader = self._user(config, "reader", "reads CrateDB for Grafana")
        self.admin = self._user(config, "admin", "administers Grafana")
        self.cds = secretsmanager.Secret(
            self,
            "cds",
            secret_name=f"{config.name}/cds",
            description="climatestream: the key of the Climate Data Store",
            # a template without its own string would put a random value in its place
            generate_secret_string=secretsmanager.SecretStringGenerator(
                secret_string_template=json.dumps({"key": ""}), generate_string_key="unused"
            ),
            removal_policy=RemovalPolicy.DESTROY,
        )

    def _user(self, config: Config, user: str, what: str) -> secretsmanager.Secret:
        return secretsmanager.Secret(
            self,
            user,
            secret_name=f"{config.name}/{user}",
            description=f"climatestream: {what}",
            generate_secret_string=secretsmanager.SecretStringGenerator(
                secret_string_template=json.dumps({"username": f"climatestream_{user}"}),
                generate_string_key="password",
                password_length=PASSWORD_LENGTH,
                # quotes and escapes would have to survive shells, SQL and configuration files
                exclude_punctuation=True,
            ),
            removal_policy=RemovalPolicy.DESTROY,
        )

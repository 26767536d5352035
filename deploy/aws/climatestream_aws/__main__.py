"""`make deploy`, `make undeploy`, `make replay`: the CDK's command between questions and checks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from climatestream.errors import ClimatestreamError, StoreError, UsageError
from climatestream.stores.crate_errors import RequestRefused
from climatestream.stores.crate_http import CrateHttp
from climatestream.stores.crate_tables import Tables, User
from climatestream.stores.schema import quoted
from climatestream_aws import checks, cost, linters
from climatestream_aws import config as configs
from climatestream_aws.config import CHECKOUT

CDK: Final = ("npx", "--yes", "aws-cdk@2.1148.1")
OUT: Final = CHECKOUT / "cdk.out"
PASSWORD: Final = "CLIMATESTREAM_STORE_PASSWORD"  # noqa: S105 - its name
KEPT: Final = (
    "CrateDB's tables and the users climatestream_writer and climatestream_reader",
    "the CDK's own stack CDKToolkit, with the files that were uploaded",
)
"""What `undeploy` leaves on purpose."""

EXAMPLES: Final[dict[str, dict[str, str]]] = {
    "smallest": {},
    "default": {},
    "production": {"domain": "climate.example.com", "hosted_zone": "Z0123456789EXAMPLE"},
}
"""The configurations, and what each needs besides a store to be synthesised."""
EXAMPLE_STORE: Final = "crate://admin@db.example.com:4200/demo?ssl=true"
EXAMPLE_NETWORK: Final = "203.0.113.0/24"
"""Nobody's: https://www.rfc-editor.org/rfc/rfc5737"""


def run(command: Sequence[str]) -> None:
    """Run a command, with its output where it belongs, and fail as it fails."""
    try:
        done = subprocess.run(command, cwd=CHECKOUT, check=False)  # noqa: S603 - ours
    except FileNotFoundError as error:
        raise UsageError(
            f"{command[0]} is not found: install Node.js 22 or newer, on which the CDK runs"
        ) from error
    if done.returncode:
        raise click.ClickException(f"`{' '.join(command)}` failed with {done.returncode}")


def cdk(verb: str, out: Path, context: Mapping[str, str], *arguments: str) -> None:
    """Run a verb of the CDK's command on the app."""
    said = [word for name, value in context.items() for word in ("-c", f"{name}={value}")]
    app = f"{sys.executable} -m climatestream_aws.app"
    quiet = ["--no-notices", "--no-version-reporting"]
    run([*CDK, verb, "--app", app, "--output", str(out), *quiet, *said, *arguments])


@dataclass(frozen=True)
class Deployment:
    """A configuration, and what the CDK is told of it.

    Parameters
    ----------
    context
        What the command line said, for the CDK.
    """

    config: configs.Config
    context: tuple[tuple[str, str], ...]

    def cdk(self, verb: str, *arguments: str) -> None:
        """Run a verb of the CDK's command on the app."""
        cdk(verb, OUT, dict(self.context), *arguments)

    def resources(self) -> dict[str, Any]:
        """The resources of both templates, as they were synthesised last."""
        found: dict[str, Any] = {}
        for stack in ("Secrets", "Pipeline"):
            template = json.loads((OUT / f"{stack}.template.json").read_text())
            found |= {f"{stack}.{name}": of for name, of in template["Resources"].items()}
        return found


def common(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say which deployment is meant."""
    for option in (
        click.option("--config", default="default", help="A file of deploy/aws/config."),
        click.option("--store", help="crate://admin@HOST:4200/demo?ssl=true"),
        click.option("--allow", help="Networks from which Grafana may be reached, with commas."),
        click.option("--email", help="Who is told of alarms."),
        click.option("--domain", help="Grafana's name; with --hosted-zone."),
        click.option("--hosted-zone", help="The Route 53 zone in which the domain is proven."),
    ):
        command = option(command)
    return command


def chosen(config: str, **given: str | None) -> Deployment:
    """The deployment that the options mean."""
    context = {"config": config, **{name: value for name, value in given.items() if value}}
    return Deployment(configs.chosen(CHECKOUT, context), tuple(context.items()))


@click.group()
def main() -> None:
    """Climatestream on AWS."""


def _session(config: configs.Config) -> Any:
    import boto3
    from botocore.exceptions import ProfileNotFound

    try:
        return boto3.Session(region_name=config.region)
    except ProfileNotFound as error:
        raise UsageError(f"{error}: name one of `aws configure list-profiles`") from error


@main.command()
@common
@click.option("--yes", is_flag=True, help="Do not ask.")
def deploy(yes: bool, **options: Any) -> None:
    """Check, show what it makes and costs, ask, and make it."""
    deployment = chosen(**options)
    config = deployment.config
    if not config.grafana_allow:
        click.echo(
            "Grafana will let nobody in: add ALLOW=203.0.113.7/32 with your own address, now or "
            "at a later `make deploy`."
        )
    password = os.environ.get(PASSWORD) or click.prompt(
        f"Password of {config.address.user} at {config.address.server} (asked once, not kept)",
        hide_input=True,
    )
    config = replace_password(config, password)
    session = _session(config)
    problems = 0
    for finding in checks.look(config, session):
        click.echo(f"{'no' if finding.problem else 'ok':>3}  {finding.problem or finding.what}")
        problems += finding.problem is not None
    if problems:
        raise click.ClickException(f"{problems} problem(s): nothing was made")
    deployment.cdk("synth", "--quiet")
    resources = deployment.resources()
    click.echo(summary(resources))
    known = cost.prices(CHECKOUT / "deploy/aws/prices.yaml")
    click.echo(cost.table(cost.meters(resources), known))
    if not yes:
        click.confirm("Make it?", abort=True)
    deployment.cdk("deploy", "Secrets", "--require-approval", "never")
    make_users(config, session)
    outputs = OUT / "outputs.json"
    deployment.cdk(
        "deploy", "Pipeline", "--require-approval", "never", "--outputs-file", str(outputs)
    )
    address = json.loads(outputs.read_text())[config.name]["GrafanaAddress"]
    click.echo(f"Grafana is at {address}; its password is in the secret {config.name}/admin.")


@main.command()
@common
@click.option("--yes", is_flag=True, help="Do not ask.")
def undeploy(yes: bool, **options: Any) -> None:
    """Take away all that costs money."""
    deployment = chosen(**options)
    name = deployment.config.name
    checks.account(_session(deployment.config))
    if not yes:
        click.confirm(f"Delete the stacks {name} and {name}-secrets, with their data?", abort=True)
    deployment.cdk("destroy", "Pipeline", "Secrets", "--force")
    click.echo("Left on purpose:\n" + "\n".join(f"  {kept}" for kept in KEPT))


@main.command()
@common
@click.argument("from_", metavar="FROM")
def replay(from_: str, **options: Any) -> None:
    """Consume the topic again from a time on: 2025-08-10, 2025-08-10T06:00:00Z, or never."""
    seconds = replayed_from(from_)
    deployment = chosen(**options)
    checks.account(_session(deployment.config))
    deployment.cdk(
        "deploy",
        "Pipeline",
        "--require-approval",
        "never",
        "--parameters",
        f"Pipeline:ReplayFrom={seconds}",
    )


def replayed_from(text: str) -> int:
    """Seconds since the epoch; 0: no replay.

    Raises
    ------
    UsageError
        It is no time, or one to come.
    """
    if text == "never":
        return 0
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(
            f"FROM is {text!r}, expected a date or time such as 2025-08-10T06:00:00Z, or never"
        ) from error
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    if at > datetime.now(UTC):
        raise UsageError(f"FROM is {text}, which is still to come")
    return int(at.timestamp())


def summary(resources: dict[str, Any]) -> str:
    """How many resources of which type."""
    kinds: dict[str, int] = {}
    for resource in resources.values():
        kinds[resource["Type"]] = kinds.get(resource["Type"], 0) + 1
    return "\n".join(f"{count:>4}  {kind}" for kind, count in sorted(kinds.items()))


def replace_password(config: configs.Config, password: str) -> configs.Config:
    """The configuration, whose store lets its administrator in."""
    address = replace(config.address, secret=lambda: password)
    other = replace(config)
    object.__setattr__(other, "address", address)
    return other


def make_users(config: configs.Config, session: Any) -> None:
    """Tables, and the writer's and the reader's users, with the passwords of their secrets.

    A user that exists, as after an earlier deployment, gets the secret's password too.
    """
    manager = session.client("secretsmanager")
    users = []
    for name in ("writer", "reader"):
        text = manager.get_secret_value(SecretId=f"{config.name}/{name}")["SecretString"]
        held = json.loads(text)
        users.append(User(held["username"], held["password"]))
    http = CrateHttp(config.address)
    http.open()
    try:
        setup = Tables(http, config.address.schema).init(writer=users[0], reader=users[1])
        for user in users:
            if not _lets_in(config, user):
                http.sql(f"ALTER USER {quoted(user.name)} SET (password = ?)", [user.password])
                if not _lets_in(config, user):
                    raise StoreError(f"user {user.name} is not let in with its new password")
    finally:
        http.close()
    click.echo(f"CrateDB: made {', '.join(setup.created) or 'nothing, all was there'}")


def _lets_in(config: configs.Config, user: User) -> bool:
    http = CrateHttp(replace(config.address, user=user.name, secret=lambda: user.password))
    http.open()
    try:
        http.sql("SELECT 1")
    except RequestRefused:
        return False
    finally:
        http.close()
    return True


@main.command()
@common
def bootstrap(**options: Any) -> None:
    """Prepare a region of an account for the CDK."""
    config = chosen(**options).config
    account = checks.account(_session(config))
    run([*CDK, "bootstrap", f"aws://{account}/{config.region}"])


@main.command()
def synth() -> None:
    """Write the templates of every configuration into cdk.out/, judged by rules and linters."""
    for name, more in EXAMPLES.items():
        out = OUT / name
        example = {"config": name, "store": EXAMPLE_STORE, "allow": EXAMPLE_NETWORK, **more}
        cdk("synth", out, example, "--quiet")
    linters.lint(sorted(OUT.glob("*/*.template.json")), CHECKOUT / "build/checkov/bin/checkov")


if __name__ == "__main__":
    try:
        main(standalone_mode=False)
    except ClimatestreamError as error:
        sys.exit(f"error: {error}")
    except click.Abort:
        sys.exit("nothing was done")
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)

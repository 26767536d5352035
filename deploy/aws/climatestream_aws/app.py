"""What the CDK's command runs: both stacks, of the configuration that the context names.

`config` is a file of deploy/aws/config, without its suffix; what else is said goes before what
the file says. The function's zip was built before, by `make lambda`.
"""

from __future__ import annotations

from climatestream.aws.mapping_settings import read_deployment
from climatestream_aws import artefacts, stacks
from climatestream_aws import config as configs
from climatestream_aws.config import CHECKOUT
from climatestream_aws.rules import judge


def main() -> None:
    """Synthesise into the folder that the command names."""
    app = stacks.new_app()
    names = ("config", "store", "allow", "email", "domain", "hosted_zone", "account")
    given = {name: app.node.try_get_context(name) for name in names}
    context = {name: value for name, value in given.items() if value}
    stacks.build(
        app,
        configs.chosen(CHECKOUT, context),
        read_deployment(CHECKOUT / "deploy/event-source.yaml"),
        artefacts.assemble(email="email" in context),
        account=context.get("account"),
    )
    judge(app)
    app.synth()


if __name__ == "__main__":
    main()

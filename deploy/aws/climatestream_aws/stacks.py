"""The two stacks of a deployment, and what each is put together from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from aws_cdk import App, CfnOutput, Environment, Stack, Tags

from climatestream.aws.mapping_settings import Deployment, function_of, mapping_of
from climatestream_aws.cluster import Cluster
from climatestream_aws.config import Config
from climatestream_aws.consumer import Consumer
from climatestream_aws.grafana import Grafana
from climatestream_aws.network import Network
from climatestream_aws.producer import Producer
from climatestream_aws.rotations import Rotation
from climatestream_aws.secrets import Secrets
from climatestream_aws.watch import Watch


@dataclass(frozen=True)
class Artefacts:
    """What is built before, and uploaded.

    Parameters
    ----------
    function
        The consumer's zip.
    producer, grafana
        Folders with an `install.sh`, and what it installs.
    checkout
        The repository, from which the producer's image is built.
    """

    function: Path
    producer: Path
    grafana: Path
    checkout: Path


class Pipeline(Stack):
    """Producer, Kafka, consumer, Grafana, and what watches them."""

    def __init__(
        self,
        scope: App,
        config: Config,
        secrets: Secrets,
        event_source: Deployment,
        artefacts: Artefacts,
        env: Environment,
    ) -> None:
        super().__init__(scope, "Pipeline", stack_name=config.name, env=env)
        [topic] = event_source.mapping["Topics"]
        network = Network(self, config)
        cluster = Cluster(self, config, network, topic)
        producer = Producer(
            self, config, network, cluster, secrets.cds, artefacts.producer, artefacts.checkout
        )
        consumer = Consumer(
            self, config, network, cluster, secrets.writer, event_source, artefacts.function
        )
        if cluster.topic is None:
            # the instance makes the topic, and then says that it works
            consumer.mapping.node.add_dependency(producer.instance)
        grafana = Grafana(self, config, network, secrets.reader, secrets.admin, artefacts.grafana)
        Rotation(
            self,
            config,
            network,
            {"writer": secrets.writer, "reader": secrets.reader},
            event_source,
            artefacts.function,
        )
        Watch(self, config, cluster, consumer)
        CfnOutput(self, "GrafanaAddress", value=grafana.address)
        CfnOutput(self, "ClusterArn", value=cluster.arn)
        CfnOutput(self, "FunctionName", value=consumer.function.function_name)


def new_app(outdir: str | None = None) -> App:
    """An app that takes what CloudFormation would complain of as errors, and reports to nobody."""
    return App(
        outdir=outdir,
        analytics_reporting=False,
        context={
            "@aws-cdk/core:validateAgainstDefaultRules": True,
            # the stack of secrets can't lose one that the other still uses
            "@aws-cdk/core:defaultCrossStackReferences": "strong",
        },
    )


def build(
    app: App,
    config: Config,
    event_source: Deployment,
    artefacts: Artefacts,
    account: str | None = None,
) -> Pipeline:
    """Both stacks, each resource tagged with the deployment's name.

    Raises
    ------
    UsageError
        A property of the function or of the mapping is unknown, out of its range, or does not fit
        another.
    """
    function_of(event_source.function)
    mapping_of(event_source.mapping)
    env = Environment(account=account, region=config.region)
    secrets = Secrets(app, config, env=env)
    pipeline = Pipeline(app, config, secrets, event_source, artefacts, env)
    Tags.of(app).add("application", config.name)
    return pipeline

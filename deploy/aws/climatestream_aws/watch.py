"""What is watched: alarms, one board of metrics, and the month's cost."""

from __future__ import annotations

from typing import Final

from aws_cdk import (
    Duration,
    RemovalPolicy,
    Stack,
)
from aws_cdk import (
    aws_budgets as budgets,
)
from aws_cdk import (
    aws_cloudwatch as cloudwatch,
)
from aws_cdk import (
    aws_cloudwatch_actions as actions,
)
from aws_cdk import (
    aws_iam as iam,
)
from aws_cdk import (
    aws_kms as kms,
)
from aws_cdk import (
    aws_sns as sns,
)
from aws_cdk import (
    aws_sns_subscriptions as subscriptions,
)
from constructs import Construct

from climatestream_aws.cluster import Cluster
from climatestream_aws.config import Config
from climatestream_aws.consumer import Consumer

NAMESPACE: Final = "climatestream"
"""Of the metrics that the function writes in CloudWatch's Embedded Metric Format."""
LAG: Final = 100_000
"""Messages behind from which on somebody is told [messages]."""
DISK_PERCENT: Final = 80
"""Amazon MSK's own advice is to act at 85:
https://docs.aws.amazon.com/msk/latest/developerguide/bestpractices.html"""
BUDGET_SHARES: Final = (80, 100)
"""Of the budget, spent or forecast, at which somebody is told [%]."""


class Watch(Construct):
    """Alarms to one topic; silence means that nothing is wrong and data flows.

    Missing data is no alarm where silence is normal (errors), and is one where it is not
    (brokers).
    """

    def __init__(
        self, scope: Construct, config: Config, cluster: Cluster, consumer: Consumer
    ) -> None:
        super().__init__(scope, "Watch")
        # a key of ours, since AWS's own for this service does not let alarms and budgets use it
        key = kms.Key(
            self,
            "Key",
            description="climatestream: alarms",
            enable_key_rotation=True,
            removal_policy=RemovalPolicy.DESTROY,
        )
        for service in ("budgets", "cloudwatch"):
            key.grant_encrypt_decrypt(
                iam.ServicePrincipal(
                    f"{service}.amazonaws.com",
                    conditions={"StringEquals": {"aws:SourceAccount": Stack.of(self).account}},
                )
            )
        self.topic = sns.Topic(
            self,
            "Alarms",
            display_name=f"{config.name} alarms",
            enforce_ssl=True,
            master_key=key,
        )
        if config.email:
            self.topic.add_subscription(subscriptions.EmailSubscription(config.email))
        self.widgets: list[cloudwatch.IWidget] = []
        self._consumer(consumer)
        if config.kafka == "provisioned":
            self._brokers(config, cluster)
        cloudwatch.Dashboard(self, "Board", dashboard_name=f"{config.name}", widgets=[self.widgets])
        self._budget(config)

    def _alarm(
        self,
        name: str,
        metric: cloudwatch.IMetric,
        threshold: float,
        what: str,
        *,
        minutes: int = 1,
        below: bool = False,
        missing_is_bad: bool = False,
    ) -> None:
        alarm = cloudwatch.Alarm(
            self,
            name,
            metric=metric,
            threshold=threshold,
            evaluation_periods=minutes,
            datapoints_to_alarm=minutes,
            alarm_description=what,
            comparison_operator=(
                cloudwatch.ComparisonOperator.LESS_THAN_THRESHOLD
                if below
                else cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD
            ),
            treat_missing_data=(
                cloudwatch.TreatMissingData.BREACHING
                if missing_is_bad
                else cloudwatch.TreatMissingData.NOT_BREACHING
            ),
        )
        action = actions.SnsAction(self.topic)
        alarm.add_alarm_action(action)
        alarm.add_ok_action(action)
        self.widgets.append(
            cloudwatch.GraphWidget(
                title=name, left=[metric], left_annotations=[alarm.to_annotation()], width=8
            )
        )

    def _consumer(self, consumer: Consumer) -> None:
        minute = Duration.minutes(1)
        function = consumer.function
        self._alarm(
            "Errors",
            function.metric_errors(period=minute),
            0,
            "An invocation raised an error, which only a bug does: read the function's log.",
        )
        self._alarm(
            "Throttles",
            function.metric_throttles(period=minute),
            0,
            "Invocations wait: raise reserved_concurrency, or let them.",
            minutes=5,
        )
        self._alarm(
            "Lag",
            cloudwatch.MathExpression(
                # AWS's pages name the metric, and both dimensions, but not which of them it has
                expression="MAX([FILL(function, 0), FILL(mapping, 0)])",
                using_metrics={
                    name: cloudwatch.Metric(
                        namespace="AWS/Lambda",
                        metric_name="OffsetLag",
                        dimensions_map=of,
                        statistic="Maximum",
                        period=minute,
                    )
                    for name, of in (
                        ("function", {"FunctionName": function.function_name}),
                        ("mapping", {"EventSourceMappingUUID": consumer.mapping.ref}),
                    )
                },
                period=minute,
                label="OffsetLag",
            ),
            LAG,
            f"More than {LAG} messages wait in a partition: is CrateDB there, are there enough "
            "partitions and pollers?",
            minutes=10,
        )
        self._alarm(
            "DeadLetters",
            cloudwatch.Metric(
                namespace=NAMESPACE,
                metric_name="DeadLetters",
                dimensions_map={"FunctionName": function.function_name},
                statistic="Sum",
                period=minute,
            ),
            0,
            "Messages could not be stored, ever: `climatestream dead-letters list` says why.",
        )
        self._alarm(
            "Retries",
            cloudwatch.Metric(
                namespace=NAMESPACE,
                metric_name="Failed",
                dimensions_map={"FunctionName": function.function_name},
                statistic="Sum",
                period=minute,
            ),
            0,
            "Messages are handed back again and again: CrateDB refuses, or is away.",
            minutes=10,
        )

    def _brokers(self, config: Config, cluster: Cluster) -> None:
        def metric(name: str, statistic: str, broker: int | None = None) -> cloudwatch.Metric:
            dimensions = {"Cluster Name": cluster.name}
            if broker is not None:
                dimensions["Broker ID"] = str(broker)
            return cloudwatch.Metric(
                namespace="AWS/Kafka",
                metric_name=name,
                dimensions_map=dimensions,
                statistic=statistic,
                period=Duration.minutes(1),
                label=name if broker is None else f"broker {broker}",
            )

        brokers = range(1, config.brokers + 1)
        self._alarm(
            "OfflinePartitions",
            metric("OfflinePartitionsCount", "Maximum"),
            0,
            "Partitions have no leader: brokers are away.",
            minutes=5,
        )
        self._alarm(
            "ActiveController",
            metric("ActiveControllerCount", "Maximum"),
            1,
            "No controller leads the cluster.",
            minutes=5,
            below=True,
            missing_is_bad=True,
        )
        for name, statistic, threshold, what in (
            (
                "KafkaDataLogsDiskUsed",
                "Maximum",
                DISK_PERCENT,
                "Disks of brokers fill up: shorten retention_days or raise broker_disk_gib.",
            ),
            ("UnderReplicatedPartitions", "Maximum", 0, "Copies of messages are missing."),
        ):
            self._alarm(
                name,
                cloudwatch.MathExpression(
                    expression=f"MAX([{', '.join(f'b{n}' for n in brokers)}])",
                    using_metrics={f"b{n}": metric(name, statistic, n) for n in brokers},
                    period=Duration.minutes(1),
                    label=name,
                ),
                threshold,
                what,
                minutes=15,
            )

    def _budget(self, config: Config) -> None:
        self.topic.add_to_resource_policy(
            iam.PolicyStatement(
                sid="Budgets",
                actions=["sns:Publish"],
                principals=[iam.ServicePrincipal("budgets.amazonaws.com")],
                resources=[self.topic.topic_arn],
                conditions={"StringEquals": {"aws:SourceAccount": Stack.of(self).account}},
            )
        )
        subscriber = budgets.CfnBudget.SubscriberProperty(
            subscription_type="SNS", address=self.topic.topic_arn
        )
        budgets.CfnBudget(
            self,
            "Budget",
            budget=budgets.CfnBudget.BudgetDataProperty(
                budget_name=f"{config.name}-month",
                budget_type="COST",
                time_unit="MONTHLY",
                budget_limit=budgets.CfnBudget.SpendProperty(amount=config.budget_usd, unit="USD"),
            ),
            notifications_with_subscribers=[
                budgets.CfnBudget.NotificationWithSubscribersProperty(
                    notification=budgets.CfnBudget.NotificationProperty(
                        comparison_operator="GREATER_THAN",
                        notification_type=kind,
                        threshold=share,
                        threshold_type="PERCENTAGE",
                    ),
                    subscribers=[subscriber],
                )
                for kind, share in (
                    ("ACTUAL", BUDGET_SHARES[0]),
                    ("ACTUAL", BUDGET_SHARES[1]),
                    ("FORECASTED", BUDGET_SHARES[1]),
                )
            ],
        )

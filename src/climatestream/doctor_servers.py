"""What `doctor` says of a broker and of a CrateDB store: from the address to the rights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from climatestream.errors import ClimatestreamError, Transient
from climatestream.findings import Finding, State

if TYPE_CHECKING:
    from climatestream.brokers.kafka import KafkaBroker
    from climatestream.brokers.kafka_admin import TopicState
    from climatestream.stores.crate_address import Address
    from climatestream.stores.crate_tables import State as SchemaState

DAY_MS: Final = 86_400_000


def examine_broker(spec: str, group: str) -> list[Finding]:
    """Look at a broker, its topic and a group's place in it; nothing is changed.

    What follows from a check that failed is left out.
    """
    found: list[Finding] = []
    from climatestream.brokers.open import open_broker

    try:
        with open_broker(spec) as broker:
            found += _broker(broker, group)
    except ClimatestreamError as error:
        found.append(_failed("broker", spec.partition("?")[0], error))
    return found


def _failed(name: str, place: str, error: ClimatestreamError) -> Finding:
    kind = "no answer" if isinstance(error, Transient) else "refused"
    return Finding(name, "broken", f"{place}: {kind}", str(error))


def _broker(broker: KafkaBroker, group: str) -> Iterator[Finding]:
    count = broker.brokers()
    yield Finding("broker", "ok", f"lets us in, {count} broker{'s' * (count != 1)}")
    topic = broker.topic_state()
    if topic is None:
        todo = "nothing: `climatestream publish` creates it"
        yield Finding("topic", "missing", f"no topic {broker.topic}", todo)
        return
    yield _topic(broker.topic, topic)
    yield _policy(topic)
    yield _operations(topic)
    committed, there = broker.committed(group), broker.count()
    members = len(broker.members(group))
    if not broker.has_committed(group):
        found = f"{group} has done none of {there:,} messages yet"
    else:
        behind = sum(broker.ends().values()) - sum(committed.values())
        found = f"{group} is {behind:,} messages behind"
    yield Finding("group", "ok", f"{found}, {members} member{'s' * (members != 1)}")


def _topic(name: str, topic: TopicState) -> Finding:
    found = f"{name}: {topic.partitions} partitions, {topic.replication} copies of each"
    if not topic.short:
        return Finding("topic", "ok", found)
    todo = (
        f"start the brokers that are away: partitions {', '.join(map(str, topic.short))} take no "
        f"messages with fewer than {topic.in_sync} copies in sync"
    )
    return Finding("topic", "broken", found, todo)


def _policy(topic: TopicState) -> Finding:
    if topic.compacted:
        todo = "publish to another topic, or set cleanup.policy=delete"
        return Finding("cleanup policy", "broken", topic.compacted, todo)
    kept = "for ever" if topic.retention_ms < 0 else f"{topic.retention_ms / DAY_MS:g} days"
    return Finding("cleanup policy", "ok", f"messages are kept {kept}")


def _operations(topic: TopicState) -> Finding:
    if topic.operations is None:
        return Finding("rights in Kafka", "ok", "the broker does not say")
    lacking = [name for name in ("READ", "WRITE") if name not in topic.operations]
    if not lacking:
        return Finding("rights in Kafka", "ok", "may read and write the topic")
    needs = {"READ": "consume and audit", "WRITE": "publish"}
    todo = ", ".join(f"{needs[name]} need the right {name} on the topic" for name in lacking)
    state: State = "broken" if len(lacking) == len(needs) else "missing"
    return Finding("rights in Kafka", state, f"may not {' nor '.join(lacking).lower()}", todo)


# --------------------------------------------------------------------------------- CrateDB


def examine_crate(spec: str) -> list[Finding]:
    """Look at a schema of CrateDB: server, tables, rights, what blocks writing."""
    from climatestream.stores.crate import CrateStore
    from climatestream.stores.crate_address import parse

    try:
        address = parse(spec)
        return list(_crate(address, CrateStore(address).state()))
    except ClimatestreamError as error:
        return [_failed("store", spec.partition("?")[0], error)]


def _crate(address: Address, state: SchemaState) -> Iterator[Finding]:
    yield Finding("store", "ok", f"{address} lets us in: {state.version}")
    init = f"climatestream store init --store 'crate://ADMIN@{address.server}/{address.schema}'"
    if state.lacking:
        lacking = ", ".join(state.lacking)
        todo = f"{init}, with --writer or --reader where {address.user} is to see them"
        yield Finding("tables", "broken", f"none to be seen: {lacking}", todo)
    elif state.different:
        todo = "drop them, or name another schema: they are of another version"
        yield Finding("tables", "broken", "; ".join(state.different), todo)
    else:
        found = "" if state.readings is None else f", {state.readings:,} readings"
        yield Finding("tables", "ok", f"all there{found}")
    yield from _rights(state, init)
    if state.blocked:
        todo = (
            "free room on the server's disk, then ALTER TABLE ... RESET "
            '("blocks.read_only_allow_delete"); the consumer waits until then'
        )
        blocked = ", ".join(state.blocked)
        yield Finding("writing", "broken", f"read-only: {blocked}", todo)
    if state.red:
        todo = "start the nodes that are away: shards of these tables are missing"
        yield Finding("shards", "broken", ", ".join(state.red), todo)


def _rights(state: SchemaState, init: str) -> Iterator[Finding]:
    if not state.rights:
        return
    readable = all("SELECT" in rights for rights in state.rights.values())
    writable = all({"INSERT", "UPDATE", "DELETE"} <= rights for rights in state.rights.values())
    if readable and writable:
        yield Finding("rights", "ok", "may read and write all tables")
    elif readable:
        todo = f"enough for audit, serve and Grafana; consume needs a writer: {init} --writer USER"
        yield Finding("rights", "missing", "may read all tables, not write all", todo)
    else:
        lacking = ", ".join(t for t, rights in state.rights.items() if "SELECT" not in rights)
        yield Finding("rights", "broken", f"may not read {lacking}", f"{init} --reader USER")

"""What tests put in front of the deployed handler, in its own zip: it fails as it is told.

`plan.json` in the folder that FAULT_FOLDER names says how, and may change while it runs:

    faults: [...]           of the invocations from the first on, each failing after the handler
                            has done all: "exit" ends the process, "raise" raises, "sleep" takes
                            longer than it may, "memory" more than it may, "malformed" answers
                            what can't be understood
    poison: [key, ...]      raises where an event has a record with such a key, before all
    hold: [partition, at]   does not do that partition from that offset on, and says so

Each record that the handler has done is noted in `done.txt`: partition and offset.
"""

from __future__ import annotations

import base64
import json
import os
import time
from pathlib import Path
from typing import Any

from climatestream.aws.handler import handler as deployed

FOLDER = Path(os.environ["FAULT_FOLDER"])


def handler(event: dict[str, Any], context: Any) -> Any:
    """The deployed handler, unless it is to fail."""
    plan = json.loads((FOLDER / "plan.json").read_text())
    poison = {base64.b64encode(key.encode()).decode() for key in plan.get("poison", ())}
    if any(r.get("key") in poison for part in event["records"].values() for r in part):
        raise ValueError("poison")
    held = _hold(event, *plan["hold"]) if "hold" in plan else []
    answer = deployed(event, context)
    _note(event, answer)
    number = _number() if plan["faults"] else 0
    if number < len(plan["faults"]):
        return FAULTS[plan["faults"][number]]()
    return {"batchItemFailures": [*answer["batchItemFailures"], *held]}


def _hold(event: dict[str, Any], partition: int, offset: int) -> list[dict[str, Any]]:
    """Take the records of a partition from an offset on out of an event; they have failed."""
    held = []
    for place, part in event["records"].items():
        late = [r for r in part if r["partition"] == partition and r["offset"] >= offset]
        event["records"][place] = [r for r in part if r not in late]
        held += [_failure(record) for record in late]
    return held


def _failure(record: dict[str, Any]) -> dict[str, Any]:
    place = f"{record['topic']}-{record['partition']}"
    return {"itemIdentifier": {"topic-partition": place, "offset": record["offset"]}}


def _note(event: dict[str, Any], answer: dict[str, Any]) -> None:
    """Append what the handler has done."""
    items = [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]
    first: dict[str, int] = {}
    for item in items:
        place, offset = item["topic-partition"], item["offset"]
        first[place] = min(offset, first.get(place, offset))
    lines = [
        f"{record['partition']} {record['offset']}\n"
        for place, part in event["records"].items()
        for record in part
        if record["offset"] < first.get(place, record["offset"] + 1)
    ]
    with (FOLDER / "done.txt").open("a") as file:
        file.write("".join(lines))


def _number() -> int:
    """Which invocation this is, of all processes; 0: the first."""
    with (FOLDER / "invocations").open("a") as file:
        file.write(".")
        file.flush()
        return os.fstat(file.fileno()).st_size - 1


def _raise() -> None:
    raise RuntimeError("a test says so")


def _memory() -> None:
    taken = bytearray(300 * 1024 * 1024)
    taken[::4096] = b"x" * len(taken[::4096])


FAULTS: dict[str, Any] = {
    "exit": lambda: os._exit(1),
    "raise": _raise,
    "sleep": lambda: time.sleep(60),
    "memory": _memory,
    "malformed": lambda: {"batchItemFailures": [{"itemIdentifier": {"partition": 0}}]},
}

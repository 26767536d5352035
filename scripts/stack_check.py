"""Look at a stack that runs: `make stack-check`.

Waits until Grafana and the page answer, runs `climatestream doctor` and `climatestream audit`
over the last minutes, and looks up in Grafana whether everything is there that its files say:
each board, each alert rule, the contact point, and whether the data source answers.

Where and as whom is in deploy/.env. Exits 1 when something is not as it should be.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from dotenv import dotenv_values

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
HOST = "127.0.0.1"
DEFAULTS = {
    "KAFKA_PORT": "9092",
    "CRATEDB_PORT": "4200",
    "GRAFANA_PORT": "3000",
    "PAGE_PORT": "8420",
}
TIMEOUT_S = 300.0
AUDITED = timedelta(minutes=10)
"""Messages of the last ten minutes: a stack that ran for a day has millions."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: a sentence where it is not as it should be, else empty."""

    name: str
    wrong: str = ""


# --------------------------------------------------------------------------------- waiting


@dataclass(frozen=True)
class Patience:
    """Asks again until there is an answer, or the time is over."""

    timeout_s: float
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def wait(self, name: str, ask: Callable[[], str]) -> Finding:
        """Ask until there is nothing wrong; the last that was wrong when time is over.

        What is waited for is said on standard error, once.
        """
        until = self.clock() + self.timeout_s
        told = False
        while True:
            wrong = ask()
            if not wrong or self.clock() >= until:
                return Finding(name, wrong and f"{wrong}, after {self.timeout_s:.0f} s")
            if not told:
                told = True
                print(f"{name}: {wrong}; waiting {self.timeout_s:.0f} s at most", file=sys.stderr)
            self.sleep(1.0)


def page(port: str) -> str:
    """What is wrong with the page; without its token it answers 401, and is there."""
    try:
        with closing(http.client.HTTPConnection(HOST, int(port), timeout=5)) as connection:
            connection.request("GET", "/")
            status = connection.getresponse().status
    except OSError as error:
        return f"no answer from {HOST}:{port}: {error}"
    return "" if status in (200, 401) else f"{HOST}:{port} answers {status}"


# --------------------------------------------------------------------------------- Grafana


@dataclass(frozen=True)
class Grafana:
    """A Grafana, as its administrator.

    Parameters
    ----------
    url
        http://host:port
    """

    url: str
    password: str
    user: str = "admin"

    def get(self, path: str) -> Any:
        """The answer as JSON.

        Raises
        ------
        Refused
            There is none, or it is an error.
        """
        pair = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        request = urllib.request.Request(  # noqa: S310 - of a port of this machine
            self.url + path, headers={"Authorization": f"Basic {pair}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
                return json.load(answer)
        except urllib.error.HTTPError as error:
            said = error.read(200).decode(errors="replace").strip()
            raise Refused(f"{self.url}{path} answers {error.code}: {said}") from error
        except (OSError, ValueError) as error:
            raise Refused(f"{self.url}{path}: {error}") from error

    def health(self) -> str:
        """What is wrong with it."""
        try:
            database = self.get("/api/health").get("database")
        except Refused as error:
            return str(error)
        return "" if database == "ok" else f"its own database is {database!r}"


class Refused(Exception):
    """Grafana did not give what was asked for."""


def look(name: str, ask: Callable[[], str]) -> Finding:
    """A finding of a question that Grafana may refuse."""
    try:
        return Finding(name, ask())
    except Refused as error:
        return Finding(name, str(error))


def grafana_findings(grafana: Grafana, folder: Path) -> Iterator[Finding]:
    """Whether all that the files in a folder say is there.

    Parameters
    ----------
    folder
        deploy/grafana: boards/*.json, provisioning/alerting/*.json.
    """
    yield look("data source cratedb", partial(_data_source, grafana))
    boards = sorted((folder / "boards").glob("*.json"))
    if not boards:
        yield Finding("boards", f"no file in {folder / 'boards'}: climatestream dashboards build")
    for file in boards:
        board = json.loads(file.read_text(encoding="utf-8"))
        yield look(f"board {board['title']}", partial(_board, grafana, board))
    alerting = folder / "provisioning/alerting"
    groups = json.loads((alerting / "rules.json").read_text(encoding="utf-8"))["groups"]
    for group in groups:
        for rule in group["rules"]:
            yield look(f"alert {rule['title']}", partial(_rule, grafana, rule))
    policy = json.loads((alerting / "policies.json").read_text(encoding="utf-8"))["policies"][0]
    yield look("notification policy", partial(_policy, grafana, policy["receiver"]))


def _data_source(grafana: Grafana) -> str:
    found = grafana.get("/api/datasources/uid/cratedb/health")
    return "" if found.get("status") == "OK" else f"{found.get('status')}: {found.get('message')}"


def _board(grafana: Grafana, board: Mapping[str, Any]) -> str:
    found = grafana.get(f"/api/dashboards/uid/{board['uid']}")
    title, panels = found["dashboard"].get("title"), found["dashboard"].get("panels", [])
    if title != board["title"] or len(panels) != len(board["panels"]):
        return (
            f"{title!r} with {len(panels)} panels, expected {board['title']!r} with "
            f"{len(board['panels'])}: restart Grafana"
        )
    return "" if found["meta"].get("provisioned") else "it is no provisioned board: delete it"


def _rule(grafana: Grafana, rule: Mapping[str, Any]) -> str:
    found = grafana.get(f"/api/v1/provisioning/alert-rules/{rule['uid']}")
    if found.get("title") != rule["title"]:
        return f"{found.get('title')!r}, expected {rule['title']!r}"
    return "" if found.get("provenance") == "file" else "it is no provisioned rule: delete it"


def _policy(grafana: Grafana, receiver: str) -> str:
    found = grafana.get("/api/v1/provisioning/policies").get("receiver")
    if found != receiver:
        return f"alerts go to {found!r}, expected {receiver!r}"
    points = grafana.get("/api/v1/provisioning/contact-points")
    return "" if any(p["name"] == receiver for p in points) else f"no contact point {receiver}"


# -------------------------------------------------------------------------------- commands


def command(name: str, arguments: list[str], environment: Mapping[str, str]) -> Finding:
    """A command of climatestream that says `ok` as JSON; what is wrong where it does not."""
    program = [sys.executable, "-m", "climatestream", *arguments, "--json"]
    ended = subprocess.run(  # noqa: S603 - our own command
        program, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    try:
        said = json.loads(ended.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        return Finding(name, f"exit {ended.returncode}: {ended.stderr.strip()[-500:]}")
    if ended.returncode == 0 and said.get("ok"):
        return Finding(name)
    broken = [check for check in said.get("checks", ()) if check["state"] == "broken"]
    told = "; ".join(f"{check['name']}: {check['found']}: {check['todo']}" for check in broken)
    return Finding(name, told or said.get("error") or json.dumps(said))


def places(settings: Mapping[str, str]) -> tuple[str, str]:
    """The broker and the store, for a user of this machine."""
    broker = f"kafka://{HOST}:{settings['KAFKA_PORT']}/era5"
    return broker, f"crate://writer@{HOST}:{settings['CRATEDB_PORT']}/demo"


def findings(
    settings: Mapping[str, str], patience: Patience, now: datetime, folder: Path
) -> Iterator[Finding]:
    """All of it, in the order in which things depend on each other."""
    grafana = Grafana(
        f"http://{HOST}:{settings['GRAFANA_PORT']}", settings["GRAFANA_ADMIN_PASSWORD"]
    )
    broker, store = places(settings)
    password = {"CLIMATESTREAM_STORE_PASSWORD": settings["CLIMATESTREAM_WRITER_PASSWORD"]}
    yield patience.wait("page", lambda: page(settings["PAGE_PORT"]))
    doctor = ["doctor", "--broker", broker, "--store", store]
    yield patience.wait("doctor", lambda: command("", doctor, password).wrong)
    since = (now - AUDITED).strftime("%Y-%m-%dT%H:%M:%SZ")
    audit = ["audit", "--broker", broker, "--store", store, "--from", since]
    yield command("audit", audit, password)
    answers = patience.wait("Grafana", grafana.health)
    yield answers
    if not answers.wrong:
        yield from grafana_findings(grafana, folder)


def main(arguments: list[str] | None = None) -> int:
    """Look, say what is found, and whether all is well."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--env", type=Path, default=DEPLOY / ".env", help="the stack's settings")
    options.add_argument("--timeout", type=float, default=TIMEOUT_S, help="to wait for each [s]")
    given = options.parse_args(arguments)
    if not given.env.is_file():
        print(f"no {given.env}: make stack", file=sys.stderr)
        return 2
    read = {name: value for name, value in dotenv_values(given.env).items() if value is not None}
    failed = 0
    patience = Patience(given.timeout)
    for found in findings(DEFAULTS | read, patience, datetime.now(UTC), DEPLOY / "grafana"):
        failed += bool(found.wrong)
        print(f"{'wrong' if found.wrong else 'ok':6} {found.name}  {found.wrong}".rstrip())
        sys.stdout.flush()
    print("all is well" if not failed else f"{failed} not as they should be: docs/ops-card.md")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

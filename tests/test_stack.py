"""The stack's files: what they name exists, what they promise holds; no container engine needed.

With Docker's compose plugin at hand, `docker compose config` reads them besides.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from dotenv import dotenv_values
from scripts import stack_check, stack_env

from climatestream import cli, settings
from climatestream.dashboards import generate
from climatestream.dashboards.alerts import FOLDER
from climatestream.dashboards.board_variables import DATASOURCE
from climatestream.units import speed

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
GIB = 1024**3
LAPTOP_BYTES = 8 * GIB
FOR_THE_SYSTEM_BYTES = 2 * GIB

EXAMPLE = dotenv_values(DEPLOY / ".env.example")
COMPOSE = (DEPLOY / "compose.yaml").read_text()
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE)["services"]
BASE = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
OWN = {name for name, service in SERVICES.items() if "build" in service}
ONE_SHOT = {"topic", "tables", "grafana-files"}
IMAGES = {service["image"] for service in SERVICES.values()}

each = pytest.mark.parametrize("name", sorted(SERVICES))


def environment(name: str) -> dict[str, str]:
    return {key: str(value) for key, value in SERVICES[name].get("environment", {}).items()}


def interpolated(text: str) -> Iterator[tuple[str, str | None]]:
    """The variables of a text, each with its default; None: it must be set."""
    for found in re.finditer(r"\$\{(\w+):?([-?])([^}]*)\}", text):
        yield found[1], found[3] if found[2] == "-" else None


# ---------------------------------------------------------------------------------- images


def test_every_image_is_pinned_to_a_whole_version() -> None:
    for image in (*IMAGES, *BASE):
        assert re.fullmatch(r"[\w./-]+:\d+\.\d+\.\d+[\w.-]*", image), image


def test_the_images_are_those_that_the_docs_name() -> None:
    docs = (ROOT / "docs/stack.md").read_text()
    for image in (*IMAGES, *BASE):
        assert f"`{image}`" in docs


def test_our_image_has_the_version_of_the_project() -> None:
    version = re.findall(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert {SERVICES[name]["image"] for name in OWN} == {f"climatestream:{version[0]}"}


def test_kafka_is_the_version_that_the_tests_run() -> None:
    from tests.services.kafka import KAFKA_VERSION

    assert f"apache/kafka:{KAFKA_VERSION}" in IMAGES


def test_grafana_is_of_the_line_that_was_observed() -> None:
    assert any(image.startswith("grafana/grafana:12.3.") for image in IMAGES)


# ------------------------------------------------------------------- what a laptop is asked for


def bytes_of(limit: str) -> int:
    return int(limit[:-1]) * {"m": 1024**2, "g": GIB}[limit[-1]]


@each
def test_every_container_has_a_limit_of_memory(name: str) -> None:
    assert bytes_of(SERVICES[name]["mem_limit"]) > 0


@pytest.mark.parametrize("consumer", ["worker", "lambda"])
def test_all_that_run_at_once_fit_a_laptop_of_eight_gigabytes(consumer: str) -> None:
    running = [
        bytes_of(service["mem_limit"])
        for name, service in SERVICES.items()
        if name not in ONE_SHOT and service.get("profiles", [consumer]) == [consumer]
    ]
    assert sum(running) <= LAPTOP_BYTES - FOR_THE_SYSTEM_BYTES


@pytest.mark.parametrize(
    ("name", "variable"), [("kafka", "KAFKA_HEAP_OPTS"), ("cratedb", "CRATE_HEAP_SIZE")]
)
def test_a_heap_is_at_most_half_of_its_container(name: str, variable: str) -> None:
    """The rest is for threads, buffers and the files' cache."""
    heap = re.findall(r"(\d+[mg])$", environment(name)[variable])[0]
    assert 2 * bytes_of(heap) <= bytes_of(SERVICES[name]["mem_limit"])


# ------------------------------------------------------------------------------- who gets in


@each
def test_every_port_is_published_on_this_machine_alone(name: str) -> None:
    for port in SERVICES[name].get("ports", ()):
        assert re.match(r"127\.0\.0\.1:\$\{[A-Z]+_PORT:-\d+\}:", port), port


def test_every_password_must_be_set_and_none_has_a_default() -> None:
    named = {name for name, default in interpolated(COMPOSE) if default is None}
    assert named == set(stack_env.PASSWORDS)
    for name in stack_env.PASSWORDS:
        assert EXAMPLE[name] == ""


def test_no_secret_is_written_into_a_file() -> None:
    for text in (COMPOSE, DOCKERFILE):
        for line in text.splitlines():
            if re.search(r"password\b.*:\s*\S", line, re.IGNORECASE) and line.lstrip()[0] != "#":
                assert "${" in line, line
    datasource = (DEPLOY / "grafana/provisioning/datasources/cratedb.yaml").read_text()
    assert "password: $CRATEDB_READER_PASSWORD" in datasource


def test_the_superuser_of_cratedb_comes_from_inside_its_container_alone() -> None:
    command = SERVICES["cratedb"]["command"]
    options = dict(word.removeprefix("-C").split("=", 1) for word in command if "=" in word)
    assert options["auth.host_based.enabled"] == "true"
    rules = {k: v for k, v in options.items() if k.startswith("auth.host_based.config.")}
    prefix = "auth.host_based.config"
    assert rules == {
        f"{prefix}.0.user": "crate",
        f"{prefix}.0.address": "_local_",
        f"{prefix}.0.method": "trust",
        f"{prefix}.99.method": "password",
    }
    assert SERVICES["tables"]["network_mode"] == "service:cratedb"
    assert "@127.0.0.1:" in environment("tables")["CLIMATESTREAM_STORE"]
    superusers = [
        n for n in SERVICES if "//crate@" in environment(n).get("CLIMATESTREAM_STORE", "")
    ]
    assert superusers == ["tables"]


def test_grafana_and_the_page_read_as_one_who_may_only_read() -> None:
    assert environment("page")["CLIMATESTREAM_STORE"].startswith("crate://reader@")
    assert environment("grafana")["CRATEDB_READER"] == "reader"
    command = SERVICES["tables"]["command"]
    assert command[command.index("--reader") + 1] == "reader"
    assert command[command.index("--writer") + 1] == "writer"


def test_grafana_lets_nobody_in_without_a_password_and_asks_nobody_outside() -> None:
    found = environment("grafana")
    assert found["GF_AUTH_ANONYMOUS_ENABLED"] == "false"
    assert found["GF_USERS_ALLOW_SIGN_UP"] == "false"
    assert "GRAFANA_ADMIN_PASSWORD" in found["GF_SECURITY_ADMIN_PASSWORD"]
    for quiet in ("REPORTING_ENABLED", "CHECK_FOR_UPDATES", "CHECK_FOR_PLUGIN_UPDATES"):
        assert found[f"GF_ANALYTICS_{quiet}"] == "false"
    assert found["GF_PLUGINS_PREINSTALL_DISABLED"] == "true"


@pytest.mark.parametrize("name", sorted(OWN | {"grafana"}))
def test_containers_have_no_privileges_to_lose(name: str) -> None:
    assert SERVICES[name]["cap_drop"] == ["ALL"]
    assert SERVICES[name]["security_opt"] == ["no-new-privileges:true"]


# ------------------------------------------------------------------------------- start order


def conditions(name: str) -> dict[str, str]:
    found = SERVICES[name].get("depends_on", {})
    return {other: of["condition"] for other, of in found.items()}


def test_nobody_starts_before_what_it_needs() -> None:
    done, healthy = "service_completed_successfully", "service_healthy"
    assert conditions("topic") == {"kafka": healthy}
    assert conditions("tables") == {"cratedb": healthy}
    assert conditions("producer") == {"topic": done}
    assert conditions("worker") == conditions("lambda") == {"topic": done, "tables": done}
    assert conditions("page") == {"tables": done}
    assert conditions("grafana") == {"tables": done, "grafana-files": done}


@each
def test_who_is_waited_for_can_be_asked(name: str) -> None:
    for other, condition in conditions(name).items():
        assert condition != "service_healthy" or "healthcheck" in SERVICES[other]
        assert (condition == "service_completed_successfully") == (other in ONE_SHOT)


@each
def test_what_ends_is_not_started_again_for_ever_and_what_should_run_is(name: str) -> None:
    assert SERVICES[name]["restart"] == ("on-failure:5" if name in ONE_SHOT else "unless-stopped")


@each
def test_servers_have_health_checks(name: str) -> None:
    serves = bool(SERVICES[name].get("ports")) or name == "worker"
    assert ("healthcheck" in SERVICES[name]) == serves


# -------------------------------------------------------------------------- what they name


@each
def test_every_path_of_the_project_exists_and_is_mounted_read_only(name: str) -> None:
    for volume in SERVICES[name].get("volumes", ()):
        source, target, *mode = volume.split(":")
        if source.startswith("."):
            assert (DEPLOY / source).exists(), source
            assert mode == ["ro"], volume
        else:
            assert source in yaml.safe_load(COMPOSE)["volumes"]
        assert target.startswith("/")


def test_every_volume_is_used_and_grafana_cannot_write_what_it_is_told() -> None:
    mounted = [volume for service in SERVICES.values() for volume in service.get("volumes", ())]
    named = {volume.split(":")[0] for volume in mounted if not volume.startswith(".")}
    assert named == set(yaml.safe_load(COMPOSE)["volumes"])
    provisioned = [v for v in SERVICES["grafana"]["volumes"] if "/etc/grafana" in v]
    assert len(provisioned) == 4
    assert all(volume.endswith(":ro") for volume in provisioned)


def test_every_variable_is_in_the_example_with_the_same_default() -> None:
    """Whoever reads one file knows both."""
    for name, default in interpolated(COMPOSE):
        assert name in EXAMPLE, name
        assert default is None or default == EXAMPLE[name], name
    used = {name for name, _ in interpolated(COMPOSE)}
    assert set(EXAMPLE) - used == {"COMPOSE_PROFILES"}


def test_every_variable_says_what_holds_without_it() -> None:
    assert COMPOSE.count("${") == len(list(interpolated(COMPOSE)))


def test_the_profiles_are_the_consumers() -> None:
    profiles = {p for service in SERVICES.values() for p in service.get("profiles", ())}
    assert profiles == {"worker", "lambda"}
    assert EXAMPLE["COMPOSE_PROFILES"] == "worker"


def test_limits_of_alerts_have_the_defaults_of_the_settings() -> None:
    for name, value in EXAMPLE.items():
        if name.startswith("CLIMATESTREAM_ALERT_"):
            setting = name.removeprefix("CLIMATESTREAM_").lower().replace("_", "-")
            assert value == (settings.BY_NAME[setting].default or "")


def test_every_setting_that_a_container_is_given_is_one() -> None:
    known = {setting.environment for setting in settings.SETTINGS} | {
        "CLIMATESTREAM_STORE_PASSWORD",
        *stack_env.PASSWORDS,
    }
    for name in OWN:
        assert environment(name).keys() <= known, name


def test_ports_are_those_that_the_check_asks() -> None:
    ports = {name: value for name, value in EXAMPLE.items() if name.endswith("_PORT")}
    assert ports == stack_check.DEFAULTS


def test_the_topic_is_the_one_that_all_name() -> None:
    assert "--topic=era5" in SERVICES["topic"]["command"]
    for name in ("producer", "worker", "lambda"):
        assert environment(name)["CLIMATESTREAM_BROKER"] == "kafka://kafka:19092/era5"
    assert stack_check.places(stack_check.DEFAULTS)[0].endswith("/era5")
    mapping = yaml.safe_load((DEPLOY / "event-source.yaml").read_text())["EventSourceMapping"]
    assert mapping["Topics"] == ["era5"]


@pytest.mark.parametrize("name", sorted(OWN))
def test_every_command_is_one_that_the_program_takes(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [_with_defaults(word) for word in SERVICES[name]["command"]]
    assert cli.invoke([*words, "--help"]) == 0
    options = [word for word in words if word.startswith("--")]
    said = capsys.readouterr().out
    assert [option for option in options if option not in said] == []


def _with_defaults(text: str) -> str:
    return re.sub(r"\$\{\w+:?-([^}]*)\}", lambda found: found[1], text)


def test_a_field_comes_every_ten_seconds() -> None:
    assert 3600 / speed(str(EXAMPLE["STACK_SPEED"])) == 10


# ---------------------------------------------------------------------------- provisioning


def provisioning(path: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "grafana/provisioning" / path).read_text())
    return found


def test_boards_and_alerts_ask_the_data_source_that_is_provisioned() -> None:
    [source] = provisioning("datasources/cratedb.yaml")["datasources"]
    assert (source["type"], source["uid"]) == (DATASOURCE.type_val, DATASOURCE.uid)
    assert source["editable"] is False
    assert source["jsonData"]["database"] == "demo"


def test_every_variable_of_provisioning_is_given_to_grafana() -> None:
    text = "".join(
        path.read_text()
        for path in (DEPLOY / "grafana/provisioning").rglob("*")
        if path.suffix in {".yaml", ".json"} and path.name != "rules.json"
    )
    named = set(re.findall(r"\$([A-Z_]+)", text)) | {
        "CLIMATESTREAM_ALERT_EMAIL",
        "CLIMATESTREAM_ALERT_WEBHOOK",
    }
    assert named <= environment("grafana").keys()


def test_what_is_written_for_grafana_is_where_it_looks() -> None:
    """The image has the folders: a volume takes their owner, who may write."""
    target = SERVICES["grafana-files"]["command"][-1]
    for volume in SERVICES["grafana-files"]["volumes"]:
        name, folder = volume.split(":")
        assert folder.removeprefix(f"{target}/") in {generate.BOARDS, generate.ALERTING}
        assert f" {folder}" in DOCKERFILE
        assert any(v.startswith(f"{name}:/etc/grafana/") for v in SERVICES["grafana"]["volumes"])


def test_boards_are_read_only_and_in_a_folder_that_is_not_the_alerts() -> None:
    [provider] = provisioning("dashboards/climatestream.yaml")["providers"]
    assert provider["allowUiUpdates"] is False
    assert provider["disableDeletion"] is True
    assert provider["folder"] != FOLDER
    assert f"boards:{provider['options']['path']}:ro" in SERVICES["grafana"]["volumes"]


# ---------------------------------------------------------------------------------- image


def test_the_image_runs_as_nobody_special() -> None:
    last = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]
    user = re.findall(r"^USER (\S+)", last, re.MULTILINE)
    assert user == ["10001:10001"]
    assert last.index("\nUSER ") < last.index("\nENTRYPOINT ")


def test_all_stages_have_one_base_and_packages_are_held_by_hashes() -> None:
    assert len(BASE) == 2
    assert len(set(BASE)) == 1
    installs = re.findall(r"pip install ([^\n\\&]*)", DOCKERFILE)
    assert len(installs) == 3
    for options in installs:
        assert "--require-hashes" in options or "--no-index" in options
    assert not re.search(r"\b(curl|wget|ADD|apt-get)\b", DOCKERFILE)


def test_what_the_image_copies_exists_and_is_let_through() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    kept = {line[1:] for line in ignored if line.startswith("!")}
    assert "*" in ignored
    copied = set()
    for words in re.findall(r"^COPY (?!--from)(.*)", DOCKERFILE, re.MULTILINE):
        copied |= set(words.split()[:-1])
    assert copied == kept
    assert all((ROOT / path).exists() for path in copied)


def locked(path: str) -> Mapping[str, str]:
    text = (ROOT / path).read_text()
    found = dict(re.findall(r"^([\w.-]+)==([^\s;\\]+)", text, re.MULTILINE))
    assert text.count("--hash=sha256:") >= len(found)
    return found


def test_the_image_has_the_versions_that_the_tests_have() -> None:
    tested = locked("requirements.lock")
    for path in ("deploy/requirements.lock", "deploy/requirements-build.lock"):
        for name, version in locked(path).items():
            assert tested[name] == version, f"{name}: make lock"


def test_the_image_has_what_its_commands_need_and_no_test_tool() -> None:
    packages = locked("deploy/requirements.lock").keys()
    assert {"confluent-kafka", "awslambdaric", "grafana-foundation-sdk", "polars"} <= packages
    assert not {"pytest", "mypy", "playwright", "hatchling"} & packages


# ---------------------------------------------------------------------------------- compose


def _compose() -> str | None:
    """Why `docker compose` can't be asked; None where it can."""
    if shutil.which("docker") is None:
        return "no docker"
    asked = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    return None if asked.returncode == 0 else "docker has no compose plugin"


def config(folder: Path, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    for part in ("compose.yaml", "Dockerfile"):
        shutil.copy(DEPLOY / part, folder)
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        ["docker", "compose", *options, "config", "--format", "json"],
        cwd=folder,
        env=kept | variables,
        capture_output=True,
        text=True,
        check=False,
    )


WHY_NOT = _compose()


@pytest.mark.skipif(WHY_NOT is not None, reason=WHY_NOT or "")
class TestCompose:
    """As Compose itself reads it: its schema, its interpolation, its profiles."""

    def test_it_is_valid_with_what_make_stack_writes(self, tmp_path: Path) -> None:
        shutil.copy(DEPLOY / ".env.example", tmp_path)
        stack_env.make(tmp_path)
        ended = config(tmp_path)
        assert ended.returncode == 0, ended.stderr
        assert ended.stderr == ""
        services = json.loads(ended.stdout)["services"]
        assert services.keys() == SERVICES.keys() - {"lambda"}
        for service in services.values():
            assert {p["host_ip"] for p in service.get("ports", ())} <= {"127.0.0.1"}
        command = services["producer"]["command"]
        assert command == [_with_defaults(word) for word in SERVICES["producer"]["command"]]

    def test_the_other_profile_has_the_function_in_place_of_the_worker(
        self, tmp_path: Path
    ) -> None:
        shutil.copy(DEPLOY / ".env.example", tmp_path)
        stack_env.make(tmp_path)
        ended = config(tmp_path, COMPOSE_PROFILES="lambda")
        assert ended.returncode == 0, ended.stderr
        assert json.loads(ended.stdout)["services"].keys() == SERVICES.keys() - {"worker"}

    def test_without_passwords_it_says_how_to_make_them(self, tmp_path: Path) -> None:
        ended = config(tmp_path)
        assert ended.returncode != 0
        assert "make stack" in ended.stderr

"""What is deployed: small, without anything heavy, the same bytes each time, and it runs alone."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import orjson
import pytest

from tests.crate_double import CrateDouble
from tests.lambda_events import block, event, message
from tests.lambda_zip import LAMBDA_PYTHON, MAKE, ROOT, build, interpreter, unpack

TARGETS = ("arm64", "x86_64", "local")
ELF_MACHINES = {"arm64": 183, "x86_64": 62}
"""EM_AARCH64 and EM_X86_64: https://refspecs.linuxfoundation.org/elf/gabi4+/ch4.eheader.html"""
HEAVY = re.compile(r"numpy|arrow|duckdb|polars|fastcodec|/(brokers|dashboards|data|sources|web)/")
"""Of ours what needs something heavy, or is something heavy; of others there is orjson only."""

RUN = """
import sys
sys.path[:] = [path for path in sys.path if "site-packages" not in path]
sys.path.insert(0, sys.argv[1])
import json
from climatestream.aws.handler import handler
class Context:
    aws_request_id = "r"
    def get_remaining_time_in_millis(self):
        return 30_000
print(json.dumps(handler(json.loads(sys.argv[2]), Context())))
print(json.dumps({name: getattr(module, "__file__", None) for name, module in sys.modules.items()}))
"""


@pytest.fixture(scope="session")
def zips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    build(folder)
    return folder


@pytest.fixture(params=TARGETS)
def zipped(request: pytest.FixtureRequest, zips: Path) -> Path:
    return zips / f"climatestream-lambda-{request.param}.zip"


@pytest.fixture
def script() -> ModuleType:
    """The builder as a module."""
    spec = importlib.util.spec_from_file_location("make_lambda", MAKE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_it_is_small(zipped: Path) -> None:
    with zipfile.ZipFile(zipped) as archive:
        unpacked = sum(info.file_size for info in archive.infolist())
    assert zipped.stat().st_size <= 6_000_000
    assert unpacked <= 20_000_000


def test_nothing_heavy_is_inside(zipped: Path) -> None:
    """No numpy, Arrow, DuckDB, pandas or Kafka client, and nothing of ours that needs one."""
    with zipfile.ZipFile(zipped) as archive:
        names = archive.namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {
        "climatestream",
        "orjson",
    }
    assert [name for name in names if HEAVY.search(name)] == []
    assert "climatestream/aws/handler.py" in names


def test_it_holds_this_tree_and_the_lock(zipped: Path) -> None:
    locked = re.search(r"^orjson==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert locked is not None
    with zipfile.ZipFile(zipped) as archive:
        for name in archive.namelist():
            if name.startswith("climatestream/"):
                assert archive.read(name) == (ROOT / "src" / name).read_bytes()
        assert f"orjson-{locked[1]}.dist-info/METADATA" in archive.namelist()


@pytest.mark.parametrize("target", ["arm64", "x86_64"])
def test_its_binary_is_of_the_target_whoever_builds_it(zips: Path, target: str) -> None:
    """By the wheel's tags, and by what the ELF header of the extension says."""
    with zipfile.ZipFile(zips / f"climatestream-lambda-{target}.zip") as archive:
        (extension,) = [name for name in archive.namelist() if name.endswith(".so")]
        (tags,) = [name for name in archive.namelist() if name.endswith("/WHEEL")]
        binary, said = archive.read(extension), archive.read(tags).decode()
        assert archive.getinfo(extension).external_attr >> 16 == 0o100755
    machine = {"arm64": "aarch64", "x86_64": "x86_64"}[target]
    assert f"cpython-313-{machine}-linux-gnu" in extension
    assert re.search(rf"^Tag: cp313-cp313-manylinux.*_{machine}\s*$", said, re.MULTILINE)
    assert binary[:5] == b"\x7fELF\x02"
    assert struct.unpack_from("<H", binary, 18) == (ELF_MACHINES[target],)
    needed = {
        tuple(map(int, found.split(b"."))) for found in re.findall(rb"GLIBC_(\d+\.\d+)", binary)
    }
    assert max(needed) <= (2, 34)  # Amazon Linux 2023's


def test_the_same_tree_gives_the_same_bytes(zips: Path, tmp_path: Path) -> None:
    """From another folder, at another time, in another time zone, with other names in order."""
    build(tmp_path, TZ="Pacific/Auckland", LC_ALL="C", PYTHONHASHSEED="7", SOURCE_DATE_EPOCH="9")
    for target in TARGETS:
        name = f"climatestream-lambda-{target}.zip"
        assert digest(tmp_path / name) == digest(zips / name)


def test_nothing_in_it_depends_on_the_builders_tools(zipped: Path) -> None:
    """Not compressed, since each zlib does that in its own way; times, modes and order fixed."""
    with zipfile.ZipFile(zipped) as archive:
        infos = archive.infolist()
    assert [info.filename for info in infos] == sorted(info.filename for info in infos)
    assert {info.compress_type for info in infos} == {zipfile.ZIP_STORED}
    assert {info.date_time for info in infos} == {(1980, 1, 1, 0, 0, 0)}
    assert {info.create_system for info in infos} == {3}
    assert not [info.filename for info in infos if info.filename.endswith(".pyc")]


def runs() -> list[object]:
    """Pairs of a zip and the interpreter for it."""
    found = interpreter(LAMBDA_PYTHON) if os.uname().machine == "x86_64" else None
    no_python = pytest.mark.skipif(found is None, reason=f"no Python {LAMBDA_PYTHON} here")
    return [
        pytest.param("local", sys.executable, id="local"),
        pytest.param("x86_64", found, id="x86_64", marks=no_python),
    ]


@pytest.mark.parametrize(("target", "python"), runs())
def test_it_runs_alone(zips: Path, tmp_path: Path, target: str, python: str) -> None:
    """Its code, its packages and the standard library are all that is loaded; rows are stored."""
    folder = unpack(zips / f"climatestream-lambda-{target}.zip", tmp_path / "task")
    sent = event(
        block([message(), b"poison", message(latitude=51)]), block([message(latitude=52)], 1)
    )
    with CrateDouble().serving() as double:
        done = subprocess.run(
            [python, "-I", "-c", RUN, folder, orjson.dumps(sent).decode()],
            capture_output=True,
            text=True,
            check=False,
            env={"CLIMATESTREAM_STORE": f"crate://127.0.0.1:{double.port}/demo"},
        )
        assert done.returncode == 0, done.stderr
    *_, answer, modules = done.stdout.splitlines()
    assert orjson.loads(answer) == {"batchItemFailures": []}
    assert len(double.rows) == 3
    assert len(double.others["dead_letters"]) == 1
    ours = {
        name: file
        for name, file in orjson.loads(modules).items()
        if name.partition(".")[0] in ("climatestream", "orjson")
    }
    assert ours
    assert all(file.startswith(str(folder)) for file in ours.values())
    assert not {name.partition(".")[0] for name in orjson.loads(modules)} & {
        *("numpy", "boto3", "asyncio", "click", "duckdb", "polars")
    }


# ---------------------------------------------------------------------------- the builder


def test_imports_inside_functions_count_and_those_for_types_do_not(script: ModuleType) -> None:
    import ast

    tree = ast.parse(
        "from __future__ import annotations\n"
        "if TYPE_CHECKING:\n    import numpy\n"
        "def f():\n    from climatestream.a import b\n"
        "try:\n    import c\nexcept ImportError:\n    import d.e\n"
    )
    assert list(script._imports(tree)) == [
        *("__future__", "__future__.annotations"),
        *("climatestream.a", "climatestream.a.b", "c", "d.e"),
    ]


def test_a_package_that_the_lock_lacks_is_said(script: ModuleType) -> None:
    with pytest.raises(script.LambdaError, match=r"requirements.lock lacks orjson: make lock"):
        script.locked("numpy==1.0 \\\n    --hash=sha256:00\n")


def test_the_lock_is_taken_with_its_hashes(script: ModuleType) -> None:
    lock = (
        "numpy==1.0 \\\n    --hash=sha256:00\n    # via x\n"
        "orjson==2.0 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n    # via y\nz==1\n"
    )
    assert script.locked(lock) == "orjson==2.0 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n"


def wheel(folder: Path, requires: str = "") -> Path:
    file = folder / "orjson-2.0-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(
            "orjson-2.0.dist-info/METADATA", f"Name: orjson\nVersion: 2.0\n{requires}\n"
        )
        archive.writestr("orjson/__init__.py", "")
    return file


def test_a_wheel_that_needs_more_is_refused(script: ModuleType, tmp_path: Path) -> None:
    """It would fail on AWS, at its first import."""
    assert "orjson/__init__.py" in script.contents(wheel(tmp_path))
    script.contents(wheel(tmp_path, 'Requires-Dist: pytest; extra == "test"'))
    with pytest.raises(script.LambdaError, match=r"needs \['numpy>=2'\]: add them to PACKAGES"):
        script.contents(wheel(tmp_path, "Requires-Dist: numpy>=2"))


def test_a_wheel_that_is_not_the_locks_is_not_taken(tmp_path: Path) -> None:
    """Its hash is another: the registry is asked, which here is none."""
    (tmp_path / "orjson-2.0-cp313-cp313-manylinux2014_x86_64.whl").write_bytes(b"not it")
    done = run_script("x86_64", "--wheels", str(tmp_path), PIP_NO_INDEX="1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("no wheels for x86_64: ")


def test_an_unknown_target_is_said() -> None:
    done = run_script("sparc")
    assert done.returncode == 1
    assert done.stderr == "no target sparc: expected arm64, x86_64, local\n"


def run_script(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, MAKE, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def test_what_would_be_too_large_is_refused(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "wheels", lambda *_: [wheel(tmp_path)])
    monkeypatch.setattr(script, "LARGEST_ZIP", 1_000)
    make: Callable[..., Path] = script.make
    with pytest.raises(script.LambdaError, match=r"expected at most 1,000 and 20,000,000"):
        make(script.TARGETS["local"], tmp_path, tmp_path)

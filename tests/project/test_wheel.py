"""What is installed from the wheel, in an environment of its own, is what the checkout promises."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PINS = PROJECT["tool"]["uv"]["constraint-dependencies"]
NEEDED = {"aiostream", "msgspec", "returns", "tenacity", "typing-extensions"}
UV = os.environ.get("UV") or shutil.which("uv") or ""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not UV, reason="needs uv to build and to install the wheel"),
]


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command; return what it prints."""
    # Where the tests themselves run is none of its business.
    ours = {"VIRTUAL_ENV", "PYTHONPATH", "UV_PYTHON", "UV_PROJECT_ENVIRONMENT"}
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def uv(*arguments: str | Path, cwd: Path) -> str:
    """Run uv, without the network if its cache has all it needs."""
    try:
        return run(UV, "--offline", "--no-progress", *arguments, cwd=cwd)
    except AssertionError:
        return run(UV, "--no-progress", *arguments, cwd=cwd)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel."""
    dist = tmp_path_factory.mktemp("dist")
    uv("build", "--wheel", "--python", sys.executable, "--out-dir", dist, cwd=ROOT)
    (built,) = dist.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def clean(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory that has the wheel, without extras, installed in its ``env``."""
    place = tmp_path_factory.mktemp("clean")
    constraints = place / "constraints.txt"
    constraints.write_text("".join(f"{pin}\n" for pin in PINS))
    uv("venv", "--python", sys.executable, "env", cwd=place)
    uv("pip", "install", "--python", "env", "-c", constraints, wheel, cwd=place)
    return place


def test_the_wheel_holds_the_package_and_the_stubs_of_aiostream_alone(wheel: Path) -> None:
    info = f"returns_pipeline-{version('returns-pipeline')}.dist-info"
    expected = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "returns_pipeline").rglob("*")
        if path.is_file() and path.suffix in {".py", ".sql", ".typed"}
    } | {
        f"aiostream-stubs/{path.relative_to(ROOT / 'typings/aiostream').as_posix()}"
        for path in (ROOT / "typings/aiostream").rglob("*")
        if path.is_file()
    }
    with ZipFile(wheel) as files:
        held = {name for name in files.namelist() if not name.startswith(f"{info}/")}
        metadata = files.read(f"{info}/METADATA").decode()
    assert held == expected
    assert {"returns_pipeline/py.typed", "aiostream-stubs/py.typed"} <= held
    assert "License-Expression: MIT" in metadata
    assert "Typing :: Typed" in metadata


def test_the_wheel_needs_few_packages_and_imports_without_extras(clean: Path) -> None:
    installed = uv("pip", "freeze", "--python", "env", cwd=clean).split()
    names = {line.partition("==")[0] for line in installed if "==" in line}
    assert names == NEEDED
    program = (
        "import importlib, pkgutil, returns_pipeline\n"
        "from returns_pipeline.errors import MissingExtra\n"
        "for module in pkgutil.walk_packages(returns_pipeline.__path__, 'returns_pipeline.'):\n"
        "    if module.name.rpartition('.')[2] not in {'mypy_plugin', 'pytest_plugin'}:\n"
        "        try:\n"
        "            importlib.import_module(module.name)\n"
        "        except MissingExtra as error:\n"
        "            print('extra', error.extra)\n"
        "print(returns_pipeline.__file__)\n"
    )
    *missing, place = run("env/bin/python", "-W", "error", "-c", program, cwd=clean).splitlines()
    assert str(clean / "env") in place
    extras = PROJECT["project"]["optional-dependencies"]
    assert {line.removeprefix("extra ") for line in missing} <= set(extras)


def test_its_entry_points_load_where_their_tool_is(clean: Path) -> None:
    tools = [pin for pin in PINS if pin.startswith(("mypy==", "pytest==", "pytest-asyncio=="))]
    uv("pip", "install", "--python", "env", *tools, cwd=clean)
    program = (
        "from importlib.metadata import distribution\n"
        "for point in distribution('returns-pipeline').entry_points:\n"
        "    print(point.group, point.name, bool(point.load()))\n"
    )
    declared = PROJECT["project"].get("entry-points", {})
    loaded = run("env/bin/python", "-W", "error", "-c", program, cwd=clean).splitlines()
    assert sorted(loaded) == sorted(
        f"{group} {name} True" for group, points in declared.items() for name in points
    )


def test_mypy_and_pyright_read_chains_there_without_any_configuration(clean: Path) -> None:
    tools = [pin for pin in PINS if pin.startswith(("mypy==", "pyright==", "nodeenv=="))]
    uv("pip", "install", "--python", "env", *tools, cwd=clean)
    program = clean / "program"
    program.mkdir()
    # The plugin's own types need the plugin, those of metrics and of the live view three extras.
    # All others are to be exact without them.
    for file in (ROOT / "tests" / "typesafety").glob("*.py"):
        if not file.stem.startswith(("mypy_plugin", "metrics", "live_view")):
            shutil.copy(file, program)
    run("../env/bin/mypy", "--strict", ".", cwd=program)
    (program / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}')
    run("../env/bin/pyright", "--pythonpath", "../env/bin/python", cwd=program)
    # They can tell: without the stubs, mypy reads `stream.take(ints, 2)` as a `Stream[Never]`.
    (stubs,) = clean.glob("env/lib/*/site-packages/aiostream-stubs")
    stubs.rename(clean / "away")
    with pytest.raises(AssertionError, match=r"Stream\[Never\]"):
        run("../env/bin/mypy", "--strict", "aiostream_chains.py", cwd=program)
    (clean / "away").rename(stubs)

"""The programs that hurried newcomers get wrong: no line of them is accepted by every checker."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PROGRAMS = Path(__file__).with_name("wrong_programs.txt").read_text(encoding="utf-8")
ROOT = Path(__file__).parents[2]


def wrong(program: str) -> dict[int, str]:
    """Return the wrong lines, by number, without their comments."""
    return {
        number: line.partition("#")[0].strip().removeprefix("made = ")
        for number, line in enumerate(program.splitlines(), 1)
        if "# wrong" in line
    }


def reported(command: list[str], folder: Path) -> dict[int, str]:
    """Return what a checker says of each line."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    found: dict[int, str] = {}
    at = 0
    for line in done.stdout.splitlines():
        place = re.match(r".*programs\.py:(\d+):(?:\d+ -)? (?:error|note)", line)
        at = int(place[1]) if place else at
        found[at] = f"{found.get(at, '')}{line}\n"
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("wrong")
    (made / "programs.py").write_text(PROGRAMS, encoding="utf-8")
    return made


@pytest.fixture(scope="module")
def mypy(folder: Path) -> dict[int, str]:
    return checked(folder, "plugins = returns_pipeline.mypy_plugin\n")


@pytest.fixture(scope="module")
def plain_mypy(folder: Path) -> dict[int, str]:
    return checked(folder, "")


def checked(folder: Path, settings: str) -> dict[int, str]:
    """Return what mypy says of each line, in the mode ``strict``."""
    settings = f"[mypy]\nstrict = True\n{settings}mypy_path = {ROOT}:{ROOT}/typings\n"
    (folder / "mypy.ini").write_text(settings, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--config-file=mypy.ini", "--no-error-summary"]
    return reported([*command, "--cache-dir=/dev/null", "programs.py"], folder)


def near(found: dict[int, str], number: int) -> bool:
    """Whether a line is reported, or, if it begins a block, one in the block."""
    return any(line in found for line in range(number, number + (4 if opens(number) else 1)))


def marked(number: int) -> bool:
    return "# wrong, plugin" in PROGRAMS.splitlines()[number - 1]


def opens(number: int) -> bool:
    line = PROGRAMS.splitlines()[number - 1].partition("#")[0].strip()
    return line.endswith(":") or line.startswith("@")


def test_mypy_with_the_plugin_reports_each(mypy: dict[int, str]) -> None:
    lines = wrong(PROGRAMS)
    silent = {text for number, text in lines.items() if not near(mypy, number)}
    assert len(lines) > 260
    assert not silent


def test_pyright_reports_what_is_left(folder: Path) -> None:
    (folder / "pyrightconfig.json").write_text(
        f'{{"typeCheckingMode": "strict", "extraPaths": ["{ROOT}"], "stubPath": "{ROOT}/typings",'
        f' "reportUnusedCallResult": "error", "reportUnusedVariable": "none"}}'
    )
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "programs.py"]
    found = reported(command, folder)
    silent = {text for number, text in wrong(PROGRAMS).items() if not near(found, number)}
    only_the_plugin = {text for number, text in wrong(PROGRAMS).items() if marked(number)}
    assert silent == only_the_plugin


def test_no_error_is_longer_than_2000_characters(
    mypy: dict[int, str], plain_mypy: dict[int, str]
) -> None:
    for found in (mypy, plain_mypy):
        shown = {number: text.replace("programs.py", "") for number, text in found.items()}
        assert {number: text for number, text in shown.items() if len(text) > 2000} == {}


def test_without_the_plugin_mypy_reports_three_quarters(
    plain_mypy: dict[int, str],
) -> None:
    lines = wrong(PROGRAMS)
    silent = {number for number in lines if not near(plain_mypy, number)}
    assert len(silent) < len(lines) / 4

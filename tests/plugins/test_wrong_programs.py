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

# Mypy reports that its cases never match with `warn_unreachable`, which is not a part of `strict`.
LEFT_TO_PYRIGHT = {"match await s.collect():"}


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
    settings = "[mypy]\nstrict = True\nplugins = returns_pipeline.mypy_plugin\n"
    settings += f"mypy_path = {ROOT}:{ROOT}/typings\n"
    (folder / "mypy.ini").write_text(settings, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--config-file=mypy.ini", "--no-error-summary"]
    return reported([*command, f"--cache-dir={folder}/cache", "programs.py"], folder)


def near(found: dict[int, str], number: int) -> bool:
    """Whether a line is reported, or, if it begins a block, one in the block."""
    return any(line in found for line in range(number, number + (4 if opens(number) else 1)))


def opens(number: int) -> bool:
    line = PROGRAMS.splitlines()[number - 1].partition("#")[0].strip()
    return line.endswith(":") or line.startswith("@")


def test_mypy_with_the_plugin_reports_each(mypy: dict[int, str]) -> None:
    lines = wrong(PROGRAMS)
    silent = {text for number, text in lines.items() if not near(mypy, number)}
    assert len(lines) > 140
    assert silent == LEFT_TO_PYRIGHT


def test_pyright_reports_what_is_left(folder: Path) -> None:
    (folder / "pyrightconfig.json").write_text(
        f'{{"typeCheckingMode": "strict", "extraPaths": ["{ROOT}"], "stubPath": "{ROOT}/typings",'
        f' "reportUnusedCallResult": "error", "reportUnusedVariable": "none"}}'
    )
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "programs.py"]
    found = reported(command, folder)
    silent = {text for number, text in wrong(PROGRAMS).items() if not near(found, number)}
    assert not silent & LEFT_TO_PYRIGHT
    # Nothing of these is wrong by its types: they are the plugin's.
    assert silent == {
        "await s.map(check).run()",
        "await s.map(charge).run()",
        "await s.for_each(lambda o: charge)",
        "await s.alt(lambda e: Failure(e)).run()",
        "if await s.first(): pass",
        "if check(Order()): pass",
        "await s.bind_async(lambda o: s).run()",
        "await s.map(lambda o: save(o)).run()",
        "RetryPolicy(on_retry=lambda e: check(Order()))",
    }


def test_no_error_is_longer_than_2000_characters(mypy: dict[int, str]) -> None:
    shown = {number: text.replace("programs.py", "") for number, text in mypy.items()}
    assert {number: text for number, text in shown.items() if len(text) > 2000} == {}

"""What the README shows runs, is well typed, and prints what it says; CI runs its commands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
FENCED = re.findall(r"^```(\w+)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
BLOCKS = [
    (code, FENCED[i + 1][1] if FENCED[i + 1 : i + 2] and FENCED[i + 1][0] == "text" else None)
    for i, (language, code) in enumerate(FENCED)
    if language == "python"
]


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_readme_is_short_and_begins_with_code() -> None:
    assert len(README.splitlines()) <= 120
    assert "```python" in "\n".join(README.splitlines()[:12])


@pytest.mark.parametrize(("code", "printed"), BLOCKS)
def test_a_block_runs_and_prints_what_stands_below_it(
    code: str, printed: str | None, tmp_path: Path
) -> None:
    said = run(sys.executable, "-W", "error", "-c", code, cwd=tmp_path)
    assert printed is None or said == printed


@pytest.mark.slow
def test_the_blocks_are_well_typed(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    pytest.importorskip("pyright")
    for i, (code, _) in enumerate(BLOCKS):
        (tmp_path / f"block_{i}.py").write_text(code)
    config = ROOT / "mypy.ini"
    run(sys.executable, "-m", "mypy", "--config-file", config, tmp_path, cwd=tmp_path)
    (tmp_path / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}')
    pyright = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable]
    run(*pyright, cwd=tmp_path)


def test_its_commands_are_those_that_ci_runs() -> None:
    ci = (ROOT / ".ci" / "run").read_text()
    commands = [
        line for language, code in FENCED if language == "console" for line in code.split("\n")
    ]
    assert len(commands) >= 2
    for command in filter(None, commands):
        assert command in ci

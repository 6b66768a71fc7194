"""A common slip is one short error of the plugin, and what is right has the types it has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mypy import api

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

PROGRAM = """
from collections.abc import Callable
from typing import Any, assert_type

from returns.future import FutureResult
from returns.result import Result, Success

from returns_pipeline import RetryPolicy, Saga
from returns_pipeline.errors import AllFailed, RetriesExhausted
from returns_pipeline.policies import Tier, all_of, circuit_breaker, race, with_policy

async def save(n: int) -> Result[int, OSError]: return Success(n)
async def undo_save(n: int) -> None: ...
async def of_text(text: str) -> Result[bytes, OSError]: return Success(b"")
async def of_two(n: int, m: int) -> Result[bytes, OSError]: return Success(b"")
async def by_keyword(n: int, *, fast: bool) -> Result[int, OSError]: return Success(1)
def at_once(n: int) -> int: return n
def undoing(n: int) -> Callable[[int], FutureResult[None, str]]: raise OSError

steps = [save, save]
pair = (save, save)
policy = RetryPolicy(2)
unknown: Any = save
hidden: Callable[[int], FutureResult[int, str]] = unknown

race([save, save])  # race() takes its steps one by one
race((save, save), grace=1.0)  # race() takes its steps one by one
race([each for each in steps])  # race() takes its steps one by one
race(steps)  # race() takes its steps one by one
all_of(pair)  # all_of() takes its steps one by one
race(save, of_text)  # no argument fits all these steps: they take "int", "str"
all_of(save, save, of_text)  # no argument fits all these steps: they take "int", "int", "str"
Tier("a", save, of_text)  # no argument fits all these steps: they take "int", "str"
race(save, of_two)  # race() passes the same arguments to all steps: this one takes 2
all_of(of_two, save)  # all_of() passes the same arguments to all steps: this one takes 1
Tier("a", save, at_once)  # Tier() takes steps, which are awaited
race(save, by_keyword)  # race() passes arguments by position
Tier("a", [save, save])  # Tier() takes its strategies one by one
Tier(save, save)  # Tier() takes a name and then its strategies
with_policy(policy, save)  # with_policy() takes a step and then a policy
with_policy(circuit_breaker(3, 1.0), save)  # with_policy() takes a step and then a policy
with_policy(policy, lambda n: save(n))  # with_policy() takes a step and then a policy
with_policy(policy, hidden)  # with_policy() takes a step and then a policy
Saga("x").step(save)  # step() takes a name and then a step
Saga("x").step(save, "save")  # step() takes a name and then a step
Saga("x").step("save", save, undo=undo_save(1))  # undo= takes a function
Saga("x").step("a", save).step("b", save, undo=undo_save(1))  # undo= takes a function

RACE = FutureResult[int, AllFailed[OSError]]
assert_type(race(save)(1), RACE)
assert_type(race(save, save)(1), RACE)
assert_type(race(*steps)(1), RACE)
assert_type(with_policy(save, policy)(1), FutureResult[int, RetriesExhausted[OSError]])
assert_type(Saga("x").step("save", save, undo=undo_save), Saga[int, int, OSError])
assert_type(Saga("x").step("save", save, undo=undoing(1)), Saga[int, int, OSError])
assert_type(Tier("a", save, save), Tier[int, int, OSError])
race(unknown)
with_policy(unknown, policy)
"""


SLIPS_WITHOUT_PLUGIN = """
from returns.result import Result, Success

from returns_pipeline import ResultStream, RetryPolicy, Saga, combine, pipe, results, sources
from returns_pipeline.policies import Tier, Timeout, all_of, circuit_breaker, race, with_policy

async def save(n: int) -> Result[int, OSError]: return Success(n)
async def undo_save(n: int) -> None: ...
s = ResultStream.of(sources.from_iterable([1]))

race([save, save])  # OneStepAfterAnother
race((save, save), grace=1.0)  # OneStepAfterAnother
all_of([save, save])  # OneStepAfterAnother
Tier("a", [save, save])  # OneStepAfterAnother
Tier(save, save)  # FirstNameThenStep
with_policy(RetryPolicy(2), save)  # FirstStepThenPolicy
with_policy(circuit_breaker(3, 1.0), save)  # FirstStepThenPolicy
with_policy(Timeout(1.0), lambda n: save(n))  # FirstStepThenPolicy
with_policy(save, 3)  # NotANumber[ButAPolicy]
Saga("x").step(save)  # FirstNameThenStep
Saga("x").step(save, "save")  # FirstNameThenStep
Saga("x").step("a", save).step("b", save, undo=undo_save(1))  # UndoThatIsNotCalled
Saga("x").step("a", save, retry=3)  # NotANumber[ButAPolicy]
s.filter(save)  # Literal[True]
s.ensure(save, str)  # Literal[True]
combine.split(s, save)  # Literal[True]
results.filter_result(s, save)  # Literal[True]
results.ensure(s, save, str)  # Literal[True]
s | pipe.filter_result(save)  # Literal[True]
s | pipe.ensure(save, str)  # Literal[True]
"""


def test_without_the_plugin_mypy_names_what_it_expects_instead_of_all_overloads(
    tmp_path: Path,
) -> None:
    lines = SLIPS_WITHOUT_PLUGIN.splitlines()
    expected = {n: line.split("  # ")[1] for n, line in enumerate(lines, 1) if "  # " in line}
    (tmp_path / "program.py").write_text(SLIPS_WITHOUT_PLUGIN, encoding="utf-8")
    flags = ["--config-file=", "--strict", f"--cache-dir={tmp_path / 'cache'}"]
    said, wrong, _ = api.run([*flags, "--no-error-summary", str(tmp_path / "program.py")])
    assert not wrong, wrong
    texts: dict[int, str] = {}
    for line in said.replace(f"{tmp_path}/", "").splitlines():
        at = int(line.split(":")[1])
        texts[at] = f"{texts.get(at, '')}{line}\n"
    assert texts.keys() == expected.keys(), said
    for at, text in texts.items():
        assert expected[at] in text
        assert len(text) < 500, text


def test_a_slip_is_one_short_error(tmp_path: Path) -> None:
    lines = PROGRAM.splitlines()
    expected = {n: line.split("  # ")[1] for n, line in enumerate(lines, 1) if "  # " in line}
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    settings = "[mypy]\nstrict = True\nplugins = returns_pipeline.mypy_plugin\n"
    settings += f"disable_error_code = must-use\nmypy_path = {ROOT}:{ROOT}/typings\n"
    (tmp_path / "mypy.ini").write_text(settings, encoding="utf-8")
    flags = [f"--config-file={tmp_path / 'mypy.ini'}", f"--cache-dir={tmp_path / 'cache'}"]
    said, wrong, _ = api.run([*flags, "--no-error-summary", str(tmp_path / "program.py")])
    assert not wrong, wrong
    found = re.findall(r"program\.py:(\d+): error: (.*)  \[arg-type\]", said)
    assert len(found) == len(said.splitlines()), said
    assert [int(line) for line, _ in found] == list(expected), said
    for line, message in found:
        assert message.startswith(expected[int(line)])
        assert len(message) < 120

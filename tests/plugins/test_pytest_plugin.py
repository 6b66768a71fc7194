"""The pytest plugin, run on test files of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., pytest.RunResult]

WITH_ASYNCIO = ("-p", "pytest_asyncio.plugin")
PREAMBLE = """
import asyncio
import pytest
from returns_pipeline.testing import VirtualTimeLoop, advance

def virtual():
    return isinstance(asyncio.get_running_loop(), VirtualTimeLoop)
"""


@pytest.fixture(params=["strict", "auto"])
def mode(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def run_tests(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a test file with the plugins that are named, warnings as errors."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")

    def run(code: str, *args: str, mode: str | None = "strict", conftest: str = "") -> object:
        ini = ["[pytest]", "filterwarnings = error", "addopts = --strict-markers"]
        if mode is not None:
            ini += [f"asyncio_mode = {mode}", "asyncio_default_fixture_loop_scope = function"]
            args = (*WITH_ASYNCIO, *args)
        pytester.makeini("\n".join(ini))
        pytester.makeconftest(conftest)
        pytester.makepyfile(PREAMBLE + code)
        return pytester.runpytest_inprocess(
            "-p", "returns_pipeline.pytest_plugin", "-p", "no:cacheprovider", *args
        )

    return run  # type: ignore[return-value]


def test_the_marker_puts_a_test_and_its_fixtures_on_virtual_time(run_tests: Run, mode: str) -> None:
    run_tests(
        """
import pytest_asyncio

@pytest_asyncio.fixture
async def ticking():
    ticks = []
    async def tick():
        while True:
            await asyncio.sleep(60)
            ticks.append(asyncio.get_running_loop().time())
    task = asyncio.create_task(tick())
    yield ticks
    task.cancel()
    await asyncio.wait({task})

@pytest.mark.virtual_time
async def test_marked(ticking):
    assert virtual()
    await advance(3600)
    assert ticking == [60.0 * n for n in range(1, 61)]

@pytest.mark.asyncio
async def test_other():
    assert not virtual()
""",
        mode=mode,
    ).assert_outcomes(passed=2)


def test_the_fixture_does_the_same_and_is_the_loop(run_tests: Run, mode: str) -> None:
    run_tests(
        """
async def test_asks(virtual_time):
    assert virtual_time is asyncio.get_running_loop()
    await virtual_time.advance(5)
    assert virtual_time.time() == 5.0

@pytest.mark.usefixtures("virtual_time")
async def test_uses():
    assert asyncio.get_running_loop().time() == 0.0
    assert virtual()
""",
        mode=mode,
    ).assert_outcomes(passed=2)


def test_modules_and_classes_can_be_marked_with_all_that_is_in_them(
    run_tests: Run, mode: str
) -> None:
    run_tests(
        """
from hypothesis import given, settings, strategies as st
from returns_pipeline.testing import run

pytestmark = pytest.mark.virtual_time

class TestClass:
    @pytest.mark.parametrize("seconds", [1, 10])
    @pytest.mark.parametrize("other", "ab")
    async def test_method(self, seconds, other):
        await asyncio.sleep(seconds)
        assert asyncio.get_running_loop().time() == seconds

    def test_sync(self):
        assert run(asyncio.sleep(3600, "done")) == "done"

    @staticmethod
    async def test_static():
        assert virtual()

@settings(max_examples=5, database=None)
@given(st.integers(0, 10**6))
async def test_property(seconds):
    assert virtual()
    await asyncio.sleep(seconds)

@settings(max_examples=5, database=None)
@given(st.integers(0, 10**6))
def test_sync_property(seconds):
    assert run(asyncio.sleep(seconds, "done")) == "done"
""",
        mode=mode,
    ).assert_outcomes(passed=8)


def test_names_of_tests_are_as_without_it(run_tests: Run) -> None:
    result = run_tests(
        """
@pytest.mark.virtual_time
@pytest.mark.parametrize("n", [1])
async def test_it(n):
    pass
""",
        "-v",
    )
    result.stdout.fnmatch_lines(["*::test_it[[]1[]] PASSED*"])


def test_wider_loops_of_other_tests_and_fixtures_stay_as_they_are(run_tests: Run) -> None:
    run_tests(
        """
import pytest_asyncio

@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def wide():
    yield asyncio.get_running_loop()

@pytest.mark.virtual_time
async def test_first(wide):
    assert virtual()
    assert not isinstance(wide, VirtualTimeLoop)

@pytest.mark.asyncio(loop_scope="module")
async def test_second(wide):
    assert wide is asyncio.get_running_loop()

@pytest.mark.virtual_time
async def test_third(wide):
    assert virtual()
"""
    ).assert_outcomes(passed=3)


def test_a_default_scope_of_the_configuration_does_not_count(run_tests: Run) -> None:
    run_tests(
        """
@pytest.mark.virtual_time
async def test_it():
    assert virtual()

@pytest.mark.asyncio
@pytest.mark.virtual_time
async def test_with_both():
    assert virtual()
""",
        "-o",
        "asyncio_default_test_loop_scope=session",
    ).assert_outcomes(passed=2)


def test_a_wider_loop_is_refused_for_a_test_on_virtual_time(run_tests: Run) -> None:
    result = run_tests(
        """
@pytest.mark.virtual_time
@pytest.mark.asyncio(loop_scope="module")
async def test_it():
    pass
"""
    )
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*virtual_time needs a loop of the test's own*'module'*"])


def test_a_suite_that_chooses_its_own_loops_can_have_virtual_time_too(run_tests: Run) -> None:
    from pytest_asyncio import plugin

    if not hasattr(plugin, "PytestAsyncioSpecs"):
        pytest.skip("this pytest-asyncio has no pytest_asyncio_loop_factories")
    conftest = """
import asyncio

class Own(asyncio.SelectorEventLoop):
    pass

def pytest_asyncio_loop_factories(config, item):
    return {"own": Own, "standard": asyncio.SelectorEventLoop}
"""
    result = run_tests(
        """
@pytest.mark.virtual_time
async def test_virtual():
    await asyncio.sleep(3600)
    assert virtual()

@pytest.mark.asyncio
async def test_own():
    assert not virtual()
""",
        "-v",
        conftest=conftest,
    )
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["*::test_virtual PASSED*", "*::test_own?own? PASSED*"])


def test_a_deadlock_fails_the_test_and_says_who_waits_where(run_tests: Run) -> None:
    result = run_tests(
        """
@pytest.mark.virtual_time
async def test_it():
    await asyncio.Event().wait()
"""
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*Deadlock: every task waits forever", "*at test_it (*"])
    result.stdout.no_fnmatch_line("*LeakedTasks*")


def test_what_a_test_leaves_behind_fails_its_teardown(run_tests: Run, mode: str) -> None:
    result = run_tests(
        """
import pytest_asyncio

@pytest_asyncio.fixture
async def closing():
    tasks = []
    yield tasks
    for task in tasks:
        task.cancel()
        await asyncio.wait({task})

@pytest.mark.virtual_time
async def test_leaves(closing):
    test_leaves.task = asyncio.create_task(asyncio.sleep(100), name="the one left")

@pytest.mark.virtual_time
async def test_leaves_it_to_its_fixture(closing):
    closing.append(asyncio.create_task(asyncio.sleep(100)))

held = []

async def numbers():
    yield 1

@pytest.mark.virtual_time
async def test_leaves_a_generator():
    held.append(numbers())
    await anext(held[0])
""",
        mode=mode,
    )
    result.assert_outcomes(passed=3, errors=2)
    result.stdout.fnmatch_lines(["*LeakedTasks: tasks left running*", "*the one left:"])
    result.stdout.fnmatch_lines(["*LeakedTasks: async generators left open*", "*numbers (*"])


def test_a_test_that_failed_is_not_blamed_for_its_leaks_too(run_tests: Run) -> None:
    result = run_tests(
        """
@pytest.mark.virtual_time
async def test_fails():
    test_fails.task = asyncio.create_task(asyncio.sleep(100))
    raise OSError("the reason")

@pytest.mark.virtual_time
async def test_skips():
    test_skips.task = asyncio.create_task(asyncio.sleep(100))
    pytest.skip()
"""
    )
    result.assert_outcomes(failed=1, skipped=1)


def test_a_sync_test_can_be_marked_to_no_effect(run_tests: Run) -> None:
    run_tests(
        """
@pytest.mark.virtual_time
def test_it():
    pass
"""
    ).assert_outcomes(passed=1)


ALONE = """
@pytest.mark.virtual_time
@pytest.mark.parametrize("seconds", [3600])
async def test_marked(seconds, tmp_path):
    assert virtual()
    await asyncio.sleep(seconds)
    assert tmp_path.exists()

async def test_asks(virtual_time):
    await virtual_time.advance(5)
    assert asyncio.get_running_loop().time() == 5.0

class TestClass:
    pytestmark = pytest.mark.virtual_time

    async def test_method(self):
        assert virtual()

    def test_sync(self):
        pass

@pytest.mark.virtual_time
async def test_leaks():
    test_leaks.task = asyncio.create_task(asyncio.sleep(100))

def test_sync_asks(virtual_time):
    pass

def test_nothing():
    pass
"""


def test_without_pytest_asyncio_it_runs_its_tests_itself(run_tests: Run) -> None:
    result = run_tests(ALONE, mode=None)
    result.assert_outcomes(passed=5, failed=1, errors=1)
    result.stdout.fnmatch_lines(["*LeakedTasks: tasks left running*"])
    result.stdout.fnmatch_lines(["*for tests that are coroutine functions*"])


def test_a_suite_without_any_of_it_is_not_touched(run_tests: Run) -> None:
    run_tests("def test_it():\n    pass\n", mode=None).assert_outcomes(passed=1)
    run_tests("def test_it():\n    pass\n").assert_outcomes(passed=1)


def test_the_marker_is_explained(run_tests: Run) -> None:
    result = run_tests("", "--markers")
    result.stdout.fnmatch_lines(["@pytest.mark.virtual_time: run an async test on virtual time*"])


def test_the_plugin_is_announced_to_pytest() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    announced = project["project"]["entry-points"]["pytest11"]
    assert announced == {"returns_pipeline": "returns_pipeline.pytest_plugin"}


def test_the_plugin_imports_the_clock_and_pytest_asyncio_only_when_needed() -> None:
    code = (
        "import sys, returns_pipeline.pytest_plugin as plugin\n"
        "assert 'pytest_asyncio' not in sys.modules\n"
        "assert not [name for name in sys.modules if name.startswith('returns_pipeline.testing')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": ""})

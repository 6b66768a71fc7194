"""Cron waits: time zones, and days with 23 and 25 hours."""

from __future__ import annotations

import pickle
import subprocess
import sys
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from returns.result import Failure, Result, Success

pytest.importorskip("cronsim", reason="needs the extra cron")

from returns_pipeline.cron import cron
from returns_pipeline.errors import InvalidArgument, MissingExtra
from returns_pipeline.outcomes import settled
from returns_pipeline.policies import RetryPolicy, with_retry
from returns_pipeline.testing import run

BERLIN = ZoneInfo("Europe/Berlin")


def hours(expression: str, now: datetime, timezone: str = "Europe/Berlin") -> float:
    return cron(expression, timezone, now=lambda: now)() / 3600


def test_the_expression_is_of_the_zones_wall_clock() -> None:
    assert hours("0 3 * * *", datetime(2026, 6, 1, 1, 0, tzinfo=BERLIN)) == 2
    assert hours("0 3 * * *", datetime(2026, 6, 1, 1, 0, tzinfo=ZoneInfo("UTC"))) == 24


def test_a_night_in_which_the_clocks_go_forward_is_an_hour_shorter() -> None:
    assert hours("0 6 * * *", datetime(2026, 3, 29, 0, 0, tzinfo=BERLIN)) == 5


def test_a_time_in_the_gap_comes_right_behind_it() -> None:
    """At 2:00 the clocks show 3:00: what was due at 2:30 comes then."""
    assert hours("30 2 * * *", datetime(2026, 3, 29, 1, 0, tzinfo=BERLIN)) == 1


def test_a_night_in_which_the_clocks_go_back_is_an_hour_longer() -> None:
    assert hours("0 6 * * *", datetime(2026, 10, 25, 0, 0, tzinfo=BERLIN)) == 7


def test_a_time_that_comes_twice_is_taken_once() -> None:
    first = datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN)
    assert hours("30 2 * * *", first) == 25


def test_it_is_the_wait_of_a_policy() -> None:
    tries: list[int] = []

    async def flaky() -> Result[int, str]:
        tries.append(1)
        return Success(1) if len(tries) == 2 else Failure("no")

    async def main() -> float:
        import asyncio

        wait = cron("0 3 * * *", now=lambda: datetime(2026, 6, 1, 1, 0, tzinfo=ZoneInfo("UTC")))
        assert await settled(with_retry(flaky, RetryPolicy(wait=wait))()) == Success(1)
        return asyncio.get_running_loop().time()

    assert run(main()) == 7200.0


def test_it_is_a_value() -> None:
    wait = cron("0 3 * * *", "Europe/Berlin")
    assert pickle.loads(pickle.dumps(wait)) == wait
    assert 0 < wait() <= 86_400 + 3600


@pytest.mark.parametrize(
    ("expression", "timezone"),
    [("every day", "UTC"), ("61 * * * *", "UTC"), ("* * * * *", "Mars"), ("* * * * *", "")],
)
def test_what_names_no_time_is_refused_at_the_call(expression: str, timezone: str) -> None:
    with pytest.raises(InvalidArgument):
        cron(expression, timezone)


def test_without_the_extra_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['cronsim'] = None\nimport returns_pipeline.cron"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert 'pip install "returns-pipeline[cron]"' in done.stderr


def test_the_error_is_an_import_error() -> None:
    error = MissingExtra("cron", "cronsim")
    assert isinstance(error, ImportError)
    assert pickle.loads(pickle.dumps(error)) == error

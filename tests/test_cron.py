"""Cron waits: time zones, and days with 23 and 25 hours."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from returns.result import Failure, Result, Success

pytest.importorskip("cronsim", reason="needs the extra cron")

from returns_pipeline._engine.future_results import to_result
from returns_pipeline.cron import cron
from returns_pipeline.errors import InvalidArgument, MissingExtra
from returns_pipeline.policies import RetryPolicy, with_retry
from returns_pipeline.testing import run

if TYPE_CHECKING:
    from collections.abc import Collection

BERLIN = ZoneInfo("Europe/Berlin")


def hours(expression: str, now: datetime, timezone: str = "Europe/Berlin") -> float:
    return cron(expression, timezone, now=lambda: now)() / 3600


def test_the_expression_is_of_the_zones_wall_clock() -> None:
    assert hours("0 3 * * *", datetime(2026, 6, 1, 1, 0, tzinfo=BERLIN)) == 2
    assert hours("0 3 * * *", datetime(2026, 6, 1, 1, 0, tzinfo=ZoneInfo("UTC"))) == 24


def test_a_night_in_which_the_clocks_go_forward_is_an_hour_shorter() -> None:
    assert hours("0 6 * * *", datetime(2026, 3, 29, 0, 0, tzinfo=BERLIN)) == 5


def test_a_time_in_the_gap_comes_right_after_it() -> None:
    """At 2:00 the clocks show 3:00: what was due at 2:30 comes then."""
    assert hours("30 2 * * *", datetime(2026, 3, 29, 1, 0, tzinfo=BERLIN)) == 1


def test_a_night_in_which_the_clocks_go_back_is_an_hour_longer() -> None:
    assert hours("0 6 * * *", datetime(2026, 10, 25, 0, 0, tzinfo=BERLIN)) == 7


def test_a_time_that_comes_twice_is_taken_once() -> None:
    first = datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN)
    assert hours("30 2 * * *", first) == 25


@pytest.mark.parametrize(
    ("zone", "expression", "now", "then"),
    [
        # Clocks go forward in Berlin at 01:00 UTC on 29 March: from 02:00 to 03:00.
        ("Europe/Berlin", "0 2 * * *", "2026-03-29T00:59:00", "2026-03-29T01:00:00"),
        ("Europe/Berlin", "30 2 * * *", "2026-03-29T00:00:00", "2026-03-29T01:00:00"),
        ("Europe/Berlin", "30 2 * * *", "2026-03-29T01:00:00", "2026-03-30T00:30:00"),
        ("Europe/Berlin", "0 3 * * *", "2026-03-29T00:59:59", "2026-03-29T01:00:00"),
        ("Europe/Berlin", "*/30 * * * *", "2026-03-29T00:30:00", "2026-03-29T01:00:00"),
        ("Europe/Berlin", "0 * * * *", "2026-03-29T00:00:00", "2026-03-29T01:00:00"),
        # They go back at 01:00 UTC on 25 October: from 03:00 to 02:00.
        ("Europe/Berlin", "30 2 * * *", "2026-10-25T00:00:00", "2026-10-25T00:30:00"),
        ("Europe/Berlin", "30 2 * * *", "2026-10-25T00:30:00", "2026-10-26T01:30:00"),
        ("Europe/Berlin", "0 3 * * *", "2026-10-25T00:59:00", "2026-10-25T02:00:00"),
        ("Europe/Berlin", "*/30 * * * *", "2026-10-25T00:30:00", "2026-10-25T01:00:00"),
        ("Europe/Berlin", "*/30 * * * *", "2026-10-25T01:00:00", "2026-10-25T01:30:00"),
        # In New York at 07:00 UTC on 8 March, and back at 06:00 UTC on 1 November.
        ("America/New_York", "0 2 * * *", "2026-03-08T06:59:00", "2026-03-08T07:00:00"),
        ("America/New_York", "30 2 * * *", "2026-03-08T06:00:00", "2026-03-08T07:00:00"),
        ("America/New_York", "0 3 * * *", "2026-03-08T06:30:00", "2026-03-08T07:00:00"),
        ("America/New_York", "30 1 * * *", "2026-11-01T05:00:00", "2026-11-01T05:30:00"),
        ("America/New_York", "30 1 * * *", "2026-11-01T05:30:00", "2026-11-02T06:30:00"),
        ("America/New_York", "15,45 * * * *", "2026-11-01T05:45:00", "2026-11-01T06:15:00"),
        ("America/New_York", "0 2 * * *", "2026-11-01T05:30:00", "2026-11-01T07:00:00"),
        # Elsewhere it is half an hour, or on a quarter of an hour, or never.
        ("Australia/Lord_Howe", "15 2 * * *", "2026-10-03T15:00:00", "2026-10-03T15:30:00"),
        # In Lord Howe forward at 15:30 UTC on 3 October, from 02:00 to 02:30; back at 15:00 UTC on
        # 4 April, from 02:00 to 01:30.
        ("Australia/Lord_Howe", "30 * * * *", "2026-10-03T15:04:00", "2026-10-03T15:30:00"),
        ("Australia/Lord_Howe", "* 3 * * *", "2026-10-03T12:30:00", "2026-10-03T16:00:00"),
        ("Australia/Lord_Howe", "30 * * * *", "2026-04-04T14:34:00", "2026-04-04T15:00:00"),
        ("Australia/Lord_Howe", "* 3 * * *", "2026-04-04T12:00:00", "2026-04-04T16:30:00"),
        ("Australia/Lord_Howe", "0 * * * *", "2026-10-03T14:59:59.5", "2026-10-03T16:00:00"),
        ("Asia/Kathmandu", "0 0 * * *", "2026-10-25T00:00:00", "2026-10-25T18:15:00"),
        ("UTC", "30 2 * * *", "2026-03-29T02:30:00", "2026-03-30T02:30:00"),
    ],
)
def test_at_every_change_of_the_clocks_it_hits_the_instant(
    zone: str, expression: str, now: str, then: str
) -> None:
    """All instants are UTC, counted by hand."""
    at = datetime.fromisoformat(f"{now}+00:00")
    wait = cron(expression, zone, now=lambda: at)()
    assert (at + timedelta(seconds=wait)).isoformat() == f"{then}+00:00"


@pytest.mark.parametrize(
    ("zone", "expression", "now", "then"),
    [
        ("America/New_York", "30 1 * * *", "2026-11-01T06:10:00", "2026-11-02T06:30:00"),
        ("Europe/Berlin", "30 2 * * *", "2026-10-25T01:10:00", "2026-10-26T01:30:00"),
        ("Europe/London", "0,30 1 * * *", "2026-10-25T01:10:00", "2026-10-26T01:00:00"),
        ("Australia/Lord_Howe", "45 1 * * *", "2026-04-04T15:10:00", "2026-04-05T15:15:00"),
    ],
)
def test_in_the_second_pass_of_an_hour_what_was_in_the_first_has_ended(
    zone: str, expression: str, now: str, then: str
) -> None:
    """The wait is never negative, and a retry with it is made."""
    at = datetime.fromisoformat(f"{now}+00:00")
    wait = cron(expression, zone, now=lambda: at)
    assert (at + timedelta(seconds=wait())).isoformat() == f"{then}+00:00"
    assert RetryPolicy(2, wait=wait).delay(1, None) == wait()


@given(
    zone=st.sampled_from(
        ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Beirut"]
    ),
    minutes=st.integers(-200, 200),
    step=st.sampled_from([5, 15, 30]),
    change=st.sampled_from(
        [
            "2026-03-28T22:00",
            "2026-03-08T07:00",
            "2026-10-03T15:30",
            "2026-04-04T15:00",
            "2026-10-25T01:00",
            "2026-10-24T21:00",
            "2026-11-01T06:00",
        ]
    ),
)
def test_around_a_change_of_the_clocks_steps_of_minutes_miss_none(
    zone: str, minutes: int, step: int, change: str
) -> None:
    at = datetime.fromisoformat(f"{change}+00:00") + timedelta(minutes=minutes)
    expected = at + timedelta(minutes=1)
    while expected.astimezone(ZoneInfo(zone)).minute % step:
        expected += timedelta(minutes=1)
    wait = cron(f"*/{step} * * * *", zone, now=lambda: at)
    assert at + timedelta(seconds=wait()) == expected


@given(
    zone=st.sampled_from(["Europe/Berlin", "Australia/Lord_Howe", "Africa/Casablanca", "UTC"]),
    minutes=st.integers(-200, 200),
    change=st.sampled_from(
        ["2026-10-03T15:30", "2026-04-04T15:00", "2026-10-25T01:00", "2026-02-15T02:00"]
    ),
    fields=st.sampled_from(
        [
            ("30 *", {30}, range(24)),
            ("* 3", range(60), {3}),
            ("15 */2", {15}, range(0, 24, 2)),
            ("*/20 1-2", {0, 20, 40}, {1, 2}),
        ]
    ),
)
def test_around_a_change_of_the_clocks_the_next_match_of_the_wall_clock_is_found(
    zone: str,
    minutes: int,
    change: str,
    fields: tuple[str, Collection[int], Collection[int]],
) -> None:
    expression, of_hour, of_day = fields
    at = datetime.fromisoformat(f"{change}+00:00") + timedelta(minutes=minutes)
    expected = at + timedelta(minutes=1)
    local = expected.astimezone(ZoneInfo(zone))
    while local.minute not in of_hour or local.hour not in of_day:
        expected += timedelta(minutes=1)
        local = expected.astimezone(ZoneInfo(zone))
    wait = cron(f"{expression} * * *", zone, now=lambda: at)
    assert at + timedelta(seconds=wait()) == expected


@given(
    zone=st.sampled_from(["Europe/Berlin", "America/New_York", "Asia/Tokyo"]),
    minute=st.integers(0, 59),
    hour=st.integers(0, 23),
    start=st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31)),
)
def test_a_daily_time_comes_once_on_each_day_of_the_year(
    zone: str, minute: int, hour: int, start: datetime
) -> None:
    """At its time of day, or, where that is skipped, right after the gap; within 25 hours."""
    at = start.replace(tzinfo=UTC)
    wait = cron(f"{minute} {hour} * * *", zone, now=lambda: at)
    days: list[object] = []
    for _ in range(4):
        seconds = wait()
        assert 0 < seconds <= 25 * 3600
        at += timedelta(seconds=seconds)
        local = at.astimezone(ZoneInfo(zone))
        days.append(local.date())
        if (local.hour, local.minute) != (hour, minute):
            due = local.replace(hour=hour, minute=minute)
            there_and_back = due.astimezone(UTC).astimezone(ZoneInfo(zone))
            assert there_and_back.replace(tzinfo=None) != due.replace(tzinfo=None)  # in a gap
            assert (local.hour, local.minute) == (3, 0)
    assert days == [days[0] + timedelta(days=n) for n in range(4)]  # type: ignore[operator]


def test_time_zones_are_known_where_the_system_has_none() -> None:
    code = """
from returns_pipeline.cron import cron
import zoneinfo
assert not zoneinfo.TZPATH
assert cron("0 3 * * *", "Europe/Berlin")() > 0
"""
    environment = {**os.environ, "PYTHONTZPATH": ""}
    subprocess.run([sys.executable, "-W", "error", "-c", code], env=environment, check=True)


def test_cron_is_the_wait_of_a_policy() -> None:
    tries: list[int] = []

    async def flaky() -> Result[int, str]:
        tries.append(1)
        return Success(1) if len(tries) == 2 else Failure("no")

    async def main() -> float:
        import asyncio

        wait = cron("0 3 * * *", now=lambda: datetime(2026, 6, 1, 1, 0, tzinfo=ZoneInfo("UTC")))
        assert await to_result(with_retry(flaky, RetryPolicy(wait=wait))()) == Success(1)
        return asyncio.get_running_loop().time()

    assert run(main()) == 7200.0


def test_cron_is_a_value() -> None:
    wait = cron("0 3 * * *", "Europe/Berlin")
    assert pickle.loads(pickle.dumps(wait)) == wait
    assert 0 < wait() <= 86_400 + 3600


def test_a_time_zone_may_be_given_as_itself() -> None:
    assert cron("0 3 * * *", BERLIN) == cron("0 3 * * *", "Europe/Berlin")
    with (files("tzdata") / "zoneinfo" / "Europe" / "Berlin").open("rb") as file:
        nameless = ZoneInfo.from_file(file)
    with pytest.raises(InvalidArgument, match="time zone"):
        cron("0 3 * * *", nameless)


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

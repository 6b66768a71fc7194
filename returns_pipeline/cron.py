"""Waits by cron expression, for a `RetryPolicy`. Needs the extra ``cron``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Final
from zoneinfo import ZoneInfo

from returns_pipeline._engine.pydantic_fields import PydanticField
from returns_pipeline.errors import InvalidArgument, MissingExtra

try:
    from cronsim import CronSim, CronSimError
except ImportError as _error:
    raise MissingExtra("cron", "cronsim") from _error

__all__ = ["CronWait", "cron"]

# No zone changes its clocks twice within this.
_HOP: Final = timedelta(hours=6)


@dataclass(frozen=True, slots=True)
class CronWait(PydanticField):
    """A wait until the next time that a cron expression names. `cron` makes it.

    Attributes:
        expression: The expression.
        timezone: The name of the time zone.
        now: Returns the current time; ``None`` for the system's clock.

    >>> CronWait("0 3 * * *", "UTC").timezone
    'UTC'
    """

    expression: str
    timezone: str
    now: Callable[[], datetime] | None = None

    def __call__(self, _retry_state: object = None) -> float:
        """Return the seconds from now to the next time that matches; above 0."""
        zone = ZoneInfo(self.timezone)
        now = datetime.now(zone) if self.now is None else self.now().astimezone(zone)
        # In UTC, because the difference of two times in one zone ignores a change of its clocks.
        now_in_utc = now.astimezone(UTC)
        times = _fixed_times if _is_fixed(self.expression) else _wall_clock_times
        for match in times(self.expression, now, zone):
            seconds = (match.astimezone(UTC) - now_in_utc).total_seconds()
            # When clocks go back, an hour of the wall clock comes twice. In its second pass, the
            # next time on the wall clock may belong to the first pass, which has ended.
            if seconds > 0:
                return seconds
        raise InvalidArgument(f"{self.expression!r} names no future time")


def _is_fixed(expression: str) -> bool:
    """Return whether Debian's cron takes it for a job at fixed times, not at intervals."""
    minute, hour, *others = expression.split()
    return len(others) == 3 and not minute.startswith("*") and not hour.startswith("*")


def _fixed_times(expression: str, now: datetime, _zone: ZoneInfo) -> Iterator[datetime]:
    """Yield the times after ``now``, each once a day, also on days when the clocks change."""
    return CronSim(expression, now)


def _wall_clock_times(expression: str, now: datetime, zone: ZoneInfo) -> Iterator[datetime]:
    """Yield the instants after ``now`` at which the wall clock matches.

    cronsim advances by whole hours across a change of the clocks, which is wrong where they change
    by less. So it is asked about one stretch without a change after the other; there a zone is an
    offset from UTC.
    """
    begin = checked = now.astimezone(UTC).replace(microsecond=0)
    while True:
        offset = _offset(checked, zone)
        for match in CronSim(expression, begin.astimezone(timezone(offset))):
            instant = match.astimezone(UTC)
            change = _next_change(checked, instant, zone)
            if change is not None:
                begin, checked = change - timedelta(seconds=1), change  # it may match itself
                break
            yield match
            checked = instant
        else:
            return


def _next_change(start: datetime, end: datetime, zone: ZoneInfo) -> datetime | None:
    """Return the first instant after ``start``, at most ``end``, with another offset from UTC."""
    offset = _offset(start, zone)
    while start < end:
        probe = min(start + _HOP, end)
        if _offset(probe, zone) == offset:
            start = probe
            continue
        while probe - start > timedelta(seconds=1):
            middle = start + (probe - start) // 2
            middle = middle.replace(microsecond=0)
            if _offset(middle, zone) == offset:
                start = middle
            else:
                probe = middle
        return probe
    return None


def _offset(instant: datetime, zone: ZoneInfo) -> timedelta:
    offset = instant.astimezone(zone).utcoffset()
    assert offset is not None
    return offset


def cron(
    expression: str, timezone: str | ZoneInfo = "UTC", *, now: Callable[[], datetime] | None = None
) -> CronWait:
    """Wait until the next time that a cron expression names, for ``RetryPolicy(wait=...)``.

    Daylight saving is handled as Debian's cron does. A fixed time of day that is skipped when
    clocks go forward comes right after the gap, and one that comes twice when clocks go back is
    taken once. If the minute or the hour begins with ``*``, every instant counts at which the wall
    clock matches.

    The expression refers to the wall clock, which virtual time does not drive: in a test, pass
    ``now``.

    Args:
        expression: Five fields, as in "0 3 * * MON-FRI".
        timezone: A time zone or its name. A zone without a name, made from a file, is refused.
        now: Returns the current time, with a time zone; by default the system's clock.

    Raises:
        InvalidArgument: At the call, if the expression or the time zone is not valid.

    >>> from datetime import datetime, timezone
    >>> wait = cron("0 3 * * *", now=lambda: datetime(2026, 1, 1, 1, 30, tzinfo=timezone.utc))
    >>> wait()
    5400.0
    """
    name: str | None = timezone if isinstance(timezone, str) else timezone.key
    try:
        zone = ZoneInfo(name or "")
    except (KeyError, ValueError, OSError) as error:  # depends on what is wrong with the name
        raise InvalidArgument(f"there is no time zone {timezone!r}") from error
    try:
        _ = CronSim(expression, datetime(2000, 1, 1, tzinfo=zone))
    except CronSimError as error:
        raise InvalidArgument(f"{expression!r} is not a cron expression: {error}") from error
    return CronWait(expression, zone.key, now)

"""Waits by cron expression, for a `RetryPolicy`. Needs the extra ``cron``."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from returns_pipeline.errors import InvalidArgument, MissingExtra

try:
    from cronsim import CronSim, CronSimError
except ImportError as _error:
    raise MissingExtra("cron", "cronsim") from _error

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CronWait", "cron"]


@dataclass(frozen=True, slots=True)
class CronWait:
    """Wait until the next time that a cron expression names: what `cron` gives."""

    expression: str
    timezone: str
    now: Callable[[], datetime] | None = None

    def __call__(self, _retry_state: object = None) -> float:
        """Give the seconds from now to the next time that matches."""
        zone = ZoneInfo(self.timezone)
        now = datetime.now(zone) if self.now is None else self.now().astimezone(zone)
        following = next(CronSim(self.expression, now))
        # In UTC: the difference of two times in one zone forgets a change of its clocks between.
        return (following.astimezone(UTC) - now.astimezone(UTC)).total_seconds()


def cron(
    expression: str, timezone: str | ZoneInfo = "UTC", *, now: Callable[[], datetime] | None = None
) -> CronWait:
    """Wait until the next time that a cron expression names, for ``RetryPolicy(wait=...)``.

    Daylight saving is handled as Debian's cron does: a time that is skipped when clocks go forward
    comes right behind the gap, and one that comes twice when they go back comes once.

    The expression is of the wall clock, which virtual time does not drive: a test gives ``now``.

    Args:
        expression: Five fields, as "0 3 * * MON-FRI".
        timezone: A time zone, or its name; one without a name, made from a file, is not enough.
        now: Gives the time, with a time zone; by default the system's clock.

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
    except (KeyError, ValueError, OSError) as error:  # what it raises depends on what is wrong
        raise InvalidArgument(f"there is no time zone {timezone!r}") from error
    try:
        _ = CronSim(expression, datetime(2000, 1, 1, tzinfo=zone))
    except CronSimError as error:
        raise InvalidArgument(f"{expression!r} is not a cron expression: {error}") from error
    return CronWait(expression, zone.key, now)

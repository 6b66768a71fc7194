"""Departures by hour of the day, as bars in a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

ByHour = Counter[tuple[str, int]]

_COLUMN = 22  # the narrowest in which a bar is useful
_MOST = 12  # airports that are shown


def show_departures(console: Console, by_hour: ByHour) -> None:
    """Print a chart; without a terminal, a line of text for each airport and hour."""
    if not by_hour:
        return
    if not console.is_terminal:
        for (airport, hour), count in sorted(by_hour.items()):
            text = f"{_legible(airport)} {hour:02} {count}"
            console.print(text, markup=False, highlight=False, soft_wrap=True)
        return
    for line in chart(by_hour, console.width, ascii_only=console.options.ascii_only):
        console.print(Text(line), no_wrap=True, overflow="crop", crop=True)


def chart(by_hour: ByHour, width: int, *, ascii_only: bool) -> Iterator[str]:
    """Draw airports side by side, as many as fit, then the next ones below them.

    All bars are to one scale. The airports with the most departures come first.
    """
    totals: Counter[str] = Counter()
    for (airport, _), count in by_hour.items():
        totals[airport] += count
    labels = {name: f"{_legible(name)} {total:,}" for name, total in totals.items()}
    airports = sorted(totals, key=lambda airport: (-totals[airport], airport))
    shown = airports[:_MOST]
    hours = range(min(hour for _, hour in by_hour), max(hour for _, hour in by_hour) + 1)
    digits = len(f"{max(by_hour.values()):,}")
    side = max(1, min((width - 2) // _COLUMN, len(shown)))
    # Two blanks separate airports. A narrower terminal crops the lines.
    room = max((width - 2) // side - 2, digits + 2)
    scale = (room - digits - 1) / max(by_hour.values())
    yield "Departures by scheduled hour of the day"
    for first in range(0, len(shown), side):
        row = shown[first : first + side]
        yield ""
        yield f"  {''.join(f'  {labels[name]:{room}.{room}}' for name in row)}".rstrip()
        for hour in hours:
            cells = [_bar(by_hour[name, hour], scale, room, ascii_only=ascii_only) for name in row]
            yield f"{hour:02}{''.join(f'  {cell}' for cell in cells)}".rstrip()
    if len(airports) > _MOST:
        rest = sum(totals[name] for name in airports[_MOST:])
        yield f"and {rest:,} from {len(airports) - _MOST} more airports"


def _legible(name: str) -> str:
    """Return a name that any terminal can show, whatever characters the input has in it."""
    return name if name.isascii() and name.isalnum() else ascii(name)


def _bar(count: int, scale: float, room: int, *, ascii_only: bool) -> str:
    """Draw one, in eighths of a character, with its count at its end."""
    full, eighths = divmod(round(count * scale * 8), 8)
    if count and not full:
        eighths = max(eighths, 1)  # even a few must be visible
    if ascii_only:
        bar = "#" * (full + (eighths >= 4 or (eighths > 0 and not full)))
    else:
        bar = "\u2588" * full + " \u258f\u258e\u258d\u258c\u258b\u258a\u2589"[eighths].strip()
    text = f"{bar} {count:,}" if count else ""
    return f"{text:{room}}"

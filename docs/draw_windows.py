"""Draw runs of windows on virtual time.

``python docs/draw_windows.py`` runs the examples in docs/try_it and writes the pictures of
docs/windows; a test draws them again and compares. On the page "Try it" the reader's browser runs
them by the same code.
"""

from __future__ import annotations

import asyncio
import contextlib
import runpy
import sys
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

from aiostream import streamcontext
from returns.result import Failure, Success

from returns_pipeline.testing import run
from returns_pipeline.windows import EventWindow, sliding

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Callable

HERE = Path(__file__).parent / "windows"
EXAMPLES = Path(__file__).parent / "try_it"
LEFT, RIGHT, SECOND, ROW = 80, 40, 46, 34
WIDEST, MOST = 900, 200  # pixels of a line of time; items in a picture
COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"]  # Okabe and Ito
STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#1f2328}"
    ".small{font-size:11px;fill:#59636e}"
    ".item{font-size:11px;font-weight:600;fill:#fff;text-anchor:middle;dominant-baseline:central}"
    ".axis{stroke:#59636e}.tick{stroke:#d1d9e0}"
)


@dataclass
class Run:
    """The items that arrived and the windows that were emitted, each with its time."""

    came: list[tuple[float, Any]] = field(default_factory=list)
    given: list[tuple[float, Any]] = field(default_factory=list)
    ended: float = 0.0

    def record(
        self, source: AsyncIterable[Any], operator: Callable[[AsyncIterable[Any]], Any]
    ) -> None:
        """Run an operator over a source on virtual time, and print what it emits."""

        async def main() -> None:
            loop = asyncio.get_running_loop()

            async def watched() -> AsyncIterator[Any]:
                try:
                    async with streamcontext(source) as items:
                        async for item in items:
                            self.came.append((loop.time(), item))
                            yield item
                finally:
                    self.ended = loop.time()

            async with streamcontext(operator(watched())) as windows:
                async for window in windows:
                    self.given.append((loop.time(), window))
                    print(f"{loop.time():g} s: {window}")

        run(main())


def show(source: AsyncIterable[Any], operator: Any, /, *args: Any, **kwargs: Any) -> None:
    """Run ``operator(source, *args, **kwargs)``, print what it emits, and draw it.

    What was emitted before an error is drawn, too.
    """
    seen = Run()
    try:
        seen.record(source, lambda items: operator(items, *args, **kwargs))
    finally:
        if len(seen.came) > MOST:
            print(f"(not drawn: more than {MOST} items)")
        elif seen.came:
            drawn.append(draw(seen, operator, args, kwargs))


drawn: list[str] = []  # what `show` has drawn


def draw(seen: Run, operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """Draw a run as its operator's arguments say."""
    shown = [*map(name_of, args), *(f"{name}={name_of(kwargs[name])}" for name in kwargs)]
    title = f"{name_of(operator)}({', '.join(['source', *shown])})"
    if any(isinstance(window, EventWindow) for _, window in seen.given):
        slack = kwargs.get("max_out_of_orderness", 0.0)
        slack = slack.total_seconds() if isinstance(slack, timedelta) else slack
        return draw_event_time(title, seen, kwargs["timestamp"], slack=slack)
    keys = [kwargs["key"](item) for _, item in seen.came] if kwargs.get("key") else []
    labels = [text_of(kwargs.get("weight", lambda it: it)(item)) for _, item in seen.came]
    members = in_windows(seen, keys, kwargs.get("step", 1) if operator is sliding else None)
    return draw_times(title, seen, members, labels, colours_of(keys or [None] * len(seen.came)))


def name_of(thing: Any) -> str:
    """Return an argument, or an operator, as it is written."""
    name = str(getattr(thing, "__name__", "") or "")
    if not name:
        return type(thing).__name__ if callable(thing) else repr(thing)
    return "..." if name == "<lambda>" else name


def text_of(item: Any) -> str:
    """Return the text for an item."""
    return f"{item:g}" if isinstance(item, float) else str(item)


def colours_of(keys: list[Any]) -> list[str]:
    """Return a colour for each of these keys; equal ones have the same."""
    order = list(dict.fromkeys(keys))
    return [COLOURS[order.index(key) % len(COLOURS)] for key in keys]


def in_windows(seen: Run, keys: list[Any], step: int | None) -> list[list[int]]:
    """Return which of the items that arrived are in each window.

    Each item is emitted once and in order, those of a key by themselves; of sliding windows, each
    begins ``step`` items after the one before. Where this is not so, as after a filter, equal
    items are taken for the same.
    """
    waiting: dict[Any, list[int]] = {}
    for index in range(len(seen.came)):
        waiting.setdefault(keys[index] if keys else None, []).append(index)
    found = []
    for _, window in seen.given:
        key, items = items_of(window, keyed=bool(keys))
        left = waiting.get(key, [])
        found.append(left[: len(items)])
        del left[: len(items) if step is None else step]
    if (step is None and any(waiting.values())) or any(
        len(items_of(window, keyed=bool(keys))[1]) != len(where)
        for (_, window), where in zip(seen.given, found, strict=True)
    ):
        return [
            [
                index
                for index, (_, item) in enumerate(seen.came)
                if item in items_of(window, keyed=bool(keys))[1]
            ]
            for _, window in seen.given
        ]
    return found


def items_of(window: Any, *, keyed: bool = False) -> tuple[Any, list[Any]]:
    """Return the key of what was emitted, or None, and its items."""
    match window:
        case Success(value):
            return items_of(value, keyed=keyed)
        case Failure(error):
            return None, [error]
        case (key, list(items)) if keyed:
            return key, items
        case list():
            return None, window
        case _:
            return None, [window]


def ticks(until: float, most: int) -> list[float]:
    """Return round numbers from 0 to this one, about as many as there is room for."""
    size = 1.0
    for factor in [2, 2.5, 2] * 9:
        if until / size <= most:
            break
        size *= factor
    return [number * size for number in range(int(until / size) + 1)]


def svg(title: str, width: float, height: float, parts: list[str]) -> str:
    """Return the picture with these parts, as SVG."""
    return "\n".join(
        [
            (
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
                f'width="{width:g}" height="{height:g}" role="img">'
            ),
            f"<title>{escape(title)}</title>",
            f"<style>{STYLE}</style>",
            f'<rect width="{width:g}" height="{height:g}" rx="6" fill="#fff"/>',
            *parts,
            "</svg>\n",
        ]
    )


def dot(at: str, y: float, text: object, colour: str) -> list[str]:
    """Draw an item."""
    return [
        f'<circle cx="{at}" cy="{y:g}" r="10" fill="{colour}"/>',
        f'<text x="{at}" y="{y:g}" class="item">{escape(str(text))}</text>',
    ]


def spread(came: list[tuple[float, Any]], second: float) -> list[float]:
    """Return a time at which to draw each item; those of one instant are side by side."""
    places: list[float] = []
    for at, _ in came:
        places.append(max(at, places[-1] + 22 / second) if places else at)
    return places


def draw_times(
    title: str, seen: Run, members: list[list[int]], labels: list[str], colours: list[str]
) -> str:
    """Draw arrivals on a line, and below it each window from its first item to its emission."""
    until = max([seen.ended, *(at for at, _ in seen.given)])
    second = min(SECOND, WIDEST / max(until, 1))
    places = spread(seen.came, second)

    def x(at: float) -> str:
        return f"{LEFT + at * second:g}"

    width = LEFT + max(until, places[-1]) * second + SECOND + RIGHT + 60
    top = 46
    height = top + 30 + ROW * len(seen.given) + 12
    parts = [f'<text x="12" y="{top + 4}">source</text>']
    bottom = height - 8
    for tick in ticks(until, 20):
        parts.append(
            f'<line x1="{x(tick)}" x2="{x(tick)}" y1="26" y2="{bottom}" class="tick"/>'
            f'<text x="{x(tick)}" y="18" class="small" text-anchor="middle">{tick:g} s</text>'
        )
    parts.append(
        f'<line x1="{x(0)}" x2="{x(seen.ended)}" y1="{top}" y2="{top}" class="axis"/>'
        f'<line x1="{x(seen.ended)}" x2="{x(seen.ended)}" y1="{top - 9}" y2="{top + 9}" '
        'class="axis" stroke-width="3"/>'
    )
    for place, label, colour in zip(places, labels, colours, strict=True):
        parts += dot(x(place), top, label, colour)
    for row, ((at, _), where) in enumerate(zip(seen.given, members, strict=True)):
        y = top + 38 + row * ROW
        tone = colours[where[0]] if where else COLOURS[0]
        start = float(x(places[where[0]] if where else at)) - 14
        end = max(float(x(at)), float(x(places[where[-1]])) + 14) if where else float(x(at))
        parts.append(
            f'<rect x="{start:g}" y="{y - 13}" width="{end - start:g}" height="26" rx="13" '
            f'fill="{tone}" fill-opacity=".15"/>'
            f'<line x1="{end:g}" x2="{end:g}" y1="{y - 15}" y2="{y + 15}" stroke="{tone}" '
            'stroke-width="3"/>'
            f'<text x="{end + 7:g}" y="{y + 4}" class="small">at {at:g} s</text>'
        )
        for index in where:
            parts += dot(x(places[index]), y, labels[index], colours[index])
    parts.append(f'<text x="12" y="{top + 42}">lists</text>')
    return svg(title, width, height, parts)


def draw_event_time(
    title: str, seen: Run, timestamp: Callable[[Any], float], *, slack: float
) -> str:
    """Draw arrivals to the right, event time upwards, and each pane where it fired."""
    highest = max(window.end for _, window in seen.given)
    lowest = min(window.start for _, window in seen.given)
    if highest <= 200:
        lowest = min(lowest, 0.0)
    scale = min(9.0, 400 / (highest - lowest))
    until = max(at for at, _ in seen.came) + 1
    second = min(SECOND, WIDEST / until)
    width = LEFT + until * second + 260
    bottom = 30 + (highest - lowest) * scale
    height = bottom + 46

    def x(at: float) -> str:
        return f"{LEFT + at * second:g}"

    def y(stamp: float) -> str:
        return f"{bottom - (stamp - lowest) * scale:g}"

    parts = ['<text x="12" y="20">event time</text>']
    parts.append(f'<text x="{x(until)}" y="{bottom + 36:g}" text-anchor="end">arrival</text>')
    for tick in ticks(highest - lowest, 10):
        stamp = lowest + tick
        parts.append(
            f'<line x1="{LEFT - 20}" x2="{width - 245:g}" y1="{y(stamp)}" y2="{y(stamp)}" '
            'class="tick"/>'
            f'<text x="{LEFT - 26}" y="{y(stamp)}" class="small" text-anchor="end" '
            f'dominant-baseline="central">{stamp:g}</text>'
        )
    watermark = lowest
    line = f"M{LEFT - 20} {y(lowest)}"
    for at, item in seen.came:
        parts.append(
            f'<text x="{x(at)}" y="{bottom + 18:g}" class="small" text-anchor="middle">'
            f"{at:g} s</text>"
        )
        line += f"H{x(at)}"
        watermark = max(watermark, timestamp(item) - slack)
        line += f"V{y(watermark)}"
    line += f"H{x(until)}"
    tones = colours_of([window.start for _, window in seen.given])
    for (at, window), tone in zip(seen.given, tones, strict=True):
        firsts = [when for when, item in seen.came if item in window.items]
        left = float(x(min(firsts))) - 14
        fired = until - 0.4 if at == seen.ended and not window.is_late else at
        right = float(x(fired))
        right = max(right, left + 28)
        parts.append(
            f'<rect x="{left:g}" y="{y(window.end)}" width="{right - left:g}" '
            f'height="{(window.end - window.start) * scale:g}" fill="{tone}" fill-opacity=".13"/>'
            f'<line x1="{right:g}" x2="{right:g}" y1="{y(window.end)}" y2="{y(window.start)}" '
            f'stroke="{tone}" stroke-width="3"/>'
        )
    parts.append(f'<path d="{line}" fill="none" stroke="#59636e" stroke-dasharray="5 4"/>')
    parts.append(
        f'<text x="{float(x(until)) + 6:g}" y="{y(watermark)}" class="small" '
        'dominant-baseline="central">watermark</text>'
    )
    for at, item in seen.came:
        parts += dot(x(at), float(y(timestamp(item))), text_of(item), "#1f2328")
    for number, (at, window) in enumerate(seen.given):
        parts.append(describe(number, at, window, width))
    return svg(title, width, max(height, 40 + 17 * len(seen.given)), parts)


def describe(number: int, at: float, window: EventWindow[Any, Any], width: float) -> str:
    """Return the text for a pane."""
    items = " ".join(map(text_of, window.items))
    late = ", late" if window.is_late else ""
    return (
        f'<text x="{width - 170:g}" y="{30 + 17 * number}" class="small">'
        f"{at:g} s: {items} (pane {window.pane}{late})</text>"
    )


def pictures() -> dict[str, str]:
    """Run all examples, and return the picture of each by its name."""
    found = {}
    for path in sorted(EXAMPLES.glob("*.py")):
        drawn.clear()
        with contextlib.redirect_stdout(None):
            runpy.run_path(str(path))
        (found[path.stem],) = drawn
    return found


def main() -> None:
    """Write all."""
    for name, picture in pictures().items():
        (HERE / f"{name}.svg").write_text(picture)


if __name__ == "__main__":
    sys.modules["draw_windows"] = sys.modules["__main__"]
    main()

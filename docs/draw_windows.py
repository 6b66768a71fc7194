"""Draw the pictures of docs/windows.md, each from a run of its operator on virtual time.

``python docs/draw_windows.py`` writes them; a test draws them again and compares.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

from returns_pipeline.testing import Wait, run, script, timed, timeline
from returns_pipeline.windows import (
    SessionWindows,
    SlidingWindows,
    TumblingWindows,
    chunks_by_weight,
    chunks_or_timeout,
    chunks_until,
    event_windows,
    keyed_chunks,
    sessions,
    sliding,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Callable

    from returns_pipeline.windows import EventWindow

HERE = Path(__file__).parent / "windows"
LEFT, RIGHT, SECOND, ROW = 80, 40, 46, 34
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


def record(source: AsyncIterable[Any], operator: Callable[[AsyncIterable[Any]], Any]) -> Run:
    """Run an operator over a source on virtual time."""
    seen = Run()

    async def main() -> None:
        loop = asyncio.get_running_loop()

        async def watched() -> AsyncIterator[Any]:
            async for item in source:
                seen.came.append((loop.time(), item))
                yield item
            seen.ended = loop.time()

        seen.given = await timeline(operator(watched()))

    run(main())
    return seen


def x(at: float) -> str:
    """Return the position of a time."""
    return f"{LEFT + at * SECOND:g}"


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


def spread(came: list[tuple[float, Any]]) -> dict[int, float]:
    """Return a position for each item; items of one instant are side by side."""
    places: dict[int, float] = {}
    last = -1.0
    for index, (at, _) in enumerate(came):
        last = places[index] = max(at, last + 22 / SECOND) if index else at
    return places


def draw_times(
    title: str,
    seen: Run,
    items_of: Callable[[Any], list[Any]],
    *,
    label: Callable[[Any], str] = str,
    colour: Callable[[Any], int] = lambda _: 0,
) -> str:
    """Draw arrivals on a line, and below it each window from its first item to its emission."""
    places = spread(seen.came)
    until = max(seen.ended, seen.given[-1][0])
    width = LEFT + (until + 1) * SECOND + RIGHT + 60
    top = 46
    height = top + 30 + ROW * len(seen.given) + 12
    parts = [f'<text x="12" y="{top + 4}">source</text>']
    bottom = height - 8
    for second in range(int(until) + 1):
        parts.append(
            f'<line x1="{x(second)}" x2="{x(second)}" y1="26" y2="{bottom}" class="tick"/>'
            f'<text x="{x(second)}" y="18" class="small" text-anchor="middle">{second} s</text>'
        )
    parts.append(
        f'<line x1="{x(0)}" x2="{x(seen.ended)}" y1="{top}" y2="{top}" class="axis"/>'
        f'<line x1="{x(seen.ended)}" x2="{x(seen.ended)}" y1="{top - 9}" y2="{top + 9}" '
        'class="axis" stroke-width="3"/>'
    )
    for index, (_, item) in enumerate(seen.came):
        parts += dot(x(places[index]), top, label(item), COLOURS[colour(item)])
    for row, (at, window) in enumerate(seen.given):
        y = top + 38 + row * ROW
        items = items_of(window)
        where = [index for index, (_, item) in enumerate(seen.came) if item in items]
        tone = COLOURS[colour(items[0])]
        start = float(x(places[where[0]])) - 14
        end = max(float(x(at)), float(x(places[where[-1]])) + 14)
        parts.append(
            f'<rect x="{start:g}" y="{y - 13}" width="{end - start:g}" height="26" rx="13" '
            f'fill="{tone}" fill-opacity=".15"/>'
            f'<line x1="{end:g}" x2="{end:g}" y1="{y - 15}" y2="{y + 15}" stroke="{tone}" '
            'stroke-width="3"/>'
            f'<text x="{end + 7:g}" y="{y + 4}" class="small">at {at:g} s</text>'
        )
        for index in where:
            item = seen.came[index][1]
            parts += dot(x(places[index]), y, label(item), COLOURS[colour(item)])
    parts.append(f'<text x="12" y="{top + 42}">lists</text>')
    return svg(title, width, height, parts)


def draw_event_time(title: str, seen: Run, *, size: float, slack: float, scale: float = 9) -> str:
    """Draw arrivals to the right, event time upwards, and each pane where it fired."""
    highest = max(window.end for _, window in seen.given)
    until = max(at for at, _ in seen.came) + 1
    width = LEFT + until * SECOND + 260
    bottom = 30 + highest * scale
    height = bottom + 46

    def y(stamp: float) -> str:
        return f"{bottom - stamp * scale:g}"

    parts = ['<text x="12" y="20">event time</text>']
    parts.append(f'<text x="{x(until)}" y="{bottom + 36:g}" text-anchor="end">arrival</text>')
    for stamp in range(0, int(highest) + 1, 5):
        parts.append(
            f'<line x1="{LEFT - 20}" x2="{width - 245:g}" y1="{y(stamp)}" y2="{y(stamp)}" '
            'class="tick"/>'
            f'<text x="{LEFT - 26}" y="{y(stamp)}" class="small" text-anchor="end" '
            f'dominant-baseline="central">{stamp}</text>'
        )
    watermark = 0.0
    line = f"M{LEFT - 20} {y(0)}"
    for at, item in seen.came:
        parts.append(
            f'<text x="{x(at)}" y="{bottom + 18:g}" class="small" text-anchor="middle">'
            f"{at:g} s</text>"
        )
        line += f"H{x(at)}"
        watermark = max(watermark, item - slack)
        line += f"V{y(watermark)}"
    line += f"H{x(until)}"
    for number, (at, window) in enumerate(seen.given):
        tone = COLOURS[(int(window.start // size) if size else number) % len(COLOURS)]
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
        parts += dot(x(at), float(y(item)), f"{item:g}", "#1f2328")
    for number, (at, window) in enumerate(seen.given):
        parts.append(describe(number, at, window, width))
    return svg(title, width, max(height, 40 + 17 * len(seen.given)), parts)


def describe(number: int, at: float, window: EventWindow[None, float], width: float) -> str:
    """Return the text for a pane."""
    items = " ".join(f"{item:g}" for item in window.items)
    late = ", late" if window.is_late else ""
    return (
        f'<text x="{width - 170:g}" y="{30 + 17 * number}" class="small">'
        f"{at:g} s: {items} (pane {window.pane}{late})</text>"
    )


def first(item: str) -> str:
    """Return an item's key."""
    return item[0]


def key_colour(item: str) -> int:
    """Return a colour for each key."""
    return "abc".index(item[0])


def event_picture(title: str, assigner: Any, stamps: list[float], size: float, **rules: Any) -> str:
    """Run timestamps, one a second, through windows of event time."""
    steps: list[Any] = [step for stamp in stamps for step in (stamp, Wait(1.0))]
    seen = record(
        timed(*steps), lambda source: event_windows(source, assigner, timestamp=float, **rules)
    )
    return draw_event_time(title, seen, size=size, slack=rules.get("max_out_of_orderness", 0.0))


def pictures() -> dict[str, str]:
    """Draw all, by name."""
    weights = {"a": 2, "b": 5, "c": 6, "d": 12, "e": 3}
    keyed = timed(
        "a1", Wait(0.5), "b1", Wait(0.5), "a2", Wait(1), "b2", Wait(1), "c1", "c2", "c3", Wait(3),
        "b3", Wait(1),
    )  # fmt: skip
    return {
        "chunks_or_timeout": draw_times(
            "chunks_or_timeout(source, 3, 2.0)",
            record(script("abc-d-e---f-|"), lambda s: chunks_or_timeout(s, 3, 2.0)),
            list,
        ),
        "chunks_by_weight": draw_times(
            "chunks_by_weight(source, 10, 3.0, weight=...)",
            record(
                script("ab-c-d--e----|"),
                lambda s: chunks_by_weight(s, 10, 3.0, weight=lambda item: weights[item]),
            ),
            list,
            label=lambda item: str(weights[item]),
        ),
        "chunks_until": draw_times(
            "chunks_until(source, is_z, timeout=3.0)",
            record(
                script("abz-czd-----e--|"),
                lambda s: chunks_until(s, lambda item: item == "z", timeout=3.0),
            ),
            list,
        ),
        "keyed_chunks": draw_times(
            "keyed_chunks(source, 3, 2.5, key=...)",
            record(keyed, lambda s: keyed_chunks(s, 3, 2.5, key=first)),
            lambda window: list(window[1]),
            colour=key_colour,
        ),
        "sliding": draw_times(
            "sliding(source, 3, step=2)",
            record(script("a-b-c-d-e-f-|"), lambda s: sliding(s, 3, step=2)),
            list,
        ),
        "sessions": draw_times(
            "sessions(source, 2.5, max_duration=4.5)",
            record(
                script("ab-c----defghi--|"),
                lambda s: sessions(s, 2.5, max_duration=4.5),
            ),
            list,
        ),
        "tumbling": event_picture(
            "event_windows(source, TumblingWindows(10), allowed_lateness=5)",
            TumblingWindows(10),
            [1, 6, 3, 12, 8, 17, 4, 22],
            10,
            allowed_lateness=5,
        ),
        "sliding_event_time": event_picture(
            "event_windows(source, SlidingWindows(10, 5))",
            SlidingWindows(10, 5),
            [6, 8, 13, 17, 21],
            5,
        ),
        "session_event_time": event_picture(
            "event_windows(source, SessionWindows(4), max_out_of_orderness=3)",
            SessionWindows(4),
            [1, 3, 9, 6, 12, 20, 21],
            4,
            max_out_of_orderness=3,
        ),
    }


def main() -> None:
    """Write all."""
    for name, drawn in pictures().items():
        (HERE / f"{name}.svg").write_text(drawn)


if __name__ == "__main__":
    main()

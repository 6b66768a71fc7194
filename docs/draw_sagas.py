"""Draw the picture of docs/sagas.md, from processes that are killed at each point of a window.

``python docs/draw_sagas.py`` writes it; a test draws it again and compares.
"""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from returns.result import Failure, Result, Success

from returns_pipeline.compensation import CompensationRegistry
from returns_pipeline.context import StepContext
from returns_pipeline.journal import SqliteJournal, recover

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent / "sagas"
BLUE, RED, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#59636e"  # Okabe and Ito
LEFT, COLUMN, WIDTH = 130, 158, 944
STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#1f2328}"
    ".small{font-size:12px;fill:#59636e}"
    ".label{font-size:12px;font-weight:600;fill:#fff;text-anchor:middle}"
    ".number{font-weight:600;text-anchor:middle}"
    ".title{font-weight:600}"
    ".middle{text-anchor:middle}"
    ".tick{stroke:#d1d9e0}"
)


@dataclass(frozen=True)
class Point:
    """A place where a process can die."""

    name: str
    fails: bool = False  # whether the step returns a failure and so is rolled back
    recovers: bool = False  # whether it dies in the recovery of a window that was left open


# The event after which the process dies, in the order of time.
FORWARD = [
    Point("it is read"),
    Point("intent recorded"),
    Point("effect done"),
    Point("commit recorded"),
    Point("acknowledged"),
]
BACKWARD = [
    Point("it has failed", fails=True),
    Point("undone", fails=True),
    Point("undo recorded", fails=True),
    Point("undone", recovers=True),
    Point("undo recorded", recovers=True),
]


@dataclass(frozen=True)
class Seen:
    """What was found after a recovery.

    Attributes:
        undos: How often the undo was called: by the dead process, and by the recovery.
        effect: Whether the effect is there.
        acknowledged: Whether the source got an acknowledgement of the window.
        open: Whether an action on record still has to be undone.
    """

    undos: tuple[int, int]
    effect: bool
    acknowledged: bool
    open: bool


class Window:
    """One window, in a directory: its files are the effect, the calls of the undo, the journal."""

    def __init__(self, place: Path, die_after: str) -> None:
        self.place = place
        self.die_after = die_after
        self.registry = CompensationRegistry()
        self.undo = self.registry.compensation("undo")(self._undo)

    def reached(self, point: str) -> None:
        """Kill this process if it is to die after this event."""
        if point == self.die_after:
            os.kill(os.getpid(), signal.SIGKILL)

    async def _undo(self) -> None:
        with (self.place / "undone").open("a") as lines:
            _ = lines.write("undone\n")
        (self.place / "effect").unlink(missing_ok=True)
        self.reached("undone")

    async def run(self, *, fails: bool) -> None:
        """Do what `bind_step` does for each window, and acknowledge it."""
        async with (
            SqliteJournal(self.place / "journal.db") as journal,
            StepContext("window", journal=journal) as ctx,
        ):
            _ = await ctx.run(self._step(ctx, fails=fails))
            self.reached("undo recorded" if fails else "commit recorded")
            (self.place / "acknowledged").touch()
            self.reached("acknowledged")

    async def _step(self, ctx: StepContext, *, fails: bool) -> Result[None, str]:
        self.reached("it is read")
        await ctx.register(self.undo)
        self.reached("intent recorded")
        (self.place / "effect").touch()
        self.reached("effect done")
        if fails:
            self.reached("it has failed")
            return Failure("no")
        return Success(None)

    async def recover(self) -> bool:
        """Undo what a dead process left open; return whether anything is still open."""
        async with SqliteJournal(self.place / "journal.db") as journal:
            _ = await recover(journal, self.registry)
            self.reached("undo recorded")
            sagas = await journal.sagas()
        return any(action.state != "done" for saga in sagas for action in saga.actions)

    def undos(self) -> int:
        """Return how often the undo has been called."""
        path = self.place / "undone"
        return len(path.read_text().splitlines()) if path.exists() else 0


def killed(work: Callable[[], object]) -> None:
    """Run the work in a process of its own; raise AssertionError unless it is killed."""
    process = os.fork()
    if process == 0:
        try:
            _ = work()
        finally:
            os._exit(1)
    _, status = os.waitpid(process, 0)
    if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
        raise AssertionError("it lived on")


def see(point: Point) -> Seen:
    """Kill a process at a point, and recover in another process."""
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        if point.recovers:
            open_window = Window(place, "effect done")
            killed(lambda: asyncio.run(open_window.run(fails=False)))
            dying = Window(place, point.name)
            killed(lambda: asyncio.run(dying.recover()))
        else:
            dying = Window(place, point.name)
            killed(lambda: asyncio.run(dying.run(fails=point.fails)))
        before = dying.undos()
        left = asyncio.run(Window(place, "").recover())
        return Seen(
            (before, dying.undos() - before),
            (place / "effect").exists(),
            (place / "acknowledged").exists(),
            left,
        )


def facts(seen: Seen) -> list[tuple[str, str]]:
    """Return the lines of text below a point, each with its colour."""
    before, after = seen.undos
    calls = ("calls the undo", RED) if after else ("has nothing to do", GREY)
    if before and after:
        calls = ("calls it again", RED)
    effect = ("there, for good", GREEN) if seen.effect else ("none", BLUE)
    source = ("is acknowledged", GREEN) if seen.acknowledged else ("delivers again", BLUE)
    return [calls, effect, source]


def cross(x: float, y: float) -> str:
    """Return the cross at which the process dies."""
    return (
        f'<path d="M{x - 6:g} {y - 6:g}l12 12m0 -12l-12 12" stroke="{RED}" stroke-width="3" '
        'fill="none"/>'
    )


def box(x: float, y: float, text: str, colour: str) -> str:
    """Return the box of one step in the window's life."""
    return (
        f'<rect x="{x:g}" y="{y - 15:g}" width="{COLUMN - 22}" height="30" rx="6" '
        f'fill="{colour}"/>'
        f'<text x="{x + COLUMN / 2 - 11:g}" y="{y + 4:g}" class="label">{escape(text)}</text>'
    )


def lane(
    top: float, title: str, steps: list[tuple[str, str]], points: list[Point], *runs: int
) -> list[str]:
    """Return a row of steps, with the point after each step and what was found there.

    Each number in `runs` is the count of neighbouring steps that belong to one process.
    """
    y = top + 44
    parts = [
        f'<text x="16" y="{top + 10:g}" class="title">{escape(title)}</text>',
    ]
    begin = 0
    for count in runs:
        parts.append(
            f'<line x1="{LEFT + begin * COLUMN}" x2="{LEFT + (begin + count) * COLUMN - 11}" '
            f'y1="{y:g}" y2="{y:g}" stroke="{GREY}"/>'
        )
        begin += count
    heads = ["killed when", "recovery", "the effect", "the source"]
    for row, head in enumerate(heads):
        parts.append(f'<text x="16" y="{y + 44 + row * 22:g}" class="small">{head}</text>')
    for index, ((text, colour), point) in enumerate(zip(steps, points, strict=True)):
        left = LEFT + index * COLUMN
        at = left + COLUMN - 11
        middle = left + COLUMN / 2 - 11
        parts += [box(left, y, text, colour), cross(at, y)]
        parts.append(
            f'<path d="M{at:g} {y + 10:g}V{y + 22:g}H{middle:g}V{y + 28:g}" fill="none" '
            f'stroke="{RED}" stroke-dasharray="3 3"/>'
        )
        lines = [(point.name, "#1f2328"), *facts(see(point))]
        for row, (line, tone) in enumerate(lines):
            parts.append(
                f'<text x="{middle:g}" y="{y + 44 + row * 22:g}" class="middle" '
                f'style="font-size:12px;fill:{tone}">{escape(line)}</text>'
            )
    return parts


def picture() -> str:
    """Return the picture, as SVG."""
    forward = [
        ("read a window", GREY),
        ("record intent", BLUE),
        ("effect, with key", GREEN),
        ("record commit", BLUE),
        ("acknowledge", GREY),
    ]
    backward = [
        ("step fails", RED),
        ("undo, with key", RED),
        ("record: done", BLUE),
        ("recovery: undo", RED),
        ("record: done", BLUE),
    ]
    title = "What becomes of a window when its process is killed"
    height = 376
    return "\n".join(
        [
            (
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
                f'width="{WIDTH}" height="{height}" role="img">'
            ),
            f"<title>{title}</title>",
            f"<style>{STYLE}</style>",
            f'<rect width="{WIDTH}" height="{height}" rx="6" fill="#fff"/>',
            *lane(16, "A window that succeeds", forward, FORWARD, 5),
            f'<line x1="16" x2="{WIDTH - 16}" y1="190" y2="190" class="tick"/>',
            *lane(
                208,
                "A rollback, and the recovery of a window that a dead process left open",
                backward,
                BACKWARD,
                3,
                2,
            ),
            "</svg>\n",
        ]
    )


def main() -> None:
    """Write the picture."""
    _ = (HERE / "window.svg").write_text(picture())


if __name__ == "__main__":
    main()

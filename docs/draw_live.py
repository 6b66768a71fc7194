"""Draw the picture of docs/live.md: the live view of the flight batcher, in the middle of a run.

The run is that of ``examples/flight_batcher.py``, on its real flights and into SQLite, but on
virtual time, so that it can be drawn again: each write takes 12 ms, and the third window fails.

``python docs/draw_live.py`` writes it; a test draws it again and compares.
"""

from __future__ import annotations

import asyncio
import io
import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.terminal_theme import TerminalTheme

if TYPE_CHECKING:
    from flight_stores import Batch, Store

HERE = Path(__file__).parent / "live"
WIDTH = 104
RATE = 420.0  # flights in a second: some windows are full, and the last is open
UNTIL = 9.9  # seconds

# Fonts of the reader's machine: a picture loads nothing.
FORMAT = """\
<svg viewBox="0 0 {terminal_width} {terminal_height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; \
font-size: {char_height}px; line-height: {line_height}px; }}
{styles}
</style>
<defs>
{lines}
</defs>
<rect width="{terminal_width}" height="{terminal_height}" rx="8" fill="#161b22"/>
<g transform="translate(9, 5)" class="{unique_id}-matrix">
{backgrounds}
{matrix}
</g>
</svg>
"""
# Colours that can be told apart, on dark ground (Okabe and Ito).
THEME = TerminalTheme(
    (22, 27, 34),
    (230, 237, 243),
    [
        (22, 27, 34), (255, 123, 84), (0, 158, 115), (240, 228, 66),
        (86, 180, 233), (204, 121, 167), (86, 180, 233), (230, 237, 243),
    ],
)  # fmt: skip


async def watched(directory: str) -> str:
    """Run the batcher for a while, and return the picture of its view."""
    from flight_batcher import Options, run_batches  # noqa: PLC0415  # the examples are on the path
    from flight_records import departures  # noqa: PLC0415
    from flight_stores import open_store  # noqa: PLC0415
    from flight_tally import Tally  # noqa: PLC0415
    from returns_pipeline.telemetry.live import LiveView  # noqa: PLC0415

    class Slow:
        """A store whose writes take time on the clock of the run."""

        def __init__(self, store: Store) -> None:
            self._store = store
            self.place = "flights.db"

        async def write(self, batch: Batch) -> None:
            await asyncio.sleep(0.012)
            await self._store.write(batch)

        async def delete(self, batch_id: str) -> None:
            await self._store.delete(batch_id)

        async def count(self, run_id: str) -> tuple[int, int]:
            return await self._store.count(run_id)

    loop = asyncio.get_running_loop()
    console = Console(
        file=io.StringIO(), record=True, force_terminal=True, width=WIDTH, color_system="standard"
    )
    source = departures(by_calendar=False)
    source.rate = RATE
    view = LiveView(console, redraw_every=1e6, clock=loop.time)
    stop = asyncio.Event()
    async with open_store(str(Path(directory, "flights.db")), durable=False) as store:
        from returns_pipeline import telemetry  # noqa: PLC0415

        with telemetry.use(view):
            batches = run_batches(
                source, Slow(store), Tally(), Options(fail_at=3), stop, lambda _: None, None, view
            )
            work = asyncio.create_task(batches)
        for _ in range(int(UNTIL / 0.3)):  # as it is drawn again and again: rates are of 5 seconds
            await asyncio.sleep(0.3)
            _ = console.render_lines(view)
        console.print(view)
        stop.set()
        _ = await work
    # Rich leaves no room below the last line.
    height = 25.0 + 24.4 * len(console.render_lines(view))
    form = FORMAT.replace("{terminal_height}", f"{height:.1f}")
    svg = console.export_svg(title="", theme=THEME, code_format=form, unique_id="live")
    return re.sub(r"[ \t]+$", "", svg, flags=re.MULTILINE)


def picture() -> str:
    """Return the picture."""
    from returns_pipeline.testing import run  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as directory:
        return run(watched(directory))


def main() -> None:
    """Write the picture."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
    HERE.mkdir(exist_ok=True)
    _ = (HERE / "live_view.svg").write_text(picture(), encoding="utf-8")


if __name__ == "__main__":
    main()

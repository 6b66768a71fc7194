"""What `import returns_pipeline` costs, against importing its dependencies."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from harness import Way, compare, show, start

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

# The dependencies that every user imports.
BASE = "import asyncio, aiostream, returns.future, returns.result, returns.io"
PACKAGE = "import returns_pipeline"
# Names are imported when they are used: those of the first program in the README.
NAMES = "from returns_pipeline import CompensationRegistry, ResultStream, StepContext, cases"
MEASURE = "import time; begun = time.process_time(); {}; print(time.process_time() - begun)"


def importing(statement: str) -> Callable[[int], Awaitable[float]]:
    """Import in a new interpreter each time, and return the time of the statement alone."""

    async def work(times: int) -> float:
        seconds = 0.0
        for _ in range(times):
            child = (sys.executable, "-c", MEASURE.format(statement))
            printed = subprocess.run(child, check=True, capture_output=True)  # noqa: ASYNC221
            seconds += float(printed.stdout)
        return seconds

    return work


def slowest(statement: str, count: int) -> list[tuple[float, str]]:
    """Name the modules beyond ``BASE`` that take most, themselves alone, in seconds."""
    child = (sys.executable, "-X", "importtime", "-c", f"{BASE}; {statement}")
    seen = subprocess.run(child, check=True, capture_output=True, text=True).stderr
    rows = [line.removeprefix("import time:").split("|") for line in seen.splitlines()]
    took = [(float(row[0]) / 1e6, row[2].strip()) for row in rows if row[0].strip().isdigit()]
    last_of_base = max(i for i, (_, name) in enumerate(took) if name.startswith("returns."))
    return sorted(took[last_of_base + 1 :], reverse=True)[:count]


def main() -> None:
    """Measure, and name what takes the time."""
    start(f"Imports: {__doc__}")
    compare(
        "import in a new interpreter",
        1,
        Way("asyncio, aiostream, returns", importing(BASE)),
        Way("returns_pipeline", importing(PACKAGE), 1.2),
        Way("and the names of a first program", importing(NAMES)),
    )
    print("\nbeyond these, what takes most, each for itself")
    for seconds, name in slowest(NAMES, 10):
        show(name, seconds * 1e3, "ms")


if __name__ == "__main__":
    main()

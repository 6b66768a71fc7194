"""What `import returns_pipeline` costs, against importing its dependencies.

The bytecode of all modules is there, as after the first start of any program. Without it an import
mostly compiles, and compares the lengths of the docstrings.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

from harness import Way, compare, show, start

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

# The dependencies that every user imports.
BASE = "import asyncio, aiostream, returns.future, returns.result, returns.io"
PACKAGE = "import returns_pipeline"
# Names are imported when they are used: those of the first program in the README.
NAMES = "from returns_pipeline import CompensationRegistry, ResultStream, StepContext, cases"
bytecode = tempfile.TemporaryDirectory(prefix="bytecode-")
MEASURE = "import time; begun = time.process_time(); {}; print(time.process_time() - begun)"


def importing(statement: str) -> Callable[[int], Awaitable[float]]:
    """Import in a new interpreter each time, and return the time of the statement alone."""

    async def work(times: int) -> float:
        child = ("-c", MEASURE.format(statement))
        return sum([float(interpreter(*child).stdout) for _ in range(times)])

    return work


def interpreter(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python, with bytecode in a directory of its own."""
    settings = {**os.environ, "PYTHONPYCACHEPREFIX": bytecode.name}
    _ = settings.pop("PYTHONDONTWRITEBYTECODE", None)
    command = (sys.executable, *arguments)
    return subprocess.run(command, check=True, capture_output=True, text=True, env=settings)


def slowest(statement: str, count: int) -> list[tuple[float, str]]:
    """Name the modules beyond ``BASE`` that take most, themselves alone, in seconds."""
    seen = interpreter("-X", "importtime", "-c", f"{BASE}; {statement}").stderr
    rows = [line.removeprefix("import time:").split("|") for line in seen.splitlines()]
    took = [(float(row[0]) / 1e6, row[2].strip()) for row in rows if row[0].strip().isdigit()]
    last_of_base = max(i for i, (_, name) in enumerate(took) if name.startswith("returns."))
    return sorted(took[last_of_base + 1 :], reverse=True)[:count]


def main() -> None:
    """Measure, and name what takes the time."""
    start("Imports: what `import returns_pipeline` costs, against importing its dependencies.")
    _ = interpreter("-c", f"{BASE}; {NAMES}")  # writes the bytecode
    compare(
        "import in a new interpreter",
        1,
        Way("asyncio, aiostream, returns", importing(BASE)),
        Way("returns_pipeline", importing(PACKAGE), 1.2),
        Way("and the names of a first program", importing(NAMES), 1.2),
    )
    print("\nbeyond these, what takes most, each for itself")
    for seconds, name in slowest(NAMES, 10):
        show(name, seconds * 1e3, "ms")


if __name__ == "__main__":
    main()

"""Draw the diagrams of docs/diagrams.md, each by the program that comes before it on the page.

``python docs/draw_diagrams.py`` writes them into the page; a test draws them again and compares.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from returns_pipeline.inspection import Diagram

PAGE = Path(__file__).parent / "diagrams.md"
# A program, and the drawings that follow it.
DRAWN = re.compile(r"```python\n(.*?)```\n(?:\n```(?:text|mermaid)\n.*?```\n)+", re.DOTALL)


def drawing_of(program: str) -> Diagram:
    """Run a program, and return what it has called ``drawing``."""

    async def main() -> Diagram:
        names: dict[str, Any] = {"__name__": "orders"}
        exec(compile(program, "orders.py", "exec", dont_inherit=True), names)
        drawing: Diagram = names["drawing"]
        return drawing

    return asyncio.run(main())


def page(text: str) -> str:
    """Return the page with each drawing drawn again, in both forms."""

    def drawn(match: re.Match[str]) -> str:
        program = match[1]
        drawing = drawing_of(program)
        blocks = [
            f"\n```{kind}\n{made.rstrip()}\n```\n"
            for kind, made in (("text", drawing.text()), ("mermaid", drawing.mermaid()))
        ]
        return f"```python\n{program}```\n{''.join(blocks)}"

    return DRAWN.sub(drawn, text)


def main() -> None:
    """Write the page."""
    _ = PAGE.write_text(page(PAGE.read_text()))


if __name__ == "__main__":
    main()

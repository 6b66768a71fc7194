"""Draw the Mermaid blocks of the pages, for the site: it shows them without any JavaScript.

Each drawing is named by the text that it shows, so a block that changes has no drawing until this
has run: ``python -m uv run --with mermaidx==0.10.1 docs/draw_mermaid.py``.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

HERE = Path(__file__).parent / "drawings"
PAGES = Path(__file__).parent


def name_of(text: str) -> str:
    """Return the name of the drawing of a block."""
    return hashlib.sha256(text.strip().encode()).hexdigest()[:12]


def blocks() -> dict[str, str]:
    """Return the Mermaid blocks of all pages, by the names of their drawings."""
    found: list[str] = []
    for page in sorted(PAGES.rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        found += re.findall(r"^```mermaid\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return {name_of(text): text for text in found}


def main() -> None:
    """Draw what has no drawing, and remove the drawings of blocks that are no longer there."""
    from mermaidx import render  # noqa: PLC0415  # is there when this is run, and not otherwise

    HERE.mkdir(exist_ok=True)
    wanted = blocks()
    for path in HERE.glob("*.svg"):
        if path.stem not in wanted:
            path.unlink()
    for name, text in wanted.items():
        path = HERE / f"{name}.svg"
        if not path.exists():
            drawn: str = render(text, theme="neutral").svg()
            # A picture of its own has an own size; the site makes it smaller where it must.
            box = re.search(r'viewBox="\S+ \S+ (\S+) (\S+)"', drawn)
            assert box, text
            width, height = (f"{float(side):.0f}" for side in box.groups())
            drawn = drawn.replace('width="100%"', f'width="{width}" height="{height}"', 1)
            path.write_text(drawn, encoding="utf-8")


if __name__ == "__main__":
    main()

"""Run the Python blocks of a page, and compare what each prints with the block of text after it."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from pathlib import Path


def main(page: str) -> None:
    """Run them in this process, one by one, each as a program of its own.

    Raises:
        SystemExit: One printed something else, or there is none.
    """
    text = Path(page).read_text(encoding="utf-8")
    shown = r"^```python\n(.*?)^```\n\n```text\n(.*?)^```"
    blocks = re.findall(shown, text, re.MULTILINE | re.DOTALL)
    for code, expected in blocks:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(code, page, "exec"), {"__name__": "__main__"})
        if printed.getvalue() != expected:
            sys.exit(f"{code}printed\n{printed.getvalue()}not\n{expected}")
    if not blocks:
        sys.exit(f"{page} has no blocks")
    print(f"{len(blocks)} blocks print what {page} says")


if __name__ == "__main__":
    main(*sys.argv[1:])

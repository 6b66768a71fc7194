"""The examples of docs/workers.md run, and print what the page says; its tables are true."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from returns_pipeline.worker import StoppedBy
from returns_pipeline.worker._cli import main
from returns_pipeline.worker._early import EarlySignals

if TYPE_CHECKING:
    import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "workers.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", PAGE, re.DOTALL)


def test_the_examples_print_what_the_page_says(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    module = ModuleType("example")  # one for all: each continues those before it
    monkeypatch.setitem(sys.modules, "example", module)  # dataclasses look there
    for code, printed in EXAMPLES:
        exec(compile(code, "docs/workers.md", "exec"), vars(module))
        assert capsys.readouterr().out == printed
    # What the command line would run.
    vars(module)["queue"].publish(b'{"number": 1, "seats": 99}')
    vars(module)["bury"].__code__ = _fail.__code__
    assert main(["example:worker"], EarlySignals()) == 1
    assert (tmp_path / "billing.db").exists()


async def _fail(letter: object) -> None:
    raise OSError(letter)


def test_the_page_has_every_exit_code() -> None:
    for why in StoppedBy:
        if why.exit_code:
            assert f"| {why.exit_code} |" in PAGE

"""docs/logging.md lists all that is logged, and its programs work."""

from __future__ import annotations

import ast
import io
import json
import logging
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from returns_pipeline._engine.logs import PREFIX, Facts, facts

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "logging.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
ROOT_LOGGER = "returns_pipeline"
LEVELS = {
    "debug": "debug", "info": "info", "warning": "warning", "error": "error",
    "exception": "error", "log": "error, info",
}  # fmt: skip


def logged_by(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield the logger, level and message of each call that logs."""
    nodes = [*ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    names = [
        ast.literal_eval(node.value.args[0])
        for node in nodes
        if isinstance(node, ast.Assign)
        and ast.unparse(node.targets[0]) == "_log"
        and isinstance(node.value, ast.Call)
    ]
    for node in nodes:
        match node:
            case ast.Call(func=ast.Attribute(value=of, attr=level)) if (
                level in LEVELS and re.search(r"(^_log|repeats)$", ast.unparse(of))
            ):
                message = ast.literal_eval(node.args[level == "log"])
                yield names[0], LEVELS[level], message
            case _:
                pass


MODULES = [path for path in sorted((ROOT / ROOT_LOGGER).rglob("*.py")) if path.name != "logs.py"]


def test_the_table_has_each_message_with_its_logger_and_level() -> None:
    rows = re.findall(
        r"^\| `(returns_pipeline\.\w+)` \| ([\w, ]+) \| `(.+?)` \| .+ \|$", PAGE, re.MULTILINE
    )
    there = {row for path in MODULES for row in logged_by(path)}
    assert len(there) > 50
    assert set(rows) == there
    assert len(rows) == len(there)


def test_each_room_logs_to_its_own_logger() -> None:
    odd = {"_engine/observing.py", "_engine/ticker.py", "result_stream/_bars.py"}
    for path in MODULES:
        inside = path.relative_to(ROOT / ROOT_LOGGER)
        names = set(re.findall(r'getLogger\("(.+?)"\)', path.read_text(encoding="utf-8")))
        room = inside.parts[0].removesuffix(".py").lstrip("_")
        room = "telemetry" if inside.as_posix() in odd else room
        assert names <= {f"{ROOT_LOGGER}.{room}"}, inside


def test_the_facts_are_listed_and_no_record_has_such_an_attribute() -> None:
    listed = set(re.findall(r"^\| `rp_(\w+)` \|", PAGE, re.MULTILINE))
    assert listed == {*Facts.__annotations__, "repeated"}
    record = logging.LogRecord("name", 0, "path", 1, "text", (), None)
    assert not [name for name in (*vars(record), "message", "asctime") if name.startswith(PREFIX)]
    made = logging.getLogger("t").makeRecord(
        *("t", 0, "path", 1, "text", (), None), extra=facts(source="nats orders", attempt=1)
    )
    assert vars(made)["rp_source"] == "nats orders"


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    """Return the logger, which has its handlers of before at the end."""
    logger = logging.getLogger(ROOT_LOGGER)
    before, level = [*logger.handlers], logger.level
    yield logger
    logger.handlers[:] = before
    logger.setLevel(level)


def log_two(log: logging.Logger) -> None:
    room = log.getChild("connectors")
    room.warning("%s is lost", "nats", extra=facts(source="nats orders", attempt=3))
    try:
        raise OSError("gone")
    except OSError:
        room.exception("no")


def test_structlog_has_the_facts(log: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("structlog")
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    exec(PROGRAMS[1], {"__name__": "example"})
    log_two(log)
    first, second = [json.loads(line) for line in written.getvalue().splitlines()]
    assert first == {
        "event": "nats is lost", "level": "warning", "rp_source": "nats orders", "rp_attempt": 3,
    }  # fmt: skip
    assert second["level"] == "error"


def test_loguru_has_the_facts(log: logging.Logger) -> None:
    loguru = pytest.importorskip("loguru")
    lines = list[str]()
    loguru.logger.remove()
    sink = loguru.logger.add(lines.append, format="{level} {extra} {message}")
    try:
        exec(PROGRAMS[2], {"__name__": "example"})
        log_two(log)
    finally:
        loguru.logger.remove(sink)
    assert lines[0] == (
        "WARNING {'logger': 'returns_pipeline.connectors', 'rp_source': 'nats orders', "
        "'rp_attempt': 3} nats is lost\n"
    )
    assert lines[1].startswith("ERROR")
    assert "OSError: gone" in lines[1]

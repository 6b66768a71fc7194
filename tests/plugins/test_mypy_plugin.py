"""The mypy plugin in real runs of mypy: alone, beside that of `returns`, again from the cache.

What it says line by line is in ``typesafety/mypy_plugin.py``, which the check of the project reads.
"""

from __future__ import annotations

import gc
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from mypy import api
from mypy.dmypy_server import Server, process_start_options
from mypy.options import Options
from mypy.plugin import Plugin
from returns.contrib.mypy.returns_plugin import plugin as returns_plugin

from returns_pipeline.mypy_plugin import _statements, plugin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.slow

CASES = Path(__file__).parents[1] / "typesafety" / "mypy_plugin.py"
OURS = "returns_pipeline.mypy_plugin"
THEIRS = "returns.contrib.mypy.returns_plugin"

# What the plugin of `returns` and mypy's own do: without either, one of these is an error or an
# ignore is unused. Expected errors of the plugin are marked.
FEATURES = """
import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, TypedDict, TypeVar, assert_type

from returns.curry import curry, partial
from returns.interfaces.mappable import Mappable2
from returns.pipeline import flow, pipe
from returns.pointfree import bind
from returns.primitives.hkt import Kind2, kinded
from returns.result import Result, Success, safe

Error = TypeVar("Error")
Number = TypeVar("Number", bound=Mappable2)  # type: ignore[type-arg]


class Color(Enum):
    RED = 1
    BLUE = 2


class Movie(TypedDict, total=False):
    year: int


@dataclass(order=True)
class Point:
    x: int


@contextlib.contextmanager
def opened(path: str, *, mode: str = "r") -> Iterator[int]:
    yield 1


@curry
def add(a: int, b: float) -> str:
    return str(a + b)


def half(n: int) -> Result[float, KeyError]:
    return Success(n / 2)


def again(n: float) -> Result[float, KeyError]:
    return Success(n)


def show(n: float) -> Result[str, OSError]:
    return Success(str(n))


@kinded
def twice(number: Kind2[Number, float, Error]) -> Kind2[Number, float, Error]:
    return number.map(lambda n: 2 * n)


@safe(exceptions=(KeyError, OSError))
def load(n: int) -> str:
    return str(n)


def theirs(n: int) -> None:
    assert_type(add(1)(2.0), str)
    add(1)("2")  # type: ignore[arg-type]
    assert_type(flow(n, str, len), int)
    flow(n, str, str.upper, abs)  # type: ignore[arg-type]
    assert_type(pipe(str, len)(n), int)
    print(pipe(half, bind(again))("text"))  # type: ignore[arg-type]
    assert_type(twice(half(n)), Result[float, KeyError])
    assert_type(partial(pow, 2)(3), int)
    assert_type(
        Result.do(a + len(b) for a in half(n) for b in show(a)), Result[float, KeyError | OSError]
    )
    print(flow(n, half, bind(show)))  # type: ignore[arg-type]
    assert_type(flow(n, half), Result[float, KeyError])
    flow(n, half)  # E
    bind(again)(half(n))  # E
    Result.do(a + 1 for a in half(n))  # E


def mypys(color: Color, movie: Movie, n: int) -> None:
    assert_type(functools.partial(half, n)(), Result[float, KeyError])
    functools.partial(half, "text")  # type: ignore[arg-type]
    assert_type(color.value, int)
    assert_type(movie.setdefault("year", 1), int)
    movie.setdefault("year", "1")  # type: ignore[typeddict-item]
    assert_type(Point(1) < Point(2), bool)
    replace(Point(1), x="text")  # type: ignore[arg-type]
    with opened("file", mode="w") as number:
        assert_type(number, int)
    opened(1)  # type: ignore[arg-type]


def ours(unknown: Any, n: int) -> None:
    half(n)  # E
    assert_type(load(n), Result[str, KeyError | OSError])
    assert_type(safe(exceptions=(KeyError, unknown))(str)(n), Result[str, Any])
"""


@pytest.fixture(scope="module", autouse=True)
def as_it_was() -> Iterator[None]:
    """Undo what mypy sets for the whole process."""
    thresholds, limit = gc.get_threshold(), sys.getrecursionlimit()
    yield
    gc.set_threshold(*thresholds)
    sys.setrecursionlimit(limit)
    gc.collect()  # what mypy leaves would put off the next full collection for long


class Project:
    """A folder of modules, and mypy with the same settings each time."""

    def __init__(self, root: Path, plugins: str = OURS, settings: str = "") -> None:
        self.root = root
        (root / "mypy.ini").write_text(
            f"[mypy]\nstrict = True\nplugins = {plugins}\n{settings}", encoding="utf-8"
        )
        self.flags = [f"--config-file={root / 'mypy.ini'}", f"--cache-dir={root / 'cache'}"]

    def write(self, **modules: str) -> None:
        for name, text in modules.items():
            (self.root / f"{name}.py").write_text(text, encoding="utf-8")

    def check(self, *flags: str) -> list[str]:
        """Run mypy; return what it says, each line without the folder."""
        said, wrong, _ = api.run([*self.flags, "--no-error-summary", *flags, str(self.root)])
        assert not wrong, wrong
        return self.without_folder(said)

    def check_with_workers(self, workers: int) -> list[str]:
        """Run mypy in a process of its own, and wait for it and for its workers."""
        command = [sys.executable, "-m", "mypy", *self.flags, "--no-error-summary"]
        command += [f"--num-workers={workers}", str(self.root)]
        late = "Failed to establish connection with worker"
        # The workers inherit the pipes, which are read to their end: until the last one exits.
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        while late in done.stdout:  # mypy waits three seconds for a worker to start
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert not done.stderr, done.stderr
        return self.without_folder(done.stdout)

    def daemon(self) -> Callable[[], list[str]]:
        """Start mypy's daemon in this process; return what checks once more."""
        server = Server(
            process_start_options(self.flags, allow_sources=False), str(self.root / "status")
        )

        def check() -> list[str]:
            answer = server.cmd_check([str(self.root)], False, False, 0)
            assert not answer["err"], answer
            said = self.without_folder(str(answer["out"]))
            return [line for line in said if not line.startswith(("Found", "Success"))]

        return check

    def without_folder(self, said: str) -> list[str]:
        return [line.rpartition(f"{self.root.name}/")[2] for line in said.splitlines()]


def marked(text: str, mark: str) -> list[int]:
    return [number for number, line in enumerate(text.splitlines(), 1) if mark in line]


def found(said: list[str], *codes: str) -> list[tuple[str, int]]:
    """Return the module and line of each error; all are to be of these codes."""
    places: list[tuple[str, int]] = []
    for line in said:
        error = re.fullmatch(rf"(\w+)\.py:(\d+): error: .*  \[({'|'.join(codes)})\]", line)
        assert error, line
        places.append((error[1], int(error[2])))
    return places


@pytest.mark.parametrize("plugins", [OURS, f"{OURS}, {THEIRS}", f"{THEIRS}, {OURS}"])
def test_no_plugin_switches_another_off(plugins: str, tmp_path: Path) -> None:
    project = Project(tmp_path, plugins)
    project.write(features=FEATURES)
    expected = [("features", number) for number in marked(FEATURES, "# E")]
    assert found(project.check(), "must-use") == expected


def test_each_hook_of_the_plugin_of_returns_is_passed_on() -> None:
    """It defines no other; a release that does is to be seen here."""
    theirs = {name for name in vars(returns_plugin("")) if name in vars(Plugin)}
    ours = {name for name in vars(plugin("").__base__) if name in vars(Plugin)}
    assert theirs - {"__module__", "__doc__"} <= ours


def test_a_stream_is_awaited_for_no_outcome(tmp_path: Path) -> None:
    """Also without the plugin."""
    text = """
from returns_pipeline import ResultStream, StepContext, to_result

async def main(s: ResultStream[int, str], ctx: StepContext) -> None:
    print(await ctx.run(s))  # E
    print(await to_result(s))  # E
"""
    project = Project(tmp_path, plugins="")
    project.write(cases=text)
    assert found(project.check(), "misc") == [("cases", line) for line in marked(text, "# E")]


def test_the_plugin_answers_while_nothing_is_checked() -> None:
    assert plugin("")(Options()).get_function_hook("len") is None


def test_each_dropped_value_is_one_error_also_from_the_cache(tmp_path: Path) -> None:
    """Even where mypy has an error of its own for the same statement."""
    project = Project(tmp_path, settings="enable_error_code = unused-awaitable\n")
    text = CASES.read_text(encoding="utf-8")
    dropped = [
        number
        for number, line in enumerate(text.splitlines(), 1)
        if re.search(r"# type: ignore\[.*must-use.*\]", line)
    ]
    checked_twice = marked(text, "repository.save(text)")  # for str and for bytes
    text = re.sub("# mypy: .*|# type: ignore.*must-use.*", "#", text)
    project.write(cases=text)
    said = project.check()
    ours = [line for line in said if "[must-use]" in line]
    mypys = [line for line in said if "[unused-awaitable]" in line]
    assert found(ours, "must-use") == [
        ("cases", number) for number in sorted(dropped + checked_twice)
    ]
    # What is left to mypy: it takes no `assert_type` for a use.
    asserted = marked(text, "assert_type(")
    assert all(number in asserted for _, number in found(mypys, "unused-awaitable"))
    assert mypys
    assert not [line for line in said if line not in [*ours, *mypys] and ": note: " not in line]
    assert project.check() == said


def test_a_comment_a_section_and_a_flag_switch_it_off(tmp_path: Path) -> None:
    """What mypy itself says of such a statement is then said."""
    project = Project(
        tmp_path,
        settings="enable_error_code = unused-awaitable\n"
        "[mypy-section]\ndisable_error_code = must-use\n",
    )
    project.write(
        part="from returns.future import FutureResult\n"
        "def later() -> FutureResult[int, str]: raise OSError\n",
        section="from part import later\nlater()\n",
        inline='# mypy: disable-error-code="must-use"\nfrom part import later\nlater()\n',
        line="from part import later\nlater()  # type: ignore[must-use]\n",
        unused="from part import later\n_ = later()  # type: ignore[must-use]\n",
        revealed="from part import later\nreveal_type(later())  # type: ignore[unused-awaitable]\n",
        loud="from part import later\nlater()\n",
    )
    said = project.check()
    assert not [line for line in said if line.startswith("line.py")]
    said = [line for line in said if ": note: " not in line]
    message = (
        '"FutureResult[int, str]" is dropped: it never runs; await it and handle its result,'
        ' or assign it to "_"'
    )
    assert f"loud.py:2: error: {message}  [must-use]" in said
    assert sorted(found(said, "must-use", "unused-ignore", "unused-awaitable")) == [
        ("inline", 3),
        ("loud", 2),
        ("section", 2),
        ("unused", 2),
    ]
    said = project.check("--disable-error-code=must-use")
    assert said
    assert not [line for line in said if line.endswith("[must-use]")]


SHOP = """
from typing import ClassVar
from returns.result import Result
class Shop:
    outcome: ClassVar[Result[int, str]]
    @property
    def last(self) -> Result[int, str]: raise OSError
    def save(self) -> Result[int, str]: raise OSError
    def __call__(self) -> Result[int, str]: raise OSError
    def __getitem__(self, n: int) -> Result[int, str]: raise OSError
    def __or__(self, n: int) -> Result[int, str]: raise OSError
def load() -> Result[int, str]: raise OSError
"""


def test_the_first_statement_of_a_file_is_seen_whatever_it_is(tmp_path: Path) -> None:
    project = Project(tmp_path)
    first = {
        "attribute": "shop.last",
        "awaited": "await later",
        "call": "shop()",
        "class_attribute": "Shop.outcome",
        "function": "load()",
        "item": "shop[1]",
        "method": "shop.save()",
        "piped": "shop | 1",
    }
    head = "from part import *\nfrom returns.future import FutureResult\n"
    head += "async def first(shop: Shop, later: FutureResult[int, str]) -> None:\n"
    project.write(part=SHOP, **{name: f"{head}    {text}\n" for name, text in first.items()})
    assert sorted(found(project.check(), "must-use")) == [(name, 4) for name in first]


USERS = """
from returns.future import FutureResult
import source
def overloaded() -> None:
    source.load(1)
async def awaited() -> None:
    await source.later()
def last(x: object) -> None:
    source.future()
"""

SOURCE = """
from typing import overload
from returns.future import FutureResult
from returns.result import Result
@overload
def load(x: int) -> {load}: ...
@overload
def load(x: str) -> bytes: ...
def load(x: object) -> object: return x
async def later() -> {later}: raise OSError
def future() -> {future}: raise OSError
"""

NONE = SOURCE.format(load="int", later="int", future="int")
ALL = SOURCE.format(
    load="Result[int, str]", later="Result[int, str]", future="FutureResult[int, str]"
)


@pytest.mark.parametrize("daemon", [False, True], ids=["cache", "daemon"])
def test_a_change_elsewhere_is_seen_and_taken_back(daemon: bool, tmp_path: Path) -> None:
    project = Project(tmp_path, settings="enable_error_code = unused-awaitable\n")
    check = project.daemon() if daemon else project.check
    project.write(users=USERS, source=NONE)
    assert check() == []
    project.write(source=ALL)
    assert found(check(), "must-use") == [("users", 5), ("users", 7), ("users", 9)]
    assert len(check()) == 3
    project.write(users=USERS + "x = 1\n")
    assert found(check(), "must-use") == [("users", 5), ("users", 7), ("users", 9)]
    project.write(source=NONE)
    assert check() == []


def test_mypys_workers_find_the_same(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.write(users=USERS, source=ALL)
    said = project.check_with_workers(2)
    assert found(said, "must-use") == [("users", 5), ("users", 7), ("users", 9)]


def test_importing_it_imports_nothing_else_of_the_package() -> None:
    """A package that is broken, or being written, can still be checked."""
    code = """
import sys, returns_pipeline.mypy_plugin
loaded = {name for name in sys.modules if name.partition(".")[0] == "returns_pipeline"}
loaded -= {name for name in loaded if name.startswith("returns_pipeline.mypy_plugin")}
lazy = {"returns_pipeline._engine", "returns_pipeline._engine.lazy_exports"}
assert loaded == {"returns_pipeline", *lazy}, loaded
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


@pytest.mark.parametrize("tables", [None, [], [None], ({},)], ids=repr)
def test_a_mypy_without_the_tables_is_reported_once_in_a_file(tables: object) -> None:
    """The plugin never finds nothing silently."""
    reports: list[str] = []

    def fail(message: str, *_: object, **__: object) -> None:
        reports.append(message)

    checker: Any = SimpleNamespace(_type_maps=tables, path=f"{tables!r}.py", tree=None, fail=fail)
    for _ in range(2):
        assert _statements.type_tables(checker) is None
    assert len(reports) == 1
    assert "returns_pipeline.mypy_plugin does not know this version of mypy" in reports[0]

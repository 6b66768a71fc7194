"""``--registry module:attribute``: a registry, a function that returns one, a context of one."""

from __future__ import annotations

import asyncio
import sys
import warnings
from typing import TYPE_CHECKING

import pytest

from returns_pipeline import CompensationRegistry, StepContext
from returns_pipeline.journal import SqliteJournal
from returns_pipeline.journal._cli import main
from returns_pipeline.journal._registries import find_registries, made_registries

if TYPE_CHECKING:
    from pathlib import Path

SHOP = """\
import asyncio
from contextlib import asynccontextmanager

from returns_pipeline import CompensationRegistry

plain, other = CompensationRegistry(), CompensationRegistry()

@plain.compensation("release")
async def release(seat: str) -> None:
    print("released", seat)

@other.compensation("refund")
async def refund(order: int) -> None: ...

def made(pool="a pool"):
    registry = CompensationRegistry()
    @registry.compensation("release")
    async def release(seat: str) -> None:
        print("released", seat, "with", pool)
    return registry

async def later():
    await asyncio.sleep(0)
    return made("one made later")

@asynccontextmanager
async def opened():
    loop = asyncio.get_running_loop()
    print("opened")
    try:
        yield made(f"a pool of this loop: {loop.is_running()}")
    finally:
        await asyncio.sleep(0)
        print("closed")

async def undecorated():
    yield plain

def of_a_pool(pool): ...
def nothing(): ...
def refused():
    raise ConnectionError("no database")
@asynccontextmanager
async def never_open():
    raise ConnectionError("no pool")
    yield
number = 7
"""


async def leave_one_open(path: Path) -> None:
    registry = CompensationRegistry()

    @registry.compensation("release")
    async def release(seat: str) -> None: ...

    journal = SqliteJournal(path)
    ctx = StepContext("shop", journal=journal)
    await ctx.register(release, "12A")
    await journal.close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # as if the process had died
        del ctx


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a program, and a journal with one action that a dead process left."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "seats", raising=False)
    (tmp_path / "seats.py").write_text(SHOP)
    asyncio.run(leave_one_open(tmp_path / "seats.db"))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("plain", "released 12A\n"),
        ("made", "released 12A with a pool\n"),
        ("later", "released 12A with one made later\n"),
        ("opened", "opened\nreleased 12A with a pool of this loop: True\nclosed\n"),
    ],
)
@pytest.mark.usefixtures("place")
def test_a_registry_of_each_kind_undoes(
    name: str, printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["recover", "seats.db", "--registry", f"seats:{name}"]) == 0
    said = capsys.readouterr()
    assert said.err == printed  # the answer alone is for the standard output
    assert "1 undone" in said.out


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("number", "is not a CompensationRegistry, but of type int; nor a function that returns"),
        ("release", "is not a CompensationRegistry, but of type Compensation; nor a function"),
        ("nothing", "is not a CompensationRegistry, but of type NoneType; nor a function"),
        ("of_a_pool", "is called without arguments: missing a required argument: 'pool'"),
        ("undecorated", "is a generator: decorate it with contextlib.asynccontextmanager"),
        ("refused", "cannot be made: ConnectionError('no database') ("),
        ("never_open", "cannot be made: ConnectionError('no pool') ("),
    ],
)
def test_what_makes_no_registry_is_refused_and_nothing_is_undone(
    name: str, said: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["recover", "seats.db", "--registry", f"seats:{name}"]) == 2
    refused = capsys.readouterr()
    assert said in refused.err
    assert refused.err.count("\n") == 1
    assert said[-1] != "(" or f"{place / 'seats.py'}:" in refused.err
    assert main(["recover", "seats.db", "--registry", "seats:plain"]) == 0
    assert "1 undone" in capsys.readouterr().out


@pytest.mark.usefixtures("place")
def test_the_same_registry_may_be_named_twice_and_a_factory_is_called_once() -> None:
    async def names(*places: str) -> list[str]:
        async with made_registries(find_registries(places)) as known:
            assert known.get("absent") is None
            assert len(known) == len(list(known))
            return sorted(known)

    both = asyncio.run(names("seats:plain", "seats:other", "seats:plain"))
    assert both == ["refund", "release"]
    assert asyncio.run(names("seats:made", "seats:made")) == ["release"]
    with pytest.raises(ValueError, match="seats:plain and seats:made both have a 'release'"):
        asyncio.run(names("seats:plain", "seats:made"))

"""The laws of undoing: order and number, for any tree of scopes and any cancellation."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from everywhere import everywhere, slow_on_journals
from hypothesis import given, settings
from hypothesis import strategies as st
from scoping import commit_or_roll_back, detached

from returns_pipeline.compensation import CompensationScope
from returns_pipeline.errors import InvalidArgument, PipelineError, ScopeClosed
from returns_pipeline.testing import FaultInjector, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from returns_pipeline.compensation import CompensationReport

pytestmark = everywhere

# With RETURNS_PIPELINE_LONGER=80 each law is checked 12,000 times, in memory and on each journal.
EXAMPLES = 150 * int(os.environ.get("RETURNS_PIPELINE_LONGER") or 1)


# A program is a list of calls on scopes that are named by a number, of those there are by then.

which = st.integers(0, 30)
calls = st.one_of(
    st.tuples(st.just("register"), which, st.booleans()),
    st.tuples(st.just("register"), which, st.just(False)),
    st.tuples(st.just("child"), which, st.booleans()),
    st.tuples(st.just("child"), which, st.booleans()),
    st.tuples(st.just("absorb"), which, which, st.booleans()),
    st.tuples(st.just("settle"), which, st.booleans()),
    st.tuples(st.just("commit"), which),
    st.tuples(st.just("compensate"), which),
)


@dataclass(eq=False)
class ModelScope:
    """A model of a scope, written without regard to cost."""

    started: int
    parent: ModelScope | None
    is_open_child: bool = True
    state: str = ""  # open

    def is_inside(self, other: ModelScope) -> bool:
        return self is other or (self.parent is not None and self.parent.is_inside(other))


@dataclass
class ModelAction:
    """An action on record. A block is a prefix to the places of the actions in it."""

    name: int
    fails: bool
    place: tuple[int, ...]
    holder: ModelScope


@dataclass
class Model:
    """All scopes and actions, and what has been undone, in order."""

    scopes: list[ModelScope] = field(default_factory=list)
    actions: list[ModelAction] = field(default_factory=list)
    undone: list[int] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)
    count: int = 0

    def next(self) -> int:
        self.count += 1
        return self.count

    def family(self, scope: ModelScope) -> list[ModelScope]:
        """The scope and what is open inside it, without what is detached."""
        found = [scope]
        while True:
            more = [
                s
                for s in self.scopes
                if not s.state and s.is_open_child and s.parent in found and s not in found
            ]
            if not more:
                return found
            found += more

    def held(self, scope: ModelScope) -> list[ModelAction]:
        family = self.family(scope)
        return [action for action in self.actions if action.holder in family]

    def close(self, scopes: list[ModelScope], how: str) -> None:
        for scope in scopes:
            scope.state = how

    def drop(self, scope: ModelScope) -> list[ModelAction]:
        gone = self.held(scope)
        self.actions = [action for action in self.actions if action not in gone]
        return gone

    def roll_back(self, scope: ModelScope) -> tuple[list[int], list[int]]:
        actions = sorted(self.drop(scope), key=lambda action: action.place, reverse=True)
        done = [action.name for action in actions if not action.fails]
        failed = [action.name for action in actions if action.fails]
        self.undone += [action.name for action in actions]
        self.failed += failed
        return done, failed

    def call(self, name: str, *given: Any) -> Any:
        scope = self.scopes[given[0] % len(self.scopes)]
        match name, given:
            case "register", (_, bool(fails)):
                if scope.state:
                    return ScopeClosed
                number = self.next()
                self.actions.append(ModelAction(number, fails, (number,), scope))
            case "child", (_, bool(open_child)):
                if scope.state:
                    return ScopeClosed
                self.scopes.append(ModelScope(self.next(), scope, open_child))
            case "absorb", (_, int(number), bool(as_one)):
                return self.absorb(scope, self.scopes[number % len(self.scopes)], as_one=as_one)
            case "settle", (_, bool(keep)):
                if scope.state:
                    return ScopeClosed
                family = self.family(scope)[1:]
                self.close(family, "committed" if keep else "rolled back")
                # They are closed, but what they hold is still this scope's to settle.
                for action in self.actions:
                    if action.holder in family:
                        action.holder = scope
                if keep:
                    self.drop(scope)
                else:
                    return self.roll_back(scope)
            case "commit", _:
                if scope.state in ("rolled back", "absorbed"):
                    return ScopeClosed
                if not scope.state:
                    family = self.family(scope)
                    self.drop(scope)
                    self.close(family, "committed")
            case "compensate", _:
                if not scope.state:
                    family = self.family(scope)
                    report = self.roll_back(scope)
                    self.close(family, "rolled back")
                    return report
            case _:
                raise AssertionError(name)
        return None

    def absorb(self, scope: ModelScope, child: ModelScope, *, as_one: bool) -> Any:
        if scope.state or child.state:
            return ScopeClosed
        if scope.is_inside(child):
            return InvalidArgument
        if as_one:
            family = self.family(child)
            for action in self.actions:
                if action.holder in family:
                    action.holder = scope
                    action.place = (child.started, *action.place)
            self.close(family, "absorbed")
        else:
            for action in self.actions:
                if action.holder is child:
                    action.holder = scope
            for other in self.scopes:
                if other.parent is child and other.is_open_child and not other.state:
                    other.parent = scope
            child.state = "absorbed"
        return None


class Real:
    """The same calls on real scopes."""

    def __init__(self) -> None:
        self.scopes = [CompensationScope("root"), CompensationScope("other")]
        self.count = 2
        self.undone: list[int] = []

    async def undo(self, number: int, *, fails: bool) -> None:
        await asyncio.sleep(1)
        self.undone.append(number)
        if fails:
            raise OSError(number)

    async def call(self, name: str, *given: Any) -> Any:
        scope = self.scopes[given[0] % len(self.scopes)]
        try:
            match name, given:
                case "register", (_, bool(fails)):
                    await scope.register(self.undo, self.count + 1, fails=fails)
                    self.count += 1
                case "child", (_, bool(open_child)):
                    self.scopes.append(scope.child() if open_child else detached(scope))
                    self.count += 1
                case "absorb", (_, int(number), bool(as_one)):
                    scope.absorb(self.scopes[number % len(self.scopes)], as_one=as_one)
                case "settle", (_, bool(keep)):
                    report = await commit_or_roll_back(scope, keep=keep)
                    return None if keep else numbers(report)
                case "commit", _:
                    await scope.commit()
                case "compensate", _:
                    closed = scope.closed
                    report = await scope.compensate()
                    return None if closed else numbers(report)
                case _:
                    raise AssertionError(name)
        except PipelineError as error:
            return type(error)
        return None


def numbers(report: CompensationReport) -> tuple[list[Any], list[Any]]:
    return [e.args[0] for e in report.done], [e.args[0] for e in report.failures]


@slow_on_journals
@given(st.lists(calls, max_size=40))
@settings(max_examples=EXAMPLES, deadline=None)  # a journal may wait for a disk
def test_a_tree_of_scopes_does_what_its_model_does(program: list[tuple[Any, ...]]) -> None:
    """In answers, in what is on record anywhere, in what is undone and in which order."""

    async def main() -> None:
        real = Real()
        model = Model([ModelScope(1, None), ModelScope(2, None)], count=2)
        end = [("compensate", n) for n in range(len(program) + 2)]
        for call in [*program, *end]:
            assert await real.call(*call) == model.call(*call), call
            assert real.undone == model.undone
            assert real.count == model.count
            for scope, expected in zip(real.scopes, model.scopes, strict=True):
                assert scope.state == (expected.state or "open")
                assert len(scope) == (0 if expected.state else len(model.held(expected)))
        assert all(scope.closed for scope in real.scopes)
        assert len(real.undone) == len(set(real.undone))

    run(main())


# A body is what is done in an `async with` block: actions and blocks inside it.

Body: TypeAlias = "list[Any]"
actions = st.tuples(st.just("act"), st.booleans(), st.integers(0, 2))
ways_out = st.sampled_from(["commit", "raise", "absorb", "absorb as one", "leave open"])
bodies: st.SearchStrategy[Body] = st.recursive(
    st.lists(actions, max_size=3),
    lambda inner: st.lists(actions | st.tuples(st.just("block"), inner, ways_out), max_size=4),
    max_leaves=8,
)


class Blocks:
    """Carries bodies out, and remembers which action is held by which scope in the end."""

    def __init__(self) -> None:
        self.registered: dict[int, CompensationScope] = {}
        self.takers: dict[CompensationScope, CompensationScope] = {}
        self.undone: list[int] = []
        self.failed: list[int] = []

    async def undo(self, number: int, *, fails: bool) -> None:
        for _ in range(3):
            await asyncio.sleep(0.1)
        if fails:
            self.failed.append(number)
            raise OSError
        self.undone.append(number)

    async def carry_out(self, body: Body, scope: CompensationScope) -> None:
        for kind, *what in body:
            if kind == "act":
                fails, wait = what
                number = len(self.registered)
                # On a journal it may be cancelled here: then it is on record nevertheless.
                self.registered[number] = scope
                await scope.register(self.undo, number, fails=fails)
                await asyncio.sleep(wait)
            else:
                inner, way_out = what
                with suppress(KeyError):
                    await self.block(inner, scope.child(), scope, way_out)

    async def block(
        self, body: Body, scope: CompensationScope, outer: CompensationScope, way_out: str
    ) -> None:
        if way_out == "leave open":
            await self.carry_out(body, scope)
            return
        async with scope:
            await self.carry_out(body, scope)
            if way_out == "raise":
                raise KeyError
            if way_out.startswith("absorb"):
                outer.absorb(scope, as_one=way_out != "absorb")
                self.takers[scope] = outer

    def fates(self) -> Iterator[tuple[int, str]]:
        """What became of each action, by what became of the scope that held it last."""
        for number, scope in self.registered.items():
            at: CompensationScope | None = scope
            while at is not None and at.state == "absorbed":
                # One that was left open was taken over together with the one around it.
                at = self.takers.get(at, at.parent)
            assert at is not None
            yield number, at.state


@slow_on_journals
@given(bodies, st.integers(1, 60), st.sampled_from([1, 2, 5, 100]), st.booleans())
@settings(max_examples=EXAMPLES, deadline=None)  # a journal may wait for a disk
def test_every_action_is_committed_or_undone_once_whatever_is_cancelled(
    body: Body, at: int, times: int, then_fails: bool
) -> None:
    """At any await of the program or of an undo, once or many times in a row."""

    async def main() -> None:
        blocks = Blocks()
        root = CompensationScope("root")

        async def program() -> None:
            async with root:
                await blocks.carry_out(body, root)
                if then_fails:
                    raise KeyError

        with suppress(asyncio.CancelledError, KeyError):
            await FaultInjector(at, times=times).run(program())
        assert root.closed
        settled = blocks.undone + blocks.failed
        assert len(settled) == len(set(settled))
        for number, how in blocks.fates():
            assert (number in settled) == (how == "rolled back"), (number, how)
            assert how in ("rolled back", "committed")

    run(main())

"""The promises of scopes: what is undone, in which order, and when; one test each.

How an undo is carried out is in test_rollback.py.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import math
import sys
import warnings
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
import tenacity
from everywhere import everywhere, memory_only
from scoping import commit_or_roll_back, detached

from returns_pipeline.compensation import (
    Compensation,
    CompensationRegistry,
    CompensationReport,
    CompensationScope,
    current_key,
)
from returns_pipeline.errors import InvalidArgument, ScopeClosed
from returns_pipeline.retry import RetryPolicy
from returns_pipeline.testing import run

pytestmark = everywhere


def now() -> float:
    return asyncio.get_running_loop().time()


class Undone(list[object]):
    """An undo action that remembers what it was called with."""

    async def __call__(self, what: object) -> None:
        await asyncio.sleep(0)
        self.append(what)

    async def slowly(self, what: object) -> None:
        await asyncio.sleep(10)
        self.append(what)


@pytest.fixture
def undone() -> Undone:
    return Undone()


# Order


def test_the_last_registered_is_undone_first(undone: Undone) -> None:
    async def main() -> None:
        scope = CompensationScope()
        for n in range(5):
            await scope.register(undone, n)
        report = await scope.compensate()
        assert [entry.args for entry in report.done] == [(4,), (3,), (2,), (1,), (0,)]

    run(main())
    assert undone == [4, 3, 2, 1, 0]


def test_order_is_that_of_registration_across_children(undone: Undone) -> None:
    """Not of scopes: what is interleaved between children stays interleaved."""

    async def main() -> None:
        root = CompensationScope("root")
        a, b = root.child("a"), root.child("b")
        inner = a.child("inner")
        for n, scope in enumerate([b, root, inner, a, b, inner, root, a]):
            await scope.register(undone, n)
        assert len(root) == 8
        assert len(a) == 4
        report = await root.compensate()
        assert [entry.scope for entry in report.done] == [
            "root/a",
            "root",
            "root/a/inner",
            "root/b",
            "root/a",
            "root/a/inner",
            "root",
            "root/b",
        ]

    run(main())
    assert undone == [7, 6, 5, 4, 3, 2, 1, 0]


def test_an_undo_begins_when_the_one_before_has_ended() -> None:
    log: list[str] = []

    async def undo(name: str) -> None:
        log.append(f"begin {name}")
        await asyncio.sleep(5)
        log.append(f"end {name}")

    async def main() -> None:
        scope = CompensationScope()
        await scope.register(undo, "a")
        await scope.child().register(undo, "b")
        await scope.compensate()
        assert now() == 10

    run(main())
    assert log == ["begin b", "end b", "begin a", "end a"]


def test_a_child_is_undone_alone_and_then_not_again(undone: Undone) -> None:
    async def main() -> None:
        root = CompensationScope()
        child = root.child()
        await root.register(undone, "root")
        await child.register(undone, "child")
        await child.compensate()
        assert undone == ["child"]
        assert len(root) == 1
        await root.compensate()

    run(main())
    assert undone == ["child", "root"]


@pytest.mark.parametrize("as_one", [True, False])
def test_absorbed_actions_count_as_registered_when_they_were(undone: Undone, as_one: bool) -> None:
    async def main() -> None:
        root = CompensationScope()
        await root.register(undone, 0)
        child = root.child()
        await child.register(undone, 1)
        await root.register(undone, 2)
        await child.register(undone, 3)
        await root.register(undone, 4)
        root.absorb(child, as_one=as_one)
        assert len(root) == 5
        assert child.state == "absorbed"
        await root.compensate()

    run(main())
    assert undone == ([4, 2, 3, 1, 0] if as_one else [4, 3, 2, 1, 0])


def test_a_block_keeps_its_blocks_together(undone: Undone) -> None:
    async def main() -> None:
        root = CompensationScope()
        first = root.child()
        second = root.child()
        inner = first.child()
        await second.register(undone, "second 1")
        await inner.register(undone, "inner 1")
        await first.register(undone, "first 1")
        await second.register(undone, "second 2")
        await inner.register(undone, "inner 2")
        first.absorb(inner, as_one=True)
        root.absorb(second, as_one=True)
        root.absorb(first, as_one=True)
        await root.register(undone, "root")
        await root.compensate()

    run(main())
    assert undone == ["root", "second 2", "second 1", "first 1", "inner 2", "inner 1"]


def test_absorbing_takes_over_open_children(undone: Undone) -> None:
    """They stay open, as children of the scope that took over."""

    async def main() -> None:
        root = CompensationScope("root")
        child = root.child("child")
        grandchild = child.child("grandchild")
        await grandchild.register(undone, 1)
        await child.register(undone, 2)
        root.absorb(child)
        await grandchild.register(undone, 3)
        assert grandchild.path == "root/grandchild"
        assert len(root) == 3
        await root.compensate()
        assert grandchild.state == "rolled back"

    run(main())
    assert undone == [3, 2, 1]


def test_absorbing_as_one_closes_what_is_open_inside(undone: Undone) -> None:
    """What comes from inside stays together, so nothing can be added to it later."""

    async def main() -> None:
        root = CompensationScope()
        child = root.child()
        inner = child.child().child()
        await inner.register(undone, 1)
        await root.register(undone, 2)
        await child.register(undone, 3)
        root.absorb(child, as_one=True)
        with pytest.raises(ScopeClosed) as refused:
            await inner.register(undone, 4)
        assert refused.value.state == "absorbed"
        await root.compensate()

    run(main())
    assert undone == [2, 3, 1]


def test_absorbing_a_scope_from_elsewhere(undone: Undone) -> None:
    async def main() -> None:
        here, there = CompensationScope("here"), CompensationScope("there", timeout=7)
        await there.register(undone, 1)
        await here.register(undone, 2)
        inside = there.child("inside")
        await inside.register(undone, 3)
        there.absorb(inside)
        here.absorb(there)
        assert len(there) == 0
        report = await here.compensate()
        assert [entry.scope for entry in report.done] == ["there/inside", "here", "there"]

    run(main())
    assert undone == [3, 2, 1]


def test_a_scope_cannot_absorb_itself_or_what_it_is_inside_of(undone: Undone) -> None:
    async def main() -> None:
        root = CompensationScope("root")
        child = root.child("child")
        await root.register(undone, 1)
        await child.register(undone, 2)
        for inner, outer in [(root, root), (child, child), (child, root)]:
            with pytest.raises(InvalidArgument, match="cannot absorb"):
                inner.absorb(outer)
        assert len(root) == 2  # nothing has moved
        await root.compensate()

    run(main())
    assert undone == [2, 1]


def test_a_settled_scope_neither_absorbs_nor_is_absorbed(undone: Undone) -> None:
    async def main() -> None:
        root, child = CompensationScope("root"), CompensationScope("child")
        await root.register(undone, 1)
        await child.commit()
        with pytest.raises(ScopeClosed, match="'child' has been committed"):
            root.absorb(child)
        with pytest.raises(ScopeClosed, match="'child' has been committed"):
            child.absorb(root)
        assert len(root) == 1
        await root.commit()

    run(main())


def test_absorbed_actions_keep_their_scope_s_key_and_time() -> None:
    keys: list[str] = []

    async def undo() -> None:
        keys.append(current_key())
        await asyncio.sleep(60)

    async def main() -> None:
        root, child = CompensationScope(timeout=50), CompensationScope("child", timeout=5)
        await child.register(undo)
        key = child.key
        root.absorb(child)
        report = await root.compensate()
        assert keys == [key]
        assert report.failures[0].scope == "child"
        assert now() == 5

    run(main())


@memory_only  # as many rows take their time
def test_depth_and_number_do_not_matter(undone: Undone) -> None:
    """Ten thousand levels; recursion would end at one thousand."""
    depth = 10_000

    async def main() -> None:
        root = CompensationScope("x")
        chain = [root]
        for n in range(depth):
            await chain[-1].register(undone, n)
            chain.append(chain[-1].child("x"))
        assert len(root) == depth
        assert chain[-1].path.count("/") == depth
        with pytest.raises(InvalidArgument):
            chain[-1].absorb(root)
        chain[1].absorb(chain[2])
        assert len(root) == depth
        assert repr(root).endswith(f"{depth} to undo>")
        await root.commit()
        assert len(root) == 0

    run(main())
    assert undone == []


@memory_only  # as many rows take their time
@pytest.mark.parametrize("absorbed", [True, False])
def test_a_deep_tree_is_undone_without_recursion(undone: Undone, absorbed: bool) -> None:
    depth = 2_000

    async def main() -> None:
        chain = [CompensationScope("x")]
        for n in range(depth):
            await chain[-1].register(undone, n)
            chain.append(chain[-1].child("x"))
        for scope in reversed(chain[1:]) if absorbed else []:
            assert scope.parent is not None
            scope.parent.absorb(scope, as_one=True)
        await chain[0].compensate()

    run(main())
    assert undone == list(range(depth))[::-1]


@memory_only  # as many rows take their time
def test_many_actions_of_one_scope(undone: Undone) -> None:
    async def main() -> None:
        scope = CompensationScope()
        for n in range(10_000):
            await scope.register(undone, n)
        assert len((await scope.compensate()).done) == 10_000

    run(main())
    assert undone == list(range(10_000))[::-1]


def test_in_parallel_all_are_undone_at_the_same_time() -> None:
    async def undo(seconds: float) -> None:
        await asyncio.sleep(seconds)
        if seconds == 3:
            raise OSError("gone")

    async def main() -> None:
        scope = CompensationScope(order="parallel")
        child = scope.child()
        for seconds in 1, 20, 3, 5:
            await scope.register(undo, seconds)
            await child.register(undo, seconds)
        report = await scope.compensate()
        assert now() == 20
        assert [entry.args[0] for entry in report.done] == [5, 5, 20, 20, 1, 1]
        assert [entry.args[0] for entry in report.failures] == [3, 3]

    run(main())


# Settling


def test_what_is_committed_is_not_undone(undone: Undone) -> None:
    async def main() -> None:
        scope = CompensationScope()
        child = scope.child()
        await scope.register(undone, 1)
        await child.register(undone, 2)
        assert not child.closed
        await scope.commit()
        assert child.state == scope.state == "committed"
        assert len(scope) == 0
        await scope.commit()  # again changes nothing
        assert await scope.compensate() == CompensationReport()
        assert await child.compensate() == CompensationReport()

    run(main())
    assert undone == []


def test_a_committed_child_is_not_undone_with_its_parent(undone: Undone) -> None:
    async def main() -> None:
        root = CompensationScope()
        kept, lost = root.child(), root.child()
        await kept.register(undone, "kept")
        await lost.register(undone, "lost")
        await kept.commit()
        await root.compensate()

    run(main())
    assert undone == ["lost"]


@pytest.mark.parametrize("how", ["committed", "rolled back", "absorbed"])
def test_a_settled_scope_takes_nothing_more(undone: Undone, how: str) -> None:
    async def main() -> None:
        outer = CompensationScope("outer")
        scope = outer.child("scope")
        await scope.register(undone, 1)
        if how == "committed":
            await scope.commit()
        elif how == "rolled back":
            await scope.compensate()
        else:
            outer.absorb(scope)
        before, held = list(undone), len(outer)
        with pytest.raises(ScopeClosed) as refused:
            await scope.register(undone, 2)
        assert (refused.value.scope, refused.value.state) == ("outer/scope", how)
        with pytest.raises(ScopeClosed):
            scope.child()
        with pytest.raises(ScopeClosed):
            detached(scope)
        if how != "committed":
            with pytest.raises(ScopeClosed):
                await scope.commit()
        for keep in True, False:
            with pytest.raises(ScopeClosed):
                await commit_or_roll_back(scope, keep=keep)
        # The action that was refused is not on record, here or outside.
        assert len(scope) == 0
        assert len(outer) == held
        await scope.compensate()
        assert undone == before
        await outer.compensate()
        assert 2 not in undone

    run(main())


def test_nothing_is_taken_while_a_rollback_is_under_way(undone: Undone) -> None:
    """Its effect would come too late to be undone with the others."""

    async def main() -> None:
        scope = CompensationScope("s")
        await scope.register(undone.slowly, 1)
        rollback = asyncio.create_task(commit_or_roll_back(scope, keep=False))
        await asyncio.sleep(1)
        assert scope.closed
        with pytest.raises(ScopeClosed, match="'s' is rolling back"):
            await scope.register(undone, 2)
        with pytest.raises(ScopeClosed):
            await scope.commit()
        with pytest.raises(ScopeClosed):
            CompensationScope().absorb(scope)
        await rollback
        await scope.register(undone, 3)  # it is open again
        await commit_or_roll_back(scope, keep=True)
        await scope.register(undone, 4)
        await scope.compensate()

    run(main())
    assert undone == [1, 4]


def test_settling_closes_the_children_and_not_the_scope(undone: Undone) -> None:
    async def main() -> None:
        scope = CompensationScope()
        for keep, how in (True, "committed"), (False, "rolled back"), (True, "committed"):
            child = scope.child()
            inner = child.child()
            await inner.register(undone, how)
            await scope.register(undone, how)
            report = await commit_or_roll_back(scope, keep=keep)
            assert child.state == inner.state == how
            assert not scope.closed
            assert len(scope) == 0
            assert scope.report == report
        await scope.commit()

    run(main())
    assert undone == ["rolled back", "rolled back"]


def test_undoing_nothing_is_not_reported(undone: Undone) -> None:
    async def main() -> None:
        scope = CompensationScope()
        assert await commit_or_roll_back(scope, keep=False) == CompensationReport()
        child = scope.child()
        assert await scope.compensate() == CompensationReport()
        assert child.state == scope.state == "rolled back"
        assert await child.compensate() == CompensationReport()

    run(main())


def test_register_refuses_what_cannot_be_called() -> None:
    async def undo() -> None: ...

    async def main() -> None:
        scope = CompensationScope()
        coroutine: Any = undo()
        with pytest.raises(TypeError, match="expected a function"):
            await scope.register(coroutine)
        coroutine.close()
        assert len(scope) == 0

    run(main())


@pytest.mark.parametrize(
    "arguments",
    [
        {"order": "random"},
        {"on_failure": "ignore"},
        {"order": "parallel", "on_failure": "stop"},
        {"timeout": 0},
        {"timeout": -1},
        {"timeout": float("nan")},
    ],
)
def test_arguments_out_of_range_are_refused_at_the_call(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        CompensationScope("s", **arguments)


def test_a_child_has_what_its_parent_has() -> None:
    root = CompensationScope("r", order="parallel", timeout=3)
    child = root.child("c")
    assert (child.order, child.timeout, child.on_failure) == ("parallel", 3, "continue")
    assert CompensationScope(on_failure="stop").child().on_failure == "stop"
    assert child.path == "r/c"
    assert repr(child) == "<CompensationScope 'r/c': 0 to undo>"


def test_a_scope_is_true_also_when_it_is_empty() -> None:
    assert CompensationScope()
    assert len(CompensationScope()) == 0


def test_keys_are_unique_and_stay() -> None:
    root = CompensationScope()
    scopes = [root, root.child(), root.child().child(), CompensationScope()]
    keys = [scope.key for scope in scopes]
    assert len(set(keys)) == 4
    assert [scope.key for scope in scopes] == keys


# async with


def test_a_normal_exit_commits(undone: Undone) -> None:
    async def main() -> None:
        async with CompensationScope() as scope:
            await scope.register(undone, 1)
        assert scope.state == "committed"

    run(main())
    assert undone == []


@pytest.mark.parametrize(
    "error", [ValueError("no"), asyncio.CancelledError("told so"), SystemExit(3), GeneratorExit()]
)
def test_the_same_exception_propagates_when_all_is_undone(
    undone: Undone, error: BaseException
) -> None:
    async def main() -> None:
        scope = CompensationScope("s")
        with pytest.raises(type(error)) as raised:
            async with scope:
                await scope.register(undone.slowly, 1)
                await scope.child().register(undone.slowly, 2)
                raise error
        assert raised.value is error
        assert now() == 20
        assert undone == [2, 1]
        assert scope.state == "rolled back"
        assert [entry.args for entry in scope.report.done] == [(2,), (1,)]
        assert not hasattr(error, "__notes__")

    run(main())


def test_failed_undos_are_noted_on_the_exception_and_kept() -> None:
    async def undo(n: int, *, name: str) -> None:
        if n != 2:
            raise OSError(f"cannot undo {n}")

    async def main() -> None:
        error = ValueError("no")
        scope = CompensationScope("s")
        with pytest.raises(ValueError, match="no") as raised:
            async with scope:
                for n in 1, 2, 3:
                    await scope.register(undo, n, name="x")
                raise error
        assert raised.value is error
        name = undo.__qualname__
        assert error.__notes__ == [
            f"undo {name}(3, name='x') failed, attempt 1: OSError('cannot undo 3')",
            f"undo {name}(1, name='x') failed, attempt 1: OSError('cannot undo 1')",
        ]
        assert [entry.args for entry in scope.report.failures] == [(3,), (1,)]
        assert [entry.args for entry in scope.report.done] == [(2,)]

    run(main())


def test_an_exception_that_cannot_be_changed_propagates_with_its_notes() -> None:
    @dataclass(frozen=True)
    class Refused(Exception):
        code: int

    async def undo() -> None:
        raise OSError("still there")

    async def main() -> None:
        error = Refused(409)
        with pytest.raises(Refused) as raised:
            async with CompensationScope() as scope:
                await scope.register(undo)
                raise error
        assert raised.value is error
        assert [note[-22:] for note in error.__notes__] == ["OSError('still there')"]

    run(main())


def test_exits_of_nested_scopes_note_each_failure_once() -> None:
    async def undo(n: int) -> None:
        raise OSError(n)

    async def main() -> None:
        with pytest.raises(ValueError, match="no") as raised:
            async with CompensationScope() as outer:
                await outer.register(undo, 1)
                async with outer.child() as inner:
                    await inner.register(undo, 2)
                    raise ValueError("no")
        assert [note[-10:] for note in raised.value.__notes__] == ["OSError(2)", "OSError(1)"]

    run(main())


@pytest.mark.parametrize("how", ["committed", "absorbed"])
def test_leaving_a_scope_that_was_settled_inside(undone: Undone, how: str) -> None:
    async def main() -> None:
        outer = CompensationScope()
        for error in None, ValueError("late"):
            scope = outer.child()
            with suppress(ValueError):
                async with scope:
                    await scope.register(undone, 1)
                    if how == "committed":
                        await scope.commit()
                    else:
                        outer.absorb(scope)
                    if error is not None:
                        raise error
            assert scope.state == how
        await outer.commit()

    run(main())
    assert undone == []


def test_leaving_a_scope_waits_for_the_rollback_that_another_task_began(undone: Undone) -> None:
    async def main() -> None:
        scope = CompensationScope()
        async with scope:
            await scope.register(undone.slowly, 1)
            rollback = asyncio.create_task(scope.compensate())
            await asyncio.sleep(1)
        assert undone == [1]
        assert scope.state == "rolled back"
        await rollback

    run(main())


def test_a_scope_works_across_a_yield(undone: Undone) -> None:
    """An async generator that is closed half-way undoes before ``aclose()`` returns."""

    async def numbers() -> Any:
        async with CompensationScope() as scope:
            for n in range(3):
                await scope.register(undone.slowly, n)
                yield n

    async def main() -> None:
        reader = numbers()
        assert await anext(reader) == 0
        assert await anext(reader) == 1
        await reader.aclose()
        assert undone == [1, 0]

    run(main())


# Several tasks


def test_two_that_ask_get_the_same_report_and_each_action_runs_once(undone: Undone) -> None:
    async def main() -> None:
        scope = CompensationScope()
        await scope.register(undone.slowly, 1)
        await scope.register(undone.slowly, 2)
        first, second = await asyncio.gather(scope.compensate(), scope.compensate())
        assert first is second
        assert await scope.compensate() is first
        assert scope.report is first
        assert now() == 20

    run(main())
    assert undone == [2, 1]


def test_a_parent_waits_for_the_rollback_of_a_child_and_both_get_their_report(
    undone: Undone,
) -> None:
    async def main() -> None:
        root = CompensationScope("root")
        child = root.child("child")
        await root.register(undone.slowly, "root")
        await child.register(undone.slowly, "child")
        inner = asyncio.create_task(child.compensate())
        await asyncio.sleep(1)
        outer = asyncio.create_task(root.compensate())
        again = asyncio.create_task(child.compensate())
        assert [entry.args for entry in (await inner).done] == [("child",)]
        assert now() == 10
        assert [entry.args for entry in (await outer).done] == [("root",)]
        assert now() == 20
        assert await again is await inner

    run(main())
    assert undone == ["child", "root"]


def test_a_parent_that_rolls_back_closes_a_child_that_was_to_stay_open(undone: Undone) -> None:
    async def main() -> None:
        root = CompensationScope("root")
        child = root.child("child")
        await root.register(undone.slowly, "root")
        await child.register(undone.slowly, "child")
        inner = asyncio.create_task(commit_or_roll_back(child, keep=False))
        await asyncio.sleep(1)
        await root.compensate()
        assert [entry.args for entry in (await inner).done] == [("child",)]
        assert child.state == "rolled back"

    run(main())
    assert undone == ["child", "root"]


@pytest.mark.parametrize("keep", [True, False])
def test_settling_a_parent_closes_a_child_that_was_to_stay_open(undone: Undone, keep: bool) -> None:
    async def main() -> None:
        root = CompensationScope("root")
        child = root.child("child")
        await child.register(undone.slowly, "child")
        inner = asyncio.create_task(commit_or_roll_back(child, keep=False))
        await asyncio.sleep(1)
        await commit_or_roll_back(root, keep=keep)
        assert now() == (1 if keep else 10)
        await inner
        assert child.closed
        assert not root.closed

    run(main())


def test_closing_while_the_rollback_was_to_leave_it_open(undone: Undone) -> None:
    async def main() -> None:
        scope = CompensationScope()
        await scope.register(undone.slowly, 1)
        kept_open = asyncio.create_task(commit_or_roll_back(scope, keep=False))
        await asyncio.sleep(1)
        assert await scope.compensate() is await kept_open
        assert scope.state == "rolled back"

    run(main())
    assert undone == [1]


def test_a_child_that_was_undone_with_its_parent_gives_the_parent_s_report(undone: Undone) -> None:
    async def main() -> None:
        root = CompensationScope()
        child = root.child()
        await child.register(undone.slowly, 1)
        outer = asyncio.create_task(root.compensate())
        await asyncio.sleep(1)
        with pytest.raises(ScopeClosed):
            await child.register(undone, 2)
        assert await child.compensate() is await outer
        assert now() == 10

    run(main())


@pytest.mark.parametrize("as_one", [True, False])
def test_a_rollback_under_way_inside_is_taken_over(undone: Undone, as_one: bool) -> None:
    """The scope that absorbs waits for it, like the one that it began under."""

    async def main() -> None:
        root = CompensationScope("root")
        child = root.child("child")
        inner = child.child("inner")
        await child.register(undone, "child")
        await inner.register(undone.slowly, "inner")
        rollback = asyncio.create_task(commit_or_roll_back(inner, keep=False))
        await asyncio.sleep(1)
        root.absorb(child, as_one=as_one)
        if as_one:
            await root.compensate()
            assert inner.state == "rolled back"
        else:
            await rollback
            await inner.register(undone, "inner again")  # it was taken over open
            await root.compensate()
        await rollback

    run(main())
    assert undone == (["inner", "child"] if as_one else ["inner", "inner again", "child"])


def test_a_rollback_under_way_deep_inside_is_taken_over_for_good(undone: Undone) -> None:
    """With ``as_one`` it was to stay open, and does not: nothing can be added to a block."""

    async def main() -> None:
        root = CompensationScope("root")
        child = root.child("child")
        deep = child.child("open").child("deep")
        await child.register(undone, "child")
        await deep.register(undone.slowly, "deep")
        rollback = asyncio.create_task(commit_or_roll_back(deep, keep=False))
        await asyncio.sleep(1)
        root.absorb(child, as_one=True)
        both = asyncio.create_task(commit_or_roll_back(root, keep=False))
        await asyncio.sleep(1)
        assert undone == []  # it waits for the one inside
        await both
        await rollback
        assert deep.state == "rolled back"

        other = root.child("other")
        deep = other.child("deep")
        await deep.register(undone.slowly, "again")
        rollback = asyncio.create_task(commit_or_roll_back(deep, keep=False))
        await asyncio.sleep(1)
        root.absorb(other, as_one=True)
        await rollback
        assert deep.state == "rolled back"
        await root.commit()

    run(main())
    assert undone == ["deep", "child", "again"]


def test_what_a_scope_undid_before_is_not_reported_when_it_is_left(undone: Undone) -> None:
    async def gone() -> None:
        raise OSError

    async def main() -> None:
        error = ValueError("late")
        with pytest.raises(ValueError, match="late"):
            async with CompensationScope() as scope:
                await scope.register(gone)
                report = await commit_or_roll_back(scope, keep=False)
                assert len(report.failures) == 1
                await scope.register(undone, 1)
                await scope.commit()
                raise error
        assert not hasattr(error, "__notes__")
        assert await scope.compensate() == CompensationReport()

    run(main())
    assert undone == []


def test_a_rollback_with_an_eager_task_factory(undone: Undone) -> None:
    """Each undo then begins inside the call that starts the rollback."""
    factory = getattr(asyncio, "eager_task_factory", None)
    if factory is None:
        pytest.skip("Python 3.12 has it")

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(factory)
        scope = CompensationScope()

        async def ask_again() -> None:
            assert scope.closed
            assert len(scope) == 0
            undone.append("eager")

        await scope.register(ask_again)
        await scope.register(undone, 1)
        await scope.register(ask_again)
        await scope.compensate()

    run(main())
    assert undone == ["eager", 1, "eager"]


# Registries


def test_a_registry_knows_its_compensations_by_name() -> None:
    registry = CompensationRegistry()
    policy = RetryPolicy(attempts=5)

    @registry.compensation("delete", retry=policy, timeout=3)
    async def delete(key: str) -> int:
        """Delete it."""
        return len(key)

    assert isinstance(delete, Compensation)
    assert dict(registry) == {"delete": delete}
    assert len(registry) == 1
    assert "delete" in registry
    assert registry.get("update") is None
    assert (delete.name, delete.retry, delete.timeout) == ("delete", policy, 3)
    assert delete.__doc__ == "Delete it."
    assert repr(delete) == "<compensation 'delete'>"

    async def main() -> None:
        assert await delete("abc") == 3  # still callable

    run(main())


def test_names_and_times_are_checked_at_the_call() -> None:
    registry = CompensationRegistry()

    async def undo() -> None: ...

    with pytest.raises(InvalidArgument, match="needs a name"):
        registry.compensation("")
    for timeout in (0, math.nan, True, timedelta(0)):
        with pytest.raises(InvalidArgument, match="timeout"):
            registry.compensation("a", timeout=timeout)
        with pytest.raises(InvalidArgument, match="timeout"):
            Compensation("a", undo, RetryPolicy(), timeout)
    made = CompensationRegistry().compensation("a", timeout=timedelta(seconds=2))(undo)
    assert made.timeout == 2.0
    registry.compensation("a")(undo)
    with pytest.raises(InvalidArgument, match="'a' is registered already"):
        registry.compensation("a")(undo)
    CompensationRegistry().compensation("a")(undo)  # another registry, another name
    assert list(registry) == ["a"]


def test_a_function_s_own_attributes_do_not_get_in_the_way() -> None:
    """Tenacity's decorator sets ``retry`` on the function, for one."""
    registry = CompensationRegistry()

    @registry.compensation("undo")
    @tenacity.retry(wait=tenacity.wait_none(), stop=tenacity.stop_after_attempt(2))
    async def undo() -> None: ...

    assert undo.retry == RetryPolicy(attempts=1)

    async def main() -> None:
        scope = CompensationScope()
        await scope.register(undo)
        report = await scope.compensate()
        assert [entry.name for entry in report.done] == ["undo"]

    run(main())


def test_names_in_reports_are_those_of_the_functions() -> None:
    registry = CompensationRegistry()

    @registry.compensation("by-name", retry=RetryPolicy(attempts=2, wait=1))
    async def known(n: int) -> None:
        raise OSError

    async def plain(n: int) -> None: ...

    async def main() -> None:
        scope = CompensationScope()
        await scope.register(known, 1)
        await scope.register(functools.partial(known, 2))
        await scope.register(plain, 3)
        await scope.register(functools.partial(functools.partial(plain), 4))
        await scope.register(lambda: plain(5))
        await scope.register(Undone(), 6)
        report = await scope.compensate()
        here = "test_names_in_reports_are_those_of_the_functions.<locals>"
        assert [str(entry) for entry in report.done] == [
            "Undone(6)",
            f"{here}.main.<locals>.<lambda>()",
            f"{here}.plain()",
            f"{here}.plain(3)",
        ]
        # A partial of a compensation is still the compensation, with its retries.
        assert [(str(e), e.attempts) for e in report.failures] == [
            ("by-name()", 2),
            ("by-name(1)", 2),
        ]

    run(main())


# Scopes that are dropped


def messages_of(caught: list[warnings.WarningMessage]) -> list[str]:
    return [str(w.message) for w in caught if w.category is ResourceWarning]


def dropped(path: str, *actions: str) -> str:
    return (
        f"scope {path!r} was dropped with {len(actions)} action(s) neither committed nor undone: "
        + ", ".join(actions)
    )


def test_a_scope_that_python_refuses_to_make_is_dropped_in_silence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its ``__init__`` is not run; only the ``TypeError`` is of interest."""
    ignored: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", ignored.append)
    make: Any = CompensationScope
    for wrong in ({"parent": None}, {"order": "forwards"}):
        with pytest.raises((TypeError, InvalidArgument)):
            make("upload", **wrong)
    assert ignored == []


def test_a_dropped_scope_says_what_was_not_undone(undone: Undone) -> None:
    async def main() -> None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            scope = CompensationScope("upload")
            await scope.register(undone, "a.txt")
            await scope.register(undone, "b.txt")
            del scope  # at once, and not when cycles are collected
            assert messages_of(caught) == [dropped("upload", "Undone('b.txt')", "Undone('a.txt')")]

    run(main())


def test_dropped_children_and_absorbed_actions_are_named_too(undone: Undone) -> None:
    async def main() -> None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            root = CompensationScope("root")
            child, held = root.child("child"), detached(root, "held")
            await child.register(undone, 1)
            await held.register(undone, 2)
            root.absorb(held, as_one=True)
            del root, child, held
            gc.collect()
            assert sorted(messages_of(caught)) == [
                dropped("root", "Undone(2)"),
                dropped("root/child", "Undone(1)"),
            ]

    run(main())


def test_a_settled_scope_is_dropped_in_silence(undone: Undone) -> None:
    async def main() -> None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for settle in "commit", "compensate", "absorb":
                outer = CompensationScope()
                scope = outer.child()
                await scope.register(undone, 1)
                if settle == "absorb":
                    outer.absorb(scope)
                    await outer.commit()
                else:
                    await getattr(scope, settle)()
                del scope, outer
            _ = CompensationScope()
            with pytest.raises(InvalidArgument):
                CompensationScope(timeout=-1)  # never began to be one
            gc.collect()
            assert messages_of(caught) == []

    run(main())


@memory_only  # a journal is used in a loop
def test_without_a_loop_a_rollback_fails_and_the_warning_stays(undone: Undone) -> None:
    """A coroutine that is dropped after its loop: it must not look as if all had been undone."""

    async def work() -> None:
        async with CompensationScope("late") as scope:
            await scope.register(undone, 1)
            raise ValueError

    def drop() -> None:
        with pytest.raises(RuntimeError, match="no running event loop"):
            work().send(None)
        gc.collect()

    with pytest.warns(ResourceWarning, match="'late'"):
        drop()

"""Whether a suspended coroutine or generator is in a ``finally`` suite.

A source that has ended by itself, or has failed, may be in its clean-up when its stream is closed.
From outside it looks like one that waits for its next item: in both cases its task waits inside
``anext()``. Only the place at which it is suspended tells them apart.

The compiler emits a ``finally`` suite twice, at the same positions of the source text: for a body
that was left normally, and as the handler of any exception. So a frame is in a ``finally`` suite if
it is suspended at a position of such a handler. Opcodes are details of CPython; these are the same
in 3.11 to 3.13. Where none is recognized, no clean-up is: a close then cancels it, as asyncio does.

Not recognized on purpose: ``except`` suites, which may wait before they try again, and
``__aexit__``, as that of a task group may wait forever.
"""

# The types of what a coroutine awaits have no parameters.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import dis
import gc
import weakref
from collections.abc import AsyncGenerator
from itertools import islice
from types import AsyncGeneratorType, CodeType, CoroutineType, FrameType, GeneratorType
from typing import Any, Final, TypeAlias

__all__ = ["is_cleaning_up", "unwrapped"]

_Position: TypeAlias = "tuple[int | None, int | None, int | None, int | None]"

_JUMPS: Final = frozenset([*dis.hasjrel, *dis.hasjabs])
# What follows one of these may be a handler, or not: that depends on the version of Python.
# JUMP_BACKWARD_NO_INTERRUPT is left out, because SEND jumps to what follows it anyway.
_NEVER_CONTINUE: Final = frozenset(
    {
        "JUMP_BACKWARD",
        "JUMP_FORWARD",
        "RAISE_VARARGS",
        "RERAISE",
        "RETURN_CONST",
        "RETURN_VALUE",
    }
)
# A handler that reaches one of these is that of an ``except`` or a ``with``.
_OF_NO_FINALLY: Final = frozenset({"CHECK_EG_MATCH", "CHECK_EXC_MATCH", "WITH_EXCEPT_START"})

_WRAPPED: Final = frozenset([AsyncGeneratorType, CoroutineType])


def _wrappers() -> frozenset[type]:
    """Return the types through which generators and coroutines are awaited."""

    async def generator() -> AsyncGenerator[None, None]:
        yield

    async def coroutine() -> None: ...

    waiting = coroutine()
    wrappers = generator().__anext__(), generator().athrow(GeneratorExit), waiting.__await__()
    waiting.close()
    for wrapper in wrappers[:2]:
        wrapper.close()
    return frozenset(map(type, wrappers))


_WRAPPERS: Final = _wrappers()

# Where the ``finally`` suites of a code object wait. By identity: to hash a code object takes long.
_known: Final[dict[int, tuple[weakref.ref[CodeType], frozenset[_Position]]]] = {}


def is_cleaning_up(suspended: object) -> bool:
    """Return whether a frame is in a ``finally`` suite, from a coroutine to what it waits for.

    Args:
        suspended: A coroutine or an async generator that does not run at this moment. Any other
            object is not cleaning up.
    """
    at: Any = suspended
    while at is not None:
        # The attribute of the frame is read only if needed: that makes an object.
        kind = type(at)
        if kind is CoroutineType:
            _, waits = _known.get(id(at.cr_code)) or _learnt(at.cr_code)
            if waits and _is_at(at.cr_frame, waits):
                return True
            at = at.cr_await
        elif kind is AsyncGeneratorType:
            _, waits = _known.get(id(at.ag_code)) or _learnt(at.ag_code)
            if waits and _is_at(at.ag_frame, waits):
                return True
            at = at.ag_await
        elif kind is GeneratorType:
            at = at.gi_yieldfrom
        elif kind in _WRAPPERS:
            at = unwrapped(at)
        else:
            return False  # most chains end with a future
    return False


def unwrapped(awaited: object) -> object:
    """Return the coroutine or generator through whose wrapper another one awaits it."""
    if type(awaited) not in _WRAPPERS:
        return awaited
    # No attribute refers to what it wraps, but the collector knows.
    wrapped = [each for each in gc.get_referents(awaited) if type(each) in _WRAPPED]
    return wrapped[0] if wrapped else None


def _is_at(frame: FrameType | None, waits: frozenset[_Position]) -> bool:
    if frame is None:
        return False  # it has ended
    unit = frame.f_lasti // 2  # instructions are counted in units of two bytes
    return next(islice(frame.f_code.co_positions(), unit, None), None) in waits


def _learnt(code: CodeType) -> tuple[weakref.ref[CodeType], frozenset[_Position]]:
    """Find the waits of a code object, and keep them for as long as it exists."""
    key = id(code)
    reference = weakref.ref(code, lambda _: _known.pop(key, None))
    _known[key] = known = reference, _waits_in_finally(code)
    return known


def _waits_in_finally(code: CodeType) -> frozenset[_Position]:
    """Return the positions of all waits in ``finally`` suites."""
    instructions = [*dis.get_instructions(code)]
    waits: set[_Position] = set()
    without_exceptions = _reached(instructions, 0)
    for n, instruction in enumerate(instructions[:-1]):
        if instruction.opname != "PUSH_EXC_INFO":  # with which each handler begins
            continue
        if instructions[n + 1].opname == "POP_TOP":
            continue  # ``except:``
        # A handler may jump into a loop around it, by ``continue``: that is not part of it.
        handler = [instructions[i] for i in _reached(instructions, n) - without_exceptions]
        if _OF_NO_FINALLY.isdisjoint([each.opname for each in handler]):
            waits.update([_position(each) for each in handler if each.opname == "SEND"])
    return frozenset(waits)


def _reached(instructions: list[dis.Instruction], start: int) -> set[int]:
    """Return what may be executed after an instruction, if nothing is raised."""
    indices = {instruction.offset: n for n, instruction in enumerate(instructions)}
    reached: set[int] = set()
    starts = [start]
    while starts:
        n = starts.pop()
        while n < len(instructions) and n not in reached:
            reached.add(n)
            instruction = instructions[n]
            if instruction.opcode in _JUMPS:
                starts.append(indices[instruction.argval])
            if instruction.opname in _NEVER_CONTINUE:
                break
            n += 1
    return reached


def _position(instruction: dis.Instruction) -> _Position:
    positions = instruction.positions
    assert positions is not None
    line, end_line, column, end_column = positions
    return line, end_line, column, end_column

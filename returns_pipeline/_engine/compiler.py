"""From the kinds of a chain's steps to one function that runs them all: a generator or a coroutine.

The function is made of source text, as attrs and dataclasses make methods: the templates of the
steps and of the end, one after the other. So a step costs what it would cost in a loop by hand, and
a failure jumps over the steps after it. There is one function for each *shape*, the kinds of the
steps and the end. The user's functions are its arguments: no text of the user's is in it.

    async def map_bind_collect(opening, steps, owned):
        (
            (_, func1, extra1),
            (_, func2, extra2),
        ) = steps
        values = []
        async with opening as items:
            async for value in items:
                # Step 1: map
                value = func1(value)
                # Step 2: bind
                result = func2(value)
                if result.__class__ is Success:
                    value = result._inner_value
                else:
                    error = error_of(result, extra2)
                    return Failure(error)
                values.append(value)
        return Success(values)

Before a step about errors, the steps for values are a block to be left early::

                failed = False
                while not failed:
                    ...             # FAIL is: failed = True; break
                    break
                if failed:
                    error = func3(error)

The text is in `linecache`: tracebacks show its lines, and a debugger steps through it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import linecache
import re
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from textwrap import indent
from types import CoroutineType
from typing import Any, Final

from returns.primitives.container import BaseContainer
from returns.result import Failure, Success

from returns_pipeline._engine.budget import Budget
from returns_pipeline._engine.checks import truth
from returns_pipeline._engine.ends import End
from returns_pipeline._engine.future_results import LOST, failure_of, refuse_lost, unpacked
from returns_pipeline._engine.marks import Mark
from returns_pipeline._engine.steps import SPLIT, Failed, Kind, error_of
from returns_pipeline._engine.task_owner import was_stopped
from returns_pipeline._engine.tracebacks import CHAIN_FILE
from returns_pipeline.errors import StreamEmpty

__all__ = [
    "BATCHED",
    "DROPPED",
    "MARKED",
    "ONE",
    "SINGLE",
    "SLICED",
    "Form",
    "compiled",
    "source_text",
]

# How many shapes are kept. A program has as many as it has chains in its text; one that makes
# chains of random shapes compiles some of them again.
_MOST_SHAPES: Final = 512
# How many steps a name tells.
_MOST_NAMED: Final = 8

_numbers = itertools.count(1)  # for the names of long chains


class Drops:
    """Yield to other tasks while items are dropped: nobody waits for those.

    Args:
        owned: Whether a segment reads the chain, in a task of its own.
    """

    __slots__ = ("_budget", "_owned")

    def __init__(self, owned: bool) -> None:
        self._owned = owned
        self._budget: Budget | None = None

    async def renew(self) -> int:
        """Return how many items may be dropped until the next call.

        0 means that the chain must end: its task was stopped, and the source has swallowed the
        cancellation.
        """
        self._budget = self._budget or Budget(asyncio.get_running_loop())
        left = await self._budget.renew()
        return 0 if self._owned and was_stopped() else left


DROPPED: Final = object()  # what is returned for `ONE` item that was dropped

# What the templates use.
NAMES: Final[dict[str, Any]] = {
    "__name__": __name__,
    "CoroutineType": CoroutineType,
    "DROPPED": DROPPED,
    "Drops": Drops,
    "EMPTY": object(),
    "Failed": Failed,
    "Failure": Failure,
    "LOST": LOST,
    "Mark": Mark,
    "StreamEmpty": StreamEmpty,
    "Success": Success,
    "error_of": error_of,
    "failure_of": failure_of,
    "new": Success.__new__,
    "refuse_lost": refuse_lost,
    "set_value": vars(BaseContainer)["_inner_value"].__set__,
    "truth": truth,
    "unpacked": unpacked,
}


@dataclass(slots=True, eq=False, repr=False)
class Form:
    """A form in which items come.

    Attributes:
        name: For the name of the compiled function.
        drop: The code that drops an item.
        batched: Whether they come in lists.
        marked: Whether marks are among them.
        lines: What lines of capitals in the code of an `End` stand for.
    """

    name: str
    drop: str
    batched: bool = False
    marked: bool = False
    lines: dict[str, str] = field(default_factory=dict[str, str])


_OPEN: Final = "if self.closed:\n    return\n"
_WAIT: Final = "await waiting\nif self.stopping:\n    return\n"

# One after the other. A loop that drops items counts them.
_COUNT: Final = """\
left -= 1
if not left:
    left = await drops.renew()
    if not left:
        break
"""
_LINES: Final = {
    "OPEN": _OPEN,
    "MARK": "",
    "WAIT": _WAIT,
    "NEXT": _COUNT,
}
SINGLE: Final = Form("", f"{_COUNT}continue\n", lines=_LINES)
# One after the other, with marks among them. Only chains of marked sources pay for that.
MARKED: Final = Form("marked", SINGLE.drop, marked=True, lines=_LINES)
# In lists that are short enough for other tasks to run between them.
BATCHED: Final = Form(
    "batches", "continue\n", batched=True, lines={**_LINES, "OPEN": "", "NEXT": ""}
)
# In such lists that know the marks after their items, and marks between them. A part that waits
# emits the marks of what it has handled before.
SLICED: Final = Form(
    "slices",
    "continue\n",
    batched=True,
    marked=True,
    lines={
        "OPEN": "",
        "MARK": "if dropped:\n    self.on_mark_after(batch, dropped)\n    dropped = 0\n",
        "WAIT": f"""\
self.on_mark_after(batch, batch.begun(each) - 1)
await waiting
done = batch.begun(each)
self.on_mark_after(batch, done)
{_WAIT.partition(chr(10))[2]}""",
        "NEXT": "",
    },
)
# One, which has arrived: the function is a coroutine that returns what a generator would emit.
ONE: Final = Form("one", "return DROPPED\n", lines=_LINES)


# How a loop over a slice begins. Nothing of it is kept while the source waits.
_SLICE: Final = """\
batch, each, done = value, iter(value), 0
SLICE
value = batch = each = None
"""


@functools.lru_cache(_MOST_SHAPES)
def compiled(end: End, kinds: tuple[Kind, ...], form: Form = SINGLE, /) -> Callable[..., Any]:
    """Return the function of a shape.

    It takes the context manager that opens the source, the steps, whether a segment reads it, in a
    task of its own, and what the end takes.
    """
    names = [kind.name for kind in kinds]
    if len(names) > _MOST_NAMED:
        left_out = f"and_{len(names) - _MOST_NAMED}_more"
        names = [*names[:_MOST_NAMED], left_out, f"no{next(_numbers)}"]
    names = [name for name in [form.name, *names, end.name] if name]
    text = source_text("_".join(names), end, kinds, form)
    file = f"{CHAIN_FILE}{'-'.join(names)}>"
    made: dict[str, Any] = {}
    exec(compile(text, file, "exec", dont_inherit=True), NAMES, made)  # noqa: S102  # the text is our own
    [function] = made.values()
    lines = (len(text), None, text.splitlines(keepends=True), file)
    linecache.cache[file] = lines
    # The code lives as long as any generator, frame or traceback that shows it.
    weakref.finalize(function.__code__, _forget, file, lines).atexit = False
    return function  # type: ignore[no-any-return]


def _forget(file: str, lines: tuple[object, ...]) -> None:
    """Remove the text of a function from `linecache`, unless the same was compiled again."""
    if linecache.cache.get(file) is lines:
        with contextlib.suppress(KeyError):  # another thread's
            del linecache.cache[file]


def source_text(name: str, end: End, kinds: tuple[Kind, ...], form: Form = SINGLE, /) -> str:
    """Return the source text of the function for a shape."""
    assigned = "".join([f"    (_, func{n}, extra{n}),\n" for n in range(1, len(kinds) + 1)])
    assigned = f"(\n{assigned}) = steps\n" if kinds else ""
    drop = _line_ended(end.on_drop) + form.drop if form is SLICED else form.drop
    lines = {**form.lines, "DROP": drop}
    if form is ONE:
        body = _body(_returning(end), kinds, lines)
        return f"async def {name}(steps, value):\n{_indented(assigned + body)}"
    body = _body(end, kinds, lines)
    if form in {SINGLE, MARKED} and kinds[:1] == (SPLIT,):
        # What a segment emits may be large, as a window is: it is not kept until the next one.
        body += "value = result = None\n"
    begin, finish = end.begin, end.finish
    on_mark = _filled(end.on_mark, {"DROP": form.drop})
    whole = end.slice if form.marked else (not kinds and end.no_steps) or end.batch
    if form.marked and end.holds_marks:
        begin = f"marks = {{}}\n{begin}"
        on_mark = "marks[value.source] = value\ncontinue"
        finish = f"for mark in marks.values():\n    mark.reached()\n{finish}"
        whole = "EACH\nmarks[batch.source] = batch.after(done)"
    on_mark = f"if value.__class__ is Mark:\n{_indented(on_mark)}"
    if form is SLICED:
        each = f"for value in each:\n{_indented(body)}"
        each = _filled(whole, {**lines, "EACH": f"{each}done = len(batch)\n"})
        each = _filled(_SLICE, {"SLICE": each})
        loop = f"async for value in items:\n{_indented(on_mark)}{_indented(each)}"
    elif form.batched:
        each = _filled(whole, {**lines, "EACH": f"for value in batch:\n{_indented(body)}"})
        loop = f"async for batch in items:\n{_indented(each)}"
    else:
        body = on_mark + body if form.marked else body
        loop = f"async for value in items:\n{_indented(body)}"
    if "drops" in body:
        drops = "self" if "self" in end.args else "Drops(owned)"
        begin = f"left, drops = 1, {drops}\n{begin}"
    parameters = ", ".join(["opening", "steps", "owned", *end.args])
    return (
        f"async def {name}({parameters}):\n"
        f"{_indented(assigned + begin)}"
        "    async with opening as items:\n"
        f"{_indented(loop, 2)}"
        f"{_indented(finish)}"
    )


def _returning(end: End) -> End:
    """Return an end that returns what a generator would emit."""
    value, error, result = [
        code.replace("yield", "return") for code in (end.on_value, end.on_error, end.on_result)
    ]
    return replace(end, on_value=value, on_error=error, on_result=result)


def _body(end: End, kinds: tuple[Kind, ...], lines: dict[str, str]) -> str:
    """Return the code for one item."""
    fail = _filled(end.on_error, lines)
    if "return" not in fail:
        fail += "continue\n"
    text = block = ""
    for number, kind in enumerate(kinds, 1):
        on_value, on_error = [
            re.sub(r"\b(func|extra)\b", rf"\g<1>{number}", template)
            for template in (kind.on_value, kind.on_error)
        ]
        title = f"# {kind.name}\n"
        if not on_error:
            block += title + _line_ended(on_value)
            continue
        text += f"{_left_early(block, lines['DROP'])}{title}if failed:\n{_indented(on_error)}"
        if on_value:
            text += f"else:\n{_indented(on_value)}"
        block = ""
    if any(kind.on_error for kind in kinds):
        text = f"failed = False\n{text}if failed:\n{_indented(fail)}"
    is_kept = kinds and kinds[-1].keeps_result
    block += (end.on_result if is_kept else "") or end.on_value
    return text + _filled(block, {**lines, "FAIL": fail})


def _left_early(block: str, drop: str) -> str:
    """Return a block that a failure, or an item that is dropped, leaves."""
    if not block:
        return ""
    leave = {"FAIL": "failed = True\nbreak\n", "DROP": "failed = None\nbreak\n"}
    block = _filled(f"{block}break", leave)
    text = f"while not failed:\n{_indented(block)}"
    if "failed = None" in block:
        text += f"if failed is None:\n{_indented(drop)}"
    return text


def _filled(template: str, codes: dict[str, str]) -> str:
    """Put code in the place of the lines that stand for it."""
    return re.sub(
        rf"^( *)({'|'.join(codes)})$\n?",
        lambda found: indent(codes[found[2]], found[1]),
        _line_ended(template),
        flags=re.MULTILINE,
    )


def _indented(code: str, by: int = 1) -> str:
    return indent(_line_ended(code), "    " * by)


def _line_ended(code: str) -> str:
    return code if not code or code.endswith("\n") else f"{code}\n"

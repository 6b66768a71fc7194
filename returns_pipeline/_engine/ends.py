"""How a compiled chain ends: what becomes of a value, and of an error, that left its last step.

Each end is code in the form of a template, as that of a step is (see `steps.Kind`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from textwrap import indent
from typing import Final

__all__ = ["End"]


@dataclass(slots=True, eq=False, repr=False)
class End:
    """An end of a chain. With a ``yield`` in it the chain is a generator, else a coroutine.

    Attributes:
        name: For the name of the compiled function.
        on_value: The code for a value.
        on_error: The code for the error of a failure.
        begin: Comes first.
        finish: Comes last, when the source is closed.
        on_result: In place of ``on_value``, if the value is still in a `Success`, ``result``.
        on_mark: The code for a mark, if the chain is marked; by default it is dropped.
        holds_marks: Whether marks are reached when all is done, in place of ``on_mark``: until then
            the values are in no other hand.
        batch: The code for a batch, if items come in batches: in the place of its line ``EACH`` is
            the loop over them.
        slice: The same for a `MarkedSlice`, ``batch``; ``each`` is its iterator. The loop sets
            ``done`` to the number of items when it has ended. Without it, items come one by one.
        on_drop: The code for an item of a slice that is dropped.
        args: The names of further parameters.
    """

    name: str
    on_value: str
    on_error: str
    begin: str = ""
    finish: str = ""
    on_result: str = ""
    on_mark: str = "DROP"
    holds_marks: bool = False
    batch: str = "EACH"
    slice: str = ""
    on_drop: str = ""
    args: tuple[str, ...] = ()


_REACHED: Final = "value.reached()\ncontinue"
# A loop that is left early leaves the item that it has begun with.
_REACHED_IN_SLICE: Final = """\
try:
    EACH
finally:
    batch.reached(done or batch.begun(each) - 1)
"""
_HELD_IN_SLICE: Final = "EACH\nmarks[batch.source] = batch.after(done)"

# Generators. Where the items go to a loop of the user's, which tells nobody when one was handled,
# marks are dropped.
ITEMS: Final = End("items", "yield value", "yield Failed(error)", on_mark="yield value\ncontinue")
RESULTS: Final = End(
    "results",
    # What Success(value) does, without the calls of two __init__, which are two thirds of its cost.
    "made = new(Success)\nset_value(made, value)\nyield made",
    "yield Failure(error)",
    on_result="yield result",
)
# For a broadcast, which passes marks to its branches.
RESULTS_AND_MARKS: Final = replace(RESULTS, on_mark=ITEMS.on_mark)
# Lists of values, and what is not a value in its place, by itself. An exception comes after the
# values before it, as it does if they come one by one. The reader copies a list at once: no item is
# held while the source waits.
BATCHES: Final = End(
    "batches",
    "values.append(value)",
    """\
if values:
    ready, values = values, []
    yield ready
    ready.clear()
yield Failed(error)
""",
    batch="""\
values = []
try:
    EACH
finally:
    if values:
        yield values
        values.clear()
""",
)
# The same with marks: after the values of a slice, after a failure, and before both if all items
# until then were dropped. Others would change nothing: the reader has room for the whole slice.
_EMIT_VALUES: Final = """\
if passed:
    yield batch.after(passed)
if values:
    ready, values = values, []
    yield ready
    ready.clear()
"""
MARKED_BATCHES: Final = End(
    "batches",
    "values.append(value)",
    f"""\
emitting, begun = True, batch.begun(each)
{_EMIT_VALUES}    yield batch.after(begun - 1)
yield Failed(error)
yield batch.after(begun)
emitting, passed = False, 0
""",
    on_mark=ITEMS.on_mark,
    slice=f"""\
values, passed, emitting = [], 0, False
try:
    EACH
finally:
    if not emitting:  # else it is being closed
        done = done or batch.begun(each) - 1
{indent(_EMIT_VALUES, " " * 8)}        if done > passed:
            yield batch.after(done)
""",
    on_drop="if not values:\n    passed = batch.begun(each)",
)
# Lists of Results.
RESULT_BATCHES: Final = End(
    "result_batches",
    "made = new(Success)\nset_value(made, value)\nvalues.append(made)",
    "values.append(Failure(error))",
    on_result="values.append(result)",
    batch=BATCHES.batch,
)
VALUES: Final = End("values", "yield value", "DROP")
ERRORS: Final = End(
    "errors",
    "DROP",
    "yield error",
    finish="return\nyield  # no step may be able to fail, and this is a generator nevertheless",
)

# Coroutines: the terminals of `ResultStream`.
COLLECT: Final = End(
    "collect",
    "values.append(value)",
    "return Failure(error)",
    begin="values = []",
    finish="return Success(values)",
    holds_marks=True,
    slice=_HELD_IN_SLICE,
)
PARTITION: Final = End(
    "partition",
    "values.append(value)",
    "errors.append(error)",
    begin="values, errors = [], []",
    finish="return values, errors",
    holds_marks=True,
    slice=_HELD_IN_SLICE,
)
FOR_EACH: Final = End(
    "for_each",
    """\
given = use(value)
if given is not None and (failure := await failure_of(given)) is not None:
    return failure
successes += 1
""",
    "return Failure(error)",
    begin="successes = 0",
    finish="return Success(successes)",
    args=("use",),
    on_mark=_REACHED,
)
FOR_EACH_ALL: Final = End(
    "for_each_all",
    """\
given = use(value)
if given is not None and await failure_of(given) is not None:
    failures += 1
else:
    successes += 1
""",
    "failures += 1",
    begin="successes = failures = 0",
    finish="return successes, failures",
    args=("use",),
    on_mark=_REACHED,
)
FOLD: Final = End(
    "fold",
    """\
given = combine(folded, value)
folded = await given if given.__class__ is CoroutineType else given
""",
    "return Failure(error)",
    finish="return Success(folded)",
    args=("folded", "combine"),
    holds_marks=True,
)
FIRST: Final = End(
    "first",
    "return Success(value)",
    "return Failure(error)",
    finish="return Failure(StreamEmpty())",
    on_mark=_REACHED,
)
LAST: Final = End(
    "last",
    "last = value",
    "return Failure(error)",
    begin="last = EMPTY",
    finish="return Failure(StreamEmpty()) if last is EMPTY else Success(last)",
    holds_marks=True,
    slice=_HELD_IN_SLICE,
)
_REFUSE_LOST: Final = """\
if value.__class__ in LOST:
    refuse_lost(value, "the last step", "bind() or bind_async() for it")
successes += 1
"""
RUN: Final = End(
    "run",
    _REFUSE_LOST,
    "return Failure(error)",
    begin="successes = 0",
    finish="return Success(successes)",
    on_mark=_REACHED,
    slice=_REACHED_IN_SLICE,
)
RUN_ALL: Final = End(
    "run_all",
    _REFUSE_LOST,
    "failures += 1",
    begin="successes = failures = 0",
    finish="return successes, failures",
    on_mark=_REACHED,
    slice=_REACHED_IN_SLICE,
)

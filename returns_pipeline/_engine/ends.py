"""How a compiled chain ends: what becomes of a value, and of an error, that left its last step.

Each end is code in the form of a template, as that of a step is (see `steps.Kind`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from returns_pipeline._engine import steps

__all__ = ["End", "window"]


_REACHED: Final = "value.reached()\ncontinue"
# A loop that is left early leaves the item that it has begun with.
_REACHED_IN_SLICE: Final = """\
try:
    EACH
finally:
    batch.reached(done or batch.begun(each) - 1)
"""


@dataclass(slots=True, eq=False, repr=False)
class End:
    """An end of a chain. With a ``yield`` in it the chain is a generator, else a coroutine.

    Lines of capitals stand for code that depends on the form in which items come: see `compiler`.

    Attributes:
        name: For the name of the compiled function.
        on_value: The code for a value.
        on_error: The code for the error of a failure.
        begin: Comes first.
        finish: Comes last, when the source is closed.
        on_result: In place of ``on_value``, if the value is still in a `Success`, ``result``.
        on_mark: The code for a mark, if the chain is marked.
        holds_marks: Whether marks are reached when all is done, in place of ``on_mark``: until then
            the values are in no other hand.
        batch: The code for a batch, if items come in batches: in the place of its line ``EACH`` is
            the loop over them.
        no_steps: In place of ``batch``, if the chain has no steps.
        slice: The same for a `MarkedSlice`, ``batch``; ``each`` is its iterator. The loop sets
            ``done`` to the number of items when it has ended. If empty, items come one by one.
        on_drop: The code for an item of a slice that is dropped.
        args: The names of further parameters.
    """

    name: str
    on_value: str
    on_error: str
    begin: str = ""
    finish: str = ""
    on_result: str = ""
    on_mark: str = _REACHED
    holds_marks: bool = False
    batch: str = "EACH"
    no_steps: str = ""
    slice: str = _REACHED_IN_SLICE
    on_drop: str = ""
    args: tuple[str, ...] = ()


# Generators. Where the items go to a loop of the user's, which tells nobody when one was handled,
# marks are dropped.
ITEMS: Final = End(
    "items", "yield value", "yield Failed(error)", on_mark="yield value\ncontinue", slice=""
)
RESULTS: Final = End(
    "results",
    f"{steps.PACKED}yield value",
    "yield Failure(error)",
    on_result="yield result",
    on_mark="DROP",
    slice="",
)
# For a broadcast, which passes marks to its branches.
RESULTS_AND_MARKS: Final = replace(RESULTS, on_mark=ITEMS.on_mark)
VALUES: Final = replace(
    RESULTS, name="values", on_value="yield value", on_error="DROP", on_result=""
)
ERRORS: Final = replace(
    VALUES,
    name="errors",
    on_value="DROP",
    on_error="yield error",
    finish="return\nyield  # no step may be able to fail, and this is a generator nevertheless",
)

# Coroutines: the terminals of `ResultStream`. Some read to the end, others to the first failure.
PARTITION: Final = End(
    "partition",
    "values.append(value)",
    "errors.append(error)",
    begin="values, errors = [], []",
    finish="return values, errors",
    holds_marks=True,
)
COLLECT: Final = replace(
    PARTITION, name="collect", on_error="return Failure(error)", finish="return Success(values)"
)
# A terminal that may wait for each item holds no others of a marked source meanwhile: no slices.
FOLD: Final = replace(
    COLLECT,
    name="fold",
    slice="",
    on_value="""\
given = combine(folded, value)
folded = await given if given.__class__ is CoroutineType else given
""",
    begin="",
    finish="return Success(folded)",
    args=("folded", "combine"),
)
LAST: Final = replace(
    COLLECT,
    name="last",
    on_value="last = value",
    begin="last = EMPTY",
    finish="return Failure(StreamEmpty()) if last is EMPTY else Success(last)",
)
FIRST: Final = End(
    "first",
    "return Success(value)",
    "return Failure(error)",
    finish="return Failure(StreamEmpty())",
    slice="",
)
RUN_ALL: Final = End(
    "run_all",
    """\
if value.__class__ in LOST:
    refuse_lost(value, "the last step", "bind() or bind_async() for it")
successes += 1
""",
    "failures += 1",
    begin="successes = failures = 0",
    finish="return successes, failures",
)
RUN: Final = replace(
    RUN_ALL, name="run", on_error="return Failure(error)", finish="return Success(successes)"
)
FOR_EACH_ALL: Final = replace(
    RUN_ALL,
    name="for_each_all",
    on_value="""\
given = use(value)
if given is not None and (failure := await failure_of(given)) is not None:
    error = failure._inner_value
    FAIL
successes += 1
""",
    slice="",
    args=("use",),
)
FOR_EACH: Final = replace(FOR_EACH_ALL, name="for_each", on_error=RUN.on_error, finish=RUN.finish)


def window(
    name: str, begin: str, add: str, *, add_all: str = "", takes_slices: bool = False
) -> End:
    """Return the end of a chain in windows, which are filled by the loop that runs the steps.

    Args:
        name: The name of the operator.
        begin: Comes first. ``self`` is the pump of the windows.
        add: The code that puts ``value`` into its window. A line ``WAIT`` awaits ``waiting`` before
            the next item is read. A line ``NEXT`` counts the item, if ``add`` does not watch
            the clock itself.
        add_all: The code for a batch, if there are no steps.
        takes_slices: Whether the pump says how many items of a marked source it has room for.
    """
    renew = "if self.closed or not await self.renew():\n    return\n"
    return End(
        name,
        f"MARK\n{add}",
        "waiting = self.emit_failure(Failed(error))\nWAIT\nNEXT\ncontinue\n",
        begin=begin,
        on_mark="self.on_mark(value)\nDROP",
        batch=f"{renew}EACH",
        no_steps=add_all,
        slice=f"""\
dropped = 0
{renew}try:
    EACH
finally:
    self.on_mark_after(batch, max(done, batch.begun(each) - 1))
"""
        if takes_slices
        else "",
        on_drop="dropped = batch.begun(each)",
        args=("self",),
    )

"""The patterns of `match` statements: what is inside of them, and which of them never match."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from mypy.messages import format_type
from mypy.nodes import MatchStmt
from mypy.options import Options
from mypy.patterns import AsPattern, ClassPattern, OrPattern, Pattern, SequencePattern
from mypy.types import Instance, Type, UnionType, get_proper_type

__all__ = ["IO_RESULT", "PATTERNS", "RESULT", "never_matching", "patterns_inside"]

RESULT: Final = "returns.result.Result"
IO_RESULT: Final = "returns.io.IOResult"

# For each class of a pattern such as `Success(value)`: the class whose type arguments are known of
# the matched value, and which of them the value inside has. Mypy takes the class of the pattern
# with `Any` in their place (python/mypy#17589).
PATTERNS: Final = {
    "returns.result.Success": (RESULT, 0),
    "returns.result.Failure": (RESULT, 1),
    "returns.io.IOSuccess": (IO_RESULT, 0),
    "returns.io.IOFailure": (IO_RESULT, 1),
    "returns.maybe.Some": ("returns.maybe.Maybe", 0),
}
_CONTAINERS: Final = (
    RESULT,
    IO_RESULT,
    "returns.maybe.Maybe",
    "returns.future.FutureResult",
    "returns.future.Future",
    "aiostream.core.BaseStream",
    "typing.Coroutine",
)


def never_matching(
    statement: MatchStmt, subject: Type, options: Options
) -> Iterator[tuple[Pattern, str]]:
    """Yield the patterns for a class that the subject of a statement never has, and why."""
    proper = get_proper_type(subject)
    items = proper.items if isinstance(proper, UnionType) else [proper]
    found = [item for item in map(get_proper_type, items) if isinstance(item, Instance)]
    if len(found) != len(items) or not all(any(map(i.type.has_base, _CONTAINERS)) for i in found):
        return
    for pattern in _classes(statement.patterns):
        base, _ = PATTERNS.get(pattern.class_ref.fullname, ("", 0))
        if base and not any(item.type.has_base(base) for item in found):
            name = pattern.class_ref.fullname.rpartition(".")[2]
            use = "match cases(...), of what await returns"
            yield pattern, f"{name} never matches {format_type(subject, options)}: {use}"


def _classes(patterns: Sequence[Pattern]) -> Iterator[ClassPattern]:
    """Yield the class patterns that are matched with the subject itself."""
    for pattern in patterns:
        if isinstance(pattern, ClassPattern):
            yield pattern
        elif isinstance(pattern, AsPattern | OrPattern):
            yield from _classes(list(patterns_inside(pattern)))


def patterns_inside(pattern: Pattern) -> Iterator[Pattern]:
    """Yield the patterns directly inside a pattern."""
    match pattern:
        case ClassPattern():
            yield from (*pattern.positionals, *pattern.keyword_values)
        case OrPattern() | SequencePattern():
            yield from pattern.patterns
        case AsPattern(pattern=Pattern() as inner):
            yield inner
        case _:
            pass

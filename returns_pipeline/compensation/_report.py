"""What a rollback did: `CompensationReport`, with a `CompensationEntry` for each action."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from returns_pipeline.errors import CompensationFailed

__all__ = ["HIDDEN", "CompensationEntry", "CompensationReport", "brief", "printable"]


def printable(text: str) -> str:
    """Escape what is not printable: control characters, line ends, halves of surrogate pairs."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text
    )


class _Brief(reprlib.Repr):
    """Shows values in logs and notes: one may be a whole batch, and its ``repr()`` may raise.

    `reprlib` guards only the ``repr()`` of unknown types, but that of an int of more than 4,300
    digits raises, too. An error here must never replace the user's exception.
    """

    def repr(self, x: object) -> str:
        """Show a value."""
        return printable(super().repr(x))

    def repr1(self, x: object, level: int) -> str:
        """Show a value at this depth."""
        try:
            return super().repr1(x, level)
        except Exception as error:  # noqa: BLE001
            return f"<{type(x).__name__} whose repr() raised {type(error).__name__}>"


class _Hidden:
    """Stands for a sensitive argument."""

    def __repr__(self) -> str:
        return "<sensitive>"


HIDDEN = _Hidden()
brief = _Brief()
brief.maxstring = brief.maxother = 200


def _whole(value: object) -> str:
    """Return the whole ``repr()`` of a value, or a brief one if that raises."""
    try:
        return repr(value)
    except Exception:  # noqa: BLE001  # whatever a class of the user's raises
        return brief.repr(value)


@dataclass(frozen=True, slots=True, repr=False)
class CompensationEntry:
    """The outcome of one undo action.

    Attributes:
        name: The compensation's registered name, or the function's.
        args: The positional arguments it was registered with.
        kwargs: The keyword arguments it was registered with.
        attempts: How often it was tried.
        error: Why it failed: the exception that it raised, the error of the `Failure` that it
            returned, or `StepTimeout`; ``None`` if it succeeded or was not run.
        scope: The path of the scope it was registered in.
        sensitive: The positions and names of arguments that are not shown.

    >>> CompensationEntry("delete", ("order 7",), attempts=1).args
    ('order 7',)
    """

    name: str
    args: tuple[object, ...] = ()
    kwargs: Mapping[str, object] = field(default_factory=dict[str, object])
    attempts: int = 0
    error: object = None
    scope: str = ""
    sensitive: frozenset[int | str] = frozenset()

    def _shown(self) -> tuple[tuple[object, ...], dict[str, object]]:
        """Return the arguments, without those that are sensitive."""
        args = (HIDDEN if n in self.sensitive else value for n, value in enumerate(self.args))
        kwargs = {n: HIDDEN if n in self.sensitive else v for n, v in self.kwargs.items()}
        return tuple(args), kwargs

    def __repr__(self) -> str:
        args, kwargs = self._shown()
        shown = {
            "name": self.name,
            "args": args,
            "kwargs": kwargs,
            "attempts": self.attempts,
            "error": self.error,
            "scope": self.scope,
        }
        return f"CompensationEntry({', '.join(f'{n}={_whole(v)}' for n, v in shown.items())})"

    def __str__(self) -> str:
        """Show it as a call."""
        args, kwargs = self._shown()
        arguments = [brief.repr(value) for value in args]
        arguments += [f"{name}={brief.repr(value)}" for name, value in kwargs.items()]
        return printable(f"{self.name}({', '.join(arguments)})")


@dataclass(frozen=True, slots=True)
class CompensationReport:
    """What a rollback did: each action is in exactly one of the four tuples, newest first.

    Attributes:
        done: Actions that were undone.
        failures: Actions that were tried and given up.
        not_run: Actions that were never tried, because ``on_failure="stop"`` ended the rollback.
        scope: The path of the scope that was rolled back.
        committed: Actions that were not undone, because a commit of them had been carried out. Its
            answer was lost, so it raised `JournalUnavailable`.

    >>> from returns_pipeline import CompensationScope
    >>> from returns_pipeline.testing import run
    >>> async def delete(name: str) -> None:
    ...     raise OSError("still in use")
    >>> async def main() -> CompensationReport:
    ...     scope = CompensationScope("shop")
    ...     await scope.register(delete, "order 7")
    ...     return await scope.compensate()
    >>> [(entry.name, entry.args, entry.error) for entry in run(main()).failures]
    [('delete', ('order 7',), OSError('still in use'))]
    """

    done: tuple[CompensationEntry, ...] = ()
    failures: tuple[CompensationEntry, ...] = ()
    not_run: tuple[CompensationEntry, ...] = ()
    scope: str = ""
    committed: tuple[CompensationEntry, ...] = ()

    @property
    def all_committed(self) -> bool:
        """Whether nothing was left to undo, because everything had been committed."""
        return bool(self.committed) and not (self.done or self.failures or self.not_run)

    def notes(self) -> list[str]:
        """Return a line for each action that was not undone."""
        lines = [
            f"undo {entry} failed, attempt {entry.attempts}: {brief.repr(entry.error)}"
            for entry in self.failures
        ]
        lines += [f"undo {entry} was not run" for entry in self.not_run]
        return lines + [f"undo {entry} was not run: it was committed" for entry in self.committed]

    def check(self) -> None:
        """Raise an error unless everything was undone, or had been committed.

        Raises:
            CompensationFailed: An action failed or was not run.
        """
        if self.failures or self.not_run:
            raise CompensationFailed(self.scope, tuple(self.notes()))

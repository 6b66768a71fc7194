"""The errors of the library, one tree.

```
PipelineError
├── InvalidArgument (also ValueError)   an argument is out of range, raised at the call
└── StreamEmpty                         first() or last() of a stream without items
```

Facts are attributes, every error can be pickled, and two errors with the same facts are equal.
"""

from __future__ import annotations

__all__ = ["InvalidArgument", "PipelineError", "StreamEmpty"]


class PipelineError(Exception):
    """Base of every error that this library raises or gives."""

    def __eq__(self, other: object) -> bool:
        """Equal by class and facts, so that tests can compare whole results."""
        if type(other) is not type(self):
            return NotImplemented
        return self.args == other.args

    def __hash__(self) -> int:
        """Agree with ``==`` even when a fact itself cannot be hashed."""
        return hash((type(self), len(self.args)))


class InvalidArgument(PipelineError, ValueError):
    """An argument is out of range; raised at the call, before anything is read."""


class StreamEmpty(PipelineError):
    """A stream ended without the item that was asked for."""

    def __str__(self) -> str:
        """Say what happened, also when raised bare."""
        return "the stream ended without an item"

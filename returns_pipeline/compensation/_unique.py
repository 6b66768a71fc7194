"""Random ids, without a call of the system for each."""

from __future__ import annotations

import os
from typing import Final

__all__ = ["unique"]

_SIZE: Final = 16  # bytes of an id, as many as in a UUID
_BLOCK: Final = 128 * _SIZE

# Each element is used once. All changes are single calls of `list`, so any thread may make them.
_ready: Final[list[bytes]] = []


def unique() -> str:
    """Return 32 hexadecimal digits that no other call returns, in this process or in any other."""
    while True:
        try:
            return _ready.pop().hex()
        except IndexError:
            block = os.urandom(_BLOCK)
            _ready.extend(block[at : at + _SIZE] for at in range(0, _BLOCK, _SIZE))


if hasattr(os, "register_at_fork"):  # not on Windows
    # A child would use the same ids as its parent.
    os.register_at_fork(after_in_child=_ready.clear)

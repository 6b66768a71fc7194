"""Names of a package that are imported when they are first used."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from typing import Any

__all__ = ["lazy_exports"]


def lazy_exports(
    package: str,
    modules: Mapping[str, Collection[str]],
    extras: Mapping[str, Collection[str]] | None = None,
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return a package's `__getattr__` and `__dir__` (PEP 562): they import names when used.

    A program pays only for the modules that it uses. Type checkers, editors and documentation read
    the same imports in a block ``if TYPE_CHECKING:``; a test compares the two. The package calls
    this in a block ``if not TYPE_CHECKING:``, because a module with a `__getattr__` has every name
    to a type checker, misspelt ones too.

    Args:
        package: The package's `__name__`.
        modules: The names that each of its modules has, by the module's name in the package; the
            modules with no names are themselves the value.
        extras: The same for names that need an extra. They can be imported from the package, and
            are not listed: tools import all names that are.
    """
    module_of = {name: module for module, names in modules.items() for name in names}
    of_extras = {name: module for module, names in (extras or {}).items() for name in names}
    namespace = vars(sys.modules[package])

    def import_name(name: str) -> Any:
        if module := module_of.get(name) or of_extras.get(name):
            value = getattr(import_module(f"{package}.{module}"), name)
        elif name in modules and not modules[name]:
            value = import_module(f"{package}.{name}")
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        namespace[name] = value
        return value

    def names() -> list[str]:
        # Not these two functions: `help()` would list them among those for users.
        dunders = {name for name in namespace if name.startswith("__")} - {"__dir__", "__getattr__"}
        return sorted({*namespace["__all__"], *module_of, *dunders})

    return import_name, names

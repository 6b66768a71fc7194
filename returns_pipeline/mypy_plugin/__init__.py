"""A plugin for mypy: a dropped `Result` is an error, and listed exceptions keep their names.

In ``mypy.ini``, alone or together with the plugin of `returns`, in either order::

    [mypy]
    plugins = returns_pipeline.mypy_plugin

1. A statement that drops a value which must be used is an error with the code ``must-use``: a
   `Result`, `IOResult` or `Maybe`; a `FutureResult`, `Future` or `RequiresContext`; a stream or a
   `Saga`; a union with one of them; a collection, iterator, generator, future or task of them, or a
   mapping to them. Only the value counts, not where it comes from: a call, an ``await``, an
   operator ``|``, or a branch of a condition. A value that a name or a dictionary still holds is
   not dropped, and ``_ = ...`` says that it may be. In the block of ``with pytest.raises(...)``,
   where a call is expected to raise, nothing is reported. ``# type: ignore[must-use]``,
   ``disable_error_code`` and sections per module work as for mypy's own codes. Where mypy's
   ``unused-awaitable`` reports the same statement, only ``must-use`` is shown.
2. A function whose result would be lost is an error with the same code: ``tap(save)``, where
   ``save`` returns one of these values; a callback such as ``on_drop=`` that does; ``map(save)``,
   where nothing looks into it; a step that returns a stream, and ``ctx.run(stream)``, where the
   stream's last item alone would be taken for the outcome. So is ``if save(order):``, which is
   always true.
3. ``@safe(exceptions=(A, B))``, and `impure_safe` and `future_safe` in the same way, have the error
   type ``A | B``. Mypy alone joins the two to their common base class, and does so with the items
   of ``select({"a": a, "b": b})``.

It does everything that the plugin of `returns` does, and leaves mypy's own plugin in place. The
types of this package are exact without it. It works with mypy 1.19 to 2.4, with its cache, its
daemon and its workers. Importing it does not import the rest of this package.

How it works: mypy has no hook for statements. It writes the type of each expression into a table
as soon as that type is final, and the table may be of a subclass of `dict`. So whenever mypy first
asks this plugin anything about a file, the file's table is replaced by one that knows which
expressions are statements. By then overloads are resolved, and an error belongs to the function in
which it is reported, on which mypy's daemon relies.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mypy.options import Options
from mypy.plugin import (
    AttributeContext,
    FunctionContext,
    FunctionSigContext,
    MethodContext,
    MethodSigContext,
    Plugin,
)
from mypy.types import FunctionLike, Type
from returns.contrib.mypy.returns_plugin import plugin as returns_plugin

from returns_pipeline.mypy_plugin._exact import name_each_exception, unite_selected
from returns_pipeline.mypy_plugin._statements import watch_statements
from returns_pipeline.mypy_plugin._values import MUST_USE

__all__ = ["MUST_USE", "plugin"]

_SELECT: Final = "returns_pipeline.combine._select._Select.__call__"
_SAFE: Final = frozenset(
    {"returns.future.future_safe", "returns.io.impure_safe", "returns.result.safe"}
)


def plugin(version: str) -> type[Plugin]:
    """Return the class of the plugin, for mypy."""

    class Composed(_MustUsePlugin):
        """Our own plugin, which asks the plugin of `returns` after itself."""

        def __init__(self, options: Options) -> None:
            super().__init__(options, returns_plugin(version)(options))

    return Composed


class _MustUsePlugin(Plugin):
    """Answers as the plugin of `returns` does, save for decorators.

    Mypy takes a question that gets no answer to the plugins after this, its own among them.
    """

    def __init__(self, options: Options, returns: Plugin) -> None:
        super().__init__(options)
        self._returns = returns

    def get_function_signature_hook(
        self, fullname: str
    ) -> Callable[[FunctionSigContext], FunctionLike] | None:
        watch_statements()
        return self._returns.get_function_signature_hook(fullname)

    def get_function_hook(self, fullname: str) -> Callable[[FunctionContext], Type] | None:
        watch_statements()
        if fullname in _SAFE:
            return name_each_exception
        return self._returns.get_function_hook(fullname)

    def get_method_signature_hook(
        self, fullname: str
    ) -> Callable[[MethodSigContext], FunctionLike] | None:
        watch_statements()
        return self._returns.get_method_signature_hook(fullname)

    def get_method_hook(self, fullname: str) -> Callable[[MethodContext], Type] | None:
        watch_statements()
        if fullname == _SELECT:
            return unite_selected
        return self._returns.get_method_hook(fullname)

    def get_attribute_hook(self, fullname: str) -> Callable[[AttributeContext], Type] | None:
        watch_statements()
        return self._returns.get_attribute_hook(fullname)

    def get_class_attribute_hook(self, fullname: str) -> Callable[[AttributeContext], Type] | None:
        watch_statements()
        return self._returns.get_class_attribute_hook(fullname)

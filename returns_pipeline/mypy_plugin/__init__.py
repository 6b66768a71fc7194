"""A plugin for mypy: a dropped `Result` is an error, and listed exceptions keep their names.

In ``mypy.ini``, alone or together with the plugin of `returns`, in either order::

    [mypy]
    plugins = returns_pipeline.mypy_plugin

1. A statement that drops a value which must be used is an error with the code ``must-use``: a
   `Result`, `IOResult` or `Maybe`; a `FutureResult`, `Future` or ``RequiresContext``; a stream or a
   `Saga`; a union with one of them; a collection, iterator, generator, future or task of them, or a
   mapping to them. Only the value counts, not where it comes from: a call, an ``await``, an
   operator ``|``, or a branch of a condition. A value that a name or a dictionary still holds is
   not dropped, and ``_ = ...`` drops a value on purpose. In the block of
   ``with pytest.raises(...)``, where a call is expected to raise, nothing is reported.
   ``# type: ignore[must-use]``,
   ``disable_error_code`` and sections per module work as for mypy's own codes. Where mypy's
   ``unused-awaitable`` reports the same statement, only ``must-use`` is shown.
2. A function whose result would be lost is an error with the same code: ``tap(save)``, where
   ``save`` returns one of these values; a callback such as ``on_drop=`` that returns one;
   ``map(save)``, which would emit a container inside a container; a step that returns a stream, and
   ``ctx.run(stream)``, which would take only the stream's last item for the outcome. So is
   ``if save(order):``, and ``any(save(o) for o in orders)``, because every container is true; a
   comparison such as ``await s.run() == 3``; ``for item in await s.collect():`` and
   ``values, errors = await s.partition()``, which iterate over the container and not over what is
   inside of it; and ``s.run`` without its call.
3. ``@safe(exceptions=(A, B))`` has the error type ``A | B``; so have `impure_safe` and
   `future_safe`. Mypy alone joins the two to their common base class. The same holds for the items
   of ``select({"a": a, "b": b})``.
4. ``case Success(value):`` finds the exact type, as do `Failure`, `IOSuccess`, `IOFailure` and
   `Some`, also inside of one another and of tuples; mypy alone finds `Any` (python/mypy#17589). A
   class that the subject never has is an error, ``must-use``: `Success` of an ``IOResult``. Only
   with `returns_pipeline.cases` does mypy know that all cases are there.
5. Common slips have a short message: steps in a list (``race([near, far])``), swapped arguments
   (``with_policy(policy, step)``), a step of a saga or a `Tier` without a name, an ``undo=``
   that was called, steps that cannot run side by side. Mypy alone finds the arguments of
   ``race(near, far)`` to be ``Never`` if the two take different ones, and says nothing.

It does everything that the plugin of `returns` does, and leaves mypy's own plugin in place. The
types of this package are exact without it. It works with mypy 1.19 to 2.4, with its cache, its
daemon and its workers. Importing it does not import the rest of this package.

How it works: mypy has no hook for statements, but it writes the type of each expression into a
table as soon as that type is final, and this table may be an instance of a subclass of `dict`. When
mypy calls a hook of this plugin for the first time in a file, the plugin replaces the file's table
by one that knows which expressions are statements, and that reports a statement when mypy writes
its type. By then overloads are resolved. The error is reported while mypy checks the function that
contains the statement, as mypy's daemon requires.
"""

from __future__ import annotations

import functools
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
from returns_pipeline.mypy_plugin._matches import INNER_VALUES, name_matched_value
from returns_pipeline.mypy_plugin._slips import FUNCTIONS, METHODS, explain
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
        """This package's plugin. It calls the plugin of `returns` where it has no answer itself."""

        def __init__(self, options: Options) -> None:
            super().__init__(options, returns_plugin(version)(options))

    return Composed


class _MustUsePlugin(Plugin):
    """Answers as the plugin of `returns` does, except for decorators.

    Where a hook returns None, mypy calls the plugins after this one, including its own.
    """

    def __init__(self, options: Options, returns: Plugin) -> None:
        super().__init__(options)
        self._returns = returns

    def get_function_signature_hook(
        self, fullname: str
    ) -> Callable[[FunctionSigContext], FunctionLike] | None:
        watch_statements()
        if (slip := FUNCTIONS.get(fullname)) is not None:
            return functools.partial(explain, slip=slip)
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
        if (slip := METHODS.get(fullname)) is not None:
            return functools.partial(explain, slip=slip)
        return self._returns.get_method_signature_hook(fullname)

    def get_method_hook(self, fullname: str) -> Callable[[MethodContext], Type] | None:
        watch_statements()
        if fullname == _SELECT:
            return unite_selected
        return self._returns.get_method_hook(fullname)

    def get_attribute_hook(self, fullname: str) -> Callable[[AttributeContext], Type] | None:
        watch_statements()
        if fullname in INNER_VALUES:
            return name_matched_value
        return self._returns.get_attribute_hook(fullname)

    def get_class_attribute_hook(self, fullname: str) -> Callable[[AttributeContext], Type] | None:
        watch_statements()
        return self._returns.get_class_attribute_hook(fullname)

"""Make the pages of the reference from docstrings, and resolve what they refer to.

A page says ```` ```{reference} returns_pipeline.windows ````, and gets the docstring of the module
and all of its public names. A name that several modules offer is described once, at its home; the
others link to it, and it can be referred to by each of its paths.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import os
import pkgutil
import re
import subprocess
import sys
import textwrap
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_origin

from pygments.lexers.sql import PostgresLexer
from sphinx.domains.python._object import PyObject
from sphinx.ext.napoleon.docstring import GoogleDocstring
from sphinx.util.typing import stringify_annotation

import returns_pipeline

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docutils import nodes
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment
    from sphinx.util.typing import ExtensionMetadata

ROOT = "returns_pipeline"

# Whose names docstrings use without their modules.
LIBRARIES = (
    "asyncio",
    "collections.abc",
    "datetime",
    "returns.future",
    "returns.io",
    "returns.maybe",
    "returns.result",
)


class Name(NamedTuple):
    """A public name: the module that offers it, and what it is."""

    module: str
    name: str
    thing: Any

    @property
    def path(self) -> str:
        """The dotted path by which users import it."""
        return f"{self.module}.{self.name}"


@cache
def modules() -> tuple[str, ...]:
    """Return the public modules: those without an underscore in their paths."""
    found = (m.name for m in pkgutil.walk_packages(returns_pipeline.__path__, f"{ROOT}."))
    return (ROOT, *(name for name in found if not re.search(r"(^|\.)_", name)))


@cache
def names() -> tuple[Name, ...]:
    """Return every public name of every public module, in the order of their ``__all__``."""
    return tuple(
        Name(module, name, getattr(import_module(module), name))
        for module in modules()
        for name in import_module(module).__all__
    )


def is_alias(thing: object) -> bool:
    """Whether it is neither a class nor a function, but a value or a type of other types."""
    return not (inspect.isclass(thing) or inspect.isroutine(thing)) or get_origin(thing) is not None


def same(one: Name, other: Name) -> bool:
    """Whether two names are of one thing. Equal aliases of types may be two things."""
    return one.thing is other.thing and (not is_alias(one.thing) or one.name == other.name)


@cache
def home(name: Name) -> Name:
    """Return the name under which a thing is described: near its definition, not in the root."""
    defined = str(getattr(name.thing, "__module__", ""))

    def rank(other: Name) -> tuple[bool, bool, bool, int]:
        return (
            other.module != defined,
            other.module == ROOT,
            not defined.startswith(other.module),
            len(other.module),
        )

    return min((other for other in names() if same(name, other)), key=rank)


def members(cls: type) -> list[str]:
    """Return the public members to describe: its own, and those of parts that are not public."""
    public = {id(name.thing) for name in names()}
    parts = [
        base
        for base in cls.__mro__
        if base is cls or (base.__module__.startswith(f"{ROOT}.") and id(base) not in public)
    ]
    found = {member: None for part in parts for member in vars(part) if member[0] != "_"}
    kinds = (property, staticmethod, classmethod)
    return [
        member
        for member in found
        if isinstance(value := inspect.getattr_static(cls, member), kinds)
        or inspect.isfunction(value)
        or hasattr(value, "pipe")
    ]


def statements(block: list[ast.stmt]) -> Iterator[tuple[ast.stmt, ast.stmt | None]]:
    """Yield each statement of a module, with the one after it; those in an ``if``, too."""
    for statement, after in itertools.pairwise([*block, None]):
        if isinstance(statement, ast.If):
            yield from statements(statement.body)
        elif statement is not None:
            yield statement, after


def assigned(name: Name) -> tuple[str, str]:
    """Return what is assigned to a name of neither a class nor a function, and its docstring.

    Raises:
        LookupError: It has no docstring.
    """
    for module in modules_at(name.module):
        source = getattr(sys.modules.get(module), "__file__", None)
        if not module.startswith(name.module) or source is None:
            continue
        tree = ast.parse(Path(source).read_text(encoding="utf-8"))
        for statement, after in statements(tree.body):
            match statement, after:
                case (
                    ast.AnnAssign(ast.Name(id=found), value=ast.expr() as value),
                    ast.Expr(ast.Constant(str(text))),
                ) if found == name.name:
                    written = value.value if isinstance(value, ast.Constant) else ast.unparse(value)
                    if name.name in re.findall(
                        r"\w+", str(written)
                    ):  # of a module that is not public
                        written = stringify_annotation(name.thing, "smart")
                    return " ".join(str(written).split()), inspect.cleandoc(text)
                case _:
                    pass
    raise LookupError(name.path)


def entry(name: Name) -> Iterator[str]:
    """Yield the lines of reStructuredText that describe a name."""
    thing = name.thing
    if is_alias(thing):
        value, text = assigned(name)
        is_type = "(" not in value
        yield f".. py:{'type' if is_type else 'data'}:: {name.name}"
        yield f"   :module: {name.module}"
        if is_type:
            yield f"   :canonical: {value}"
        yield ""
        yield textwrap.indent(text, "   ")
    elif not inspect.isclass(thing):
        yield f".. autofunction:: {name.path}"
    else:
        kind = "exception" if issubclass(thing, BaseException) else "class"
        yield f".. auto{kind}:: {name.path}"
        if kind == "exception":
            yield "   :show-inheritance:"
        if described := members(thing):
            yield f"   :members: {', '.join(described)}"
    yield ""


def page(module: str) -> str:
    """Return the text of the page of a module."""
    own = [n for n in names() if n.module == module and not inspect.ismodule(n.thing)]
    here = [name for name in own if home(name) == name]
    elsewhere = [name for name in own if home(name) != name]
    lines = ["```{eval-rst}", f".. automodule:: {module}", "   :no-members:", ""]
    for name in here:
        lines += entry(name)
    lines += ["```", ""]
    if elsewhere:
        lines += ["## Described elsewhere", "", "Also imported from here:", ""]
        lines += [f"- {{py:obj}}`{home(name).path}`" for name in elsewhere]
    return "\n".join(lines)


def usage(command: str) -> str:
    """Return what a command prints with ``--help``.

    Raises:
        CalledProcessError: There is no such command.
    """
    done = subprocess.run(
        [sys.executable, *command.split()[1:], "--help"],
        env={**os.environ, "COLUMNS": "80"},
        capture_output=True,
        text=True,
        check=True,
    )
    return f"```text\n{done.stdout.rstrip()}\n```"


def fill_in(_app: Sphinx, _docname: str, content: list[str]) -> None:
    """Replace each block ``reference`` or ``command`` of a page by what it stands for."""
    made = {"reference": page, "command": usage}
    content[0] = re.sub(
        r"^```\{(reference|command)\} (.+)\n```$",
        lambda block: made[block[1]](block[2]),
        content[0],
        flags=re.MULTILINE,
    )


def add_aliases(_app: Sphinx, env: BuildEnvironment) -> None:
    """Enter every path of a thing in the index: all public ones, and that of its definition."""
    domain = env.domains.python_domain
    for name in names():
        described = domain.objects.get(home(name).path)
        if described is None:
            continue
        defined = getattr(name.thing, "__module__", None), getattr(name.thing, "__name__", None)
        for path in (name.path, ".".join(map(str, defined))):
            if path.startswith(ROOT) and path not in domain.objects:
                domain.objects[path] = described._replace(aliased=True)


def look_up(path: str, place: object) -> object:
    """Return what a dotted path means in a module or a class.

    Raises:
        AttributeError: It means nothing.
    """
    for attribute in path.split("."):
        place = getattr(place, attribute)
    return place


def imported(path: str) -> object:
    """Return what an absolute dotted path means.

    Raises:
        AttributeError: It means nothing.
    """
    parts = path.split(".")
    for n in range(len(parts), 0, -1):
        try:
            module = import_module(".".join(parts[:n]))
        except ImportError:
            continue
        return look_up(".".join(parts[n:]), module) if parts[n:] else module
    raise AttributeError(path)


@cache
def modules_at(module: str) -> tuple[str, ...]:
    """Return where the docstrings of a module look for names, the nearest place first."""
    parts = sorted(name for name in sys.modules if name.startswith(f"{module}."))
    around = module.rpartition(".")[0] or ROOT
    return (module, *parts, around, ROOT, f"{ROOT}.ResultStream", "builtins", *LIBRARIES)


@cache
def find(path: str, module: str, cls: str | None) -> tuple[object] | None:
    """Return what `meant` returns, in a tuple, or None."""
    places = [f"{module}.{cls}"] if cls else []
    for place in (*places, *modules_at(module)):
        with suppress(AttributeError):
            return (look_up(path, imported(place)),)
    first, _, rest = path.partition(".")
    with suppress(AttributeError):
        for name in names():
            if name.name == first:
                return (look_up(rest, name.thing) if rest else name.thing,)
    with suppress(AttributeError):
        return (imported(path),)
    return None


def meant(path: str, module: str, cls: str | None) -> object:
    """Return what the docstring of a module means by a path: as its code does, if it can.

    Raises:
        AttributeError: It means nothing.
    """
    found = find(path, module, cls)
    if found is None:
        raise AttributeError(path)
    return found[0]


def resolve(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, contnode: nodes.TextElement
) -> nodes.Node | None:
    """Resolve a reference that no page has as it is written.

    It leads to the home of what it means, if that is public. What is private or of another library
    is shown as it is. What does not exist is left, and so fails the build.
    """
    if node.get("refdomain") != "py":
        return None
    # A call in backticks, or the beginning of a generic type, means what is called.
    target = re.split(r"[(\[]", str(node["reftarget"]).lstrip("~."))[0]
    module = str(node.get("py:module") or ROOT)
    try:
        thing = meant(target, module, node.get("py:class"))
    except AttributeError:
        return None
    domain = env.domains.python_domain
    paths = [home(name).path for name in names() if name.thing is thing]
    paths += [f"{ROOT}.result_stream.ResultStream.{target}"]
    for path in paths:
        if path in domain.objects:
            return domain.resolve_xref(
                env, node["refdoc"], app.builder, "obj", path, node, contnode
            )
    return contnode


def hide_signature(
    _app: Sphinx, what: str, _path: str, thing: object, *_: object
) -> tuple[str, str] | None:
    """Leave out how a class is constructed that only functions of ours construct."""
    if what != "class" or not inspect.isclass(thing):
        return None
    public = {id(name.thing) for name in names()}
    annotations = inspect.get_annotations(vars(thing).get("__init__", thing))
    for word in re.findall(r"[A-Za-z_](?:[\w.]*\w)?", " ".join(map(str, annotations.values()))):
        with suppress(AttributeError):
            found = meant(word, thing.__module__, None)
            ours = inspect.isclass(found) and found.__module__.startswith(f"{ROOT}.")
            if ours and id(found) not in public:
                return "", ""
    return None


def read_property(app: Sphinx, what: str, *rest: Any) -> None:
    """Read the docstring of a property as that of a method.

    Napoleon takes what comes before a colon in its first line for a type: so an empty comment is
    the first line.
    """
    if what == "property":
        lines: list[str] = rest[-1]
        lines[:] = ["..", "", *GoogleDocstring(lines, app.config, app, "method").lines()]


def setup(app: Sphinx) -> ExtensionMetadata:
    """Take part in a build."""
    for field in PyObject.doc_field_types:
        if field.name == "variable":
            field.label = "Attributes"
    app.add_lexer("sql", PostgresLexer)  # which knows placeholders, as $1
    app.connect("source-read", fill_in)
    app.connect("autodoc-process-docstring", read_property, priority=400)
    app.connect("autodoc-process-signature", hide_signature)
    app.connect("env-updated", add_aliases)
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""The address of a journal on the command line: opening it, and showing it without secrets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from returns_pipeline import journal as journals
from returns_pipeline.compensation.protocol import OperableJournal
from returns_pipeline.errors import InvalidArgument, JournalUnavailable
from returns_pipeline.journal.sqlite._journal import SqliteJournal

__all__ = ["hide_passwords", "open_journal"]

# Seconds. The command line does not know how long the program keeps done actions: delete none.
_FOR_EVER: Final = 100 * 365 * 86_400.0


def open_journal(
    url: str, *, schema: str | None = None, liveness: str | None = None
) -> OperableJournal:
    """Return the journal at an address. It must exist: the command line creates none.

    Args:
        url: A path, ``sqlite:`` with a path, ``sqlite:///`` with an absolute path, or the address
            of a PostgreSQL database.
        schema: For a database: the schema of the tables, if the program names one.
        liveness: For a database: as in the program, if it is not the default.

    Raises:
        InvalidArgument: The address cannot be read, or an option does not apply to it.
        JournalUnavailable: The file does not exist.
        MissingExtra: It needs a package that is not installed.
    """
    scheme, colon, rest = url.partition(":")
    given = {"schema": schema, "liveness": liveness}
    # Any: the journal itself checks the values.
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if colon and scheme in {"postgres", "postgresql"}:
        # The command line creates no tables: a wrong address must not look like an empty journal.
        return journals.PostgresJournal(url, retention=_FOR_EVER, create=False, **options)
    if options:
        raise InvalidArgument(f"--{next(iter(options))} is for journals in PostgreSQL")
    path = url
    if colon and scheme == "sqlite":
        path = _path_of(rest)
    elif rest.startswith("//"):
        raise InvalidArgument(f"no journal has an address of the kind {scheme}://")
    if not path:
        raise InvalidArgument("the address of the journal is empty")
    file = Path(path).absolute()
    if not file.exists():
        if re.match(r"\s*\w+\s*=", url):
            raise InvalidArgument("the address of a database begins with postgresql://")
        raise JournalUnavailable(str(file), "there is no such file")
    return SqliteJournal(file, retention=_FOR_EVER)


def _path_of(rest: str) -> str:
    """Return the path in an address, from the text after ``sqlite:``."""
    if rest.startswith("//"):
        host, slash, path = rest[2:].partition("/")
        if host or not slash:
            raise InvalidArgument(
                "sqlite:// wants three slashes and an absolute path, or none: sqlite:FILE"
            )
        rest = f"/{path.lstrip('/')}"
    if "?" in rest:
        raise InvalidArgument("an address of SQLite takes no parameters after a '?'")
    return unquote(rest)


def hide_passwords(text: str) -> str:
    """Replace each password in an address by asterisks."""
    text = re.sub(r"(://[^:@/\s]*):\S*@", r"\1:***@", text)
    # In quotes, as libpq's keywords may be, it ends anywhere: a text may show them escaped.
    return re.sub(r"(password\s*=\s*)(\\*['\"].*|[^&\s'\"]+)", r"\1***", text, flags=re.DOTALL)

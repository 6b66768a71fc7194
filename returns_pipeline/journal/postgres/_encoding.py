"""How texts are written to a database whose encoding lacks some characters."""

from __future__ import annotations

import codecs
import json
from typing import Final, cast

__all__ = ["codec_of", "fitted"]

# PostgreSQL's names of encodings that have another name in Python, or several.
_CODECS: Final = {"SQL_ASCII": "ascii", "KOI8R": "koi8_r", "KOI8U": "koi8_u", "UTF8": "utf_8"}


def codec_of(encoding: str) -> str:
    """Return Python's name of a server's encoding; ASCII if it has none."""
    name = _CODECS.get(encoding, encoding.replace("WIN", "cp"))
    try:
        return codecs.lookup(name).name
    except LookupError:
        return "ascii"


def fitted(value: object, codec: str) -> object:
    """Return JSON data with each character that ``codec`` lacks written as an escape.

    The arguments of an action are JSON themselves, in which an escape has the same meaning. The
    name of an undo is not changed: another process finds the undo only by exactly that name. If the
    server refuses it, that is correct.
    """
    if isinstance(value, str):
        return value.encode(codec, "backslashreplace").decode(codec)
    if isinstance(value, list):
        items = cast("list[object]", value)
        return [fitted(item, codec) for item in items]
    if isinstance(value, dict):
        row = cast("dict[str, object]", value)
        arguments = row.get("arguments")
        made: dict[str, object] = {key: fitted(item, codec) for key, item in row.items()}
        if isinstance(arguments, str):  # the row of an action
            made |= {"name": row["name"], "arguments": _escaped(arguments, codec)}
        return made
    return value


def _escaped(document: str, codec: str) -> str:
    """Return the same JSON document in characters that ``codec`` has."""
    try:
        _ = document.encode(codec)
    except UnicodeEncodeError:
        # Outside strings JSON is ASCII, and in them an escape is the character.
        return "".join(c if c.isascii() else json.dumps(c)[1:-1] for c in document)
    return document

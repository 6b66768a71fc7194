"""The journal in an SQLite file."""

from returns_pipeline.journal.sqlite._journal import SqliteJournal

__all__ = ["SqliteJournal"]

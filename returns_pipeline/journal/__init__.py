"""Durable compensation: journals of undo actions, and their recovery after a crash."""

from returns_pipeline.journal.postgres import PostgresJournal
from returns_pipeline.journal.recovery import (
    RecoveryReport,
    StoredAction,
    StoredSaga,
    recover,
)
from returns_pipeline.journal.sqlite import SqliteJournal

__all__ = [
    "PostgresJournal",
    "RecoveryReport",
    "SqliteJournal",
    "StoredAction",
    "StoredSaga",
    "recover",
]

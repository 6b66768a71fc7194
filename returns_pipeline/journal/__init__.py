"""Durable compensation: journals of undo actions, and their recovery after a crash."""

from returns_pipeline.journal.arguments import encode_arguments
from returns_pipeline.journal.postgres import PostgresJournal
from returns_pipeline.journal.recovery import (
    RecoverableJournal,
    RecoveryReport,
    StoredAction,
    StoredSaga,
    recover,
)
from returns_pipeline.journal.sqlite import SqliteJournal

__all__ = [
    "PostgresJournal",
    "RecoverableJournal",
    "RecoveryReport",
    "SqliteJournal",
    "StoredAction",
    "StoredSaga",
    "encode_arguments",
    "recover",
]

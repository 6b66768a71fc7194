"""Durable compensation: journals of undo actions, and their recovery after a crash."""

from returns_pipeline.compensation.protocol import (
    RecoverableJournal,
    RecoveryReport,
    StoredAction,
    StoredSaga,
)
from returns_pipeline.journal._arguments import encode_arguments
from returns_pipeline.journal._recovery import recover, recovering
from returns_pipeline.journal._statistics import JournalStatistics
from returns_pipeline.journal.postgres._journal import PostgresJournal
from returns_pipeline.journal.sqlite._journal import SqliteJournal

__all__ = [
    "JournalStatistics",
    "PostgresJournal",
    "RecoverableJournal",
    "RecoveryReport",
    "SqliteJournal",
    "StoredAction",
    "StoredSaga",
    "encode_arguments",
    "recover",
    "recovering",
]

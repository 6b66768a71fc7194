"""The journal in a PostgreSQL database. Needs the extra ``postgres``."""

from returns_pipeline.journal.postgres._journal import PostgresJournal

__all__ = ["PostgresJournal"]

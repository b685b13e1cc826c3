"""The SQLite file: many readers, one writer, transactions, backups."""

from app.kit.database.file import Database, database

__all__ = ["Database", "database"]

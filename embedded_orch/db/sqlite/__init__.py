"""SQLite: one writer and many readers on a file, or one connection in memory."""

"""What is kept: one SQLite file. Read paths use the standard library only."""

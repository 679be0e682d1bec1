"""What runs of teams leave behind: the journal, an SQLite file of the project."""

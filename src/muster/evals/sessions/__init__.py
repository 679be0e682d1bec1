"""Sessions of coding agents, read from their logs: what was asked, answered, called, and used."""

"""Where code runs that nobody has read: its own processes, files and network."""

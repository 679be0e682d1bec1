"""Workers: they take tasks from a queue and ask a target."""

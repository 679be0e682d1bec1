"""How a process ended, in words."""

from __future__ import annotations

import signal

__all__ = ("CANNOT_RUN", "ending")

CANNOT_RUN = {126: "not executable", 127: "command not found"}
"""What the shell's own exit codes mean."""


def ending(exit_code: int) -> str:
    """`exit code 3`, `signal SIGSEGV`, `exit code 127 (command not found)`."""
    if exit_code < 0:
        return f"signal {_signal_name(-exit_code)}"
    if exit_code in CANNOT_RUN:
        return f"exit code {exit_code} ({CANNOT_RUN[exit_code]})"
    if exit_code > 128 and (name := _signal_name(exit_code - 128)).startswith("SIG"):
        return f"exit code {exit_code} ({name})"
    return f"exit code {exit_code}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)

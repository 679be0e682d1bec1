"""Muster: one socket for every model, agent, command and service."""

from __future__ import annotations

__version__ = "0.1.0"

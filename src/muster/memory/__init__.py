"""What agents remember between tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from muster.registry import Registry

__all__ = ("vector_stores",)

vector_stores: Registry[Callable[..., Any]] = Registry(
    "vector store",
    builtins={"sqlite": "muster.memory.vectors:SqliteVectors.of"},
    group="vector_stores",
)
"""Factories of `VectorStore`s: they take the `Memory` that a manifest defines, and the path of the
database for those that have no other place."""

"""Providers that are wrong on purpose, each in one thing, which one rule finds.

Each wraps a provider that is right. Together they break every rule of the suite.
"""

from __future__ import annotations

from gallery import answers, arriving, faults, limits, living, tools
from gallery.base import Wrong

__all__ = ("GALLERY",)

GALLERY: dict[str, type[Wrong]] = {
    kind.__name__: kind
    for module in (arriving, answers, tools, limits, living, faults)
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, Wrong) and hasattr(kind, "breaks")
}

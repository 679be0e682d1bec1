"""The data of the golden vectors, and short ways to render."""

from __future__ import annotations

from typing import Any

from muster.teams.template import Template

DATA: dict[str, Any] = {
    "steps": {
        "a": {
            "output": "OUT",
            "data": {
                "n": 3,
                "f": 0.5,
                "b": True,
                "s": "x",
                "arr": ["a", "b"],
                "o": {"k": 1},
                "nul": None,
                "big": 12345678901,
            },
        },
        "sk": {"output": ""},
        "my-step": {"output": "dashed"},
    },
    "input": {"topic": "T"},
    "pipeline": {"input": {"topic": "T"}},
}


def render(source: str, data: dict[str, Any] | None = None, *, lenient: bool = False) -> str:
    return Template.compile(source).render(DATA if data is None else data, lenient=lenient)

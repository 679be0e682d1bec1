"""What judges an answer. Graders are found by name in `graders`; none is imported before use."""

from __future__ import annotations

from muster.evals.graders.base import GraderFactory
from muster.registry import Registry

__all__ = ("graders",)

_TEXT = "muster.evals.graders.text"
_METRICS = "muster.evals.graders.metrics"

graders: Registry[GraderFactory] = Registry(
    "grader",
    builtins={
        "contains": f"{_TEXT}:Contains",
        "contains-all": f"{_TEXT}:ContainsAll",
        "contains-any": f"{_TEXT}:ContainsAny",
        "cost": f"{_METRICS}:Cost",
        "ends-with": f"{_TEXT}:EndsWith",
        "equals": f"{_TEXT}:Equals",
        "icontains": f"{_TEXT}:IContains",
        "icontains-all": f"{_TEXT}:IContainsAll",
        "icontains-any": f"{_TEXT}:IContainsAny",
        "is-json": "muster.evals.graders.json:IsJson",
        "latency": f"{_METRICS}:Latency",
        "numeric": "muster.evals.graders.numeric:Numeric",
        "regex": "muster.evals.graders.regex:Regex",
        "starts-with": f"{_TEXT}:StartsWith",
        "token-usage": f"{_METRICS}:TokenUsage",
    },
    group="graders",
)
"""The default registry of graders; project files are `.muster/graders/*.py`, entry points
`muster.graders`."""

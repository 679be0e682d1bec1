"""The rules, in the order of the report."""

from __future__ import annotations

from muster.testing.outcome import Rule
from muster.testing.rules.answers import ANSWERS
from muster.testing.rules.arriving import ARRIVING
from muster.testing.rules.faults import FAULTS
from muster.testing.rules.limits import LIMITS
from muster.testing.rules.living import LIVING
from muster.testing.rules.tools import TOOLS

__all__ = ("RULES",)

RULES: tuple[Rule, ...] = (*ARRIVING, *ANSWERS, *TOOLS, *LIMITS, *LIVING, *FAULTS)

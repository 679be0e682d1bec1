"""The conformance suite: is this provider right?

    muster check provider NAME

or, as tests, `muster.testing.provider_contract`. The suite puts a provider into an `Environment`,
a real server on loopback that records what it is asked and fails as it is told, and checks the
`RULES` one by one. `docs/providers/testing.md` tells how to use it.
"""

from __future__ import annotations

from muster.testing.dialects import Dialect, Plain, Shape
from muster.testing.environment import Environment
from muster.testing.outcome import Outcome, Result, Rule
from muster.testing.rules import RULES
from muster.testing.running import Run, check_provider
from muster.testing.script import Asked, Call, Reply
from muster.testing.subject import Subject

__all__ = (
    "RULES",
    "Asked",
    "Call",
    "Dialect",
    "Environment",
    "Outcome",
    "Plain",
    "Reply",
    "Result",
    "Rule",
    "Run",
    "Shape",
    "Subject",
    "check_provider",
)

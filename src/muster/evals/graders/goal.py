"""The grader `trajectory:goal-success`: a model says whether an agent reached its goal, by its
answer and by what it did on its way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field

from muster.config.validation import FileModel
from muster.evals.graders.base import GraderSpec
from muster.evals.graders.llm import JudgeSettings, LlmGrader

__all__ = ("GoalSuccess",)

_PROMPT = """\
[[ ## criteria ## ]]
{{ criteria }}

[[ ## question ## ]]
{{ input }}

[[ ## calls of tools ## ]]
{{ tool_calls }}

[[ ## answer ## ]]
{{ output }}
"""


def _goal(value: Any) -> Any:
    """`{goal: …}` as its text."""
    return value["goal"] if isinstance(value, Mapping) and set(value) == {"goal"} else value


class _Settings(JudgeSettings):
    value: Annotated[str, Field(pattern=r"\S"), BeforeValidator(_goal)]
    """The goal: a text, or `{goal: …}`."""
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    """The same as `min_score`."""


class GoalSuccess(LlmGrader):
    """A model judges whether the agent reached the goal."""

    Settings: ClassVar[type[FileModel]] = _Settings
    own_templates: ClassVar[tuple[str, ...]] = ()

    def __init__(self, spec: GraderSpec) -> None:
        goal = _Settings.model_validate(spec.config).value.strip()
        config = {name: value for name, value in spec.config.items() if name != "value"}
        config["criteria"] = (
            f"The agent reached this goal, as its calls of tools and its answer show: {goal}"
        )
        config["prompt"] = _PROMPT
        super().__init__(replace(spec, config=config))

"""The grader `similar`: how near the answer is in meaning, by the vectors that a target makes."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AliasChoices, Field

from muster.embeddings import cosine_similarity
from muster.evals.graders.base import GradeContext, GraderError, GraderSpec, Score
from muster.evals.graders.text_metrics import MetricSettings, judged, references
from muster.evals.graders.thresholds import own_bar

__all__ = ("Similar",)

PASSING = 0.75
"""The score from which it passes, if the entry says none."""


class _Settings(MetricSettings):
    provider: Annotated[str, Field(min_length=1)] | None = Field(
        None, validation_alias=AliasChoices("provider", "target", "embedder", "judge_target")
    )
    """The target that makes the vectors (`target` and `embedder` are the same)."""
    model: Any = None
    """Read, not used: a target has its model."""


class Similar:
    """(1 + c) / 2, with c the cosine of the vectors of the answer and of the nearest reference."""

    Settings = _Settings
    __slots__ = ("_bar", "_settings", "_threshold", "min_score")

    def __init__(self, spec: GraderSpec) -> None:
        self._settings = _Settings.model_validate(spec.config)
        self._threshold = own_bar(self._settings.threshold, spec)
        self.min_score = None if self._threshold is not None else PASSING
        """The score from which it passes, if the entry says neither that nor a threshold."""
        self._bar = PASSING if spec.min_score is None else spec.min_score
        spec.asks_judge(self._settings.provider)
        if self._settings.model is not None:
            spec.remark("not used: it is a setting of the target that makes vectors", "model")

    async def __call__(self, context: GradeContext) -> Score:
        texts = references(self._settings.value, context)
        if context.judges is None:
            raise GraderError("there is nobody to ask")
        if not context.output.strip():
            return judged(0.0, self._threshold, PASSING, "the answer is empty", {})
        made = await context.judges.embed([context.output, *texts], self._settings.provider)
        answer, *others = made.vectors
        try:
            cosine = max(cosine_similarity(answer, other) for other in others)
        except ValueError as error:
            raise GraderError(str(error)) from None
        score = (1 + cosine) / 2
        text = f"similarity {score:.3f}"
        return judged(score, self._threshold, self._bar, text, {"cosine": cosine})

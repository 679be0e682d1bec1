"""A set's verdict by a model that reads what the members found."""

from __future__ import annotations

import json
from collections.abc import Sequence

from muster.evals.graders.aggregate import LlmAggregator, Member, results_of
from muster.evals.graders.base import (
    Assertion,
    GradeContext,
    GraderError,
    GraderSpec,
    Score,
    SettingError,
)
from muster.evals.graders.llm_answer import FREE_FORM, Verdict, read_free_form
from muster.evals.graders.llm_ask import Question, Vote, ask_judge
from muster.evals.graders.llm_prompt import (
    RESULTS,
    JudgePrompt,
    own_prompt,
    template_source,
    variables_of,
)
from muster.evals.graders.thresholds import bar_of

__all__ = ("LlmAggregate",)

_CRITERIA = "Weigh what the graders found, and say how good the answer is."


class LlmAggregate:
    """Asks a judge for one score of all the results; a refusal to judge is an error."""

    def __init__(self, settings: LlmAggregator, spec: GraderSpec) -> None:
        self._settings = settings
        source, criteria = None, _CRITERIA
        if settings.prompt is not None:
            try:
                text = template_source(settings.prompt, spec)
                whole, text = own_prompt(text, RESULTS, None, rubrics=False)
            except ValueError as error:
                raise SettingError("aggregator", str(error), "prompt") from None
            source, criteria = (text, criteria) if whole else (None, text.strip())
        self._prompt = JudgePrompt.make(RESULTS, source, criteria)
        spec.asks_judge(settings.judge_target)
        if settings.model is not None:
            spec.remark(
                "not used: it is a setting of the target that judges", "aggregator", "model"
            )

    async def __call__(
        self, members: Sequence[Member], mean: float, context: GradeContext
    ) -> Score:
        if context.judges is None:
            raise GraderError("there is nobody to ask")
        variables = variables_of(context, self._prompt.criteria)
        results = json.dumps(results_of(members), ensure_ascii=False, default=str)
        variables["EVALUATOR_RESULTS_JSON"] = results
        system, text = self._prompt.render(variables)
        question = Question(
            system=system,
            text=text,
            schema=FREE_FORM,
            hash=self._prompt.hash,
            case_id=context.case.id,
            max_attempts=self._settings.max_attempts,
        )

        def read(answer: str, finish: str | None) -> Verdict:
            return read_free_form(answer, finish)

        asked = await ask_judge(context.judges, Vote(self._settings.judge_target), question, read)
        return _score(asked.verdict, {"judge": asked.to_dict()}, bar_of(None, context))


def _score(verdict: Verdict, details: dict[str, object], bar: float) -> Score:
    said = verdict.assertions
    if verdict.reason:
        passed = verdict.score >= bar if verdict.passed is None else verdict.passed
        said = (*said, Assertion(verdict.reason, passed))
    return Score(verdict.score, said, details, passed=verdict.passed)

"""Graders that ask a model: `llm-grader` judges the whole or by a rubric, `rubrics` by a rubric.

Whoever judges is asked for JSON, as a schema where the target can be bound to one. What cannot be
read is asked for again, and is an error in the end, never a score.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from pydantic import AliasChoices, BeforeValidator, Discriminator, Field, Tag

from muster.config.validation import FileModel
from muster.evals.graders.base import (
    Assertion,
    GradeContext,
    GraderError,
    GraderSpec,
    Score,
    SettingError,
)
from muster.evals.graders.llm_answer import FREE_FORM, Verdict, read_free_form
from muster.evals.graders.llm_ask import MAX_ATTEMPTS, Asked, Question, Vote, agreeing, ask_all
from muster.evals.graders.llm_prompt import (
    CHECKLIST,
    FREE,
    JudgePrompt,
    own_prompt,
    template_source,
    variables_of,
)
from muster.evals.graders.prompt_program import PromptCommand, PromptProgram
from muster.evals.graders.rubric import (
    Criterion,
    Items,
    criteria_of,
    read_checks,
    schema_of,
    verdict_of,
)
from muster.evals.graders.thresholds import bar_of, held_to, own_bar
from muster.evals.graders.workspace_files import WorkspaceFiles

__all__ = ("AgentRubric", "LlmGrader", "Rubrics")

MAX_VOTES = 25
"""Judgements of one answer by one grader."""


def _shape(value: Any) -> str:
    return "list" if isinstance(value, list | tuple | Mapping) else "text"


def _listed(value: Any) -> Any:
    """A criterion by itself is a rubric of one."""
    return [value] if isinstance(value, Mapping) else value


_TextOrItems = Annotated[
    Annotated[Annotated[str, Field(pattern=r"\S")], Tag("text")]
    | Annotated[Items, BeforeValidator(_listed), Tag("list")],
    Discriminator(_shape),
]
FILE_STEPS = 20
"""Calls that a judge may make which looks at files, if nothing is said."""

_FOLDER = (
    "[[ ## folder ## ]]\nThe folder that the answer was made in can be looked at: list, read and "
    "search its files before you judge. They are material to be judged, as the answer is."
)

_Prompt = Annotated[
    Annotated[Annotated[str, Field(pattern=r"\S")], Tag("text")]
    | Annotated[PromptCommand, Tag("program")],
    Discriminator(lambda value: "text" if isinstance(value, str) else "program"),
]
JUDGE_NAMES = ("judge_target", "grader_target", "target", "provider")


class JudgeSettings(FileModel):
    """What all graders that ask a model have."""

    judge_target: Annotated[str, Field(min_length=1)] | None = Field(
        None, validation_alias=AliasChoices(*JUDGE_NAMES)
    )
    """The target that judges (`grader_target`, `target` and `provider` are the same)."""
    max_attempts: Annotated[int, Field(ge=1, le=10)] = MAX_ATTEMPTS
    """Answers that a judge may give until one can be read."""
    max_steps: Annotated[int, Field(ge=1, le=50)] | None = None
    """Calls to the model that a judge with tools may make for one answer."""
    repeat: Annotated[int, Field(ge=1, le=MAX_VOTES)] = 1
    """How often each judge is asked."""
    panel: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)] | None = None
    """Several targets that judge, in place of one."""
    aggregate: Literal["mean", "majority"] = "mean"
    """How several judgements become one score."""
    model: Any = None
    """Read, not used: a target has its model."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """Read, not used: set it in the target."""


class _Settings(JudgeSettings):
    criteria: _TextOrItems | None = None
    """What to judge by: a text for one score, a list for a rubric. Else the test's `criteria`."""
    value: _TextOrItems | None = None
    """The same (v5's name)."""
    rubrics: Items | None = None
    """A rubric: texts, or `{id, outcome, …}`."""
    prompt: _Prompt | None = None
    """The whole question as a template, or `file://…`; without variables it is the criteria. Or
    `{command, config}`, a program that writes it."""
    config: Mapping[str, Any] | None = None
    """For templates, as `config`."""
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    """The score from which it passes; what counts is then the verdict: 1 or 0."""


class LlmGrader:
    """A model judges, by criteria in words or by a rubric."""

    Settings: ClassVar[type[FileModel]] = _Settings
    own_templates: ClassVar[tuple[str, ...]] = ("prompt",)
    """Settings that are templates of their own: variables are filled in when the judge is asked."""
    needs_rubric: ClassVar[bool] = False

    def __init__(self, spec: GraderSpec) -> None:
        settings = _Settings.model_validate(spec.config)
        self._threshold = own_bar(settings.threshold, spec)
        self._bar = spec.min_score if self._threshold is None else self._threshold
        self._settings = settings
        self.votes = votes_of(settings, spec)
        self._program: PromptProgram | None = None
        if isinstance(settings.prompt, PromptCommand):
            self._program = PromptProgram(settings.prompt, settings.config, spec)
        self.prompt = self._prompt(settings, spec)
        self._inherits = self.prompt.source is FREE.template or (
            self.prompt.source is CHECKLIST.template
        )

    def _prompt(self, settings: _Settings, spec: GraderSpec) -> JudgePrompt:
        given = [name for name in ("criteria", "value", "rubrics") if _given(settings, name)]
        lists = [name for name in given if not isinstance(getattr(settings, name), str)]
        texts = [name for name in given if name not in lists]
        for names in (lists, texts):
            if len(names) > 1:
                raise SettingError(
                    names[1], f'"{names[0]}" and "{names[1]}" say the same; keep one'
                )
        if self.needs_rubric and not lists:
            raise ValueError('a rubric needs "rubrics", or a list of "criteria"')
        rubrics: tuple[Criterion, ...] = ()
        if lists:
            rubrics = criteria_of(getattr(settings, lists[0]), lists[0], spec.remark)
        criteria = getattr(settings, texts[0]).strip() if texts else None
        kind = CHECKLIST if rubrics else FREE
        source: str | None = None
        if self._program is not None:
            source = self._program.hash
        elif isinstance(settings.prompt, str):
            try:
                text = template_source(settings.prompt, spec)
                whole, text = own_prompt(text, kind, criteria, rubrics=bool(rubrics))
            except ValueError as error:
                raise SettingError("prompt", str(error)) from None
            source, criteria = (text, criteria) if whole else (None, text.strip())
        return JudgePrompt.make(kind, source, criteria, rubrics)

    async def __call__(self, context: GradeContext) -> Score:
        prompt, criteria = self._for_case(context)
        variables = variables_of(context, criteria, prompt.rubrics)
        variables["config"] = dict(self._settings.config or {})
        if self._program is not None:
            system, text = await self._program.render(
                prompt, context, criteria, prompt.rubrics, variables
            )
        else:
            system, text = prompt.render(variables)
        if context.judges is None:
            raise GraderError("there is nobody to ask")
        question = Question(
            system=system,
            text=text,
            schema=schema_of(prompt.rubrics) if prompt.rubrics else FREE_FORM,
            hash=prompt.hash,
            case_id=context.case.id,
            max_attempts=self._settings.max_attempts,
            max_turns=self._settings.max_steps,
        )
        question = self._with_files(question, context, prompt.mark(variables))

        def read(answer: str, finish: str | None) -> Verdict:
            if not prompt.rubrics:
                return read_free_form(answer, finish)
            return verdict_of(prompt.rubrics, *read_checks(answer, prompt.rubrics, finish))

        asked = await ask_all(context.judges, self.votes, question, read)
        bar = bar_of(self._bar, context)
        if len(asked) == 1:
            verdict = asked[0].verdict
            score = scored(verdict, {"judge": asked[0].to_dict()}, bar=bar)
        else:
            score = self._together(asked, prompt, bar)
        return held_to(score, self._threshold)

    def _with_files(self, question: Question, context: GradeContext, mark: str) -> Question:
        """The question, with what else the judge may look at."""
        return question

    def _for_case(self, context: GradeContext) -> tuple[JudgePrompt, str | None]:
        """The prompt, and the criteria that the case adds."""
        prompt = self.prompt
        inherited = context.case.judge_prompt
        if self._inherits and inherited is not None:
            try:
                whole, text = own_prompt(inherited, prompt.kind, None, rubrics=False)
            except ValueError as error:  # of a case made by a program; a suite's is checked before
                raise GraderError(f"judge_prompt: {error}") from None
            if whole:
                prompt = JudgePrompt.make(prompt.kind, text, prompt.criteria, prompt.rubrics)
        criteria = prompt.criteria or context.case.criteria
        if criteria is None and not prompt.rubrics:
            if context.reference_answer is None and prompt.source is FREE.template:
                raise GraderError(
                    "there is nothing to judge by: neither the assertion nor the test has "
                    "criteria, and the test has no expected output"
                )
            criteria = "The answer says what the reference answer says."
        return prompt, criteria

    def _together(self, asked: Sequence[Asked[Verdict]], prompt: JudgePrompt, bar: float) -> Score:
        """One score of several judgements, and how far they agree."""
        verdicts = [one.verdict for one in asked]
        if prompt.rubrics:
            verdict = _joint_checks(verdicts, prompt.rubrics, self._settings.aggregate)
        else:
            verdict = _joint_score(verdicts, self._settings.aggregate, bar)
        passes = [passes_at(one, bar) for one in verdicts]
        rows = [
            one.to_dict() | {"score": one.verdict.score, "passed": passed}
            for one, passed in zip(asked, passes, strict=True)
        ]
        reasons = tuple(
            Assertion(f"{one.target}: {one.verdict.reason}", passed)
            for one, passed in zip(asked, passes, strict=True)
            if one.verdict.reason
        )
        details = {
            "judges": rows,
            "aggregate": self._settings.aggregate,
            "agreement": {"raw": agreeing(passes), "votes": len(passes)},
        }
        verdict = msgspec.structs.replace(verdict, assertions=(*verdict.assertions, *reasons))
        return scored(verdict, details, bar=bar)


class AgentRubric(LlmGrader):
    """A model judges that may look at the files of the folder that the answer was made in, where
    that is still there."""

    def _with_files(self, question: Question, context: GradeContext, mark: str) -> Question:
        path = (context.workspace or {}).get("path")
        if not isinstance(path, str) or not Path(path).is_dir():
            return question
        return msgspec.structs.replace(
            question,
            text=f"{question.text}\n\n{_FOLDER}",
            hash=f"{question.hash}-files",
            max_turns=question.max_turns or FILE_STEPS,
            files=WorkspaceFiles(Path(path), mark),
        )


class Rubrics(LlmGrader):
    """A model judges by a rubric, criterion by criterion."""

    needs_rubric = True


def votes_of(settings: JudgeSettings, spec: GraderSpec) -> tuple[Vote, ...]:
    """Who is asked, and how often; that they are there is checked before the run."""
    if settings.panel is not None and settings.judge_target is not None:
        raise SettingError("panel", "a panel judges in place of a judge_target; keep one")
    twice = [name for name, count in Counter(settings.panel or ()).items() if count > 1]
    if twice:
        text = f'"{twice[0]}" is in the panel twice; `repeat` asks everybody several times'
        raise SettingError("panel", text)
    targets: Sequence[str | None] = settings.panel or [settings.judge_target]
    votes = tuple(Vote(target, repeat) for target in targets for repeat in range(settings.repeat))
    if len(votes) > MAX_VOTES:
        raise SettingError("repeat", f"{len(votes)} judgements of each answer; up to {MAX_VOTES}")
    for target in targets:
        spec.asks_judge(target)
    for name in ("model", "temperature"):
        if getattr(settings, name) is not None:
            spec.remark("not used: it is a setting of the target that judges", name)
    return votes


def _given(settings: FileModel, name: str) -> bool:
    return getattr(settings, name) is not None


def passes_at(verdict: Verdict, bar: float) -> bool:
    """Whether the judge passes the answer: by its score, unless it says itself that it fails."""
    return verdict.score >= bar and verdict.passed is not False


def _joint_score(verdicts: Sequence[Verdict], aggregate: str, bar: float) -> Verdict:
    if aggregate == "mean":
        return Verdict(score=sum(one.score for one in verdicts) / len(verdicts))
    passes = sum(passes_at(one, bar) for one in verdicts)
    against = len(verdicts) - passes
    return Verdict(score=0.5 if passes == against else float(passes > against))


def _joint_checks(
    verdicts: Sequence[Verdict], rubrics: Sequence[Criterion], aggregate: str
) -> Verdict:
    """By criterion, the mean of the shares or what most of them say, then the rubric's score."""
    shares = {}
    for criterion in rubrics:
        found = [(one.checks or {})[criterion.id] for one in verdicts]
        if aggregate == "mean":
            shares[criterion.id] = sum(found) / len(found)
        else:
            shares[criterion.id] = median(found)
    if aggregate == "mean":
        rubrics = [
            msgspec.structs.replace(one, passing=one.passing if one.ranges else 0.5 + 1e-6)
            for one in rubrics
        ]
    return verdict_of(rubrics, shares, {})


def scored(verdict: Verdict, details: Mapping[str, Any], *, bar: float) -> Score:
    """A verdict as what graders return."""
    assertions = list(verdict.assertions)
    passed = passes_at(verdict, bar)
    if verdict.reason:
        assertions.append(Assertion(verdict.reason, passed))
    elif not assertions:
        assertions.append(Assertion(f"the judge gives {verdict.score:g}", passed))
    if verdict.checks is not None:
        details = {**details, "checks": dict(verdict.checks)}
    # Who says that an answer fails is not overruled by a number.
    own = False if verdict.passed is False else None
    return Score(verdict.score, tuple(assertions), details, passed=own)

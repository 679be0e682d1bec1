"""A judge measured on labelled examples: agreement beyond chance, confusion, biases."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from muster.config.document import Document, Place
from muster.errors import ConfigError, MusterError, UsageError
from muster.evals.agreement import cohen_kappa, share
from muster.evals.case import DEFAULT_THRESHOLD, Case
from muster.evals.graders import graders
from muster.evals.graders.base import BoundGrader, GradeContext, GraderError
from muster.evals.graders.llm import LlmGrader
from muster.evals.graders.llm_prompt import PAIRS, JudgePrompt, variables_of
from muster.evals.graders.load import bind_graders
from muster.evals.graders.pairwise import DEFAULT_CRITERIA, Duel, ask_pair
from muster.evals.judge_agreement import Judged, agreement_report
from muster.evals.judge_desk import Desk
from muster.evals.judge_examples import Example, ExampleFile, Pair
from muster.evals.judge_meter import NotAsked, NothingAsked
from muster.evals.judge_records import JudgeId, identity, order_report, store_record, told
from muster.evals.judging import CaseJudges
from muster.evals.scoring import as_score
from muster.evals.suites.moved import MovedDocument
from muster.provider import Message, ProviderResponse

__all__ = ("Check", "JudgeOptions", "check_judge", "pair_report")

ERRORS_TOLD = 10


class NoVerdict(MusterError):
    """The judge was asked, and said nothing that could be read."""

    exit_code = 1


class JudgeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line says of a judge, over what the file says."""

    judge: str | None = None
    criteria: str | None = None
    prompt: Path | None = None
    threshold: float | None = None


class Check(msgspec.Struct, frozen=True):
    """What was found: a record of single answers, one of pairs, and where they are kept."""

    records: tuple[dict[str, Any], ...]
    stored: tuple[Path, ...]
    stopped: str | None = None
    """The bound that ended it before all was asked. Nothing is kept then: the first part of a file
    does not speak for all of it."""


_Note: TypeAlias = Callable[[dict[str, Any]], None] | None


async def check_judge(
    file: ExampleFile,
    options: JudgeOptions,
    desk: Desk,
    *,
    store: bool = True,
    note: Callable[[dict[str, Any]], None] | None = None,
) -> Check:
    """Ask the judge about every example, and compare. `note` is given a row for each, as it comes.

    Raises:
        MusterError: the judge is not well defined, or never gave a verdict.
    """
    bound, grader, settings = _grader(file, options, desk)
    desk.check([vote.target for vote in grader.votes], None)
    bar = settings.get("min_score", settings.get("threshold", DEFAULT_THRESHOLD))
    found: list[tuple[JudgeId, dict[str, Any]]] = []
    if file.examples:
        found.append(await _check_answers(file, bound, float(bar), desk, note))
    if file.pairs:
        found.append(await _check_pairs(file, grader, settings, desk, note))
    records, stored = [], []
    for judge, record in found:
        records.append(
            {
                "schema_version": 1,
                "target": judge.target,
                "model": judge.model,
                "prompt_hash": judge.prompt_hash,
                "checked_at": datetime.now(UTC).isoformat(timespec="seconds"),
                "file": file.path.name,
                "content_hash": hashlib.sha256(file.path.read_bytes()).hexdigest(),
                **record,
            }
        )
        if store and desk.meter.stopped is None:
            stored.append(store_record(desk.project.root, judge, records[-1]))
    return Check(tuple(records), tuple(stored), desk.meter.stopped)


def _grader(
    file: ExampleFile, options: JudgeOptions, desk: Desk
) -> tuple[BoundGrader, LlmGrader, dict[str, Any]]:
    """The grader that a suite with these settings would have."""
    settings: dict[str, Any] = dict(file.judge)
    if options.judge is not None:
        for name in ("judge_target", "grader_target", "target", "provider", "panel"):
            settings.pop(name, None)
        settings["judge_target"] = options.judge
    if options.criteria is not None or options.prompt is not None:
        for name in ("criteria", "value", "rubrics", "prompt"):
            settings.pop(name, None)
        if options.criteria is not None:
            settings["criteria"] = options.criteria
    if options.prompt is not None:
        settings["prompt"] = _read_prompt(options.prompt)
    if options.threshold is not None:
        settings.pop("threshold", None)
        settings["min_score"] = options.threshold
    settings.setdefault("type", "llm-grader")
    for name in ("name", "weight", "required", "negate"):
        if name in settings:
            raise ConfigError(file.place.at(name).problem("means nothing here", of_key=True))
    moved = MovedDocument({"judge": [settings]}, _origin(file.place), {("judge", 0): ()})
    (bound,) = bind_graders(
        [settings],
        document=moved,
        location=("judge",),
        base_dir=file.path.resolve().parent,
        project_root=desk.project.root,
        registry=graders,
    )
    if not isinstance(bound.grade, LlmGrader):
        raise UsageError(
            f'{file.path}: "{bound.type}" cannot be measured; a judge is an llm-grader'
        )
    return bound, bound.grade, settings


def _origin(place: Place) -> Document:
    document = place.document
    return document if isinstance(document.data, dict) else Document({}, document.path)


def _read_prompt(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise MusterError(f"{path}: cannot be read: {error}") from None


# --- single answers -------------------------------------------------------------------------------


async def _check_answers(
    file: ExampleFile, bound: BoundGrader, bar: float, desk: Desk, note: _Note
) -> tuple[JudgeId, dict[str, Any]]:
    async def ask(example: Example, judges: CaseJudges) -> Judged:
        context = _context(example, example.output, judges, bar)
        score = as_score(await bound.grade(context), bar)
        judge = identity(score.details or {})
        assert judge is not None
        passed = score.score >= bar and score.passed is not False
        reason = "; ".join(one.text for one in score.assertions)
        return Judged(example, score.score, passed, judge, reason)

    def seen(example: Example, answer: Judged | GraderError) -> None:
        label: dict[str, Any] = {"label": example.score}
        if isinstance(answer, Judged):
            label |= {"score": answer.score, "passed": answer.passed, "reason": answer.reason}
            label["agrees"] = answer.passed == (example.score >= bar)
        _noted(note, example, answer, label)

    before = desk.asked
    answers = await desk.each(file.examples, ask, None, seen)
    judged = [answer for answer in answers if isinstance(answer, Judged)]
    errors = _errors(file.examples, answers)
    if not judged:
        raise _no_verdict(errors, desk)
    record = {
        "kind": "answers",
        "examples": len(file.examples),
        "judged": len(judged),
        "errors": len(errors),
        "not_asked": _not_asked(answers),
        "error_examples": errors[:ERRORS_TOLD],
        "threshold": bar,
        **agreement_report(judged, bar),
        **desk.spent(before),
    }
    return _one_judge([one.judge for one in judged]), record


# --- pairs ----------------------------------------------------------------------------------------


async def _check_pairs(
    file: ExampleFile,
    grader: LlmGrader,
    settings: Mapping[str, Any],
    desk: Desk,
    note: _Note,
) -> tuple[JudgeId, dict[str, Any]]:
    if settings.get("prompt") is not None or grader.prompt.rubrics:
        raise UsageError(f"{file.path}: pairs are judged by `criteria` in words alone")
    prompt = JudgePrompt.make(PAIRS, criteria=grader.prompt.criteria)
    before = desk.asked

    async def ask(pair: Pair, judges: CaseJudges) -> list[Duel]:
        context = _context(pair, pair.a, judges, DEFAULT_THRESHOLD)
        criteria = grader.prompt.criteria or pair.criteria or DEFAULT_CRITERIA
        return await ask_pair(
            judges, grader.votes, prompt, variables_of(context, criteria), (pair.a, pair.b),
            case_id=pair.id,
        )  # fmt: skip

    def seen(pair: Pair, answer: list[Duel] | GraderError) -> None:
        label: dict[str, Any] = {"label": pair.winner}
        if isinstance(answer, list):
            label["votes"] = [duel.to_dict() for duel in answer]
            if pair.winner is not None:
                label["agrees"] = all(duel.winner == pair.winner for duel in answer)
        _noted(note, pair, answer, label)

    answers = await desk.each(file.pairs, ask, None, seen)
    errors = _errors(file.pairs, answers)
    judged = [
        (pair, duel)
        for pair, duels in zip(file.pairs, answers, strict=True)
        if isinstance(duels, list)
        for duel in duels
    ]
    if not judged:
        raise _no_verdict(errors, desk)
    labelled = [(pair, duel) for pair, duel in judged if pair.winner is not None]
    sides = ("a", "b", "tie")
    table = [[0] * 3 for _ in sides]
    for pair, duel in labelled:
        table[sides.index(str(pair.winner))][sides.index(duel.winner)] += 1
    same = sum(table[number][number] for number in range(3))
    ids = [_of_votes(duels) for duels in answers if isinstance(duels, list)]
    record = {
        "kind": "pairs",
        "examples": len(file.pairs),
        "judged": len(judged),
        "errors": len(errors),
        "not_asked": _not_asked(answers),
        "error_examples": errors[:ERRORS_TOLD],
        "agreement": told(share(same, len(labelled))) if labelled else None,
        "kappa": told(cohen_kappa(table)) if labelled else None,
        "confusion": {
            f"labelled_{side}": {
                f"judged_{other}": table[row][column] for column, other in enumerate(sides)
            }
            for row, side in enumerate(sides)
        }
        if labelled
        else None,
        **pair_report([duel for _, duel in judged]),
        **desk.spent(before),
    }
    return _one_judge(ids), record


def _of_votes(duels: Sequence[Duel]) -> JudgeId:
    judge = identity({"judges": [duel.forward.to_dict() for duel in duels]})
    assert judge is not None
    return judge


def pair_report(duels: Sequence[Duel]) -> dict[str, Any]:
    """What the order of the answers did."""
    return order_report(
        len(duels),
        sum(duel.consistent for duel in duels),
        sum(duel.drawn_to == "first" for duel in duels),
        sum(duel.drawn_to == "second" for duel in duels),
    )


# --- what both have -------------------------------------------------------------------------------


def _context(one: Example | Pair, output: str, judges: CaseJudges, bar: float) -> GradeContext:
    expected: tuple[Message, ...] = ()
    if one.expected_output is not None:
        expected = (Message("assistant", one.expected_output),)
    case = Case(
        id=one.id,
        suite="judge check",
        input=(Message("user", one.input),),
        expected_output=expected,
        criteria=one.criteria,
    )
    return GradeContext(
        output=output,
        case=case,
        response=ProviderResponse(output),
        expected_output=expected,
        judges=judges,
        threshold=bar,
    )


def _one_judge(judges: Sequence[JudgeId]) -> JudgeId:
    """The one that judged; of several models behind one target, all are named."""
    models = sorted({judge.model for judge in judges if judge.model})
    targets = "+".join(dict.fromkeys(judge.target for judge in judges))
    return JudgeId(targets, "+".join(models) or None, judges[0].prompt_hash)


def _errors(items: Sequence[Example | Pair], answers: Sequence[Any]) -> list[dict[str, str]]:
    return [
        {"id": item.id, "error": str(answer)}
        for item, answer in zip(items, answers, strict=True)
        if isinstance(answer, GraderError) and not isinstance(answer, NotAsked)
    ]


def _noted(note: _Note, one: Example | Pair, answer: object, row: dict[str, Any]) -> None:
    """Tell of one example, unless it was not asked about."""
    if note is None or isinstance(answer, NotAsked):
        return
    if isinstance(answer, GraderError):
        row["error"] = str(answer)
    note({"id": one.id, "input": one.input, **row})


def _not_asked(answers: Sequence[Any]) -> int:
    return sum(isinstance(answer, NotAsked) for answer in answers)


def _no_verdict(errors: Sequence[Mapping[str, str]], desk: Desk) -> MusterError:
    if errors:
        return NoVerdict(f"the judge gave no verdict: {errors[0]['error']}")
    return NothingAsked(f"the judge gave no verdict: {desk.meter.stopped}")

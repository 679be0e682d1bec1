"""A judge measured on labelled examples: agreement beyond chance, confusion, biases."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

from muster.config.document import Document, Place
from muster.errors import ConfigError, MusterError, UsageError
from muster.evals.agreement import cohen_kappa, difference_of_means, share
from muster.evals.case import DEFAULT_THRESHOLD, Case
from muster.evals.graders import graders
from muster.evals.graders.base import BoundGrader, GradeContext, GraderError
from muster.evals.graders.llm import LlmGrader
from muster.evals.graders.llm_prompt import PAIRS, JudgePrompt, variables_of
from muster.evals.graders.load import bind_graders
from muster.evals.graders.pairwise import DEFAULT_CRITERIA, Duel, ask_pair
from muster.evals.judge_desk import Desk
from muster.evals.judge_examples import Example, ExampleFile, Pair
from muster.evals.judge_records import JudgeId, identity, order_report, store_record, told
from muster.evals.judging import CaseJudges
from muster.evals.scoring import as_score
from muster.evals.stats import Estimate, clustered_mean
from muster.evals.suites.moved import MovedDocument
from muster.provider import Message, ProviderResponse

__all__ = ("Check", "JudgeOptions", "check_judge", "pair_report")

LEVELS = 10
"""Scores are compared in so many steps where labels are scores."""

ERRORS_TOLD = 10


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


class _Judged(msgspec.Struct, frozen=True):
    example: Example
    score: float
    passed: bool
    judge: JudgeId

    @property
    def error(self) -> float:
        """How much more the judge gives than people do."""
        return self.score - self.example.score


async def check_judge(
    file: ExampleFile, options: JudgeOptions, desk: Desk, *, store: bool = True
) -> Check:
    """Ask the judge about every example, and compare.

    Raises:
        MusterError: the judge is not well defined, or never gave a verdict.
    """
    bound, grader, settings = _grader(file, options, desk)
    desk.check([vote.target for vote in grader.votes], None)
    bar = settings.get("min_score", settings.get("threshold", DEFAULT_THRESHOLD))
    found: list[tuple[JudgeId, dict[str, Any]]] = []
    if file.examples:
        found.append(await _check_answers(file, bound, float(bar), desk))
    if file.pairs:
        found.append(await _check_pairs(file, grader, settings, desk))
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
        if store:
            stored.append(store_record(desk.project.root, judge, records[-1]))
    return Check(tuple(records), tuple(stored))


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
    file: ExampleFile, bound: BoundGrader, bar: float, desk: Desk
) -> tuple[JudgeId, dict[str, Any]]:
    async def ask(example: Example, judges: CaseJudges) -> _Judged:
        context = _context(example, example.output, judges, bar)
        score = as_score(await bound.grade(context), bar)
        judge = identity(score.details or {})
        assert judge is not None
        passed = score.score >= bar and score.passed is not False
        return _Judged(example, score.score, passed, judge)

    before = desk.asked
    answers = await desk.each(file.examples, ask, None)
    judged = [answer for answer in answers if isinstance(answer, _Judged)]
    errors = _errors(file.examples, answers)
    if not judged:
        raise MusterError(f"the judge gave no verdict: {errors[0]['error']}")
    record = {
        "kind": "answers",
        "examples": len(file.examples),
        "judged": len(judged),
        "errors": len(errors),
        "error_examples": errors[:ERRORS_TOLD],
        "threshold": bar,
        **_agreement(judged, bar),
        **desk.spent(before),
    }
    return _one_judge([one.judge for one in judged]), record


def _agreement(judged: Sequence[_Judged], bar: float) -> dict[str, Any]:
    labels = [one.example.score >= bar for one in judged]
    table = [[0, 0], [0, 0]]
    for one, good in zip(judged, labels, strict=True):
        table[not good][not one.passed] += 1
    (true_pass, false_fail), (false_pass, true_fail) = table
    graded = any(one.example.graded for one in judged)
    errors = [one.error for one in judged]
    return {
        "agreement": told(share(true_pass + true_fail, len(judged))),
        "kappa": told(cohen_kappa(table)),
        "weighted_kappa": told(_weighted(judged)) if graded else None,
        "confusion": {
            "labelled_pass": {"judged_pass": true_pass, "judged_fail": false_fail},
            "labelled_fail": {"judged_pass": false_pass, "judged_fail": true_fail},
        },
        "passes_found": told(share(true_pass, true_pass + false_fail)),
        "fails_found": told(share(true_fail, false_pass + true_fail)),
        "leniency": told(
            clustered_mean([float(one.passed) - good for one, good in
                            zip(judged, labels, strict=True)], bounds=(-1.0, 1.0))
        ),
        "score_error": told(clustered_mean(errors, bounds=(-1.0, 1.0))) if graded else None,
        "mean_absolute_error": math.fsum(map(abs, errors)) / len(errors) if graded else None,
        "length_bias": _length_bias(judged, labels),
    }  # fmt: skip


def _weighted(judged: Sequence[_Judged]) -> Estimate | None:
    """Kappa with quadratic weights over scores in tenths."""
    table = [[0] * (LEVELS + 1) for _ in range(LEVELS + 1)]
    for one in judged:
        table[_level(one.example.score)][_level(one.score)] += 1
    return cohen_kappa(table, "quadratic")


def _level(score: float) -> int:
    return math.floor(score * LEVELS + 0.5)


def _length_bias(judged: Sequence[_Judged], labels: Sequence[bool]) -> dict[str, Any] | None:
    """How much kinder the judge is to the longer half of the answers than people are.

    Verdict minus label is compared between the halves, so that long answers that *are* better
    count for nothing. `None` where all answers are of one length.
    """
    lengths = [len(one.example.output) for one in judged]
    middle = median(lengths)
    kindness = [float(one.passed) - good for one, good in zip(judged, labels, strict=True)]
    longer = [error for error, length in zip(kindness, lengths, strict=True) if length > middle]
    shorter = [error for error, length in zip(kindness, lengths, strict=True) if length <= middle]
    found = difference_of_means(longer, shorter, (-1.0, 1.0))
    if found is None:
        return None
    return {
        "median_length": middle,
        "longer": told(clustered_mean(longer, bounds=(-1.0, 1.0))),
        "shorter": told(clustered_mean(shorter, bounds=(-1.0, 1.0))),
        "difference": told(found),
    }


# --- pairs ----------------------------------------------------------------------------------------


async def _check_pairs(
    file: ExampleFile, grader: LlmGrader, settings: Mapping[str, Any], desk: Desk
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

    answers = await desk.each(file.pairs, ask, None)
    errors = _errors(file.pairs, answers)
    judged = [
        (pair, duel)
        for pair, duels in zip(file.pairs, answers, strict=True)
        if isinstance(duels, list)
        for duel in duels
    ]
    if not judged:
        raise MusterError(f"the judge gave no verdict: {errors[0]['error']}")
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
        if isinstance(answer, GraderError)
    ]

"""Two targets' recorded answers, compared pair by pair by a judge that sees both in both orders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from muster.errors import UsageError
from muster.evals.agreement import net_preference, share
from muster.evals.case import Case
from muster.evals.graders.base import GradeContext, GraderError
from muster.evals.graders.llm_ask import Vote
from muster.evals.graders.llm_prompt import PAIRS, JudgePrompt, variables_of
from muster.evals.graders.pairwise import DEFAULT_CRITERIA, Duel, ask_pair
from muster.evals.judge_check import pair_report
from muster.evals.judge_desk import Desk
from muster.evals.judge_meter import NotAsked, NothingAsked
from muster.evals.judge_records import JudgeId, find_record, told
from muster.evals.judging import CaseJudges
from muster.evals.results import CaseResult, read_results
from muster.provider import Message, ProviderResponse

__all__ = ("Side", "compare_answers", "sides_of")


class Side(msgspec.Struct, frozen=True):
    """One of the two: a target of a run."""

    folder: Path
    target: str


def sides_of(runs: tuple[Path, ...], targets: tuple[str, ...]) -> tuple[Side, Side]:
    """The sides that one run and two targets, or two runs, stand for.

    Raises:
        UsageError: it is not clear which.
    """
    folders = (runs[0], runs[-1])
    known = [_targets(folder) for folder in folders]
    if len(targets) > 2:
        raise UsageError("two targets are compared, not more")
    if len(targets) == 2:
        chosen = list(targets)
    elif targets:
        chosen = [targets[0]] * 2
    elif len(runs) == 1:
        chosen = known[0]
        if len(chosen) != 2:
            raise UsageError(
                f"{folders[0]} has {len(chosen)} targets ({', '.join(chosen)}); say which two "
                "with --target, or give two runs"
            )
    else:
        for folder, found in zip(folders, known, strict=True):
            if len(found) != 1:
                raise UsageError(f"{folder} has the targets {', '.join(found)}; say --target")
        chosen = [known[0][0], known[1][0]]
    for folder, found, name in zip(folders, known, chosen, strict=True):
        if name not in found:
            raise UsageError(f'{folder} has no target "{name}" (it has {", ".join(found)})')
    one, two = (Side(folder, name) for folder, name in zip(folders, chosen, strict=True))
    if one == two:
        raise UsageError("both sides are the same target of the same run")
    return one, two


def _targets(folder: Path) -> list[str]:
    found = list(dict.fromkeys(result.target for result in read_results(folder)))
    if not found:
        raise UsageError(f"{folder}: the run has no results")
    return found


_Key = tuple[str, str, str | None, int]


def _answers(side: Side) -> Iterator[tuple[_Key, CaseResult]]:
    for result in read_results(side.folder):
        if result.target == side.target:
            key = (result.suite_key, result.test_id, result.prompt, result.repeat)
            yield key, result


async def compare_answers(
    sides: tuple[Side, Side], desk: Desk, *, judge: str, criteria: str | None = None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The report, and a row for each pair.

    Raises:
        MusterError: the runs share no case that both answered, or the judge is not there.
    """
    desk.check([judge], None)
    left = dict(_answers(sides[0]))
    pairs = [(left[key], other) for key, other in _answers(sides[1]) if key in left]
    if not pairs:
        raise UsageError(
            f"{sides[0].folder} ({sides[0].target}) and {sides[1].folder} ({sides[1].target}) "
            "share no case; there is nothing to compare"
        )
    answered = [
        (one, two) for one, two in pairs if one.output is not None and two.output is not None
    ]
    if not answered:
        raise UsageError(f"of {len(pairs)} shared cases, none was answered by both")
    prompt = JudgePrompt.make(PAIRS, criteria=criteria)

    async def ask(pair: tuple[CaseResult, CaseResult], judges: CaseJudges) -> Duel:
        one, two = pair
        context = _context(one, judges)
        variables = variables_of(context, criteria or one.criteria or DEFAULT_CRITERIA)
        answers = (one.output or "", two.output or "")
        votes = [Vote(judge)]
        (duel,) = await ask_pair(judges, votes, prompt, variables, answers, case_id=one.test_id)
        return duel

    found = await desk.each(answered, ask, None)
    duels = [duel for duel in found if isinstance(duel, Duel)]
    asked = [one for one in found if not isinstance(one, NotAsked)]
    if not asked:
        raise NothingAsked(f"no pair was judged: {desk.meter.stopped}")
    rows = [
        _row(pair, duel)
        for pair, duel in zip(answered, found, strict=True)
        if not isinstance(duel, NotAsked)
    ]
    report = {
        "a": {"run": str(sides[0].folder), "target": sides[0].target},
        "b": {"run": str(sides[1].folder), "target": sides[1].target},
        "shared": len(pairs),
        "not_answered": len(pairs) - len(answered),
        "errors": len(asked) - len(duels),
        "first_error": next((str(one) for one in asked if isinstance(one, GraderError)), None),
        "not_asked": len(found) - len(asked),
        "stopped": desk.meter.stopped,
        **_report(duels, desk),
        **desk.spent(),
    }
    return report, rows


def _report(duels: list[Duel], desk: Desk) -> dict[str, Any]:
    if not duels:
        return {"judged": 0}
    wins = sum(duel.winner == "a" for duel in duels)
    losses = sum(duel.winner == "b" for duel in duels)
    last = duels[0].forward
    judge = JudgeId(last.target, last.model, last.hash)
    return {
        "judged": len(duels),
        "a_wins": wins,
        "b_wins": losses,
        "ties": len(duels) - wins - losses,
        "net_preference": told(net_preference(wins, losses, len(duels))),
        "share_of_decided": told(share(wins, wins + losses)),
        **pair_report(duels),
        "judge": {
            "target": judge.target,
            "model": judge.model,
            "prompt_hash": judge.prompt_hash,
            "check": find_record(desk.project.root, judge),
        },
    }


def _row(pair: tuple[CaseResult, CaseResult], duel: Duel | GraderError) -> dict[str, Any]:
    one, two = pair
    row: dict[str, Any] = {
        "test_id": one.test_id, "suite": one.suite, "prompt": one.prompt, "repeat": one.repeat,
        "input": one.input, "a": one.output, "b": two.output,
    }  # fmt: skip
    return row | ({"error": str(duel)} if isinstance(duel, GraderError) else duel.to_dict())


def _context(result: CaseResult, judges: CaseJudges) -> GradeContext:
    expected: tuple[Message, ...] = ()
    if result.expected_output is not None:
        expected = (Message("assistant", result.expected_output),)
    output = result.output or ""
    case = Case(
        id=result.test_id,
        suite=result.suite,
        input=tuple(_messages(result.input)),
        criteria=result.criteria,
    )
    return GradeContext(
        output=output,
        case=case,
        response=ProviderResponse(output),
        expected_output=expected,
        judges=judges,
    )


def _messages(asked: Any) -> Iterator[Message]:
    if isinstance(asked, list):
        for item in asked:
            if isinstance(item, Mapping):
                yield Message.from_mapping(item)
    else:
        yield Message("user", str(asked))

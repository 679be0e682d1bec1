"""Budgets over all runs: tokens of a day, money of a day, a week, a month."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from chat_parts import chat, to
from team_parts import Said, run, says, write_team

from muster.provider import ProviderRequest, TokenUsage
from muster.store.journal import Journal, journal_path

LONG_AGO = datetime.now(UTC) - timedelta(days=1)

PARALLEL = """
steps:
- {name: s, arkAgent: a, forEach: '["1", "2", "3", "4", "5", "6"]', inputs: {prompt: hi}}
"""


def flow(folder: Path, spec: str, limits: str = "") -> Path:
    file = write_team(folder, spec, kind="Flow")
    if limits:
        text = file.read_text()
        file.write_text(text.replace("{target: scripted, ", f"{{target: scripted, {limits}, ", 1))
    return file


def budget(file: Path, spec: str) -> Path:
    kind = "apiVersion: muster.dev/v1alpha1\nkind: Budget\nmetadata: {name: cap}\n"
    file.write_text(f"{kind}spec: {spec}\n---\n{file.read_text()}")
    return file


def after_a_moment(**answer: Any) -> Callable[[ProviderRequest], Said]:
    async def wait() -> Any:
        await asyncio.sleep(1)
        return says("ok", **answer)

    return lambda request: wait()


def spent_before(folder: Path, dollars: float, moment: datetime, team: str = "t") -> None:
    with Journal.open(journal_path(folder)) as journal:
        journal.spend(1, dollars, agent="x", teams=(team,))
        last = "(SELECT max(id) FROM spending)"
        at = moment.isoformat().replace("+00:00", "Z")
        journal._db.write(f"UPDATE spending SET at = ? WHERE id = {last}", (at,))


# --- tokens of a day ----------------------------------------------------------------------------


def test_calls_at_the_same_time_do_not_use_the_same_tokens(tmp_path: Path) -> None:
    limits = "limits: {maxDailyTokens: 100, maxTokensPerCall: 40, maxConcurrentTasks: 6}"
    file = flow(tmp_path, PARALLEL, limits)
    ran = run(file, after_a_moment(tokens=50))
    assert ran.end[:2] == ("failed", "BudgetExceeded")
    assert "daily token usage 100 of agent a leaves no room" in (ran.end[2] or "")
    assert len(ran.asked) == 2
    assert run(file, after_a_moment(tokens=50)).asked == []


def test_the_last_tokens_of_a_day_bound_the_answer(tmp_path: Path) -> None:
    one = "steps: [{name: s, arkAgent: a, inputs: {prompt: hi}}]"
    limits = "limits: {maxDailyTokens: 100, maxTokensPerCall: 80}"
    asked = [run(flow(tmp_path, one, limits), lambda _: says("ok", tokens=70)).asked for _ in "12"]
    allowed = [request.limits.max_output_tokens for (request,) in asked]
    assert allowed[0] == 80
    assert allowed[1] is not None
    assert 0 < allowed[1] < 30


def test_a_team_in_a_team_counts_for_both(tmp_path: Path) -> None:
    inner = (
        "apiVersion: muster.dev/v1alpha1\nkind: Team\nmetadata: {name: inner}\nspec:\n"
        "  roles: [{name: w, arkAgent: a}]\n  pipeline: [{role: w, inputs: {prompt: hi}}]\n---\n"
    )
    outer = (
        "roles: [{name: r, arkTeam: inner}]\npipeline: [{role: r, inputs: {prompt: hi}}]\n"
        "limits: {maxDailyTokens: 100}\n"
    )
    file = write_team(tmp_path, outer)
    file.write_text(inner + file.read_text())
    assert run(file, lambda _: says("ok", tokens=99)).end[0] == "succeeded"
    ran = run(file, lambda _: says("ok", tokens=99))
    assert (ran.end[1], ran.asked) == ("BudgetExceeded", [])
    assert "daily token usage 99 of team t leaves no room" in (ran.end[2] or "")


def test_what_a_turn_has_used_is_on_disk_before_its_tools_run(tmp_path: Path) -> None:
    spec = (
        "entry: a\nroles:\n- {name: a, arkAgent: a, canDelegate: [b]}\n- {name: b, arkAgent: a}\n"
    )
    seen: list[object] = []

    def script(role: str, turn: int, _: object) -> object:
        if role == "b":
            with Journal.open(journal_path(tmp_path)) as journal:
                first, _second = journal.steps(journal.run("latest").id)
                seen.extend((first.status, first.token_usage, len(journal.spending(LONG_AGO))))
            return "done"
        return to("b", tokens=70) if turn == 1 else "ok"

    assert run(write_team(tmp_path, spec), chat(script)).end[0] == "succeeded"
    assert seen == ["running", TokenUsage(70, 0), 1]


# --- money --------------------------------------------------------------------------------------

ONE = "steps: [{name: s, arkAgent: a, inputs: {prompt: hi}}]"


def paid(dollars: float) -> Callable[[ProviderRequest], Said]:
    return lambda request: says("ok", cost_usd=dollars)


def test_the_money_of_a_month_is_held_over_runs(tmp_path: Path) -> None:
    file = budget(flow(tmp_path, ONE), "{limit: 1, selector: {team: t}}")
    assert run(file, paid(0.5)).kinds("warning") == []
    second = run(file, paid(0.6))
    assert second.end[0] == "succeeded"
    month = datetime.now(UTC).strftime("%Y-%m-01")
    told = [event.text for event in second.events if event.kind == "warning"]
    assert told == ['budget "cap": $1.1 of $1 a month are spent (110%)']
    third = run(file, paid(0.1))
    assert (third.asked, third.end) == (
        [],
        (
            "failed",
            "BudgetExceeded",
            f'step "s": budget "cap" of $1 a month exceeded: spent $1.1 since {month}',
        ),
    )


@pytest.mark.parametrize(
    ("spec", "team", "holds"),
    [
        ("{limit: 1}", "other", True),
        ("{limit: 1, selector: {team: t}}", "other", False),
        ("{limit: 1, selector: {team: t}}", "t", True),
    ],
)
def test_whose_money_counts(tmp_path: Path, spec: str, team: str, holds: bool) -> None:
    file = budget(flow(tmp_path, ONE), spec)
    spent_before(tmp_path, 1.0, datetime.now(UTC), team)
    assert (run(file, paid(0.1)).end[1] == "BudgetExceeded") is holds


@pytest.mark.parametrize("period", ["daily", "weekly", "monthly"])
def test_when_a_period_begins_anew(tmp_path: Path, period: str) -> None:
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    begin = {
        "daily": today,
        "weekly": today - timedelta(days=today.weekday()),
        "monthly": today.replace(day=1),
    }[period]
    file = budget(flow(tmp_path, ONE), f"{{limit: 1, period: {period}}}")
    spent_before(tmp_path, 5.0, begin - timedelta(seconds=1))
    assert run(file, paid(0.1)).end[0] == "succeeded"
    spent_before(tmp_path, 0.9, begin)
    assert run(file, paid(0.1)).end[1] == "BudgetExceeded"

"""What a run may use up: tokens, money, time; and what comes of retries."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from team_parts import Ran, Said, run, says, write_team

from muster.provider import (
    BadRequest,
    ProviderRequest,
    ProviderResponse,
    ProviderUnavailable,
    RateLimited,
    TokenUsage,
)
from muster.store.journal import Journal, journal_path

CHAIN = """
steps:
- {name: a, arkAgent: a, inputs: {prompt: one}}
- {name: b, arkAgent: a, inputs: {prompt: two}, dependsOn: [a]}
- {name: c, arkAgent: a, inputs: {prompt: three}, dependsOn: [b]}
"""


def flow(folder: Path, spec: str) -> Path:
    return write_team(folder, spec, kind="Flow")


async def forever() -> str:
    await asyncio.get_running_loop().create_future()
    raise AssertionError


def hangs_on(name: str) -> Callable[[ProviderRequest], Said]:
    return lambda request: forever() if name in request.question else "ok"


def clocked(seconds: list[float]) -> Callable[[object], None]:
    def note(event: object) -> None:
        if getattr(event, "kind", "") in ("run_started", "run_done"):
            seconds.append(asyncio.get_running_loop().time())

    return note


# --- tokens -------------------------------------------------------------------------------------


def test_a_call_that_does_not_fit_is_not_made(tmp_path: Path) -> None:
    ran = run(flow(tmp_path, CHAIN), lambda r: says("ok", tokens=60), max_tokens=70)
    assert ran.end[:2] == ("failed", "BudgetExceeded")
    assert 'step "b": token budget of 70 of the run exceeded: used 60' in (ran.end[2] or "")
    assert ran.statuses == {"a": "succeeded", "b": "failed", "c": "pending"}
    assert len(ran.asked) == 1


def test_a_prompt_larger_than_the_budget_asks_nobody(tmp_path: Path) -> None:
    ran = run(flow(tmp_path, CHAIN + "maxTokens: 3\n"))
    assert ran.end[:2] == ("failed", "BudgetExceeded")
    assert ran.asked == []


def test_a_run_that_ends_beyond_its_budget_has_failed(tmp_path: Path) -> None:
    one = "steps: [{name: a, arkAgent: a, inputs: {prompt: x}}]\nmaxTokens: 100\n"
    ran = run(flow(tmp_path, one), lambda r: says("ok", tokens=101))
    assert ran.end == ("failed", "BudgetExceeded", "token budget of 100 exceeded: used 101")
    assert ran.statuses == {"a": "succeeded"}
    assert ran.output == "ok"
    good = run(flow(tmp_path, one), lambda r: says("ok", tokens=100))
    assert good.end == ("succeeded", "Succeeded", None)


def test_the_call_is_told_what_is_left(tmp_path: Path) -> None:
    ran = run(flow(tmp_path, CHAIN), lambda r: says("ok", tokens=60), max_tokens=1000)
    assert [request.limits.max_total_tokens for request in ran.asked] == [1000, 940, 880]
    # The prompt is about 51 tokens, and so much is left for the answer.
    assert [request.limits.max_output_tokens for request in ran.asked] == [949, 889, 829]
    without = run(flow(tmp_path, CHAIN))
    assert without.asked[0].limits.max_output_tokens == 8000


def test_the_budget_of_a_step(tmp_path: Path) -> None:
    spec = """
    steps:
    - name: a
      arkAgent: a
      inputs: {prompt: p}
      maxTokens: 100
      loop: {condition: "true", maxIterations: 9}
    """
    ran = run(flow(tmp_path, spec), lambda r: says("ok", tokens=48))
    assert ran.end[:2] == ("failed", "BudgetExceeded")
    assert 'token budget of 100 of the step "a" exceeded: used 96' in (ran.end[2] or "")
    assert len(ran.asked) == 2


def test_an_answer_without_usage_counts_by_its_length(tmp_path: Path) -> None:
    answer = ProviderResponse("x" * 4000)
    ran = run(flow(tmp_path, CHAIN), lambda r: answer, max_tokens=1060)
    assert ran.end[:2] == ("failed", "BudgetExceeded")
    assert len(ran.asked) == 1


def test_what_failed_attempts_have_used_counts(tmp_path: Path) -> None:
    def script(request: ProviderRequest) -> Said:
        if request.attempt == 0:
            raise ProviderUnavailable("down", token_usage=TokenUsage(30, 0), cost_usd=0.5)
        return says("ok", tokens=10, cost_usd=0.25)

    spec = "steps: [{name: a, arkAgent: a, inputs: {prompt: x}, retry: 1}]\n"
    ran = run(flow(tmp_path, spec), script)
    usage = ran.outcome.token_usage
    assert usage is not None
    assert (usage.total, ran.outcome.cost_usd) == (40, 0.75)
    told = [(row.status, row.token_usage, row.cost_usd) for row in ran.rows()]
    assert told == [
        ("failed", TokenUsage(30, 0), 0.5),
        ("succeeded", TokenUsage(10, 0), 0.25),
    ]


# --- money --------------------------------------------------------------------------------------


def paid(cost: float) -> Callable[[ProviderRequest], Said]:
    return lambda request: says("ok", cost_usd=cost)


def test_money(tmp_path: Path) -> None:
    ran = run(flow(tmp_path, CHAIN), paid(0.6), budget_usd=1.0)
    assert ran.end[:2] == ("failed", "BudgetExceeded")
    assert len(ran.asked) == 2
    assert ran.statuses["c"] == "failed"
    assert ran.outcome.cost_usd == pytest.approx(1.2)
    assert run(flow(tmp_path, CHAIN), paid(0.3), budget_usd=1.0).end[0] == "succeeded"


def test_money_of_a_step(tmp_path: Path) -> None:
    spec = """
    steps:
    - {name: a, arkAgent: a, inputs: {prompt: p}, budgetUsd: 1, loop: {condition: "true"}}
    """
    ran = run(flow(tmp_path, spec), paid(0.5))
    assert ran.end == (
        "failed",
        "BudgetExceeded",
        'step "a": budget of $1 exceeded: spent $1',
    )
    assert len(ran.asked) == 2


# --- a day's tokens -----------------------------------------------------------------------------


def used_before(folder: Path, tokens: int, hours: float) -> None:
    """The agent `a` has used so many tokens so long ago, in a run of the team `t`."""
    ended = (datetime.now(UTC) - timedelta(hours=hours)).isoformat()
    with Journal.open(journal_path(folder)) as journal:
        journal.spend(tokens, None, agent="a", teams=("t",))
        moved = "UPDATE spending SET at = ? WHERE tokens = ?"
        journal._db.write(moved, (ended.replace("+00:00", "Z"), tokens))


@pytest.mark.parametrize("who", ["agent", "team"])
def test_the_tokens_of_a_day(tmp_path: Path, who: str) -> None:
    if who == "agent":
        file = flow(tmp_path, CHAIN)
        limits = "{target: scripted, limits: {maxDailyTokens: 1000}, "
        file.write_text(file.read_text().replace("{target: scripted, ", limits))
    else:
        pipeline = "pipeline: [{role: w, inputs: {prompt: x}}]\n"
        roles = "roles: [{name: w, arkAgent: a}]\n"
        file = write_team(tmp_path, roles + pipeline + "limits: {maxDailyTokens: 1000}\n")
    used_before(tmp_path, 5000, hours=24.1)
    assert run(file).end[0] == "succeeded"
    used_before(tmp_path, 990, hours=23.9)
    ran = run(file)
    assert ran.end[:2] == ("failed", "BudgetExceeded")
    name = "agent a" if who == "agent" else "team t"
    assert f"of {name} leaves no room" in (ran.end[2] or "")
    assert ran.asked == []


# --- time ---------------------------------------------------------------------------------------


def test_the_time_of_a_run_interrupts_a_hung_step(tmp_path: Path) -> None:
    seconds: list[float] = []
    file = flow(tmp_path, CHAIN + "timeoutSeconds: 30\n")
    ran = run(file, hangs_on("two"), on_event=clocked(seconds))
    assert ran.end == ("failed", "TimedOut", "run exceeded timeout of 30s")
    assert ran.statuses == {"a": "succeeded", "b": "failed", "c": "pending"}
    assert seconds[1] - seconds[0] == pytest.approx(30, abs=0.01)
    assert ran.step("b").error_kind == "cancelled"
    assert [(row.name, row.status) for row in ran.rows()] == [("a", "succeeded"), ("b", "failed")]
    usage = ran.outcome.token_usage
    assert usage is not None
    assert usage.total == 10


def test_the_tighter_bound_counts(tmp_path: Path) -> None:
    file = flow(tmp_path, CHAIN + "timeoutSeconds: 30\n")
    assert "5s" in (run(file, hangs_on("two"), timeout=5.0).end[2] or "")
    assert "30s" in (run(file, hangs_on("two"), timeout=50.0).end[2] or "")


def test_the_time_of_a_step_is_for_all_its_attempts(tmp_path: Path) -> None:
    async def fails(seconds: float) -> str:
        await asyncio.sleep(seconds)
        raise ProviderUnavailable("down")

    spec = """
    steps:
    - name: a
      arkAgent: a
      inputs: {prompt: x}
      timeoutSeconds: 25
      retry: {maxRetries: 9, initialDelaySeconds: 0}
    """
    seconds: list[float] = []
    ran = run(flow(tmp_path, spec), lambda r: fails(10), on_event=clocked(seconds))
    assert ran.end == ("failed", "StepFailed", 'step "a": the step took longer than 25 s')
    assert ran.step("a").error_kind == "timeout"
    assert seconds[1] - seconds[0] == pytest.approx(25, abs=0.01)
    assert len(ran.asked) == 3


def test_the_time_of_an_agent_is_for_one_task(tmp_path: Path) -> None:
    file = flow(tmp_path, CHAIN)
    limits = "{target: scripted, limits: {timeoutSeconds: 7}, "
    file.write_text(file.read_text().replace("{target: scripted, ", limits))
    seconds: list[float] = []
    ran = run(file, hangs_on("two"), on_event=clocked(seconds))
    assert ran.end == ("failed", "StepFailed", 'step "b": no answer within 7 s')
    assert seconds[1] - seconds[0] == pytest.approx(7, abs=0.01)


def test_an_agent_takes_so_many_tasks_at_a_time(tmp_path: Path) -> None:
    steps = "".join(f"- {{name: s{n}, arkAgent: a, inputs: {{prompt: x}}}}\n" for n in range(6))
    file = flow(tmp_path, f"steps:\n{steps}")
    limits = "{target: scripted, limits: {maxConcurrentTasks: 2}, "
    file.write_text(file.read_text().replace("{target: scripted, ", limits))
    now, most = 0, 0

    async def answer() -> str:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(1)
        now -= 1
        return "ok"

    assert run(file, lambda request: answer()).end[0] == "succeeded"
    assert most == 2


# --- retries ------------------------------------------------------------------------------------

RETRY = """
steps:
- name: a
  arkAgent: a
  inputs: {prompt: x}
  retry: {maxRetries: 2, initialDelaySeconds: 4, backoffFactor: 3, maxDelaySeconds: 10}
"""


def fails_first(times: int, error: Callable[[], Exception]) -> Callable[[ProviderRequest], Said]:
    def script(request: ProviderRequest) -> Said:
        if request.attempt < times:
            raise error()
        return "ok"

    return script


def retried(folder: Path, script: Callable[[ProviderRequest], Said]) -> tuple[Ran, float]:
    seconds: list[float] = []
    ran = run(flow(folder, RETRY), script, on_event=clocked(seconds))
    return ran, seconds[1] - seconds[0]


def test_retries_wait_longer_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    ran, seconds = retried(tmp_path, fails_first(2, lambda: RateLimited("slow down")))
    assert ran.end[0] == "succeeded"
    assert [request.attempt for request in ran.asked] == [0, 1, 2]
    assert seconds == pytest.approx(4 + 10, abs=0.01)
    assert [event.text for event in ran.events if event.kind == "retry"] == ["slow down"] * 2
    assert [(row.attempt, row.status, row.error_kind) for row in ran.rows()] == [
        (0, "failed", "rate_limited"),
        (1, "failed", "rate_limited"),
        (2, "succeeded", None),
    ]
    assert ran.step("a").attempts == 3


def test_retries_end(tmp_path: Path) -> None:
    ran, _ = retried(tmp_path, fails_first(9, lambda: RateLimited("slow down")))
    assert ran.end == ("failed", "StepFailed", 'step "a": slow down')
    assert len(ran.asked) == 3


def test_what_no_retry_can_help_is_not_retried(tmp_path: Path) -> None:
    ran, seconds = retried(tmp_path, fails_first(9, lambda: BadRequest("no such model")))
    assert (len(ran.asked), seconds) == (1, 0.0)


def test_a_jittered_delay_is_between_nothing_and_all(tmp_path: Path) -> None:
    _, seconds = retried(tmp_path, fails_first(1, lambda: RateLimited("slow down")))
    assert 0 <= seconds <= 4


def test_cut_short_answers_are_told(tmp_path: Path) -> None:
    spec = "steps: [{name: a, arkAgent: a, inputs: {prompt: x}}]\n"
    ran = run(flow(tmp_path, spec), lambda r: says("half", finish_reason="length"))
    assert ran.end[0] == "succeeded"
    told = [event.text for event in ran.events if event.kind == "warning"]
    assert told == ["the answer was cut short (length)"]

"""Agents that share a target, its limits and a budget: nobody waits for who waits for them, and
together they use no more than there is."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from chat_parts import calls_of, chat, last, reply, to
from team_parts import run, says, write_team

from muster.provider import ProviderRequest, ProviderResponse, TokenUsage
from muster.providers.chat import ChatTurn

CHAIN = """
roles:
- {name: lead, arkAgent: a, canDelegate: [x, y, z]}
- {name: x, arkAgent: a, canDelegate: [y]}
- {name: y, arkAgent: a, canDelegate: [z]}
- {name: z, arkAgent: a}
"""
ENTRY = CHAIN + "entry: lead\n"


def limited(folder: Path, spec: str, limits: str) -> Path:
    file = write_team(folder, spec)
    targets = folder / ".muster" / "targets.yaml"
    targets.write_text(targets.read_text().replace("max_retries: 0", f"max_retries: 0, {limits}"))
    return file


# --- limits of a target -------------------------------------------------------------------------

LIMITS = [
    "workers: 1",
    "adaptive: true, workers: 1",
    "rate_limits: {requests_per_minute: 1500}, workers: 1",
]


def deep(role: str, number: int, turn: ChatTurn) -> Any:
    following = {"lead": "x", "x": "y", "y": "z"}.get(role)
    if following is None:
        return "from z"
    return to(following) if number == 1 else f"{role}({last(turn)})"


@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("tasks", [1, 5])
def test_a_chain_of_four_on_one_place(tmp_path: Path, limits: str, tasks: int) -> None:
    """A place is held for a turn, not while the tools run: who has handed a task on holds none."""
    agent = "limits: {maxConcurrentTasks: 1}, target: scripted"
    spec = CHAIN + "maxDepth: 3\npipeline:\n"
    spec += "".join(f"- {{name: s{n}, role: lead, inputs: {{prompt: p}}}}\n" for n in range(tasks))
    file = limited(tmp_path, spec, limits)
    file.write_text(file.read_text().replace("target: scripted", agent))
    ran = run(file, chat(deep), budget_usd=9.0, max_tokens=100_000)
    assert ran.end == ("succeeded", "Succeeded", None)
    assert {ran.step(f"s{n}").output for n in range(tasks)} == {"lead(x(y(from z)))"}


@pytest.mark.parametrize("limits", LIMITS[:2])
def test_no_more_turns_at_a_time_than_allowed(tmp_path: Path, limits: str) -> None:
    now = most = 0

    async def busy(role: str, number: int, turn: ChatTurn) -> Any:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(1)
        now -= 1
        return to("x", "y") if role == "lead" and number == 1 else "ok"

    spec = CHAIN + "pipeline:\n"
    spec += "".join(f"- {{name: s{n}, role: lead, inputs: {{prompt: p}}}}\n" for n in range(4))
    ran = run(limited(tmp_path, spec, limits.replace("1", "2")), chat(busy))
    assert ran.end[0] == "succeeded"
    assert most == 2


# --- budgets ------------------------------------------------------------------------------------

PARALLEL = "pipeline:\n" + "".join(
    f"- {{name: s{n}, role: z, inputs: {{prompt: p}}}}\n" for n in range(4)
)


async def greedy(request: ProviderRequest) -> ProviderResponse:
    """Takes all that it is allowed."""
    await asyncio.sleep(1)
    assert request.limits.max_output_tokens is not None
    return says("ok", tokens=50 + request.limits.max_output_tokens)


def test_calls_at_the_same_time_do_not_use_the_same_tokens(tmp_path: Path) -> None:
    file = write_team(tmp_path, CHAIN + PARALLEL)
    bounded = "limits: {maxTokensPerCall: 300}, target: scripted"
    file.write_text(file.read_text().replace("target: scripted", bounded))
    ran = run(file, greedy, max_tokens=1000)
    assert ran.end[:2] == ("failed", "BudgetExceeded")
    usage = ran.outcome.token_usage
    assert usage is not None
    assert usage.total <= 1000 + 4 * 50  # the prompts are estimated
    assert [request.limits.max_output_tokens for request in ran.asked][:2] == [300, 300]


def test_a_call_waits_for_what_others_give_back(tmp_path: Path) -> None:
    """Each may use all; each uses little: they come one after the other, and all come."""
    began: list[float] = []

    async def modest(request: ProviderRequest) -> str:
        began.append(asyncio.get_running_loop().time())
        await asyncio.sleep(1)
        return "ok"

    ran = run(write_team(tmp_path, CHAIN + PARALLEL), modest, max_tokens=500)
    assert ran.end == ("succeeded", "Succeeded", None)
    assert [round(time - began[0]) for time in began] == [0, 1, 2, 3]
    told = [request.limits.max_total_tokens for request in ran.asked]
    assert told == [500, 490, 480, 470]


@pytest.mark.parametrize("whose", ["run", "step"])
def test_a_further_turn_sees_what_delegates_have_used(tmp_path: Path, whose: str) -> None:
    def script(role: str, number: int, turn: ChatTurn) -> Any:
        if role != "lead":
            return reply("found", tokens=985)
        return to("z") if number == 1 else "never"

    pipeline = "pipeline: [{role: lead, inputs: {prompt: p}%s}]\n"
    file = write_team(tmp_path, CHAIN + pipeline % (", maxTokens: 1000" * (whose == "step")))
    ran = run(file, chat(script), **({"max_tokens": 1000} if whose == "run" else {}))
    assert ran.end[:2] == ("failed", "BudgetExceeded")
    of = "run" if whose == "run" else 'step "lead"'
    assert f"token budget of 1000 of the {of} exceeded: used 995" in (ran.end[2] or "")
    assert [row.status for row in ran.rows()] == ["failed", "succeeded"]
    assert ran.rows()[0].error_kind == "budget_exceeded"
    assert calls_of(ran) == [("delegate", "ok", "found")]
    assert ran.outcome.token_usage == TokenUsage(995, 0)


def test_a_delegate_without_budget_is_text_and_then_the_end(tmp_path: Path) -> None:
    def script(role: str, number: int, turn: ChatTurn) -> Any:
        return to("z", tokens=990)

    ran = run(write_team(tmp_path, ENTRY), chat(script), max_tokens=1000)
    assert ran.end[:2] == ("failed", "BudgetExceeded")
    ((_, status, result),) = calls_of(ran)
    assert (status, (result or "").partition("exceeded")[0]) == (
        "error",
        "error: z failed: token budget of 1000 of the run ",
    )


def test_money_that_delegates_spend_ends_the_loop_of_who_asked(tmp_path: Path) -> None:
    def script(role: str, number: int, turn: ChatTurn) -> Any:
        if role != "lead":
            return reply("found", cost_usd=0.8)
        return to("z", cost_usd=0.3) if number == 1 else "never"

    ran = run(write_team(tmp_path, ENTRY), chat(script), budget_usd=1.0)
    assert ran.end == (
        "failed",
        "BudgetExceeded",
        'step "lead": budget of $1 exceeded: spent $1.1',
    )
    assert ran.outcome.cost_usd == pytest.approx(1.1)


def test_the_longest_answer_shrinks_with_what_is_left(tmp_path: Path) -> None:
    allowed: list[int | None] = []

    def script(role: str, number: int, turn: ChatTurn) -> Any:
        if role == "lead":
            allowed.append(turn.max_output_tokens)
            return to("z", tokens=100) if number < 3 else reply("done", tokens=100)
        return reply("found", tokens=300)

    ran = run(write_team(tmp_path, ENTRY), chat(script), max_tokens=1000)
    assert ran.end == ("succeeded", "Succeeded", None)
    # A turn is told again what the last one was told and has said, 100, and the result.
    assert allowed[1:] == [1000 - 400 - 101, 1000 - 800 - 101]
    (first, *_) = ran.asked
    prompt = len(f"{first.system_prompt}{first.question}") // 4
    assert allowed[0] == 1000 - prompt


def test_what_was_reserved_is_free_again_after_a_failure(tmp_path: Path) -> None:
    spec = CHAIN + PARALLEL.replace("inputs: {prompt: p}", "inputs: {prompt: p}, timeoutSeconds: 5")

    async def script(request: ProviderRequest) -> str:
        if len(waiting) == 0:
            waiting.append(1)
            await asyncio.sleep(60)
        return "ok"

    waiting: list[int] = []
    ran = run(write_team(tmp_path, spec), script, max_tokens=500)
    assert sorted(ran.statuses.values()) == ["failed", "failed", "failed", "failed"]
    waiting.clear()
    file = write_team(tmp_path, CHAIN + PARALLEL)
    retried = file.read_text().replace("inputs: {prompt: p}", "inputs: {prompt: p}, retry: 1")
    file.write_text(retried)
    assert run(file, script, max_tokens=500).end[0] == "succeeded"

"""Rules of `request.limits`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from muster.provider import (
    BudgetExceeded,
    LimitExceeded,
    Limits,
    ProviderError,
    ProviderRequest,
    ProviderTimeout,
    TokenUsage,
)
from muster.testing.dialects import MODEL_APIS
from muster.testing.outcome import Broken, NotApplicable, Rule
from muster.testing.rules.tools import TOOLS_OF_RULES, asking, offers_tools
from muster.testing.script import Call, Reply, Stall
from muster.testing.trial import Trial, shown

__all__ = ("LIMITS",)

OUTPUT = 321
TURNS = 3
SECONDS = 0.3
LATE = 2.0
TOKENS = 100
A_TURN = TokenUsage(50, 10)
A_TURN_COSTS = 0.001


async def _output(trial: Trial) -> str | None:
    trial.need_calls()
    await trial.ask(limits=Limits(max_output_tokens=OUTPUT))
    if trial.last.max_output_tokens == OUTPUT:
        return None
    if trial.last.dialect not in MODEL_APIS or trial.way == "behind":
        if OUTPUT in _numbers(trial.last.body):
            return None
        raise NotApplicable("the service is not asked for a bound")
    raise Broken(
        f"max_output_tokens was {OUTPUT}; the service was asked for "
        f"{trial.last.max_output_tokens or 'no bound'}"
    )


def _numbers(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _numbers(item)
    else:
        yield value


async def _turns(trial: Trial) -> str | None:
    calls = await _calls_under(trial, Limits(max_turns=TURNS), LimitExceeded)
    if calls != TURNS:
        raise Broken(f"max_turns was {TURNS}; the model was asked {calls} times")
    return None


async def _tokens(trial: Trial) -> str | None:
    limits = Limits(max_turns=8, max_total_tokens=TOKENS)
    calls = await _calls_under(trial, limits, BudgetExceeded)
    if calls != 2:
        raise Broken(
            f"max_total_tokens was {TOKENS} and each turn used {A_TURN.total}; the model was asked "
            f"{calls} times, not twice"
        )
    return None


async def _money(trial: Trial) -> str | None:
    await offers_tools(trial)
    model = "claude-3-5-haiku-latest" if trial.last.dialect == "messages" else "gpt-4o-mini"
    cost = None if trial.last.dialect in MODEL_APIS else A_TURN_COSTS
    reply = Reply("Ready.", usage=A_TURN, model=model, cost_usd=cost)
    trial.environment.script = lambda call: reply
    if (await trial.ask()).cost_usd is None:
        raise NotApplicable("it reports no cost")
    limits = Limits(max_turns=8, max_cost_usd=1e-7)
    calls = await _calls_under(trial, limits, BudgetExceeded, model=model, cost=cost)
    if calls != 1:
        raise Broken(
            f"max_cost_usd was less than one turn costs; the model was asked {calls} times, "
            "not once"
        )
    return None


async def _calls_under(
    trial: Trial,
    limits: Limits,
    kind: type[ProviderError],
    model: str | None = None,
    cost: float | None = None,
) -> int:
    """How often a model is asked that wants a tool each time; the end must be a `kind`."""
    await offers_tools(trial)

    def script(call: Call) -> Reply:
        asked = asking("add", id=f"call_{len(call.tool_results)}", a=1)
        return Reply(asked=(asked,), usage=A_TURN, model=model, cost_usd=cost)

    async def call_tool(name: str, arguments: object) -> str:
        return "1"

    trial.environment.script = script
    before = len(trial.calls)
    request = ProviderRequest(
        question="Go on.", tools=TOOLS_OF_RULES, call_tool=call_tool, limits=limits
    )
    error = await trial.failure_of(request)
    if not isinstance(error, kind):
        raise Broken(f"expected {kind.__name__}, got {shown(error)}")
    if error.retryable:
        raise Broken(f"{kind.__name__} says that a retry can help")
    return len(trial.calls) - before


async def _seconds(trial: Trial) -> str | None:
    if trial.served:
        await trial.ask()
    trial.environment.script = lambda call: Stall()
    request = ProviderRequest(question="Take your time.", limits=Limits(max_seconds=SECONDS))
    begun = time.perf_counter()
    try:
        error = await trial.failure_of(request)
    except Broken:
        if not trial.served and time.perf_counter() - begun < SECONDS:
            raise NotApplicable("it answers at once") from None
        raise
    took = time.perf_counter() - begun
    if took > SECONDS + LATE:
        raise Broken(f"max_seconds was {SECONDS:g}; it took {took:.1f} s to give up")
    if not isinstance(error, LimitExceeded | ProviderTimeout):
        raise Broken(f"expected LimitExceeded, got {shown(error)}")
    return f"after {took:.1f} s"


LIMITS = (
    Rule(
        id="limit-output-tokens",
        title="`max_output_tokens` reaches the service",
        why="It is the only bound on what a single call may cost.",
        mend="Send the bound under the service's own name for it.",
        run=_output,
    ),
    Rule(
        id="limit-turns",
        title="`max_turns` ends the tool loop with `LimitExceeded`",
        why="A model that asks for tools for ever is paid for ever.",
        mend="Count the calls to the model, and check before each; `ChatProvider` does.",
        run=_turns,
    ),
    Rule(
        id="limit-seconds",
        title="`max_seconds` ends a request that takes too long with `LimitExceeded`",
        why="A caller who has set a time gets an answer or an error in that time.",
        mend="Put `asyncio.timeout(limits.max_seconds)` around the call, and raise "
        "`LimitExceeded`.",
        run=_seconds,
        after=("does-not-block", "cancelled-within-1-s"),
    ),
    Rule(
        id="limit-total-tokens",
        title="`max_total_tokens` is checked before each turn: `BudgetExceeded`",
        why="A budget that is checked at the end is none.",
        mend="Compare the tokens used so far before each call to the model; `ChatProvider` does.",
        run=_tokens,
    ),
    Rule(
        id="limit-cost",
        title="`max_cost_usd` is checked before each turn: `BudgetExceeded`",
        why="A budget that is checked at the end is none.",
        mend="Compare the money spent so far before each call to the model; `ChatProvider` does.",
        run=_money,
    ),
)

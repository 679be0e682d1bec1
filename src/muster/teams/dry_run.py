"""What a run would do, without asking anybody: the graph, first prompts, and what it may cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from muster.pricing import cost_of
from muster.provider import TokenUsage
from muster.teams.budget import TokenBudget
from muster.teams.definition import Agent, Step, Team
from muster.teams.prompt import step_prompt, task_prompt
from muster.teams.state import RunState
from muster.teams.template import TemplateError

__all__ = ("describe_run",)


def describe_run(team: Team, inputs: Mapping[str, Any]) -> str:
    """The steps with their agents and dependencies, the prompts that need no step's output, and
    an estimate from below: a quarter of a token a byte of each prompt that is known."""
    steps = _steps_of(team)
    lines = [f"Flow:   {team.name}", f"Steps:  {len(steps)}"]
    for step in steps:
        needs = f"[{' '.join(step.depends_on)}]" if step.depends_on else "-"
        lines.append(f"  {step.name:<20} agent={_who(team, step):<20} deps={needs}")
    tokens, calls, cost = 0, 0, 0.0
    for step in steps:
        calls += _calls(team, step)
        prompt = _prompt(team, step, inputs)
        agent = _agent(team, step)
        if prompt is None:
            continue
        estimate = TokenBudget.estimate(prompt, agent.system_prompt if agent else None)
        tokens += estimate
        cost += _price(agent, estimate)
        lines += ["", f"--- {step.name}", prompt.rstrip()]
    lines += [
        "",
        f"At most {calls} {'call' if calls == 1 else 'calls'}, tools, retries and items not "
        f"counted; the prompts that are known are about {tokens} tokens{_dollars(cost)}. "
        "Nobody was asked.",
        "✓ YAML is valid — use `muster run` to execute",
    ]
    return "\n".join(lines)


def _calls(team: Team, step: Step) -> int:
    """How often agents are asked for the step, if all goes well."""
    role = team.roles.get(step.role or "")
    if role is None and step.approval is not None and step.lookup is None:
        return 0  # a person is asked
    once = 1
    if role is not None and role.team is not None:
        inner = role.team
        once = sum(_calls(inner, step) for step in _steps_of(inner))
    if team.routing is not None and team.routing.strategy == "llm":
        once += 1
    return once * (1 + (step.loop.max_iterations if step.loop is not None else 0))


def _steps_of(team: Team) -> tuple[Step, ...]:
    """A team without a pipeline has one step."""
    return team.steps or (Step(name=team.entry or "route", role=team.entry),)


def _price(agent: Agent | None, tokens: int) -> float:
    """What a prompt of so many tokens costs by the published prices; 0 where there are none."""
    if agent is None or agent.model is None:
        return 0.0
    return cost_of(agent.model, TokenUsage(tokens, 0)) or 0.0


def _dollars(cost: float) -> str:
    return f" (${cost:.6f} to read, answers not counted)" if cost else ""


def _who(team: Team, step: Step) -> str:
    if step.approval is not None and step.role is None:
        return "(a person)"
    if step.lookup is not None:
        return f"({step.lookup.capability})"
    role = team.roles.get(step.role or "")
    if role is not None and role.team is not None:
        return f"team {role.team.name}"
    agent = _agent(team, step)
    if agent is None:
        return "(routed)"
    return agent.target or agent.model or agent.provider or agent.name


def _agent(team: Team, step: Step) -> Agent | None:
    role = team.roles.get(step.role or "")
    return role.agent if role is not None else None


def _prompt(team: Team, step: Step, inputs: Mapping[str, Any]) -> str | None:
    """The prompt, if it can be known before any step has run."""
    if not team.steps:
        return task_prompt(inputs)
    if step.depends_on or step.for_each is not None or not step.inputs:
        return None
    data = RunState(inputs, ()).data(envelopes=True)
    try:
        rendered = {name: template.render(data) for name, template in step.inputs.items()}
    except TemplateError:
        return None
    return step_prompt(rendered, step.output_schema)

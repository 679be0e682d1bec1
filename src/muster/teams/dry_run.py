"""What a run would do, without asking anybody: the graph, first prompts, and what it may cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from muster.pricing import cost_of
from muster.provider import TokenUsage
from muster.teams.answer_checks import judge_prompt
from muster.teams.budget import TokenBudget
from muster.teams.definition import Agent, Step, Team
from muster.teams.prompt import step_prompt, system_prompt, task_prompt
from muster.teams.state import RunState
from muster.teams.template import TemplateError

__all__ = ("describe_run",)


def describe_run(team: Team, inputs: Mapping[str, Any], *, lenient: bool = False) -> str:
    """The steps with their agents and dependencies, the prompts that need no step's output, and
    an estimate: of the prompts from below, a quarter of a token a byte of what is known of them;
    of the answers from above, as long as they may be."""
    steps = _steps_of(team)
    lines = [f"Flow:   {team.name}", f"Steps:  {len(steps)}"]
    for step in steps:
        needs = f"[{' '.join(step.depends_on)}]" if step.depends_on else "-"
        lines.append(f"  {step.name:<20} agent={_who(team, step):<20} deps={needs}")
    asked: list[_Asked] = []
    for step in steps:
        prompt = _prompt(team, step, inputs, lenient)
        asked += _asked(team, step, prompt)
        if prompt is not None:
            lines += ["", f"--- {step.name}", prompt.rstrip()]
    lines += ["", _estimate(asked), "✓ YAML is valid — use `muster run` to execute"]
    return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class _Asked:
    """Somebody who is asked, if all goes well."""

    model: str | None
    times: int
    prompt: int
    """Tokens of what is known of the prompt."""
    answer: int | None
    """The longest answer, in tokens; `None`: as long as it likes."""


def _asked(team: Team, step: Step, prompt: str | None) -> list[_Asked]:
    """Who is asked for the step, and how often."""
    times = 1 + (step.loop.max_iterations if step.loop is not None else 0)
    role = team.roles.get(step.role or "")
    asked: list[_Asked] = []
    if role is not None and role.team is not None:
        for inner in _steps_of(role.team):
            asked += [
                replace(each, times=times * each.times) for each in _asked(role.team, inner, None)
            ]
    elif role is not None or step.approval is None or step.lookup is not None:
        agent = role.agent if role is not None else None
        with_envelopes = any(other.depends_on for other in team.steps)
        own = system_prompt(
            agent.system_prompt if agent is not None else "",
            with_envelopes=with_envelopes,
            output_format=agent.output_format if agent is not None else None,
        )
        asked.append(
            _Asked(
                agent.model if agent is not None else None,
                times,
                TokenBudget.estimate(prompt, own),
                agent.limits.max_tokens_per_call if agent is not None else None,
            )
        )
    if step.validation is not None and step.validation.semantic is not None:
        asked.append(_judge(team, step, step.validation.semantic, times))
    if team.routing is not None and team.routing.strategy == "llm":
        asked.append(_Asked(team.routing.model, times, TokenBudget.estimate(prompt), None))
    return asked


def _judge(team: Team, step: Step, criterion: str, times: int) -> _Asked:
    """Who is asked about each answer of the step."""
    named = step.validation.judge if step.validation is not None else None
    role = team.roles.get(named or step.role or "")
    agent = role.agent if role is not None else None
    return _Asked(
        agent.model if agent is not None else None,
        times,
        TokenBudget.estimate(
            judge_prompt(criterion, ""), agent.system_prompt if agent is not None else ""
        ),
        agent.limits.max_tokens_per_call if agent is not None else None,
    )


def _estimate(asked: Sequence[_Asked]) -> str:
    calls = sum(each.times for each in asked)
    prompts = sum(each.times * each.prompt for each in asked)
    answers = sum(each.times * (each.answer or 0) for each in asked)
    reading = _price([(each, TokenUsage(each.prompt, 0)) for each in asked])
    writing = _price([(each, TokenUsage(0, each.answer or 0)) for each in asked])
    longest = "" if all(each.answer is not None for each in asked) else " and more"
    unknown = sorted({each.model for each in asked if each.model and _is_unpriced(each.model)})
    free = f" The price of {', '.join(unknown)} is not known." if unknown else ""
    return (
        f"At most {calls} {'call' if calls == 1 else 'calls'}, tools, retries, items and judges of "
        f"suites not counted: about {prompts:,} tokens of what is known of the prompts{reading}, "
        f"and up to {answers:,} tokens{longest} of answers{writing}.{free} Nobody was asked."
    )


def _is_unpriced(model: str) -> bool:
    return cost_of(model, TokenUsage(1, 1)) is None


def _price(used: Sequence[tuple[_Asked, TokenUsage]]) -> str:
    """What it costs by the published prices, in brackets; nothing where there are none."""
    costs = [
        each.times * cost
        for each, usage in used
        if each.model is not None and (cost := cost_of(each.model, usage)) is not None
    ]
    return f" (${sum(costs):.6f})" if any(costs) else ""


def _steps_of(team: Team) -> tuple[Step, ...]:
    """A team without a pipeline has one step."""
    return team.steps or (Step(name=team.entry or "route", role=team.entry),)


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


def _prompt(team: Team, step: Step, inputs: Mapping[str, Any], lenient: bool) -> str | None:
    """The prompt, if it can be known before any step has run; or why there will be none."""
    if not team.steps:
        return task_prompt(inputs)
    templates = step.inputs.items()
    needs = {path[0] for _, template in templates for path in template.references if path}
    if "steps" in needs or step.for_each is not None or not step.inputs:
        return None
    data = RunState(inputs, ()).data(envelopes=True)
    others = {**data, "steps": {name: {"output": "?"} for name in step.depends_on}}
    try:
        rendered, otherwise = (
            {name: template.render(each, lenient=lenient) for name, template in templates}
            for each in (data, others)
        )
    except TemplateError as error:
        return f"the step would fail: template error: {error}"
    if rendered != otherwise:
        return None  # it looks at the data as a whole
    return step_prompt(rendered, step.output_schema)

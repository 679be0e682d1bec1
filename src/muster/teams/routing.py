"""Which agent a task goes to: chosen by a model, by words in common, or by turn."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from muster.errors import nearest
from muster.provider import ProviderError
from muster.store.records import StepRecord
from muster.teams.asking import Question, ask
from muster.teams.context import RunContext, Unit
from muster.teams.definition import Agent, Capability, Lookup, Registry, Routing, Step
from muster.teams.json_output import extract_json
from muster.teams.state import FAILED, SUCCEEDED, Account, StepState
from muster.teams.unit import StepFailed

__all__ = ("Lookups", "best_match", "candidates", "route", "router_of")

_ROUTER: Unit = ("router", 0, None)


async def route(
    context: RunContext, routing: Routing, prompt: str, state: StepState
) -> tuple[Agent, str]:
    """The agent for the whole task, and why it.

    Raises:
        StepFailed: nothing fits, or the router failed, and there is no fallback.
    """
    try:
        if routing.strategy == "lexical":
            capability, reason = _by_words(routing.registry, prompt)
        else:
            capability, reason = await _by_model(context, routing, prompt, state)
        agent = _agents_with(routing.registry, capability, ())[0]
    except (_NoMatch, ProviderError) as error:
        fallback = _named(routing.registry, routing.fallback)
        if fallback is None:
            raise StepFailed(f"routing: {error}", "routing") from error
        agent, capability, reason = fallback, None, f"fallback: {error}"
    told = {"agent": agent.name, "capability": capability, "reason": reason}
    context.note("routed", told)
    context.emit("routed", step=state.name, text=agent.name, data=told)
    return agent, reason


class Lookups:
    """Chooses agents by capability, in turn where several have it."""

    def __init__(self) -> None:
        self._turns: Counter[tuple[Any, ...]] = Counter()
        self._busy: Counter[str] = Counter()

    def busy(self, agent: Agent, tasks: int) -> None:
        """The agent has so many tasks more, or less."""
        self._busy[agent.name] += tasks

    def choose(self, step: Step, registry: Registry | None, prompt: str) -> tuple[Agent, str]:
        """The agent for `step`, and why it.

        Raises:
            StepFailed: no agent has the capability and all tags, and there is no fallback.
        """
        lookup = step.lookup
        if lookup is None or registry is None:
            raise StepFailed("there is no registry to look an agent up in", "routing")
        try:
            found = _agents_with(registry, lookup.capability, lookup.tags)
        except _NoMatch as error:
            fallback = _named(registry, lookup.fallback)
            if fallback is None:
                raise StepFailed(f"registryLookup: {error}", "routing") from error
            return fallback, f"fallback: {error}"
        agent = self._pick(lookup, found, prompt)
        return agent, f"{lookup.strategy} of {len(found)} with {lookup.capability}"

    def _pick(self, lookup: Lookup, found: Sequence[Agent], prompt: str) -> Agent:
        if lookup.strategy == "random":
            return random.choice(found)  # noqa: S311 - no secret
        if lookup.strategy == "least-busy":
            return min(found, key=lambda agent: self._busy[agent.name])
        if lookup.strategy == "lexical":
            scores = [max(best_match(prompt, agent.capabilities)[1], 0.0) for agent in found]
            return found[max(range(len(found)), key=scores.__getitem__)]
        key = (lookup.capability, lookup.tags)
        turn = self._turns[key]
        self._turns[key] += 1
        return found[turn % len(found)]


class _NoMatch(Exception):
    """Nothing fits."""


def candidates(step: Step, registry: Registry | None) -> list[Agent]:
    """Whom the step may be given to."""
    if step.lookup is None or registry is None:
        return []
    fallback = _named(registry, step.lookup.fallback)
    try:
        found = _agents_with(registry, step.lookup.capability, step.lookup.tags)
    except _NoMatch:
        found = []
    return [*found, *([fallback] if fallback is not None else [])]


def router_of(routing: Routing) -> Agent:
    """Who is asked for the choice."""
    return Agent(name="router", model=routing.model, target=routing.target)


async def _by_model(
    context: RunContext, routing: Routing, prompt: str, state: StepState
) -> tuple[str, str]:
    """Ask a model, which is shown the capabilities and answers `{"capability", "reason"}`."""
    capabilities = _capabilities(routing.registry)
    if not capabilities:
        raise _NoMatch("no agent of the registry has a capability")
    listed = "\n".join(
        f"- {c.id}: {c.description}" + (f" [{', '.join(c.tags)}]" if c.tags else "")
        for c in capabilities
    )
    question = (
        f"Choose the capability that the task needs.\n\nCapabilities:\n{listed}\n\n"
        f"<task>\n{prompt}\n</task>\n\n"
        'Answer with JSON alone: {"capability": "…", "reason": "…"}'
    )
    known = context.earlier.done.get(_ROUTER)
    if known is not None:
        return _choice(known.output or "", capabilities)
    member = await context.member(router_of(routing))
    account = Account(state.account)
    row = context.journal.begin_step(
        StepRecord(
            run_id=context.run_id,
            name="router",
            agent="router",
            prompt=question,
            target=member.target,
        )
    )
    ended: dict[str, Any] = {"status": FAILED, "error": "cancelled", "error_kind": "cancelled"}
    try:
        response = await ask(
            context,
            Question(
                member=member,
                prompt=question,
                account=account,
                unit=_ROUTER,
                role="router",
                row=row,
                schema=_answer_schema(capabilities),
                use_tools=False,
                stream=False,
            ),
        )
        ended = {"status": SUCCEEDED, "output": response.text, "model": response.model}
    except ProviderError as error:
        ended = {"status": FAILED, "error": str(error), "error_kind": error.kind}
        raise
    finally:
        context.journal.end_step(
            row, token_usage=account.token_usage, cost_usd=account.cost_usd, **ended
        )
    return _choice(response.text, capabilities)


def _answer_schema(capabilities: Sequence[Capability]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "capability": {"type": "string", "enum": [c.id for c in capabilities]},
            "reason": {"type": "string"},
        },
        "required": ["capability", "reason"],
    }


def _choice(text: str, capabilities: Sequence[Capability]) -> tuple[str, str]:
    value = extract_json(text)
    if not isinstance(value, dict) or not isinstance(value.get("capability"), str):
        raise _NoMatch("the router did not answer with a capability")
    chosen: str = value["capability"]
    known = [capability.id for capability in capabilities]
    if chosen not in known:
        near = nearest(chosen, known)
        hint = f" (near: {near[0]})" if near else ""
        raise _NoMatch(f'the router chose "{chosen}", which no agent has{hint}')
    return chosen, str(value.get("reason", ""))


def _by_words(registry: Registry, prompt: str) -> tuple[str, str]:
    capability, score, words = best_match(prompt, _capabilities(registry))
    if capability is None or score <= 0:
        raise _NoMatch("no capability has a word in common with the task")
    return capability.id, f"words in common: {', '.join(words)}"


_WORD = re.compile(r"[^\W_]+")


def best_match(
    prompt: str, capabilities: Sequence[Capability]
) -> tuple[Capability | None, float, list[str]]:
    """The capability whose id, description and tags have most in common with `prompt`: the sum of
    the shared words' inverse frequencies (Robertson and Spärck Jones, 1976); the first one of
    equals. With its score and the words."""
    texts = [set(_words(f"{c.id} {c.description} {' '.join(c.tags)}")) for c in capabilities]
    frequency = Counter(word for text in texts for word in text)
    asked = set(_words(prompt))
    best: tuple[Capability | None, float, list[str]] = (None, 0.0, [])
    for capability, text in zip(capabilities, texts, strict=True):
        shared = asked & text
        score = sum(math.log(1 + len(texts) / frequency[word]) for word in shared)
        if score > best[1]:
            best = (capability, score, sorted(shared))
    return best


def _words(text: str) -> list[str]:
    """Lower-case words of three letters or more, plural endings taken off."""
    found = (word.lower() for word in _WORD.findall(text.replace("-", " ")))
    return [word[:-1] if word.endswith("s") and len(word) > 3 else word for word in found
            if len(word) > 2]  # fmt: skip


def _capabilities(registry: Registry) -> list[Capability]:
    """Each once, by id."""
    return list({c.id: c for agent in registry.agents for c in agent.capabilities}.values())


def _agents_with(registry: Registry, capability: str, tags: Sequence[str]) -> list[Agent]:
    """Those with the capability and all tags. Raises when there is none."""
    found = [
        agent
        for agent in registry.agents
        if any(c.id == capability and set(tags) <= set(c.tags) for c in agent.capabilities)
    ]
    if not found:
        with_tags = f" with the tags {', '.join(tags)}" if tags else ""
        near = nearest(capability, [c.id for c in _capabilities(registry)])
        hint = f" (near: {near[0]})" if near and near[0] != capability else ""
        raise _NoMatch(f'no agent has the capability "{capability}"{with_tags}{hint}')
    return found


def _named(registry: Registry, name: str | None) -> Agent | None:
    return next((agent for agent in registry.agents if agent.name == name), None)

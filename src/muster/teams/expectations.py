"""What is said of a run beforehand, held against what it came to."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from muster.store.journal import Journal
from muster.teams.answer_checks import check_schema
from muster.teams.engine import RunOutcome
from muster.teams.json_output import NO_JSON, extract_json
from muster.teams.mock_script import Expectation, StepExpectation, Text
from muster.teams.state import StepState

__all__ = ("Asked", "Difference", "asked_in", "differences")

_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as expected."""

    what: str
    """Such as `output`, or `steps.write.attempts`."""
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.what}: expected {self.expected}, found {self.found}"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a step has asked and called, as the journal tells."""

    prompts: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    delegates: tuple[str, ...] = ()


def asked_in(journal: Journal, run_id: str) -> dict[str, Asked]:
    """Of each step of the run, in the order in which it happened."""
    names: dict[int, str] = {}
    prompts: dict[str, list[str]] = {}
    tools: dict[str, list[str]] = {}
    delegates: dict[str, list[str]] = {}
    for row in journal.steps(run_id):
        names[row.id] = row.name
        prompts.setdefault(row.name, [])
        if row.prompt is not None:
            prompts[row.name].append(row.prompt)
    for call in journal.calls(run_id):
        step = names[call.step_id]
        if call.kind == "delegate":
            told = call.arguments if isinstance(call.arguments, Mapping) else {}
            delegates.setdefault(step, []).append(str(told.get("role")))
        else:
            tools.setdefault(step, []).append(call.name)
    return {
        name: Asked(tuple(said), tuple(tools.get(name, ())), tuple(delegates.get(name, ())))
        for name, said in prompts.items()
    }


def differences(
    expected: Expectation, outcome: RunOutcome, asked: Mapping[str, Asked]
) -> list[Difference]:
    """All that is not as expected; empty when the run is as it should be."""
    found = list(_of_the_run(expected, outcome))
    steps = {step.name: step for step in outcome.steps}
    for name, wanted in expected.steps.items():
        found += _of_a_step(f"steps.{name}", wanted, steps[name], asked.get(name, Asked()))
    return found


def _of_the_run(expected: Expectation, outcome: RunOutcome) -> Iterable[Difference]:
    if outcome.status != expected.wanted_status:
        why = f" ({outcome.reason}: {outcome.error})" if outcome.error is not None else ""
        yield Difference("status", expected.wanted_status, f"{outcome.status}{why}")
    elif expected.reason is not None and outcome.reason != expected.reason:
        yield Difference("reason", expected.reason, f"{outcome.reason} ({outcome.error})")
    yield from _of_a_text("output", expected.output, outcome.output)
    yield from _of_a_text("error", expected.error, outcome.error)
    used = outcome.token_usage.total if outcome.token_usage is not None else 0
    if expected.max_tokens is not None and used > expected.max_tokens:
        yield Difference("max_tokens", f"at most {expected.max_tokens}", str(used))
    cost = outcome.cost_usd or 0.0
    if expected.max_cost_usd is not None and cost > expected.max_cost_usd:
        yield Difference("max_cost_usd", f"at most {expected.max_cost_usd:g}", f"{cost:g}")


def _of_a_step(
    what: str, expected: StepExpectation, step: StepState, asked: Asked
) -> Iterable[Difference]:
    if expected.status is not None and step.status != expected.status:
        why = f" ({step.error})" if step.error is not None else ""
        yield Difference(f"{what}.status", expected.status, f"{step.status}{why}")
    yield from _of_a_text(f"{what}.output", expected.output, step.output)
    yield from _of_a_text(f"{what}.error", expected.error, step.error)
    prompt = "\n".join(asked.prompts) if asked.prompts else None
    yield from _of_a_text(f"{what}.prompt", expected.prompt, prompt)
    pairs: tuple[tuple[str, Any, Any], ...] = (
        ("agent", expected.agent, step.agent),
        ("iterations", expected.iterations, step.iterations),
        ("attempts", expected.attempts, step.attempts),
        ("tools", expected.tools, asked.tools),
        ("delegates", expected.delegates, asked.delegates),
    )
    for name, wanted, got in pairs:
        if wanted is not None and wanted != got:
            yield Difference(f"{what}.{name}", _listed(wanted), _listed(got))


def _of_a_text(what: str, wanted: Text | None, text: str | None) -> Iterable[Difference]:
    if wanted is None:
        return
    if text is None:
        yield Difference(what, ", ".join(_failing(wanted, "")) or "one", "none")
        return
    for expected in _failing(wanted, text):
        yield Difference(what, expected, _quoted(text))


def _failing(wanted: Text, text: str) -> Iterable[str]:
    """The conditions that do not hold."""
    if wanted.equals is not None and text != wanted.equals:
        yield _quoted(wanted.equals)
    for part in _each(wanted.contains):
        if part not in text:
            yield f"something with {_quoted(part)}"
    for part in _each(wanted.excludes):
        if part in text:
            yield f"nothing with {_quoted(part)}"
    if wanted.matches is not None and re.search(wanted.matches, text) is None:
        yield f"a match of /{wanted.matches}/"
    wants_json = "json_value" in wanted.model_fields_set
    value = extract_json(text) if wants_json or wanted.json_schema is not None else NO_JSON
    if wants_json and (value is NO_JSON or not _same(value, wanted.json_value)):
        yield f"the JSON {_quoted(json.dumps(wanted.json_value, ensure_ascii=False))}"
    if wanted.json_schema is not None:
        problem = check_schema(wanted.json_schema, value)
        if problem is not None:
            yield f"JSON that satisfies the schema ({problem})"


def _same(found: Any, wanted: Any) -> bool:
    """Equal as JSON: `true` is not 1, but 1.0 is."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        return found.keys() == wanted.keys() and all(_same(found[k], wanted[k]) for k in found)
    if isinstance(found, list) and isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(_same, found, wanted))
    if isinstance(found, bool) or isinstance(wanted, bool):
        return found is wanted
    return bool(found == wanted)


def _each(value: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value or ()


def _listed(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(value)}]"
    return "none" if value is None else str(value)


def _quoted(text: str) -> str:
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
    return json.dumps(shown, ensure_ascii=False)

"""Whether templates ask only for what will be there when they are filled in."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from muster.config.document import Place
from muster.teams.definition import Step, Team
from muster.teams.graph import ancestors, dependencies
from muster.teams.manifests.findings import Findings, hint
from muster.teams.template import Template

__all__ = ("check_templates",)

_OF_A_STEP = ("output", "data", "artifacts")


@dataclass(frozen=True)
class _View:
    """What a template sees."""

    place: Place
    step: str | None = None
    """Whose template it is; `None`: the team's, which sees all steps."""
    before: Collection[str] = ()
    """Steps that are done then."""
    extra: tuple[str, ...] = ()
    """Further names beside `input`, `pipeline` and `steps`."""


def check_templates(
    team: Team, place: Place, urls: Iterable[tuple[Template, Place]], findings: Findings
) -> None:
    """Tell of every path in the team's templates that will not be there. The team's fields stand
    at `place`; `urls` are those of its roles' tools."""
    checker = _Checker(team, findings)
    done = ancestors(dependencies(team))
    for step in team.steps:
        for template, view in _templates_of(step, done[step.name]):
            checker.check(template, view)
    if team.output is not None:
        checker.check(team.output, _View(place.at("output")))
    for template, at in urls:
        checker.check(template, _View(at))


def _templates_of(step: Step, done: frozenset[str]) -> Iterator[tuple[Template, _View]]:
    place = step.place
    assert place is not None
    plain = _View(place, step.name, done)
    own = done | {step.name} if step.loop is not None else done
    each = ("index", step.for_each.variable) if step.for_each is not None else ()
    for key, template in step.inputs.items():
        yield template, _View(place.at("inputs", key), step.name, own, each)
    if step.condition is not None:
        yield step.condition, _View(place.at("if"), plain.step, done)
    if step.for_each is not None:
        short = place.at("forEach")
        yield step.for_each.items, _View(short.at("items"), plain.step, done)
    if step.approval is not None:
        yield step.approval.message, _View(place.at("approval", "message"), plain.step, done)
    if step.loop is not None:
        yield step.loop.condition, _View(place.at("loop", "condition"), plain.step, own)


class _Checker:
    def __init__(self, team: Team, findings: Findings) -> None:
        self.findings = findings
        self.steps = {step.name: step for step in team.steps}
        self.inputs = {item.name for item in team.inputs} | set(team.defaults)
        self.declares = bool(team.inputs)

    def check(self, template: Template, view: _View) -> None:
        for path in sorted(template.references):
            self._check_path(path, view)
        for function, path, number in sorted(template.int_comparisons):
            if path[0] == "steps" and path[2:3] == ("data",):
                self.findings.warn(
                    view.place,
                    f"{function} of {_shown(path)} and {number} fails: numbers of JSON are "
                    f"float64, as in Go; write {number}.0, or int before the path",
                )

    def _check_path(self, path: tuple[str, ...], view: _View) -> None:
        first, rest = path[0], path[1:]
        if first == "pipeline":
            if rest and rest[0] != "input":
                self._tell(view, f"there is no {_shown(path[:2])}, only .pipeline.input")
                return
            first, rest = "input", rest[1:]
        if first == "input":
            self._check_input(path, rest, view)
        elif first == "steps":
            self._check_step(rest, view)
        elif first not in view.extra:
            known = ("input", "pipeline", "steps", *view.extra)
            near = hint(first, known) or f" (there is {', '.join(_shown((k,)) for k in known)})"
            self._tell(view, f"there is no {_shown(path[:1])} here{near}")

    def _check_input(self, path: tuple[str, ...], rest: tuple[str, ...], view: _View) -> None:
        if self.declares and rest and rest[0] not in self.inputs:
            shown = _shown(path[: len(path) - len(rest) + 1])
            near = hint(rest[0], self.inputs) or f" (known: {', '.join(sorted(self.inputs))})"
            self._tell(view, f'{shown}: the team has no input "{rest[0]}"{near}')

    def _check_step(self, rest: tuple[str, ...], view: _View) -> None:
        if not rest or not self.steps:  # what answers in a team without steps has no fixed name
            return
        name = rest[0]
        if name not in self.steps:
            near = hint(name, self.steps) or f" (known: {', '.join(self.steps)})"
            self._tell(view, f'refers to step "{name}", which does not exist{near}')
            return
        if view.step is not None and name not in view.before:
            self._tell(view, _too_early(view.step, name))
        elif len(rest) > 1 and rest[1] not in _OF_A_STEP:
            near = hint(rest[1], _OF_A_STEP) or f" (known: {', '.join(_OF_A_STEP)})"
            self._tell(view, f'a step has no "{rest[1]}"{near}')
        elif len(rest) > 2 and rest[1] == "artifacts":
            kept = [item.name for item in self.steps[name].artifacts]
            if rest[2] not in kept:
                near = hint(rest[2], kept) or f" (known: {', '.join(kept) or 'none'})"
                self._tell(view, f'step "{name}" has no artifact "{rest[2]}"{near}')

    def _tell(self, view: _View, message: str) -> None:
        self.findings.add_about_template(view.place, message)


def _too_early(step: str, name: str) -> str:
    if step == name:
        return f'step "{step}" refers to itself, which only a step with a loop can'
    return f'step "{step}" refers to "{name}" but does not depend on it: add it to dependsOn'


def _shown(path: tuple[str, ...]) -> str:
    return "." + ".".join(path)

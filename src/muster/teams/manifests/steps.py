"""Steps of pipelines and flows in the normal form."""

from __future__ import annotations

from pathlib import Path

from muster.config.document import Place
from muster.teams.definition import (
    Approval,
    Artifact,
    ForEach,
    Lookup,
    Loop,
    Step,
    StepRetry,
    Validation,
)
from muster.teams.manifests.context import Context
from muster.teams.manifests.team_models import (
    ApprovalSpec,
    LoopSpec,
    StepSpec,
    ValidateSpec,
)
from muster.teams.template import Template

__all__ = ("role_of", "step_of")


def role_of(spec: StepSpec) -> str | None:
    """The role, or the agent that stands for one; `None`: nobody, or looked up."""
    return spec.role or spec.arkAgent or spec.arkonisDeployment


def step_of(spec: StepSpec, place: Place, roles: set[str], folder: Path, context: Context) -> Step:
    """The step whose fields stand at `place`; `roles` are the names that the team has."""
    findings = context.findings
    role = role_of(spec)
    if spec.registryLookup is not None and role not in roles:
        role = None  # the name of the step only
    inputs = {
        key: findings.template(text, place.at("inputs", key)) for key, text in spec.inputs.items()
    }
    return Step(
        name=spec.name or spec.role or "",
        role=role if spec.registryLookup is None else None,
        inputs=inputs,
        depends_on=tuple(dict.fromkeys(spec.dependsOn)),
        condition=findings.template(spec.if_, place.at("if")) if spec.if_ is not None else None,
        loop=_loop(spec.loop, place.at("loop"), context),
        for_each=_for_each(spec, place, context),
        approval=_approval(spec.approval, place.at("approval"), context),
        lookup=_lookup(spec),
        output_schema=findings.schema(spec.outputSchema, place.at("outputSchema")),
        validation=_validation(spec.validation, place.at("validate"), folder, context),
        retry=_retry(spec),
        timeout_seconds=spec.timeoutSeconds,
        max_tokens=spec.maxTokens,
        max_cost_usd=spec.budgetUsd,
        artifacts=_artifacts(spec, place.at("artifacts"), context),
        place=place,
    )


def _loop(spec: LoopSpec | None, place: Place, context: Context) -> Loop | None:
    if spec is None:
        return None
    further = spec.maxIterations or 10
    if spec.maxExecutions is not None:
        further = spec.maxExecutions - 1
    condition: Template = context.findings.template(spec.condition, place.at("condition"))
    return Loop(condition=condition, max_iterations=further)


def _for_each(spec: StepSpec, place: Place, context: Context) -> ForEach | None:
    if spec.forEach is None:
        return None
    at = place.at("forEach")
    if isinstance(spec.forEach, str):
        items = context.findings.template(spec.forEach, at)
        return ForEach(items=items, max_parallel=spec.maxParallel or 10)
    items = context.findings.template(spec.forEach.items, at.at("items"))
    variable = spec.forEach.as_
    if variable in ("input", "pipeline", "steps", "index"):
        context.findings.add(at.at("as"), f'"{variable}" already means something in templates')
    return ForEach(
        items=items,
        variable=variable,
        max_parallel=spec.forEach.maxParallel,
        on_failure=spec.forEach.onFailure,
    )


def _approval(spec: str | ApprovalSpec | None, place: Place, context: Context) -> Approval | None:
    if spec is None:
        return None
    if isinstance(spec, str):
        return Approval(message=context.findings.template(spec, place))
    return Approval(
        message=context.findings.template(spec.message, place.at("message")),
        timeout_seconds=spec.timeoutSeconds,
        on_timeout=spec.onTimeout,
    )


def _lookup(spec: StepSpec) -> Lookup | None:
    given = spec.registryLookup
    if given is None:
        return None
    return Lookup(
        capability=given.capability,
        tags=tuple(given.tags),
        strategy=given.strategy,
        fallback=given.fallback,
    )


def _validation(
    spec: ValidateSpec | None, place: Place, folder: Path, context: Context
) -> Validation | None:
    if spec is None:
        return None
    pattern = context.findings.pattern
    suite = None
    if spec.suite is not None:
        suite = context.path(spec.suite, folder, place.at("suite"))
        if suite is not None:
            context.findings.reads.add(suite)
            if not suite.is_file():
                message = f'no such file: "{spec.suite}" (looked for {suite})'
                context.findings.add(place.at("suite"), message)
    return Validation(
        reject_patterns=tuple(
            pattern(text, place.at("rejectPatterns", number))
            for number, text in enumerate(spec.rejectPatterns)
        ),
        contains=pattern(spec.contains, place.at("contains")) if spec.contains else None,
        schema=context.findings.schema(spec.schema_, place.at("schema")),
        semantic=spec.semantic,
        judge=spec.judge,
        suite=suite,
        on_failure=spec.onFailure,
        max_retries=spec.maxRetries,
    )


def _retry(spec: StepSpec) -> StepRetry:
    if spec.retry is None:
        return StepRetry()
    if isinstance(spec.retry, int):
        return StepRetry(max_retries=spec.retry)
    return StepRetry(
        max_retries=spec.retry.maxRetries,
        initial_delay=spec.retry.initialDelaySeconds,
        max_delay=spec.retry.maxDelaySeconds,
        backoff_factor=spec.retry.backoffFactor,
    )


def _artifacts(spec: StepSpec, place: Place, context: Context) -> tuple[Artifact, ...]:
    found: dict[str, Artifact] = {}
    for number, item in enumerate(spec.artifacts):
        name, description = (item, "") if isinstance(item, str) else (item.name, item.description)
        at = place.at(number) if isinstance(item, str) else place.at(number, "name")
        if name in (".", "..") or "/" in name or "\\" in name or "\0" in name:
            context.findings.add(at, f'"{name}" is not the name of a file')
        if name in found:
            context.findings.add(at, f'artifact "{name}" is given twice')
        found[name] = Artifact(name=name, description=description)
    return tuple(found.values())

"""Events, notices, budgets and runs of manifests in the normal form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from muster.config.document import Place
from muster.teams.definition import (
    Budget,
    Event,
    EventTarget,
    Notice,
    Notify,
    NotifyChannel,
    RunRequest,
    Signature,
    Team,
)
from muster.teams.manifests.context import Context
from muster.teams.manifests.event_models import ChannelSpec, EventSpec, NotifySpec
from muster.teams.manifests.fields import ValueFrom
from muster.teams.manifests.findings import hint
from muster.teams.manifests.other_models import BudgetSpec, RunSpec
from muster.teams.manifests.reading import Manifest
from muster.teams.triggers.cron import CronError, parse_cron

__all__ = ("budget_of", "event_of", "notify_of", "run_of")

NOTICES = (
    "TeamSucceeded",
    "TeamFailed",
    "TeamTimedOut",
    "BudgetExceeded",
    "DailyLimitReached",
    "AgentDegraded",
)


def event_of(manifest: Manifest[EventSpec], teams: Mapping[str, Team], context: Context) -> Event:
    """The event of a document."""
    spec, place, findings = manifest.spec, manifest.place, context.findings
    source = spec.source
    at = place.at("source")
    output = source.teamOutput or source.pipelineOutput
    if output is not None:
        key = "teamOutput" if source.teamOutput is not None else "pipelineOutput"
        _check_team(output.name, teams, at.at(key, "name"), context)
    if source.cron is not None:
        try:
            parse_cron(source.cron)
        except CronError as error:
            findings.add(at.at("cron"), str(error))
    token, signature = _keys(manifest, context)
    return Event(
        name=manifest.name,
        source="team-output" if output is not None else source.type,  # type: ignore[arg-type]
        cron=source.cron,
        watched_team=output.name if output is not None else None,
        on_phase=output.onPhase if output is not None else "Succeeded",
        token=token,
        signature=signature,
        query_token=source.webhook.queryToken if source.webhook else False,
        idempotency_header=source.webhook.idempotencyHeader
        if source.webhook
        else "Idempotency-Key",
        targets=_targets(spec, place.at("targets"), teams, context),
        concurrency=spec.concurrencyPolicy,
        missed_runs=spec.missedRuns,
        deadline_seconds=spec.startingDeadlineSeconds,
        suspended=spec.suspended,
        place=place,
    )


def _targets(
    spec: EventSpec, place: Place, teams: Mapping[str, Team], context: Context
) -> tuple[EventTarget, ...]:
    found = []
    for number, target in enumerate(spec.targets):
        at = place.at(number)
        name = target.team or target.pipeline or ""
        _check_team(name, teams, at.at("team" if target.team else "pipeline"), context)
        inputs = {}
        for key, text in target.input.items():
            where = at.at("input", key)
            inputs[key] = context.findings.template(text, where)
            for path in sorted(inputs[key].references):
                if path[0] != "trigger":
                    shown = "." + ".".join(path)
                    context.findings.add(where, f"an event sees .trigger only, not {shown}")
        if (team := teams.get(name)) is not None:
            _check_inputs(team, target.input, at.at("input"), context)
            for item in team.inputs:
                if (
                    item.required
                    and item.default is None
                    and item.name not in (target.input.keys() | team.defaults.keys())
                ):
                    message = f'team "{name}" requires the input "{item.name}"'
                    context.findings.add(at.at("input"), message)
        found.append(EventTarget(team=name, inputs=inputs))
    return tuple(found)


def _keys(manifest: Manifest[EventSpec], context: Context) -> tuple[str | None, Signature | None]:
    """The token and the signing key of a webhook."""
    webhook = manifest.spec.source.webhook
    token = signature = None
    at = manifest.place.at("source", "webhook")
    if webhook is not None and webhook.signature is not None:
        given = webhook.signature
        where = at.at("signature", "secretRef")
        key = context.values.get("Secret", given.secretRef, where)
        signature = Signature(
            scheme=given.scheme, key=key or "", tolerance_seconds=given.toleranceSeconds
        )
    if webhook is not None and webhook.tokenSecretRef is not None:
        token = context.secret(webhook.tokenSecretRef, "token", at.at("tokenSecretRef"))
    elif manifest.spec.source.type == "webhook":
        data = context.values.all_of("Secret", f"{manifest.name}-webhook-token")
        token = data.get("token") if data is not None else None
    return token, signature


def _check_team(name: str, teams: Mapping[str, Team], place: Place, context: Context) -> None:
    if not context.manifests.is_written(name, "ArkTeam", "ArkFlow"):
        documents = [*context.manifests.of("ArkTeam"), *context.manifests.of("ArkFlow")]
        near = hint(name, documents) or f" (known: {', '.join(documents) or 'none'})"
        context.findings.add(place, f'unknown ArkTeam "{name}"{near}')


# --- notices ------------------------------------------------------------------------------------


def notify_of(manifest: Manifest[NotifySpec], context: Context) -> Notify:
    """The notices of a document, in either of its two forms."""
    spec, place = manifest.spec, manifest.place
    given = [(item, place.at("channels", number)) for number, item in enumerate(spec.channels)]
    if spec.channel is not None:
        given.append((spec.channel, place.at("channel")))
    channels = [_channel(item, at, context) for item, at in given]
    usual = None
    if spec.template is not None:
        usual = context.findings.template(spec.template, place.at("template"))
    if spec.events is not None:
        notices = [
            Notice(
                type=item.type,
                template=context.findings.template(
                    item.template, place.at("events", number, "template")
                )
                if item.template is not None
                else usual,
            )
            for number, item in enumerate(spec.events)
        ]
    else:
        names = spec.on if spec.on is not None else NOTICES
        notices = [Notice(type=name, template=usual) for name in names]
    window, most = spec.rateLimitSeconds, 1
    if spec.rateLimiting is not None:
        window, most = spec.rateLimiting.windowSeconds, spec.rateLimiting.maxPerWindow
    return Notify(
        name=manifest.name,
        channels=tuple(channel for channel in channels if channel is not None),
        notices=tuple(notices),
        window_seconds=300.0 if window is None else float(window),
        max_per_window=most,
        place=place,
    )


def _channel(spec: ChannelSpec, place: Place, context: Context) -> NotifyChannel | None:
    inner = spec.slack or spec.webhook
    at = place.at("slack" if spec.slack else "webhook") if inner is not None else place
    ref: ValueFrom | None = None
    if spec.slack is not None:
        key_ref = spec.slack.webhookUrlSecretRef
        if key_ref is not None:
            url = context.values.get("Secret", key_ref, at.at("webhookUrlSecretRef"))
            allowed = tuple(spec.allowHosts)
            if url is None:
                return None
            return NotifyChannel(type="slack", url=url, allow_hosts=allowed)
        ref, ref_name, plain = spec.slack.webhookURLFrom, "webhookURLFrom", spec.slack.url
    elif spec.webhook is not None:
        ref, ref_name, plain = spec.webhook.urlFrom, "urlFrom", spec.webhook.url
    else:
        ref, ref_name, plain = spec.webhookURLFrom or spec.urlFrom, "urlFrom", spec.url
        ref_name = "webhookURLFrom" if spec.webhookURLFrom is not None else ref_name
    if ref is not None:
        found = context.values.get_from(ref, at.at(ref_name))
    else:
        found = context.findings.filled(plain or "", at.at("url"))
    headers = (spec.webhook.headers if spec.webhook is not None else None) or spec.headers
    named = context.named_values(headers, (at if inner is not None else place).at("headers"))
    if found is None:
        return None
    allowed = tuple(spec.allowHosts)
    return NotifyChannel(type=spec.type, url=found, headers=named, allow_hosts=allowed)


# --- money and runs -----------------------------------------------------------------------------


def budget_of(
    manifest: Manifest[BudgetSpec], teams: Iterable[Manifest[Any]], context: Context
) -> Budget:
    """The budget of a document; `teams` are all documents of teams and flows."""
    spec, place = manifest.spec, manifest.place
    if spec.selector.team is not None:
        _check_team(spec.selector.team, {}, place.at("selector", "team"), context)
    limit = float(spec.limit)
    if limit <= 0:
        context.findings.add(place.at("limit"), f'expected more than 0, found "{spec.limit}"')
    return Budget(
        name=manifest.name,
        limit_usd=limit,
        period=spec.period,
        teams=_selected(manifest, teams, context),
        warn_at=spec.warnAtPercent / 100,
        place=place,
    )


def _selected(
    manifest: Manifest[BudgetSpec], teams: Iterable[Manifest[Any]], context: Context
) -> frozenset[str] | None:
    selector, at = manifest.spec.selector, manifest.place.at("selector")
    if selector.team is None and not selector.matchLabels:
        return None
    found = frozenset(
        team.name
        for team in teams
        if selector.team in (None, team.name)
        and selector.matchLabels.items() <= dict(team.labels).items()
    )
    if not found and selector.matchLabels:
        context.findings.warn(at, "no team has these labels: the budget is nobody's")
    return found


def _check_inputs(team: Team, names: Iterable[str], place: Place, context: Context) -> None:
    """That the team, if it declares inputs, has these."""
    known = {item.name for item in team.inputs} | set(team.defaults)
    for name in names if team.inputs else ():
        if name not in known:
            near = hint(name, known) or f" (known: {', '.join(sorted(known))})"
            message = f'team "{team.name}" has no input "{name}"{near}'
            context.findings.add(place.at(name), message)


def run_of(manifest: Manifest[RunSpec], teams: Mapping[str, Team], context: Context) -> RunRequest:
    """The run of a document."""
    spec, place = manifest.spec, manifest.place
    _check_team(spec.teamRef.name, teams, place.at("teamRef", "name"), context)
    if (team := teams.get(spec.teamRef.name)) is not None:
        _check_inputs(team, spec.input, place.at("input"), context)
    return RunRequest(
        name=manifest.name,
        team=spec.teamRef.name,
        inputs=dict(spec.input),
        timeout_seconds=spec.timeoutSeconds,
        max_tokens=spec.maxTokens,
        place=place,
    )

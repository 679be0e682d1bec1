"""Events, notices, budgets and runs in the normal form."""

from __future__ import annotations

import pytest

from muster.target import Secret
from muster.teams.definition import Budget, NotifyChannel

TEAM = """\
---
apiVersion: arkonis.dev/v1alpha1
kind: ArkTeam
metadata: {name: t}
spec: {roles: [{name: r, model: m, systemPrompt: p}], inputs: [{name: topic}]}
"""
SECRET = """\
---
apiVersion: v1
kind: Secret
metadata: {name: k}
stringData: {url: 'https://hooks/secret', token: tick, sign: tock}
"""


def document(kind: str, spec: str) -> str:
    """The spec begins in line 5."""
    return f"apiVersion: arkonis.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: x}}\nspec:\n{spec}"


# --- events -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cron",
    ["0 8 * * 1-5", "*/5 0,12 1 JAN MON", "@daily", "@every 1h30m", "TZ=Europe/Berlin 0 8 * * *"],
)
def test_cron(folder, cron: str) -> None:
    spec = (
        f"  source: {{type: cron, cron: '{cron}'}}\n  concurrencyPolicy: Replace\n"
        "  suspended: true\n  missedRuns: skip\n"
        "  targets: [{team: t, input: {topic: '{{ .trigger.firedAt }}'}}]\n"
    )
    event = folder.load(document("ArkEvent", spec) + TEAM).events["x"]
    assert (event.source, event.cron) == ("cron", cron)
    assert (event.concurrency, event.suspended, event.missed_runs) == ("Replace", True, "skip")
    (target,) = event.targets
    assert target.team == "t"
    assert target.inputs["topic"].render({"trigger": {"firedAt": "now"}}) == "now"


FIELDS = "expected five fields (minute, hour, day, month, weekday), found"


@pytest.mark.parametrize(
    ("cron", "told"),
    [
        ("daily", f"{FIELDS} 1"),
        ("0 8 * *", f"{FIELDS} 4"),
        ("0 25 * * *", "hour: expected a number from 0 to 23, found 25"),
        ("0 8 * * ~", 'weekday: expected a number from 0 to 7, found "~"'),
        ("@every soon", '"soon" is not a duration such as 30s, 5m or 1h30m'),
    ],
)
def test_what_is_no_cron(folder, cron: str, told: str) -> None:
    spec = f"  source: {{type: cron, cron: '{cron}'}}\n  targets: [{{team: t}}]\n"
    assert folder.problems(document("ArkEvent", spec) + TEAM) == [
        f't.yaml:5:30: spec.source.cron: invalid cron expression "{cron}": {told}'
    ]


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("{type: team-output, teamOutput: {name: t, onPhase: '*'}}", "team"),
        ("{type: pipeline-output, pipelineOutput: {name: t, onPhase: '*'}}", "pipeline"),
    ],
)
def test_the_end_of_a_team(folder, source: str, target: str) -> None:
    spec = f"  source: {source}\n  targets: [{{{target}: t}}, {{{target}: t}}]\n"
    event = folder.load(document("ArkEvent", spec) + TEAM).events["x"]
    assert (event.source, event.watched_team, event.on_phase) == ("team-output", "t", "*")
    assert [item.team for item in event.targets] == ["t", "t"]


def test_webhooks(folder) -> None:
    spec = "  source: {type: webhook}\n  targets: [{team: t}]\n"
    event = folder.load(document("ArkEvent", spec) + TEAM).events["x"]
    assert (event.token, event.signature, event.idempotency_header) == (
        None,
        None,
        "Idempotency-Key",
    )
    usual = SECRET.replace("name: k", "name: x-webhook-token")
    event = folder.load(document("ArkEvent", spec) + TEAM + usual).events["x"]
    assert event.token == "tick"
    assert isinstance(event.token, Secret)


def test_signed_webhooks(folder) -> None:
    spec = """\
  source:
    type: webhook
    webhook:
      tokenSecretRef: {name: k}
      signature: {scheme: stripe, secretRef: {name: k, key: sign}, toleranceSeconds: 9}
      idempotencyHeader: X-Delivery
  targets: [{team: t}]
"""
    event = folder.load(document("ArkEvent", spec) + TEAM + SECRET).events["x"]
    assert event.token == "tick"
    assert event.signature is not None
    assert (event.signature.scheme, event.signature.key) == ("stripe", "tock")
    assert isinstance(event.signature.key, Secret)
    assert event.signature.tolerance_seconds == 9
    assert event.idempotency_header == "X-Delivery"


def test_what_is_wrong_with_events(folder) -> None:
    spec = """\
  source: {type: team-output, teamOutput: {name: tt}}
  targets:
  - {team: u, input: {any: "{{ .input.x }}"}}
  - {team: t, input: {tpoic: x, topic: "{{ .trigger.body }"}}
"""
    told = folder.problems(document("ArkEvent", spec) + TEAM)
    assert told[:3] == [
        't.yaml:5:50: spec.source.teamOutput.name: unknown ArkTeam "tt" (did you mean "t"?)',
        't.yaml:7:12: spec.targets[0].team: unknown ArkTeam "u" (known: t)',
        "t.yaml:7:28: spec.targets[0].input.any: an event sees .trigger only, not .input.x",
    ]
    assert told[3] == (
        't.yaml:8:30: spec.targets[1].input.tpoic: team "t" has no input "tpoic" '
        '(did you mean "topic"?)'
    )
    assert told[4].startswith("t.yaml:8:")
    assert len(told) == 5
    needs = TEAM.replace("{name: topic", "{name: topic, required: true")
    assert needs != TEAM
    left_out = "  source: {type: webhook}\n  targets: [{team: t, input: {}}]\n"
    assert folder.problems(document("ArkEvent", left_out) + needs) == [
        't.yaml:6:30: spec.targets[0].input: team "t" requires the input "topic"'
    ]


# --- notices ------------------------------------------------------------------------------------


def test_notices_with_channels(folder) -> None:
    spec = """\
  on: [TeamFailed, BudgetExceeded]
  rateLimitSeconds: 0
  template: "{{ .Event }} of {{ .TeamName }}"
  channels:
  - {type: slack, webhookURLFrom: {secretKeyRef: {name: k, key: url}}}
  - {type: webhook, url: "https://h/", headers: [{name: X, value: y}]}
  - {type: webhook, urlFrom: {secretKeyRef: {name: k, key: url}}}
  - {type: slack, slack: {url: "https://s/"}}
  - {type: webhook, webhook: {url: "https://w/", headers: {A: b}}}
"""
    notify = folder.load(document("ArkNotify", spec) + SECRET).notifies["x"]
    assert notify.channels == (
        NotifyChannel(type="slack", url="https://hooks/secret"),
        NotifyChannel(type="webhook", url="https://h/", headers={"X": "y"}),
        NotifyChannel(type="webhook", url="https://hooks/secret"),
        NotifyChannel(type="slack", url="https://s/"),
        NotifyChannel(type="webhook", url="https://w/", headers={"A": "b"}),
    )
    assert isinstance(notify.channels[0].url, Secret)
    assert [notice.type for notice in notify.notices] == ["TeamFailed", "BudgetExceeded"]
    text = notify.notices[0].template
    assert text is not None
    assert text.render({"Event": "TeamFailed", "TeamName": "t"}) == "TeamFailed of t"
    assert (notify.window_seconds, notify.max_per_window) == (0, 1)


def test_notices_with_one_channel(folder) -> None:
    spec = """\
  channel: {type: slack, slack: {webhookUrlSecretRef: {name: k, key: url}}}
  events:
  - {type: TeamFailed, template: "{{ .run.name }} failed"}
  - {type: TeamSucceeded}
  rateLimiting: {windowSeconds: 60, maxPerWindow: 2}
"""
    notify = folder.load(document("ArkNotify", spec) + SECRET).notifies["x"]
    assert notify.channels == (NotifyChannel(type="slack", url="https://hooks/secret"),)
    first, second = notify.notices
    assert first.template is not None
    assert first.template.render({"run": {"name": "n"}}) == "n failed"
    assert (second.type, second.template) == ("TeamSucceeded", None)
    assert (notify.window_seconds, notify.max_per_window) == (60, 2)


def test_notices_of_everything(folder) -> None:
    spec = "  channels: [{type: webhook, url: 'https://h'}]\n"
    notify = folder.load(document("ArkNotify", spec)).notifies["x"]
    assert [notice.type for notice in notify.notices] == [
        "TeamSucceeded",
        "TeamFailed",
        "TeamTimedOut",
        "BudgetExceeded",
        "DailyLimitReached",
        "AgentDegraded",
    ]
    assert notify.window_seconds == 300


def test_a_channel_whose_secret_is_not_there(folder) -> None:
    spec = "  channel: {type: slack, slack: {webhookUrlSecretRef: {name: k, key: ulr}}}\n"
    assert folder.problems(document("ArkNotify", spec) + SECRET) == [
        't.yaml:5:70: spec.channel.slack.webhookUrlSecretRef.key: key "ulr" not found in Secret '
        '"k" (did you mean "url"?)'
    ]


# --- money and runs -----------------------------------------------------------------------------


def test_budgets(folder) -> None:
    spec = "  limit: '12.50'\n  period: daily\n  selector: {team: t}\n  warnAtPercent: 50\n"
    budget = folder.load(document("ArkBudget", spec) + TEAM).budgets["x"]
    assert budget == Budget(
        name="x", limit_usd=12.5, period="daily", teams=frozenset({"t"}), warn_at=0.5
    )
    labels = "  limit: 3\n  selector: {matchLabels: {team: red}}\n"
    red = TEAM.replace("metadata: {", "metadata: {labels: {team: red}, ")
    loaded = folder.load(document("ArkBudget", labels) + red)
    assert loaded.budgets["x"] == Budget(name="x", limit_usd=3, teams=frozenset({"t"}))
    assert [team.budgets for team in loaded.teams.values()] == [(loaded.budgets["x"],)]
    nobodys = folder.load(document("ArkBudget", labels) + TEAM)
    assert [team.budgets for team in nobodys.teams.values()] == [()]
    assert nobodys.warnings == [
        "t.yaml:6:13: spec.selector: no team has these labels: the budget is nobody's"
    ]
    assert folder.problems(document("ArkBudget", spec.replace("12.50", "0")) + TEAM) == [
        't.yaml:5:10: spec.limit: expected more than 0, found "0"'
    ]


def test_runs(folder) -> None:
    spec = (
        "  teamRef: {name: t}\n  input: {topic: x}\n  teamGeneration: 3\n  roles: [{any: thing}]\n"
    )
    run = folder.load(document("ArkRun", spec) + TEAM).runs["x"]
    assert (run.name, run.team, run.inputs) == ("x", "t", {"topic": "x"})
    made = document("ArkRun", spec).replace("{name: x}", "{generateName: x-run-}")
    assert list(folder.load(made + TEAM).runs) == ["x-run-1"]
    assert folder.problems(document("ArkRun", "  teamRef: {name: tt}\n") + TEAM) == [
        't.yaml:5:19: spec.teamRef.name: unknown ArkTeam "tt" (did you mean "t"?)'
    ]
    unknown = document("ArkRun", spec.replace("{topic: x}", "{tpoic: x}"))
    assert folder.problems(unknown + TEAM) == [
        't.yaml:6:18: spec.input.tpoic: team "t" has no input "tpoic" (did you mean "topic"?)'
    ]

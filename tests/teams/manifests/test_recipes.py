"""Whole files in the shapes that ark's users publish."""

from __future__ import annotations

POD = "resources: {requests: {cpu: 100m, memory: 128Mi}, limits: {cpu: 500m, memory: 512Mi}}"
KEYS = "envFrom: [{secretRef: {name: ark-api-keys}}]"


def role(name: str, more: str = "") -> str:
    return f"""\
    - name: {name}
      model: qwen2.5:7b
      {KEYS}
      systemPrompt: |
        You are {name}.
      limits: {{maxTokensPerCall: 500, timeoutSeconds: 60}}
      {POD}
{more}"""


def team(name: str, spec: str) -> str:
    return (
        "---\napiVersion: arkonis.dev/v1alpha1\nkind: ArkTeam\n"
        f"metadata:\n  name: {name}\n  namespace: ark-teams\nspec:\n{spec}"
    )


def test_extraction_with_every_kind_of_check(folder) -> None:
    text = team(
        "extract",
        "  timeoutSeconds: 300\n  inputs: [{name: rawText, type: string, required: true}]\n"
        "  roles:\n"
        + role("extractor")
        + role("enricher")
        + r"""
  pipeline:
    - role: extractor
      inputs:
        prompt: |
          Extract a record. {{ .input.rawText }}
      outputSchema: |
        {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
      validate:
        contains: '^\s*\{'
        schema: |
          {"type": "object", "required": ["name"]}
        onFailure: retry
        maxRetries: 3
    - role: enricher
      dependsOn: [extractor]
      inputs:
        prompt: "{{ .steps.extractor.output }}"
      loop:
        condition: '{{ ge (index .steps.enricher.data "confidence" | float64) 0.8 }}'
        maxIterations: 3
      validate:
        rejectPatterns:
          - '(?i)ignore\s+(all\s+)?previous\s+instructions'
          - '<\s*/?(?:script|iframe|img)[^>]*>'
        semantic: |
          Is it plausible? Reply with exactly one word: VALID or INVALID.
        onFailure: retry
  output: "{{ .steps.enricher.output }}"
""",
    )
    made = folder.load(text).teams["extract"]
    first, second = made.steps
    assert first.validation.max_retries == 3
    assert second.loop.max_iterations == 3
    data = {"steps": {"enricher": {"data": {"confidence": 0.9}}}}
    assert second.loop.condition.render(data) == "true"


def test_a_support_team_and_its_service(folder) -> None:
    text = team(
        "support",
        "  entry: coordinator\n  roles:\n"
        + role("coordinator", "      canDelegate:\n        - billing\n        - technical\n")
        + role("billing", "      replicas: 3\n")
        + role(
            "technical",
            "      mcpServers:\n        - name: kb\n          url: https://kb.example.com/sse\n"
            "          guidance: |\n            Search by product.\n",
        ),
    )
    text += """\
---
apiVersion: arkonis.dev/v1alpha1
kind: ArkService
metadata: {name: support-entry, namespace: ark-teams}
spec:
  selector: {arkAgent: support-coordinator}
  routing: {strategy: least-busy}
  ports: [{protocol: A2A, port: 8080}, {protocol: HTTP, port: 8081}]
"""
    bundle = folder.load(text)
    made = bundle.teams["support"]
    assert (made.mode, made.entry) == ("dynamic", "coordinator")
    assert made.roles["technical"].agent.tools[0].guidance == "Search by product.\n"
    keys, service = bundle.warnings
    assert keys.endswith("only the environment of this process is used")
    assert service.endswith(
        'ArkService "support-entry" is left out: on one machine nothing needs it'
    )


def test_a_webhook_that_starts_two_teams(folder) -> None:
    tool = """\
      tools:
        - name: post_comment
          description: "Comment."
          url: "https://api.example.com/repos/{{ .input.repo }}/issues/{{ .input.number }}"
          method: POST
          inputSchema: |
            {"type": "object", "properties": {"body": {"type": "string"}}, "required": ["body"]}
"""
    inputs = "  inputs:\n    - {name: repo, required: true}\n    - {name: number, required: true}\n"
    steps = "  pipeline:\n    - role: reviewer\n      inputs: {prompt: 'PR #{{ .input.number }}'}\n"
    teams = [
        team(name, inputs + "  roles:\n" + role("reviewer", tool) + steps)
        for name in ("security", "quality")
    ]
    event = """\
apiVersion: arkonis.dev/v1alpha1
kind: ArkEvent
metadata: {name: pr}
spec:
  source: {type: webhook}
  targets:
    - team: security
      input: {number: "{{ .trigger.body.pr_number }}", repo: "{{ .trigger.body.repo }}"}
    - {team: quality, input: {number: "{{ .trigger.body.pr_number }}", repo: x}}
  concurrencyPolicy: Allow
  suspended: false
"""
    bundle = folder.load(event + "".join(teams))
    number = bundle.events["pr"].targets[0].inputs["number"]
    assert number.render({"trigger": {"body": {"pr_number": 42.0, "repo": "r"}}}) == "42"
    assert [target.team for target in bundle.events["pr"].targets] == ["security", "quality"]


def test_notices_with_functions(folder) -> None:
    text = """\
apiVersion: arkonis.dev/v1alpha1
kind: ArkNotify
metadata: {name: alerts}
spec:
  channel:
    type: slack
    slack:
      webhookUrlSecretRef: {name: slack, key: webhookUrl}
  events:
    - type: BudgetExceeded
      template: |
        Budget: {{ .agent.spec.limits.maxDailyTokens | int | printf "%d" }} tokens
  rateLimiting: {windowSeconds: 300, maxPerWindow: 1}
"""
    folder.write("values/slack.env", "webhookUrl=https://hooks.example.com/T0\n")
    notify = folder.load(text, values="values").notifies["alerts"]
    assert notify.channels[0].url == "https://hooks.example.com/T0"
    data = {"agent": {"spec": {"limits": {"maxDailyTokens": 1000000.0}}}}
    assert notify.notices[0].template.render(data) == "Budget: 1000000 tokens\n"


def test_a_field_in_the_wrong_block(folder) -> None:
    text = team("t", "  roles:\n" + role("r", "      resources: {maxConcurrentTasks: 2}\n"))
    text = text.replace(f"      {POD}\n", "")
    (told,) = folder.problems(text)
    assert told == (
        "t.yaml:15:19: spec.roles[0].resources.maxConcurrentTasks: unknown field "
        '"maxConcurrentTasks" (known: claims, limits, requests)'
    )


def test_an_optimizer_is_left_out(folder) -> None:
    text = team("t", "  roles:\n" + role("r"))
    text += "---\napiVersion: arkonis.dev/v1alpha1\nkind: ArkOptimizer\nmetadata: {name: o}\n"
    bundle = folder.load(text)
    assert list(bundle.teams) == ["t"]
    assert bundle.warnings[0].endswith(
        'kind "ArkOptimizer" of arkonis.dev/v1alpha1 means nothing here; '
        "1 such document is left out"
    )

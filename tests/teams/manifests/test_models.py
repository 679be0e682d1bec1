"""What the fields of each kind may hold, and what is said where they hold something else."""

from __future__ import annotations

import pytest

HEAD = "apiVersion: arkonis.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: x}}\nspec: {spec}\n"


def document(kind: str, spec: str) -> str:
    """The spec stands in line 4, from column 7 on."""
    return HEAD.format(kind=kind, spec=spec)


def agent(fields: str) -> str:
    return document("ArkAgent", "{model: m, systemPrompt: p, " + fields + "}")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("replicas: 51", "spec.replicas: expected less than or equal to 50, found 51"),
        ("replicas: -1", "spec.replicas: expected greater than or equal to 0, found -1"),
        ("replicas: '5'", 'spec.replicas: expected integer, found "5"'),
        ("replica: 5", 'spec.replica: unknown field "replica" (did you mean "replicas"?)'),
        (
            "limits: {maxTokensPerCall: 0}",
            "spec.limits.maxTokensPerCall: expected greater than or equal to 1, found 0",
        ),
        (
            "limits: {timeoutSeconds: 0}",
            "spec.limits.timeoutSeconds: expected greater than 0, found 0",
        ),
        (
            "limits: {maxDailyTokens: -1}",
            "spec.limits.maxDailyTokens: expected greater than or equal to 0, found -1",
        ),
        (
            "limits: {maxTurn: 9}",
            'spec.limits.maxTurn: unknown field "maxTurn" (did you mean "maxTurns"?)',
        ),
        (
            "livenessProbe: {type: shell}",
            "spec.livenessProbe.type: expected 'semantic' or 'ping', found \"shell\"",
        ),
        ("livenessProbe: {}", 'spec.livenessProbe.type: "type" is required'),
        ("temperature: -0.1", "spec.temperature: expected greater than or equal to 0"),
        (
            "resources: {requests: {cpu: 1x}}",
            'spec.resources.requests.cpu: expected a quantity such as "500m" or "1Gi", found "1x"',
        ),
        (
            "autoscaling: {minReplicas: 3, maxReplicas: 2}",
            "spec.autoscaling: minReplicas (3) is more than maxReplicas (2)",
        ),
        ("envFrom: [{}]", "spec.envFrom[0]: give one of configMapRef, secretRef"),
        (
            "envFrom: [{secretRef: {name: a}, configMapRef: {name: b}}]",
            "spec.envFrom[0]: give only one of configMapRef, secretRef",
        ),
        ("tools: [{name: t}]", "spec.tools[0]: give one of url, python"),
        ("tools: [{name: ' ', url: u}]", "spec.tools[0].name: must not be empty"),
        (
            "tools: [{name: t, url: u, method: DELETE}]",
            "spec.tools[0].method: expected 'GET', 'POST', 'PUT' or 'PATCH', found \"DELETE\"",
        ),
        (
            "mcpServers: [{name: s}]",
            "spec.mcpServers[0]: give one of url, command, arkAgentRef, capabilityRef",
        ),
        (
            "mcpServers: [{name: s, url: 'http://h', args: [x]}]",
            "spec.mcpServers[0]: args belongs to a server with a command",
        ),
        (
            "mcpServers: [{name: s, command: c, headers: {a: b}}]",
            "spec.mcpServers[0]: headers belongs to a server with a url",
        ),
        (
            "mcpServers: [{name: s, command: c, transport: sse}]",
            'spec.mcpServers[0]: transport "sse" does not go with a command',
        ),
        (
            "mcpServers: [{name: s, url: u, auth: {type: basic, tokenSecretRef: {name: n}}}]",
            "spec.mcpServers[0].auth.type: expected 'bearer', found \"basic\"",
        ),
        (
            "mcpServers: [{name: s, url: 'http://u', headers: [{name: a, valeu: b}]}]",
            'spec.mcpServers[0].headers[0].valeu: unknown field "valeu" (did you mean "value"?)',
        ),
        (
            "mcpServers: [{name: s, url: u, headers: {a: {secretKeyRef: {name: b}}}}]",
            'spec.mcpServers[0].headers.a.secretKeyRef.key: "key" is required',
        ),
        (
            "systemPromptRef: {}",
            "spec.systemPromptRef: give one of configMapKeyRef, secretKeyRef, fileRef",
        ),
        ("capabilities: [{tags: [a]}]", 'spec.capabilities[0].id: "id" is required'),
        ("target: t, provider: p", "spec: give only one of target, provider"),
        ("model: n", 'duplicate key "model"'),
    ],
)
def test_fields_of_agents(folder, fields: str, message: str) -> None:
    (told,) = folder.problems(agent(fields))
    assert told.startswith("t.yaml:4:")
    assert told.split(" ", 1)[1].startswith(message)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("{systemPrompt: p}", 'spec: "model" is required (or a "target" of targets.yaml)'),
        ("{model: m}", "spec: at least one of systemPrompt or systemPromptRef must be set"),
        ("[]", "spec: expected a mapping"),
        ("", "spec: expected a mapping"),
    ],
)
def test_what_an_agent_must_have(folder, spec: str, message: str) -> None:
    (told,) = folder.problems(document("ArkAgent", spec))
    assert message in told


def test_places_of_fields_are_exact(folder) -> None:
    text = """\
apiVersion: arkonis.dev/v1alpha1
kind: ArkTeam
metadata: {name: t}
spec:
  roles:
    - name: r
      model: m
      systemPrompt: p
      limits:
        timeoutSecond: 5
  pipeline:
    - role: r
      validate:
        contians: x
        onFailure: repeat
      loop:
        maxIterations: 101
        condition: "{{ true }}"
"""
    assert folder.problems(text) == [
        't.yaml:10:9: spec.roles[0].limits.timeoutSecond: unknown field "timeoutSecond" '
        '(did you mean "timeoutSeconds"?)',
        't.yaml:14:9: spec.pipeline[0].validate.contians: unknown field "contians" '
        '(did you mean "contains"?)',
        "t.yaml:15:20: spec.pipeline[0].validate.onFailure: expected 'fail' or 'retry', "
        'found "repeat"',
        "t.yaml:17:24: spec.pipeline[0].loop.maxIterations: expected less than or equal to 100, "
        "found 101",
    ]


@pytest.mark.parametrize(
    ("kind", "spec", "message"),
    [
        ("ArkFlow", "{steps: []}", "spec.steps: there are no steps"),
        ("ArkFlow", "{}", 'spec.steps: "steps" is required'),
        ("ArkTeam", "{pipeline: []}", "spec.pipeline: there are no steps"),
        ("ArkTeam", "{}", "spec: give one of pipeline, roles (with an entry), routing"),
        (
            "ArkTeam",
            "{roles: [{name: r, arkAgent: a}], members: [{role: r, arkAgent: a}]}",
            "spec: give only one of roles, members",
        ),
        (
            "ArkTeam",
            "{routing: {registryRef: {name: r}, model: m}, entry: e}",
            "spec: a routed team takes no entry",
        ),
        (
            "ArkTeam",
            "{routing: {registryRef: {name: r}}}",
            "spec.routing: give one of model, target",
        ),
        (
            "ArkTeam",
            "{roles: [{name: r, arkAgent: a, arkTeam: b}]}",
            "spec.roles[0]: give only one of arkAgent, arkTeam",
        ),
        (
            "ArkTeam",
            "{roles: [{name: r, arkAgent: a, replicas: 2, model: m}]}",
            "spec.roles[0]: model cannot stand beside arkAgent",
        ),
        (
            "ArkTeam",
            "{roles: [{name: r, arkTeam: a, canDelegate: [r]}]}",
            "spec.roles[0]: a team as a role does not delegate",
        ),
        (
            "ArkFlow",
            "{steps: [{arkAgent: a}]}",
            'spec.steps[0]: "name" is required beside arkAgent',
        ),
        (
            "ArkFlow",
            "{steps: [{name: a}]}",
            'spec.steps[0]: "role" is required (or arkAgent, registryLookup, approval)',
        ),
        (
            "ArkFlow",
            "{steps: [{name: a, role: b, arkAgent: c}]}",
            "spec.steps[0]: give only one of role, arkAgent",
        ),
        (
            "ArkFlow",
            "{steps: [{name: a, role: b, approval: ok?}]}",
            "spec.steps[0]: an approval asks a person; it takes no role",
        ),
        ("ArkFlow", "{steps: [{approval: ok?}]}", 'spec.steps[0]: an approval needs a "name"'),
        (
            "ArkFlow",
            "{steps: [{name: a, role: r, forEach: {items: x}, maxParallel: 2}]}",
            "spec.steps[0]: maxParallel stands beside the short form of forEach only",
        ),
        (
            "ArkFlow",
            "{steps: [{name: a, role: r, loop: {condition: x, maxIterations: 1, "
            "maxExecutions: 2}}]}",
            "spec.steps[0].loop: give only one of maxIterations, maxExecutions",
        ),
        (
            "ArkFlow",
            "{steps: [{name: a, role: r}], maxTokens: 0}",
            "spec.maxTokens: expected greater than or equal to 1, found 0",
        ),
        (
            "ArkSettings",
            "{temperature: '1.5'}",
            'spec.temperature: expected a temperature from 0 to 1, such as "0.7", found "1.5"',
        ),
        (
            "ArkSettings",
            "{fragments: [{name: a, position: top, text: t}]}",
            "spec.fragments[0].position: expected 'prepend' or 'append', found \"top\"",
        ),
        (
            "ArkMemory",
            "{backend: disk}",
            "spec.backend: expected 'in-context', 'sqlite', 'redis' or 'vector-store', "
            'found "disk"',
        ),
        ("ArkMemory", "{backend: redis}", 'spec: spec.redis is required when backend is "redis"'),
        (
            "ArkMemory",
            "{backend: redis, redis: {}}",
            "spec: spec.redis.secretRef.name is required",
        ),
        (
            "ArkMemory",
            "{backend: vector-store}",
            'spec: spec.vectorStore is required when backend is "vector-store"',
        ),
        (
            "ArkMemory",
            "{backend: vector-store, vectorStore: {provider: qdrant}}",
            "spec: spec.vectorStore.endpoint is required",
        ),
        (
            "ArkEvent",
            "{source: {type: cron}, targets: [{team: t}]}",
            "spec.source: spec.source.cron is required for cron type",
        ),
        (
            "ArkEvent",
            "{source: {type: team-output}, targets: [{team: t}]}",
            "spec.source: spec.source.teamOutput is required for team-output type",
        ),
        (
            "ArkEvent",
            "{source: {type: webhook, cron: '* * * * *'}, targets: [{team: t}]}",
            'spec.source: cron does not go with type "webhook"',
        ),
        ("ArkEvent", "{source: {type: webhook}, targets: []}", "spec.targets: there are no"),
        (
            "ArkEvent",
            "{source: {type: webhook}, targets: [{}]}",
            "spec.targets[0]: give one of team, pipeline",
        ),
        ("ArkNotify", "{}", "spec: give one of channels, channel"),
        (
            "ArkNotify",
            "{channels: [{type: slack, urlFrom: {secretKeyRef: {name: a, key: b}}}]}",
            'spec.channels[0]: urlFrom does not go with type "slack"',
        ),
        (
            "ArkNotify",
            "{on: [TeamExploded], channels: [{type: webhook, url: u}]}",
            "spec.on[0]: expected 'TeamSucceeded'",
        ),
        (
            "ArkRegistry",
            "{policy: {maxDepth: 0}}",
            "spec.policy.maxDepth: expected greater than or equal to 1, found 0",
        ),
        ("ArkBudget", "{limit: 0}", "spec.limit: expected greater than 0, found 0"),
        ("ArkBudget", "{limit: many}", "spec.limit: expected"),
        ("ArkBudget", "{limit: 5, period: yearly}", "spec.period: expected 'daily', 'weekly'"),
        ("ArkRun", "{}", 'spec.teamRef: "teamRef" is required'),
    ],
)
def test_fields_of_the_other_kinds(folder, kind: str, spec: str, message: str) -> None:
    (told,) = folder.problems(document(kind, spec))
    assert told.split(" ", 1)[1].startswith(message)


def test_what_only_a_cluster_uses_is_read(folder) -> None:
    fields = """
  model: m
  systemPrompt: p
  replicas: 0
  resources: {requests: {cpu: 100m, memory: 1Gi}, limits: {cpu: 2, memory: "1e3"}}
  livenessProbe: {type: semantic, validatorPrompt: Are you well?}
  autoscaling: {enabled: true, minReplicas: 0, maxReplicas: 9, targetPendingTasks: 3}
  networkPolicy: {mode: strict, egress: [any]}
  limits: {maxConcurrentTasks: 2}
"""
    bundle = folder.load(document("ArkAgent", fields))
    assert bundle.warnings == []
    assert bundle.agents["x"].limits.max_concurrent_tasks == 2

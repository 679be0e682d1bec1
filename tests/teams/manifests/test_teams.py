"""Teams in the normal form: modes, roles, delegation, routing, and what is wrong with them."""

from __future__ import annotations

import pytest

from muster.teams.definition import InputField, Lookup

AGENTS = """\
---
apiVersion: muster.dev/v1alpha1
kind: Agent
metadata: {name: a}
spec: {model: m, systemPrompt: p, capabilities: [{id: write, tags: [long, deep]}, {id: read}]}
---
apiVersion: muster.dev/v1alpha1
kind: Agent
metadata: {name: b}
spec: {model: m, systemPrompt: p}
"""
REGISTRY = """\
---
apiVersion: muster.dev/v1alpha1
kind: Registry
metadata: {name: reg}
spec: {policy: {maxDepth: 2}}
"""


def team(spec: str, *, kind: str = "Team", name: str = "t", labels: str = "{}") -> str:
    """The spec begins in line 5 (when it is the first document)."""
    return (
        f"apiVersion: muster.dev/v1alpha1\nkind: {kind}\n"
        f"metadata: {{name: {name}, labels: {labels}}}\nspec:\n{spec}"
    )


# --- forms --------------------------------------------------------------------------------------

FLOW = """\
  steps:
  - {name: s1, arkAgent: a, inputs: {prompt: "{{ .pipeline.input.n }}"}}
  - {name: s2, arkonisDeployment: b, dependsOn: [s1]}
  - {name: s3, arkAgent: a, dependsOn: [s2, s1, s2]}
  input: {n: 3, f: 0.5, yes: true, text: x}
  output: "{{ .steps.s3.output }}"
  timeoutSeconds: 60
  maxTokens: 100
"""


def test_a_flow(folder) -> None:
    flow = folder.load(team(FLOW, kind="Flow") + AGENTS).teams["t"]
    assert (flow.mode, flow.is_flow, flow.entry) == ("pipeline", True, None)
    assert {name: role.agent.name for name, role in flow.roles.items()} == {"a": "a", "b": "b"}
    assert [(step.name, step.role, step.depends_on) for step in flow.steps] == [
        ("s1", "a", ()),
        ("s2", "b", ("s1",)),
        ("s3", "a", ("s2", "s1")),
    ]
    assert flow.defaults == {"n": "3", "f": "0.5", "yes": "true", "text": "x"}
    assert flow.inputs == ()
    assert flow.output is not None
    assert flow.output.render({"steps": {"s3": {"output": "done"}}}) == "done"
    assert (flow.timeout_seconds, flow.max_tokens) == (60, 100)
    assert flow.path == folder.path / "t.yaml"


def test_the_oldest_names_of_a_flow(folder) -> None:
    text = team(FLOW, kind="ArkonisPipeline").replace("muster.dev", "arkonis.dev")
    assert [step.role for step in folder.load(text + AGENTS).teams["t"].steps] == ["a", "b", "a"]


TEAM = """\
  roles:
  - {name: r1, model: m1, systemPrompt: one}
  - {name: r2, arkAgent: b}
  pipeline:
  - {role: r1}
  - {role: r2, dependsOn: [r1]}
  - {role: r1, name: again, dependsOn: [r2]}
  - {name: last, arkAgent: a, dependsOn: [again]}
"""


def test_a_pipeline(folder) -> None:
    rest = "  budgetUsd: 0.5\n  limits: {maxDailyTokens: 9}\n  successfulRunsHistoryLimit: 3\n"
    rest += "  failedRunsHistoryLimit: 0\n  artifactStore: {type: local}\n  maxDepth: 7\n"
    made = folder.load(team(TEAM + rest, labels="{team: x}") + AGENTS).teams["t"]
    assert (made.mode, made.is_flow) == ("pipeline", False)
    agents = {name: role.agent for name, role in made.roles.items()}
    assert {name: agent.name for name, agent in agents.items()} == {
        "r1": "t-r1",
        "r2": "b",
        "a": "a",
    }
    assert agents["r1"].system_prompt == "one"
    assert [(step.name, step.role) for step in made.steps] == [
        ("r1", "r1"),
        ("r2", "r2"),
        ("again", "r1"),
        ("last", "a"),
    ]
    assert (made.max_cost_usd, made.max_daily_tokens, made.max_depth) == (0.5, 9, 7)
    assert (made.keep_succeeded, made.keep_failed) == (3, 0)
    assert (made.artifact_store, made.labels) == ({"type": "local"}, {"team": "x"})
    assert made.output is None


DYNAMIC = """\
  entry: r1
  roles:
  - {name: r1, arkAgent: a, canDelegate: [r2, r3]}
  - {name: r2, arkAgent: b, canDelegate: [r3]}
  - {name: r3, arkAgent: b}
"""


def test_modes(folder) -> None:
    def made(spec: str):
        found = folder.load(team(spec) + AGENTS).teams["t"]
        return found.mode, found.entry

    pipeline = "  pipeline: [{role: r1}]\n"
    assert made(DYNAMIC) == ("dynamic", "r1")
    assert made(DYNAMIC + pipeline) == ("mixed", "r1")
    assert made("  roles: [{name: only, arkAgent: a}]\n") == ("dynamic", "only")
    assert made("  roles: [{name: r1, arkAgent: a}]\n" + pipeline) == ("pipeline", None)
    assert made(DYNAMIC.replace("  entry: r1\n", "") + pipeline) == ("mixed", None)


def test_members(folder) -> None:
    spec = """\
  members:
  - {role: lead, arkAgent: a, entry: true, delegates: [worker]}
  - {role: worker, arkAgent: b}
"""
    made = folder.load(team(spec) + AGENTS).teams["t"]
    assert (made.mode, made.entry) == ("dynamic", "lead")
    assert made.roles["lead"].can_delegate == ("worker",)
    twice = spec.replace("arkAgent: b", "arkAgent: b, entry: true, delegates: [lead, wroker]")
    assert folder.problems(team(twice) + AGENTS) == [
        "t.yaml:6:3: spec.members: several entries: lead, worker",
        't.yaml:7:58: spec.members[1].delegates[0]: cycle detected: role "worker" → "lead" '
        "forms a cycle",
        't.yaml:7:64: spec.members[1].delegates[1]: role "worker" delegates to unknown role '
        '"wroker" (did you mean "worker"?)',
    ]


def test_a_team_as_a_role(folder) -> None:
    inner = "---\n" + team("  steps: [{name: s, arkAgent: a}]\n", kind="Flow", name="inner")
    outer = team("  roles: [{name: r, arkTeam: inner}]\n  pipeline: [{role: r}]\n", name="outer")
    bundle = folder.load(outer + inner + AGENTS)
    assert bundle.teams["outer"].roles["r"].team is bundle.teams["inner"]
    assert bundle.teams["outer"].roles["r"].agent is None


# --- inputs -------------------------------------------------------------------------------------


def test_inputs(folder) -> None:
    spec = TEAM + (
        "  inputs:\n"
        "  - {name: topic, description: What., required: true}\n"
        "  - {name: depth, default: 3}\n"
        "  - {name: count, type: integer, default: '4'}\n"
        "  - {name: list, type: array, default: [1]}\n"
        "  input: {topic: x, extra: {a: 1}}\n"
    )
    made = folder.load(team(spec) + AGENTS).teams["t"]
    assert made.inputs == (
        InputField(name="topic", description="What.", required=True),
        InputField(name="depth", default="3"),
        InputField(name="count", type="integer", default="4"),
        InputField(name="list", type="array", default=[1]),
    )
    assert made.defaults == {"topic": "x", "extra": {"a": 1}}


def test_what_is_wrong_with_inputs(folder) -> None:
    spec = TEAM + (
        "  inputs:\n"
        "  - {name: n, type: integer, default: many}\n"
        "  - {name: n}\n"
        "  - {name: on, type: boolean}\n"
        "  input: {on: maybe}\n"
    )
    assert folder.problems(team(spec) + AGENTS) == [
        't.yaml:14:39: spec.inputs[0].default: team "t": input "n": expected integer, found "many"',
        't.yaml:15:12: spec.inputs[1].name: there are two inputs called "n"',
        't.yaml:17:15: spec.input.on: team "t": input "on": expected boolean, found "maybe"',
    ]


# --- names that lead nowhere, and graphs that cannot be -------------------------------------------


def test_the_texts_that_ark_has(folder) -> None:
    spec = """\
  steps:
  - {name: s1, arkAgent: zz, dependsOn: [s2]}
  - {name: s2, arkAgent: a, dependsOn: [s1, zz]}
"""
    assert folder.problems(team(spec, kind="Flow") + AGENTS) == [
        't.yaml:6:26: spec.steps[0].arkAgent: step "s1" references unknown ArkAgent "zz"',
        't.yaml:7:41: spec.steps[1].dependsOn[0]: cycle detected: step "s2" → "s1" forms a cycle',
        't.yaml:7:45: spec.steps[1].dependsOn[1]: step "s2" depends on unknown step "zz"',
    ]


def test_a_step_that_depends_on_itself(folder) -> None:
    spec = "  steps: [{name: s1, arkAgent: a, dependsOn: [s1]}]\n"
    assert folder.problems(team(spec, kind="Flow") + AGENTS) == [
        't.yaml:5:47: spec.steps[0].dependsOn[0]: cycle detected: step "s1" → "s1" forms a cycle'
    ]


def test_steps_and_roles_of_one_name(folder) -> None:
    spec = """\
  roles: [{name: r, arkAgent: a}, {name: r, arkAgent: b}]
  pipeline: [{role: r}, {role: r}, {role: q, name: r}]
"""
    assert folder.problems(team(spec) + AGENTS) == [
        't.yaml:5:42: spec.roles[1].name: there are two roles called "r"',
        't.yaml:6:32: spec.pipeline[1].role: there are two steps called "r"; '
        'give one of them a "name"',
        't.yaml:6:43: spec.pipeline[2].role: step "r" references unknown role "q" (known: r)',
        't.yaml:6:52: spec.pipeline[2].name: there are two steps called "r"',
    ]


def test_an_agent_and_a_role_of_one_name(folder) -> None:
    spec = "  roles: [{name: a, arkAgent: b}]\n  pipeline: [{name: s, arkAgent: a}]\n"
    assert folder.problems(team(spec) + AGENTS) == [
        't.yaml:6:34: spec.pipeline[0].arkAgent: "a" is an agent and a role; say which with "role"'
    ]


def test_a_role_whose_agent_has_the_name_of_another(folder) -> None:
    clash = AGENTS.replace("name: b", "name: t-r")
    spec = "  roles: [{name: r, model: m, systemPrompt: p}]\n"
    assert folder.problems(team(spec) + clash) == [
        't.yaml:5:18: spec.roles[0].name: the role\'s agent is called "t-r", as an ArkAgent is'
    ]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            DYNAMIC.replace("entry: r1", "entry: r9"),
            't.yaml:5:10: spec.entry: entry: unknown role "r9" (known: r1, r2, r3)',
        ),
        (
            DYNAMIC.replace("  entry: r1\n", ""),
            't.yaml:5:3: spec: a team without a pipeline needs an "entry": the role that gets '
            "the tasks",
        ),
        (
            DYNAMIC.replace("b}", "b, canDelegate: [r1]}"),
            't.yaml:9:43: spec.roles[2].canDelegate[0]: cycle detected: role "r3" → "r1" '
            "forms a cycle (r3 → r1 → r2 → r3)",
        ),
        (
            DYNAMIC.replace("[r3]", "[nobody]"),
            't.yaml:8:43: spec.roles[1].canDelegate[0]: role "r2" delegates to unknown role '
            '"nobody" (known: r1, r2, r3)',
        ),
        (
            "  roles: [{name: r, arkAgent: aa}]\n",
            't.yaml:5:31: spec.roles[0].arkAgent: role "r" references unknown ArkAgent "aa" '
            '(did you mean "a"?)',
        ),
        (
            "  roles: [{name: r, arkTeam: tt}]\n",
            't.yaml:5:30: spec.roles[0].arkTeam: role "r" references unknown ArkTeam "tt" '
            '(did you mean "t"?)',
        ),
        (
            "  roles: [{name: r, arkTeam: t}]\n",
            't.yaml:5:30: spec.roles[0].arkTeam: cycle detected: team "t" → "t" forms a cycle',
        ),
        (
            TEAM + "  notifyRef: {name: n}\n",
            't.yaml:13:21: spec.notifyRef.name: ArkNotify "n" not found',
        ),
    ],
)
def test_what_is_wrong_with_roles(folder, spec: str, message: str) -> None:
    assert folder.problems(team(spec) + AGENTS) == [message]


def test_teams_in_a_ring(folder) -> None:
    text = "---\n".join(
        team(f"  roles: [{{name: r, arkTeam: {other}}}]\n", name=name)
        for name, other in (("x", "y"), ("y", "z"), ("z", "x"))
    )
    assert folder.problems(text) == [
        't.yaml:17:30: spec.roles[0].arkTeam: cycle detected: team "z" → "x" forms a cycle '
        "(z → x → y → z)"
    ]


def test_a_broken_agent_is_told_once(folder) -> None:
    broken = AGENTS.replace("model: m, systemPrompt: p, cap", "modle: m, systemPrompt: p, cap")
    (told,) = folder.problems(team(FLOW, kind="Flow") + broken)
    assert 'unknown field "modle"' in told


# --- routing and lookups ------------------------------------------------------------------------

ROUTED = "  routing: {registryRef: {name: reg}, model: m, fallback: b}\n"


def test_routing(folder) -> None:
    bundle = folder.load(team(ROUTED) + REGISTRY + AGENTS)
    routed = bundle.teams["t"]
    assert (routed.mode, routed.steps, routed.roles, routed.max_depth) == ("routed", (), {}, 2)
    assert routed.routing is not None
    assert routed.routing.registry is bundle.registries["reg"]
    assert [agent.name for agent in routed.routing.registry.agents] == ["a", "b"]
    assert (routed.routing.model, routed.routing.fallback) == ("m", "b")
    assert routed.routing.strategy == "llm"
    lexical = ROUTED.replace("model: m", "strategy: lexical")
    made = folder.load(team(lexical) + REGISTRY + AGENTS).teams["t"].routing
    assert made is not None
    assert (made.strategy, made.model) == ("lexical", None)


def test_agents_of_roles_are_in_the_registry(folder) -> None:
    roles = "  roles: [{name: r, model: m, systemPrompt: p, capabilities: [{id: c}]}]\n"
    bundle = folder.load(team(roles) + REGISTRY + AGENTS)
    assert [agent.name for agent in bundle.registries["reg"].agents] == ["a", "b", "t-r"]
    assert list(bundle.agents) == ["a", "b"]


@pytest.mark.parametrize(
    ("spec", "rest", "message"),
    [
        (
            ROUTED.replace("name: reg", "name: rge"),
            REGISTRY + AGENTS,
            't.yaml:5:33: spec.routing.registryRef.name: ArkRegistry "rge" not found '
            '(did you mean "reg"?)',
        ),
        (
            ROUTED.replace("fallback: b", "fallback: bb"),
            REGISTRY + AGENTS,
            't.yaml:5:59: spec.routing.fallback: fallback: unknown ArkAgent "bb" '
            '(did you mean "b"?)',
        ),
        (
            ROUTED.replace(", fallback: b", ""),
            REGISTRY,
            "t.yaml:5:12: spec.routing: no agent has a capability, and there is no fallback",
        ),
    ],
)
def test_what_is_wrong_with_routing(folder, spec: str, rest: str, message: str) -> None:
    assert folder.problems(team(spec) + rest) == [message]


LOOKUP = """\
  pipeline:
  - {role: anybody, registryLookup: {capability: write, tags: [deep], strategy: least-busy}}
  - {role: r, dependsOn: [anybody], inputs: {prompt: "{{ .steps.anybody.output }}"}}
  roles: [{name: r, arkAgent: b}]
"""


def test_lookups(folder) -> None:
    made = folder.load(team(LOOKUP) + AGENTS).teams["t"]
    assert made.steps[0].name == "anybody"
    assert made.steps[0].role is None
    assert made.steps[0].lookup == Lookup(capability="write", tags=("deep",), strategy="least-busy")
    assert made.registry is not None
    assert [agent.name for agent in made.registry.agents] == ["a", "b"]
    assert made.max_depth == 5
    assert folder.load(team(LOOKUP) + REGISTRY + AGENTS).teams["t"].max_depth == 2


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "capability: write",
            "capability: wriet",
            "t.yaml:6:50: spec.pipeline[0].registryLookup.capability: no agent has the capability "
            '"wriet" (did you mean "write"?)',
        ),
        (
            "[deep]",
            "[deep, wide]",
            "t.yaml:6:63: spec.pipeline[0].registryLookup.tags: no agent has the capability "
            '"write" with the tags deep, wide',
        ),
        (
            "[deep]",
            "[wide], fallback: c",
            "t.yaml:6:81: spec.pipeline[0].registryLookup.fallback: fallback: unknown ArkAgent "
            '"c" (known: a, b)',
        ),
    ],
)
def test_what_is_wrong_with_lookups(folder, old: str, new: str, message: str) -> None:
    assert folder.problems(team(LOOKUP.replace(old, new)) + AGENTS) == [message]


def test_urls_of_roles_know_the_inputs(folder) -> None:
    spec = """\
  inputs: [{name: repo}]
  roles:
  - name: r
    model: m
    systemPrompt: p
    tools: [{name: t, url: "https://h/{{ .input.repo }}/{{ .input.rpo }}"}]
    mcpServers: [{name: s, url: "https://h/{{ .input.repos }}"}]
"""
    assert folder.problems(team(spec)) == [
        't.yaml:10:28: spec.roles[0].tools[0].url: .input.rpo: the team has no input "rpo" '
        '(did you mean "repo"?)',
        "t.yaml:11:33: spec.roles[0].mcpServers[0].url: .input.repos: the team has no input "
        '"repos" (did you mean "repo"?)',
    ]


def test_teams_nested_deeply(folder) -> None:
    text = "---\n".join(
        team(f"  roles: [{{name: r, arkTeam: t{number + 1}}}]\n", name=f"t{number}")
        for number in range(300)
    )
    last = team("  roles: [{name: r, arkAgent: a}]\n", name="t300")
    made = folder.load(f"{text}---\n{last}{AGENTS}").teams["t0"]
    for _ in range(300):
        made = made.roles["r"].team
    assert made.name == "t300"


def test_the_documents_are_kept(folder) -> None:
    documents = folder.load(AGENTS.replace("p}", "p, replicas: 3}")).manifests
    assert documents.of("ArkAgent")["b"].spec.replicas == 3

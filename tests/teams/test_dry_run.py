"""What a run would do: the graph, the prompts that are known, and how many calls."""

from __future__ import annotations

import os
from pathlib import Path
from textwrap import dedent

import pytest

from muster.teams.dry_run import describe_run
from muster.teams.manifests import load_manifests
from muster.teams.prompt import ENVELOPE_RULE


def described(folder: Path, spec: str, others: str = "") -> list[str]:
    path = folder / "team.yaml"
    head = "apiVersion: muster.dev/v1alpha1\nkind: Team\nmetadata: {name: t}\nspec:\n"
    path.write_text(head + spec + dedent(others))
    team = load_manifests(path, env=os.environ).teams["t"]
    return describe_run(team, dict(team.defaults)).splitlines()


def shown(lines: list[str]) -> dict[str, str]:
    """The first line of each prompt, by its step."""
    return {
        line.removeprefix("--- "): lines[number + 1]
        for number, line in enumerate(lines)
        if line.startswith("--- ")
    }


ROLES = "  roles: [{name: a, model: gpt-4o-mini, systemPrompt: x}, {name: b, target: agent}]\n"


def test_prompts_that_need_no_output_are_shown(tmp_path: Path) -> None:
    lines = described(
        tmp_path,
        ROLES
        + """\
  input: {topic: bees}
  pipeline:
    - role: a
      inputs: {prompt: "On {{ .input.topic }}"}
      outputSchema: {type: object}
    - {role: b, dependsOn: [a], inputs: {prompt: "{{ .steps.a.output }}"}}
    - {name: agree, dependsOn: [b], approval: "Fine?"}
""",
    )
    assert lines[:5] == [
        "Flow:   t",
        "Steps:  3",
        "  a                    agent=gpt-4o-mini          deps=-",
        "  b                    agent=agent                deps=[a]",
        "  agree                agent=(a person)           deps=[b]",
    ]
    assert lines[5:11] == [
        "",
        "--- a",
        "prompt: On bees",
        "",
        "Respond with valid JSON matching this schema:",
        '{"type": "object"}',
    ]
    # The prompt that is known, and twice the rule about envelopes, which agents are told.
    rule = len(ENVELOPE_RULE)
    known = (len("\n".join(lines[7:11])) + 1 + len("x\n\n") + rule) // 4 + rule // 4
    left_out = "tools, retries, items and judges of suites not counted: "
    assert lines[12].startswith(f"At most 2 calls, {left_out}")
    assert f"about {known} tokens of what is known of the prompts ($0.0000" in lines[12]
    assert lines[12].endswith("up to 16,000 tokens of answers ($0.004800). Nobody was asked.")
    assert lines[-1] == "✓ YAML is valid — use `muster run` to execute"


@pytest.mark.parametrize(
    ("spec", "others", "calls"),
    [
        ('pipeline: [{role: a, inputs: {p: x}, loop: {condition: "x", maxIterations: 4}}]', "", 5),
        (
            "pipeline: [{role: c, inputs: {prompt: x}}]",
            """\
            ---
            apiVersion: muster.dev/v1alpha1
            kind: Team
            metadata: {name: inner}
            spec:
              roles: [{name: x, model: m, systemPrompt: x}, {name: y, model: m, systemPrompt: x}]
              pipeline: [{role: x, inputs: {p: x}}, {role: y, inputs: {p: x}}]
            """,
            2,
        ),
        ("entry: a", "", 1),
        ("pipeline: [{role: a, inputs: {p: x}, validate: {semantic: good}}]", "", 2),
        ("pipeline: [{role: a, inputs: {p: x}, validate: {semantic: good, judge: b}}]", "", 2),
    ],
)
def test_calls_are_counted(tmp_path: Path, spec: str, others: str, calls: int) -> None:
    roles = ROLES.replace("}]", "}, {name: c, arkTeam: inner}]") if others else ROLES
    text = "\n".join(described(tmp_path, f"{roles}  {spec}\n", others))
    assert f"At most {calls} call{'' if calls == 1 else 's'}, " in text


def test_a_router_that_is_asked_counts(tmp_path: Path) -> None:
    others = """\
        ---
        apiVersion: muster.dev/v1alpha1
        kind: Registry
        metadata: {name: r}
        spec: {}
        ---
        apiVersion: muster.dev/v1alpha1
        kind: Agent
        metadata: {name: one}
        spec: {model: m, systemPrompt: x, capabilities: [{id: c}]}
        """
    spec = "  input: {q: why}\n  routing: {registryRef: {name: r}, model: m}\n"
    lines = described(tmp_path, spec, others)
    assert "At most 2 calls" in "\n".join(lines)
    assert lines[4:6] == ["--- route", "why"]
    lexical = spec.replace("model: m", "strategy: lexical")
    assert "At most 1 call" in "\n".join(described(tmp_path, lexical, others))


def test_prompts_of_later_steps_that_need_no_output_and_those_that_cannot_be(
    tmp_path: Path,
) -> None:
    lines = described(
        tmp_path,
        ROLES
        + """\
  input: {topic: bees}
  inputs: [{name: topic}, {name: style}]
  pipeline:
    - {role: a, inputs: {prompt: "{{ .input.style }}"}}
    - {role: b, dependsOn: [a], inputs: {prompt: "{{ .input.topic }}"}}
    - {name: c, role: a, dependsOn: [a], inputs: {prompt: "{{ toJson . }}"}}
""",
    )
    prompts = shown(lines)
    assert prompts["a"].startswith("the step would fail: template error: ")
    assert prompts["a"].endswith('.input.style: .input has no "style"; it has: topic')
    assert prompts["b"] == "prompt: bees"
    assert "c" not in prompts

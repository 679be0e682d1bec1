"""Steps in the normal form, and what their templates may ask for."""

from __future__ import annotations

import pytest

from muster.teams.definition import Artifact, Step, StepRetry
from muster.teams.manifests import load_manifests

REST = """\
---
apiVersion: muster.dev/v1alpha1
kind: Agent
metadata: {name: a}
spec: {model: m, systemPrompt: p}
"""


def team(steps: str, rest: str = "") -> str:
    """The steps begin in line 7."""
    return (
        "apiVersion: muster.dev/v1alpha1\nkind: Team\nmetadata: {name: t}\nspec:\n"
        f"  roles: [{{name: a, arkAgent: a}}]\n  pipeline:\n{steps}{rest}{REST}"
    )


def step(folder, fields: str) -> Step:
    """A step with `fields`, after a step `b`."""
    text = team(f"  - {{role: a, name: b}}\n  - {{role: a, name: s, dependsOn: [b], {fields}}}\n")
    made: Step = folder.load(text).teams["t"].steps[1]
    return made


DATA = {"steps": {"b": {"output": "B", "data": [1, 2]}}, "input": {"x": "X"}, "item": 7, "index": 0}


def test_defaults(folder) -> None:
    made = folder.load(team("  - {role: a}\n")).teams["t"].steps[0]
    assert made == Step(name="a", role="a", inputs={}, retry=StepRetry())
    assert made.place is not None
    assert str(made.place.problem("")).startswith(f"{folder.path}/t.yaml:7:5: spec.pipeline[0]")


def test_inputs_keep_their_order(folder) -> None:
    made = step(folder, 'inputs: {z: "{{ .input.x }}", a: "{{ .steps.b.output }}", m: plain}')
    assert {key: item.render(DATA) for key, item in made.inputs.items()} == {
        "z": "X",
        "a": "B",
        "m": "plain",
    }
    assert list(made.inputs) == ["z", "a", "m"]


def test_conditions(folder) -> None:
    made = step(folder, "if: '{{ eq .input.x \"X\" }}'")
    assert made.condition is not None
    assert made.condition.render(DATA) == "true"


@pytest.mark.parametrize(
    ("loop", "further"),
    [("", 10), (", maxIterations: 3", 3), (", maxExecutions: 3", 2), (", maxExecutions: 1", 0)],
)
def test_loops(folder, loop: str, further: int) -> None:
    made = step(folder, "loop: {condition: '{{ .steps.s.output }}'" + loop + "}")
    assert made.loop is not None
    assert made.loop.max_iterations == further


def test_for_each(folder) -> None:
    long = step(
        folder,
        "forEach: {items: '{{ .steps.b.data }}', as: topic, maxParallel: 2, onFailure: continue}, "
        "inputs: {p: '{{ .topic }} {{ .index }}'}",
    ).for_each
    assert long is not None
    assert (long.variable, long.max_parallel, long.on_failure) == ("topic", 2, "continue")
    assert long.items.evaluate(DATA) == [1, 2]
    short = step(folder, "forEach: '{{ .steps.b.data }}', maxParallel: 3, inputs: {p: '{{.item}}'}")
    assert short.for_each is not None
    assert (short.for_each.variable, short.for_each.max_parallel) == ("item", 3)
    assert short.for_each.on_failure == "fail"


def test_approvals(folder) -> None:
    text = team(
        "  - {role: a}\n"
        "  - {name: ok, dependsOn: [a], approval: 'Send {{ .steps.a.output }}?'}\n"
        "  - {name: sure, dependsOn: [ok], approval: {message: Sure?, timeoutSeconds: 5, "
        "onTimeout: approve}}\n"
    )
    _, short, long = folder.load(text).teams["t"].steps
    assert (short.name, short.role) == ("ok", None)
    assert short.approval.message.render({"steps": {"a": {"output": "it"}}}) == "Send it?"
    assert (short.approval.timeout_seconds, short.approval.on_timeout) == (None, "reject")
    assert (long.approval.timeout_seconds, long.approval.on_timeout) == (5, "approve")


def test_bounds(folder) -> None:
    made = step(folder, "timeoutSeconds: 1.5, maxTokens: 10, budgetUsd: 0.25")
    assert (made.timeout_seconds, made.max_tokens, made.max_cost_usd) == (1.5, 10, 0.25)


def test_retries(folder) -> None:
    assert step(folder, "retry: 3").retry == StepRetry(max_retries=3)
    full = "retry: {maxRetries: 2, initialDelaySeconds: 0, maxDelaySeconds: 4, backoffFactor: 1}"
    assert step(folder, full).retry == StepRetry(
        max_retries=2, initial_delay=0, max_delay=4, backoff_factor=1
    )


def test_artifacts(folder) -> None:
    made = step(folder, "artifacts: [a.txt, {name: b.csv, description: Rows.}]")
    assert made.artifacts == (Artifact(name="a.txt"), Artifact(name="b.csv", description="Rows."))


def test_schemas_as_text_and_as_they_are(folder) -> None:
    schema = {"type": "object", "required": ["n"]}
    text = 'outputSchema: \'{"type": "object", "required": ["n"]}\''
    assert step(folder, text).output_schema == schema
    assert step(folder, "outputSchema: {type: object, required: [n]}").output_schema == schema


def test_validation(folder) -> None:
    folder.write("gate.eval.yaml", "tests: []\n")
    made = step(
        folder,
        r"validate: {rejectPatterns: ['(?i)ignore\s+all', 'end\z'], contains: '^\{', "
        'schema: \'{"type": "object"}\', semantic: Is it good?, judge: a, '
        "suite: gate.eval.yaml, onFailure: retry, maxRetries: 4}",
    ).validation
    assert made is not None
    assert made.reject_patterns == (r"(?i)ignore\s+all", r"end\Z")
    assert (made.contains, made.schema) == (r"^\{", {"type": "object"})
    assert (made.semantic, made.judge) == ("Is it good?", "a")
    assert made.suite == folder.path / "gate.eval.yaml"
    assert (made.on_failure, made.max_retries) == ("retry", 4)


def test_references_within_a_schema(folder) -> None:
    schema = (
        "{$id: 'https://example.com/s.json', $defs: {n: {$anchor: here, type: object}}, "
        "properties: {a: {$ref: '#/$defs/n'}, b: {$ref: '#here'}, c: {$ref: '#'}}}"
    )
    assert step(folder, f"outputSchema: {schema}").output_schema is not None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("outputSchema: '{'", "outputSchema: not JSON: Expecting property name"),
        ("outputSchema: '3'", "outputSchema: expected a JSON Schema, which is an object"),
        (
            "outputSchema: {type: objekt}",
            "outputSchema: not a JSON Schema: type: 'objekt' is not valid",
        ),
        (
            "outputSchema: {properties: {a: {$ref: 'http://169.254.169.254/x'}}}",
            'outputSchema: "http://169.254.169.254/x": a schema can refer to its own parts only',
        ),
        (
            "outputSchema: {properties: {a: {$ref: '#/$defs/a'}}}",
            'outputSchema: "#/$defs/a" refers to no part of the schema',
        ),
        ("validate: {schema: '{\"type\": 1}'}", "validate.schema: not a JSON Schema: type: 1"),
        ("validate: {contains: '('}", "validate.contains: not a pattern: missing )"),
        (
            "validate: {rejectPatterns: [fine, '[a']}",
            "validate.rejectPatterns[1]: not a pattern: unterminated character set",
        ),
        ("validate: {suite: no.yaml}", 'validate.suite: no such file: "no.yaml" (looked for'),
        ("artifacts: [../x]", 'artifacts[0]: "../x" is not the name of a file'),
        ("artifacts: [x, {name: x}]", 'artifacts[1].name: artifact "x" is given twice'),
        (
            "forEach: {items: '{{ .steps.b.data }}', as: steps}",
            'forEach.as: "steps" already means something in templates',
        ),
        ("inputs: {p: '{{ .input.x '}", "inputs.p: "),
        ("inputs: {p: '{{ nofunc .input.x }}'}", "inputs.p: "),
        ("inputs: {p: 5}", "inputs.p: expected string, found 5"),
    ],
)
def test_what_is_wrong_with_a_step(folder, fields: str, message: str) -> None:
    text = team(f"  - {{role: a, name: b}}\n  - {{role: a, name: s, dependsOn: [b], {fields}}}\n")
    (told,) = folder.problems(text)
    assert told.startswith("t.yaml:8:")
    assert told.split(" ", 1)[1].startswith(f"spec.pipeline[1].{message}")


# --- what templates may ask for -----------------------------------------------------------------

STEPS = """\
  - {role: a, name: first, artifacts: [f.txt]}
  - {role: a, name: a-b, dependsOn: [first]}
  - role: a
    name: last
    dependsOn: [a-b]
    FIELD
  - {role: a, name: beside}
"""
INPUTS = "  inputs: [{name: topic}]\n  input: {more: 1}\n"


@pytest.mark.parametrize(
    "field",
    [
        'inputs: {p: \'{{ .steps.first.output }} {{ index .steps "a-b" "output" }}\'}',
        "inputs: {p: '{{ .input.topic }}{{ .pipeline.input.topic }}{{ .input.more }}'}",
        "inputs: {p: '{{ range .steps.first.data }}{{ .anything }}{{ end }}'}",
        "inputs: {p: '{{ .steps.first.artifacts }} {{ index .steps.first.artifacts \"f.txt\" }}'}",
        "loop: {condition: '{{ .steps.last.data.again }}'}",
        "if: '{{ .steps.first.data.deep.path }}'",
    ],
)
def test_templates_that_are_good(folder, field: str) -> None:
    bundle = folder.load(team(STEPS.replace("FIELD", field), INPUTS))
    assert bundle.warnings == []


@pytest.mark.parametrize(
    ("field", "message"),
    [
        (
            "inputs: {p: '{{ .steps.frist.output }}'}",
            'inputs.p: refers to step "frist", which does not exist (did you mean "first"?)',
        ),
        (
            "inputs: {p: '{{ .steps.beside.output }}'}",
            'inputs.p: step "last" refers to "beside" but does not depend on it: '
            "add it to dependsOn",
        ),
        (
            "inputs: {p: '{{ .steps.last.output }}'}",
            'inputs.p: step "last" refers to itself, which only a step with a loop can',
        ),
        (
            "if: '{{ .steps.last.output }}'",
            'if: step "last" refers to itself, which only a step with a loop can',
        ),
        (
            "inputs: {p: '{{ .steps.first.outptu }}'}",
            'inputs.p: a step has no "outptu" (did you mean "output"?)',
        ),
        (
            "inputs: {p: '{{ index .steps.first.artifacts \"g.txt\" }}'}",
            'inputs.p: step "first" has no artifact "g.txt" (did you mean "f.txt"?)',
        ),
        (
            "inputs: {p: '{{ .input.topci }}'}",
            'inputs.p: .input.topci: the team has no input "topci" (did you mean "topic"?)',
        ),
        (
            "inputs: {p: '{{ .pipeline.input.zzz }}'}",
            'inputs.p: .pipeline.input.zzz: the team has no input "zzz" (known: more, topic)',
        ),
        (
            "inputs: {p: '{{ .pipeline.steps.first }}'}",
            "inputs.p: there is no .pipeline.steps, only .pipeline.input",
        ),
        (
            "inputs: {p: '{{ .inputs.topic }}'}",
            'inputs.p: there is no .inputs here (did you mean "input"?)',
        ),
        (
            "inputs: {p: '{{ .item }}'}",
            "inputs.p: there is no .item here (there is .input, .pipeline, .steps)",
        ),
        (
            "forEach: '{{ .item }}'",
            "forEach.items: there is no .item here (there is .input, .pipeline, .steps)",
        ),
    ],
)
def test_templates_that_ask_for_too_much(folder, field: str, message: str) -> None:
    (told,) = folder.problems(team(STEPS.replace("FIELD", field), INPUTS))
    assert told.startswith("t.yaml:12:")
    assert told.split(" ", 1)[1] == f"spec.pipeline[2].{message}"


def test_the_output_sees_all_steps(folder) -> None:
    good = team(STEPS.replace("FIELD", "retry: 0"), '  output: "{{ .steps.beside.output }}"\n')
    assert folder.load(good).teams["t"].output is not None
    assert folder.problems(good.replace("beside.output", "besides.output")) == [
        't.yaml:14:11: spec.output: refers to step "besides", which does not exist '
        '(did you mean "beside"?)'
    ]


def test_without_declared_inputs_any_may_be_asked_for(folder) -> None:
    text = team(STEPS.replace("FIELD", "inputs: {p: '{{ .input.anything }}'}"))
    assert folder.load(text).teams["t"].inputs == ()


def test_lenient_templates_are_warned_of(folder) -> None:
    steps = STEPS.replace("FIELD", "inputs: {p: '{{ .steps.beside.output }}{{ .nope }}'}")
    path = folder.write("t.yaml", team(steps))
    bundle = load_manifests(path, env={}, lenient_templates=True)
    assert [folder.short(line) for line in bundle.warnings] == [
        "t.yaml:12:17: spec.pipeline[2].inputs.p: there is no .nope here "
        "(there is .input, .pipeline, .steps)",
        't.yaml:12:17: spec.pipeline[2].inputs.p: step "last" refers to "beside" but does not '
        "depend on it: add it to dependsOn",
    ]


def test_data_compared_with_an_int_is_warned_of(folder) -> None:
    fails = """{{ with $d := .steps.b.data }}{{ if gt $d.n 2 }}x{{ end }}{{ end }}"""
    good = "{{ gt .steps.b.data.n 2.0 }} {{ eq (int .steps.b.data.n) 2 }} {{ eq .input.x 2 }}"
    good += "{{ gt (len .steps.b.data) 2 }}"
    steps = "  - {role: a, name: b}\n  - {role: a, name: s, dependsOn: [b], inputs: "
    bundle = folder.load(team(f"{steps}{{p: '{fails}', q: '{good}'}}}}\n"))
    assert [told.partition("spec.")[2] for told in bundle.warnings] == [
        "pipeline[1].inputs.p: gt of .steps.b.data.n and 2 fails: numbers of JSON are float64, as "
        "in Go; write 2.0, or int before the path"
    ]


@pytest.mark.parametrize("name", ["a\\nb", "\\e[2J", "a\\u2028b"])
def test_names_stand_on_a_line(folder, name: str) -> None:
    (told,) = folder.problems(team(f'  - {{name: "{name}", role: a}}\n'))
    assert "spec.pipeline[0].name: a name holds no control characters, found " in told

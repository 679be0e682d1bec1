"""Files of AgentV 4 and 5 and of promptfoo, run as they are."""

from __future__ import annotations

from muster_project import Project

V4_TARGETS = """
$schema: agentv-targets-v2.2
targets:
  - name: default
    use_target: echo-cli
  - name: echo-cli
    provider: cli
    grader_target: judge
    command: printf '{{"text":"the answer is %s"}}' {EVAL_ID} > {OUTPUT_FILE}
    maxRetries: 0
  - name: judge
    provider: mock
    response: '{"score": 1}'
"""

V4_SUITE = """
$schema: agentv-eval-v2
name: v4-suite
description: As version 4 writes it.
tags: [smoke]
execution:
  targets: [default, judge]
  workers: 2
  trials: {count: 2, strategy: mean}
  threshold: 0.5
evalcases:
  - id: one
    criteria: Says which case it is.
    input:
      - role: user
        content:
          - {type: text, value: Which?}
    expected_output:
      - {role: assistant, content: the answer is one}
    assert:
      - {type: starts_with, value: the answer}
      - {type: contains, value: one, required: true}
  - id: two
    input: Which?
    execution: {target: default}
    assertions:
      - {type: equals, value: the answer is two}
"""


def test_agentv_4(project: Project) -> None:
    project.write(".agentv/targets.yaml", V4_TARGETS)
    project.write("evals/v4.eval.yaml", V4_SUITE)
    ended = project.eval("evals")
    assert ended.code == 1, ended.text
    found = {
        (row["test_id"], row["target"], row.get("repeat", 0)): row["execution_status"]
        for row in project.rows()
    }
    assert found == {
        **{("one", "default", repeat): "ok" for repeat in (0, 1)},
        **{("one", "judge", repeat): "quality_failure" for repeat in (0, 1)},
        **{("two", "default", repeat): "ok" for repeat in (0, 1)},
    }
    warnings = [line for line in ended.err.splitlines() if line.startswith("warning: ")]
    assert any("evalcases" in line and "tests" in line for line in warnings)
    assert any("maxRetries" in line and "max_retries" in line for line in warnings)
    assert len(warnings) == len(set(warnings))


V5_CONFIG = """
providers:
  - id: mock
    label: fast
    config:
      replies: [{contains: Dutch, text: "Hallo {{ env.NAME }}"}]
      default: Hello
  - id: cli
    label: agent
    config:
      command: [sh, -c, 'printf "Hallo %s" "$2" > "$1"', sh, "{OUTPUT_FILE}", "{EVAL_ID}"]
      timeout_seconds: 10
defaults:
  provider: fast
"""

V5_SUITE = """
name: v5-suite
providers: [fast, agent]
prompts:
  - id: translate
    raw: "Say {{ text }} in {{ vars.language }}"
default_test:
  vars: {language: Dutch}
  threshold: 1
evaluate_options: {max_concurrency: 2, repeat: 1}
assert:
  - {type: not-contains, value: Bonjour}
tests:
  - id: hello
    vars: {text: hello}
    assert: [{type: icontains, value: hallo}]
  - id: english
    provider: fast
    vars: {text: hello, language: English}
    assert: [{type: equals, value: Hello, metric: exact}]
"""


def test_agentv_5(project: Project) -> None:
    project.write(".agentv/config.yaml", V5_CONFIG)
    project.write("v5.eval.yaml", V5_SUITE)
    ended = project.eval("v5.eval.yaml", env={"NAME": "Ada"})
    assert ended.code == 0, ended.text
    found = {(row["test_id"], row["target"]): row for row in project.rows()}
    assert {key: row["output"] for key, row in found.items()} == {
        ("hello", "fast"): "Hallo Ada",
        ("hello", "agent"): "Hallo hello",
        ("english", "fast"): "Hello",
    }
    assert found["english", "fast"]["input"] == "Say hello in English"
    assert "exact" in [score["name"] for score in found["english", "fast"]["scores"]]


PROMPTFOO = """
description: Capitals
prompts: [file://prompts/*.txt]
providers:
  - echo
  - id: exec:echo Surely
    label: script
defaultTest:
  assert:
    - $ref: '#/assertionTemplates/quick'
assertionTemplates:
  quick: {type: latency, threshold: 5000}
evaluateOptions: {maxConcurrency: 2}
tests:
  - vars: {country: France, capital: [Paris, Lutetia]}
    assert:
      - {type: icontains, value: '{{capital}}'}
  - file://more.csv
"""


def test_promptfoo(project: Project) -> None:
    project.write("promptfooconfig.yaml", PROMPTFOO)
    project.write("prompts/one.txt", "Is {{capital}} the capital of {{country}}?\n")
    project.write("more.csv", "country,capital,__expected\nItaly,Rome,contains: Rom\nPeru,Lima,x\n")
    ended = project.eval("promptfooconfig.yaml")
    assert ended.code == 1, ended.text
    found = sorted(
        (row["target"], row["output"], row["execution_status"]) for row in project.rows()
    )
    asked = {
        "Is Lima the capital of Peru?": "quality_failure",
        "Is Lutetia the capital of France?": "ok",
        "Is Paris the capital of France?": "ok",
        "Is Rome the capital of Italy?": "ok",
    }
    assert found == [
        *(("echo", text, status) for text, status in asked.items()),
        *(("script", f"Surely {text}", status) for text, status in asked.items()),
    ]


def test_what_would_change_a_result_is_refused(project: Project) -> None:
    project.write(
        "promptfooconfig.yaml",
        PROMPTFOO.replace("{type: icontains,", "{type: moderation,"),
    )
    project.write("prompts/one.txt", "Is {{capital}} the capital of {{country}}?\n")
    project.write("more.csv", "country,capital\nItaly,Rome\n")
    ended = project.eval("promptfooconfig.yaml")
    assert ended.code == 2
    where = ended.err.replace(f"{project.root}/", "")
    assert where.startswith("error: promptfooconfig.yaml:16:16: tests[0].assert[0].type: ")
    assert "moderation" in where


def test_data_sets_of_every_kind_in_one_suite(project: Project) -> None:
    project.write(".muster/targets.yaml", "targets: [{name: default, provider: echo}]\n")
    project.write("cases/folder/case.yaml", "input: folder\n")
    project.write("rows.jsonl", '{"id": "row", "input": "jsonl"}\n\n{"id": "row2", "input": "x"}\n')
    project.write("rows.csv", "input,__id,__expected\ncsv,cell,starts-with: c\n")
    project.write("list.json", '[{"id": "item", "input": "json"}]')
    project.write(
        "made.py",
        "def tests():\n    for n in range(2):\n        yield {'id': f'made-{n}', 'input': 'py'}\n",
    )
    project.write(
        "all.eval.yaml",
        """
        assertions: [{type: regex, value: .}]
        tests:
          - {id: inline, input: yaml}
          - file://rows.jsonl
          - rows.csv
          - list.json
          - cases
          - made.py:tests
        """,
    )
    assert project.eval("all.eval.yaml").code == 0
    assert {name: row["output"] for name, row in project.by_id().items()} == {
        "inline": "yaml",
        "row": "jsonl",
        "row2": "x",
        "cell": "csv",
        "item": "json",
        "folder": "folder",
        "made-0": "py",
        "made-1": "py",
    }

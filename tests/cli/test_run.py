"""`muster run` as it is called: what it prints, and what it ends with."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from muster_project import Project

MASKED = "**********"

QUICK = """
apiVersion: arkonis.dev/v1alpha1
kind: ArkAgent
metadata: {name: helper}
spec: {model: mock, systemPrompt: Help.}
---
apiVersion: arkonis.dev/v1alpha1
kind: ArkFlow
metadata: {name: research-and-summarize}
spec:
  input: {topic: bees}
  steps:
  - {name: research, arkAgent: helper, inputs: {prompt: "About {{ .pipeline.input.topic }}"}}
  - name: summarize
    arkAgent: helper
    dependsOn: [research]
    inputs: {prompt: "Sum up {{ .steps.research.output }}"}
  output: "{{ .steps.summarize.output }}"
"""


@pytest.fixture
def team(project: Project) -> Project:
    project.write("team.yaml", QUICK)
    return project


def scripted(project: Project, *replies: str) -> None:
    project.write("script.yaml", "replies:\n" + "".join(f"- {{{reply}}}\n" for reply in replies))


def no_time(text: str) -> str:
    return re.sub(r"\d+\.\d+s", "0.0s", text)


# --- what is printed ----------------------------------------------------------------------------


def two_answers(project: Project) -> None:
    scripted(
        project,
        "contains: About, text: Bees dance., usage: {input: 18, output: 3}",
        'contains: Sum, text: "They dance.\\nA lot.", usage: {input: 20, output: 3}',
    )


def test_the_lines_of_a_run_that_is_watched(team: Project) -> None:
    two_answers(team)
    ended = team.run("run", "team.yaml", "--script", "script.yaml", "--watch")
    assert ended.code == 0, ended.text
    assert no_time(ended.out) == (
        "  research             [running]\n"
        "  research             [done]    21 tokens  0.0s\n"
        "    └─ Bees dance.\n"
        "  summarize            [running]\n"
        "  summarize            [done]    23 tokens  0.0s\n"
        "    └─ They dance. A lot.\n"
        "\n"
        "Flow Succeeded in 0.0s — total: 44 tokens\n"
        "\n"
        "Output:\n"
        "They dance.\nA lot.\n"
    )
    assert ended.err == ""
    quiet = team.run("run", "team.yaml", "--script", "script.yaml")
    assert no_time(quiet.out) == no_time(ended.out)[ended.out.index("\nFlow") :]


def test_json(team: Project) -> None:
    two_answers(team)
    ended = team.run("run", "team.yaml", "--script", "script.yaml", "--watch", "--output", "json")
    assert ended.code == 0
    told = ended.json()
    assert isinstance(told.pop("duration_ms"), int)
    assert re.fullmatch(r"research-and-summarize-[a-z0-9]{6}", told.pop("run"))
    assert told == {
        "team": "research-and-summarize",
        "status": "Succeeded",
        "reason": "Succeeded",
        "total_tokens": 44,
        "token_usage": {"input": 38, "output": 6},
        "cost_usd": None,
        "calls_without_usage": 0,
        "calls_without_cost": 2,
        "steps": [
            {"name": "research", "status": "Succeeded", "tokens": 21, "output": "Bees dance.",
             "agent": "helper"},
            {"name": "summarize", "status": "Succeeded", "tokens": 23,
             "output": "They dance.\nA lot.", "agent": "helper"},
        ],
        "output": "They dance.\nA lot.",
    }  # fmt: skip
    assert ended.out.startswith('{\n  "')


def test_a_failure_says_why(team: Project) -> None:
    scripted(
        team,
        "contains: About, text: ok, usage: {input: 1, output: 1}",
        "contains: Sum, error: {kind: bad_request, message: no such model}",
    )
    ended = team.run("run", "team.yaml", "--script", "script.yaml", "--watch")
    assert ended.code == 1
    assert "  summarize            [failed]  no such model\n" in ended.out
    assert "Flow Failed in" in ended.out
    assert "total: 2 tokens" in ended.out
    assert 'reason: StepFailed\nerror:  step "summarize": no such model\n' in ended.out
    told = team.run("run", "team.yaml", "--script", "script.yaml", "--output", "json")
    assert told.code == 1
    shown = told.json()
    assert (shown["status"], shown["reason"]) == ("Failed", "StepFailed")
    assert shown["error"] == 'step "summarize": no such model'
    assert "output" not in shown
    assert shown["steps"][1] == {
        "name": "summarize",
        "status": "Failed",
        "tokens": 0,
        "agent": "helper",
        "error": "no such model",
        "error_kind": "bad_request",
    }


def test_output_into_a_file_and_the_trace(team: Project) -> None:
    two_answers(team)
    ended = team.run(
        "run", str(team.root / "team.yaml"), "--script", "script.yaml", "--output", "out.txt",
        "--trace",
    )  # fmt: skip
    assert ended.code == 0, ended.text
    assert (team.root / "out.txt").read_text() == "They dance.\nA lot."
    assert "├─ research  succeeded" in ended.out
    assert "└─ summarize  succeeded" in ended.out


def test_a_team_in_another_folder_has_its_own_journal(team: Project, tmp_path: Path) -> None:
    two_answers(team)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    ended = team.run(
        "run", str(team.root / "team.yaml"), "--script", str(team.root / "script.yaml"), "--trace",
        cwd=elsewhere,
    )  # fmt: skip
    assert ended.code == 0, ended.text
    assert "research  succeeded" in ended.out
    assert (team.root / ".muster" / "runs.db").exists()
    assert list(elsewhere.iterdir()) == []


# --- what it ends with --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "reply", "code", "told"),
    [
        (("--max-tokens", "5"), "text: x", 4, "reason: BudgetExceeded"),
        (("--budget-usd", "0.5"), "text: x, cost_usd: 0.6", 4, "reason: BudgetExceeded"),
        (("--timeout", "0.3"), "text: x, delay: 60", 3, "run exceeded timeout of 0.3s"),
        ((), "error: bad_request", 1, "reason: StepFailed"),
    ],
)
def test_exit_codes(
    team: Project, options: tuple[str, ...], reply: str, code: int, told: str
) -> None:
    scripted(team, reply)
    ended = team.run("run", "team.yaml", "--script", "script.yaml", *options)
    assert ended.code == code, ended.text
    assert told in ended.out
    assert ended.seconds < 10


# --- inputs -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "topic"),
    [
        (("--input", '{"topic": "ants"}'), "ants"),
        (("--input", "topic=ants=x"), "ants=x"),
        (("--input", "@in.json"), "file ants"),
        (("--input", '{"topic": "ants"}', "-i", "topic=wasps"), "wasps"),
        ((), "bees"),
    ],
)
def test_inputs(team: Project, given: tuple[str, ...], topic: str) -> None:
    team.write("in.json", '{"topic": "file ants"}')
    ended = team.run("run", "team.yaml", "--dry-run", *given)
    assert ended.code == 0, ended.text
    assert f"prompt: About {topic}\n" in ended.out


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("[1, 2]", "--input [1, 2]: expected a JSON object, found a list"),
        ("{nope", "not JSON"),
        ("nope", "expected JSON, KEY=VALUE or @FILE"),
        ("@nope.json", "--input @nope.json: No such file or directory"),
    ],
)
def test_wrong_inputs(team: Project, given: str, told: str) -> None:
    ended = team.run("run", "team.yaml", "--mock", "--input", given)
    assert ended.code == 2
    assert told in ended.err
    assert ended.out == ""


# --- which team ---------------------------------------------------------------------------------


def test_a_team_that_is_not_there(team: Project) -> None:
    ended = team.run("run", "team.yaml", "--mock", "--flow", "zz")
    assert ended.code == 2
    assert 'flow "zz" not found; available: [research-and-summarize]' in ended.err


def test_of_several_the_first_is_run(team: Project) -> None:
    second = QUICK[QUICK.index("---") :].replace("research-and-summarize", "second")
    team.write("team.yaml", QUICK + second)
    ended = team.run("run", "team.yaml", "--mock")
    assert ended.code == 0
    assert (
        "warning: 2 flows found [research-and-summarize second] — running "
        '"research-and-summarize" (use --flow <name> to pick)' in ended.err
    )
    picked = team.run("run", "team.yaml", "--mock", "--team", "second", "--output", "json")
    assert picked.json()["team"] == "second"
    assert picked.err == ""


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("dependsOn: [research]", "dependsOn: [summarize]", "cycle detected"),
        ("arkAgent: helper\n", "arkAgent: helpr\n", 'unknown ArkAgent "helpr"'),
        (".steps.research.output", ".steps.reserch.output", 'step "reserch", which does not'),
        ("kind: ArkFlow", "kind: ArkFlow\nkindd: x", "kindd"),
        ("model: mock", "modle: mock", "modle"),
        ("spec:\n", "spec:\n  timeoutSeconds: -1\n", "timeoutSeconds"),
        ("metadata: {name: helper}", "metadata: {name: {{ .Values.name }}}", "Helm"),
    ],
)
def test_an_invalid_team_asks_nobody(team: Project, old: str, new: str, told: str) -> None:
    assert old in QUICK
    team.write("team.yaml", QUICK.replace(old, new))
    ended = team.run("run", "team.yaml", "--mock", "--watch")
    assert ended.code == 2, ended.text
    assert told in ended.err
    assert "team.yaml:" in ended.err
    assert ended.out == ""
    assert not (team.root / ".muster" / "runs.db").exists()


def test_files_that_are_not_there(team: Project) -> None:
    assert team.run("run").code == 2
    ended = team.run("run", "nofile.yaml")
    assert ended.code == 2
    assert "nofile.yaml" in ended.err
    assert team.run("run", "--resume", "latest").code == 2
    assert not (team.root / ".muster" / "runs.db").exists()


# --- who answers --------------------------------------------------------------------------------

MINE = """
    import muster
    from muster.provider import ProviderRequest, ProviderResponse

    @muster.register("myprovider")
    class Mine:
        def __init__(self, target):
            pass

        async def invoke(self, request: ProviderRequest) -> ProviderResponse:
            return ProviderResponse(f"mine: {request.question.strip()}")
"""


def test_a_provider_of_the_projects_own(team: Project) -> None:
    team.write(".muster/providers/mine.py", MINE)
    env = {"AGENT_PROVIDER": "myprovider"}
    ended = team.run("run", "team.yaml", "--watch", env=env)
    assert ended.code == 0, ended.text
    assert "    └─ mine: prompt: About bees\n" in ended.out
    by_option = team.run("run", "team.yaml", "--provider", "myprovider", "--output", "json")
    assert by_option.json()["steps"][0]["output"] == "mine: prompt: About bees"


def test_a_provider_that_nobody_has(team: Project) -> None:
    ended = team.run("run", "team.yaml", env={"AGENT_PROVIDER": "myprovider"})
    assert ended.code == 2
    assert 'unknown provider "myprovider"' in ended.err


TARGETS = """
targets:
- {name: shell, provider: cli, command: "echo shell says {PROMPT}"}
"""


def test_a_target_answers_for_all(team: Project) -> None:
    team.write(".muster/targets.yaml", TARGETS)
    ended = team.run("run", "team.yaml", "--target", "shell", "--output", "json")
    assert ended.code == 0, ended.text
    assert ended.json()["steps"][0]["output"].startswith("shell says")
    assert "About bees" in ended.json()["steps"][0]["output"]
    ended = team.run("run", "team.yaml", "--target", "shel")
    assert ended.code == 2
    assert 'target "shel" not found' in ended.err


def test_a_target_as_a_role(team: Project) -> None:
    team.write(".muster/targets.yaml", TARGETS)
    other = QUICK.replace("---\n", "---\n" + QUICK[: QUICK.index("---")].strip()
                          .replace("helper", "tool").replace("model: mock", "target: shell")
                          + "\n---\n", 1)  # fmt: skip
    team.write("team.yaml", other.replace("name: summarize\n    arkAgent: helper",
                                          "name: summarize\n    arkAgent: tool"))  # fmt: skip
    ended = team.run("run", "team.yaml", "--output", "json")
    assert ended.code == 0, ended.text
    said = [step["output"] for step in ended.json()["steps"]]
    assert said[0] == "mock response"
    assert said[1].startswith("shell says")
    told = ended.json()
    assert (told["calls_without_usage"], told["total_tokens"]) == (1, told["steps"][0]["tokens"])


PRICED = """
- name: priced
  provider: mock
  replies: [{text: Short., usage: {input: 20, output: 3}, cost_usd: 0.5}]
"""


def test_totals_say_what_they_do_not_count(team: Project) -> None:
    """A command tells neither tokens nor cost."""
    team.write(".muster/targets.yaml", TARGETS + PRICED)
    team.write("team.yaml", """
apiVersion: muster.dev/v1alpha1
kind: Team
metadata: {name: mixed}
spec:
  roles:
    - {name: research, model: m, target: shell, systemPrompt: Find.}
    - {name: summarize, model: m, target: priced, systemPrompt: Sum up.}
  pipeline:
    - {role: research, inputs: {prompt: bees}}
    - {role: summarize, dependsOn: [research], inputs: {prompt: more}}
""")  # fmt: skip
    ended = team.run("run", "team.yaml", "--watch")
    assert ended.code == 0, ended.text
    told = no_time(ended.out).splitlines()
    assert "  research             [done]    unknown tokens  0.0s" in told
    assert told[told.index("Flow Succeeded in 0.0s — total: 23+ tokens, $0.5") + 1 :][:2] == [
        "  1 call told no usage",
        "  the cost of 1 call is not known, and not in the total",
    ]
    assert "total: 23+ tokens" in team.run("runs", "watch", "latest").out


# --- secrets ------------------------------------------------------------------------------------


def test_secrets_are_nowhere(team: Project) -> None:
    secret = "sk-this-is-very-secret"
    team.write(".muster/providers/mine.py", MINE)
    env = {"AGENT_PROVIDER": "myprovider", "SOME_API_KEY": secret}
    more = ("--input", f"topic={secret}", "--output", "out.txt", "--watch", "--trace")
    ended = team.run("run", "team.yaml", *more, env=env)
    assert ended.code == 0, ended.text
    told = team.run("run", "team.yaml", "--input", f"topic={secret}", "--output", "json", env=env)
    assert MASKED in told.json()["output"]
    found: list[Any] = [ended.text, told.text, (team.root / "out.txt").read_text()]
    found += [path.read_bytes().decode(errors="replace")
              for path in (team.root / ".muster").glob("runs.db*")]  # fmt: skip
    assert all("very-secret" not in text for text in found)
    assert f"About {MASKED}" in ended.out
    assert json.loads(told.out)["status"] == "Succeeded"

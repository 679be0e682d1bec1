"""`init`, `validate`, `targets`, `providers` and `schema`."""

from __future__ import annotations

import json

import jsonschema
import pytest
import yaml
from muster_project import Project

from muster.cli.main import cli, main

TARGETS = """
targets:
  - {name: default, provider: echo, description: says it again}
  - name: scripted
    provider: mock
    judge_target: default
    replies: [{text: ready, usage: {input: 5, output: 1}, cost_usd: 0.002}]
  - {name: down, provider: mock, max_retries: 0, replies: [{error: provider_unavailable}]}
  - {name: other, use_target: scripted, workers: 3, fallback_targets: [down]}
  - {name: lacking, provider: openai, model: m, api_key: "${{ SHOP_KEY }}"}
"""

SUITE = "target: default\ntests: [{id: a, input: q, assertions: [{type: contains, value: q}]}]\n"


# --- init -----------------------------------------------------------------------------------------


def test_init_makes_a_project_that_runs_at_once(project: Project) -> None:
    made = project.run("init", "shop")
    assert made.code == 0
    shop = project.root / "shop"
    assert made.out.splitlines()[-1] == "Now: cd shop && muster eval evals"
    assert (shop / ".gitignore").read_text() == (
        ".muster/results/\n.muster/runs.db*\n.muster/events.*\n.env\n"
    )
    ended = project.run("eval", "evals", "--json", cwd=shop)
    assert ended.code == 0, ended.text
    totals = ended.json()["totals"]
    assert totals["passed"] == totals["results"] == 3
    assert project.run("validate", cwd=shop).code == 0
    assert project.run("targets", "check", cwd=shop).code == 0


def test_init_keeps_what_is_there(project: Project) -> None:
    project.write("shop/agent.py", "mine = True\n")
    project.write("shop/.gitignore", "*.log\n.env\n")
    refused = project.run("init", "shop")
    assert refused.code == 2
    assert refused.err == (
        "error: already there: shop/agent.py; nothing was written (--force does)\n"
    )
    assert sorted(path.name for path in (project.root / "shop").rglob("*")) == [
        ".gitignore",
        "agent.py",
    ]
    assert project.run("init", "shop", "--force").code == 0
    assert "mine" not in (project.root / "shop" / "agent.py").read_text()
    ignored = (project.root / "shop" / ".gitignore").read_text()
    assert ignored == "*.log\n.env\n.muster/results/\n.muster/runs.db*\n.muster/events.*\n"


def test_init_where_no_folder_can_be(project: Project) -> None:
    project.write("file", "")
    ended = project.run("init", "file/shop")
    assert ended.code == 2
    assert ended.err.startswith("error: file/shop")
    assert "Not a directory" in ended.err


# --- validate -------------------------------------------------------------------------------------


def test_validate(project: Project) -> None:
    project.write(".muster/targets.yaml", TARGETS)
    project.write("good.eval.yaml", SUITE)
    project.write("sub/bad.eval.yaml", SUITE.replace("contains", "contians"))
    project.write("sub/lost.eval.yaml", SUITE.replace("default", "defualt"))
    good = project.run("validate", "good.eval.yaml")
    assert (good.code, good.err) == (0, "")
    assert good.out == f"ok  {project.root}/good.eval.yaml: 1 case on default\n"
    ended = project.run("validate")
    assert ended.code == 2
    assert ended.out == good.out
    told = ended.err.replace(f"{project.root}/", "").splitlines()
    assert len(told) == 3
    assert told[0].startswith("sub/bad.eval.yaml:2:47: tests[0].assertions[0].type: unknown grader")
    assert told[1].startswith('target "defualt" not found in .muster/targets.yaml (near: default;')
    assert told[2].startswith(".muster/targets.yaml:9:58: targets[4].api_key: target ")
    assert not (project.root / ".muster" / "results").exists()
    fine = project.run("validate", "good.eval.yaml", ".muster/targets.yaml", env={"SHOP_KEY": "k"})
    assert fine.code == 0
    assert fine.out.splitlines()[1].endswith("default, scripted, down, other, lacking")


def test_validate_counts_warnings(project: Project) -> None:
    project.write(".muster/targets.yaml", "targets: [{name: default, provider: echo}]\n")
    project.write("old.eval.yaml", SUITE.replace("tests:", "evalcases:"))
    assert project.run("validate", "--max-warnings", "1").code == 0
    ended = project.run("validate", "--max-warnings", "0")
    assert ended.code == 2
    assert "evalcases" in ended.err


def test_validate_with_nothing_to_do(project: Project) -> None:
    ended = project.run("validate")
    assert ended.code == 2
    assert ended.err.startswith("error: nothing to check")


# --- targets --------------------------------------------------------------------------------------


def test_targets_list(project: Project) -> None:
    project.write(".muster/targets.yaml", TARGETS)
    lines = project.run("targets", "list").out.splitlines()
    assert [line.split()[0] for line in lines[2:7]] == [
        "default",
        "scripted",
        "down",
        "other",
        "lacking",
    ]
    assert lines[-1] == str(project.root / ".muster" / "targets.yaml")
    shown = project.run("targets", "list", "--json").json()
    assert shown["targets"][:2] == [
        {"name": "default", "provider": "echo", "judge_target": None, "note": "says it again"},
        {"name": "scripted", "provider": "mock", "judge_target": "default", "note": ""},
    ]
    assert shown["targets"][3]["note"] == "uses scripted"
    project.write("empty/.muster/targets.yaml", "targets: []\n")
    assert project.run("targets", "list", "--targets", "gone.yaml").code == 2


def test_targets_show(project: Project) -> None:
    project.write(".muster/targets.yaml", TARGETS)
    shown = project.run("targets", "show", "other").json()
    assert {name: shown[name] for name in shown if name != "config"} == {
        "name": "other",
        "provider": "mock",
        "judge_target": "default",
        "workers": 3,
        "fallback_targets": ["down"],
        "base_dir": str(project.root / ".muster"),
    }
    assert shown["config"]["replies"][0]["text"] == "ready"
    missing = project.run("targets", "show", "othr")
    assert missing.code == 2
    assert "(near: other;" in missing.err


def test_targets_check(project: Project) -> None:
    project.write(".muster/targets.yaml", TARGETS)
    one = project.run("targets", "check", "scripted")
    assert one.code == 0
    assert one.out.splitlines()[0].startswith("ok    scripted: ")
    assert one.out.splitlines()[0].endswith(" ms, 5 + 1 tokens, $0.002")
    assert one.out.splitlines()[1].strip() == "ready"
    ended = project.run("targets", "check", "--prompt", "are you there")
    assert ended.code == 1
    told = {line.split()[1].rstrip(":,"): line for line in ended.out.splitlines() if ": " in line}
    assert told["default"].startswith("ok ")
    assert told["down"].startswith("FAIL  down: provider_unavailable: ")
    assert "SHOP_KEY" in told["lacking"] or "SHOP_KEY" in ended.out
    assert "are you there" in ended.out


def test_targets_check_is_bounded(project: Project) -> None:
    project.write(
        ".muster/targets.yaml",
        "targets: [{name: slow, provider: cli, command: 'echo {PROMPT}; sleep 300 & wait'}]\n",
    )
    ended = project.run("targets", "check", "--timeout", "0.2")
    assert (ended.code, ended.out) == (1, "FAIL  slow: no answer within 0.2 s\n")


# --- providers and schema -------------------------------------------------------------------------


def test_providers(project: Project) -> None:
    project.write(
        ".muster/providers/own.py",
        "import muster\nmuster.register('own', lambda target: lambda text: text)\n",
    )
    project.write(".muster/providers/broken.py", "1 / 0\n")
    ended = project.run("providers")
    assert ended.code == 0
    rows = [line.split(maxsplit=2) for line in ended.out.splitlines()[2:]]
    sources = {row[0]: row[1] for row in rows}
    assert sources["own"] == "project"
    for name in ("openai", "anthropic", "cli", "http", "function", "mock", "echo", "replay"):
        assert sources[name] == "built-in"
    broken = project.root / ".muster" / "providers" / "broken.py"
    assert ended.err.startswith(f"not loaded: {broken}:1: ZeroDivisionError")
    shown = project.run("providers", "list", "--json").json()
    (own,) = [entry for entry in shown["providers"] if entry["name"] == "own"]
    assert own == {
        "name": "own",
        "source": "project",
        "location": str(project.root / ".muster" / "providers" / "own.py"),
    }
    assert len(shown["failures"]) == 1


def test_schemas_fit_what_users_write_and_get(project: Project) -> None:
    project.write(".muster/targets.yaml", TARGETS)
    project.write("a.eval.yaml", SUITE)
    assert project.eval("a.eval.yaml").code == 0
    schemas = {name: project.run("schema", name).json() for name in ("suite", "targets", "result")}
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load(SUITE), schemas["suite"])
    jsonschema.validate(yaml.safe_load(TARGETS), schemas["targets"])
    for row in project.rows():
        jsonschema.validate(row, schemas["result"])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"tests": [{"id": "a", "imput": "q"}]}, schemas["suite"])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(json.loads('{"test_id": "a"}'), schemas["result"])
    assert project.run("schema", "suites").code == 2


def test_an_interrupt_that_a_library_passes_on_is_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pydantic makes an error of its own of Ctrl-C while it builds a model."""

    def broken(**_: object) -> None:
        raise RuntimeError("SchemaError: Error building serializer:\n  KeyboardInterrupt: ")

    monkeypatch.setattr(cli, "main", broken)
    with pytest.raises(SystemExit) as ended:
        main(["run"])
    assert ended.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"

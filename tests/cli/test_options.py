"""Which cases run, on which targets, how often; and what is shown of it."""

from __future__ import annotations

import pytest
from muster_project import Project

TARGETS = """
targets:
  - {name: default, provider: echo}
  - name: capitals
    provider: mock
    replies:
      - {contains: France, text: Paris, usage: {input: 12, output: 1}, cost_usd: 0.001}
    default: {text: Rome, usage: {input: 10, output: 1}, cost_usd: 0.001}
"""

SUITE = """
name: geo
tags: [geography]
assertions: [{type: regex, value: ".+"}]
tests:
  - {id: france-1, input: France, tags: [europe, easy], metadata: {level: 1}}
  - {id: france-2, input: Paris of France, tags: [europe], metadata: {level: 2}}
  - {id: japan-1, input: Japan, tags: [asia, easy], vars: {unit: km}}
  - {id: kenya-1, input: Kenya, tags: [africa], category: south}
"""


@pytest.fixture
def geo(project: Project) -> Project:
    project.write(".muster/targets.yaml", TARGETS)
    project.write("geo.eval.yaml", SUITE)
    return project


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--tag easy --tag asia", "japan-1"),
        ("--tag geography --exclude-tag europe", "japan-1 kenya-1"),
        ("--exclude-tag europe --exclude-tag asia --filter category=south", "kenya-1"),
        ("--filter level=2", "france-2"),
        ("--filter unit=k*", "japan-1"),
        ("--filter -1$ --tag europe", "france-1"),
        ("--test-id france-* --test-id kenya-1", "france-1 france-2 kenya-1"),
        ("--limit 1 --tag asia", "japan-1"),
    ],
)
def test_selection(geo: Project, options: str, expected: str) -> None:
    ended = geo.eval("geo.eval.yaml", *options.split())
    assert ended.code == 0
    assert sorted(geo.by_id()) == expected.split()
    assert geo.record()["planned"] == len(expected.split())


def test_targets_and_repeats(geo: Project) -> None:
    options = ("--target", "capitals", "--target", "default", "--repeat", "2", "--limit", "3")
    assert geo.eval("geo.eval.yaml", *options).code == 0
    rows = geo.rows()
    keys = {(row["test_id"], row["target"], row.get("repeat", 0)) for row in rows}
    ids = ("france-1", "france-2", "japan-1")
    assert keys == {(i, t, r) for i in ids for t in ("capitals", "default") for r in (0, 1)}
    assert len(rows) == 12
    answers = {(row["target"], row["test_id"]): row["output"] for row in rows}
    assert answers["capitals", "france-1"] == "Paris"
    assert answers["default", "france-1"] == "France"
    totals = {target["target"]: target for target in geo.record()["totals"]["targets"]}
    assert list(totals) == ["capitals", "default"]
    assert totals["capitals"]["token_usage"] == {"input": 64 + 4, "output": 6}
    assert totals["capitals"]["cost_usd"] == pytest.approx(0.006)
    assert totals["default"]["cost_usd"] is None


def test_dry_run(geo: Project) -> None:
    options = ("--target", "capitals", "--target", "default", "--repeat", "3", "--tag", "easy")
    ended = geo.eval("geo.eval.yaml", *options, "--dry-run")
    assert ended.code == 0
    lines = [line.split() for line in ended.out.splitlines()]
    assert lines[0] == ["suite", "target", "provider", "cases", "results", "calls"]
    assert lines[2] == ["geo.eval.yaml", "capitals", "mock", "2", "6", "6"]
    assert lines[3] == ["geo.eval.yaml", "default", "echo", "2", "6", "6"]
    assert ended.out.endswith("12 calls, retries not counted; none was made\n")
    assert not (geo.root / ".muster" / "results").exists()

    shown = geo.eval("geo.eval.yaml", *options, "--dry-run", "--json").json()
    assert shown["calls"] == 12
    assert [job["target"] for job in shown["jobs"]] == ["capitals", "default"]
    assert shown["jobs"][0]["cases"] == 2


def test_json_is_all_of_stdout(geo: Project) -> None:
    ended = geo.eval("geo.eval.yaml", "--target", "capitals", "--json", "--quiet")
    assert (ended.code, ended.err) == (0, "")
    shown = ended.json()
    assert shown.pop("folder") == "run"
    assert shown == geo.record()
    assert shown["status"] == "complete"
    assert shown["totals"]["passed"] == 4
    (suite,) = shown["suites"]
    assert (suite["name"], suite["cases"]) == ("geo", 4)
    assert len(suite["content_hash"]) == 64


def test_quiet_and_verbose(geo: Project) -> None:
    quiet = geo.eval("geo.eval.yaml", "--quiet", "-o", "a")
    assert quiet.err == ""
    assert quiet.out.splitlines()[0].startswith("target ")
    verbose = geo.eval("geo.eval.yaml", "--verbose", "--workers", "1", "-o", "b")
    told = [line.split()[:4] for line in verbose.err.splitlines() if line.startswith("pass ")]
    ids = ("france-1", "france-2", "japan-1", "kenya-1")
    assert told == [["pass", name, "default", "1.00"] for name in ids]


def test_workers_bound_the_calls_under_way(project: Project) -> None:
    project.write(
        "agent.py",
        """
        import asyncio

        under_way = most = 0


        async def answer(question):
            global under_way, most
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0.01)
            under_way -= 1
            return str(most)
        """,
    )
    project.write(
        ".muster/targets.yaml",
        "targets: [{name: default, provider: function, function: agent:answer, workers: 5}]\n",
    )
    rows = "".join(f"  - {{id: t{n}, input: q}}\n" for n in range(20))
    project.write("a.eval.yaml", f"assertions: [{{type: regex, value: .}}]\ntests:\n{rows}")
    for workers in (3, None):
        option = ("--workers", str(workers)) if workers else ()
        project.eval("a.eval.yaml", *option, "-o", f"run-{workers}")
        outputs = {int(row["output"]) for row in project.rows(f"run-{workers}")}
        assert max(outputs) == (workers or 5)


def test_cases_that_name_their_targets(project: Project) -> None:
    project.write(".muster/targets.yaml", TARGETS)
    project.write(
        "mixed.eval.yaml",
        """
        target: default
        assertions: [{type: regex, value: .}]
        tests:
          - {id: own, input: France, targets: [capitals]}
          - {id: both, input: France, targets: [capitals, default]}
          - {id: common, input: France}
        """,
    )
    assert project.eval("mixed.eval.yaml").code == 0
    pairs = sorted((row["test_id"], row["target"]) for row in project.rows())
    assert pairs == [
        ("both", "capitals"),
        ("both", "default"),
        ("common", "default"),
        ("own", "capitals"),
    ]
    assert project.eval("mixed.eval.yaml", "--target", "default", "-o", "all").code == 0
    assert sorted(project.by_id("all")) == ["both", "common", "own"]


def test_a_case_that_names_some_of_the_suites_targets(project: Project) -> None:
    project.write(".muster/targets.yaml", TARGETS)
    project.write(
        "some.eval.yaml",
        """
        targets: [default, capitals]
        assertions: [{type: regex, value: .}]
        tests:
          - {id: one, input: France, targets: [capitals]}
          - {id: all, input: France}
        """,
    )
    assert project.eval("some.eval.yaml").code == 0
    pairs = sorted((row["test_id"], row["target"]) for row in project.rows())
    assert pairs == [("all", "capitals"), ("all", "default"), ("one", "capitals")]
    assert project.record()["planned"] == 3


def test_prompts_times_targets_times_tests(project: Project) -> None:
    project.write(".muster/targets.yaml", TARGETS)
    project.write(
        "matrix.eval.yaml",
        """
        providers: [default, capitals]
        prompts:
          - {label: short, raw: "{{ land }}?"}
          - {label: long, raw: "The capital of {{ land }}?"}
        evaluate_options: {repeat: 2}
        tests:
          - {id: f, vars: {land: France}, assert: [{type: regex, value: "Paris|France"}]}
          - {id: j, vars: {land: Japan}, prompts: [short], assert: [{type: regex, value: .}]}
        """,
    )
    assert project.eval("matrix.eval.yaml").code == 0
    rows = project.rows()
    assert len(rows) == 12
    keys = {(r["test_id"], r["prompt"], r["target"], r.get("repeat", 0)) for r in rows}
    assert len(keys) == 12
    inputs = {(row["test_id"], row["prompt"]): row["input"] for row in rows}
    assert inputs == {
        ("f", "short"): "France?",
        ("f", "long"): "The capital of France?",
        ("j", "short"): "Japan?",
    }


def test_agent_provider_is_the_default(geo: Project) -> None:
    ended = geo.eval("geo.eval.yaml", "--limit", "1", env={"AGENT_PROVIDER": "mock"})
    assert ended.code == 0
    (row,) = geo.rows()
    assert (row["target"], row["provider"]) == ("mock", "mock")
    assert row["output"] == "mock response"
    ended = geo.eval("geo.eval.yaml", "-o", "second", env={"AGENT_PROVIDER": "mokc"})
    assert ended.code == 2
    assert 'unknown provider "mokc" — did you register it? (near: mock;' in ended.err


def test_a_provider_is_a_target_too(geo: Project) -> None:
    assert (
        geo.eval("geo.eval.yaml", "--target", "exec:echo said {PROMPT}", "--limit", "1").code == 0
    )
    (row,) = geo.rows()
    assert (row["target"], row["provider"]) == ("exec:echo said {PROMPT}", "cli")
    assert row["output"] == "said France"


def test_targets_file(geo: Project) -> None:
    geo.write("other/my.yaml", "targets: [{name: default, provider: mock, response: other}]\n")
    ended = geo.eval("geo.eval.yaml", "--targets", "other/my.yaml", "--limit", "1")
    assert ended.code == 0
    assert geo.rows()[0]["output"] == "other"


def test_targets_of_the_nearest_folder(geo: Project) -> None:
    """Each suite of a run uses the targets that are nearest to it."""
    geo.write("sub/targets.yaml", "targets: [{name: default, provider: mock, response: near}]\n")
    geo.write("sub/near.eval.yaml", SUITE.replace("name: geo", "name: near"))
    assert geo.eval(".", "--limit", "1").code == 0
    rows = geo.rows()
    assert {(row["eval_path"], row["output"]) for row in rows} == {
        ("geo.eval.yaml", "France"),
        ("sub/near.eval.yaml", "near"),
    }


def test_variables_of_the_environment(project: Project) -> None:
    """The process first, then the nearest `.env`; nothing in it is run."""
    project.write(".env", "GREETING=root\nNAME=root\nEVIL=$(touch evil)\n")
    project.write("sub/.env", "GREETING=near\n")
    project.write(
        ".muster/targets.yaml",
        'targets: [{name: default, provider: mock, response: "${{ GREETING }} {{ env.NAME }} '
        '${{ EVIL }} ${{ NOBODY:-else }}"}]\n',
    )
    project.write("sub/a.eval.yaml", "tests: [{id: a, input: q, assert: [{type: is-json}]}]\n")
    project.eval("sub/a.eval.yaml", "--no-gate", env={"NAME": "process"})
    assert project.rows()[0]["output"] == "near process $(touch evil) else"


def test_where_results_go_by_default(geo: Project) -> None:
    for _ in range(2):  # within a second of each other
        ended = geo.run("eval", "geo.eval.yaml", "--limit", "1")
        assert ended.code == 0
    folders = sorted((geo.root / ".muster" / "results").iterdir())
    assert len(folders) == 2
    assert ended.out.splitlines()[-1] in [f"results: {folder}" for folder in folders]
    for folder in folders:
        assert sorted(path.name for path in folder.iterdir()) == ["results.jsonl", "run.json"]

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from eval_parts import Asked, make_case, make_suite, make_turn
from muster.errors import ConfigError, MusterError, UsageError
from muster.evals.plan import EvalOptions, Plan
from muster.evals.planning import prepare
from muster.evals.selection import Selection

TARGETS = """
targets:
  - {name: default, provider: mock}
  - {name: other, provider: echo}
  - {name: third, provider: mock, workers: 3}
"""
JUDGED = "assertions: [{type: contains, value: x}]\n"


@pytest.fixture
def files(tmp_path: Path) -> Callable[..., None]:
    def write(**texts: str) -> None:
        """`_` in names stands for `.`, `__` for `/`."""
        for name, text in texts.items():
            path = tmp_path / name.replace("__", "/").replace("_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(dedent(text))

    write(targets_yaml=TARGETS)
    return write


@pytest.fixture
def plan(tmp_path: Path) -> Callable[..., Plan]:
    """`plan("a.eval.yaml", limit=2)` prepares, with an empty environment."""

    def plan(*paths: str, environ: dict[str, str] | None = None, **options: Any) -> Plan:
        asked = EvalOptions(paths=paths or ("a.eval.yaml",), **options)
        made = prepare(asked, cwd=tmp_path, environ=environ or {})
        asyncio.run(made.aclose())
        return made

    return plan


def jobs(plan: Plan) -> list[tuple[str, str, int, int, int]]:
    return [
        (job.suite.name, job.target.name, job.cases, job.results, job.calls) for job in plan.jobs
    ]


def chosen(plan: Plan) -> dict[str, str]:
    """By target: the ids that run on it."""
    return {
        job.target.name: " ".join(case.id for case in job.suite.cases() if job.selected(case))
        for job in plan.jobs
    }


THREE = JUDGED + "tests: [{id: a, input: a}, {id: b, input: b, repeat: 3}, {id: c, input: c}]\n"


# --- counts ---------------------------------------------------------------------------------------


def test_cases_results_and_calls(files: Any, plan: Any) -> None:
    files(a_eval_yaml=THREE)
    assert jobs(plan()) == [("a", "default", 3, 5, 5)]
    assert plan().results == 5
    assert jobs(plan(repeat=2)) == [("a", "default", 3, 6, 6)]
    assert jobs(plan(limit=2)) == [("a", "default", 2, 4, 4)]
    assert jobs(plan(limit=2, repeat=2)) == [("a", "default", 2, 4, 4)]
    assert jobs(plan(limit=99)) == [("a", "default", 3, 5, 5)]
    assert jobs(plan(selection=Selection(test_ids=("[bc]",)))) == [("a", "default", 2, 4, 4)]
    assert jobs(plan(selection=Selection(test_ids=("[bc]",)), limit=1)) == [
        ("a", "default", 1, 3, 3)
    ]


def test_each_turn_is_a_call(files: Any, plan: Any) -> None:
    judged = "assertions: [{type: contains, value: x}]"
    turns = f"turns: [{{input: x, {judged}}}, {{input: y, {judged}}}]"
    files(
        a_eval_yaml=f"""
        assertions: [{{type: contains, value: x}}]
        tests:
          - {{id: a, mode: conversation, repeat: 2, {turns}}}
          - {{id: b, input: x}}
        """
    )
    assert jobs(plan()) == [("a", "default", 2, 3, 5)]
    assert jobs(plan(repeat=3)) == [("a", "default", 2, 6, 9)]


def test_several_targets_and_suites(files: Any, plan: Any) -> None:
    files(a_eval_yaml=THREE, sub__b_eval_yaml="name: B\ntargets: [other, default]\n" + THREE)
    made = plan(".")
    assert jobs(made) == [
        ("a", "default", 3, 5, 5),
        ("B", "other", 3, 5, 5),
        ("B", "default", 3, 5, 5),
    ]
    assert (made.results, made.targets) == (15, ["default", "other"])
    assert [suite.name for suite in made.suites] == ["a", "B"]
    assert [job.eval_path for job in made.jobs] == ["a.eval.yaml"] + ["sub/b.eval.yaml"] * 2
    assert jobs(plan(".", targets=("third", "other", "third")))[:2] == [
        ("a", "third", 3, 5, 5),
        ("a", "other", 3, 5, 5),
    ]


def test_prompts_are_cases() -> None:
    cases = [make_case(name, prompt=prompt) for name in "ab" for prompt in "pq"]
    options = EvalOptions(targets=("t",), limit=3)
    made = prepare(options, suites=[make_suite(*cases)], given={"t": Asked()}, environ={})
    assert jobs(made) == [("s", "t", 3, 3, 3)]


def test_a_suite_without_a_selected_case_is_not_run(files: Any, plan: Any) -> None:
    files(a_eval_yaml=THREE, b_eval_yaml=JUDGED + "tests: [{id: z, input: z}]")
    assert jobs(plan(".", selection=Selection(test_ids=("z",)))) == [("b", "default", 1, 1, 1)]


# --- targets --------------------------------------------------------------------------------------

OWN_TARGETS = """
assertions: [{type: contains, value: x}]
tests:
  - {id: a, input: a}
  - {id: b, input: b, targets: [other]}
  - {id: c, input: c, targets: [default, third]}
"""


def test_cases_with_targets_of_their_own(files: Any, plan: Any) -> None:
    files(a_eval_yaml=OWN_TARGETS)
    made = plan()
    assert chosen(made) == {"default": "a c", "other": "b", "third": "c"}
    assert [job[2:] for job in jobs(made)] == [(2, 2, 2), (1, 1, 1), (1, 1, 1)]
    assert [job[1:3] for job in jobs(plan(limit=1))] == [("default", 1), ("other", 1), ("third", 1)]


def test_the_targets_of_the_suite_are_for_the_other_cases(files: Any, plan: Any) -> None:
    files(a_eval_yaml="targets: [other]\n" + OWN_TARGETS)
    assert chosen(plan()) == {"other": "a b", "default": "c", "third": "c"}


def test_a_target_asked_for_wins(files: Any, plan: Any) -> None:
    files(a_eval_yaml="targets: [default]\n" + OWN_TARGETS)
    assert chosen(plan(targets=("other",))) == {"other": "a b c"}


def test_where_every_case_names_its_targets_no_default_is_needed(files: Any, plan: Any) -> None:
    files(targets_yaml="targets: [{name: x, provider: mock}, {name: y, provider: mock}]")
    files(a_eval_yaml=JUDGED + "tests: [{id: a, input: a, targets: [y]}]")
    assert chosen(plan()) == {"y": "a"}
    files(a_eval_yaml=THREE)
    with pytest.raises(UsageError, match=r"say --target NAME \(available: x, y\)"):
        plan()


def test_agent_provider_is_the_default(files: Any, plan: Any) -> None:
    files(a_eval_yaml=THREE)
    made = plan(environ={"AGENT_PROVIDER": "echo"})
    assert [(job.target.name, job.target.resolved.provider) for job in made.jobs] == [
        ("echo", "echo")
    ]
    assert plan(environ={"AGENT_PROVIDER": "echo"}, targets=("third",)).targets == ["third"]


def test_targets_that_the_suite_defines(files: Any, plan: Any) -> None:
    files(
        a_eval_yaml="""
        providers: [{id: "mock", label: mine, config: {response: from the suite}}, other]
        assertions: [{type: contains, value: x}]
        tests: [{id: a, input: a}]
        """,
        b_eval_yaml=THREE,
    )
    made = plan(".")
    assert [job[:2] for job in jobs(made)] == [("a", "mine"), ("a", "other"), ("b", "default")]
    mine = made.jobs[0].target.resolved
    assert (mine.provider, dict(mine.config)) == ("mock", {"response": "from the suite"})
    with pytest.raises(UsageError, match='target "mine" not found'):
        plan("b.eval.yaml", targets=("mine",))


def test_a_target_that_is_not_there(files: Any, plan: Any) -> None:
    files(a_eval_yaml=THREE)
    with pytest.raises(UsageError) as caught:
        plan(targets=("othr",))
    assert str(caught.value).startswith('target "othr" not found in ')
    assert str(caught.value).endswith("(near: other; available: default, other, third)")


def test_a_target_that_is_wrong_is_told_before_anything_is_run(files: Any, plan: Any) -> None:
    files(a_eval_yaml=THREE, targets_yaml="targets:\n  - name: default\n    provider: moc\n")
    with pytest.raises(ConfigError) as caught:
        plan()
    assert ":3:15: " in str(caught.value)
    assert 'unknown provider "moc" — did you register it? (near: mock;' in str(caught.value)


def test_a_targets_file_that_is_named(files: Any, plan: Any, tmp_path: Path) -> None:
    files(a_eval_yaml=THREE, more_yaml="targets: [{name: default, provider: echo}]")
    made = plan(targets_file=tmp_path / "more.yaml")
    assert made.jobs[0].target.resolved.provider == "echo"


def test_workers_and_retries_that_are_asked_for_are_the_targets(files: Any, plan: Any) -> None:
    files(a_eval_yaml=THREE)
    resolved = plan(targets=("third",), workers=7, max_retries=4).jobs[0].target.resolved
    assert (resolved.workers, resolved.retry.max_retries) == (7, 4)


def test_suites_of_one_project_share_their_providers(files: Any, plan: Any) -> None:
    files(a_eval_yaml=THREE, b_eval_yaml=THREE)
    made = plan(".")
    assert len(made.workspaces) == 1
    assert made.jobs[0].target is made.jobs[1].target


# --- nothing to run, nothing asked ----------------------------------------------------------------


def test_no_test_is_selected(files: Any, plan: Any) -> None:
    files(a_eval_yaml=THREE)
    with pytest.raises(UsageError) as caught:
        plan(selection=Selection(tags=("x",), test_ids=("q*",)))
    assert str(caught.value) == 'no test matches --tag "x" --test-id "q*"'


def test_nothing_is_left_of_the_suite(files: Any, plan: Any) -> None:
    files(a_eval_yaml="tests: [{id: a, input: a}]")
    with pytest.raises(UsageError) as caught:
        plan(skip_invalid=True)
    head, *left_out = str(caught.value).split("\n")
    assert head == "the suites have no tests that can be run; left out:"
    assert len(left_out) == 1
    assert "a.eval.yaml:1:9" in left_out[0]


def test_tests_left_out_are_named_in_the_plan(files: Any, plan: Any) -> None:
    judged = "assertions: [{type: contains, value: x}]"
    files(a_eval_yaml=f"tests: [{{id: a, input: a, {judged}}}, {{id: b, input: b}}]")
    with pytest.raises(ConfigError):
        plan()
    made = plan(skip_invalid=True)
    assert jobs(made) == [("a", "default", 1, 1, 1)]
    assert len(made.skipped) == 1
    assert "tests[1]: b: has nothing that judges the answer" in made.skipped[0]


def test_nothing_is_asked_of_providers_and_all_are_closed() -> None:
    class Closing(Asked):
        closed = 0

        async def aclose(self) -> None:
            self.closed += 1

    provider = Closing()
    suite = make_suite(make_case("a", turns=(make_turn("x"), make_turn("y"))))
    made = prepare(EvalOptions(targets=("p",)), suites=[suite], given={"p": provider}, environ={})
    asyncio.run(made.aclose())
    assert jobs(made) == [("s", "p", 1, 1, 2)]
    assert made.jobs[0].target.resolved.provider == "Closing"
    # Whoever gave the object closes it.
    assert (provider.requests, provider.closed) == ([], 0)


def test_budgets(files: Any, plan: Any) -> None:
    files(a_eval_yaml=THREE, b_eval_yaml="budget_usd: 1\n" + THREE)
    assert not plan().has_budget
    assert plan(budget_usd=0.0).has_budget
    assert plan(".").has_budget


# --- warnings and refusals ------------------------------------------------------------------------


def test_each_warning_is_told_once(files: Any, plan: Any) -> None:
    old = "targets: [{name: default, provider: mock, requestsPerMinute: 600}]"
    suite = (
        JUDGED
        + "tests: [{id: a, input: a, expectedOutput: x}, {id: b, input: b, expectedOutput: x}]"
    )
    files(targets_yaml=old, a_eval_yaml=suite, b_eval_yaml=suite)
    warnings = plan(".").warnings
    assert len(warnings) == len(set(warnings))
    assert sum("requestsPerMinute" in line for line in warnings) == 1
    assert sum("expectedOutput" in line and "a.eval.yaml" in line for line in warnings) == 1


def test_project_code_that_fails_is_a_warning(files: Any, plan: Any) -> None:
    files(a_eval_yaml=THREE)
    files(_muster__providers__bad_py="raise ValueError('oh')\n")
    warnings = plan().warnings
    assert len(warnings) == 1
    assert warnings[0].endswith("bad.py:1: ValueError: oh")


CODE = "import muster\nraise SystemExit('was run')\n"


def test_safe_mode_loads_no_project_code_and_says_so(files: Any, plan: Any, tmp_path: Path) -> None:
    files(a_eval_yaml=THREE)
    files(_muster__providers__p_py=CODE, _muster__graders__g_py=CODE)
    folder = tmp_path / ".muster"
    assert plan(safe=True).warnings == [
        f"--safe refuses project code: {folder}/providers/p.py was not loaded",
        f"--safe refuses project code: {folder}/graders/g.py was not loaded",
    ]


@pytest.mark.parametrize(
    "target",
    [
        "{name: default, provider: function, function: 'os:getcwd'}",
        "{name: default, provider: cli, command: 'touch ran'}",
        "{name: default, provider: 'os.path:join'}",
    ],
)
def test_safe_mode_refuses_targets_that_run_code(
    files: Any, plan: Any, target: str, tmp_path: Path
) -> None:
    files(a_eval_yaml=THREE, targets_yaml=f"targets: [{target}]")
    with pytest.raises(MusterError, match="--safe refuses"):
        plan(safe=True)
    assert not (tmp_path / "ran").exists()


def test_a_bad_filter(files: Any, plan: Any) -> None:
    files(a_eval_yaml=THREE)
    with pytest.raises(UsageError, match="is not a regular expression"):
        plan(selection=Selection(filters=("(",)))

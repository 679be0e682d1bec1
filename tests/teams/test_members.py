"""Teams within teams, tasks handed on, and agents found by what they can do."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from team_parts import Ran, Said, run, run_async, says, write_team

from muster.errors import ConfigError
from muster.provider import BadRequest, ProviderRequest
from muster.store.journal import Journal, journal_path
from muster.store.records import RunRecord


def by_role(**said: Said | Callable[[ProviderRequest], Said]) -> Callable[[ProviderRequest], Said]:
    def script(request: ProviderRequest) -> Said:
        answer = said[(request.eval_case_id or "").replace("-", "_")]
        return answer(request) if callable(answer) else answer

    return script


def used(ran: Ran) -> int:
    usage = ran.outcome.token_usage
    return usage.total if usage is not None else 0


# --- a team as a role ---------------------------------------------------------------------------

INNER = """
apiVersion: muster.dev/v1alpha1
kind: Team
metadata: {name: inner}
spec:
  %s
  roles: [{name: one, arkAgent: a}, {name: two, arkAgent: b}]
  pipeline:
  - {role: one, inputs: {prompt: "{{ .input.prompt }}"}}
  - {role: two, dependsOn: [one], inputs: {prompt: go}}
"""


def nested(folder: Path, *, inner: str = "input: {prompt: none}", step: str = "") -> Path:
    spec = f"""
    roles: [{{name: first, arkAgent: a}}, {{name: sub, arkTeam: inner}}]
    pipeline:
    - {{role: first, inputs: {{prompt: x}}}}
    - {{role: sub, dependsOn: [first], inputs: {{prompt: "{{{{ .steps.first.data.v }}}}"}}{step}}}
    output: "[{{{{ .steps.sub.output }}}}]"
    """
    return write_team(folder, spec, agents="a b", more=INNER % inner)


def the_inner(ran: Ran) -> RunRecord:
    with ran.journal() as journal:
        (found,) = [run for run in journal.runs() if run.parent == ran.id]
    return found


def test_a_team_is_a_step(tmp_path: Path) -> None:
    ran = run(nested(tmp_path), by_role(first='{"v": "hi"}', one="1", two="2"), team="t")
    assert ran.end == ("succeeded", "Succeeded", None)
    assert ran.output == "[2]"
    assert ran.prompts[1] == "prompt: hi\n"
    assert used(ran) == 30
    inner = the_inner(ran)
    assert (inner.team, inner.status, inner.input) == ("inner", "succeeded", {"prompt": "hi"})
    assert inner.token_usage is not None
    assert inner.token_usage.total == 20
    assert [row.name for row in ran.rows(inner.id)] == ["one", "two"]
    assert [(row.name, row.agent, row.status) for row in ran.rows()] == [
        ("first", "a", "succeeded"),
        ("sub", "inner", "succeeded"),
    ]
    assert ran.kinds("step_done") == [
        ("step_done", "first"),
        ("step_done", "sub/one"),
        ("step_done", "sub/two"),
        ("step_done", "sub"),
    ]


def test_its_failure_is_told(tmp_path: Path) -> None:
    def bad(request: ProviderRequest) -> Said:
        raise BadRequest("no such model")

    ran = run(nested(tmp_path), by_role(first='{"v": 1}', one="1", two=bad), team="t")
    assert ran.end[0] == "failed"
    assert ran.end[2] == 'step "sub": team "inner" failed: step "two": no such model'
    assert the_inner(ran).status == "failed"
    assert used(ran) == 20


@pytest.mark.parametrize("whose", ["run", "inner", "step"])
def test_its_budget_is_also_that_of_the_run(tmp_path: Path, whose: str) -> None:
    file = nested(
        tmp_path,
        inner="maxTokens: 1500" if whose == "inner" else "input: {prompt: none}",
        step=", maxTokens: 1500" if whose == "step" else "",
    )
    script = by_role(first=says('{"v": 1}', 1000), one=says("1", 1450), two="2")
    ran = run(file, script, team="t", max_tokens=2500 if whose == "run" else None)
    assert ran.end[:2] == ("failed", "BudgetExceeded")
    assert ran.roles == ["first", "one"]
    assert the_inner(ran).reason == "BudgetExceeded"


def test_its_time_and_that_around_it(tmp_path: Path) -> None:
    async def hangs(request: ProviderRequest) -> str:
        await asyncio.get_running_loop().create_future()
        return ""

    script = by_role(first='{"v": 1}', one="1", two=hangs)
    ran = run(nested(tmp_path, inner="timeoutSeconds: 9"), script, team="t")
    assert "run exceeded timeout of 9s" in (ran.end[2] or "")
    assert the_inner(ran).reason == "TimedOut"


def test_the_time_of_the_run_ends_the_inner_one(tmp_path: Path) -> None:
    async def hangs(request: ProviderRequest) -> str:
        await asyncio.get_running_loop().create_future()
        return ""

    script = by_role(first='{"v": 1}', one="1", two=hangs)
    ran = run(nested(tmp_path), script, team="t", timeout=9.0)
    assert ran.end[1] == "TimedOut"
    assert the_inner(ran).status == "interrupted"
    assert used(ran) == 20


def test_its_answer_is_held_against_the_schema(tmp_path: Path) -> None:
    step = ', outputSchema: \'{"type": "object"}\', retry: 1'
    answers = iter(["text", '{"ok": 1}'])
    script = by_role(first='{"v": 1}', one="1", two=lambda request: next(answers))
    ran = run(nested(tmp_path, step=step), script, team="t")
    assert ran.output == '[{"ok": 1}]'
    assert ran.roles == ["first", "one", "two", "one", "two"]


def test_inputs_of_the_same_names_go_there(tmp_path: Path) -> None:
    inner = INNER.replace("{{ .input.prompt }}", "{{ .input.x }}-{{ .input.y }}")
    spec = """
    roles: [{name: sub, arkTeam: inner}]
    pipeline: [{role: sub, inputs: {x: left, y: right}}]
    """
    more = inner % "inputs: [{name: x}, {name: y, required: true}]"
    file = write_team(tmp_path, spec, agents="a b", more=more)
    assert run(file, team="t").prompts[0] == "prompt: left-right\n"


async def cancelled_inside(file: Path, **options: Any) -> tuple[Ran, float]:
    """The run, and the seconds that went by after somebody cancelled the run of its inner team."""
    asked = asyncio.Event()

    async def hangs() -> str:
        asked.set()
        return await asyncio.get_running_loop().create_future()

    def script(request: ProviderRequest) -> Said:
        return says('{"v": "hi"}') if request.eval_case_id == "first" else hangs()

    running = asyncio.ensure_future(run_async(file, script, **options))
    await asyncio.wait_for(asked.wait(), 30)
    with Journal.open(journal_path(file.parent)) as journal:  # as `muster runs cancel` does
        (inner,) = [run for run in journal.runs() if run.parent is not None]
        journal.request_cancel(inner.id)
    began = time.perf_counter()
    return await asyncio.wait_for(running, 30), time.perf_counter() - began


async def test_its_run_can_be_cancelled_alone(tmp_path: Path) -> None:
    ran, seconds = await cancelled_inside(nested(tmp_path, step=", retry: 3"), team="t")
    inner = the_inner(ran)
    assert ran.end == (
        "failed",
        "StepFailed",
        f'step "sub": team "inner" was cancelled by `muster runs cancel` (run {inner.id})',
    )
    assert ran.step("sub").error_kind == "cancelled"
    told = (inner.status, inner.reason, inner.error)
    assert told == ("cancelled", "Cancelled", "cancelled by `muster runs cancel`")
    assert [(row.name, row.status) for row in ran.rows(inner.id)] == [("one", "failed")]
    assert seconds < 3  # it looks four times a second
    again = await run_async(tmp_path / "team.yaml", resume=ran.id)
    assert again.end[0] == "succeeded"
    assert the_inner(again).status == "succeeded"


# --- tasks that are handed on -------------------------------------------------------------------


def lead(folder: Path, *, roles: str = "", more: str = "", pipeline: str = "") -> Path:
    spec = f"""
    roles:
    - {{name: lead, arkAgent: a, canDelegate: [x, y]}}
    - {{name: x, arkAgent: b, canDelegate: [y]}}
    - {{name: y, arkAgent: b}}
    {roles}
    {more}
    {pipeline or "entry: lead"}
    """
    return write_team(folder, "\n".join(line[4:] for line in spec.split("\n")), agents="a b")


def hands(*tasks: tuple[str, str], at_once: bool = True) -> Callable[[ProviderRequest], Said]:
    """Delegates these tasks, and answers with their results; failures as chat models see them."""

    async def one(request: ProviderRequest, role: str, prompt: str) -> str:
        assert request.call_tool is not None
        try:
            return await request.call_tool("delegate", {"role": role, "prompt": prompt})
        except Exception as error:
            return f"error: {error}"

    async def answer(request: ProviderRequest) -> str:
        return " ".join(await asyncio.gather(*(one(request, *task) for task in tasks)))

    return answer


def test_a_task_that_is_handed_on(tmp_path: Path) -> None:
    ran = run(
        lead(tmp_path),
        by_role(lead=hands(("x", "find it")), x="found"),
        inputs={"prompt": "the question"},
    )
    assert ran.output == "found"
    assert ran.prompts == ["the question", "find it"]
    (tool,) = ran.asked[0].tools
    assert tool.name == "delegate"
    assert tool.parameters["properties"]["role"]["enum"] == ["x", "y"]
    assert used(ran) == 20
    rows = ran.rows()
    assert [(row.name, row.status) for row in rows] == [
        ("lead", "succeeded"),
        ("lead → x", "succeeded"),
    ]
    assert rows[1].parent == rows[0].id
    with ran.journal() as journal:
        (call,) = journal.calls(ran.id)
    assert (call.kind, call.status, call.result) == ("delegate", "ok", "found")
    told = [(event.step, event.text) for event in ran.events if event.kind == "delegated"]
    assert told == [("lead", "x")]


def test_tasks_of_one_turn_go_on_at_the_same_time(tmp_path: Path) -> None:
    times: list[float] = []

    async def slow(request: ProviderRequest) -> str:
        await asyncio.sleep(10)
        times.append(asyncio.get_running_loop().time())
        return request.eval_case_id or ""

    script = by_role(lead=hands(("x", "1"), ("y", "2")), x=slow, y=slow)
    ran = run(lead(tmp_path), script)
    assert ran.output == "x y"
    assert times[0] == times[1]


def test_usage_of_chains_counts_once(tmp_path: Path) -> None:
    ran = run(lead(tmp_path), by_role(lead=hands(("x", "1")), x=hands(("y", "2")), y="done"))
    assert ran.output == "done"
    assert used(ran) == 30
    assert [row.token_usage.total for row in ran.rows() if row.token_usage] == [10, 10, 10]
    with ran.journal() as journal:
        totals = journal.totals([ran.id])[ran.id].token_usage
    assert totals == ran.outcome.token_usage


@pytest.mark.parametrize(
    ("task", "told"),
    [
        (("z", "p"), 'error: lead may not delegate to "z" (near: x; allowed: x, y)'),
        (("x", " "), "error: delegate: prompt must not be empty"),
        (("", "p"), "error: delegate: role must not be empty"),
    ],
)
def test_what_may_not_be_handed_on(tmp_path: Path, task: tuple[str, str], told: str) -> None:
    ran = run(lead(tmp_path), by_role(lead=hands(task)))
    assert ran.output.replace("near: x; ", "") == told.replace("near: x; ", "")
    assert ran.roles == ["lead"]


def test_a_failure_of_a_delegate_is_text_for_who_asked(tmp_path: Path) -> None:
    def bad(request: ProviderRequest) -> Said:
        raise BadRequest("no such model")

    ran = run(lead(tmp_path), by_role(lead=hands(("x", "p")), x=bad))
    assert ran.end[0] == "succeeded"
    assert ran.output == "error: x failed: no such model"


def test_delegation_goes_only_so_deep(tmp_path: Path) -> None:
    script = by_role(lead=hands(("x", "1")), x=hands(("y", "2")), y="done")
    ran = run(lead(tmp_path, more="maxDepth: 1"), script)
    assert ran.output == "error: delegation goes no deeper than 1: lead → x"
    assert ran.roles == ["lead", "x"]


def test_a_cycle_is_refused_when_the_team_is_read(tmp_path: Path) -> None:
    file = lead(tmp_path)
    text = file.read_text()
    file.write_text(text.replace("y, arkAgent: b}", "y, arkAgent: b, canDelegate: [lead]}"))
    with pytest.raises(ConfigError, match='cycle detected: role "y" → "lead" forms a cycle'):
        run(file)


def test_an_agent_that_waits_for_itself_is_no_deadlock(tmp_path: Path) -> None:
    """x and y are the same agent, which takes one task at a time; and there is a money budget."""
    file = lead(tmp_path)
    one = "{name: b}\nspec: {target: scripted, limits: {maxConcurrentTasks: 1}, "
    file.write_text(file.read_text().replace("{name: b}\nspec: {target: scripted, ", one))
    script = by_role(lead=hands(("x", "1")), x=hands(("y", "2")), y="done")
    ran = run(file, script, budget_usd=5.0)
    assert ran.output == "done"


def test_a_target_with_one_worker_is_no_deadlock(tmp_path: Path) -> None:
    file = lead(tmp_path)
    targets = tmp_path / ".muster" / "targets.yaml"
    targets.write_text(targets.read_text().replace("max_retries: 0", "max_retries: 0, workers: 1"))
    script = by_role(lead=hands(("x", "1"), ("y", "2")), x="from x", y="from y")
    assert run(file, script).output == "from x from y"


def test_mixed_teams_have_a_pipeline_and_delegates(tmp_path: Path) -> None:
    pipeline = """entry: lead
    pipeline:
    - {role: lead, inputs: {prompt: begin}}
    - {role: y, dependsOn: [lead], inputs: {prompt: "{{ .steps.lead.output }}"}}"""
    ran = run(
        lead(tmp_path, pipeline=pipeline), by_role(lead=hands(("x", "1")), x="from x", y="end")
    )
    assert ran.roles == ["lead", "x", "y"]
    assert "from x" in ran.prompts[2]
    assert ran.statuses == {"lead": "succeeded", "y": "succeeded"}


def test_a_team_can_be_a_delegate(tmp_path: Path) -> None:
    spec = """
    roles: [{name: lead, arkAgent: a, canDelegate: [sub]}, {name: sub, arkTeam: inner}]
    entry: lead
    """
    file = write_team(tmp_path, spec, agents="a b", more=INNER % "input: {prompt: none}")
    ran = run(file, by_role(lead=hands(("sub", "hi")), one="1", two="2"), team="t")
    assert ran.output == "2"
    assert ran.prompts[1] == "prompt: hi\n"
    assert used(ran) == 30
    assert the_inner(ran).status == "succeeded"


# --- subtasks -----------------------------------------------------------------------------------


def submits(*prompts: str) -> Callable[[ProviderRequest], Said]:
    async def answer(request: ProviderRequest) -> str:
        assert request.call_tool is not None
        if request.question not in ("begin", "again"):
            await asyncio.sleep(30)
            return f"did {request.question}"
        told = [await request.call_tool("submit_subtask", {"prompt": p}) for p in prompts]
        return told[0].rpartition(" ")[0]

    return answer


def alone(folder: Path) -> Path:
    spec = """
    roles:
    - {name: w, target: scripted, systemPrompt: x, builtinTools: [submit_subtask]}
    entry: w
    """
    return write_team(folder, spec)


def test_a_run_waits_for_its_subtasks(tmp_path: Path) -> None:
    ran = run(alone(tmp_path), submits("one", "two"), inputs={"prompt": "begin"})
    assert ran.output == "subtask submitted with id:"
    assert [row.output for row in ran.rows()[1:]] == ["did one", "did two"]
    assert used(ran) == 30


def test_a_subtask_that_fails_is_told(tmp_path: Path) -> None:
    def script(request: ProviderRequest) -> Said:
        if request.question == "one":
            raise BadRequest("no such model")
        return submits("one")(request)

    ran = run(alone(tmp_path), script, inputs={"prompt": "begin"})
    assert ran.end[0] == "succeeded"
    (told,) = [event.text for event in ran.events if event.kind == "warning"]
    assert told.startswith("subtask-")
    assert told.endswith(" failed: no such model")


def test_subtasks_end_with_the_time_of_the_run(tmp_path: Path) -> None:
    ran = run(alone(tmp_path), submits("one"), inputs={"prompt": "begin"}, timeout=9.0)
    assert ran.end[1] == "TimedOut"
    assert ran.rows()[-1].error_kind == "cancelled"


def test_subtasks_of_subtasks_go_only_so_deep(tmp_path: Path) -> None:
    ran = run(alone(tmp_path), submits("again"), inputs={"prompt": "begin"})
    assert len(ran.asked) == 1 + 5
    assert any("delegation goes no deeper than 5" in event.text for event in ran.events)


# --- agents by what they can do -----------------------------------------------------------------

REGISTRY = """
apiVersion: muster.dev/v1alpha1
kind: Registry
metadata: {name: r}
spec: {scope: namespace-scoped}
---
""" + "---".join(
    f"""
apiVersion: muster.dev/v1alpha1
kind: Agent
metadata: {{name: {name}}}
spec:
  target: scripted
  systemPrompt: I am {name}.
  capabilities: [{{id: {can}, description: {told}, tags: [{tags}]}}]
"""
    for name, can, told, tags in (
        ("css", "frontend-debug", "styles and layout of web pages", "web"),
        ("sql", "database", "slow queries and indexes", "db"),
        ("sql2", "database", "migrations of tables", "'db, big'"),
    )
)


def routed(folder: Path, routing: str) -> Path:
    return write_team(folder, f"routing: {{registryRef: {{name: r}}, {routing}}}\n", more=REGISTRY)


def asked_as(ran: Ran) -> list[str]:
    return [(request.system_prompt or "").partition("\n")[0] for request in ran.asked]


def test_a_model_chooses_and_says_why(tmp_path: Path) -> None:
    choice = json.dumps({"capability": "database", "reason": "it is about a query"})
    ran = run(
        routed(tmp_path, "target: scripted"),
        lambda request: says(choice, 7) if request.eval_case_id == "router" else "fixed",
        inputs={"prompt": "my query is slow"},
    )
    assert (ran.output, used(ran)) == ("fixed", 17)
    assert asked_as(ran)[1] == "I am sql."
    assert "my query is slow" in ran.prompts[0]
    assert "- frontend-debug: styles and layout of web pages [web]" in ran.prompts[0]
    assert ran.prompts[1] == "my query is slow"
    (step,) = ran.outcome.steps
    assert (step.name, step.agent, step.reason) == ("route", "sql", "it is about a query")
    with ran.journal() as journal:
        (note,) = journal.events(ran.id, "routed")
    assert note.data == {"agent": "sql", "capability": "database", "reason": "it is about a query"}


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ('{"capability": "databases", "reason": "x"}', 'the router chose "databases", which no'),
        ("no idea", "the router did not answer with a capability"),
    ],
)
@pytest.mark.parametrize("fallback", [True, False])
def test_a_choice_that_is_none(tmp_path: Path, answer: str, told: str, fallback: bool) -> None:
    file = routed(tmp_path, "target: scripted" + (", fallback: css" if fallback else ""))
    ran = run(file, lambda request: answer if request.eval_case_id == "router" else "did")
    (step,) = ran.outcome.steps
    if fallback:
        assert (ran.output, step.agent) == ("did", "css")
        assert (step.reason or "").startswith(f"fallback: {told}")
    else:
        assert ran.end[:2] == ("failed", "StepFailed")
        assert f'step "route": routing: {told}' in (ran.end[2] or "")
        assert ran.roles == ["router"]


def test_a_choice_by_words_costs_no_call(tmp_path: Path) -> None:
    file = routed(tmp_path, "strategy: lexical")
    ran = run(file, inputs={"prompt": "the layout of my page is broken"})
    assert asked_as(ran) == ["I am css."]
    assert ran.outcome.steps[0].reason == "words in common: layout, page"
    nothing = run(file, inputs={"prompt": "xyzzy"})
    assert nothing.end[2] == (
        'step "route": routing: no capability has a word in common with the task'
    )
    assert nothing.asked == []


def looks_up(folder: Path, lookup: str, *, items: str = "[1, 2, 3, 4]") -> Path:
    spec = f"""
    pipeline:
    - name: w
      registryLookup: {{{lookup}}}
      forEach: {{items: '{items}', maxParallel: 1}}
      inputs: {{prompt: "{{{{ .item }}}}"}}
    """
    return write_team(folder, spec, more=REGISTRY)


@pytest.mark.parametrize(
    ("lookup", "who"),
    [
        ("capability: database", ["sql", "sql2", "sql", "sql2"]),
        ("capability: database, strategy: least-busy", ["sql"] * 4),
        ("capability: database, tags: ['db, big']", ["sql2"] * 4),
        ("capability: nothing, fallback: css", ["css"] * 4),
    ],
)
def test_agents_are_looked_up(tmp_path: Path, lookup: str, who: list[str]) -> None:
    ran = run(looks_up(tmp_path, lookup))
    assert ran.end[0] == "succeeded"
    assert asked_as(ran) == [f"I am {name}." for name in who]
    assert [row.agent for row in ran.rows()] == who


def test_the_least_busy_is_who_has_nothing_to_do(tmp_path: Path) -> None:
    async def slow(request: ProviderRequest) -> str:
        await asyncio.sleep(10)
        return "ok"

    file = looks_up(tmp_path, "capability: database, strategy: least-busy")
    file.write_text(file.read_text().replace("maxParallel: 1", "maxParallel: 2"))
    ran = run(file, slow)
    who = asked_as(ran)
    assert set(who[:2]) == set(who[2:]) == {"I am sql.", "I am sql2."}


def test_a_lookup_by_words(tmp_path: Path) -> None:
    items = json.dumps(["my migration fails", "an index is missing"])
    ran = run(looks_up(tmp_path, "capability: database, strategy: lexical", items=items))
    assert asked_as(ran) == ["I am sql2.", "I am sql."]


def test_a_lookup_by_chance_finds_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import random

    chosen: list[Any] = []
    monkeypatch.setattr(random, "choice", lambda agents: chosen.append(agents) or agents[-1])
    ran = run(looks_up(tmp_path, "capability: database, strategy: random"))
    assert asked_as(ran) == ["I am sql2."] * 4
    assert [[agent.name for agent in agents] for agents in chosen] == [["sql", "sql2"]] * 4


def test_a_capability_that_nobody_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match='no agent has the capability "databas"'):
        run(looks_up(tmp_path, "capability: databas"))

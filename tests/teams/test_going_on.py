"""Runs that were stopped go on: nothing that is done is done again, and budgets go on too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from team_parts import Ran, Said, run, run_async, says, write_team

from muster.errors import UsageError
from muster.provider import BadRequest, ProviderRequest

STEPS = """
steps:
- {name: a, arkAgent: a, inputs: {prompt: one}}
- {name: b, arkAgent: a, inputs: {prompt: "two {{ .steps.a.output }}"}, dependsOn: [a]}
- {name: c, arkAgent: a, inputs: {prompt: three}, dependsOn: [b]}
"""


async def forever() -> str:
    await asyncio.get_running_loop().create_future()
    raise AssertionError


async def stopped(
    file: Path, script: Callable[[ProviderRequest], Said], *, after: int, **more: Any
) -> Ran:
    """The run, interrupted when so many requests have come: the last one is never answered."""
    stop = asyncio.Event()
    requests = 0

    def counted(request: ProviderRequest) -> Said:
        nonlocal requests
        requests += 1
        if requests < after:
            return script(request)
        stop.set()
        asyncio.get_running_loop().call_soon(task.cancel)
        return forever()

    task = asyncio.ensure_future(run_async(file, counted, stop=stop, **more))
    return await task


def used(ran: Ran) -> int:
    usage = ran.outcome.token_usage
    return usage.total if usage is not None else 0


async def test_finished_steps_are_not_repeated(tmp_path: Path) -> None:
    file = write_team(tmp_path, STEPS, kind="Flow")
    first = await stopped(file, lambda r: "first", after=2)
    assert first.end == ("failed", "Interrupted", "interrupted")
    assert first.statuses == {"a": "succeeded", "b": "failed", "c": "pending"}
    assert used(first) == 10
    then = await run_async(file, lambda r: "then", resume=first.id)
    assert then.end == ("succeeded", "Succeeded", None)
    assert then.id == first.id
    assert ["one" in prompt for prompt in then.prompts] == [False, False]
    assert "first" in then.prompts[0]
    assert used(then) == 30
    with then.journal() as journal:
        record = journal.run(then.id)
    assert record.token_usage is not None
    assert record.token_usage.total == 30


async def test_only_what_failed_is_tried_again(tmp_path: Path) -> None:
    def bad(request: ProviderRequest) -> Said:
        if "two" in request.question:
            raise BadRequest("no such model")
        return "ok"

    file = write_team(tmp_path, STEPS, kind="Flow")
    first = await run_async(file, bad)
    assert first.end[1] == "StepFailed"
    then = await run_async(file, resume=first.id)
    assert then.end[0] == "succeeded"
    assert len(then.asked) == 2
    assert [(row.name, row.status) for row in then.rows()] == [
        ("a", "succeeded"), ("b", "failed"), ("b", "succeeded"), ("c", "succeeded"),
    ]  # fmt: skip


async def test_a_file_that_has_changed_is_refused(tmp_path: Path) -> None:
    file = write_team(tmp_path, STEPS, kind="Flow")
    first = await stopped(file, lambda r: "first", after=2)
    file.write_text(file.read_text().replace("three", "four"))
    with pytest.raises(UsageError, match="is not what it was when the run began"):
        await run_async(file, resume=first.id)


async def test_budgets_go_on(tmp_path: Path) -> None:
    file = write_team(tmp_path, STEPS, kind="Flow")
    first = await stopped(file, lambda r: says("ok", 400, cost_usd=0.5), after=2, max_tokens=1000)
    then = await run_async(
        file, lambda r: says("ok", 590), resume=first.id, max_tokens=1000, budget_usd=0.5
    )
    assert then.end[:2] == ("failed", "BudgetExceeded")
    assert then.asked == []
    more = await run_async(file, lambda r: says("ok", 590), resume=first.id, max_tokens=1000)
    assert 'step "c": token budget of 1000 of the run exceeded: used 990' in (more.end[2] or "")
    assert len(more.asked) == 1


async def test_the_budget_of_a_step_goes_on(tmp_path: Path) -> None:
    spec = """
    steps:
    - {name: l, arkAgent: a, inputs: {prompt: x}, maxTokens: 1000,
       loop: {condition: "true", maxIterations: 5}}
    """
    file = write_team(tmp_path, spec, kind="Flow")
    first = await stopped(file, lambda r: says("ok", 300), after=3)
    then = await run_async(file, lambda r: says("ok", 398), resume=first.id)
    assert 'of the step "l" exceeded: used 998' in (then.end[2] or "")
    assert len(then.asked) == 1


async def test_a_loop_goes_on(tmp_path: Path) -> None:
    spec = """
    steps:
    - {name: l, arkAgent: a, inputs: {prompt: "[{{ .steps.l.output }}]"},
       loop: {condition: "true", maxIterations: 3}}
    """
    file = write_team(tmp_path, spec, kind="Flow")
    counter = iter("abcdef")
    first = await stopped(file, lambda r: next(counter), after=3)
    then = await run_async(file, lambda r: next(counter), resume=first.id)
    assert then.step("l").iterations == 4
    assert len(then.asked) == 2
    assert "\nb\n" in then.prompts[0]
    assert (then.output, used(then)) == ("d", 40)


async def test_items_go_on(tmp_path: Path) -> None:
    spec = """
    steps:
    - {name: l, arkAgent: a, inputs: {prompt: "{{ .item }}"},
       forEach: {items: "[1, 2, 3, 4]", maxParallel: 1}}
    """
    file = write_team(tmp_path, spec, kind="Flow")
    first = await stopped(file, lambda r: "early", after=3)
    then = await run_async(file, lambda r: "late", resume=first.id)
    assert then.step("l").data == ["early", "early", "late", "late"]
    assert then.prompts == ["prompt: 3\n", "prompt: 4\n"]


# --- tool calls ---------------------------------------------------------------------------------

TOOLS = """
calls = []

def note(text: str) -> str:
    '''Write it down.'''
    with open({path!r}, "a") as file:
        file.write(text + "\\n")
    return "noted " + text
"""


def with_tool(folder: Path) -> Path:
    (folder / "notes.py").write_text(TOOLS.format(path=str(folder / "calls.txt")))
    file = write_team(folder, STEPS, kind="Flow")
    tools = '{target: scripted, tools: [{name: note, python: "notes:note"}], '
    file.write_text(file.read_text().replace("{target: scripted, ", tools))
    return file


def calls(folder: Path) -> list[str]:
    return (folder / "calls.txt").read_text().split("\n")[:-1]


@pytest.mark.parametrize("text", ["one", "a sk-very-secret-value b"], ids=["plain", "secret"])
async def test_a_call_that_was_made_is_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """Also if a secret is among the arguments, which the journal does not have."""
    monkeypatch.setenv("SOME_API_KEY", "sk-very-secret-value")
    file = with_tool(tmp_path)
    hanging = asyncio.Event()

    async def first_part(request: ProviderRequest) -> str:
        assert request.call_tool is not None
        if "three" not in request.question:
            return "ok"
        await request.call_tool("note", {"text": text})
        await request.call_tool("note", {"text": "twice"})
        hanging.set()
        return await forever()

    stop = asyncio.Event()
    task = asyncio.ensure_future(run_async(file, first_part, stop=stop))
    await asyncio.wait_for(hanging.wait(), 10)
    stop.set()
    task.cancel()
    first = await task

    async def second_part(request: ProviderRequest) -> str:
        assert request.call_tool is not None
        said = [
            await request.call_tool("note", {"text": each})
            for each in (text, "twice", "twice", "new")
        ]
        return "; ".join(said)

    then = await run_async(file, second_part, resume=first.id)
    assert then.end[0] == "succeeded"
    assert calls(tmp_path) == [text, "twice", "twice", "new"]
    assert then.output.endswith("noted twice; noted twice; noted new")
    with then.journal() as journal:
        assert "very-secret" not in str(journal.view(then.id))


async def test_a_step_that_failed_calls_its_tools_afresh(tmp_path: Path) -> None:
    """It may have failed because of what they said."""

    def script(fails: bool) -> Callable[[ProviderRequest], Said]:
        async def answer(request: ProviderRequest) -> str:
            assert request.call_tool is not None
            await request.call_tool("note", {"text": "x"})
            if fails:
                raise BadRequest("no")
            return "ok"

        return answer

    file = with_tool(tmp_path)
    first = await run_async(file, script(True))
    then = await run_async(file, script(False), resume=first.id)
    assert then.end[0] == "succeeded"
    assert len(calls(tmp_path)) == 4


async def test_what_was_delegated_is_not_delegated_again(tmp_path: Path) -> None:
    spec = """
    roles: [{name: lead, arkAgent: a, canDelegate: [x]}, {name: x, arkAgent: a}]
    entry: lead
    """
    file = write_team(tmp_path, spec)

    async def asks(request: ProviderRequest) -> str:
        if request.eval_case_id == "x":
            return f"did {request.question}"
        assert request.call_tool is not None
        said = [
            await request.call_tool("delegate", {"role": "x", "prompt": prompt})
            for prompt in ("one", "two")
        ]
        return " ".join(said)

    first = await stopped(file, asks, after=3, inputs={"prompt": "go"})
    assert first.roles == ["lead", "x", "x"]
    then = await run_async(file, asks, resume=first.id, inputs={"prompt": "go"})
    assert then.output == "did one did two"
    assert then.prompts == ["go", "two"]


# --- teams, routes ------------------------------------------------------------------------------


async def test_a_nested_run_goes_on(tmp_path: Path) -> None:
    more = """
    apiVersion: muster.dev/v1alpha1
    kind: Flow
    metadata: {name: inner}
    spec:
      input: {prompt: none}
    """ + "\n".join("  " + line for line in ("  " + STEPS.replace("\n", "\n    ")).split("\n"))
    spec = """
    roles: [{name: sub, arkTeam: inner}, {name: z, arkAgent: a}]
    pipeline: [{role: sub, inputs: {prompt: x}}, {role: z, dependsOn: [sub], inputs: {prompt: z}}]
    """
    file = write_team(tmp_path, spec, more=more)
    first = await stopped(file, lambda r: "first", after=3, team="t")
    assert used(first) == 20
    then = await stopped(file, lambda r: "then", after=2, team="t", resume=first.id)
    assert then.prompts == ["prompt: three\n", "prompt: z\n"]
    last = await run_async(file, lambda r: "last", team="t", resume=first.id)
    assert last.prompts == ["prompt: z\n"]
    assert (last.end[0], used(last)) == ("succeeded", 40)
    with last.journal() as journal:
        runs = journal.runs()
    assert [(run.team, run.status) for run in runs] == [
        ("inner", "succeeded"),
        ("t", "succeeded"),
    ]


async def test_a_route_is_chosen_once(tmp_path: Path) -> None:
    more = """
    apiVersion: muster.dev/v1alpha1
    kind: Registry
    metadata: {name: r}
    spec: {scope: namespace-scoped}
    ---
    apiVersion: muster.dev/v1alpha1
    kind: Agent
    metadata: {name: db}
    spec: {target: scripted, systemPrompt: db, capabilities: [{id: sql, description: queries}]}
    """
    spec = "routing: {registryRef: {name: r}, target: scripted}\n"
    file = write_team(tmp_path, spec, more=more)
    choice = '{"capability": "sql", "reason": "because"}'
    first = await stopped(file, lambda r: choice, after=2, inputs={"prompt": "x"})
    assert first.roles == ["router", "db"]
    then = await run_async(file, resume=first.id, inputs={"prompt": "x"})
    assert then.roles == ["db"]
    assert then.outcome.steps[0].reason == "because"
    assert used(then) == 20


def test_a_run_out_of_time_goes_on(tmp_path: Path) -> None:
    file = write_team(tmp_path, STEPS, kind="Flow")
    first = run(file, lambda r: forever() if "two" in r.question else "ok", timeout=5.0)
    assert first.end[1] == "TimedOut"
    then = run(file, resume=first.id)
    assert then.end[0] == "succeeded"
    assert len(then.asked) == 2


async def test_subtasks_go_on(tmp_path: Path) -> None:
    spec = """
    roles:
    - {name: w, target: scripted, systemPrompt: x, builtinTools: [submit_subtask]}
    entry: w
    """
    file = write_team(tmp_path, spec)

    async def asks(request: ProviderRequest) -> str:
        if request.question != "begin":
            return f"did {request.question}"
        assert request.call_tool is not None
        await request.call_tool("submit_subtask", {"prompt": "later"})
        return "submitted"

    first = await stopped(file, asks, after=2, inputs={"prompt": "begin"})
    assert first.prompts == ["begin", "later"]
    assert first.statuses == {"w": "succeeded"}
    then = await run_async(file, asks, resume=first.id, inputs={"prompt": "begin"})
    assert then.prompts == ["later"]
    assert (then.end[0], then.output, used(then)) == ("succeeded", "submitted", 20)
    assert then.rows()[-1].output == "did later"


async def test_only_so_many_runs_are_kept(tmp_path: Path) -> None:
    spec = """
    roles: [{name: w, arkAgent: a}]
    pipeline: [{role: w, inputs: {prompt: x}}]
    successfulRunsHistoryLimit: 2
    failedRunsHistoryLimit: 1
    """
    file = write_team(tmp_path, spec)

    def bad(request: ProviderRequest) -> Said:
        raise BadRequest("no")

    failed = [(await run_async(file, bad)).id for _ in range(2)]
    good = []
    for _ in range(3):
        good.append(await run_async(file))
        folder = tmp_path / ".muster" / "artifacts" / good[-1].id
        folder.mkdir(parents=True)
        (folder / "file").touch()
    assert [each.id for each in good if (folder.parent / each.id).exists()] == [
        good[1].id,
        good[2].id,
    ]
    with good[-1].journal() as journal:
        left = [run.id for run in journal.runs()]
    assert left == [good[2].id, good[1].id, failed[1]]
    none = file.read_text(encoding="utf-8").replace("HistoryLimit: 2", "HistoryLimit: 0")
    file.write_text(none, encoding="utf-8")
    last = [await run_async(file) for _ in range(2)][-1]
    assert last.end[0] == "succeeded"
    with last.journal() as journal:
        assert [run.id for run in journal.runs()] == [last.id, failed[1]]

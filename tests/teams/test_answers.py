"""Answers that are not as they should be, items of a list, and people who are asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from team_parts import Ran, Said, run, run_async, says, write_team

from muster.errors import MusterError
from muster.provider import BadRequest, ProviderRequest
from muster.store.journal import Journal
from muster.teams.watching import RunEvent

SCHEMA = '{"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}'


def one_step(folder: Path, more: str, *, roles: str = "") -> Path:
    spec = f"roles:\n- {{name: w, arkAgent: a}}\n{roles}pipeline:\n- role: w\n"
    spec += "  inputs: {prompt: x}\n" + "".join(f"  {line}\n" for line in more.split("\n") if line)
    return write_team(folder, spec, agents="a b")


def in_turn(answers: Iterable[Said]) -> Callable[[ProviderRequest], Said]:
    left = iter(answers)
    return lambda request: next(left)


def notes(ran: Ran, kind: str) -> list[str]:
    return [event.text for event in ran.events if event.kind == kind]


# --- schemas ------------------------------------------------------------------------------------


def test_a_valid_answer_is_data(tmp_path: Path) -> None:
    file = one_step(tmp_path, f"outputSchema: '{SCHEMA}'")
    ran = run(file, in_turn(['Here you are:\n```json\n{"n": 3}\n```']))
    assert ran.end[0] == "succeeded"
    assert ran.step("w").data == {"n": 3}
    assert len(ran.asked) == 1
    said = "prompt: x\n\nRespond with valid JSON matching this schema:\n"
    assert ran.prompts[0] == f"{said}{json.dumps(json.loads(SCHEMA))}\n"
    assert ran.asked[0].response_schema == json.loads(SCHEMA)


def test_an_answer_that_is_repaired(tmp_path: Path) -> None:
    file = one_step(tmp_path, f"outputSchema: '{SCHEMA}'")
    ran = run(file, in_turn([says('{"n": "three"}'), says('{"n": 3}')]))
    assert ran.end[0] == "succeeded"
    assert ran.output == '{"n": 3}'
    repair = ran.asked[1]
    assert "n: 'three' is not of type 'integer'" in repair.question
    assert [message.role for message in repair.messages] == ["user", "assistant"]
    assert repair.messages[1].text == '{"n": "three"}'
    assert [row.status for row in ran.rows()] == ["succeeded"]
    usage = ran.outcome.token_usage
    assert usage is not None
    assert usage.total == 20


@pytest.mark.parametrize(
    ("retry", "calls", "status"), [(0, 2, "failed"), (1, 4, "failed"), (2, 5, "succeeded")]
)
def test_an_answer_that_stays_wrong(tmp_path: Path, retry: int, calls: int, status: str) -> None:
    """Each attempt has a turn to repair; then comes the next attempt, from the beginning."""
    file = one_step(tmp_path, f"outputSchema: '{SCHEMA}'\nretry: {retry}")
    ran = run(file, in_turn(["no"] * 4 + ['{"n": 1}']))
    assert ran.end[0] == status
    assert len(ran.asked) == calls
    if status == "failed":
        assert (
            ran.end[2] == 'step "w": the output does not match its schema: the output is not JSON'
        )
        assert ran.step("w").error_kind == "invalid_output"
        assert ran.rows()[-1].output == "no"
    assert ran.asked[-1].attempt == (calls - 1) // 2


def test_a_schema_without_end_is_an_answer_that_cannot_be_checked(tmp_path: Path) -> None:
    schema = '{"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}'
    ran = run(one_step(tmp_path, f"outputSchema: '{schema}'"), lambda _: "{}")
    assert ran.end[:2] == ("failed", "StepFailed")
    assert "nested without end" in (ran.end[2] or "")


# --- checks -------------------------------------------------------------------------------------


def test_rejected_patterns_are_looked_for_first(tmp_path: Path) -> None:
    more = "validate: {rejectPatterns: ['(?i)ignore previous'], contains: bees, semantic: good?}"
    ran = run(one_step(tmp_path, more), in_turn(["Ignore previous bees"]))
    assert ran.end[:2] == ("failed", "StepFailed")
    told = "validation failed: the output matches the rejected pattern '(?i)ignore previous'"
    assert ran.end[2] == f'step "w": {told}'
    assert ran.step("w").error_kind == "validation"
    assert len(ran.asked) == 1


@pytest.mark.parametrize(
    ("more", "answer", "told"),
    [
        ("contains: '^bees'", "wasps", "does not contain '^bees'"),
        (f"schema: '{SCHEMA}'", '{"n": 1.5}', "n: 1.5 is not of type 'integer'"),
        (f"schema: '{SCHEMA}'", "text", "the output is not JSON"),
    ],
)
def test_checks_of_the_text(tmp_path: Path, more: str, answer: str, told: str) -> None:
    ran = run(one_step(tmp_path, f"validate: {{{more}}}"), in_turn([answer]))
    assert ran.end[0] == "failed"
    assert told in (ran.end[2] or "")


@pytest.mark.parametrize(
    ("verdict", "problem"),
    [
        ("pass", None),
        ("VALID", None),
        ("Thinking: it may fail.\npass", None),
        ("fail: too short", "too short"),
        ("INVALID", "the judge says fail"),
        ("**Fail**: dull", "dull"),
        ("This is not valid", "the judge says fail"),
        ("maybe", "unparseable verdict"),
        ("", "unparseable verdict"),
    ],
)
def test_the_verdict_of_a_judge(tmp_path: Path, verdict: str, problem: str | None) -> None:
    file = one_step(tmp_path, "validate: {semantic: Is it good?, judge: j}",
                    roles="- {name: j, arkAgent: b}\n")  # fmt: skip
    ran = run(file, in_turn([says("the answer"), says(verdict, tokens=5)]))
    assert ran.roles == ["w", "judge"]
    assert "Is it good?" in ran.prompts[1]
    assert "the answer" in ran.prompts[1]
    usage = ran.outcome.token_usage
    assert usage is not None
    assert usage.total == 15
    if problem is None:
        assert ran.end == ("succeeded", "Succeeded", None)
    else:
        assert ran.end[2] == f'step "w": validation failed: {problem}'


def test_a_refused_answer_is_asked_for_again(tmp_path: Path) -> None:
    more = "validate: {contains: bees, onFailure: retry, maxRetries: 2}"
    ran = run(one_step(tmp_path, more), in_turn(["wasps", "ants", "bees"]))
    assert (ran.end[0], ran.output) == ("succeeded", "bees")
    assert ran.step("w").validation_attempts == 3
    assert [row.output for row in ran.rows()] == ["wasps", "ants", "bees"]
    ran = run(one_step(tmp_path, more), in_turn(["wasps", "ants", "flies"]))
    assert ran.end[0] == "failed"


def test_a_suite_as_gate(tmp_path: Path) -> None:
    (tmp_path / "gate.eval.yaml").write_text(
        "assertions: [{type: contains, value: bees}]\ntests: [{id: x, input: y}]\n"
    )
    file = one_step(tmp_path, "validate: {suite: gate.eval.yaml}")
    assert run(file, in_turn(["bees"])).end[0] == "succeeded"
    ran = run(file, in_turn(["wasps"]))
    assert "validation failed: score 0.00 is below" in (ran.end[2] or "")


JUDGED = (
    "assertions: [{type: llm-rubric, value: It is about bees.%s}]\ntests: [{id: x, input: y}]\n"
)


def test_a_suite_that_asks_a_judge_as_gate(tmp_path: Path) -> None:
    """Who is asked is the step's judge; what it takes is the step's, and within its budget."""
    gate = tmp_path / "gate.eval.yaml"
    gate.write_text(JUDGED % "")

    def script(score: float) -> Callable[[ProviderRequest], Said]:
        def answer(request: ProviderRequest) -> Said:
            if request.eval_case_id != "judge":
                return says("buzz", tokens=10)
            assert request.metadata["purpose"] == "judge"
            assert "It is about bees." in request.question
            assert "You judge an answer" in (request.system_prompt or "")
            return says(json.dumps({"reason": "so", "score": score}), tokens=100)

        return answer

    more = "validate: {suite: gate.eval.yaml, judge: b}"
    file = one_step(tmp_path, more, roles="- {name: b, arkAgent: b}\n")
    ran = run(file, script(0.9))
    assert ran.end[0] == "succeeded"
    assert ran.roles == ["w", "judge"]
    assert ran.outcome.token_usage is not None
    assert ran.outcome.token_usage.total == 110
    ran = run(file, script(0.3))
    assert ran.end[2] == 'step "w": validation failed: score 0.30 is below 0.8 (llm-rubric)'
    ran = run(file, script(0.9), max_tokens=60)
    assert ran.end[:2] == ("failed", "BudgetExceeded")
    assert ran.roles == ["w"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (JUDGED % ", judge_target: nobody", 'target "nobody" not found'),
        (JUDGED.replace("llm-rubric", "llm-rubrik") % "", 'unknown grader "llm-rubrik"'),
    ],
)
def test_a_bad_suite_is_told_before_anything_is_asked(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "gate.eval.yaml").write_text(text)
    file = one_step(tmp_path, "validate: {suite: gate.eval.yaml}")
    with pytest.raises(MusterError, match=told):
        run(file, in_turn([]))


# --- items --------------------------------------------------------------------------------------


def each(folder: Path, more: str = "", prompt: str = "{{ .item }}") -> Path:
    spec = f"""
    roles: [{{name: plan, arkAgent: a}}, {{name: w, arkAgent: b}}]
    pipeline:
    - {{role: plan, inputs: {{prompt: list}}}}
    - role: w
      dependsOn: [plan]
      inputs: {{prompt: '{prompt}'}}
      forEach: {{items: "{{{{ .steps.plan.data }}}}"{more}}}
    """
    return write_team(folder, spec, agents="a b")


def planned(plan: str, work: Callable[[str], Said]) -> Callable[[ProviderRequest], Said]:
    def script(request: ProviderRequest) -> Said:
        if request.eval_case_id == "plan":
            return plan
        return work(request.question.removeprefix("prompt: ").strip())

    return script


def test_items_keep_their_order_and_their_bound(tmp_path: Path) -> None:
    now, most = 0, 0

    async def work(item: str) -> str:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(10 - int(item))
        now -= 1
        return f"<{item}>"

    file = each(tmp_path, ", maxParallel: 3")
    ran = run(file, planned("[1, 2, 3, 4, 5, 6, 7]", work))
    assert json.loads(ran.output) == [f"<{n}>" for n in range(1, 8)]
    assert most == 3
    assert {row.item for row in ran.rows() if row.name == "w"} == set(range(7))


def test_items_are_data(tmp_path: Path) -> None:
    """JSON of the answers is in the list as JSON; items may be objects, called otherwise."""
    file = each(tmp_path, ", as: topic", "{{ .topic.name }} {{ .index }}")
    ran = run(file, planned('[{"name": "x"}, {"name": "y"}]', lambda item: f'{{"got": "{item}"}}'))
    assert ran.step("w").data == [{"got": "x 0"}, {"got": "y 1"}]


def test_no_items(tmp_path: Path) -> None:
    ran = run(each(tmp_path), planned("[]", str))
    assert (ran.end[0], ran.output, len(ran.asked)) == ("succeeded", "[]", 1)


@pytest.mark.parametrize(
    ("plan", "found"), [('{"a": 1}', "dict"), ("3", "int"), ('"text"', "text that is not JSON")]
)
def test_what_is_no_list(tmp_path: Path, plan: str, found: str) -> None:
    ran = run(each(tmp_path), planned(plan, str))
    assert ran.end[2] == f'step "w": forEach needs a list, found {found}'
    assert len(ran.asked) == 1


def fails_on_2(item: str) -> Said:
    if item == "2":
        raise BadRequest("not 2")
    return item


def test_an_item_that_fails_ends_the_step(tmp_path: Path) -> None:
    """Items under way are finished, none is begun."""

    async def slow(item: str) -> str:
        if item == "2":
            raise BadRequest("not 2")
        await asyncio.sleep(5)
        return item

    ran = run(each(tmp_path, ", maxParallel: 2"), planned("[1, 2, 3, 4]", slow))
    assert ran.end == ("failed", "StepFailed", 'step "w": item 1: not 2')
    rows = {row.item: row.status for row in ran.rows() if row.name == "w"}
    assert rows == {0: "succeeded", 1: "failed"}


def test_an_item_that_fails_may_be_left_out(tmp_path: Path) -> None:
    ran = run(each(tmp_path, ", onFailure: continue"), planned("[1, 2, 3]", fails_on_2))
    assert ran.end[0] == "succeeded"
    assert ran.step("w").data == [1, None, 3]
    assert ran.step("w").message == "1 of 3 items failed"


def test_a_spent_budget_is_no_failed_item(tmp_path: Path) -> None:
    file = each(tmp_path, ", onFailure: continue, maxParallel: 1")
    ran = run(file, planned("[1, 2, 3, 4]", lambda item: says(item, tokens=40)), max_tokens=75)
    assert ran.end[:2] == ("failed", "BudgetExceeded")


# --- approvals ----------------------------------------------------------------------------------


def asks(folder: Path, more: str = "") -> Path:
    spec = f"""
    roles: [{{name: w, arkAgent: a}}, {{name: z, arkAgent: a}}]
    pipeline:
    - {{role: w, inputs: {{prompt: x}}}}
    - name: gate
      dependsOn: [w]
      approval: {{message: "Send {{{{ .steps.w.output }}}}?"{more}}}
    - {{role: z, dependsOn: [gate], inputs: {{prompt: "{{{{ .steps.gate.output }}}}"}}}}
    """
    return write_team(folder, spec)


async def test_a_person_agrees(tmp_path: Path) -> None:
    asked: list[tuple[str, str]] = []

    async def ask(step: str, message: str) -> bool:
        asked.append((step, message))
        return True

    ran = await run_async(asks(tmp_path), ask_approval=ask)
    assert ran.end[0] == "succeeded"
    assert asked == [("gate", "Send ok?")]
    assert ran.step("gate").output.startswith("approved by ")
    assert [(row.name, row.status) for row in ran.rows()] == [
        ("w", "succeeded"), ("gate", "succeeded"), ("z", "succeeded"),
    ]  # fmt: skip


async def test_a_person_refuses(tmp_path: Path) -> None:
    async def ask(step: str, message: str) -> bool:
        return False

    ran = await run_async(asks(tmp_path), ask_approval=ask)
    assert ran.end[:2] == ("failed", "Rejected")
    assert ran.statuses == {"w": "succeeded", "gate": "failed", "z": "pending"}
    assert ran.step("gate").error_kind == "rejected"


def test_what_is_said_here_is_heard_at_once(tmp_path: Path) -> None:
    """In virtual time: without waiting for the next look at the journal."""
    times: list[float] = []

    def now() -> float:
        return asyncio.get_running_loop().time()

    async def ask(step: str, message: str) -> bool:
        await asyncio.sleep(0.1)
        times.append(now())
        return True

    def on_event(event: RunEvent) -> None:
        if (event.kind, event.step) == ("step_done", "gate"):
            times.append(now())

    assert run(asks(tmp_path), ask_approval=ask, on_event=on_event).end[0] == "succeeded"
    said, heard = times
    assert heard - said < 0.01


@pytest.mark.parametrize(("word", "status"), [("approve", "succeeded"), ("reject", "failed")])
async def test_nobody_answers_in_time(tmp_path: Path, word: str, status: str) -> None:
    ran = await run_async(asks(tmp_path, f", timeoutSeconds: 0.05, onTimeout: {word}"))
    assert ran.end[0] == status
    with ran.journal() as journal:
        approval = journal.approval(ran.id, "gate")
    assert approval is not None
    assert approval.by == "timeout"


async def test_another_process_answers(tmp_path: Path) -> None:
    """As `muster approve` does: through the journal."""
    waiting: asyncio.Queue[Any] = asyncio.Queue()
    file = asks(tmp_path)

    def note(event: Any) -> None:
        if event.kind == "approval":
            waiting.put_nowait(event)

    running = asyncio.ensure_future(run_async(file, on_event=note))
    event = await asyncio.wait_for(waiting.get(), 10)
    assert event.text == "Send ok?"
    with Journal.open(tmp_path / ".muster" / "runs.db") as journal:
        journal.decide(event.data["run"], "gate", approved=True, by="ann", comment="fine")
        (row,) = [row for row in journal.steps(event.data["run"]) if row.name == "gate"]
        assert row.status == "waiting"
    ran = await asyncio.wait_for(running, 10)
    assert ran.end[0] == "succeeded"
    assert ran.step("gate").output == "approved by ann: fine"


async def test_an_answer_while_the_run_is_stopped(tmp_path: Path) -> None:
    """It stands when the run goes on; a refusal is asked about again by the next retry."""
    file, stop = asks(tmp_path), asyncio.Event()

    async def stopped() -> Ran:
        """Run until somebody is asked, then Ctrl-C."""

        def note(event: Any) -> None:
            if event.kind == "approval":
                stop.set()
                task.cancel()

        task = asyncio.ensure_future(run_async(file, on_event=note, stop=stop))
        return await task

    for approved in (True, False):
        first = await stopped()
        assert first.end[:2] == ("failed", "Interrupted")
        with first.journal() as journal:
            assert journal.run(first.id).status == "interrupted"
            journal.decide(first.id, "gate", approved=approved, by="ann")
        then = await run_async(file, resume=first.id)
        assert then.end[0] == ("succeeded" if approved else "failed")
        assert then.roles == (["z"] if approved else [])

    async def agree(step: str, message: str) -> bool:
        return True

    again = await run_async(file, resume=first.id, ask_approval=agree)
    assert again.end[0] == "succeeded"
    assert again.roles == ["z"]

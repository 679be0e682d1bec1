"""`provider: team`: whole teams measured by `muster eval`, each case a run of its own."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from muster.config.targets import load_catalog
from muster.errors import ConfigError, MusterError
from muster.provider import (
    BadRequest,
    BudgetExceeded,
    ImagePart,
    Limits,
    Message,
    ProviderFailed,
    ProviderRequest,
    ProviderResponse,
    ProviderTimeout,
    TokenUsage,
)
from muster.store.export import suite_cases, suite_text
from muster.store.journal import Journal
from muster.store.records import RunRecord
from muster.targets import TargetPool
from muster.teams.launch import launch
from muster.teams.preparing import LaunchOptions, prepare

HEAD = """
apiVersion: muster.dev/v1alpha1
kind: Team
metadata: {name: news}
spec:
  roles:
    - {name: research, model: mock-1, systemPrompt: Find.}
    - {name: write, model: mock-1, systemPrompt: Write.}
"""
TEAM = (
    HEAD
    + """
  pipeline:
    - {role: research, inputs: {task: "facts on {{ .input.topic }}"}}
    - {role: write, dependsOn: [research], inputs: {task: "about {{ .input.topic }}"}}
"""
)
SCRIPT = """
replies:
  - {role: research, text: Bees dance., usage: {input: 10, output: 5}, cost_usd: 0.25}
  - {role: write, contains: bees, text: They dance., usage: {input: 20, output: 7}, cost_usd: 0.5}
  - {role: write, text: They march., usage: {input: 20, output: 7}, cost_usd: 0.5}
"""


class Place:
    """A project with a team, a script and targets."""

    def __init__(self, folder: Path) -> None:
        (folder / ".muster").mkdir()
        self.folder = folder
        self.write("team.yaml", TEAM)
        self.write("script.yaml", SCRIPT)
        self.target()

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return path

    def target(self, *lines: str, script: bool = True) -> None:
        """`targets.yaml` with the target `news` and these further lines of its entry."""
        own = ["script: script.yaml"] if script else []
        entry = ["name: news", "provider: team", "file: team.yaml", *own, *lines]
        self.write("targets.yaml", "targets:\n  - " + "\n    ".join(entry) + "\n")

    def pool(self, **options: Any) -> TargetPool:
        return TargetPool(load_catalog(self.folder, env={}, **options))

    def ask(self, question: str, **more: Any) -> ProviderResponse:
        """One question to the target `news`."""

        async def go() -> ProviderResponse:
            pool = self.pool()
            try:
                request = ProviderRequest(question=question, **more)
                return await pool.open("news").provider.invoke(request)
            finally:
                await pool.aclose()

        return asyncio.run(go())

    def runs(self) -> list[RunRecord]:
        with Journal.open(self.folder / ".muster" / "runs.db") as journal:
            return journal.runs()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    folder = tmp_path / "project"
    folder.mkdir()
    return Place(folder)


def test_the_answer_is_the_teams_and_each_step_a_message(place: Place) -> None:
    place.target("input: topic")
    response = place.ask("bees")
    assert response.text == "They dance."
    assert response.token_usage == TokenUsage(30, 12)
    assert response.cost_usd == 0.75
    rows = [message.to_dict() for message in response.output]
    assert [(row.get("name"), row["content"]) for row in rows] == [
        ("research", "Bees dance."),
        ("write", "They dance."),
        (None, "They dance."),
    ]
    assert rows[1]["token_usage"] == {"input": 20, "output": 7}
    assert rows[1]["metadata"] == {
        "step": "write",
        "status": "succeeded",
        "agent": "news-write",
        "cost_usd": 0.5,
    }
    (run,) = place.runs()
    assert response.raw == {"run": run.id, "team": "news"}
    assert (run.input, run.status, run.shares_process) == ({"topic": "bees"}, "succeeded", True)


def test_what_sums_leave_out_is_told_beside_the_answer(place: Place) -> None:
    from click.testing import CliRunner

    from muster.cli.main import cli

    priced = TEAM.replace("research, model: mock-1", "research, target: priced")
    place.write("team.yaml", priced.replace("write, model: mock-1", "write, target: plain"))
    outer = HEAD.replace("news", "outer").replace("write, model: mock-1", "write, target: news")
    place.write("outer.yaml", f"{outer}  pipeline: [{{role: write, inputs: {{topic: bees}}}}]\n")
    replies = "[{text: Bees dance., usage: {input: 10, output: 5}, cost_usd: 0.25}]"
    place.write(
        "targets.yaml",
        "targets:\n"
        "  - {name: plain, provider: echo}\n"
        f"  - {{name: priced, provider: mock, replies: {replies}}}\n"
        "  - {name: news, provider: team, file: team.yaml, input: topic}\n"
        "  - {name: outer, provider: team, file: outer.yaml}\n",
    )
    response = place.ask("bees")
    assert (response.token_usage, response.cost_usd) == (None, 0.25)
    left_out = {"calls_without_usage": 1, "calls_without_cost": 1}
    assert response.output[-1].metadata == left_out
    case = "{id: LIMIT, input: x, assertions: [{type: execution-metrics, max_usd: LIMIT}]}"
    cases = [case.replace("LIMIT", limit) for limit in ("0.2", "0.3")]
    suite = place.write("s.eval.yaml", f"tests: [{', '.join(cases)}]\n")
    done = CliRunner().invoke(cli, ["eval", str(suite), "--target", "outer"])
    assert "  $0.5+  " in done.output
    (results,) = (place.folder / ".muster" / "results").glob("*/results.jsonl")
    rows = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    assert {row["test_id"]: (row["score"], row["error"]) for row in rows} == {
        "0.2": (0.0, None),  # more than that it was, whatever the rest cost
        "0.3": (
            None,
            'grader "execution-metrics": a part of the cost of this answer is not known',
        ),
    }
    assert rows[0]["messages"][-1]["metadata"] == left_out


def test_a_question_of_json_is_the_inputs_when_the_team_has_them(place: Place) -> None:
    assert place.ask('{"topic": "bees"}').text == "They dance."
    place.target("input: topic")
    place.ask('{"other": 1}')
    assert [run.input for run in reversed(place.runs())] == [
        {"topic": "bees"},
        {"topic": '{"other": 1}'},
    ]


def test_further_inputs_stand_beside_the_question(place: Place) -> None:
    place.target("input: topic", "inputs: {tone: dry}")
    place.ask("ants")
    assert place.runs()[0].input == {"tone": "dry", "topic": "ants"}


def test_what_was_said_before_is_told_and_steps_of_earlier_turns_are_not(place: Place) -> None:
    place.target("input: topic")
    first = place.ask("bees")
    place.ask("ants?", messages=(Message("user", "bees"), *first.output), system_prompt="Short.")
    assert place.runs()[0].input == {
        "topic": "@[System]:\nShort.\n\n@[User]:\nbees\n\n@[Assistant]:\nThey dance.\n\n"
        "@[User]:\nants?"
    }


def test_images_are_refused(place: Place) -> None:
    with pytest.raises(BadRequest, match=r"does not support images, and the request has 1 image"):
        place.ask("bees", images=(ImagePart("data:image/png;base64,AA=="),))


@pytest.mark.parametrize(
    ("lines", "script", "kind", "told"),
    [
        (
            [],
            "replies: [{role: research, error: {kind: bad_request, message: no such thing}}]",
            ProviderFailed,
            'step "research": no such thing',
        ),
        (["max_tokens: 60"], SCRIPT, BudgetExceeded, 'step "write": token budget of 60'),
        (["budget_usd: 0.2"], SCRIPT, BudgetExceeded, "budget of $0.2 exceeded"),
        (
            ["timeout_seconds: 0.05"],
            "replies: [{role: research, text: late, delay: 30}]",
            ProviderTimeout,
            "run exceeded timeout of 0.05s",
        ),
    ],
)
def test_how_a_run_failed_is_typed_and_names_the_run(
    place: Place, lines: list[str], script: str, kind: type[Exception], told: str
) -> None:
    place.write("script.yaml", script)
    place.target("input: topic", *lines)
    with pytest.raises(kind) as caught:
        place.ask("bees")
    assert type(caught.value) is kind
    (run,) = place.runs()
    assert told in str(caught.value)
    assert str(caught.value).endswith(f"(run {run.id})")
    assert run.status == "failed"


def test_what_a_failed_run_has_used_is_counted(place: Place) -> None:
    place.write(
        "script.yaml",
        "replies:\n"
        "  - {role: research, text: x, usage: {input: 10, output: 5}, cost_usd: 0.25}\n"
        "  - {role: write, error: bad_request}\n",
    )
    with pytest.raises(ProviderFailed) as caught:
        place.ask('{"topic": "bees"}')
    assert caught.value.token_usage == TokenUsage(10, 5)
    assert caught.value.cost_usd == 0.25
    assert not caught.value.retryable


def test_a_request_bounds_its_own_run(place: Place) -> None:
    with pytest.raises(BudgetExceeded, match='step "write": token budget of 60 of the request'):
        place.ask('{"topic": "bees"}', limits=Limits(max_total_tokens=60))


def test_a_request_bounds_the_money_of_its_own_run(place: Place) -> None:
    with pytest.raises(BudgetExceeded, match=r'step "write": budget of \$0.2 exceeded: spent'):
        place.ask('{"topic": "bees"}', limits=Limits(max_cost_usd=0.2))


def test_a_missing_input_asks_nobody(place: Place) -> None:
    text = TEAM + "  inputs: [{name: topic, required: true}, {name: year, required: true}]\n"
    place.write("team.yaml", text)
    with pytest.raises(BadRequest, match='input "year" is required'):
        place.ask("bees")
    assert not (place.folder / ".muster" / "runs.db").exists()


def test_who_is_cancelled_leaves_a_cancelled_run(place: Place) -> None:
    place.write("script.yaml", "replies: [{role: research, text: late, delay: 60}]")

    async def go() -> None:
        pool = place.pool()
        provider = pool.open("news").provider
        task = asyncio.ensure_future(provider.invoke(ProviderRequest(question='{"topic": "bees"}')))
        journal = Journal.open(place.folder / ".muster" / "runs.db")
        async with asyncio.timeout(10):
            while not (journal.runs() and journal.steps(journal.runs()[0].id)):
                await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        journal.close()
        await pool.aclose()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(go())
    (run,) = place.runs()
    assert (run.status, run.reason, run.error) == ("cancelled", "Cancelled", "who asked gave up")


def test_many_questions_share_agents_and_journal(place: Place) -> None:
    place.target("input: topic")

    async def go() -> list[str]:
        pool = place.pool()
        provider = pool.open("news").provider
        topics = ["bees", "ants"] * 10
        try:
            asked = (provider.invoke(ProviderRequest(question=topic)) for topic in topics)
            return [response.text for response in await asyncio.gather(*asked)]
        finally:
            await pool.aclose()

    assert asyncio.run(go()) == ["They dance.", "They march."] * 10
    assert len({run.id for run in place.runs()}) == 20


# --- targets of agents --------------------------------------------------------------------------


def test_a_role_may_be_a_target_of_the_same_file(place: Place) -> None:
    place.write("team.yaml", TEAM.replace("name: write, model: mock-1", "name: write, target: e"))
    place.target("input: topic", script=False)
    targets = (place.folder / "targets.yaml").read_text(encoding="utf-8")
    more = "    provider_for_all: auto\n  - {name: e, provider: echo}\n"
    named = place.folder / "mine.yaml"
    named.write_text(targets + more, encoding="utf-8")
    (place.folder / "targets.yaml").unlink()

    async def go() -> str:
        pool = place.pool(explicit=named)
        try:
            response = await pool.open("news").provider.invoke(ProviderRequest(question="bees"))
            assert response.token_usage is None  # the echo's is unknown, and so is that of all
            return response.text
        finally:
            await pool.aclose()

    assert asyncio.run(go()) == "task: about bees\n"


def test_another_team_may_be_the_target_of_an_agent(place: Place) -> None:
    outer = TEAM.replace("name: write, model: mock-1", "name: write, target: inner")
    place.write("outer.yaml", outer.replace("{name: news}", "{name: outer}"))
    place.write(
        "targets.yaml",
        "targets:\n"
        "  - {name: news, provider: team, file: outer.yaml, input: topic}\n"
        "  - {name: inner, provider: team, file: team.yaml, input: topic, script: script.yaml}\n",
    )
    response = place.ask("bees")
    assert response.text == "They dance."
    told = response.output[1]
    assert (told.name, told.token_usage) == ("write", TokenUsage(30, 12))
    inner, outer_run = place.runs()
    assert (inner.team, inner.parent) == ("news", outer_run.id)


def test_a_team_that_is_its_own_target_is_an_error(place: Place) -> None:
    place.write(
        "team.yaml", TEAM.replace("name: write, model: mock-1", "name: write, target: news")
    )
    place.target(script=False)
    with pytest.raises(ConfigError, match="a team cannot be the target of an agent of its own"):
        place.pool().open("news")


def test_two_teams_that_are_each_others_targets_are_an_error(place: Place) -> None:
    for name, other in (("a", "b"), ("b", "a")):
        text = TEAM.replace("name: write, model: mock-1", f"name: write, target: {other}")
        place.write(f"{name}.yaml", text.replace("{name: news}", f"{{name: {name}}}"))
    place.write(
        "targets.yaml",
        "targets:\n  - {name: a, provider: team, file: a.yaml}\n"
        "  - {name: b, provider: team, file: b.yaml}\n",
    )
    with pytest.raises(MusterError, match="a team cannot be the target of an agent of its own"):
        place.pool().open("a")


# --- what is wrong is told before anything is asked ---------------------------------------------


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("input: topik", 'input: team "news" has no input "topik" (did you mean "topic"?)'),
        ("team: nws", 'team "nws" not found; available: [news] (did you mean "news"?)'),
        ("max_token: 3", "max_token"),
        ("target_for_all: nobody", 'target "nobody" not found'),
    ],
)
def test_wrong_settings_name_their_place(place: Place, line: str, told: str) -> None:
    place.write("team.yaml", TEAM + "  inputs: [{name: topic}]\n")
    place.target(line, script=not line.startswith("target_for_all"))
    with pytest.raises(MusterError) as caught:
        place.pool().open("news")
    assert told in str(caught.value)
    assert "targets.yaml:" in str(caught.value)


def test_a_broken_manifest_is_told_with_its_line(place: Place) -> None:
    place.write("team.yaml", TEAM.replace("role: write", "role: wrte"))
    with pytest.raises(ConfigError, match=r"team\.yaml:12:\d+: .*wrte"):
        place.pool().open("news")


def test_safe_refuses_what_the_manifest_would_run(place: Place) -> None:
    server = "{name: write, model: mock-1, mcpServers: [{name: s, command: [x]}]"
    place.write("team.yaml", TEAM.replace("{name: write, model: mock-1", server))
    with pytest.raises(ConfigError, match="commands are not run in safe mode"):
        place.pool(safe=True).open("news")


# --- muster eval --------------------------------------------------------------------------------


def test_exported_runs_are_measured_by_muster_eval(place: Place) -> None:
    from click.testing import CliRunner

    from muster.cli.main import cli

    for topic in ("bees", "ants"):
        from muster.teams.mock_script import read_script

        mock = read_script(place.folder / "script.yaml").settings
        options = LaunchOptions(
            file=place.folder / "team.yaml", inputs={"topic": topic}, provider="mock", mock=mock
        )
        asyncio.run(launch(prepare(options)))
    with Journal.open(place.folder / ".muster" / "runs.db") as journal:
        runs = journal.runs()
        suite = place.folder / "again.eval.yaml"
        suite.write_text(suite_text(suite_cases(journal, runs), suite), encoding="utf-8")
    done = CliRunner().invoke(cli, ["eval", str(suite), "--target", "news"])
    assert done.exit_code == 0, done.output
    (results,) = (place.folder / ".muster" / "results").glob("*/results.jsonl")
    rows = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    assert sorted((row["output"], row["score"]) for row in rows) == [
        ("They dance.", 1.0),
        ("They march.", 1.0),
    ]
    assert rows[0]["token_usage"] == {"input": 30, "output": 12}
    assert [(m.get("name"), m.get("token_usage")) for m in rows[0]["messages"]] == [
        ("research", {"input": 10, "output": 5}),
        ("write", {"input": 20, "output": 7}),
        (None, None),
    ]
    assert sorted(str(run.trigger) for run in place.runs()) == ["None", "None", "eval", "eval"]

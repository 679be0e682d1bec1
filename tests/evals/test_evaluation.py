from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import muster
from eval_parts import Asked, cases, grader, make_case, make_suite, takes
from muster.errors import MusterError, UsageError
from muster.evals.case import Case, Suite
from muster.evals.evaluation import Evaluation, run
from muster.evals.plan import EvalOptions, Plan
from muster.evals.planning import prepare
from muster.evals.results import CaseResult, read_results, read_run, run_lock
from muster.evals.summary import RunTotals
from muster.provider import ProviderFailed, ProviderResponse


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    return


def plan_of(*suites: Suite, environ: dict[str, str] | None = None, **options: Any) -> Plan:
    """On the target `t`, unless `given` names others."""
    given = options.pop("given", None) or {"t": Asked()}
    asked = EvalOptions(**({"targets": tuple(given)} | options))
    return prepare(asked, suites=suites, given=given, environ=environ or {})


def evaluate(plan: Plan, **options: Any) -> Evaluation:
    return asyncio.run(run(plan, **options))


def ids(folder: Path) -> list[str]:
    return [result.test_id for result in read_results(folder)]


# --- the record -----------------------------------------------------------------------------------


def test_the_record_of_a_run(tmp_path: Path) -> None:
    suite = make_suite(*cases("a", "b"), name="first suite", skipped=("x: bad",), content_hash="77")
    ended = evaluate(plan_of(suite, output=tmp_path / "run", workers=2, threshold=0.5))
    record = read_run(tmp_path / "run")
    assert record == json.loads(json.dumps(ended.record))
    times = [record.pop("started_at"), record.pop("ended_at")]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", at) for at in times)
    assert record.pop("judges") == []
    assert record.pop("totals") == json.loads(json.dumps(ended.outcome.totals.to_dict()))
    assert record.pop("versions")["muster"] == muster.__version__
    options = record.pop("options")
    assert (options["workers"], options["threshold"], options["targets"]) == (2, 0.5, ["t"])
    assert options["output"] == str(tmp_path / "run")
    assert options["selection"] == {
        "tags": [],
        "exclude_tags": [],
        "test_ids": [],
        "filters": [],
    }
    assert record == {
        "schema_version": 1,
        "run_id": "run",
        "status": "complete",
        "git_commit": None,
        "suites": [
            {
                "name": "first suite",
                "path": None,
                "eval_path": None,
                "cases": 2,
                "content_hash": "77",
                "skipped": ["x: bad"],
            }
        ],
        "targets": [
            {
                "name": "t",
                "provider": "Asked",
                "config": {},
                "fallback_targets": [],
                "judge_target": None,
            }
        ],
        "graded_from": None,
        "resumed_at": [],
        "spent_on_retried_usd": {},
        "cwd": str(tmp_path),
        "planned": 2,
        "not_run": 0,
        "stopping": [],
    }


def test_the_record_is_there_before_the_first_call(tmp_path: Path) -> None:
    seen: list[tuple[str, Any, int]] = []

    def reply(request: Any) -> str:
        record = read_run(tmp_path / "run")
        seen.append((record["status"], record["not_run"], record["planned"]))
        return "x"

    evaluate(plan_of(make_suite(*cases("a")), given={"t": Asked(reply)}, output=tmp_path / "run"))
    assert seen == [("running", None, 1)]


def test_the_observer_is_made_with_what_is_to_come(tmp_path: Path) -> None:
    told: list[Any] = []

    class Watching:
        def on_result(self, result: CaseResult) -> None:
            told.append(result.test_id)

    def observe(planned: int, totals: RunTotals) -> Watching:
        told.append((planned, totals.count))
        return Watching()

    evaluate(plan_of(make_suite(*cases("a", "b")), repeat=2, workers=1), observe=observe)
    assert told == [(4, 0), "a", "a", "b", "b"]


def test_secrets_of_targets_and_environment_are_in_no_file(tmp_path: Path) -> None:
    (tmp_path / "targets.yaml").write_text(
        "targets: [{name: default, provider: http, url: 'http://127.0.0.1:9/${{ PLACE }}', "
        "headers: {authorization: 'Bearer ${{ HIDDEN_ONE }}'}, max_retries: 0}]"
    )
    environ = {"HIDDEN_ONE": "abcd-secret-1", "SOME_API_KEY": "abcd-secret-2", "PLACE": "here"}
    spoken = [" ".join(environ.values())] * 2
    case = make_case("a", input=(muster.Message("user", spoken[0]),), metadata={"x": spoken[1]})
    options = EvalOptions(output=tmp_path / "run")
    made = prepare(options, suites=[make_suite(case)], environ=environ)

    async def main() -> Evaluation:
        try:
            return await run(made)
        finally:
            await made.aclose()

    asyncio.run(main())
    text = "".join(path.read_text() for path in (tmp_path / "run").iterdir())
    assert "abcd-secret" not in text
    assert "here" in text
    (result,) = read_results(tmp_path / "run")
    assert result.input == "********** ********** here"
    assert read_run(tmp_path / "run")["targets"][0]["config"]["headers"] == {
        "authorization": "**********"
    }


# --- folders --------------------------------------------------------------------------------------


def test_folders_are_named_after_time_and_suite_and_are_never_shared(tmp_path: Path) -> None:
    suite = make_suite(*cases("a"), name="a/strange: näme " + "x" * 60)
    folders = [evaluate(plan_of(suite)).folder for _ in range(3)]
    assert len(set(folders)) == 3
    for folder in folders:
        assert folder.parent == tmp_path / ".muster" / "results"
        pattern = r"\d{8}-\d{6}-a-strange-näme-x{25}(-[23])?"
        assert re.fullmatch(pattern, folder.name)
        assert ids(folder) == ["a"]


def test_a_folder_that_holds_a_run_is_refused(tmp_path: Path) -> None:
    plan = plan_of(make_suite(*cases("a")), output=tmp_path / "run")
    evaluate(plan)
    with pytest.raises(UsageError) as caught:
        evaluate(plan)
    assert str(caught.value) == (
        f"{tmp_path}/run holds a run already: choose another folder, or continue it "
        f"with --resume {tmp_path}/run"
    )
    assert ids(tmp_path / "run") == ["a"]


def test_an_empty_folder_is_used_and_parents_are_made(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("empty", "deep/down/run"):
        evaluate(plan_of(make_suite(*cases("a")), output=tmp_path / name))
        assert ids(tmp_path / name) == ["a"]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"file/run: cannot be made: Not a directory"):
        evaluate(plan_of(make_suite(*cases("a")), output=tmp_path / "file" / "run"))


def test_another_process_writes_the_folder(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    provider = Asked()
    plan = plan_of(make_suite(*cases("a")), given={"t": provider}, output=tmp_path / "run")
    with (
        run_lock(tmp_path / "run"),
        pytest.raises(UsageError, match="another process is writing this run"),
    ):
        evaluate(plan)
    assert provider.requests == []
    assert list((tmp_path / "run").iterdir()) == []


# --- workers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "suite", "cases_", "most"),
    [(None, None, 20, 8), (None, 3, 20, 3), (5, 3, 20, 5), (None, None, 4, 4), (50, None, 20, 20)],
)
def test_how_many_work(asked: int | None, suite: int | None, cases_: int, most: int) -> None:
    provider = takes(0.001)
    made = make_suite(*cases(*map(str, range(cases_))), max_concurrency=suite)
    evaluate(plan_of(made, given={"t": provider}, workers=asked))
    assert provider.most == most


def test_the_workers_of_a_target(tmp_path: Path) -> None:
    (tmp_path / "targets.yaml").write_text(
        "targets: [{name: slow, provider: function, function: 'agent_of_two:ask', workers: 2}]"
    )
    (tmp_path / "agent_of_two.py").write_text(
        "import asyncio\nbusy, most = 0, 0\n"
        "async def ask(question):\n    global busy, most\n    busy += 1\n"
        "    most = max(most, busy)\n    await asyncio.sleep(0.001)\n    busy -= 1\n"
        "    return str(most)\n"
    )
    options = EvalOptions(targets=("slow",))
    made = prepare(options, suites=[make_suite(*cases(*"abcdef"))], environ={})
    results = list(read_results(evaluate(made).folder))
    assert max(result.output or "" for result in results) == "2"


# --- how it ends ----------------------------------------------------------------------------------


def interrupted(plan: Plan, *, politely: bool) -> tuple[Evaluation | None, asyncio.Task[Any]]:
    async def main() -> tuple[Evaluation | None, asyncio.Task[Any]]:
        stop, first = asyncio.Event(), asyncio.Event()

        class First:
            def on_result(self, result: CaseResult) -> None:
                first.set()

        task = asyncio.create_task(run(plan, observe=lambda *_: First(), stop=stop))
        await first.wait()
        if politely:
            stop.set()
        task.cancel()
        try:
            return await task, task
        except asyncio.CancelledError:
            return None, task

    return asyncio.run(main())


def one_quick() -> Asked:
    async def reply(request: Any) -> str:
        await asyncio.sleep(0 if request.question == "a" else 60)
        return "x"

    return Asked(reply)


@pytest.mark.parametrize("politely", [True, False])
def test_an_interrupted_run_leaves_a_whole_record(tmp_path: Path, politely: bool) -> None:
    provider = one_quick()
    plan = plan_of(make_suite(*cases(*"abc")), given={"t": provider}, output=tmp_path / "run")
    ended, task = interrupted(plan, politely=politely)
    record = read_run(tmp_path / "run")
    assert (record["status"], record["not_run"], record["totals"]["results"]) == (
        "interrupted",
        2,
        1,
    )
    assert record["ended_at"] is not None
    assert ids(tmp_path / "run") == ["a"]
    assert provider.under_way == 0
    if politely:
        assert ended is not None
        assert ended.outcome.status == "interrupted"
        assert task.cancelling() == 0
    else:
        assert task.cancelled()
    with run_lock(tmp_path / "run"):
        pass


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"timeout": 0.02}, "timed_out"),
        ({"budget_usd": 0.1}, "budget_exceeded"),
        ({"fail_on_error": True}, "failed"),
    ],
)
def test_runs_that_end_early(tmp_path: Path, options: dict[str, Any], status: str) -> None:
    async def reply(request: Any) -> ProviderResponse:
        if "timeout" in options and request.question != "a":
            await asyncio.sleep(60)
        if "fail_on_error" in options:
            raise ProviderFailed("no")
        return ProviderResponse("x", cost_usd=0.1)

    plan = plan_of(make_suite(*cases(*"abc")), given={"t": Asked(reply)}, workers=1, **options)
    ended = evaluate(plan)
    assert ended.outcome.status == status
    record = read_run(ended.folder)
    assert (record["status"], record["not_run"], ids(ended.folder)) == (status, 2, ["a"])


def test_a_disk_that_fills_up(tmp_path: Path) -> None:
    def reply(request: Any) -> str:
        results = tmp_path / "run" / "results.jsonl"
        if request.question == "b":
            full = Path("/dev/full")
            if not full.exists():
                pytest.skip("there is no /dev/full")
            fds = [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]
            (mine,) = [fd for fd in fds if _is(fd, results)]
            with full.open("w") as target:
                os.dup2(target.fileno(), mine)
        return "x"

    suite = make_suite(*cases(*"abcd"))
    plan = plan_of(suite, given={"t": Asked(reply)}, workers=1, output=tmp_path / "run")
    with pytest.raises(MusterError, match=r"results\.jsonl: cannot be written: No space left"):
        evaluate(plan)
    assert ids(tmp_path / "run") == ["a"]
    record = read_run(tmp_path / "run")
    assert (record["status"], record["not_run"]) == ("interrupted", 3)


def _is(fd: int, path: Path) -> bool:
    try:
        return Path(f"/proc/self/fd/{fd}").resolve() == path
    except OSError:
        return False


def test_repeats_widen_the_interval() -> None:
    def half(context: Any) -> float:
        return 1.0 if context.case.id == "a" else 0.0

    suite = make_suite(*(make_case(name, graders=(grader(half),)) for name in "ab"))

    def width(**options: Any) -> float:
        target = evaluate(plan_of(suite, **options)).outcome.totals.targets["t"]
        assert target.interval is not None
        return target.interval[1] - target.interval[0]

    # Ten repeats of two cases that always go the same way tell no more than two cases.
    assert width(repeat=10) >= width() - 1e-9


def test_results_come_in_the_order_they_end() -> None:
    async def reply(request: Any) -> str:
        await asyncio.sleep({"a": 0.03, "b": 0.015, "c": 0}[request.question])
        return "x"

    case_list: list[Case] = cases(*"abc")
    ended = evaluate(plan_of(make_suite(*case_list), given={"t": Asked(reply)}))
    assert ids(ended.folder) == ["c", "b", "a"]

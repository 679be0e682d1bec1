from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eval_parts import Asked, cases, make_case, make_suite
from muster.errors import MusterError, UsageError
from muster.evals.case import Suite
from muster.evals.evaluation import Evaluation, run
from muster.evals.plan import EvalOptions, Plan
from muster.evals.planning import prepare
from muster.evals.results import CaseResult, read_results, read_run, write_run
from muster.evals.resume import resumed_options
from muster.evals.selection import Selection
from muster.evals.summary import RunTotals
from muster.provider import ProviderFailed, ProviderRequest, ProviderResponse

STARTED = "2020-01-01T00:00:00+00:00"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    return


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


class Flaky(Asked):
    """Fails for the questions in `down`; each call costs 0.1."""

    def __init__(self, *down: str) -> None:
        self.down = set(down)
        super().__init__(self._reply)

    def _reply(self, request: ProviderRequest) -> ProviderResponse:
        if request.question in self.down:
            raise ProviderFailed("down", cost_usd=0.1)
        return ProviderResponse("x", cost_usd=0.1)


def plan_of(*suites: Suite, given: dict[str, Any], **options: Any) -> Plan:
    asked = EvalOptions(**({"targets": tuple(given), "workers": 1} | options))
    return prepare(asked, suites=suites, given=given, environ={})


def begin(folder: Path, *suites: Suite, **options: Any) -> Evaluation:
    return asyncio.run(run(plan_of(*suites, output=folder, **options)))


def go_on(folder: Path, *suites: Suite, **options: Any) -> Evaluation:
    observe = options.pop("observe", None)
    return asyncio.run(run(plan_of(*suites, **options), resume=folder, observe=observe))


def statuses(folder: Path) -> dict[str, str]:
    found = [(result.test_id, result.execution_status) for result in read_results(folder)]
    assert len(dict(found)) == len(found)
    return dict(found)


# --- going on -------------------------------------------------------------------------------------


def test_errors_are_tried_again_and_the_rest_is_kept(folder: Path) -> None:
    suite = make_suite(make_case("low", threshold=1.1), *cases("a", "b"))
    provider = Flaky("a")
    begin(folder, suite, given={"t": provider})
    write_run(folder, read_run(folder) | {"started_at": STARTED})
    provider.down.clear()
    told: list[Any] = []

    class Watching:
        def on_result(self, result: CaseResult) -> None:
            told.append(result.test_id)

    def observe(planned: int, totals: RunTotals) -> Watching:
        told.append((planned, totals.count))
        return Watching()

    ended = go_on(folder, suite, given={"t": provider}, observe=observe)
    assert statuses(folder) == {"low": "quality_failure", "b": "ok", "a": "ok"}
    assert provider.questions == ["low", "a", "b", "a"]
    assert told == [(3, 2), "a"]
    assert ended.folder == folder
    totals = ended.outcome.totals
    assert (totals.count, totals.errors, totals.quality_failures) == (3, 0, 1)
    record = read_run(folder)
    assert (record["status"], record["not_run"], record["started_at"]) == ("complete", 0, STARTED)
    assert len(record["resumed_at"]) == 1
    # The totals are of the results; the call that failed was paid for all the same.
    assert record["totals"]["cost_usd"] == pytest.approx(0.3)
    assert record["spent_on_retried_usd"] == {"s": 0.1}


def test_again_and_again(folder: Path) -> None:
    suite, provider = make_suite(*cases("a", "b")), Flaky("a")
    begin(folder, suite, given={"t": provider})
    for count in (1, 2):
        go_on(folder, suite, given={"t": provider})
        record = read_run(folder)
        assert len(record["resumed_at"]) == count
        assert record["spent_on_retried_usd"] == {"s": pytest.approx(count * 0.1)}
    provider.down.clear()
    go_on(folder, suite, given={"t": provider})
    assert provider.questions == ["a", "b", "a", "a", "a"]
    go_on(folder, suite, given={"t": provider})  # there is nothing left to do
    assert len(provider.questions) == 5
    assert statuses(folder) == {"a": "ok", "b": "ok"}


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_cut_off_anywhere_each_result_is_there_once(tmp_path: Path, data: st.DataObject) -> None:
    folder = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
    suites = [
        make_suite(*cases(*"abc", repeat=2, suite="s1"), name="s1"),
        make_suite(*cases(*"de", suite="s2"), name="s2"),
    ]
    down = sorted(data.draw(st.sets(st.sampled_from("abcde"))))
    begin(folder, *suites, given={"x": Flaky(*down), "y": Flaky()})
    path = folder / "results.jsonl"
    whole = path.read_bytes()
    torn = whole[: round(data.draw(st.floats(0, 1)) * len(whole))]
    path.write_bytes(torn)
    write_run(folder, read_run(folder) | {"status": "running", "ended_at": None})
    providers = {"x": Flaky(), "y": Flaky()}
    go_on(folder, *suites, given=providers)
    keys = sorted(result.key for result in read_results(folder))
    expected = [
        (suite.name, case.id, None, target, repeat)
        for suite in suites
        for case in suite.cases()
        for target in "xy"
        for repeat in range(case.repeat)
    ]
    assert keys == sorted(expected)
    assert all(result.passed for result in read_results(folder))
    complete = torn[: torn.rfind(b"\n") + 1].splitlines()
    kept = sum(json.loads(line)["execution_status"] == "ok" for line in complete)
    asked = sum(len(provider.requests) for provider in providers.values())
    assert asked == len(expected) - kept


def test_the_budget_counts_what_was_spent_before_and_on_errors(folder: Path) -> None:
    suite, provider = make_suite(*cases(*"abcdef")), Flaky("a", "b")
    begin(folder, suite, given={"t": provider}, budget_usd=0.35)
    assert provider.questions == [*"abcd"]
    ended = go_on(folder, suite, given={"t": provider}, budget_usd=0.35)
    assert (ended.outcome.status, len(provider.requests)) == ("budget_exceeded", 4)
    # Both errors are dropped, and still 0.4 is spent.
    assert statuses(folder) == {"c": "ok", "d": "ok"}
    provider.down.clear()
    ended = go_on(folder, suite, given={"t": provider}, budget_usd=0.55)
    assert (ended.outcome.status, provider.questions[4:]) == ("budget_exceeded", ["a", "b"])
    assert read_run(folder)["spent_on_retried_usd"] == {"s": pytest.approx(0.2)}


def test_dependencies_know_how_the_earlier_part_ended(folder: Path) -> None:
    suite = make_suite(*cases("a", "b"), make_case("c", depends_on=("a",)))
    provider = Flaky("c", "b")
    begin(folder, suite, given={"t": provider})
    provider.down.clear()
    go_on(folder, suite, given={"t": provider})
    assert statuses(folder) == {"a": "ok", "b": "ok", "c": "ok"}
    assert provider.questions == ["a", "b", "c", "b", "c"]


def test_skipped_cases_are_run_once_their_dependency_is_well(folder: Path) -> None:
    suite = make_suite(make_case("c", depends_on=("a",)), *cases("a"))
    provider = Flaky("a")
    begin(folder, suite, given={"t": provider})
    assert statuses(folder) == {"a": "execution_error", "c": "execution_error"}
    provider.down.clear()
    go_on(folder, suite, given={"t": provider})
    assert statuses(folder) == {"a": "ok", "c": "ok"}


def test_suites_of_one_name_in_different_folders(folder: Path, tmp_path: Path) -> None:
    for part in ("one", "two"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "a.eval.yaml").write_text(
            f"assertions: [{{type: contains, value: x}}]\ntests: [{{id: same, input: {part}}}]"
        )
    provider = Flaky("two")
    asked = EvalOptions(paths=("one", "two"), targets=("t",), output=folder)
    for resume in (None, folder):
        made = prepare(asked, given={"t": provider}, environ={})
        asyncio.run(run(made, resume=resume))
        provider.down.clear()
    found = [(result.eval_path, result.execution_status) for result in read_results(folder)]
    # Each folder is a project of its own here.
    assert found == [("a.eval.yaml", "ok"), ("../two/a.eval.yaml", "ok")]
    assert provider.questions == ["one", "two", "two"]


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suites", "targets", "why"),
    [
        (
            [make_suite(*cases("a"), content_hash="new")],
            "t",
            'suite "s" is not what it was when the run began; results of both would be mixed. '
            "Start a new run instead.",
        ),
        (
            [make_suite(*cases("a"), name="z")],
            "t",
            'the run is also of suite "s", not asked for now',
        ),
        (
            [make_suite(*cases("a")), make_suite(*cases("a"), name="z")],
            "t",
            'the run is not of suite "z"; start a new one for it',
        ),
        ([make_suite(*cases("a"))], "u", 'the run is also of target "t", not asked for now'),
        ([make_suite(*cases("a"))], "tu", 'the run is not of target "u"; start a new one for it'),
    ],
    ids=["changed", "other suite", "one suite more", "other target", "one target more"],
)
def test_other_suites_and_targets(
    folder: Path, suites: list[Suite], targets: str, why: str
) -> None:
    begin(folder, make_suite(*cases("a")), given={"t": Asked()})
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    provider = Asked()
    with pytest.raises(UsageError) as caught:
        go_on(folder, *suites, given=dict.fromkeys(targets, provider))
    assert str(caught.value) == f"{folder}: {why}"
    assert provider.requests == []
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("gone", ["run.json", "results.jsonl"])
def test_a_folder_without_a_run(folder: Path, gone: str) -> None:
    suite = make_suite(*cases("a"))
    begin(folder, suite, given={"t": Asked()})
    (folder / gone).unlink()
    with pytest.raises(UsageError, match=f"run: no {gone} there; is it the folder of a run"):
        go_on(folder, suite, given={"t": Asked()})


# --- options --------------------------------------------------------------------------------------


def started(folder: Path, **options: Any) -> None:
    begin(folder, make_suite(*cases("a", "b")), given={"t": Asked()}, **options)


def test_what_is_not_said_is_as_the_run_was_started_with(folder: Path, tmp_path: Path) -> None:
    asked = {
        "paths": ("x.yaml", "y.yaml"),
        "targets_file": Path("some/targets.yaml"),
        "selection": Selection(test_ids=("a",)),
        "limit": 7,
        "repeat": 2,
        "threshold": 0.3,
        "budget_usd": 5.0,
        "timeout": 60.0,
        "case_timeout": 9.0,
        "max_retries": 1,
        "skip_invalid": True,
        "fail_on_error": True,
    }
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "targets.yaml").write_text("targets: [{name: x, provider: mock}]")
    started(folder, **asked)
    options, cwd = resumed_options(folder, EvalOptions())
    assert options == EvalOptions(targets=("t",), workers=1, **asked)
    assert cwd == tmp_path


def test_bounds_and_workers_can_be_changed(folder: Path) -> None:
    started(folder, budget_usd=5.0, timeout=60.0)
    asked = EvalOptions(
        workers=9, budget_usd=7.0, timeout=1.0, case_timeout=2.0, max_retries=3, fail_on_error=True
    )
    options, _ = resumed_options(folder, asked)
    assert (options.workers, options.budget_usd, options.timeout) == (9, 7.0, 1.0)
    assert (options.case_timeout, options.max_retries, options.fail_on_error) == (2.0, 3, True)
    assert options.targets == ("t",)


def test_zero_can_be_asked_for(folder: Path) -> None:
    started(folder, max_retries=3, budget_usd=5.0)
    options, _ = resumed_options(folder, EvalOptions(max_retries=0, budget_usd=0.0))
    assert (options.max_retries, options.budget_usd) == (0, 0.0)


@pytest.mark.parametrize(
    ("changed", "option"),
    [
        ({"targets": ("other",)}, "--target"),
        ({"selection": Selection(tags=("x",))}, "--tag, --test-id or --filter"),
        ({"limit": 3}, "--limit"),
        ({"repeat": 5}, "--repeat"),
        ({"threshold": 0.9}, "--threshold"),
        ({"threshold": 0.0}, "--threshold"),
    ],
)
def test_which_results_the_run_is_of_cannot_be_changed(
    folder: Path, changed: dict[str, Any], option: str
) -> None:
    started(folder, limit=2, threshold=0.5)
    with pytest.raises(UsageError) as caught:
        resumed_options(folder, EvalOptions(**changed))
    assert str(caught.value) == (
        f"{folder}: the run was started with another {option}; a run is gone on with as it was "
        "started. Start a new one instead."
    )


def test_the_same_again_is_no_change(folder: Path) -> None:
    started(folder, limit=2, threshold=0.5)
    asked = EvalOptions(targets=("t",), limit=2, threshold=0.5)
    assert resumed_options(folder, asked)[0].limit == 2


def test_paths_that_are_named_are_seen_from_here(folder: Path) -> None:
    started(folder, paths=("old.yaml",))
    options, cwd = resumed_options(folder, EvalOptions(paths=("../new.yaml",)))
    assert (options.paths, cwd) == (("../new.yaml",), None)


@pytest.mark.parametrize(
    "record",
    [{}, {"options": {"selection": 3}}, {"options": {"selection": {}, "unknown": 1}, "cwd": "/"}],
)
def test_a_record_of_another_version(folder: Path, record: dict[str, Any]) -> None:
    folder.mkdir()
    write_run(folder, record)
    with pytest.raises(MusterError, match=r"its run\.json is of another version: "):
        resumed_options(folder, EvalOptions())

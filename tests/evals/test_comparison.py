from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats

from muster.errors import UsageError
from muster.evals.comparison import Comparison, Settings, compare, compare_all, gate, verdict
from muster.evals.pairing import Side
from muster.evals.scored import Scored, ScoredRun
from muster.evals.sides import choose_sides
from muster.evals.sizing import size_for
from muster.evals.stats import Estimate
from muster.evals.trend import trend_of

ERROR = {"execution_status": "execution_error"}


def result(test_id: str, score: float | None, **fields: Any) -> Scored:
    status = "ok" if (score or 0) >= 0.8 else "quality_failure"
    given = {"suite": "s", "target": "t", "execution_status": status, "score": score}
    return Scored(test_id=test_id, **(given | fields))


def a_run(name: str, *results: Scored, **fields: Any) -> ScoredRun:
    return ScoredRun(name=name, path=Path(name), kind="muster", results=list(results), **fields)


def side(run: ScoredRun, target: str = "t") -> Side:
    return Side(run, target, run.name)


def of(name: str, scores: dict[str, float | None], **fields: Any) -> Side:
    rows = [result(key, score, **(ERROR if score is None else {})) for key, score in scores.items()]
    return side(a_run(name, *rows, **fields))


# --- what is told ---------------------------------------------------------------------------------


def test_scores_are_paired_by_case() -> None:
    a = of("new", {"w": 1.0, "x": 0.5, "y": 0.2, "z": 0.9, "v": 0.4})
    b = of("old", {"v": 0.4, "z": 0.3, "y": 0.7, "x": 0.5, "w": 0.0})
    found = compare(a, b)
    assert (found.wins, found.losses, found.ties, found.cases) == (2, 1, 2, 5)
    differences = np.array([1.0, 0.0, -0.5, 0.6, 0.0])
    wanted = scipy.stats.ttest_1samp(differences, 0).confidence_interval()
    assert found.difference.value == pytest.approx(differences.mean())
    assert found.difference.interval == pytest.approx((wanted.low, wanted.high))
    assert found.gain is not None
    assert found.gain.value == pytest.approx((0.6 - 0.38) / (1 - 0.38))
    assert [change.test_id for change in found.changed] == ["w", "z", "y"]
    assert (found.a.mean_score.value, found.b.mean_score.value) == pytest.approx((0.6, 0.38))
    assert found.permutation_p == pytest.approx(4 / 8)  # sums of 2.1 and 1.1, of either sign
    assert found.verdict == "inconclusive"


@pytest.mark.parametrize(
    ("score", "bars", "told"),
    [(0.7, (0.5, 0.9), True), (1.0, (0.5, 0.9), False), (0.7, (0.5, 0.5), False),
     (0.0, (0.0, 0.9), True), (0.7, (0.5, None), False)],
)  # fmt: skip
def test_sides_that_pass_from_other_scores_are_not_taken_for_better(
    score: float, bars: tuple[float, float | None], told: bool
) -> None:
    a, b = (
        side(a_run(name, *(result(str(n), score, threshold=bar) for n in range(20))))
        for name, bar in zip(("new", "old"), bars, strict=True)
    )
    found = compare(a, b)
    assert (found.mcnemar_p is None) == told
    wanted = f"cases pass from {bars[0]:g} on in new, from {bars[1] or 0:g} on in old: pass rates "
    assert any(note.startswith(wanted) for note in found.notes) == told


@pytest.mark.parametrize(
    ("judges", "told"),
    [
        (["j (m) 1"], None),
        (["j (m) 1", "j (m) 2"], None),
        (["j (m) 2"], "rubric: the judge, j (m), was not asked the same on both sides"),
        (["k 1"], "rubric was judged by j (m) in new, by k in old: the difference may be theirs"),
    ],
)
def test_another_judge_is_told_of(judges: list[str], told: str | None) -> None:
    a, b = of("new", {"x": 1.0, "y": 0.0}), of("old", {"x": 1.0, "y": 0.0})
    a.run.judges["t"] = {"rubric": ["j (m) 1"], "other": ["j (m) 1"]}
    b.run.judges["t"] = {"rubric": judges}
    assert compare(a, b).notes == ([] if told is None else [told])


def test_what_cannot_be_compared_is_named_and_no_zero() -> None:
    a = of("new", {"both": 1.0, "broke": None, "a only": 0.0, "down": 0.9})
    b = of("old", {"both": 0.0, "broke": 1.0, "down": None, "b only": 1.0})
    found = compare(a, b)
    assert (found.cases, found.wins, found.losses) == (1, 1, 0)
    assert [case.test_id for case in found.only_a] == ["a only"]
    assert [case.test_id for case in found.only_b] == ["b only"]
    assert [case.test_id for case in found.errored_a] == ["broke"]
    assert [case.test_id for case in found.errored_b] == ["down"]
    assert (found.error_results_a, found.error_results_b) == (1, 1)
    assert found.difference.interval is None
    assert found.verdict == "unknown"
    assert "one case: there is no spread to tell an interval from" in found.notes


def test_nothing_shared_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"new and old share no case.* 2 \(a, b\).* 1 \(c\)"):
        compare(of("new", {"a": 1.0, "b": 1.0}), of("old", {"c": 1.0}))
    with pytest.raises(UsageError, match="share 2 cases, but none has a score on both sides"):
        compare(of("new", {"a": None, "b": 1.0}), of("old", {"a": 1.0, "b": None}))


def test_repeats_are_averaged_and_do_not_count_as_cases() -> None:
    rows_a = [result(name, score, repeat=at) for name in "xy" for at, score in enumerate((1.0, 0))]
    rows_b = [result(name, 0.25) for name in "xy"]
    found = compare(side(a_run("new", *rows_a)), side(a_run("old", *rows_b)))
    assert (found.cases, found.a.results, found.difference.value) == (2, 4, 0.25)
    assert found.mcnemar_p is None
    assert found.mcnemar_why_not == "cases are repeated, and may pass now and then"
    assert found.a.pass_rate == 0.5


def test_clusters_widen_the_interval_and_take_mcnemar_away() -> None:
    rng = np.random.default_rng(1)
    values = np.repeat(rng.integers(0, 2, 12), 5).astype(float)

    def rows(scores: Any, clustered: bool) -> Side:
        names = [f"text {n // 5}" if clustered else None for n in range(60)]
        made = [result(str(n), float(scores[n]), cluster=names[n]) for n in range(60)]
        return side(a_run("new" if scores is values else "old", *made))

    zeros = np.zeros(60)
    plain = compare(rows(values, False), rows(zeros, False))
    found = compare(rows(values, True), rows(zeros, True))
    assert (plain.clusters, found.clusters) == (60, 12)
    assert plain.mcnemar_p is not None
    assert found.mcnemar_p is None
    widths = [np.subtract(*reversed(each.difference.interval or (0, 0))) for each in (plain, found)]
    assert widths[1] > 1.8 * widths[0]
    assert found.permutation_p > plain.permutation_p


def test_money_and_time_are_paired_where_they_are_known() -> None:
    rng = np.random.default_rng(2)
    cost_a, cost_b = rng.gamma(1, 0.02, 50), rng.gamma(1, 0.03, 50)

    def costing(n: int, cost: float) -> Scored:
        return result(str(n), 1.0, cost_usd=None if n == 7 else float(cost), duration_ms=n + 1.0)

    made = [
        a_run("r", *(costing(n, cost) for n, cost in enumerate(costs)))
        for costs in (cost_a, cost_b)
    ]
    found = compare(side(made[0]), side(made[1]), Settings(draws=20_000))
    known = np.arange(50) != 7
    assert found.cost_usd is not None
    assert found.cost_usd.cases == 49
    assert found.cost_usd.a == pytest.approx(cost_a[known].mean())
    wanted = scipy.stats.bootstrap(
        ((cost_a - cost_b)[known],), np.mean, n_resamples=20_000, rng=1
    ).confidence_interval
    assert found.cost_usd.difference.interval == pytest.approx(
        (wanted.low, wanted.high), abs=0.0006
    )
    assert found.duration_ms is not None
    assert found.duration_ms.difference.value == 0
    assert found.gain is None  # b has all there is


def test_suites_that_have_moved_are_paired_by_less_and_it_is_said() -> None:
    a = side(a_run("new", result("x", 1.0, eval_path="a.yaml"), result("y", 1.0)))
    b = side(a_run("old", result("x", 0.0, eval_path="b.yaml"), result("z", 1.0)))
    found = compare(a, b)
    assert found.cases == 1
    assert "cases are paired by the suites' names, not their files" in found.notes
    c = side(a_run("other", result("x", 0.0, suite="another")))
    assert "cases are paired by test id and prompt alone: the suites differ" in compare(a, c).notes
    twice = side(a_run("two", result("x", 0.0, suite="p"), result("x", 0.0, suite="q")))
    with pytest.raises(UsageError, match="share no case"):
        compare(side(a_run("new", result("x", 1.0, suite="r"))), twice)


def test_a_suite_that_has_changed_is_told_of() -> None:
    a, b = of("new", {"x": 1.0}, suites={"s": "1"}), of("old", {"x": 1.0}, suites={"s": "2"})
    assert any("s is not what it was" in note for note in compare(a, b).notes)


# --- which sides ----------------------------------------------------------------------------------


def of_targets(name: str, *targets: str) -> ScoredRun:
    return a_run(name, *(result("x", 1.0, target=target) for target in targets))


def chosen(*arguments: Any, **options: Any) -> list[tuple[str, str]]:
    return [(a.label, b.label) for a, b in choose_sides(*arguments, **options)]


def test_targets_of_one_run() -> None:
    run = of_targets("r", "a", "b", "c")
    assert chosen([run]) == [("a", "b"), ("a", "c")]
    assert chosen([run], ["c", "a"]) == [("c", "a")]
    assert chosen([run], all_pairs=True) == [("a", "b"), ("a", "c"), ("b", "c")]
    with pytest.raises(UsageError, match="of one target only, a"):
        choose_sides([of_targets("r", "a")])
    with pytest.raises(UsageError, match='no results of target "d"'):
        choose_sides([run], ["a", "d"])


def test_several_runs() -> None:
    one, two = of_targets("one", "a", "b"), of_targets("two", "b", "c")
    assert chosen([one, two], ["a", "c"]) == [("one:a", "two:c")]
    assert chosen([one, two], ["b"]) == [("one:b", "two:b")]
    assert one.notes == two.notes == []
    assert chosen([one, two]) == [("one:b", "two:b")]
    assert one.notes == ["only one has the target a: not compared"]
    assert two.notes == ["only two has the target c: not compared"]
    assert chosen([of_targets("n", "x"), of_targets("m", "y")]) == [("n:x", "m:y")]
    assert chosen([of_targets("n", "x"), of_targets("m", "x")]) == [("n", "m")]
    three = of_targets("three", "b")
    assert chosen([one, two, three]) == [("one:b", "two:b"), ("one:b", "three:b")]
    with pytest.raises(UsageError, match="share no target"):
        choose_sides([of_targets("n", "x", "z"), of_targets("m", "y")])


# --- several comparisons, and the gate ------------------------------------------------------------


def against(scores: list[float], others: list[float]) -> tuple[Side, Side]:
    return (
        of("new", {str(n): score for n, score in enumerate(scores)}),
        of("old", {str(n): score for n, score in enumerate(others)}),
    )


def test_p_values_of_several_are_adjusted() -> None:
    low = against([1.0] * 9 + [0.0], [0.0] * 9 + [1.0])
    high = against([1.0] * 6 + [0.0] * 4, [0.0] * 6 + [1.0] * 4)
    one, two = compare_all([low, high])
    assert one.permutation_p == pytest.approx(scipy.stats.binomtest(9, 10).pvalue)
    assert one.p_holm == pytest.approx(2 * one.permutation_p)
    assert two.p_holm == pytest.approx(two.permutation_p)
    assert compare_all([low])[0].p_holm is None


@pytest.mark.parametrize(
    ("low", "high", "margin", "wanted"),
    [
        (0.01, 0.2, 0.0, "better"),
        (-0.2, -0.01, 0.0, "worse"),
        (-0.2, -0.01, 0.05, "inconclusive"),
        (-0.2, -0.06, 0.05, "worse"),
        (-0.04, 0.2, 0.05, "not worse"),
        (-0.04, 0.2, 0.0, "inconclusive"),
        (None, None, 0.0, "unknown"),
    ],
)
def test_verdicts(low: float | None, high: float | None, margin: float, wanted: str) -> None:
    assert verdict(Estimate(0.0, low, high, 0.1, 9, 9), margin) == wanted


def compared(mean: float, spread: float, n: int = 400) -> Comparison:
    """A comparison with about this difference and standard deviation."""
    signs = np.resize([1.0, -1.0], n) * spread
    a = np.clip(0.5 + (mean + signs) / 2, 0, 1)
    b = np.clip(0.5 - (mean + signs) / 2, 0, 1)
    return compare(*against(a.tolist(), b.tolist()))


def test_the_gate_looks_at_the_interval_not_the_mean() -> None:
    noise, loss, gain = compared(-0.01, 0.3), compared(-0.1, 0.3), compared(0.1, 0.3)
    assert noise.difference.value < 0
    outcomes = {
        name: (gate([each], "worse", 0.0).failed, gate([each], "possibly-worse", 0.0).failed)
        for name, each in (("noise", noise), ("loss", loss), ("gain", gain))
    }
    assert outcomes == {"noise": (False, True), "loss": (True, True), "gain": (False, False)}
    assert gate([noise], "worse", 0.0).verdicts == ["inconclusive"]
    assert not gate([loss], "worse", 0.2).failed
    assert not gate([noise], "possibly-worse", 0.05).failed


def test_a_gate_on_several_is_stricter_with_each() -> None:
    """A loss that one comparison shows at 95 % is not shown when it is one of twenty."""
    loss = compared(-0.035, 0.3)
    assert loss.difference.high is not None
    assert loss.difference.high < 0
    assert gate([loss], "worse", 0.0).failed
    several = gate([loss] * 20, "worse", 0.0)
    assert (several.failed, several.confidence) == (False, pytest.approx(0.9975))


def test_gating_on_the_same_target_twice_rarely_fails() -> None:
    rng = np.random.default_rng(3)
    rounds, failed = 200, 0
    for _ in range(rounds):
        a, b = ((rng.random(100) < 0.7).astype(float).tolist() for _ in range(2))
        failed += gate([compare(*against(a, b), Settings(draws=100))], "worse", 0.0).failed
    assert failed / rounds <= 0.06


# --- trends ---------------------------------------------------------------------------------------


def test_a_slope_is_that_of_the_means_with_an_interval_over_cases() -> None:
    rng = np.random.default_rng(4)
    scores = np.clip(rng.uniform(0.2, 0.7, 40) + 0.03 * np.arange(5)[:, None], 0, 1)
    scores = np.clip(scores + rng.normal(0, 0.05, scores.shape), 0, 1)
    runs = [
        a_run(str(at), *(result(str(n), float(score)) for n, score in enumerate(row)))
        for at, row in enumerate(scores)
    ]
    found = trend_of(runs, "t")
    assert found.slope.value == pytest.approx(np.polyfit(range(5), scores.mean(axis=1), 1)[0])
    slopes = np.polyfit(range(5), scores, 1)[0]
    wanted = scipy.stats.ttest_1samp(slopes, 0).confidence_interval()
    assert found.slope.interval == pytest.approx((wanted.low, wanted.high))
    assert found.direction == "improving"
    assert trend_of(runs[::-1], "t").direction == "degrading"


def test_a_trend_of_two_runs_is_their_comparison() -> None:
    a, b = against([1.0, 0.4, 0.9, 0.2, 0.5], [0.5, 0.4, 0.1, 0.6, 0.0])
    found = trend_of([b.run, a.run], "t")
    assert found.slope.interval == pytest.approx(compare(a, b).difference.interval)


def test_a_trend_of_other_judges_is_told_of() -> None:
    runs = [of(name, {"a": 0.1, "b": 0.2}).run for name in "xyz"]
    for run, judge in zip(runs, ("j (m) 1", "j (m) 2", "k 1"), strict=True):
        run.judges["t"] = {"rubric": [judge], "other": ["j 1"]}
    assert trend_of(runs[:2], "t").notes == []
    (told,) = trend_of(runs, "t").notes
    assert told == "rubric was not judged by the same in all runs: j (m); k"


def test_a_trend_looks_at_cases_that_every_run_has() -> None:
    runs = [of("1", {"a": 1.0, "b": 0.0}).run, of("2", {"a": 0.5, "b": None, "c": 1.0}).run]
    found = trend_of(runs, "t")
    assert (found.cases, found.left_out) == (1, 2)
    assert [point.mean_score.value for point in found.points] == [1.0, 0.5]
    assert [point.errors for point in found.points] == [0, 1]
    assert (found.slope.value, found.slope.interval, found.direction) == (-0.5, None, "unknown")
    with pytest.raises(UsageError, match="two runs at least"):
        trend_of(runs[:1], "t")
    with pytest.raises(UsageError, match="no case has a score in all 2 runs"):
        trend_of([runs[0], of("3", {"c": 1.0}).run], "t")


def test_a_trend_over_runs_that_name_the_suite_otherwise() -> None:
    runs = [
        a_run(path, *(result(name, score, eval_path=path) for name, score in scores.items()))
        for path, scores in (
            ("here/s.eval.yaml", {"a": 1.0, "b": 0.0}),
            ("s.eval.yaml", {"a": 0.5, "b": 0.5}),
        )
    ]
    found = trend_of(runs, "t", ["s.eval.yaml", "s"])
    assert (found.cases, found.slope.value) == (2, 0.0)
    assert found.notes == ["cases are matched by the suites' names, not their files"]


def test_what_stopped_early_is_said_to_be_too_sure() -> None:
    a, b = against([1.0, 0.5], [0.0, 0.25])
    a.run.early["t"] = "new: t stopped early"
    assert compare(a, b).notes == ["new: t stopped early"]
    assert trend_of([b.run, a.run], "t").notes == ["new: t stopped early"]
    a.run.early = {"another": "another stopped early"}
    assert compare(a, b).notes == []


# --- planning -------------------------------------------------------------------------------------


def test_sizing_by_a_pair_uses_the_variance_of_differences() -> None:
    rng = np.random.default_rng(5)
    easy = rng.uniform(0, 0.8, 300)
    a, b = against((easy + 0.1).tolist(), (easy + rng.uniform(0, 0.2, 300)).tolist())
    pair, alone = size_for([a, b], 0.02), size_for([a], 0.02)
    differences = [x.score - y.score for x, y in zip(a.run.results, b.run.results, strict=True)]  # type: ignore[operator]
    assert pair.variance == pytest.approx(np.var(differences, ddof=1))
    assert alone.variance == pytest.approx(2 * np.var(easy, ddof=1))
    assert (pair.paired, alone.paired, pair.within) == (True, False, None)
    needed = pair.rows[0].cases[1]
    assert needed is not None
    assert needed < (alone.rows[0].cases[1] or 0) / 10


def test_sizing_splits_the_variance_where_there_are_repeats() -> None:
    rng = np.random.default_rng(6)
    rows = [
        result(str(case), float(np.clip(rng.normal(centre, 0.1), 0, 1)), repeat=repeat)
        for case, centre in enumerate(rng.uniform(0.3, 0.7, 400))
        for repeat in range(4)
    ]
    found = size_for([side(a_run("r", *rows))], 0.02)
    assert found.repeats == 4
    assert found.within == pytest.approx(2 * 0.01, rel=0.1)
    assert found.between == pytest.approx(2 * 0.16 / 12, rel=0.15)
    cases = found.rows[0].cases
    assert list(cases) == [1, 2, 3, 5, 10]
    assert cases[1] > cases[2] > cases[10]  # type: ignore[operator]
    with pytest.raises(UsageError, match="one case has no spread"):
        size_for([of("one", {"a": 1.0})], 0.1)

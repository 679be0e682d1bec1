"""What comparisons, trends, power and baselines come to, as text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from muster.evals.comparison import Comparison, Gate, Measure, describe_unpaired, shown_p
from muster.evals.stats import Estimate
from muster.plain import one_line
from muster.reports.terminal import format_money, format_table

__all__ = ("render_comparisons", "render_gate", "shown_interval")

_VERDICTS = {
    "better": "better: the interval of the difference lies above 0",
    "worse": "worse: the interval of the difference lies below 0",
    "inconclusive": "inconclusive: the interval of the difference holds 0",
    "unknown": "nothing can be said: one case, or cases of one cluster, have no spread",
}


def render_comparisons(comparisons: Sequence[Comparison]) -> str:
    """What `muster compare` prints."""
    return "\n\n\n".join(_comparison(each) for each in comparisons)


def _comparison(found: Comparison) -> str:
    a, b = found.a, found.b
    cases = f"{found.cases} case" + ("s" if found.cases != 1 else "")
    clusters = f", in {found.clusters} clusters" if found.clusters != found.cases else ""
    parts = [
        f"{a.label} against {b.label}: {cases}{clusters}",
        _table(found),
        "\n".join(
            (
                f"{found.wins} wins, {found.losses} losses, {found.ties} ties",
                *_tests(found),
                _VERDICTS[found.verdict],
            )
        ),
    ]
    if found.changed:
        rows = [
            (
                _case(change.test_id, change.prompt),
                f"{change.a:.3f}",
                f"{change.b:.3f}",
                f"{change.difference:+.3f}",
            )
            for change in found.changed
        ]
        header = ("changed most", "a", "b", "difference")
        parts.append(format_table(header, rows, right_from=1))
    if unpaired := describe_unpaired(found):
        parts.append("not compared\n" + "\n".join(f"  {one_line(line)}" for line in unpaired))
    if found.notes:
        parts.append("\n".join(f"note: {one_line(note)}" for note in found.notes))
    return "\n\n".join(parts)


def _case(test_id: str, prompt: str | None) -> str:
    return one_line(test_id if prompt is None else f"{test_id} [{prompt}]")


def _table(found: Comparison) -> str:
    a, b = found.a, found.b
    interval = f"{100 * found.confidence:g} % interval"
    rows: list[tuple[str, ...]] = [
        (
            "mean score",
            f"{a.mean_score.value:.4f}",
            f"{b.mean_score.value:.4f}",
            f"{found.difference.value:+.4f}",
            shown_interval(found.difference, "+.4f"),
        ),
        (f"  {interval}", _bounds(a.mean_score), _bounds(b.mean_score), "", ""),
        ("pass rate", f"{a.pass_rate:.1%}", f"{b.pass_rate:.1%}", "", ""),
        (
            f"  {interval}",
            "[{:.1%}, {:.1%}]".format(*a.pass_rate_interval),
            "[{:.1%}, {:.1%}]".format(*b.pass_rate_interval),
            "",
            "",
        ),
    ]
    if found.gain is not None:
        gained = f"{found.gain.value:+.4f}"
        rows.append(("normalised gain", "", "", gained, shown_interval(found.gain, "+.4f")))
    if found.cost_usd is not None:
        rows.append(_measure("cost of an answer", found.cost_usd, found, _money))
    if found.duration_ms is not None:
        rows.append(_measure("latency", found.duration_ms, found, _time))
    header = ("", "a", "b", "difference", interval)
    return format_table(header, rows, right_from=1)


def _measure(
    name: str, measure: Measure, found: Comparison, show: Callable[[float], str]
) -> tuple[str, ...]:
    if measure.cases != found.cases:
        name = f"{name} ({measure.cases} cases)"
    difference = measure.difference
    interval = "–"
    if difference.low is not None and difference.high is not None:
        interval = f"[{_signed(difference.low, show)}, {_signed(difference.high, show)}]"
    return (name, show(measure.a), show(measure.b), _signed(difference.value, show), interval)


def _signed(value: float, show: Callable[[float], str]) -> str:
    return ("-" if value < 0 else "+") + show(abs(value))


def _money(value: float) -> str:
    return format_money(value)


def _time(value: float) -> str:
    if value < 1000:
        return f"{value:.3f} ms" if value < 1 else f"{value:.1f} ms"
    return f"{value / 1000:.2f} s"


def _bounds(estimate: Estimate) -> str:
    return shown_interval(estimate, ".4f")


def shown_interval(estimate: Estimate, form: str) -> str:
    """`[low, high]`, or a dash where there is none."""
    if estimate.low is None or estimate.high is None:
        return "–"
    return f"[{estimate.low:{form}}, {estimate.high:{form}}]"


def _tests(found: Comparison) -> list[str]:
    lines = []
    if found.mcnemar_p is not None:
        lines.append(
            f"McNemar, exact: {found.only_a_passed} passed for a alone, {found.only_b_passed} for "
            f"b alone, p = {shown_p(found.mcnemar_p)}"
        )
    elif found.mcnemar_why_not is not None:
        lines.append(f"McNemar: not told, for {found.mcnemar_why_not}")
    how = "exact" if found.permutation_exact else f"{found.draws:,} draws"
    line = f"permutation of signs, {how}: p = {shown_p(found.permutation_p)}"
    if found.p_holm is not None:
        line += f"; for all comparisons (Holm) {shown_p(found.p_holm)}"
    return [*lines, line.replace("= below", "below")]


_GATES = {
    "worse": "worse by more than the margin",
    "better": "better",
    "not worse": "not worse by more than the margin",
    "inconclusive": "inconclusive: it may be worse, which is not shown",
    "unknown": "nothing can be said: there is no interval",
}


def render_gate(comparisons: Sequence[Comparison], gate: Gate) -> str:
    """What `--fail-if` came to."""
    lines = [
        f"gate: {one_line(found.a.label)} against {one_line(found.b.label)}: {_GATES[verdict]}"
        for found, verdict in zip(comparisons, gate.verdicts, strict=True)
    ]
    passed = "failed" if gate.failed else "passed"
    rule = f"--fail-if {gate.fail_if}, margin {gate.margin:g}, {gate.confidence:.4g} intervals"
    return "\n".join([*lines, f"gate {passed} ({rule})"])

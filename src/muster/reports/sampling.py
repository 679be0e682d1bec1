"""What a summary says of repeats, and of suites that stopped early."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from muster.evals.stats import Estimate
from muster.evals.stopping import StopReport
from muster.evals.target_totals import TargetTotals
from muster.plain import one_line

__all__ = ("repeat_lines", "stopping_lines")


def repeat_lines(targets: Iterable[TargetTotals]) -> list[str]:
    """Of each target with repeats: pass@k and pass^k, and what the scores' variance is made of."""
    lines = []
    for target in targets:
        rows = target.pass_k
        if not rows:
            continue
        last = rows[-1]
        line = (
            f"repeats of {one_line(target.target)}: pass@{last.k} {_shown(last.pass_at_k)}, "
            f"pass^{last.k} {_shown(last.pass_hat_k)}, {last.cases} cases"
        )
        split = target.variance
        if split is not None and (share := split.repeats_share) is not None:
            line += f"; {share:.0%} of the variance is between repeats"
        lines.append(line)
    return lines


def _shown(estimate: Estimate) -> str:
    text = f"{estimate.value:.1%}"
    if estimate.low is None or estimate.high is None:
        return text
    return f"{text} [{estimate.low:.1%}, {estimate.high:.1%}]"


def stopping_lines(reports: Sequence[StopReport]) -> list[str]:
    """Of each rule: whether it came true, what it told, what it saved."""
    return [_stopping(report) for report in reports]


def _stopping(report: StopReport) -> str:
    who = one_line(f"{report.suite} on {' and '.join(report.targets)}")
    counted = f"{report.cases} of {report.of} {'pairs' if len(report.targets) > 1 else 'cases'}"
    if report.stopped:
        text = f"stopped early: {who} after {counted}: {one_line(report.rule)}"
        text += f"; {report.results_saved} calls saved"
    else:
        text = f"not stopped early: {who}, {counted}: it is not shown that {one_line(report.rule)}"
    if report.p_value is not None and report.mean_score is not None:
        text += f"; mean difference {report.mean_score:+.4f}, p = {report.p_value:.2g}"
    elif report.interval is not None and report.mean_score is not None:
        low, high = report.interval
        text += f"; mean {report.mean_score:.4f} in [{low:.4f}, {high:.4f}]"
    return text + " (valid at any time of stopping)"

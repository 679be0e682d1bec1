"""What is known of the judges of a run, in a line each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from muster.evals.case import DEFAULT_THRESHOLD
from muster.plain import one_line

__all__ = (
    "bounds_text",
    "judge_lines",
    "judge_name",
    "kappa_text",
    "known_line",
    "share_text",
    "signed_text",
)


def judge_lines(judges: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each judge of a run: what was measured of it, and how its votes agree."""
    lines = []
    for judge in judges:
        line = known_line(judge)
        votes = judge.get("agreement")
        if votes is not None:
            line += f"; votes agree on {votes['raw']:.1%}"
            if votes["krippendorff_alpha"] is not None:
                line += f", alpha {votes['krippendorff_alpha']:.2f}"
                line += bounds_text(votes["krippendorff_alpha_interval"], "{:.2f}")
            line += f" ({votes['answers']} answers)"
        if (pairs := judge.get("pairs")) is not None:
            bias = pairs["position_bias"]
            line += f"; same in both orders {share_text(pairs['consistent'])}, "
            line += f"position bias {signed_text(bias['net'])}"
        lines.append(line)
    return lines


def known_line(judge: Mapping[str, Any]) -> str:
    """What is known of a judge, in one line."""
    name = judge_name(judge)
    if judge.get("graders"):
        name += f" in {', '.join(map(one_line, judge['graders']))}"
    check = judge["check"]
    if check is None:
        return f"judge {name}: not measured with this prompt (muster judge check)"
    agreement, kappa = share_text(check.get("agreement")), kappa_text(check.get("kappa"))
    measured = f"{check['judged']} examples ({check['checked_at'][:10]})"
    if check.get("threshold", DEFAULT_THRESHOLD) != DEFAULT_THRESHOLD:
        measured += f", passing from {check['threshold']:g} on"
    return f"judge {name}: agreement {agreement}, kappa {kappa} on {measured}"


def judge_name(judge: Mapping[str, Any]) -> str:
    name = one_line(str(judge["target"]))
    return f"{name} ({one_line(str(judge['model']))})" if judge.get("model") else name


def share_text(value: Mapping[str, Any] | None) -> str:
    if value is None:
        return "–"
    return f"{value['value']:.1%}" + bounds_text(value["interval"], "{:.1%}")


def kappa_text(value: Mapping[str, Any] | None) -> str:
    if value is None:
        return "– (one side always says the same)"
    return f"{value['value']:.3f}" + bounds_text(value["interval"], "{:.3f}")


def bounds_text(interval: Sequence[float] | None, form: str) -> str:
    if interval is None:
        return ""
    return f" [{form.format(interval[0])}, {form.format(interval[1])}]"


def signed_text(value: Mapping[str, Any] | None) -> str:
    if value is None:
        return "–"
    return f"{value['value']:+.3f}" + bounds_text(value["interval"], "{:+.3f}")

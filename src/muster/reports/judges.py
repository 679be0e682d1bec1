"""Judges as text: what a check found, and what a comparison found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from muster.plain import one_line
from muster.reports.judge_lines import (
    judge_name,
    kappa_text,
    known_line,
    share_text,
    signed_text,
)
from muster.reports.terminal import format_money, format_table, format_tokens

__all__ = ("render_check", "render_pairs")


def render_check(record: Mapping[str, Any]) -> str:
    """What `muster judge check` prints of one record."""
    head = (
        f"judge {judge_name(record)} on {record['judged']} of {record['examples']} {record['kind']}"
    )
    for name in ("errors", "not_asked"):
        if record[name]:
            head += f", {record[name]} {name.replace('_', ' ')}"
    rows = [
        ("agreement", share_text(record.get("agreement"))),
        ("kappa", kappa_text(record.get("kappa"))),
    ]
    if record["kind"] == "answers":
        rows += _answer_rows(record)
    rows += _position_rows(record)
    parts = [head, _measures(rows)]
    if record.get("confusion"):
        parts.append(_confusion(record["confusion"]))
    parts += [f"error: {one['id']}: {one_line(one['error'])}" for one in record["error_examples"]]
    parts.append(_spent(record))
    return "\n\n".join(parts)


def _answer_rows(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = [
        ("good answers passed", share_text(record["passes_found"])),
        ("bad answers failed", share_text(record["fails_found"])),
        ("leniency", signed_text(record["leniency"])),
    ]
    if record["weighted_kappa"] is not None or record["score_error"] is not None:
        rows.insert(2, ("kappa of scores, quadratic", kappa_text(record["weighted_kappa"])))
        rows.append(("score error", signed_text(record["score_error"])))
    bias = record["length_bias"]
    rows.append(("length bias", "–" if bias is None else signed_text(bias["difference"])))
    return rows


def _position_rows(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    bias = record.get("position_bias")
    if bias is None:
        return []
    where = f"first {bias['drawn_to_first']}, second {bias['drawn_to_second']}"
    return [
        ("same in both orders", share_text(record["consistent"])),
        ("position bias", f"{signed_text(bias['net'])}  ({where})"),
    ]


def _measures(rows: Sequence[tuple[str, str]]) -> str:
    return format_table(("measure", "value, 95 % interval"), rows)


def _confusion(table: Mapping[str, Mapping[str, int]]) -> str:
    columns = list(next(iter(table.values())))
    header = ("", *(name.replace("_", " ") for name in columns))
    rows = [
        (name.replace("_", " "), *(str(row[column]) for column in columns))
        for name, row in table.items()
    ]
    return format_table(header, rows, right_from=1)


def render_pairs(report: Mapping[str, Any]) -> str:
    """What `muster judge pairs` prints."""
    one, two = (f"{report[side]['target']} ({report[side]['run']})" for side in ("a", "b"))
    head = f"a: {one}\nb: {two}\n{report['judged']} of {report['shared']} shared cases judged"
    for name in ("not_answered", "errors", "not_asked"):
        if report[name]:
            head += f", {report[name]} {name.replace('_', ' ')}"
    if report["first_error"]:
        head += f"\nerror: {one_line(report['first_error'])}"
    if not report["judged"]:
        return f"{head}\n\n{_spent(report)}"
    rows = [
        ("a wins, b wins, ties", f"{report['a_wins']}, {report['b_wins']}, {report['ties']}"),
        ("net preference for a", signed_text(report["net_preference"])),
        ("a's share of those decided", share_text(report["share_of_decided"])),
        *_position_rows(report),
    ]
    return "\n\n".join([head, _measures(rows), known_line(report["judge"]), _spent(report)])


def _spent(record: Mapping[str, Any]) -> str:
    usage = record["judge_token_usage"]
    tokens = f", {format_tokens(usage['input'] + usage['output'])} tokens" if usage else ""
    cost = record["judge_cost_usd"]
    money = "" if cost is None else f", {format_money(cost)}"
    return f"judge calls: {record['judge_calls']}{tokens}{money}"

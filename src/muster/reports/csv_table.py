"""Results as CSV (RFC 4180, UTF-8): a line each, for spreadsheets."""

from __future__ import annotations

import csv
import re
from typing import Any, TextIO

from muster.reports.columns import COLUMNS, flat_row, grader_columns
from muster.reports.overview import Overview

__all__ = ("write_csv",)

_NUMBER = re.compile(r"[+-]?(\d+([.,]\d+)*|\.\d+)([eE][+-]?\d+)?%?\Z")


def write_csv(overview: Overview, out: TextIO) -> None:
    """Write all results.

    A spreadsheet takes a text that begins with `=`, `+`, `-` or `@` for a formula, and what a
    model answers must not be one: such a text gets a `'` before it, unless it is a number.
    """
    graders = grader_columns(overview)
    names = [*COLUMNS, *graders.values()]
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow([_harmless(name) for name in names])
    for run, result in overview.rows():
        row = flat_row(overview, run, result, graders)
        writer.writerow([_harmless(row.get(name)) for name in names])


def _harmless(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    value = value.replace("\0", "\ufffd")
    if value.lstrip()[:1] in _BEGINS_FORMULA and _NUMBER.match(value) is None:
        return "'" + value
    return value


_BEGINS_FORMULA = frozenset("=+-@\uff1d\uff0b\uff0d\uff20")

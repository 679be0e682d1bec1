"""CSV and Parquet: a row a result, the same columns, values that can be computed with."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from muster.reports.columns import COLUMNS
from muster.reports.overview import Overview
from muster.reports.write import write_report
from report_parts import failed, folder_of, overview_of, scored, text_of, unanswered


def rows_of(overview: Overview, folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(text_of(overview, "csv", folder).splitlines(keepends=True)))


def sample(folder: Path) -> Overview:
    tools = {"name": "tools", "score": 0.0, "verdict": "skip"}
    good = scored(
        "a", 1, cost_usd=0.5, token_usage={"input": 7, "output": 2, "cached": 3}, tags=["x", "y"],
        output="one,\n\"two\"", metadata={"k": 1}, model="m", expected_output="x",
    )  # fmt: skip
    good.scores.append(tools)
    return overview_of(folder_of(folder / "run", good, failed("b"), unanswered("c")))


def test_csv_has_a_line_for_each_result(tmp_path: Path) -> None:
    first, second, third = rows_of(sample(tmp_path), tmp_path)
    assert list(first) == [*COLUMNS, "score:exact", "score:tools"]
    assert (first["run"], first["test_id"], first["score"], first["cost_usd"]) == (
        "run", "a", "1.0", "0.5",
    )  # fmt: skip
    assert first["output"] == 'one,\n"two"'
    assert (first["tokens_input"], first["tokens_cached"], first["tokens_reasoning"]) == (
        "7", "3", "",
    )  # fmt: skip
    assert (json.loads(first["tags"]), json.loads(first["metadata"])) == (["x", "y"], {"k": 1})
    assert (first["score:exact"], first["score:tools"], first["reason"]) == ("1.0", "", "")
    assert (second["score"], second["reason"]) == ("0.0", "Output equals x")
    assert (third["score"], third["error_kind"], third["reason"]) == ("", "timeout", "too late")


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("  +cmd|' /C calc'!A0", "'  +cmd|' /C calc'!A0"),
        ("\t=1", "'\t=1"),
        ("- a list", "'- a list"),
        ("-12.5", "-12.5"),
        ("+1,234", "+1,234"),
        ("-3e5", "-3e5"),
        ("-1+cmd", "'-1+cmd"),
        ("1 = 1", "1 = 1"),
        ("a\0b", "a\ufffdb"),
        ("", ""),
    ],
)
def test_no_answer_becomes_a_formula(tmp_path: Path, said: str, written: str) -> None:
    overview = overview_of(folder_of(tmp_path / "run", scored("a", 1, output=said)))
    assert rows_of(overview, tmp_path)[0]["output"] == written


def test_parquet_has_the_same_rows_with_types(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    write_report(sample(tmp_path), "parquet", str(tmp_path / "run.parquet"))
    table = parquet.read_table(tmp_path / "run.parquet")
    assert table.column_names == [*COLUMNS, "score:exact", "score:tools"]
    rows: list[dict[str, Any]] = table.to_pylist()
    assert [row["score"] for row in rows] == [1.0, 0.0, None]
    assert (rows[0]["tokens_input"], rows[0]["repeat"], rows[0]["output"]) == (7, 0, 'one,\n"two"')
    assert (rows[0]["score:exact"], rows[0]["score:tools"]) == (1.0, None)
    assert json.loads(rows[1]["scores"])[0]["verdict"] == "fail"


def test_parquet_in_batches(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    folder = folder_of(tmp_path / "run", *(scored(str(n), 1) for n in range(2_001)))
    write_report(overview_of(folder), "parquet", str(tmp_path / "run.parquet"))
    file = parquet.ParquetFile(tmp_path / "run.parquet")
    assert (file.metadata.num_rows, file.metadata.num_row_groups) == (2_001, 3)
    ids = file.read(columns=["test_id"])["test_id"].to_pylist()
    assert ids == [str(n) for n in range(2_001)]

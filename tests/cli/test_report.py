"""`muster report`, and the reports of `muster eval`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner, Result
from jsonschema import Draft202012Validator

from muster.cli.main import cli
from muster.evals.schemas import schema_of
from report_parts import failed, folder_of, lines_of, scored

SUITE = """\
name: sums
target: calculator
providers:
  - id: mock
    label: calculator
    config:
      replies:
        - {contains: 17 + 25, text: It is 42., cost_usd: 0.0002}
      default: It is 41.
tests:
  - {id: plus, input: What is 17 + 25?, assert: [{type: numeric, value: 42}]}
  - {id: times, input: What is 6 * 7?, assert: [{type: numeric, value: 42}]}
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    (tmp_path / "sums.eval.yaml").write_text(SUITE)
    return tmp_path


def muster(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments), standalone_mode=False)


def error_of(*arguments: str) -> str:
    result = muster(*arguments)
    assert result.exception is not None
    return str(result.exception)


def test_summary_is_what_the_run_told() -> None:
    ran = muster("eval", "sums.eval.yaml", "-q")
    told = muster("report")
    assert (ran.return_value, told.exit_code) == (1, 0)
    assert told.stdout == ran.stdout
    assert "50.0% (1/2)" in told.stdout


def test_all_forms_of_one_run(project: Path) -> None:
    folder_of(project / "run", scored("a", 1), failed("b"))
    result = muster(
        "report", "run", "--html", "out/r.html", "--junit", "out/r.xml", "--csv", "out/r.csv",
        "--markdown", "out/r.md",
    )  # fmt: skip
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        "html: out/r.html", "junit: out/r.xml", "markdown: out/r.md", "csv: out/r.csv",
    ]  # fmt: skip
    assert sorted(os.listdir("out")) == ["r.csv", "r.html", "r.md", "r.xml"]
    assert ET.parse("out/r.xml").getroot().get("tests") == "2"
    assert len((project / "out" / "r.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize("form", ["html", "junit", "markdown", "csv"])
def test_to_the_standard_output(project: Path, form: str) -> None:
    folder_of(project / "run", scored("a", 1))
    result = muster("report", "run", f"--{form}", "-")
    assert muster("report", "run", f"--{form}", "file").exit_code == 0
    assert result.stdout_bytes == (project / "file").read_bytes()


def test_json_of_several_runs(project: Path) -> None:
    folder_of(project / "one", scored("a", 1))
    folder_of(project / "two", failed("a"))
    data = json.loads(muster("report", "one", "two", "--json").stdout)
    Draft202012Validator(schema_of("report")).validate(data)
    assert [(row["target"], row["passed"]) for row in data["targets"]] == [
        ("t (one)", 1), ("t (two)", 0),
    ]  # fmt: skip


def test_torn_lines_are_told(project: Path) -> None:
    folder = folder_of(project / "run", scored("a", 1))
    with (folder / "results.jsonl").open("a") as file:
        file.write(lines_of(scored("b", 1))[:-20])
    result = muster("report", "run", "--markdown", "-")
    assert "warning: run/results.jsonl: 1 line that cannot be read" in result.stderr
    assert "1 line that cannot be read" in result.stdout
    data = json.loads(muster("report", "run", "--json").stdout)
    assert (data["results"], data["runs"][0]["unreadable_lines"]) == (1, 1)


def test_secrets_of_the_environment_are_masked(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_API_KEY", "sk-0123456789")
    (project / ".env").write_text("OTHER_API_KEY=sk-of-the-file\n")
    folder_of(project / "run", failed("a", output="sk-0123456789 and sk-of-the-file"))
    for form in ("html", "junit", "csv"):
        text = muster("report", "run", f"--{form}", "-").stdout
        assert "sk-" not in text
        assert "********** and **********" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("report", "nowhere"), 'no run "nowhere"'),
        (("report", "run", "--html", "x", "--csv", "x"), "html and csv would both be written to x"),
        (("report", "run", "--csv", "run/results.jsonl"), "is a file of the run itself"),
        (("report", "run", "--html", "run"), "is a folder; give the name of a file"),
        (("report", "run", "--parquet", "-"), "parquet needs the name of a file"),
        (("report", "run", "--json", "--csv", "-"), "--json is printed"),
        (("report", "run", "run"), "run is given twice"),
        (("report", "run", "--github"), "GITHUB_STEP_SUMMARY is not set"),
        (("eval", "sums.eval.yaml", "--report", "pdf=x"), "--report pdf=x: expected FORMAT=FILE"),
        (("eval", "sums.eval.yaml", "--report", "html"), "--report html: expected FORMAT=FILE"),
        (
            ("eval", "sums.eval.yaml", "--report", "csv=a", "--report", "csv=b"),
            "--report csv=… is given twice",
        ),
    ],
)
def test_mistakes(project: Path, arguments: tuple[str, ...], said: str) -> None:
    folder_of(project / "run", scored("a", 1))
    before = (project / "run" / "results.jsonl").read_bytes()
    assert said in error_of(*arguments)
    assert (project / "run" / "results.jsonl").read_bytes() == before
    assert not list(project.glob(".muster/results/*"))  # nothing was run


def test_a_report_that_cannot_be_written_leaves_the_old_one(project: Path) -> None:
    folder_of(project / "run", scored("a", 1))
    (project / "file").write_text("")
    assert "file/report.html: cannot be written" in error_of(
        "report", "run", "--html", "file/report.html"
    )
    assert not list(project.glob(".*.tmp"))


def test_reports_at_the_end_of_a_run(project: Path) -> None:
    result = muster(
        "eval", "sums.eval.yaml", "-q", "--report", "junit=r.xml", "--report", "html=r.html"
    )
    root = ET.parse("r.xml").getroot()
    assert (root.get("tests"), root.get("failures")) == ("2", "1")
    assert "<h1>sums.eval.yaml</h1>" in (project / "r.html").read_text()
    assert "junit: r.xml" in result.stderr


def test_summary_of_a_step(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    summary = project / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    muster("eval", "sums.eval.yaml", "-q")
    first = summary.read_text()
    assert first.startswith(
        "before\n### ❌ sums&#46;" if "sums&#46;" in first else "before\n### ❌"
    )
    assert "1 passed, 1 failed, 0 errors" in first
    muster("report", "--no-github")
    assert summary.read_text() == first
    muster("report")
    assert summary.read_text().count("1 passed, 1 failed, 0 errors") == 2


def test_summary_of_a_step_that_is_full(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    summary = project / "summary.md"
    summary.write_text("x" * 1_048_000)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    folder_of(project / "run", scored("a", 1))
    assert muster("report", "run").exit_code == 0
    assert summary.stat().st_size <= 1_048_576


def test_summary_that_cannot_be_written_fails_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(project / "no" / "folder.md"))
    folder_of(project / "run", scored("a", 1))
    result = muster("report", "run")
    assert result.exit_code == 0
    assert "warning:" in result.stderr
    assert "cannot be written" in result.stderr
    assert "cannot be written" in error_of("report", "run", "--github")


def test_record_of_a_run_has_the_published_shape(project: Path) -> None:
    import msgspec

    from muster.evals.shapes import RunRecord

    told: dict[str, Any] = json.loads(muster("eval", "sums.eval.yaml", "-q", "--json").stdout)
    Draft202012Validator(schema_of("run")).validate(told)
    assert json.loads(msgspec.json.encode(msgspec.convert(told, RunRecord))) == told

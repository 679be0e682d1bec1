"""JUnit XML: well formed whatever was said, and told as CIs read it."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

from muster.reports.overview import Overview
from report_parts import failed, folder_of, overview_of, scored, text_of, unanswered


def tree(overview: Overview, folder: Path) -> ET.Element:
    return ET.fromstring(text_of(overview, "junit", folder).encode())


def test_a_testsuite_for_each_suite_and_target(tmp_path: Path) -> None:
    folder = folder_of(
        tmp_path / "run",
        scored("a", 1, duration_ms=1500.0),
        scored("a", 1, target="u"),
        failed("b", duration_ms=500.0, expected_output="x", prompt="short", repeat=2),
        unanswered("c", "rate_limited", duration_ms=9.0),
        scored("a", 1, suite="other", eval_path="evals/other.eval.yaml"),
        started_at="2026-11-21T10:59:30+00:00",
        git_commit="abc",
    )
    overview = overview_of(folder)
    root = tree(overview, tmp_path)
    assert root.attrib == {
        "name": "muster", "tests": "5", "failures": "1", "errors": "1", "time": "2.000",
    }  # fmt: skip
    assert [
        (suite.get("name"), suite.get("tests"), suite.get("failures"), suite.get("errors"))
        for suite in root
    ] == [
        ("s · t", "3", "1", "1"),
        ("evals/other.eval.yaml · t", "1", "0", "0"),
        ("s · u", "1", "0", "0"),
    ]
    suite = root[0]
    assert suite.get("timestamp") == "2026-11-21T10:59:30"
    properties = {each.get("name"): each.get("value") for each in suite.iter("property")}
    assert properties["run"] == "run"
    assert properties["git_commit"] == "abc"
    assert (properties["mean_score"], properties["pass_rate"]) == ("0.500000", "0.500000")
    low, high = overview.targets["t"].suites["s"].interval or (0.0, 0.0)
    assert properties["pass_rate_interval"] == f"[{low:.6f}, {high:.6f}]"
    good, bad, broken = suite.findall("testcase")
    assert good.attrib == {"classname": "s.t", "name": "a", "time": "1.500"}
    assert good.findtext("system-out") == "!"
    assert bad.get("name") == "b [short] (repeat 2)"
    failure = bad.find("failure")
    assert failure is not None
    assert failure.get("type") == "quality_failure"
    assert failure.get("message") == "score 0.000, 0.8 needed: Output equals x"
    assert failure.text == "exact: fail, score 0.0\n  ✗ Output equals x\nexpected: x"
    error = broken.find("error")
    assert error is not None
    assert (error.get("type"), error.get("message"), error.text) == (
        "rate_limited", "too late", "too late",
    )  # fmt: skip
    assert broken.find("system-out") is None


def test_counts_and_times_of_testsuites_are_those_of_their_cases(tmp_path: Path) -> None:
    rows = [scored(str(n), n % 2, duration_ms=100.0 * n, target="tu"[n % 3 == 0]) for n in range(9)]
    root = tree(overview_of(folder_of(tmp_path / "run", *rows)), tmp_path)
    for suite in root:
        assert int(suite.attrib["tests"]) == len(suite.findall("testcase"))
        assert int(suite.attrib["failures"]) == len(suite.findall("testcase/failure"))
        times = [float(case.attrib["time"]) for case in suite.findall("testcase")]
        assert abs(float(suite.attrib["time"]) - sum(times)) < 0.01


def test_hostile_texts_stay_texts(tmp_path: Path) -> None:
    said = ']]></system-out><failure/>&amp;\x00\x1b[31m\ufffe\r\n"quoted" <b>'
    folder = folder_of(
        tmp_path / "run",
        unanswered('<x y="1">\n\x07', error=said, target="<t>"),
        scored("b", 1, output=said, target="<t>"),
    )
    root = tree(overview_of(folder), tmp_path)
    first, second = root.iter("testcase")
    assert first.get("name") == '<x y="1"> \\x07'
    assert first.get("classname") == "s.<t>"
    shown = ']]></system-out><failure/>&amp;\\x00\\x1b[31m\\xfffe\r\n"quoted" <b>'
    assert second.findtext("system-out") == shown
    assert first.findtext("error") == shown
    assert [child.tag for child in second] == ["system-out"]


def test_long_answers_are_cut(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "run", scored("a", 1, output="x" * 25_000))
    text = tree(overview_of(folder), tmp_path).findtext("testsuite/testcase/system-out")
    assert text == "x" * 10_000 + "\n… 15000 characters more"


def test_an_empty_run(tmp_path: Path) -> None:
    root = tree(overview_of(folder_of(tmp_path / "run", planned=3)), tmp_path)
    assert (root.get("tests"), list(root)) == ("0", [])

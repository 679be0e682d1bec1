"""Runs as reports read them: each result once, what is broken counted and told."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval_parts import make_result
from muster.config.secrets import Masker
from muster.errors import UsageError
from muster.reports.run_files import ReportRun, open_runs
from report_parts import failed, folder_of, lines_of, overview_of, scored, unanswered


def read(folder: Path) -> ReportRun:
    return ReportRun(folder, Masker(()))


def test_results_in_their_order(tmp_path: Path) -> None:
    folder = folder_of(
        tmp_path / "run", scored("a", 1), scored("a", 1, target="u"), failed("b"), unanswered("c")
    )
    run = read(folder)
    assert [(row.test_id, row.target) for row in run.rows()] == [
        ("a", "t"), ("a", "u"), ("b", "t"), ("c", "t"),
    ]  # fmt: skip
    assert [row.test_id for row in run.rows_of(("s", "t"))] == ["a", "b", "c"]
    assert (run.count, run.notes, run.missing) == (4, [], 0)


def test_broken_lines_are_counted_and_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "run")
    good = lines_of(scored("a", 1))
    other = lines_of(scored("b", 1))
    wrong = [
        '{"test_id": "half',
        "[1, 2]",
        lines_of(make_result("x", execution_status="fine")).strip(),
        lines_of(make_result("x", score=None)).strip(),
        '"\\ud800"',
        '{"score": NaN}',
        lines_of(scored("x", 1, scores=[{"assertions": "all"}])).strip(),
        lines_of(scored("x", 1, scores=[{"scores": [{"assertions": [1]}]}])).strip(),
        lines_of(scored("x", 1, turns=[{"scores": 1}])).strip(),
    ]
    text = good + "\n" + "\n".join(wrong) + "\n" + other + good[:40]
    (folder / "results.jsonl").write_text(text)
    run = read(folder)
    assert [row.test_id for row in run.rows()] == ["a", "b"]
    assert run.unreadable == 10
    assert run.notes == [
        f"{folder}/results.jsonl: 10 lines that cannot be read, and not counted "
        "(line 3, 4, 5, 6, 7, …): torn, or no result"
    ]


def test_a_last_line_without_its_end_that_is_whole_counts(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "run")
    (folder / "results.jsonl").write_text(lines_of(scored("a", 1)).rstrip("\n"))
    assert [row.test_id for row in read(folder).rows()] == ["a"]


def test_what_is_there_twice_counts_once_and_a_score_before_an_error(tmp_path: Path) -> None:
    folder = folder_of(
        tmp_path / "run",
        unanswered("a"),
        scored("b", 0.25),
        scored("a", 1, output="late"),
        scored("b", 1),
        unanswered("b"),
        planned=2,
    )
    run = read(folder)
    assert {row.test_id: row.score for row in run.rows()} == {"a": 1.0, "b": 0.25}
    assert run.duplicates == 3
    assert run.notes == ["run: results that are there twice, and counted once: 3"]


def test_repeats_prompts_and_suites_are_not_twice(tmp_path: Path) -> None:
    folder = folder_of(
        tmp_path / "run",
        scored("a", 1),
        scored("a", 1, repeat=1),
        scored("a", 1, prompt="p"),
        scored("a", 1, suite="other"),
    )
    assert read(folder).count == 4


def test_scores_beyond_their_range_are_brought_in_and_told(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "run", scored("a", 11.0), scored("b", -3.0), scored("c", 1))
    run = read(folder)
    assert [row.score for row in run.rows()] == [1.0, 0.0, 1.0]
    assert run.notes == ["run: scores outside of 0 to 1, taken as the nearest that is: 2"]


def test_an_error_has_no_score_whatever_the_file_says(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "run", unanswered("a", score=0.0))
    assert [row.score for row in read(folder).rows()] == [None]


@pytest.mark.parametrize(
    ("record", "notes"),
    [
        (
            {"status": "running", "planned": 3},
            [
                "run: the run is under way, or was killed (`muster eval --resume` completes it)",
                "run: 2 of 3 planned results are missing",
            ],
        ),
        ({"status": "complete", "planned": 3, "stopping": [{"results_saved": 2}]}, []),
        (
            {"planned": 1, "suites": [{"name": "sums", "skipped": ["bad"]}]},
            ["run: tests of sums that were left out as not valid: 1"],
        ),
    ],
)
def test_what_a_reader_must_know(
    tmp_path: Path, record: dict[str, object], notes: list[str]
) -> None:
    assert read(folder_of(tmp_path / "run", scored("a", 1), **record)).notes == notes


def test_results_without_a_record(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "run", scored("a", 1))
    (folder / "run.json").unlink()
    run = read(folder)
    assert (run.name, run.targets, run.planned) == ("run", ["t"], None)
    assert run.notes == [f"{folder}: there is no run.json, so what ran is not known"]


def test_a_run_without_results_yet(tmp_path: Path) -> None:
    overview = overview_of(folder_of(tmp_path / "run", planned=4, status="timed_out"))
    assert overview.totals.count == 0
    assert overview.notes == [
        "run: the run is incomplete: its time was up",
        "run: 4 of 4 planned results are missing",
    ]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "no results.jsonl there; is it the folder of a run?"),
        ({"index.jsonl": ""}, "not the folder of a run of Muster"),
        ({"run.json": "[]"}, "not the record of a run"),
        ({"run.json": "{"}, "not valid JSON"),
    ],
)
def test_what_is_no_run(tmp_path: Path, files: dict[str, str], said: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=said):
        read(tmp_path)


def test_targets_of_several_runs_are_told_apart(tmp_path: Path) -> None:
    one = folder_of(tmp_path / "one", scored("a", 1), scored("a", 1, target="only"))
    two = folder_of(tmp_path / "two", scored("a", 1))
    assert [run.labels for run in open_runs([one, two], Masker(()))] == [
        {"t": "t (one)", "only": "only"},
        {"t": "t (two)"},
    ]


def test_runs_of_one_name_are_told_by_their_folders(tmp_path: Path) -> None:
    folders = [folder_of(tmp_path / place / "run", scored("a", 1)) for place in "xy"]
    assert [run.name for run in open_runs(folders, Masker(()))] == [str(path) for path in folders]


def test_one_run_twice_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "run", scored("a", 1))
    with pytest.raises(UsageError, match="is given twice"):
        open_runs([folder, tmp_path / "." / "run"], Masker(()))


def test_secrets_are_masked_wherever_they_are_said(tmp_path: Path) -> None:
    key = "sk-very-secret-1"
    folder = folder_of(
        tmp_path / "run",
        scored("a", 1, output=f"it is {key}", metadata={key: [key]}),
        targets=[{"name": "t", "config": {"url": f"http://x/?k={key}"}}],
    )
    run = ReportRun(folder, Masker((key,)))
    (row,) = run.rows()
    assert (row.output, row.metadata) == ("it is **********", {"**********": ["**********"]})
    assert run.record["targets"][0]["config"] == {"url": "http://x/?k=**********"}

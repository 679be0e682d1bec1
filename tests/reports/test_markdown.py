"""The Markdown: what GitHub would show, bounded, with nobody else's markup in it."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

from muster.reports.markdown import render_markdown
from report_parts import failed, folder_of, overview_of, scored, unanswered


def test_the_whole_summary(tmp_path: Path) -> None:
    folder = folder_of(
        tmp_path / "run",
        scored("a", 1, cost_usd=0.25, duration_ms=3.0, token_usage={"input": 9, "output": 1}),
        failed("b-1", duration_ms=5.0),
        unanswered("c"),
    )
    assert render_markdown(overview_of(folder)) == (
        """\
### ❌ s: 1 passed, 1 failed, 1 errors

| target | results | mean score | pass rate | errors | tokens | cost | p50 | p95 |
| --- | --: | --: | --: | --: | --: | --: | --: | --: |
| t | 3 | 0.500 [0.095, 0.905] | 50.0% [9.5%, 90.5%] | 1 | 10 | $0.25+ | 4.0 ms | 4.9 ms |

| target | kind of error | results |
| --- | --: | --: |
| t | timeout | 1 |

#### Worth a look

| case | target | score | reason |
| --- | --- | --: | --- |
| <code>c</code> | t | timeout | too late |
| <code>b-1</code> | t | 0.000 | Output equals x |
"""
    )


def test_marks(tmp_path: Path) -> None:
    good = folder_of(tmp_path / "good", scored("a", 1))
    torn = folder_of(tmp_path / "torn", scored("a", 1), status="interrupted", planned=2)
    assert render_markdown(overview_of(good)).startswith("### ✅ s: 1 passed")
    said = unescape(render_markdown(overview_of(torn)))
    assert said.startswith("### ⚠️ s: 1 passed")
    assert "- note: torn: 1 of 2 planned results are missing\n" in said


HOSTILE = (
    "</td>|x|\n# big\n![p](http://e.com/p.png) <img src=x> @octocat www.e.com `a` &lt; \x1b[31m"
)


def test_nobody_elses_markup_comes_through(tmp_path: Path) -> None:
    folder = folder_of(
        tmp_path / "run", unanswered(HOSTILE, HOSTILE, error=HOSTILE, target=HOSTILE)
    )
    text = render_markdown(overview_of(folder))
    ours = re.sub(r"</?code>", "", text)
    assert "<" not in ours
    assert not re.search(r"[@`\x1b]|!\[|\]\(|https?:|www\.", ours)
    row = next(line for line in text.splitlines() if line.startswith("| <code>"))
    assert row.count("|") == 5  # four cells
    shown = " ".join(HOSTILE.split()).replace("\x1b", "\\x1b")
    assert unescape(row).count(shown) == 4  # the case, its target, its kind and its reason


def test_it_keeps_within_its_limit_and_says_so(tmp_path: Path) -> None:
    rows = [failed(f"case-{n}-" + "é|" * 140) for n in range(60)]
    overview = overview_of(folder_of(tmp_path / "run", *rows))
    whole = render_markdown(overview)
    assert whole.count("<code>") == 50
    for limit in (20_000, 5_000, 1_000, 300):
        text = render_markdown(overview, limit=limit)
        assert len(text.encode()) <= limit
        assert "… cut here" in text
    assert re.search(r"… and \d+ more\.\n$", render_markdown(overview, limit=20_000))


def test_which_of_several_a_case_is(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "run", failed("a", repeat=2, prompt="short"))
    said = render_markdown(overview_of(folder))
    assert "| <code>a</code> short, repeat 2 | t | 0.000 | Output equals x |" in said


def test_many_targets_and_suites(tmp_path: Path) -> None:
    rows = [scored("a", 1, target=f"t{n}", suite=f"s{m}") for n in range(150) for m in range(2)]
    text = render_markdown(overview_of(folder_of(tmp_path / "run", *rows)))
    assert "… and 50 rows more." in text
    assert "… and 200 rows more." in text


def test_graders_are_shown_where_there_are_several(tmp_path: Path) -> None:
    rows = [{"name": name, "score": 1.0, "verdict": "pass"} for name in ("x", "y")]
    text = render_markdown(overview_of(folder_of(tmp_path / "run", scored("a", 1, scores=rows))))
    assert "| y | t | 1 | 1.000 [0.207, 1.000] | 100.0% [20.7%, 100.0%] |" in text

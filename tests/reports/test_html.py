"""The page as it is written: one file, escaped, its data whole and of bounded size. What it does in
a browser is in `test_html_browser`."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from muster.reports import html_data
from report_parts import failed, folder_of, overview_of, scored, text_of, unanswered

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>&\"'<!--<script>\u2028"


class Page(HTMLParser):
    """Elements of a page, and the texts of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_data(self, data: str) -> None:
        if self._inside in ("script", "style"):
            self.scripts.append((self.tags[-1][1], data))
            self._inside = ""

    def data(self, name: str) -> list[Any]:
        """What the data blocks of a class, or of an id, hold."""
        return [
            json.loads(text)
            for attributes, text in self.scripts
            if name in (attributes.get("class"), attributes.get("id"))
        ]

    def rows(self) -> list[list[Any]]:
        return [row for chunk in self.data("rows") for row in chunk]

    def details(self) -> list[dict[str, Any] | None]:
        return [detail for chunk in self.data("details") for detail in chunk]


def page_of(folder: Path, *results: Any, **record: Any) -> tuple[Page, str]:
    overview = overview_of(folder_of(folder / "run", *results, **record))
    text = text_of(overview, "html", folder)
    return Page(text), text


def test_rows_and_details(tmp_path: Path) -> None:
    page, _ = page_of(
        tmp_path,
        scored("a", 1, cost_usd=0.5, duration_ms=1.23456, token_usage={"input": 3, "output": 4}),
        failed("b", target="u", tags=["x"], repeat=1, prompt="p", expected_output="yes"),
        unanswered("c"),
    )
    (head,) = page.data("head")
    assert head == {
        "labels": ["t", "u"], "suites": ["s"], "kinds": ["timeout"], "tags": ["x"],
        "runs": ["run", "run"],
    }  # fmt: skip
    assert page.rows() == [
        [0, 0, "a", 0, 1.0, 0, 0, 0, 0.5, 1.235, 7, None],
        [1, 0, "b", 1, 0.0, 1, "p", [0], None, None, None, None],
        [0, 0, "c", 2, None, 0, 0, 0, None, None, None, 0],
    ]
    first, second, third = page.details()
    assert first is not None
    assert second is not None
    assert third is not None
    assert (first["input"], first["output"], first["expected_output"]) == ("?", "!", None)
    assert (second["expected_output"], second["scores"][0]["verdict"]) == ("yes", "fail")
    assert (third["error"], third["output"]) == ("too late", None)


def test_nothing_that_was_said_becomes_markup(tmp_path: Path) -> None:
    row = {
        "name": HOSTILE, "type": HOSTILE, "score": 0.0, "verdict": "fail",
        "assertions": [{"text": HOSTILE, "passed": False, "evidence": HOSTILE}],
        "details": {HOSTILE: HOSTILE},
    }  # fmt: skip
    said = dict.fromkeys(("suite", "target", "input", "output", "expected_output"), HOSTILE)
    page, text = page_of(
        tmp_path,
        failed(HOSTILE, **said, scores=[row], tags=[HOSTILE], metadata={HOSTILE: HOSTILE}),
        unanswered("e", HOSTILE, error=HOSTILE, **{**said, "output": None}),
        run_id=HOSTILE,
        git_commit=HOSTILE,
        targets=[{"name": HOSTILE, "provider": HOSTILE, "config": {HOSTILE: HOSTILE}}],
        options={"paths": [HOSTILE]},
        status=HOSTILE,
    )
    plain, _ = page_of(tmp_path, failed("a"), unanswered("e"))
    count = sum(tag == "script" for tag, _ in page.tags)
    assert count == sum(tag == "script" for tag, _ in plain.tags) == 4
    assert {tag for tag, _ in page.tags} & {"img", "iframe", "object", "link", "base"} == set()
    assert not [a for _, attributes in page.tags for a in attributes if a.startswith("on")]
    assert "alert(1)</script>" not in text
    assert page.rows()[0][2] == HOSTILE
    (detail, _) = page.details()
    assert detail is not None
    assert detail["output"] == detail["scores"][0]["details"][HOSTILE] == HOSTILE


def test_it_asks_for_nothing_and_runs_only_its_own_script(tmp_path: Path) -> None:
    page, text = page_of(tmp_path, scored("a", 1))
    assert not re.search(r"(src|href)=[\"'](?!#)|url\(|@import", text)
    ((_, policy),) = [
        (tag, attributes["content"] or "")
        for tag, attributes in page.tags
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy.startswith("default-src 'none';")
    for name in ("script", "style"):
        found = re.findall(rf"<{name}>(.*?)</{name}>", text, re.DOTALL)
        assert len(found) == 1
        digest = base64.b64encode(hashlib.sha256(found[0].encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy


def test_summary_is_there_without_the_script(tmp_path: Path) -> None:
    _, text = page_of(
        tmp_path,
        scored("a", 1, cost_usd=0.25),
        scored("b", 0.5, cost_usd=0.75),
        unanswered("c"),
        status="interrupted",
        git_commit="abc123",
    )
    for shown in (
        "<li>run: the run is interrupted",
        '<th scope="row" class="text">t</th><td>3</td><td>0.750</td>',
        "<td>50.0% (1/2)</td><td>[9.5%, 90.5%]</td>",
        "<td>–</td><td>$1.00</td><td>$0.5</td>",
        '<th scope="row" class="text">timeout</th><td class="text">t</td><td>1</td>',
        "<dt>commit</dt><dd>abc123</dd>",
        "t: mean score 0.750, $0.5 a result",
        "0.9 to 1: 1 (50.0%, 95 % interval 9.5% to 90.5%)",
    ):
        assert shown in text, shown


def test_a_run_without_scores_has_no_charts(tmp_path: Path) -> None:
    _, text = page_of(tmp_path, unanswered("a"))
    assert "<svg" not in text
    empty, _ = page_of(tmp_path / "empty")
    assert (empty.rows(), empty.details()) == ([], [])


def test_long_texts_are_cut_and_say_so(tmp_path: Path) -> None:
    page, _ = page_of(
        tmp_path,
        scored("long", 1, output="x" * 30_000),
        scored("wide", 1, metadata={str(n): "y" * 15_000 for n in range(40)}),
        scored("huge", 1, metadata={str(n): "y" * 15_000 for n in range(400)}),
        scored("last", 1, messages=[{"role": "tool", "content": "z" * 19_000}] * 20),
    )
    long, wide, huge, last = page.details()
    assert long is not None
    assert long["output"] == "x" * 20_000 + "\n… 10000 characters more, in results.jsonl"
    assert wide is not None
    assert wide["metadata"]["0"].startswith("y" * 2_000 + "\n… 13000")
    assert huge is None
    assert last is not None
    assert "messages" not in last


def test_failures_are_kept_where_the_page_would_grow_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(html_data, "_DETAILS", 5_000)
    rows = [scored(str(n), float(n % 10 > 0), output="x" * 400) for n in range(50)]
    page, _ = page_of(tmp_path, *rows)
    kept = [detail is not None for detail in page.details()]
    assert len(page.rows()) == len(kept) == 50
    assert all(kept[::10])
    assert 5 <= sum(kept) - 5 <= 10  # some of the good ones, the first


def test_data_comes_in_chunks_that_say_where_they_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(html_data, "_CHUNK", 2_000)
    page, _ = page_of(tmp_path, *(scored(str(n), 1) for n in range(20)))
    begins = [int(a["data-from"] or 0) for tag, a in page.tags if a.get("class") == "details"]
    sizes = [len(chunk) for chunk in page.data("details")]
    assert len(begins) > 3
    assert begins == [sum(sizes[:place]) for place in range(len(sizes))]
    assert [row[2] for row in page.rows()] == [str(n) for n in range(20)]


def test_a_record_that_somebody_has_changed_by_hand(tmp_path: Path) -> None:
    lists: dict[str, Any] = {"suites": [1], "targets": "x", "stopping": {}, "options": []}
    page, _ = page_of(tmp_path, scored("a", 1), **lists, totals=3, versions=1, planned="many")
    assert len(page.rows()) == 1

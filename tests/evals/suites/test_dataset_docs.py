"""The manual's pages about data sets: their files make suites that pass as they say."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[3] / "docs"
FILE = re.compile(
    r"<!-- file: (?P<name>\S+) -->\n```\w+\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)


@pytest.mark.parametrize(
    ("page", "suite", "targets", "results"),
    [
        ("datasets.md", "shop.eval.yaml", (), 11),
        ("datasets.md", "questions.csv", ("echo",), 2),
        ("from-promptfoo.md", "promptfooconfig.yaml", (), 12),
    ],
)
def test_files_of_a_page(
    tmp_path: Path, page: str, suite: str, targets: tuple[str, ...], results: int
) -> None:
    for found in FILE.finditer((DOCS / page).read_text()):
        path = tmp_path / found["name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(found["text"])
    command = [sys.executable, "-m", "muster", "eval", suite, "--output", "run"]
    options = [part for name in targets for part in ("--target", name)]
    ended = subprocess.run(
        [*command, *options], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr
    lines = (tmp_path / "run" / "results.jsonl").read_text().splitlines()
    statuses = [json.loads(line)["execution_status"] for line in lines]
    assert statuses == ["ok"] * results

"""The demo runs, offline and quickly, and tells its three targets apart."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

DEMO = Path(__file__).parents[1] / "examples" / "demo"


def test_demo(tmp_path: Path) -> None:
    output = tmp_path / "run"
    # `python3` of the command target must be there even if no virtual environment is active.
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    started = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-m", "muster", "eval", str(DEMO), "--no-gate", "--output", str(output)],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert time.monotonic() - started < 10
    rows = [json.loads(line) for line in (output / "results.jsonl").read_text().splitlines()]
    assert Counter(row["target"] for row in rows) == {"agent": 40, "faq": 40, "scripted": 40}
    passed = Counter(row["target"] for row in rows if row["execution_status"] == "ok")
    assert passed == {"agent": 38, "faq": 16, "scripted": 10}
    assert not [row for row in rows if row["execution_status"] == "execution_error"]
    types = {score["type"] for row in rows for score in row["scores"]}
    assert types >= {"contains", "icontains", "regex", "equals", "is-json", "numeric", "latency"}
    assert all(row["token_usage"] and row["cost_usd"] for row in rows if row["target"] == "faq")

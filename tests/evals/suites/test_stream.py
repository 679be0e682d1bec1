"""A suite of any length takes the memory of its ids, and passes repeat exactly."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from muster.errors import ConfigError
from muster.evals.suites.load import load_suite

_MEASURE = """
import json, re, sys, time
from pathlib import Path
from muster.evals.suites.load import load_suite

started = time.process_time()
suite = load_suite(Path(sys.argv[1]), env={}, project_root=Path(sys.argv[1]).parent)
passes = [sum(len(case.graders) for case in suite.cases()) for _ in range(2)]
# Not ru_maxrss: that counts the parent's memory too, from before the exec.
status = Path("/proc/self/status").read_text()
print(json.dumps({
    "count": suite.count,
    "passes": passes,
    "seconds": time.process_time() - started,
    "peak_mb": int(re.search(r"VmHWM:\\s+(\\d+)", status)[1]) / 1024,
}))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read in /proc")
def test_a_hundred_thousand_cases(tmp_path: Path) -> None:
    with (tmp_path / "big.jsonl").open("w") as file:
        for n in range(100_000):
            row = {"id": f"case-{n:06}", "input": f"What is {n} + 1?", "expected_output": str(n)}
            file.write(json.dumps(row) + "\n")
    (tmp_path / "big.yaml").write_text("assertions: [{type: equals, value: x}]\n")
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(tmp_path / "big.jsonl")],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    measured = json.loads(done.stdout)
    assert measured["count"] == 100_000
    assert measured["passes"] == [100_000, 100_000]
    assert measured["peak_mb"] < 120
    assert measured["seconds"] < 30


def test_large_suites_are_read_again_for_every_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muster.evals.suites.check._KEPT_CASES", 2)
    path = tmp_path / "rows.jsonl"
    row = '"input": "q", "assert": [{"type": "contains", "value": "x"}]}\n'
    path.write_text("".join(f'{{"description": "same", {row}' for _ in range(5)))
    suite = load_suite(path, env={}, project_root=tmp_path)
    first, second = suite.cases(), suite.cases()
    assert [case.id for case in first] == [case.id for case in second]
    assert [case.id for case in suite.cases()][:3] == ["same", "same (2)", "same (3)"]
    path.write_text('{"id": "broken"')
    with pytest.raises(ConfigError):
        list(suite.cases())


def test_a_file_that_breaks_later_is_not_passed_over_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muster.evals.suites.check._KEPT_CASES", 0)
    path = tmp_path / "rows.jsonl"
    good = '{"id": "%d", "input": "q", "assert": [{"type": "contains", "value": "x"}]}\n'
    path.write_text(good % 1 + good % 2)
    suite = load_suite(path, env={}, project_root=tmp_path)
    path.write_text(good % 1)
    with pytest.raises(ConfigError, match="has changed"):
        list(suite.cases())

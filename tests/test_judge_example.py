"""`examples/judge` does, offline, what its README says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from test_examples import EXAMPLES, commands_of, run_in, runs_of


def test_example(tmp_path: Path) -> None:
    folder = tmp_path / "judge"
    shutil.copytree(EXAMPLES / "judge", folder)
    (folder / ".muster").mkdir()  # a project of its own: nothing is kept elsewhere
    commands = [command for command, _ in commands_of((folder / "README.md").read_text())]
    checks = [json.loads(run_in(folder, f"{command} --json")) for command in commands[:2]]
    flattering, sober = (run_in(folder, command) for command in commands[2:4])
    pairs = json.loads(run_in(folder, f"{commands[4]} --json"))

    (answers, places), (better, _) = (check["records"] for check in checks)
    assert answers["agreement"]["value"] == 0.3
    assert round(answers["kappa"]["value"], 9) == -0.4
    assert places["position_bias"]["drawn_to_first"] == 3
    assert better["agreement"]["value"] == 0.9
    assert "agreement 30.0%" in flattering
    assert "agreement 90.0%" in sober
    assert runs_of(folder) == [{"brief": (0, 3), "wordy": (3, 3)}]
    rows = [
        json.loads(line) for line in (folder / "run" / "results.jsonl").read_text().splitlines()
    ]
    assert sorted(row["target"] for row in rows if row["execution_status"] == "ok") == [
        "brief", "brief", "wordy", "wordy",
    ]  # fmt: skip
    assert (pairs["a_wins"], pairs["b_wins"], pairs["ties"]) == (1, 1, 1)
    assert pairs["judge"]["check"]["agreement"]["value"] == 1.0

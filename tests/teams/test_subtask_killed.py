"""A subtask that was submitted is in the journal before the model is told: `kill -9` at that very
moment loses nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from muster.store.journal import Journal, journal_path

PROVIDER = """
import os
import signal

import muster


class Killed:
    async def invoke(self, request):
        if request.question != "begin":
            return muster.ProviderResponse(f"did {request.question}")
        told = await request.call_tool("submit_subtask", {"prompt": "later"})
        if "KILL" in os.environ:
            os.kill(os.getpid(), signal.SIGKILL)
        return muster.ProviderResponse(told)


@muster.register("killed")
def create(target):
    return Killed()
"""

TEAM = """
apiVersion: muster.dev/v1alpha1
kind: Team
metadata: {name: t}
spec:
  roles:
  - {name: w, provider: killed, model: any, systemPrompt: x, builtinTools: [submit_subtask]}
  entry: w
"""


def muster(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "muster", *arguments],
        cwd=folder,
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_killed_as_the_answer_is_given(tmp_path: Path) -> None:
    (tmp_path / ".muster" / "providers").mkdir(parents=True)
    (tmp_path / ".muster" / "providers" / "killed.py").write_text(PROVIDER)
    (tmp_path / "team.yaml").write_text(TEAM)
    killed = muster(tmp_path, "run", "team.yaml", "--input", "prompt=begin", KILL="1")
    assert killed.returncode == -9, killed.stderr
    with Journal.open(journal_path(tmp_path)) as journal:
        (run,) = journal.runs()
        first, submitted = journal.steps(run.id)
        assert (first.name, first.status) == ("w", "running")
        assert submitted.name.startswith("w → subtask-")
        assert (submitted.prompt, submitted.parent) == ("later", first.id)
    resumed = muster(tmp_path, "run", "--resume", run.id)
    assert resumed.returncode == 0, resumed.stderr
    with Journal.open(journal_path(tmp_path)) as journal:
        rows = journal.steps(run.id)
        done = [row.output for row in rows if row.status == "succeeded" and "→" in row.name]
        assert done == ["did later"]
        assert journal.run(run.id).status == "succeeded"
        names = {row.name for row in rows}
    assert names == {"w", submitted.name}  # it was not submitted a second time

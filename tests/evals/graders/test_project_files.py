"""Files that are graders under their own names: in `.muster/graders`, and AgentV's."""

from __future__ import annotations

from collections.abc import Awaitable
from pathlib import Path

import pytest

from muster.errors import ConfigError
from muster.evals.graders import graders
from muster.evals.graders.base import Score
from muster.evals.scoring import as_score, grade_all
from program_parts import bound, context_of


def test_a_file_with_a_function_is_a_grader(tmp_path: Path) -> None:
    (tmp_path / "short.py").write_text(
        "def grade(output, context):\n    return len(output) < context['config']['most']\n"
    )
    (tmp_path / "one.py").write_text("def get_assert(context):\n    return 0.25\n")
    registry = graders.for_project([tmp_path])
    assert registry.failures == []
    for entry, score in [
        ({"type": "short", "most": 100}, 1),
        ({"type": "short", "most": 2}, 0),
        ({"type": "one"}, 0.25),
    ]:
        found = bound(entry, tmp_path, registry=registry).grade(context_of())
        assert as_score(found) == Score(score)


def test_other_files(tmp_path: Path) -> None:
    """One of functions under other names is for `python`; one of none is told."""
    (tmp_path / "named.py").write_text("def mine(context):\n    return 1\n")
    (tmp_path / "empty.py").write_text("x = 1\n")
    registry = graders.for_project([tmp_path])
    (told,) = registry.failures
    assert told.endswith(
        'empty.py: registers no grader; it should call muster.register_grader("name", factory), '
        "or define a function `grade`"
    )
    python = bound({"type": "python", "value": "named.py:mine"}, tmp_path)
    assert python.grade(context_of()) == Score(1)
    with pytest.raises(ConfigError, match="has no function grade or get_assert"):
        bound({"type": "named"}, tmp_path, registry=registry)


# --- AgentV's -------------------------------------------------------------------------------------


PROGRAM = """\
import json, sys
case = json.load(sys.stdin)
print(json.dumps({"score": len(case["output"]) / case["config"]["of"], "details": case["config"]}))
"""


@pytest.mark.parametrize("folder", [".agentv/assertions", ".agentv/graders"])
async def test_a_program_in_agentvs_folders_is_a_type(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "long-enough.py").write_text(PROGRAM)
    suites = tmp_path / "evals"
    suites.mkdir()
    entry = {"type": "long-enough", "of": 44, "config": {"more": 1}}
    entries = [entry, {"type": "not-long-enough", "of": 44}]
    found = [bound(one, suites, project_root=tmp_path) for one in entries]
    graded = grade_all(found, context_of())
    assert isinstance(graded, Awaitable)
    straight, turned = (await graded).rows
    assert (straight.error, straight.score) == (None, 0.25)
    assert straight.details == {"of": 44, "more": 1}
    assert turned.score == 0.75
    with pytest.raises(ConfigError, match="--safe runs no programs"):
        bound(entry, suites, project_root=tmp_path, safe=True)


def test_what_runs_it_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".agentv" / "graders").mkdir(parents=True)
    (tmp_path / ".agentv" / "graders" / "typed.ts").write_text("")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="needs bun or tsx, and there is none on PATH"):
        bound({"type": "typed"}, tmp_path)

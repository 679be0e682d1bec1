"""The conformance suite as a pytest plug-in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

RIGHT = """
import sys
sys.path.insert(0, {here!r})
from gallery.base import right
from muster.testing.provider_contract import provider_contract

test_mine = provider_contract(right, rules=["question-arrives", "stream-ends-early"])
"""

SLOW_TO_START = """
import asyncio
from muster.testing.provider_contract import provider_contract

def factory(environment):
    started = []
    async def answer(request):
        if not started:
            started.append(await asyncio.sleep(0.3))
        return request.question
    return answer

test_mine = provider_contract(factory, rules=["timeouts-are-typed"])
"""

WRONG = """
from muster.testing.provider_contract import provider_contract

test_mine = provider_contract(lambda environment: lambda question: question.strip())
"""


def run(folder: Path, *options: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rA", *options],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTEST_ADDOPTS": ""},
        check=False,
    )
    return ended.stdout + ended.stderr


def test_each_rule_is_a_test(tmp_path: Path) -> None:
    (tmp_path / "test_right.py").write_text(RIGHT.format(here=str(Path(__file__).parent)))
    said = run(tmp_path)
    assert "PASSED test_right.py::test_mine[question-arrives]" in said
    assert "PASSED test_right.py::test_mine[stream-ends-early]" in said
    assert "2 passed" in said


def test_a_broken_rule_fails_with_evidence_and_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "test_wrong.py").write_text(WRONG)
    said = run(tmp_path, "-k", "question-arrives or empty or server-error")
    assert "1 failed, 1 passed, 2 skipped" in said
    assert "SKIPPED" in said
    assert "it calls no service" in said
    assert "the question is not in the answer" in said
    assert "mend: Send `request.question` whole" in said


def test_a_slow_start_is_no_slow_answer(tmp_path: Path) -> None:
    (tmp_path / "test_slow.py").write_text(SLOW_TO_START)
    said = run(tmp_path)
    assert "it answers at once" in said
    assert "1 skipped" in said


def test_a_target_is_checked_without_a_file(tmp_path: Path) -> None:
    (tmp_path / "targets.yaml").write_text(
        "targets: [{name: mine, provider: openai, model: gpt-4o, api_key: '${{ MY_KEY }}'}]"
    )
    plugin = ("-p", "muster.testing.provider_contract", "--muster-target", "mine")
    said = run(tmp_path, *plugin, "-k", "history or quota-spent")
    assert "PASSED target:mine::history-arrives" in said
    assert "2 passed" in said


def test_without_the_option_nothing_is_added(tmp_path: Path) -> None:
    (tmp_path / "test_one.py").write_text("def test_one():\n    pass\n")
    assert "1 passed" in run(tmp_path, "-p", "muster.testing.provider_contract")

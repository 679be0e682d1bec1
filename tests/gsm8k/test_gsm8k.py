"""Real answers, judged: the numeric grader agrees with the data set's own verdict on each.

The data, 1,319 problems with the answers of four models, are not part of the repository: they come
from the path in `MUSTER_GSM8K`, or from `../shared/data/gsm8k` beside the checkout.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from muster.config.document import Document
from muster.evals.case import Case
from muster.evals.graders import graders
from muster.evals.graders.base import GradeContext
from muster.evals.graders.load import bind_graders
from muster.evals.scoring import Graded, grade_all
from muster.provider import Message, ProviderResponse

HERE = Path(__file__).parent
CHECKOUT = HERE.parent.parent
NAME = "example_model_solutions.jsonl"
DATA = Path(os.environ.get("MUSTER_GSM8K") or CHECKOUT.parent / "shared/data/gsm8k" / NAME)

CORRECT = {
    "6b_finetuning": 286,
    "6b_verification": 515,
    "175b_finetuning": 458,
    "175b_verification": 742,
}

pytestmark = pytest.mark.skipif(
    not DATA.is_file(), reason=f"no GSM8K data: {DATA} is not there, and MUSTER_GSM8K names no file"
)


@pytest.fixture(scope="module")
def problems() -> list[dict[str, Any]]:
    with DATA.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@pytest.mark.parametrize("settings", [{}, {"extract": "A: (.*)"}], ids=["last number", "extract"])
@pytest.mark.parametrize("model", CORRECT)
def test_the_grader_agrees_case_by_case(
    problems: list[dict[str, Any]], model: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    bound = bind_graders(
        [{"type": "numeric", **settings}],
        document=Document(None),
        location=(),
        base_dir=tmp_path,
        project_root=tmp_path,
        registry=graders,
    )
    case = Case(id="gsm8k", suite="gsm8k", input=())
    disagree = []
    correct = 0
    for row in problems:
        answer = row[model]["solution"]
        context = GradeContext(
            output=answer,
            case=case,
            response=ProviderResponse(answer),
            expected_output=(Message("assistant", row["ground_truth"]),),
        )
        graded = grade_all(bound, context)
        assert isinstance(graded, Graded)
        assert graded.error is None
        correct += graded.score == 1
        if (graded.score == 1) is not row[model]["is_correct"]:
            disagree.append((row["question"], graded.rows[0].assertions))
    assert len(problems) == 1319
    assert disagree == []
    assert correct == CORRECT[model]


@pytest.mark.skipif(
    find_spec("muster.cli") is None or find_spec("muster.cli.main") is None,
    reason="there is no muster command",
)
def test_the_suite_as_a_user_runs_it(problems: list[dict[str, Any]], tmp_path: Path) -> None:
    run = subprocess.run(
        [
            *(sys.executable, "-m", "muster", "eval", str(HERE / "gsm8k.eval.yaml")),
            *("--output", str(tmp_path / "run"), "--no-gate", "--quiet"),
        ],
        env=os.environ | {"MUSTER_GSM8K": str(DATA)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    with (tmp_path / "run/results.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    assert len(rows) == len({(row["test_id"], row["target"]) for row in rows}) == 4 * 1319
    passed = dict.fromkeys(CORRECT, 0)
    for row in rows:
        number = int(row["test_id"].removeprefix("gsm8k-"))
        right = row["execution_status"] == "ok"
        assert row["execution_status"] in {"ok", "quality_failure"}
        assert right is problems[number - 1][row["target"]]["is_correct"], row
        passed[row["target"]] += right
    assert passed == CORRECT

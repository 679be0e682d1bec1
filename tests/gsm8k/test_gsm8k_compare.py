"""Two of the recorded models, compared: real answers, and figures that others can compute."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats

HERE = Path(__file__).parent
NAME = "example_model_solutions.jsonl"
BESIDE = HERE.parent.parent.parent / "shared/data/gsm8k" / NAME
DATA = Path(os.environ.get("MUSTER_GSM8K") or BESIDE)

pytestmark = pytest.mark.skipif(
    not DATA.is_file(), reason=f"no GSM8K data: {DATA} is not there, and MUSTER_GSM8K names no file"
)

A, B = "175b_verification", "175b_finetuning"


@pytest.fixture(scope="module", params=["targets of one run", "two runs"])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("gsm8k")
    start = ("eval", str(HERE / "gsm8k.eval.yaml"), "--no-gate", "-q", "--output")
    if request.param == "two runs":
        for name in (A, B):
            _muster(folder, *start, name, "--target", name)
        told = _muster(folder, "compare", A, B, "--json")
    else:
        _muster(folder, *start, "run")
        told = _muster(folder, "compare", "run", "--targets", A, B, "--json")
    (each,) = json.loads(told)["comparisons"]
    return each


def _muster(folder: Path, *arguments: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", "muster", *arguments],
        env=os.environ | {"MUSTER_GSM8K": str(DATA)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def correct() -> dict[str, Any]:
    """The data set's own verdicts."""
    with DATA.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return {name: np.array([float(row[name]["is_correct"]) for row in rows]) for name in (A, B)}


def test_wins_losses_and_ties(found: dict[str, Any]) -> None:
    assert (found["wins"], found["losses"], found["ties"]) == (360, 76, 883)
    assert (found["cases"], found["verdict"]) == (1319, "better")


def test_the_difference(found: dict[str, Any], correct: dict[str, Any]) -> None:
    assert round(found["difference"]["value"], 4) == 0.2153
    wanted = scipy.stats.ttest_rel(correct[A], correct[B]).confidence_interval(0.95)
    bounds = (found["difference"]["low"], found["difference"]["high"])
    assert bounds == pytest.approx((wanted.low, wanted.high), abs=1e-6)


def test_mcnemar(found: dict[str, Any]) -> None:
    assert (found["only_a_passed"], found["only_b_passed"]) == (360, 76)
    # Exactly, in whole numbers: twice the tosses of 436 coins with at most 76 heads.
    exact = 2 * sum(math.comb(436, heads) for heads in range(77)) / 2**436
    assert exact < 1e-40
    assert found["mcnemar_p"] == pytest.approx(exact, rel=1e-9)
    assert found["permutation_p"] == pytest.approx(exact, rel=1e-9)


def test_the_pass_rate_of_the_best(found: dict[str, Any]) -> None:
    side = found["a"]
    assert (side["passed"], side["results"]) == (742, 1319)
    wanted = scipy.stats.binomtest(742, 1319).proportion_ci(method="wilson")
    assert side["pass_rate_interval"] == pytest.approx([wanted.low, wanted.high], abs=1e-9)
    assert [round(bound, 4) for bound in side["pass_rate_interval"]] == [0.5356, 0.5891]
    assert side["mean_score"]["low"] == pytest.approx(wanted.low)


def test_the_gain(found: dict[str, Any], correct: dict[str, Any]) -> None:
    a, b = correct[A], correct[B]
    assert found["gain"]["value"] == pytest.approx((742 - 458) / (1319 - 458))
    wanted = scipy.stats.bootstrap(
        (a, b),
        lambda x, y, axis: (x - y).mean(axis=axis) / (1 - y).mean(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=5_000,
        method="percentile",
        rng=1,
    ).confidence_interval
    bounds = (found["gain"]["low"], found["gain"]["high"])
    assert bounds == pytest.approx((wanted.low, wanted.high), abs=0.003)

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from judge_parts import Scripted, judge_with
from muster.errors import ConfigError
from muster.evals.case import Case
from muster.evals.graders.base import GradeContext
from muster.evals.graders.load import bind_graders
from muster.evals.scoring import Graded, ScoreRow

pytest.importorskip("rapidfuzz", reason="needs the extra `metrics`")
pytest.importorskip("rouge_score", reason="needs the extra `metrics`")
pytest.importorskip("sacrebleu", reason="needs the extra `metrics`")

Judged = Callable[..., ScoreRow]

ANSWER = "the cat sat on the mat"
RIGHT = "the cat is on the mat"


@pytest.mark.parametrize(
    ("entry", "score"),
    [
        # 5 of 6 words are the same, 3 of 5 pairs; the longest common subsequence has 5 words.
        ({"type": "rouge", "variant": "rouge1"}, 5 / 6),
        ({"type": "rouge", "variant": "rouge2"}, 3 / 5),
        ({"type": "rouge"}, 5 / 6),
        ({"type": "fuzzy"}, 1 - 3 / 22),
        ({"type": "levenshtein"}, 1.0),
        ({"type": "levenshtein", "threshold": 1}, 0.0),
        # the: 2 and 2; cat, on, mat: 1 and 1; sat and is alone: 4 + 3 of 8 and 8.
        ({"type": "token-overlap"}, 7 / 8),
        ({"type": "token-overlap", "measure": "jaccard"}, 4 / 6),
        ({"type": "token-overlap", "measure": "f1"}, 5 / 6),
        # Of runs of 1, 2, 3 and 4 words both have 5 + 3 + 1 + 0, each of 6 + 5 + 4 + 3.
        ({"type": "gleu"}, 9 / 18),
    ],
)
def test_scores_counted_by_hand(judged: Judged, entry: dict[str, Any], score: float) -> None:
    assert judged(entry, ANSWER, RIGHT).score == pytest.approx(score, abs=1e-9)
    assert judged(entry | {"value": RIGHT}, ANSWER, "else").score == pytest.approx(score, abs=1e-9)


def test_rouge_precision_and_recall(judged: Judged) -> None:
    entry = {"type": "rouge", "variant": "rouge1", "value": "a b c d"}
    assert judged(entry | {"measure": "recall"}, "a b").score == 0.5
    assert judged(entry | {"measure": "precision"}, "a b").score == 1.0
    assert judged(entry | {"value": "running dogs", "stem": True}, "run dog").score == 1.0


def by_hand(answer: str, right: str) -> float:
    """BLEU-4 with a brevity penalty, for texts in which each order has a match."""
    said, wanted = answer.split(), right.split()
    product = 1.0
    for order in range(1, 5):
        grams = [tuple(said[at : at + order]) for at in range(len(said) - order + 1)]
        others = [tuple(wanted[at : at + order]) for at in range(len(wanted) - order + 1)]
        hits = sum(min(grams.count(gram), others.count(gram)) for gram in set(grams))
        product *= hits / len(grams)
    return math.exp(min(0.0, 1 - len(wanted) / len(said))) * product**0.25


def test_bleu(judged: Judged) -> None:
    said = "the quick brown fox jumps over the dog"
    right = "the quick brown fox jumps over the lazy dog"
    row = judged({"type": "bleu"}, said, right)
    assert row.score == pytest.approx(by_hand(said, right), abs=1e-9)
    assert judged({"type": "bleu", "value": right}, "").score == 0
    assert judged({"type": "bleu", "value": [said, right]}, said).score == pytest.approx(1)


def test_chrf(judged: Judged) -> None:
    assert judged({"type": "chrf", "value": "abc"}, "abc").score == pytest.approx(1)
    assert judged({"type": "chrf", "value": "abc"}, "xyz").score == 0
    # Of "ab" and "ac": letters 1 of 2, pairs 0 of 1.
    assert judged({"type": "chrf", "value": "ab"}, "ac").score == pytest.approx(0.25)


def test_the_nearest_of_several_references_counts(judged: Judged) -> None:
    for kind in ("rouge", "chrf", "fuzzy"):
        entry = {"type": kind, "value": ["nothing alike", ANSWER]}
        assert judged(entry, ANSWER).score == pytest.approx(1)


def test_fuzzy_folds_unless_told_otherwise(judged: Judged) -> None:
    assert judged({"type": "fuzzy", "value": "A  B"}, "a b").score == 1
    assert judged({"type": "fuzzy", "value": "AB", "fold": False}, "ab").score == 0


@pytest.mark.parametrize(
    ("threshold", "verdict", "value"), [(0.8, "pass", 1.0), (0.9, "fail", 0.0)]
)
def test_a_threshold_makes_a_verdict_of_it(
    judged: Judged, threshold: float, verdict: str, value: float
) -> None:
    entry = {"type": "rouge", "threshold": threshold}
    row = judged(entry, ANSWER, RIGHT)
    assert row.score == pytest.approx(5 / 6)
    assert (row.verdict, row.value) == (verdict, value)
    assert f"wanted {threshold}" in row.assertions[0].text


@given(st.text(max_size=30), st.text(max_size=30))
def test_measures_are_shares(said: str, right: str) -> None:
    for kind in ("rouge", "bleu", "chrf", "fuzzy"):
        (bound,) = bind_one({"type": kind, "value": [right, "x"]})
        case = Case(id="c", suite="s", input=())
        context = GradeContext(output=said, case=case, response=None)  # type: ignore[arg-type]
        assert 0 <= bound.grade(context).score <= 1


def bind_one(entry: dict[str, Any]) -> Any:
    from pathlib import Path

    from muster.config.document import Document
    from muster.evals.graders import graders

    return bind_graders(
        [entry],
        document=Document({"assertions": [entry]}, None),
        location=("assertions",),
        base_dir=Path(),
        project_root=Path(),
        registry=graders,
    )


def test_nothing_to_compare_with_is_an_error(graded: Callable[..., Graded]) -> None:
    for kind in ("rouge", "bleu", "chrf", "fuzzy", "levenshtein"):
        assert "nothing to compare with" in (graded({"type": kind}, "x").error or "")
    with pytest.raises(ConfigError, match="keep one"):
        graded({"type": "rouge", "threshold": 0.5, "min_score": 0.5}, "x", "y")


def test_a_library_that_is_not_there_is_told_before_the_run(
    graded: Callable[..., Graded], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "rapidfuzz.distance", None)
    with pytest.raises(ConfigError, match=r"needs rapidfuzz: pip install 'muster-ai\[metrics\]'"):
        graded({"type": "fuzzy"}, "x", "y")


@pytest.mark.parametrize("kind", ["rouge", "fuzzy", "levenshtein"])
def test_texts_that_would_take_too_long_are_an_error(
    graded: Callable[..., Graded], kind: str
) -> None:
    found = graded({"type": kind, "value": "a b " * 50_000}, "a c " * 50_000)
    assert "too long to be compared" in (found.error or "")


# --- similar --------------------------------------------------------------------------------------

VECTORS = {"a": (1.0, 0.0), "b": (0.0, 2.0), "c": (-3.0, 0.0), "d": (0.6, 0.8), "zero": (0.0, 0.0)}


class Vectors:
    """Makes the vectors of `VECTORS`."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    async def embed(self, texts: Any) -> Any:
        from muster.embeddings import Embedded
        from muster.provider import TokenUsage

        self.asked.append(list(texts))
        vectors = tuple(VECTORS[text] for text in texts)
        return Embedded(vectors=vectors, token_usage=TokenUsage(len(texts), 0), cost_usd=0.5)


@pytest.mark.parametrize(
    ("value", "more", "score", "verdict", "counted"),
    [
        ("a", {}, 1.0, "pass", 1.0),
        ("b", {}, 0.5, "fail", 0.5),
        ("c", {}, 0.0, "fail", 0.0),
        ("d", {}, 0.8, "pass", 0.8),
        (["c", "d"], {}, 0.8, "pass", 0.8),
        ("b", {"threshold": 0.5}, 0.5, "pass", 1.0),
        ("d", {"threshold": 0.9}, 0.8, "fail", 0.0),
        ("d", {"min_score": 0.9}, 0.8, "fail", 0.8),
    ],
)
def test_similar(
    value: Any,
    more: dict[str, Any],
    score: float,
    verdict: str,
    counted: float,
) -> None:
    found, asked = similar({"type": "similar", "value": value} | more, "a")
    row = found.rows[0]
    assert row.score == pytest.approx(score)
    assert (row.verdict, row.value) == (verdict, pytest.approx(counted))
    assert asked.calls == 1
    assert asked.cost_usd == 0.5
    assert asked.token_usage is not None
    assert asked.token_usage.input == (3 if isinstance(value, list) else 2)


def similar(entry: dict[str, Any], output: str, embedder: Any = None) -> tuple[Graded, Any]:
    return judge_with(entry, Scripted("x"), output=output, embedder=embedder or Vectors())


def test_what_cannot_be_compared() -> None:
    found, asked = similar({"type": "similar", "value": "a"}, "  ")
    assert (found.score, asked.calls) == (0.0, 0)
    found, _ = similar({"type": "similar", "value": "zero"}, "a")
    assert found.error == 'grader "similar": a vector without a direction cannot be compared'

    class Broken:
        async def embed(self, texts: Any) -> Any:
            from muster.provider import RateLimited

            raise RateLimited("slow down")

    found, asked = similar({"type": "similar", "value": "a"}, "a", Broken())
    assert found.error == 'grader "similar": target "judge": slow down'
    assert asked.calls == 1

"""Assertion types of AgentV and promptfoo that suites may hold but that are not graded here."""

from __future__ import annotations

__all__ = ("instead_of", "is_foreign")

_FOREIGN = frozenset(
    (
        "answer-relevance",
        "classifier",
        "contains-html",
        "contains-sql",
        "context-faithfulness",
        "context-recall",
        "context-relevance",
        "conversation-relevance",
        "factuality",
        "g-eval",
        "guardrails",
        "human",
        "is-html",
        "is-refusal",
        "is-sql",
        "is-valid-function-call",
        "is-valid-openai-function-call",
        "is-valid-openai-tools-call",
        "max-score",
        "meteor",
        "model-graded-closedqa",
        "model-graded-factuality",
        "moderation",
        "perplexity",
        "perplexity-score",
        "pi",
        "rouge-n",
        "ruby",
        "search-rubric",
        "select-best",
        "similar",
        "trace-error-spans",
        "trace-span-count",
        "trace-span-duration",
        "trajectory",
    )
)


def is_foreign(kind: str) -> bool:
    """True for a type, in kebab-case and without `not-`, that those harnesses know and Muster
    does not; `trajectory:…` and `similar:…` are families, `…-judge` the old name of `…-grader`."""
    return kind.partition(":")[0] in _FOREIGN or kind.endswith("-judge")


_JUDGE = "an llm-rubric that says what must hold"
_INSTEAD = {
    "factuality": _JUDGE,
    "g-eval": _JUDGE,
    "is-refusal": "an llm-rubric, or a regex of the words",
    "max-score": "`muster compare`",
    "model-graded-closedqa": _JUDGE,
    "model-graded-factuality": _JUDGE,
    "rouge-n": "rouge with `variant: rouge1` and `threshold: 0.75`; it cuts words otherwise",
    "ruby": "a script with `command: [ruby, FILE]`",
    "select-best": "llm-pairwise, or `muster judge pairs`",
    "trajectory": "tool-trajectory, or trajectory:…",
}


def instead_of(kind: str) -> str | None:
    """What does nearly the same here, if anything does."""
    return _INSTEAD.get(kind)

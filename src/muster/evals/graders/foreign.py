"""Assertion types of AgentV and promptfoo that suites may hold but that are not graded here."""

from __future__ import annotations

__all__ = ("is_foreign",)

_FOREIGN = frozenset(
    (
        "answer-relevance",
        "classifier",
        "contains-html",
        "contains-json",
        "contains-sql",
        "contains-xml",
        "context-faithfulness",
        "context-recall",
        "context-relevance",
        "conversation-relevance",
        "factuality",
        "finish-reason",
        "g-eval",
        "gleu",
        "guardrails",
        "human",
        "is-html",
        "is-refusal",
        "is-sql",
        "is-valid-function-call",
        "is-valid-openai-function-call",
        "is-valid-openai-tools-call",
        "is-xml",
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
        "tool-call-f1",
        "trace-error-spans",
        "trace-span-count",
        "trace-span-duration",
        "trajectory",
        "word-count",
    )
)


def is_foreign(kind: str) -> bool:
    """True for a type, in kebab-case and without `not-`, that those harnesses know and Muster
    does not; `trajectory:…` and `similar:…` are families, `…-judge` the old name of `…-grader`."""
    return kind.partition(":")[0] in _FOREIGN or kind.endswith("-judge")

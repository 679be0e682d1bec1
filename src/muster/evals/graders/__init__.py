"""What judges an answer. Graders are found by name in `graders`; none is imported before use."""

from __future__ import annotations

from muster.evals.graders.base import GraderFactory
from muster.registry import Registry

__all__ = ("graders",)

_TEXT = "muster.evals.graders.text"
_METRICS = "muster.evals.graders.metrics"
_LLM = "muster.evals.graders.llm"
_MEASURES = "muster.evals.graders.text_metrics"
_OVERLAP = "muster.evals.graders.text_overlap"
_TOOLS = "muster.evals.graders.tool_use"

graders: Registry[GraderFactory] = Registry(
    "grader",
    builtins={
        "agent-rubric": f"{_LLM}:AgentRubric",
        "assert-set": "muster.evals.graders.composite:AssertSet",
        "bleu": f"{_MEASURES}:Bleu",
        "chrf": f"{_MEASURES}:Chrf",
        "code-exec": "muster.evals.graders.code_exec:CodeExec",
        "code-grader": "muster.evals.graders.script:Script",
        "composite": "muster.evals.graders.composite:Composite",
        "contains": f"{_TEXT}:Contains",
        "contains-all": f"{_TEXT}:ContainsAll",
        "contains-any": f"{_TEXT}:ContainsAny",
        "contains-json": "muster.evals.graders.json:ContainsJson",
        "contains-xml": "muster.evals.graders.markup:ContainsXml",
        "cost": f"{_METRICS}:Cost",
        "ends-with": f"{_TEXT}:EndsWith",
        "equals": f"{_TEXT}:Equals",
        "execution-metrics": "muster.evals.graders.execution_metrics:ExecutionMetrics",
        "field-accuracy": "muster.evals.graders.field_accuracy:FieldAccuracy",
        "file-changes": "muster.evals.graders.file_changes:FileChanges",
        "finish-reason": f"{_METRICS}:FinishReason",
        "fuzzy": f"{_MEASURES}:Fuzzy",
        "gleu": f"{_OVERLAP}:Gleu",
        "icontains": f"{_TEXT}:IContains",
        "icontains-all": f"{_TEXT}:IContainsAll",
        "icontains-any": f"{_TEXT}:IContainsAny",
        "is-json": "muster.evals.graders.json:IsJson",
        "is-xml": "muster.evals.graders.markup:IsXml",
        "javascript": "muster.evals.graders.inline:JavaScript",
        "json-diff": "muster.evals.graders.json_diff:JsonDiff",
        "label": "muster.evals.graders.label:Label",
        "latency": f"{_METRICS}:Latency",
        "levenshtein": f"{_MEASURES}:Levenshtein",
        "llm-grader": f"{_LLM}:LlmGrader",
        "llm-pairwise": "muster.evals.graders.pairwise:Pairwise",
        "llm-rubric": f"{_LLM}:LlmGrader",
        "numeric": "muster.evals.graders.numeric:Numeric",
        "python": "muster.evals.graders.python:PythonGrader",
        "regex": "muster.evals.graders.regex:Regex",
        "rouge": f"{_MEASURES}:Rouge",
        "rubric": f"{_LLM}:Rubrics",
        "rubrics": f"{_LLM}:Rubrics",
        "script": "muster.evals.graders.script:Script",
        "similar": "muster.evals.graders.similar:Similar",
        "skill-trigger": "muster.evals.graders.skills:SkillTrigger",
        "skill-used": "muster.evals.graders.skills:SkillUsed",
        "starts-with": f"{_TEXT}:StartsWith",
        "step-count": f"{_TOOLS}:StepCount",
        "token-overlap": f"{_OVERLAP}:TokenOverlap",
        "token-usage": f"{_METRICS}:TokenUsage",
        "tool-args-match": f"{_TOOLS}:ToolArgsMatch",
        "tool-call-f1": "muster.evals.graders.tool_call_f1:ToolCallF1",
        "tool-sequence": f"{_TOOLS}:ToolSequence",
        "tool-trajectory": "muster.evals.graders.trajectory:ToolTrajectory",
        "tool-used": f"{_TOOLS}:ToolUsed",
        "trajectory:goal-success": "muster.evals.graders.goal:GoalSuccess",
        "trajectory:step-count": f"{_TOOLS}:StepCount",
        "trajectory:tool-args-match": f"{_TOOLS}:ToolArgsMatch",
        "trajectory:tool-sequence": f"{_TOOLS}:ToolSequence",
        "trajectory:tool-used": f"{_TOOLS}:ToolUsed",
        "webhook": "muster.evals.graders.webhook:Webhook",
        "word-count": f"{_TEXT}:WordCount",
    },
    group="graders",
    of_plain_file="muster.evals.graders.python:grader_of_module",
)
"""The default registry of graders; project files are `.muster/graders/*.py`, entry points
`muster.graders`."""

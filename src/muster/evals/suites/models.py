"""The fields of a suite, as the union of AgentV's two dialects, under one name each.

Other spellings (`assert`, camelCase, old names) are brought to these names by `suite_names` before
anything is validated. What a field means once the levels are merged is said in `normalize`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, WithJsonSchema

from muster.config.validation import FileModel

__all__ = (
    "SYNONYMS",
    "DefaultTest",
    "EvaluateOptions",
    "Execution",
    "Options",
    "RunOverrides",
    "Scenario",
    "SuiteFile",
    "TestEntry",
    "Trials",
    "TurnEntry",
    "suite_schema",
)

SYNONYMS = {"assert": "assertions"}
"""Names of fields, on every level, that are as good as others."""

_JUDGES = {"grader_target": "judge_target"}

TEST_SYNONYMS = {**SYNONYMS, **_JUDGES, "provider": "providers", "target": "targets"}
"""Those of tests, `default_test` and scenarios' configurations."""

SUITE_SYNONYMS = {**SYNONYMS, **_JUDGES, "suite": "name"}
"""Those of suites."""

_MESSAGE = {
    "type": "object",
    "required": ["role", "content"],
    "properties": {
        "role": {"enum": ["system", "user", "assistant", "tool"]},
        "content": {
            "description": "Text, a list of blocks {type: text|file|image, value}, or any data."
        },
    },
}

Messages: TypeAlias = Annotated[
    Any,
    WithJsonSchema(
        {"anyOf": [{"type": "string"}, {"type": "object"}, {"type": "array", "items": _MESSAGE}]}
    ),
]
Graders: TypeAlias = Annotated[
    list[Any] | None,
    WithJsonSchema({"type": "array", "items": {"anyOf": [{"type": "object"}, {"type": "string"}]}}),
]
Names: TypeAlias = Annotated[
    Any,
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "object"},
                {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "object"}]}},
            ]
        }
    ),
]
Fraction: TypeAlias = Annotated[float, Field(ge=0, le=1)]
Positive: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count: TypeAlias = Annotated[int, Field(ge=1)]
Identifier: TypeAlias = Annotated[str, Field(coerce_numbers_to_str=True, min_length=1)]
Paths: TypeAlias = list[str]


class Trials(FileModel):
    """v4's repeats."""

    count: Count = 1
    """How often each test runs."""
    strategy: Literal["pass_at_k", "mean", "confidence_interval"] | None = None
    """Read, not used: every repeat runs, and is recorded and summed up by itself."""


class Execution(FileModel):
    """v4's `execution`: how a suite, or one test, runs."""

    target: str | None = None
    """The target to ask."""
    targets: Names = None
    """Several targets: names, or `{name, use_target}`."""
    workers: Count | None = None
    """Tests that run at the same time."""
    assertions: Graders = None
    """As `assertions` beside it."""
    skip_defaults: bool = False
    """True: this test takes neither the suite's input nor its assertions."""
    cache: Any = None
    """`true`: answers that are there already are not asked for again."""
    cache_path: str | None = None
    """Read, not used; `--cache-path` says where the cache is."""
    trials: Trials | None = None
    """Repeats."""
    budget_usd: Positive | None = None
    """Money that the suite may cost."""
    fail_on_error: bool | None = None
    """True: stop at the first execution error."""
    threshold: Fraction | None = None
    """The score from which a test passes."""


class EvaluateOptions(FileModel):
    """v5's `evaluate_options`."""

    budget_usd: Positive | None = None
    """Money that the suite may cost."""
    max_concurrency: Count | None = None
    """Tests that run at the same time."""
    repeat: Count | None = None
    """How often each test runs."""
    timeout_ms: Positive | None = None
    """Bound on one test, in milliseconds."""
    cache: Any = None
    """`true`: answers that are there already are not asked for again."""
    delay: float | None = None
    """Read, not used: limit a target's requests a minute instead."""
    generate_suggestions: bool | None = None
    """Read, not used."""


class StopWhenEntry(FileModel):
    """When a suite is known well enough: one of `ci_width` and `compare`."""

    ci_width: Annotated[float, Field(gt=0, lt=1)] | None = None
    """A target stops when the interval of its mean score is so narrow."""
    compare: Annotated[list[str], Field(min_length=2, max_length=2)] | None = None
    """Two targets stop when one of them is shown to score higher."""
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.95
    """Of these intervals."""
    seed: Annotated[int, Field(ge=0)] | None = None
    """Of the order of the cases; else made from the suite's content."""


class Options(FileModel):
    """v5's `options` of a test."""

    prefix: str = ""
    """Put before the prompt."""
    suffix: str = ""
    """Put after the prompt."""
    repeat: Count | None = None
    """How often the test runs."""
    provider: Any = None
    """The target that judges, where an assertion names none."""
    rubric_prompt: Any = None
    """The template of what judges are asked, or `file://…`, where an assertion has none."""


class RunOverrides(FileModel):
    """v5's `run` of a test."""

    threshold: Fraction | None = None
    """The score from which the test passes."""
    repeat: Count | None = None
    """How often the test runs."""
    timeout_seconds: Positive | None = None
    """Bound on the test, in seconds."""


class TurnEntry(FileModel):
    """One turn of a conversation."""

    input: Messages
    """What the user says."""
    expected_output: Messages = None
    """What the answer should be."""
    assertions: Graders = None
    """What judges the answer to this turn."""


class _Shared(FileModel):
    """What a test, `default_test` and a scenario's `config` have in common."""

    description: str | None = None
    """What it is about; without an `id`, the test's id as well."""
    vars: dict[str, Any] | None = None
    """Values for `{{ name }}`."""
    assertions: Graders = None
    """What judges the answer."""
    judge_target: str | None = None
    """The target that judges, where an assertion names none (`grader_target` is the same)."""
    threshold: Fraction | None = None
    """The score from which a test passes; 0.8 if nothing is said."""
    metadata: dict[str, Any] | None = None
    """Anything; lists are joined with the suite's, other values replace the suite's."""
    tags: list[str] | None = None
    """Names to select tests by."""
    providers: Names = None
    """The only targets to ask (v5's word)."""
    targets: Names = None
    """The only targets to ask."""
    prompts: str | list[str] | None = None
    """The only prompts to use, by label; a trailing `*` matches what begins so."""
    options: Options | None = None
    """v5's further settings."""
    response_schema: dict[str, Any] | None = None
    """JSON Schema of the answer, for providers with structured output."""
    timeout_seconds: Positive | None = None
    """Bound on one test, in seconds."""
    repeat: Count | None = None
    """How often each test runs."""


class DefaultTest(_Shared):
    """v5's `default_test` and a scenario's `config`: what tests take where they say nothing."""


class TestEntry(_Shared):
    """One test."""

    __test__ = False  # not for pytest

    id: Identifier | None = None
    """Unique in the suite."""
    input: Messages = None
    """Text, messages, or any data."""
    input_files: Paths | None = None
    """Files given along, looked for from the suite's folder up to the project's root."""
    expected_output: Messages = None
    """The right answer: text, data, or messages."""
    criteria: str | None = None
    """What a good answer is, in words; without assertions, a model judges by it."""
    rubrics: list[Any] | None = None
    """Criteria that a model judges one by one, as a `rubrics` assertion of their own."""
    execution: Execution | None = None
    """v4's settings."""
    run: RunOverrides | None = None
    """v5's settings."""
    category: str | None = None
    """Replaces the suite's."""
    cluster: Identifier | None = None
    """What it shares with other tests, so that they are not independent: a text, a source."""
    conversation_id: str | None = None
    """A label that goes into the results."""
    suite: str | None = None
    """Replaces the suite's name in the results."""
    depends_on: list[Identifier] | None = None
    """Ids of tests that must have ended before."""
    on_dependency_failure: Literal["skip", "fail", "run"] = "skip"
    """What to do when one of them ended in an execution error."""
    mode: Literal["conversation"] | None = None
    """`conversation` for a test with `turns`; may be left out."""
    turns: list[TurnEntry] | None = Field(None, min_length=1)
    """A conversation, turn by turn."""
    aggregation: Literal["mean", "min", "max"] = "mean"
    """How the turns' scores and the conversation's become one."""
    on_turn_failure: Literal["continue", "stop"] = "continue"
    """`stop`: after a turn that fails, the others count as 0 and are not asked."""
    window_size: Count | None = None
    """Exchanges of the past that a turn is shown; all if nothing is said."""


class Scenario(FileModel):
    """v5's scenario: each of `tests` with each of `config`."""

    description: str | None = None
    """What it is about."""
    config: list[Any] = Field(default_factory=lambda: [{}], min_length=1)
    """Settings that the tests are run under, each like a `default_test`."""
    tests: Any
    """A list of tests, or where they are."""


class SuiteFile(FileModel):
    """A suite."""

    schema_: Any = Field(None, alias="$schema")
    """For editors."""
    name: str | None = None
    """The suite's name in results; without it, the file's."""
    description: str | None = None
    """What it is about."""
    category: str | None = None
    """A path such as `security/network`; without it, taken from where the file is."""
    version: str | int | float | None = None
    """Of the suite; for readers."""
    author: Any = None
    """For readers."""
    license: str | None = None
    """For readers."""
    requires: Any = None
    """What other tools need; read, not used."""
    tags: list[str] | dict[str, Any] | None = None
    """Names to select suites by; or a mapping that goes into the metadata."""
    metadata: dict[str, Any] | None = None
    """Given to every test."""
    governance: Any = None
    """Given to every test as `metadata.governance`."""
    evaluator: str | None = None
    """Read, not used: v4's default kind of grader."""
    input: Messages = None
    """Messages put before every test's input."""
    input_files: Paths | None = None
    """Files given along with every test that names none."""
    prompts: Any = None
    """Templates: every test runs with each."""
    tests: Any = None
    """A list of tests and references, or where they are."""
    scenarios: Any = None
    """Tests under several settings."""
    default_test: Any = None
    """What tests take where they say nothing: a mapping, or a file that holds it."""
    assertions: Graders = None
    """Judge every test, after its own assertions."""
    judge_target: str | None = None
    """The target that judges, where neither assertion nor test names one."""
    execution: Execution | None = None
    """v4's settings."""
    evaluate_options: EvaluateOptions | None = None
    """v5's settings."""
    target: str | None = None
    """The target to ask."""
    targets: Names = None
    """The targets to ask."""
    providers: Names = None
    """The targets to ask (v5's word): names, or definitions."""
    threshold: Fraction | None = None
    """The score from which a test passes; 0.8 if nothing is said."""
    repeat: Count | None = None
    """How often each test runs."""
    workers: Count | None = None
    """Tests that run at the same time."""
    max_concurrency: Count | None = None
    """The same."""
    timeout_seconds: Positive | None = None
    """Bound on one test, in seconds."""
    budget_usd: Positive | None = None
    """Money that the suite may cost."""
    fail_on_error: bool | None = None
    """True: stop at the first execution error."""
    stop_when: StopWhenEntry | None = None
    """When enough is known to stop early."""
    cluster_by: str | None = None
    """What says which tests belong together: `file`, for those of one data file, or the name of a
    metadata field or variable."""
    response_schema: dict[str, Any] | None = None
    """JSON Schema of the answers, for providers with structured output."""


def suite_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of suites, in both dialects, by the names that are not old."""
    from pydantic.json_schema import models_json_schema

    models = (SuiteFile, TestEntry, DefaultTest, Scenario)
    _, whole = models_json_schema([(model, "validation") for model in models])
    definitions = whole["$defs"]
    test, default = {"$ref": "#/$defs/TestEntry"}, {"$ref": "#/$defs/DefaultTest"}
    tests = {
        "anyOf": [
            {"type": "string"},
            {"type": "array", "minItems": 1, "items": {"anyOf": [test, {"type": "string"}]}},
        ]
    }
    scenario = definitions["Scenario"]["properties"]
    scenario["tests"] |= tests
    scenario["config"]["items"] = default
    for name, synonyms in _SYNONYMS_OF.items():
        properties = definitions[name]["properties"]
        properties |= {other: properties[main] for other, main in synonyms.items()}
    suite = definitions.pop("SuiteFile")
    entries = {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/Scenario"}]}
    suite["properties"]["tests"] |= tests
    suite["properties"]["scenarios"] |= {
        "anyOf": [{"type": "string"}, {"type": "array", "items": entries}]
    }
    suite["properties"]["default_test"] |= {"anyOf": [{"type": "string"}, default]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **suite,
        "title": "Suite",
        "anyOf": [{"required": ["tests"]}, {"required": ["scenarios"]}],
        "$defs": definitions,
    }


_SYNONYMS_OF = {
    "SuiteFile": SUITE_SYNONYMS,
    "TestEntry": TEST_SYNONYMS,
    "DefaultTest": TEST_SYNONYMS,
    "TurnEntry": SYNONYMS,
    "Execution": SYNONYMS,
}

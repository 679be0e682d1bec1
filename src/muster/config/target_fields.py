"""The fields that every target has, whatever its provider, and the JSON Schema of the files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, BeforeValidator, Field, StrictBool

from muster.capabilities import Capabilities
from muster.config.validation import FileModel, field_names
from muster.target import RateLimits, RetryPolicy

__all__ = ("TargetFields", "targets_schema")

_BESIDE = ("description", "extends")
"""What else a target may say; `extends` is AgentV's word for `use_target`."""

Positive: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative: TypeAlias = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _one_or_many(value: object) -> object:
    return [value] if isinstance(value, str) else value


class TargetCapabilities(FileModel):
    """What a target can do, where its provider does not know it or knows it wrongly."""

    streaming: StrictBool | None = None
    """Answers come in pieces."""
    tools: StrictBool | None = None
    """It calls the tools of a request."""
    history: StrictBool | None = None
    """It sees the earlier messages of a conversation."""
    files: StrictBool | None = None
    """It gets the content of input files."""
    images: StrictBool | None = None
    """It sees images."""
    structured_output: StrictBool | None = None
    """It is bound by a response schema."""
    embeddings: StrictBool | None = None
    """It makes vectors of texts."""
    batch: StrictBool | None = None
    """It takes many requests as one job that is answered later."""
    max_context_tokens: Annotated[int, Field(ge=1, strict=True)] | None = None
    """Tokens of input and output that fit into one call."""
    input_usd_per_million: NotNegative | None = None
    """US dollars for a million tokens of input."""
    output_usd_per_million: NotNegative | None = None
    """US dollars for a million tokens of output."""

    def known(self) -> Capabilities:
        """The same, as everything else reads it."""
        return Capabilities(**self.model_dump())


class TargetFields(FileModel):
    """What may stand beside `name` in a target; all else is the provider's own."""

    provider: str | None = None
    """The kind of provider (`openai`, `cli`, `mock`, a registered name, `package.module:Factory`).
    Without it, the environment variable AGENT_PROVIDER says."""
    use_target: str | None = None
    """Another target whose fields hold here too, save those that are given again."""
    judge_target: str | None = None
    """The target that LLM graders ask; `grader_target` is the same."""
    workers: Annotated[int, Field(ge=1)] | None = None
    """How many requests may be under way at once."""
    timeout_seconds: Positive | None = None
    """Bound on one attempt."""
    max_retries: Annotated[int, Field(ge=0)] | None = None
    """Further tries after the first, for errors that a retry can help (default 2, or 0 for
    providers that run on this machine)."""
    retry_initial_delay_ms: NotNegative | None = None
    """Delay before the first retry (default 1000)."""
    retry_max_delay_ms: NotNegative | None = None
    """The longest delay (default 30000)."""
    retry_backoff_factor: Annotated[float, Field(ge=1, allow_inf_nan=False)] | None = None
    """What the delay grows by each time (default 2)."""
    retry_status_codes: list[Annotated[int, Field(ge=100, le=599)]] | None = None
    """HTTP statuses that are worth a retry, in place of the provider's own judgement."""
    requests_per_minute: Positive | None = None
    """The rate limit in requests."""
    tokens_per_minute: Positive | None = None
    """The rate limit in tokens."""
    adaptive: bool = False
    """Shrink the concurrency on rate limits and grow it again after successes."""
    fallback_targets: Annotated[tuple[str, ...], BeforeValidator(_one_or_many)] = ()
    """Targets that are asked, in order, when this one has failed for good."""
    cacheable: StrictBool | None = None
    """Whether the response cache may keep its answers: true for a command or a function whose
    answers depend on nothing but its settings and the question; false: never."""
    capabilities: TargetCapabilities | None = None
    """What it can do, over what its provider declares; what it cannot is refused before a call."""
    env: dict[str, str] | None = None
    """Variables for this target, over those of the environment."""

    def retry_policy(self) -> RetryPolicy:
        """The retry fields, delays in seconds; the defaults for what is not given."""
        given = {
            "max_retries": self.max_retries,
            "initial_delay": _seconds(self.retry_initial_delay_ms),
            "max_delay": _seconds(self.retry_max_delay_ms),
            "backoff_factor": self.retry_backoff_factor,
            "status_codes": self.retry_status_codes and frozenset(self.retry_status_codes),
        }
        return RetryPolicy(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]

    def rate_limits(self) -> RateLimits:
        """The fields that bound how often and how much the target is asked."""
        return RateLimits(
            requests_per_minute=self.requests_per_minute,
            tokens_per_minute=self.tokens_per_minute,
            adaptive=self.adaptive,
        )


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def targets_schema(settings: Mapping[str, type[BaseModel]] | None = None) -> dict[str, Any]:
    """The JSON Schema (2020-12) of `targets.yaml` and `providers.yaml`.

    `settings` are the models of the built-in providers' own settings, by kind: an editor then
    completes and explains those too.
    """
    definitions: dict[str, Any] = {}
    _define_entries(settings or {}, definitions)
    target, provider = {"$ref": "#/$defs/target"}, {"$ref": "#/$defs/provider"}
    # { "openai:gpt-4o": {…} }
    by_spec = {"type": "object", "minProperties": 1, "maxProperties": 1}
    entries = {
        "type": "array",
        "items": {"anyOf": [target, provider, {"type": "string"}, by_spec]},
    }
    names = {"provider": {"type": "string"}, "grader": {"type": "string"}}
    file = {
        "type": "object",
        "properties": {
            "$schema": {"type": "string"},
            "targets": {"type": "array", "items": {"anyOf": [target, provider]}},
            "providers": {"anyOf": [entries, {"type": ["object", "string"]}]},
            "defaults": {"type": "object", "properties": names},
        },
        "anyOf": [{"required": ["targets"]}, {"required": ["providers"]}],
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Muster targets",
        "anyOf": [file, entries],
        "$defs": definitions,
    }


def _define_entries(settings: Mapping[str, type[BaseModel]], definitions: dict[str, Any]) -> None:
    fields = _properties(TargetFields, definitions) | {
        "grader_target": {"type": "string", "description": "The same as judge_target."},
        "config": {"type": "object", "description": "The provider's own settings."},
    }
    definitions["target"] = {
        "type": "object",
        "required": ["name"],
        "properties": {"name": {"type": "string", "minLength": 1}, **fields},
    }
    if settings:
        known = [*definitions["target"]["properties"], *_BESIDE]
        definitions["target"]["allOf"] = [
            _settings_of(kinds, model, known, definitions) for model, kinds in _by_model(settings)
        ]
    definitions["provider"] = {
        "type": "object",
        "required": ["id"],
        "properties": {
            "id": {"type": "string", "description": "A kind, or kind:model."},
            "label": {"type": "string", "description": "The target's name; else the id."},
            **fields,
        },
    }


def _by_model(
    settings: Mapping[str, type[BaseModel]],
) -> list[tuple[type[BaseModel], list[str]]]:
    """Each model once, with the kinds that share it."""
    kinds: dict[type[BaseModel], list[str]] = {}
    for kind, model in sorted(settings.items()):
        kinds.setdefault(model, []).append(kind)
    return list(kinds.items())


def _settings_of(
    kinds: list[str], model: type[BaseModel], known: list[str], definitions: dict[str, Any]
) -> dict[str, Any]:
    """What a target of one of `kinds` may have, beside its fields or in `config`."""
    properties = _properties(model, definitions)
    names = sorted(field_names(model))
    inner = {"properties": properties, "propertyNames": {"enum": names}}
    return {
        "if": {"properties": {"provider": {"enum": kinds}}, "required": ["provider"]},
        "then": {
            "properties": properties | {"config": {"type": "object", **inner}},
            "propertyNames": {"enum": sorted({*known, *names})},
        },
    }


def _properties(model: type[BaseModel], definitions: dict[str, Any]) -> dict[str, Any]:
    """The model's properties; whole-value variables are text wherever another type is wanted."""
    schema = model.model_json_schema(ref_template="#/$defs/{model}")
    definitions.update(schema.pop("$defs", {}))
    properties: dict[str, Any] = schema.get("properties", {})
    return {name: _or_variable(value) for name, value in properties.items()}


def _or_variable(schema: dict[str, Any]) -> dict[str, Any]:
    if schema.get("type") == "string":
        return schema
    about = {key: schema.pop(key) for key in ("description", "title", "default") if key in schema}
    variable = {"type": "string", "pattern": r"\{\{.*\}\}"}
    return about | {"anyOf": [*schema.pop("anyOf", [schema] if schema else [{}]), variable]}

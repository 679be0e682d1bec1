"""The file of faults: which requests get which, and under what seed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from muster.config.document import read_yaml
from muster.config.validation import FileModel, validate

__all__ = (
    "ChaosPlan",
    "Cut",
    "Fixed",
    "Latency",
    "LogNormal",
    "Match",
    "Normal",
    "Rule",
    "StatusFault",
    "Uniform",
    "chaos_schema",
    "load_plan",
)

Seconds = Annotated[float, Field(ge=0, le=3600)]


class Match(FileModel):
    """Which requests a rule is about. What is not said does not matter."""

    path: str | None = None
    """The path without the query; `*` stands for anything, as in `*/chat/completions`."""
    model: str | None = None
    """The model that is asked for, with `*` likewise. Requests without one do not match."""
    method: str | None = None
    """`GET`, `POST`, …"""
    stream: bool | None = None
    """Whether the answer is asked for in pieces."""


class Fixed(FileModel):
    """Always the same delay."""

    distribution: Literal["fixed"]
    seconds: Seconds
    """The delay."""


class Uniform(FileModel):
    """Any delay between two bounds, each as likely."""

    distribution: Literal["uniform"]
    min: Seconds = 0.0
    """The shortest, in seconds."""
    max: Seconds
    """The longest, in seconds."""

    @model_validator(mode="after")
    def _in_order(self) -> Uniform:
        if self.min > self.max:
            raise ValueError(f"`min` ({self.min:g}) is above `max` ({self.max:g})")
        return self


class Normal(FileModel):
    """Delays around a mean; never below zero."""

    distribution: Literal["normal"]
    mean: Seconds
    """In seconds."""
    deviation: Seconds
    """The standard deviation, in seconds."""
    max: Seconds = 60.0
    """No delay is longer."""


class LogNormal(FileModel):
    """Mostly short delays, and now and then a long one, as servers have them."""

    distribution: Literal["lognormal"]
    median: Annotated[float, Field(gt=0, le=3600)]
    """In seconds: half of the delays are longer."""
    sigma: Annotated[float, Field(ge=0, le=10)]
    """The standard deviation of the logarithm; 1 makes one delay in 44 seven times the median."""
    max: Seconds = 60.0
    """No delay is longer."""


Distribution = Annotated[Fixed | Uniform | Normal | LogNormal, Field(discriminator="distribution")]


def _form(value: object) -> str:
    """Numbers and mappings are told apart first, so that a mistake is told of the one meant."""
    return "number" if isinstance(value, int | float | str) else "mapping"


Latency = Annotated[
    Annotated[Seconds, Tag("number")] | Annotated[Distribution, Tag("mapping")],
    Discriminator(_form),
]


class StatusFault(FileModel):
    """An error of the server, which is not asked."""

    code: int = Field(ge=400, le=599)
    """429, 500, 503, 529, …"""
    retry_after: Annotated[float, Field(ge=0, le=86400)] | None = None
    """Seconds, for the `Retry-After` header; without it there is none."""
    type: str | None = None
    """The error's type, such as `insufficient_quota`; by default what goes with the code."""
    message: str = "injected by muster proxy"
    """What the error says."""


Status = Annotated[
    Annotated[int, Field(ge=400, le=599), Tag("number")] | Annotated[StatusFault, Tag("mapping")],
    Discriminator(_form),
]


class Cut(FileModel):
    """Where an answer is cut. The default is half of a whole answer, one event of a stream."""

    events: int = Field(1, ge=0)
    """Streams: so many events are whole."""
    share: float = Field(0.5, ge=0, lt=1)
    """Answers in one piece: so much of them."""
    bytes: int | None = Field(None, ge=0)
    """Any answer: so many bytes, instead."""


_ENDS = ("status", "drop", "truncate", "end_early", "garbage")
_FAULTS = ("latency", "slow", *_ENDS)


class Rule(FileModel):
    """What happens to the requests that match: always, every nth, or with a probability."""

    name: str | None = None
    """What the counts at the end call it."""
    match: Match = Match()
    """Which requests."""
    every: int | None = Field(None, ge=1)
    """Every nth of them, by their arrival."""
    probability: float | None = Field(None, gt=0, le=1)
    """Each with this probability. What is drawn depends on the seed and on the request's content,
    not on its neighbours."""
    burst: int = Field(1, ge=1)
    """How many one after the other: the next ones that match get it too."""
    times: int | None = Field(None, ge=1)
    """At most so many in all."""
    latency: Latency | None = None
    """Wait before anything else: seconds, or a distribution."""
    slow: Annotated[float, Field(ge=1)] | None = None
    """The answer's body comes with so many bytes a second."""
    status: Status | None = None
    """Answer with an error; the server is not asked."""
    drop: Literal["before_headers", "after_headers"] | None = None
    """Reset the connection: at once, or when the headers have been sent."""
    truncate: Cut | None = None
    """Close the connection amid the body, so that HTTP tells of it."""
    end_early: Cut | None = None
    """End the body amid the answer, as if it were whole: HTTP sees nothing wrong."""
    garbage: Cut | None = None
    """Broken JSON: after so many events of a stream, or in place of an answer in one piece."""

    @model_validator(mode="after")
    def _sensible(self) -> Rule:
        if not any(getattr(self, name) is not None for name in _FAULTS):
            raise ValueError(f"a rule needs a fault: one of {', '.join(_FAULTS)}")
        ends = [name for name in _ENDS if getattr(self, name) is not None]
        if len(ends) > 1:
            raise ValueError(f"`{ends[0]}` and `{ends[1]}` do not go together: write two rules")
        if self.every is not None and self.probability is not None:
            raise ValueError("`every` and `probability` do not go together: choose one")
        return self


class ChaosPlan(FileModel):
    """A plan of faults. Rules are tried in order; each that fires adds its delay, and of the other
    faults the first one counts."""

    seed: int = 0
    """The same seed and the same requests give the same faults."""
    rules: list[Rule] = Field(min_length=1)
    """The faults."""


def load_plan(path: Path) -> ChaosPlan:
    """The plan in a file.

    Raises:
        ConfigError: with the place of each mistake.
    """
    document = read_yaml(path)
    return validate(ChaosPlan, document.data, document)


def chaos_schema() -> dict[str, Any]:
    """The JSON Schema of a plan."""
    return {**ChaosPlan.model_json_schema(), "title": "Muster chaos plan"}

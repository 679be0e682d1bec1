"""The kinds of documents, under all the names they have had, and what each holds."""

# ruff: noqa: N815, RUF012 - the names are those of the files; pydantic copies defaults

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from muster.teams.manifests.agent_models import AgentSpec
from muster.teams.manifests.event_models import EventSpec, NotifySpec
from muster.teams.manifests.fields import Spec
from muster.teams.manifests.other_models import (
    BudgetSpec,
    MemorySpec,
    RegistrySpec,
    RunSpec,
    ServiceSpec,
    SettingsSpec,
)
from muster.teams.manifests.team_models import FlowSpec, TeamSpec

__all__ = (
    "ARK_API",
    "KINDS",
    "MUSTER_API",
    "ConfigMapData",
    "Kind",
    "Metadata",
    "SecretData",
    "kind_of",
    "names_of_kinds",
)

ARK_API = "arkonis.dev/v1alpha1"
MUSTER_API = "muster.dev/v1alpha1"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of document. `name` is ark's latest name for it."""

    name: str
    muster: str | None
    """Its name in `muster.dev/v1alpha1`."""
    spec: type[Spec]
    older: tuple[str, ...] = ()
    """Names of 2026-03-13."""


KINDS = (
    Kind("ArkAgent", "Agent", AgentSpec, ("ArkonisDeployment",)),
    Kind("ArkTeam", "Team", TeamSpec),
    Kind("ArkFlow", "Flow", FlowSpec, ("ArkonisPipeline",)),
    Kind("ArkSettings", "Settings", SettingsSpec, ("ArkonisConfig",)),
    Kind("ArkMemory", "Memory", MemorySpec, ("ArkonisMemory",)),
    Kind("ArkNotify", "Notify", NotifySpec),
    Kind("ArkRegistry", "Registry", RegistrySpec),
    Kind("ArkEvent", "Event", EventSpec),
    Kind("ArkBudget", "Budget", BudgetSpec),
    Kind("ArkRun", "Run", RunSpec),
    Kind("ArkService", None, ServiceSpec, ("ArkonisService",)),
)

_BY_NAME = {(ARK_API, name): kind for kind in KINDS for name in (kind.name, *kind.older)} | {
    (MUSTER_API, kind.muster): kind for kind in KINDS if kind.muster is not None
}


def kind_of(api: object, name: object) -> Kind | None:
    """The kind of a document by its `apiVersion` and `kind`."""
    return _BY_NAME.get((str(api), str(name)))


def names_of_kinds(api: str) -> list[str]:
    """The latest names of the kinds of `api`."""
    if api == ARK_API:
        return [kind.name for kind in KINDS]
    return [kind.muster for kind in KINDS if kind.muster is not None and api == MUSTER_API]


# --- what all documents have --------------------------------------------------------------------

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")


def _dns_name(name: str) -> str:
    if not _NAME.match(name) or len(name) > 253:
        raise ValueError(
            f'"{name}" is no name: lower-case letters, digits, "-" and "." make one, and it begins '
            "and ends with a letter or a digit"
        )
    return name


DnsName = Annotated[str, AfterValidator(_dns_name)]


class Metadata(Spec):
    """Who the document is. What a cluster adds to it is read and not used."""

    name: DnsName | None = None
    """Its name."""
    generateName: str | None = None
    """The beginning of its name, for a run."""
    namespace: DnsName | None = None
    """Its namespace; not used on one machine."""
    labels: dict[str, str] = {}
    """Labels."""
    annotations: dict[str, str] = {}
    """Annotations."""
    uid: Any = None
    """Read, not used."""
    resourceVersion: Any = None
    """Read, not used."""
    generation: Any = None
    """Read, not used."""
    creationTimestamp: Any = None
    """Read, not used."""
    deletionTimestamp: Any = None
    """Read, not used."""
    deletionGracePeriodSeconds: Any = None
    """Read, not used."""
    finalizers: Any = None
    """Read, not used."""
    ownerReferences: Any = None
    """Read, not used."""
    managedFields: Any = None
    """Read, not used."""
    selfLink: Any = None
    """Read, not used."""

    @model_validator(mode="after")
    def _named(self) -> Metadata:
        if self.name is None and self.generateName is None:
            raise ValueError('"name" is required')
        return self


# --- the documents that references lead to ------------------------------------------------------


class ConfigMapData(Spec):
    """A ConfigMap: texts by key."""

    apiVersion: Literal["v1"]
    """`v1`."""
    kind: Literal["ConfigMap"]
    """`ConfigMap`."""
    metadata: Metadata
    """Its name."""
    data: dict[str, str] | None = Field(default_factory=dict)
    """The texts."""
    binaryData: dict[str, str] | None = None
    """What is no text, in base64; not used."""
    immutable: bool | None = None
    """Read, not used."""


class SecretData(Spec):
    """A Secret: texts by key that must not be shown."""

    apiVersion: Literal["v1"]
    """`v1`."""
    kind: Literal["Secret"]
    """`Secret`."""
    metadata: Metadata
    """Its name."""
    type: str | None = None
    """Read, not used."""
    data: dict[str, str] | None = Field(default_factory=dict)
    """The texts in base64."""
    stringData: dict[str, str] | None = Field(default_factory=dict)
    """The texts as they are; they win."""
    immutable: bool | None = None
    """Read, not used."""

"""The tables of the manual name the fields that there are, and mark those that are Muster's."""

from __future__ import annotations

import re

import pytest

from manual import ROOT
from muster.config.validation import FileModel
from muster.teams.manifests import agent_models as agents
from muster.teams.manifests import event_models as events
from muster.teams.manifests import fields
from muster.teams.manifests import other_models as others
from muster.teams.manifests import team_models as teams
from muster.teams.manifests.kinds import KINDS

PAGE = ROOT / "docs" / "manifests.md"

TABLES: dict[str, type[FileModel]] = {
    "## Agents": agents.AgentFields,
    "### `systemPromptRef`": agents.PromptRef,
    "### `limits`": agents.LimitsSpec,
    "### `tools`": agents.ToolSpec,
    "### `pythonTools`": agents.PythonToolSpec,
    "### `mcpServers`": agents.McpServerSpec,
    "### `capabilities`": agents.CapabilitySpec,
    "### `envFrom`": fields.EnvFromSource,
    "### `livenessProbe`": agents.LivenessProbe,
    "### `autoscaling`": agents.Autoscaling,
    "## Teams": teams.TeamSpec,
    "### `roles`": teams.RoleSpec,
    "### `members`": teams.MemberSpec,
    "### `pipeline`": teams.StepSpec,
    "### `loop`": teams.LoopSpec,
    "### `validate`": teams.ValidateSpec,
    "### `forEach`": teams.ForEachSpec,
    "### `approval`": teams.ApprovalSpec,
    "### `retry`": teams.RetrySpec,
    "### `registryLookup`": teams.LookupSpec,
    "### `artifacts`": teams.ArtifactSpec,
    "### `inputs`": teams.InputSpec,
    "### `routing`": teams.RoutingSpec,
    "## Flows": teams.FlowSpec,
    "## Settings": others.SettingsSpec,
    "### `fragments`": others.Fragment,
    "## Memory": others.MemorySpec,
    "### `redis`": others.RedisMemory,
    "### `vectorStore`": others.VectorMemory,
    "### `sqlite`": others.SqliteMemory,
    "## Notices": events.NotifySpec,
    "### `channels`": events.ChannelSpec,
    "### `events`": events.NoticeSpec,
    "### `rateLimiting`": events.RateLimiting,
    "## Events": events.EventSpec,
    "### `source`": events.EventSource,
    "### `webhook`": events.WebhookSource,
    "### `signature`": events.Signature,
    "### `targets`": events.EventTargetSpec,
    "## Registries": others.RegistrySpec,
    "### `policy`": others.RegistryPolicy,
    "## Budgets": others.BudgetSpec,
    "### `selector`": others.BudgetSelector,
    "## Runs": others.RunSpec,
}


def sections() -> dict[str, str]:
    parts = re.split(r"^(##+ .*)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    found = dict(zip(parts[1::2], parts[2::2], strict=True))
    assert len(found) == len(parts) // 2, "two sections have the same heading"
    return found


def names_of(model: type[FileModel]) -> set[str]:
    return {info.alias or name for name, info in model.model_fields.items()}


def test_every_table_is_looked_at() -> None:
    tables = {heading for heading, text in sections().items() if "\n| field |" in text}
    assert tables == set(TABLES)


@pytest.mark.parametrize("heading", TABLES)
def test_a_table_names_the_fields_that_there_are(heading: str) -> None:
    model = TABLES[heading]
    rows = re.findall(r"^\| (.*?) \|", sections()[heading], re.MULTILINE)
    told = [name for row in rows for name in re.findall(r"^`(\w+)`(?: †)?$", row)]
    assert len(told) == len(rows) - 2, "a row that is neither head nor field"
    expected = names_of(model)
    if model is teams.RoleSpec:  # its others are those of agents
        expected -= names_of(agents.AgentFields)
    assert sorted(told) == sorted(expected)


def test_defaults_are_told_as_they_are() -> None:
    for heading, model in TABLES.items():
        properties = model.model_json_schema()["properties"]
        rows = re.findall(
            r"^\| `(\w+)`[^|]*\|[^|]*\| `(.+?)` \|", sections()[heading], re.MULTILINE
        )
        for name, default in rows:
            told = str(properties[name]["default"]).lower()
            assert default.strip('"').lower() == told, f"{heading}: {name}"


def test_every_kind_is_named() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for kind in KINDS:
        for name in (kind.name, kind.muster):
            assert name is None or f"`{name}`" in text, name

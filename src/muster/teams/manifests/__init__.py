"""The files that users write for agents and teams, and the way from them to the normal form.

Documents are validated by pydantic models that hold everything a cluster needs to know too; the
normal form (`muster.teams.definition`) has what runs need.
"""

from __future__ import annotations

from muster.teams.manifests.bundle import Bundle
from muster.teams.manifests.load import load_manifests
from muster.teams.manifests.schema import manifest_schema

__all__ = ("Bundle", "load_manifests", "manifest_schema")

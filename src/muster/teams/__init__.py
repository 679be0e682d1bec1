"""Agents wired into teams: manifests, the engine that runs them, delegation and routing."""

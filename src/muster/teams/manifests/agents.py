"""Agents of manifests in the normal form: their prompts put together, their references followed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from muster.config.document import Place
from muster.teams.definition import Agent, AgentLimits, Capability, Memory
from muster.teams.manifests.agent_models import AgentFields, LimitsSpec
from muster.teams.manifests.context import Context
from muster.teams.manifests.fields import NameRef
from muster.teams.manifests.findings import hint
from muster.teams.manifests.other_models import MemorySpec, SettingsSpec, VectorMemory
from muster.teams.manifests.reading import Manifest
from muster.teams.manifests.tools import tools_of
from muster.teams.manifests.values import read_beside
from muster.teams.own_tools import DELEGATE, SUBMIT_SUBTASK

__all__ = ("AgentMaker",)


class AgentMaker:
    """Makes agents, reading each memory once."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._memories: dict[str, Memory] = {}

    def make(self, name: str, fields: AgentFields, place: Place, folder: Path) -> Agent:
        """The agent whose fields stand at `place`, in a file of `folder`."""
        context = self.context
        settings = self._settings(fields, place)
        notify = fields.notifyRef
        if notify is not None:
            context.known("ArkNotify", notify.name, place.at("notifyRef", "name"), "ArkNotify")
        fill = context.findings.filled
        return Agent(
            name=name,
            model=fill(fields.model, place.at("model")) if fields.model else None,
            provider=fill(fields.provider, place.at("provider")) if fields.provider else None,
            target=fill(fields.target, place.at("target")) if fields.target else None,
            system_prompt=_with_fragments(self._own_prompt(fields, place, folder), settings),
            tools=tools_of(fields, place, folder, context),
            builtin_tools=self._builtin_tools(fields.builtinTools, place.at("builtinTools")),
            limits=_limits(fields.limits),
            temperature=_temperature(fields, settings),
            output_format=_last([item.outputFormat for item in settings]),
            memory=self._memory(fields.memoryRef, place.at("memoryRef", "name")),
            capabilities=self._capabilities(fields, place.at("capabilities")),
            notify=notify.name if notify is not None else None,
            env=context.environment(fields.envFrom, place.at("envFrom")),
            place=place,
        )

    def _builtin_tools(self, names: list[str], place: Place) -> tuple[str, ...]:
        for number, name in enumerate(names):
            if name == DELEGATE:
                message = '"delegate" comes with canDelegate, the roles that it hands tasks to'
                self.context.findings.add(place.at(number), message)
            elif name != SUBMIT_SUBTASK:
                near = hint(name, (SUBMIT_SUBTASK,)) or f" (known: {SUBMIT_SUBTASK})"
                self.context.findings.add(place.at(number), f'no tool of Muster "{name}"{near}')
        return tuple(names)

    # --- the prompt -----------------------------------------------------------------------------

    def _own_prompt(self, fields: AgentFields, place: Place, folder: Path) -> str:
        ref = fields.systemPromptRef
        if ref is None:
            return fields.systemPrompt or ""
        at = place.at("systemPromptRef")
        if fields.systemPrompt is not None:
            message = "systemPrompt is given too; systemPromptRef wins"
            self.context.findings.warn(at, message)
        values = self.context.values
        if ref.fileRef is not None:
            where, findings = at.at("fileRef", "path"), self.context.findings
            found = read_beside(ref.fileRef.path, folder, self.context.root, where, findings)
        elif ref.configMapKeyRef is not None:
            found = values.get("ConfigMap", ref.configMapKeyRef, at.at("configMapKeyRef"))
        else:
            assert ref.secretKeyRef is not None
            found = values.get("Secret", ref.secretKeyRef, at.at("secretKeyRef"))
        return found if found is not None else fields.systemPrompt or ""

    def _settings(self, fields: AgentFields, place: Place) -> list[SettingsSpec]:
        """In their order; `configRef` first."""
        named: list[tuple[str | NameRef, Place]] = []
        if fields.configRef is not None:
            named.append((fields.configRef, place.at("configRef")))
        refs = place.at("settingsRefs")
        named += [(ref, refs.at(number)) for number, ref in enumerate(fields.settingsRefs)]
        found: list[Manifest[Any] | None] = []
        for ref, at in named:
            name = ref if isinstance(ref, str) else ref.name
            where = at if isinstance(ref, str) else at.at("name")
            found.append(self.context.known("ArkSettings", name, where, "ArkSettings"))
        return [manifest.spec for manifest in found if manifest is not None]

    # --- memory and capabilities ----------------------------------------------------------------

    def _memory(self, ref: NameRef | None, place: Place) -> Memory | None:
        if ref is None:
            return None
        manifest = self.context.known("ArkMemory", ref.name, place, "ArkMemory")
        return self.memory(manifest) if manifest is not None else None

    def memory(self, manifest: Manifest[MemorySpec]) -> Memory:
        """The memory of a document."""
        if manifest.name not in self._memories:
            self._memories[manifest.name] = self._make_memory(manifest)
        return self._memories[manifest.name]

    def _make_memory(self, manifest: Manifest[MemorySpec]) -> Memory:
        spec, place, context = manifest.spec, manifest.place, self.context
        fill = context.findings.filled
        if spec.backend == "redis" and (redis := spec.redis) is not None:
            at = place.at("redis")
            url = fill(redis.url, at.at("url")) if redis.url is not None else None
            if redis.secretRef is not None:
                url = context.secret(redis.secretRef, "REDIS_URL", at.at("secretRef"))
            ttl, most = redis.ttlSeconds or None, redis.maxEntries or None
            return Memory(backend="redis", url=url, ttl_seconds=ttl, max_entries=most)
        if spec.backend == "vector-store" and (store := spec.vectorStore) is not None:
            at = place.at("vectorStore")
            key = None
            if store.secretRef is not None:
                key = context.secret(store.secretRef, "VECTOR_STORE_API_KEY", at.at("secretRef"))
            self._check_code(store, at)
            return Memory(
                backend="vector-store",
                provider=store.provider,
                embed=store.embed,
                url=fill(store.endpoint, at.at("endpoint")) if store.endpoint else None,
                path=self._path(store.path, manifest, at.at("path")),
                collection=store.collection,
                api_key=key,
                ttl_seconds=store.ttlSeconds or None,
            )
        if spec.backend == "sqlite" and (sqlite := spec.sqlite) is not None:
            return Memory(
                backend="sqlite",
                path=self._path(sqlite.path, manifest, place.at("sqlite", "path")),
                ttl_seconds=sqlite.ttlSeconds or None,
                max_entries=sqlite.maxEntries or None,
            )
        return Memory(backend=spec.backend)

    def _check_code(self, store: VectorMemory, place: Place) -> None:
        if not self.context.safe:
            return
        if store.embed is not None and ":" in store.embed:
            told = "Python functions are not run in safe mode"
            self.context.findings.add(place.at("embed"), told)
        if ":" in store.provider:
            told = "a vector store of one's own is code, which is not run in safe mode"
            self.context.findings.add(place.at("provider"), told)

    def _path(self, name: str | None, manifest: Manifest[Any], place: Place) -> Path | None:
        return self.context.path(name, manifest.folder, place) if name is not None else None

    def _capabilities(self, fields: AgentFields, place: Place) -> tuple[Capability, ...]:
        schema = self.context.findings.schema
        seen: set[str] = set()
        found = []
        for number, item in enumerate(fields.capabilities):
            at = place.at(number)
            if item.id in seen:
                self.context.findings.add(at.at("id"), f'capability "{item.id}" is given twice')
            seen.add(item.id)
            found.append(
                Capability(
                    id=item.id,
                    description=item.description,
                    tags=tuple(item.tags),
                    input_schema=schema(item.inputSchema, at.at("inputSchema")),
                    output_schema=schema(item.outputSchema, at.at("outputSchema")),
                )
            )
        return tuple(found)


def _with_fragments(prompt: str, settings: list[SettingsSpec]) -> str:
    """The prompt between the fragments of its settings, a blank line between each two."""
    before: list[str] = []
    after: list[str] = []
    for item in settings:
        if item.promptFragments is not None:
            before.append(item.promptFragments.persona or "")
            after.append(item.promptFragments.outputRules or "")
        before += [part.text for part in item.fragments if part.position == "prepend"]
        after += [part.text for part in item.fragments if part.position == "append"]
    around = [text.strip("\n") for text in (*before, *after) if text.strip()]
    if not around:
        return prompt
    parts = [text.strip("\n") for text in (*before, prompt, *after)]
    return "\n\n".join(part for part in parts if part.strip())


def _temperature(fields: AgentFields, settings: list[SettingsSpec]) -> float | None:
    if fields.temperature is not None:
        return fields.temperature
    shared = _last([item.temperature for item in settings])
    return float(shared) if shared is not None else None


def _last(values: list[Any]) -> Any:
    given = [value for value in values if value is not None]
    return given[-1] if given else None


def _limits(limits: LimitsSpec) -> AgentLimits:
    return AgentLimits(
        max_tokens_per_call=limits.maxTokensPerCall,
        max_turns=limits.maxTurns,
        timeout_seconds=limits.timeoutSeconds,
        max_concurrent_tasks=limits.maxConcurrentTasks,
        max_daily_tokens=limits.maxDailyTokens or None,
    )

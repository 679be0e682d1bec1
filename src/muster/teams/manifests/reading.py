"""From files to checked documents: what is read, what is left out, and what cannot be read."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

from muster.config.document import Document, Place, parse_documents, read_text, read_yaml_documents
from muster.config.validation import as_meant
from muster.errors import ConfigError, Problem
from muster.teams.manifests.fields import Spec
from muster.teams.manifests.findings import Findings, hint
from muster.teams.manifests.kinds import (
    ARK_API,
    MUSTER_API,
    ConfigMapData,
    Kind,
    Metadata,
    SecretData,
    kind_of,
    names_of_kinds,
)

__all__ = ("Manifest", "Manifests", "manifest_files", "read_manifests", "sources_in")

SUFFIXES = (".yaml", ".yml", ".json")

S_co = TypeVar("S_co", bound=Spec, covariant=True)


@dataclass(frozen=True)
class Manifest(Generic[S_co]):
    """A document whose fields are good."""

    kind: Kind
    name: str
    spec: S_co
    place: Place
    """Of `spec`."""
    labels: Mapping[str, str]
    name_place: Place

    @property
    def path(self) -> Path | None:
        """The file it stands in; `None`: the standard input."""
        path = self.place.document.path
        return None if path == STDIN else path

    @cached_property
    def folder(self) -> Path:
        """Where its relative paths start."""
        return self.path.resolve().parent if self.path is not None else Path.cwd()


@dataclass
class Manifests:
    """All documents of a load, by kind and name."""

    by_kind: dict[str, dict[str, Manifest[Any]]] = field(default_factory=dict)
    config_maps: dict[str, tuple[ConfigMapData, Place]] = field(default_factory=dict)
    secrets: dict[str, tuple[SecretData, Place]] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    broken: set[tuple[str, str]] = field(default_factory=set)
    """Kinds and names of documents with problems of their own."""
    hash: str = ""
    """SHA-256 of all that was read."""

    def of(self, kind: str) -> dict[str, Manifest[Any]]:
        """The documents of `kind` (ark's name for it), by name, in the order of the files."""
        return self.by_kind.get(kind, {})

    def is_written(self, name: str, *kinds: str) -> bool:
        """Whether there is such a document, be it good or not."""
        return any(name in self.of(kind) or (kind, name) in self.broken for kind in kinds)


STDIN = Path("<stdin>")


def manifest_files(path: Path) -> list[Path]:
    """The files that `path` names: itself, or what a folder holds (not what its folders hold).

    Raises:
        ConfigError: the folder holds none.
    """
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and file.is_file())
    if not files:
        raise ConfigError(Problem("no manifests here (*.yaml, *.yml, *.json)", path))
    return files


def read_manifests(path: Path, findings: Findings) -> Manifests:
    """The documents of a file, of a folder, or, for `-`, of the standard input.

    What is wrong with single documents goes into `findings`.

    Raises:
        ConfigError: nothing is there.
    """
    manifests = Manifests()
    if str(path) == "-":
        text = _standard_input()
        manifests.hash = hashlib.sha256(text.encode()).hexdigest()
        _read(STDIN, text, manifests, findings, alone=True)
        manifests.files.append(STDIN)
        return manifests
    digest = hashlib.sha256()
    for file in manifest_files(path):
        manifests.files.append(file)
        try:
            text = read_text(file)
        except ConfigError as error:
            findings.take(error)
            continue
        if path.is_dir() and "apiVersion" not in text:
            continue  # a folder may hold targets and suites beside its manifests
        digest.update(text.encode())
        _read(file, text, manifests, findings, alone=not path.is_dir())
    manifests.hash = digest.hexdigest()
    return manifests


def _standard_input() -> str:
    """Raises `ConfigError` when there is none, or it is no text."""
    if sys.stdin is None:
        raise ConfigError(Problem("it is closed", STDIN))
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(Problem("not UTF-8 text", STDIN)) from None


def sources_in(path: Path, findings: Findings) -> Manifests:
    """The ConfigMaps and Secrets of a file of values; other kinds are left out."""
    manifests = Manifests()
    try:
        documents = read_yaml_documents(path)
    except ConfigError as error:
        findings.take(error)
        return manifests
    for place, data in _items(documents):
        if isinstance(data, dict) and data.get("kind") in ("ConfigMap", "Secret"):
            _add_source(place, data, manifests, findings)
    return manifests


def _read(path: Path, text: str, manifests: Manifests, findings: Findings, *, alone: bool) -> None:
    try:
        json_file = path.suffix == ".json"
        documents = read_yaml_documents(path) if json_file else parse_documents(text, path)
    except ConfigError as error:
        helm = _helm_problem(path, text, broken=True)
        problems = [_with_hint(problem, text) for problem in error.problems]
        findings.problems += [helm] if helm is not None else problems
        return
    if (helm := _helm_problem(path, text, broken=False)) is not None:
        findings.problems.append(helm)
        return
    left_out: dict[str, tuple[Place, int]] = {}
    for place, data in _items(documents):
        if not isinstance(data, dict) or not ("kind" in data or "apiVersion" in data):
            if alone:
                _complain_about_shape(place, data, findings)
            continue
        _add(place, data, manifests, findings, left_out)
    for about, (place, count) in left_out.items():
        documents_word = "document is" if count == 1 else "documents are"
        findings.warn(place.at("kind"), f"{about}; {count} such {documents_word} left out")


def _items(documents: list[Document]) -> Iterator[tuple[Place, Any]]:
    """The documents, and what stands in those that are lists."""
    for document in documents:
        data = document.data
        if isinstance(data, dict) and data.get("kind") == "List" and data.get("apiVersion") == "v1":
            items = data.get("items")
            for number, item in enumerate(items if isinstance(items, list) else []):
                yield Place(document, ("items", number)), item
        else:
            yield Place(document), data


def _complain_about_shape(place: Place, data: Any, findings: Findings) -> None:
    if not isinstance(data, dict):
        findings.add(place, "expected a mapping with apiVersion, kind, metadata and spec")
    elif "targets" in data or "providers" in data:
        findings.add(place, 'not a manifest: "kind" is required (is it a targets file?)')
    elif "tests" in data or "scenarios" in data:
        findings.add(place, 'not a manifest: "kind" is required (is it a suite? see muster eval)')
    else:
        findings.add(place, 'not a manifest: "apiVersion" and "kind" are required')


def _add(
    place: Place,
    data: dict[str, Any],
    manifests: Manifests,
    findings: Findings,
    left_out: dict[str, tuple[Place, int]],
) -> None:
    for name in ("apiVersion", "kind"):
        if not isinstance(data.get(name), str):
            findings.add(place, f'"{name}" is required')
            return
    api, kind_name = data["apiVersion"], data["kind"]
    if api == "v1" and kind_name in ("ConfigMap", "Secret"):
        _add_source(place, data, manifests, findings)
        return
    kind = kind_of(api, kind_name)
    if kind is None:
        about = _unknown_kind(api, kind_name)
        first, count = left_out.get(about, (place, 0))
        left_out[about] = first, count + 1
        return
    manifest = _manifest(kind, place, data, findings)
    if manifest is None:
        metadata = data.get("metadata")
        named = metadata.get("name") if isinstance(metadata, dict) else None
        manifests.broken.add((kind.name, str(named)))
        return
    known = manifests.by_kind.setdefault(kind.name, {})
    earlier = known.setdefault(manifest.name, manifest)
    if earlier is not manifest:
        _complain_about_twins(kind_name, manifest.name, manifest.name_place, earlier, findings)


def _complain_about_twins(
    kind: str, name: str, place: Place, earlier: Manifest[Any], findings: Findings
) -> None:
    there = earlier.name_place.problem("")
    where = f"{there.path}:{there.line}" if there.path is not None else f"line {there.line}"
    findings.add(place, f'there are two of kind {kind} called "{name}" (the other is at {where})')


_FOR_A_CLUSTER = ("ArkSecret", "ArkOptimizer")
"""Kinds that ark has, or had, and that nothing here uses."""


def _unknown_kind(api: str, kind: str) -> str:
    names = names_of_kinds(api)
    if names and kind not in _FOR_A_CLUSTER:
        return f'unknown kind "{kind}" of {api}{hint(kind, names)}'
    group = api.partition("/")[0]
    if not names and group in (ARK_API.partition("/")[0], MUSTER_API.partition("/")[0]):
        near = ARK_API if group.startswith("ark") else MUSTER_API
        return f'unknown version "{api}" of kind "{kind}" (known: {near})'
    return f'kind "{kind}" of {api} means nothing here'


_ENVELOPE = ("apiVersion", "kind", "metadata", "spec", "status")


def _manifest(
    kind: Kind, place: Place, data: dict[str, Any], findings: Findings
) -> Manifest[Any] | None:
    for key in data:
        if key not in _ENVELOPE:
            known = ", ".join(sorted(_ENVELOPE))
            near = hint(key, _ENVELOPE) or f" (known: {known})"
            findings.add(place.at(key), f'unknown field "{key}"{near}', of_key=True)
    if "metadata" not in data:
        findings.add(place, '"metadata" is required')
        metadata = None
    else:
        metadata = findings.model(Metadata, data["metadata"], place.at("metadata"))
    if "spec" not in data:
        findings.add(place, '"spec" is required')
        return None
    spec = findings.model(kind.spec, data["spec"], place.at("spec"))
    if spec is None:  # a name that is written wrong must not hide all other mistakes
        spec = as_meant(kind.spec, data["spec"])
    if metadata is None or spec is None:
        return None
    name = metadata.name or f"{metadata.generateName}1"
    return Manifest(
        kind, name, spec, place.at("spec"), metadata.labels, place.at("metadata", "name")
    )


def _add_source(
    place: Place, data: dict[str, Any], manifests: Manifests, findings: Findings
) -> None:
    if data["kind"] == "ConfigMap":
        config_map = findings.model(ConfigMapData, data, place)
        if config_map is not None:
            _add_named(config_map, place, manifests.config_maps, findings)
    else:
        secret = findings.model(SecretData, data, place)
        if secret is not None:
            _add_named(secret, place, manifests.secrets, findings)


D = TypeVar("D", ConfigMapData, SecretData)


def _add_named(
    source: D, place: Place, known: dict[str, tuple[D, Place]], findings: Findings
) -> None:
    name = source.metadata.name or ""
    if name in known:
        where = place.at("metadata", "name")
        findings.add(where, f'there are two of kind {source.kind} called "{name}"')
    known.setdefault(name, (source, place))


# --- texts that are no manifests yet ------------------------------------------------------------

_HELM_NAMES = re.compile(r"\{\{-?[^}]{0,500}?\.(?:Values|Release|Chart|Capabilities|Files)\b")
_HELM_LINES = re.compile(r"^\s*\{\{-?\s*(?:if|with|range|end|else|include|define|toYaml|tpl|/\*)")
_UNQUOTED = re.compile(r"(?:[\w\"'-]+:|-)\s+\{\{")


def _helm_problem(path: Path, text: str, *, broken: bool) -> Problem | None:
    """A Helm template by its names or, if it is no YAML, by its lines of template alone."""
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("#"):
            continue
        found = _HELM_NAMES.search(line) or (_HELM_LINES.match(line) if broken else None)
        if found is not None:
            column = line.index("{{", found.start()) + 1
            message = "this is a Helm template; render it first: helm template …"
            return Problem(message, path, number, column)
    return None


def _with_hint(problem: Problem, text: str) -> Problem:
    """About values that begin with braces, which YAML takes for a mapping."""
    lines = text.splitlines()
    line = lines[problem.line - 1] if problem.line and problem.line <= len(lines) else ""
    if not _UNQUOTED.search(line):
        return problem
    message = f'{problem.message} (put a value that begins with "{{{{" in quotes)'
    return Problem(message, problem.path, problem.line, problem.column, problem.field)

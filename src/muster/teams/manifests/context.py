"""What every part of a load has at hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from muster.config.document import Place
from muster.config.project import OutsideProject, resolve_inside
from muster.config.secrets import is_secret_name
from muster.teams.manifests.fields import (
    EnvFromSource,
    Header,
    HeaderValue,
    KeyRef,
    SecretRef,
    ValueFrom,
)
from muster.teams.manifests.findings import Findings, hint
from muster.teams.manifests.reading import Manifest, Manifests
from muster.teams.manifests.values import Source, Values

__all__ = ("Context",)


@dataclass
class Context:
    """The documents, what they refer to, and what has been found wrong."""

    manifests: Manifests
    values: Values
    findings: Findings
    root: Path
    """The project's: relative paths stay inside it."""
    safe: bool = False
    """True: no command and no project code."""
    _missing_sources: set[str] = field(default_factory=set)

    def known(self, kind: str, name: str | None, place: Place, shown: str) -> Manifest[Any] | None:
        """The document of `kind` that is named at `place`; `None` after a problem."""
        if name is None:
            return None
        documents = self.manifests.of(kind)
        if not self.manifests.is_written(name, kind):
            near = hint(name, documents) or _known(documents)
            self.findings.add(place, f'{shown} "{name}" not found{near}')
        return documents.get(name)

    def path(self, name: str, folder: Path, place: Place) -> Path | None:
        """A path that a manifest in `folder` names; `None` after a problem."""
        filled = self.findings.filled(name, place)
        try:
            return resolve_inside(folder, filled, self.root)
        except OutsideProject as error:
            self.findings.add(place, str(error))
            return None

    def secret(self, ref: SecretRef, usual_key: str, place: Place) -> str | None:
        """The value at a key of a Secret; `None` after a problem."""
        key = KeyRef(name=ref.name, key=ref.key or usual_key)
        return self.values.get("Secret", key, place)

    # --- headers and variables ------------------------------------------------------------------

    def named_values(
        self, given: list[Header] | Mapping[str, str | HeaderValue], place: Place
    ) -> dict[str, str]:
        """Headers or variables in either form, their references followed."""
        found: dict[str, str] = {}
        if isinstance(given, list):
            for number, header in enumerate(given):
                at = place.at(number)
                if header.name.lower() in map(str.lower, found):
                    self.findings.add(at.at("name"), f'"{header.name}" is given twice')
                value = self._value(header.name, header.value, header.valueFrom, at)
                if value is not None:
                    found[header.name] = value
            return found
        for name, item in given.items():
            at = place.at(name)
            if isinstance(item, str):
                value = self._inline(name, item, at)
            elif item.value is not None or item.valueFrom is not None:
                value = self._value(name, item.value, item.valueFrom, at)
            else:
                ref = ValueFrom(
                    configMapKeyRef=item.configMapKeyRef, secretKeyRef=item.secretKeyRef
                )
                value = self.values.get_from(ref, at)
            if value is not None:
                found[name] = value
        return found

    def _value(
        self, name: str, value: str | None, ref: ValueFrom | None, place: Place
    ) -> str | None:
        if ref is not None:
            return self.values.get_from(ref, place.at("valueFrom"))
        return self._inline(name, value or "", place.at("value"))

    def _inline(self, name: str, value: str, place: Place) -> str:
        filled = self.findings.filled(value, place)
        return self.findings.secret(filled) if is_secret_name(name) and filled else filled

    def environment(self, sources: list[EnvFromSource], place: Place) -> dict[str, str]:
        """The variables of `envFrom`. One that is missing is only told about: on one machine the
        keys usually stand in the environment of the process."""
        found: dict[str, str] = {}
        for number, source in enumerate(sources):
            kind: Source = "ConfigMap" if source.configMapRef is not None else "Secret"
            ref = source.configMapRef or source.secretRef
            if ref is None:
                continue
            data = self.values.all_of(kind, ref.name)
            if data is not None:
                found |= {source.prefix + key: value for key, value in data.items()}
            elif not ref.optional and f"{kind}/{ref.name}" not in self._missing_sources:
                self._missing_sources.add(f"{kind}/{ref.name}")
                at = place.at(number, "configMapRef" if kind == "ConfigMap" else "secretRef")
                told = self.values.not_found(kind, ref.name)
                message = f"{told}; only the environment of this process is used"
                self.findings.warn(at.at("name"), message)
        return found


def _known(documents: Mapping[str, object]) -> str:
    return f" (known: {', '.join(documents)})" if documents else ""

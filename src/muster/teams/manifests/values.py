"""What references lead to: ConfigMaps, Secrets and files, in the manifests or in `--values`."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from muster.config.document import Place, read_text
from muster.config.project import OutsideProject, resolve_inside
from muster.errors import ConfigError, Problem
from muster.teams.manifests.fields import KeyRef, ValueFrom
from muster.teams.manifests.findings import Findings, hint
from muster.teams.manifests.reading import SUFFIXES, Manifests, sources_in

__all__ = ("Source", "Values")

Source: TypeAlias = Literal["ConfigMap", "Secret"]


@dataclass
class Values:
    """All values that manifests can refer to, by kind of document, its name and its key."""

    findings: Findings
    known: dict[Source, dict[str, dict[str, str]]] = field(
        default_factory=lambda: {"ConfigMap": {}, "Secret": {}}
    )
    looked_in: list[str] = field(default_factory=list)
    given: bool = False
    """True: there is a folder of values."""

    @classmethod
    def load(cls, manifests: Manifests, folder: Path | None, findings: Findings) -> Values:
        """The values of the manifests, and of the folder, which are asked first."""
        values = cls(findings)
        if folder is not None:
            values.given = True
            values._read_folder(folder)
        values._add(manifests)
        values.looked_in += [str(path) for path in manifests.files]
        return values

    # --- asking ---------------------------------------------------------------------------------

    def get(self, source: Source, ref: KeyRef, place: Place) -> str | None:
        """The value at a key; `None` after a problem, or if it is optional and not there."""
        data = self.known[source].get(ref.name)
        if data is None:
            if not ref.optional:
                self.findings.add(place.at("name"), self.not_found(source, ref.name))
            return None
        if ref.key not in data:
            if not ref.optional:
                near = hint(ref.key, data) or f" (it has: {', '.join(data) or 'nothing'})"
                message = f'key "{ref.key}" not found in {source} "{ref.name}"{near}'
                self.findings.add(place.at("key"), message)
            return None
        return self._told(source, data[ref.key])

    def get_from(self, ref: ValueFrom, place: Place) -> str | None:
        """As `get`, for `{configMapKeyRef}` or `{secretKeyRef}`."""
        if ref.secretKeyRef is not None:
            return self.get("Secret", ref.secretKeyRef, place.at("secretKeyRef"))
        if ref.configMapKeyRef is not None:
            return self.get("ConfigMap", ref.configMapKeyRef, place.at("configMapKeyRef"))
        return None

    def all_of(self, source: Source, name: str) -> Mapping[str, str] | None:
        """All values of a document; `None`: it is not there."""
        data = self.known[source].get(name)
        if data is None:
            return None
        return {key: self._told(source, value) for key, value in data.items()}

    def not_found(self, source: Source, name: str) -> str:
        """That there is no such document, where it was looked for, and what to do."""
        near = hint(name, self.known[source])
        looked = ", ".join(self.looked_in)
        more = "" if self.given else "; give a folder that has it with --values"
        return f'{source} "{name}" not found{near} (looked in {looked}{more})'

    def _told(self, source: Source, value: str) -> str:
        return self.findings.secret(value) if source == "Secret" else value

    # --- gathering ------------------------------------------------------------------------------

    def _add(self, manifests: Manifests) -> None:
        for name, (config_map, _) in manifests.config_maps.items():
            self._put("ConfigMap", name, config_map.data or {})
        for name, (secret, place) in manifests.secrets.items():
            decoded = {
                key: text
                for key, value in (secret.data or {}).items()
                if (text := self._decoded(value, place.at("data", key))) is not None
            }
            self._put("Secret", name, decoded | (secret.stringData or {}))

    def _put(self, source: Source, name: str, data: Mapping[str, str]) -> None:
        known = self.known[source].setdefault(name, {})
        for key, value in data.items():
            known.setdefault(key, value)

    def _decoded(self, value: str, place: Place) -> str | None:
        try:
            return base64.b64decode("".join(value.split()), validate=True).decode("utf-8")
        except (binascii.Error, UnicodeDecodeError):
            hinted = "not text in base64 (put plain text in stringData)"
            self.findings.add(place, hinted)
            return None

    def _read_folder(self, folder: Path) -> None:
        """Documents, `NAME/KEY` files, and `NAME.env` files."""
        if not folder.is_dir():
            self.findings.problems.append(Problem("not a folder (--values takes one)", folder))
            return
        self.looked_in.append(str(folder))
        for path in sorted(folder.iterdir()):
            try:
                if path.name.startswith("."):
                    continue
                if path.is_dir():
                    self._put_both(path.name, _files_of(path))
                elif path.suffix == ".env":
                    self._put_both(path.stem, _variables_of(path))
                elif path.suffix in SUFFIXES:
                    self._add(sources_in(path, self.findings))
            except ConfigError as error:
                self.findings.take(error)

    def _put_both(self, name: str, data: Mapping[str, str]) -> None:
        """A folder does not say whether it is a ConfigMap or a Secret."""
        self._put("ConfigMap", name, data)
        self._put("Secret", name, {key: value.removesuffix("\n") for key, value in data.items()})


def _files_of(folder: Path) -> dict[str, str]:
    return {
        path.name: read_text(path)
        for path in sorted(folder.iterdir())
        if path.is_file() and not path.name.startswith(".")
    }


def _variables_of(path: Path) -> dict[str, str]:
    from dotenv.parser import parse_stream

    found = {}
    for line in parse_stream(io.StringIO(read_text(path))):
        if line.error:
            message = "not of the form NAME=value"
            raise ConfigError(Problem(message, path, line.original.line))
        if line.key is not None and line.value is not None:
            found[line.key] = line.value
    return found


def read_beside(
    name: str, folder: Path, root: Path, place: Place, findings: Findings
) -> str | None:
    """The text of a file that a manifest in `folder` names; `None` after a problem."""
    try:
        path = resolve_inside(folder, name, root)
    except OutsideProject as error:
        findings.add(place, str(error))
        return None
    findings.reads.add(path)
    if not path.is_file():
        findings.add(place, f'no such file: "{name}" (looked for {path})')
        return None
    try:
        return read_text(path)
    except ConfigError as error:
        findings.take(error)
        return None

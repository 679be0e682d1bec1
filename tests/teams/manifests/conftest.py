"""A folder with manifests, and what loading them gives."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from muster.errors import ConfigError
from muster.teams.manifests import Bundle, load_manifests


class Folder:
    """A project of one folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / ".git").mkdir()

    def write(self, name: str, text: str | bytes) -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def load(
        self,
        text: str,
        *,
        values: str | None = None,
        env: Mapping[str, str] | None = None,
        safe: bool = False,
    ) -> Bundle:
        path = self.write("t.yaml", text)
        return self.load_path(path, values=values, env=env, safe=safe)

    def load_path(
        self,
        path: Path,
        *,
        values: str | None = None,
        env: Mapping[str, str] | None = None,
        safe: bool = False,
    ) -> Bundle:
        folder = self.path / values if values is not None else None
        bundle = load_manifests(path, values=folder, env=env or {}, safe=safe)
        bundle.warnings = [self.short(line) for line in bundle.warnings]
        return bundle

    def problems(
        self,
        text: str,
        *,
        values: str | None = None,
        env: Mapping[str, str] | None = None,
        safe: bool = False,
    ) -> list[str]:
        """What is wrong with `text`, with paths seen from the folder."""
        with pytest.raises(ConfigError) as caught:
            self.load(text, values=values, env=env, safe=safe)
        return [self.short(str(problem)) for problem in caught.value.problems]

    def short(self, text: str) -> str:
        return text.replace(f"{self.path}/", "").replace(str(self.path), ".")


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path.resolve())

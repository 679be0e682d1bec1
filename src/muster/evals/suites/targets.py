"""The targets that a suite, or one of its tests, names or defines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from muster.config.document import Place, read_yaml
from muster.errors import ConfigError
from muster.evals.suites.messages import FileFinder
from muster.evals.suites.models import DefaultTest, Execution, SuiteFile, TestEntry

__all__ = ("SuiteTargets",)

_NAMING = ("name", "label", "id")


class SuiteTargets:
    """Reads the names of targets; `inline` gathers those that the suite itself defines."""

    def __init__(self, files: FileFinder) -> None:
        self.inline: dict[str, Mapping[str, Any]] = {}
        """Entries as written, in any form of `targets.yaml`, by name."""
        self._files = files

    def of(self, entry: SuiteFile | DefaultTest | TestEntry, place: Place) -> tuple[str, ...]:
        """The targets that `entry`, which stands at `place`, is for; empty if it names none.

        Raises:
            ConfigError: a definition has no name, or a file is not there.
        """
        names: list[str] = []
        for field in ("providers", "targets", "target"):
            value = getattr(entry, field, None)
            if value is not None:
                names += self._names(value, place.at(field))
        execution: Execution | None = getattr(entry, "execution", None)
        if execution is not None and execution.targets is not None:
            names += self._names(execution.targets, place.at("execution", "targets"))
        elif execution is not None and execution.target is not None:
            names.append(execution.target)
        return tuple(dict.fromkeys(names))

    def named(self, value: Any, place: Place) -> list[str]:
        """The targets that `value` names, or defines, at `place`."""
        return self._names(value, place)

    def _names(self, value: Any, place: Place) -> list[str]:
        """The names in `value`: a name, a definition, a mapping of specs to definitions, a file of
        such, or a list of all that."""
        if isinstance(value, list):
            return [
                name for at, item in enumerate(value) for name in self._names(item, place.at(at))
            ]
        if isinstance(value, str) and value.startswith("file://"):
            return self._in_file(value, place)
        if isinstance(value, str) and value.strip():
            return [value.strip()]
        if isinstance(value, dict) and value:
            return self._defined(value, place)
        text = "expected a target: its name, or a definition with a name"
        raise ConfigError(place.problem(text))

    def _defined(self, value: dict[str, Any], place: Place) -> list[str]:
        name = next((value[key] for key in _NAMING if isinstance(value.get(key), str)), None)
        if name is None:
            if all(isinstance(item, dict) for item in value.values()):
                return [
                    name
                    for spec, item in value.items()
                    for name in self._defined({"id": spec, **item}, place.at(spec))
                ]
            raise ConfigError(place.problem("a target needs a `name` (or `id` and `label`)"))
        if value.get("hooks"):
            text = '"hooks" is not supported: Muster runs no hooks yet'
            raise ConfigError(place.at("hooks").problem(text, of_key=True))
        spec = {key: item for key, item in value.items() if key != "hooks"}
        if len(spec) > 1:  # a name by itself is looked up among the targets
            known = self.inline.setdefault(name, spec)
            if known != spec:
                raise ConfigError(place.problem(f'two different targets are called "{name}"'))
        return [name]

    def _in_file(self, value: str, place: Place) -> list[str]:
        document = read_yaml(self._files.find(value, place))
        data, inside = document.data, Place(document)
        for key in ("providers", "targets"):
            if isinstance(data, dict) and key in data:
                data, inside = data[key], inside.at(key)
                break
        return self._names(data, inside)

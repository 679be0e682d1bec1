"""Which files `muster test` and `muster validate` take for tests of teams."""

from __future__ import annotations

from pathlib import Path

from muster.errors import ConfigError, Problem, UsageError

__all__ = ("hidden", "is_script", "scripts_and_teams", "scripts_in", "team_of")

_ENDINGS = (".test.yaml", ".test.yml")
_TEAM_ENDINGS = (".yaml", ".yml")


def scripts_and_teams(paths: tuple[Path, ...], script: Path | None) -> list[tuple[Path, Path]]:
    """Each team's file with the script of its tests.

    Raises:
        UsageError: something is not there.
    """
    if script is not None:
        return [(path, script) for path in paths]
    found: dict[Path, Path] = {}
    for path in paths:
        if path.is_dir():
            scripts = scripts_in(path)
            if not scripts:
                raise UsageError(f"{path}: no tests here (*.test.yaml)")
            found |= {team_of(file): file for file in scripts}
        elif is_script(path):
            found[team_of(path)] = path
        else:
            found[path] = _script_of(path)
    return list(found.items())


def is_script(path: Path) -> bool:
    """Whether the file is called as tests of a team are."""
    return path.name.endswith(_ENDINGS)


def scripts_in(folder: Path) -> list[Path]:
    """All tests of teams in the folder, at any depth."""
    found = sorted(file for end in _ENDINGS for file in folder.rglob(f"*{end}"))
    return [file for file in found if not hidden(file, folder)]


def hidden(file: Path, within: Path) -> bool:
    """Whether it lies in a folder such as `.venv` or `node_modules`."""
    folders = file.relative_to(within).parts[:-1]
    return any(part.startswith(".") or part in ("node_modules", "venv") for part in folders)


def team_of(script: Path) -> Path:
    """The team that the tests are of. Raises `ConfigError` when it is not there."""
    stem = script.name.rsplit(".", 2)[0]
    for end in _TEAM_ENDINGS:
        if (path := script.with_name(stem + end)).is_file():
            return path
    wanted = script.with_name(f"{stem}.yaml")
    raise ConfigError(Problem(f"the team that these tests are of is not there: {wanted}", script))


def _script_of(team: Path) -> Path:
    if not team.exists():
        raise ConfigError(Problem("there is no such file", team))
    for end in _ENDINGS:
        if (path := team.with_name(team.stem + end)).is_file():
            return path
    wanted = team.with_name(team.stem + _ENDINGS[0])
    raise UsageError(f"{team}: there are no tests beside it ({wanted.name}); or give --script FILE")

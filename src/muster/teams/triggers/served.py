"""What `muster up` is asked for, and what it then serves: read and checked, nothing begun."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from muster.config.dialects import FILE_NAMES as TARGET_FILES
from muster.config.environment import load_environment
from muster.config.project import find_project
from muster.errors import UsageError
from muster.teams.definition import Event
from muster.teams.manifests import load_manifests
from muster.teams.mock_script import read_script
from muster.teams.preparing import LaunchOptions, Prepared, assemble
from muster.teams.triggers.changes import Stamp, stamp_of
from muster.teams.triggers.cron import Schedule, parse_cron
from muster.teams.triggers.tokens import kept_token

__all__ = ("Served", "Tokens", "UpOptions", "read_events", "tokens_of")


@dataclass(frozen=True, slots=True, kw_only=True)
class UpOptions:
    """What is asked for."""

    launch: LaunchOptions
    """Without a team and inputs, which events have."""
    script: Path | None = None
    """What the mock says, which then answers for every agent."""
    host: str = "127.0.0.1"
    port: int = 8092
    allow_hosts: tuple[str, ...] = ()
    """Names under which requests may come, beside `host`, `localhost` and addresses."""
    grace: float = 10.0
    """How long runs under way may take when the server is stopped."""
    max_runs: int = 100
    as_json: bool = False

    @property
    def files(self) -> set[Path]:
        """What the server reads anew when it has changed, beside the values and what the manifests
        name. Some of them need not be there."""
        launch = self.launch
        folders = find_project(_folder_of(launch.file)).folders
        given = (launch.file, self.script, launch.targets_file)
        found = {path for path in given if path is not None}
        found |= {folder / ".env" for folder in folders}
        if launch.targets_file is None:
            found |= {folder / name for folder in folders for name in TARGET_FILES}
        return found


@dataclass(slots=True)
class Served:
    """Checked and ready: nothing was begun."""

    options: UpOptions
    root: Path
    events: dict[str, Event]
    schedules: dict[str, Schedule]
    teams: dict[str, Prepared]
    warnings: list[str]
    files: frozenset[Path]
    """All that was read; when one of them changes, everything is read anew."""
    stamp: Stamp
    """Of the files as they were read."""

    def of(self, source: str, *, live: bool = False) -> dict[str, Event]:
        """The events with this source; those that are `live` are not suspended."""
        return {
            name: event
            for name, event in self.events.items()
            if event.source == source and not (live and event.suspended)
        }


def _folder_of(file: Path) -> Path:
    path = file.resolve()
    return path if path.is_dir() else path.parent


def read_events(options: UpOptions, reads: set[Path] | None = None) -> Served:
    """Read and check the manifest, the schedules and the teams that are started. `reads` gets the
    files that the manifests name, those that are missing too.

    Raises:
        MusterError: what is wrong with them.
    """
    launch = options.launch
    if str(launch.file) == "-":
        raise UsageError("events are served from a file, not from the standard input")
    start = _folder_of(launch.file)
    reads = set() if reads is None else reads
    before = stamp_of(options.files, launch.values)
    bundle = load_manifests(
        launch.file,
        values=launch.values,
        env=load_environment(start),
        safe=launch.safe,
        lenient_templates=launch.lenient,
        reads=reads,
    )
    stamp = before | stamp_of(reads)
    if not bundle.events:
        raise UsageError(f"{launch.file}: there is no ArkEvent in it to serve")
    schedules = {
        name: parse_cron(event.cron) for name, event in bundle.events.items() if event.cron
    }
    names = {target.team for event in bundle.events.values() for target in event.targets}
    script = read_script(options.script) if options.script is not None else None
    teams = {name: assemble(replace(launch, team=name), script=script) for name in sorted(names)}
    told = [*bundle.warnings, *(line for team in teams.values() for line in team.warnings)]
    root = find_project(start).root
    told = list(dict.fromkeys(told))
    files = frozenset(options.files | reads)
    return Served(options, root, bundle.events, schedules, teams, told, files, stamp)


@dataclass(slots=True)
class Tokens:
    """The webhooks' tokens."""

    known: dict[str, str] = field(default_factory=dict)
    kept: dict[str, Path] = field(default_factory=dict)
    """The files of those that were made up."""


def tokens_of(served: Served) -> Tokens:
    """The tokens of the webhooks; made up, and kept, where none is given. Raises `UsageError`."""
    found = Tokens()
    for name, event in served.of("webhook").items():
        if event.token is not None:
            if not event.token.strip():
                raise UsageError(f'event "{name}": its token is empty')
            found.known[name] = event.token.strip()
        elif event.signature is None:
            found.known[name], found.kept[name] = kept_token(served.root, name)
    return found

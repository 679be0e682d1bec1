"""One registry for providers, graders, queues and tools: a name to a factory.

A name is looked up in what was registered in code, in the project's `.muster/<group>/*.py`, among
the built-ins and the installed packages' entry points, and last as a dotted path
(`package.module:Factory`). Built-ins are held as `"module:attribute"` strings, so that nothing is
imported before it is used; their names are reserved, unless `override=True` is said.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

from muster.errors import MusterError, UsageError, nearest
from muster.importing import CodeError, describe_failure, import_file, load_object

__all__ = ("Entry", "Registry", "UnknownName")

F = TypeVar("F", bound=Callable[..., Any])


class UnknownName(UsageError):
    """A name that nothing is registered under."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a name comes from: `source` is `code`, `project`, `package`, `built-in`; `location`
    the file, distribution or dotted path."""

    name: str
    source: str
    location: str


@dataclass(slots=True)
class _Loading:
    """The project file that is being run, and what it has registered so far."""

    base: Any
    scoped: Any
    path: Path
    received: dict[str, Any] = field(default_factory=dict)


# While a project file runs, what it registers goes to the project's registry, once it has ended.
_loading: ContextVar[_Loading | None] = ContextVar("muster_loading", default=None)


class Registry(Generic[F]):
    """Names to factories. `noun` is what messages call a member, e.g. `provider`."""

    def __init__(
        self,
        noun: str,
        *,
        builtins: Mapping[str, str] | None = None,
        aliases: Mapping[str, str] | None = None,
        group: str | None = None,
        of_plain_file: str | None = None,
    ) -> None:
        """`of_plain_file` names a function that makes a factory of a project file's module which
        registers nothing (`None` if it cannot be one); it is then called as the file is."""
        self.noun = noun
        self._of_plain_file = of_plain_file
        self.group = group or f"{noun}s"
        self._builtins = dict(builtins or {})
        self._aliases = dict(aliases or {})
        self._code: dict[str, tuple[F, str]] = {}
        self._project: dict[str, tuple[F, str]] = {}
        self._entry_points: dict[str, Any] | None = None
        self.failures: list[str] = []
        """Project files that failed to import: file, line and error, one string each."""
        self.safe = False
        """True: project code, entry points and dotted paths are refused."""

    @overload
    def register(self, name: str, factory: F, *, override: bool = False) -> F: ...
    @overload
    def register(self, name: str, *, override: bool = False) -> Callable[[F], F]: ...

    def register(
        self, name: str, factory: F | None = None, *, override: bool = False
    ) -> F | Callable[[F], F]:
        """Make `factory` available as `name`; without a factory, a decorator.

        Raises:
            UsageError: the name is a built-in's, or taken, and `override` is not given.
        """
        if factory is None:

            def decorate(decorated: F) -> F:
                self._add(name, decorated, override=override)
                return decorated

            return decorate
        self._add(name, factory, override=override)
        return factory

    def unregister(self, name: str) -> None:
        """Forget what was registered in code under `name`; unknown names are ignored."""
        self._code.pop(name, None)

    def for_project(self, folders: list[Path], *, safe: bool = False) -> Registry[F]:
        """A registry that also holds what the `*.py` files in `folders` register, nearest first:
        a name keeps what the nearest folder registers.

        A file that fails is noted in `failures`; the others still load. With `safe`, no file is
        run.
        """
        scoped: Registry[F] = Registry(
            self.noun,
            builtins=self._builtins,
            aliases=self._aliases,
            group=self.group,
            of_plain_file=self._of_plain_file,
        )
        scoped._code = self._code
        scoped.safe = safe
        if safe:
            return scoped
        for folder in folders:
            for path in sorted(folder.glob("*.py")):
                if not path.name.startswith("_"):
                    self._load_project_file(path, scoped)
        return scoped

    def __contains__(self, name: str) -> bool:
        """True when something is registered as `name`; nothing is imported to find out."""
        if name in self._code or name in self._project:
            return True
        if self._aliases.get(name, name) in self._builtins:
            return True
        return not self.safe and name in self._points()

    def get(self, name: str, *, search: Path | None = None) -> F:
        """The factory called `name`; dotted paths look in the folder `search` first.

        Raises:
            UnknownName: nothing is registered under `name`.
            MusterError: what is registered fails to import.
        """
        return self._find(name, search)[0]

    def describe(self, name: str, *, search: Path | None = None) -> Entry:
        """Where `name` comes from. Raises as `get`."""
        return self._find(name, search)[1]

    def canonical(self, name: str) -> str:
        """`name` with an alias replaced by what it stands for."""
        if name in self._code or name in self._project:
            return name
        return self._aliases.get(name, name)

    def is_builtin(self, name: str) -> bool:
        """True when `name` means the built-in, not something registered over it."""
        name = self.canonical(name)
        return name in self._builtins and name not in self._code and name not in self._project

    def entries(self) -> list[Entry]:
        """All names, sorted, each with where it comes from; nothing is imported for it."""
        found = {name: Entry(name, "built-in", spec) for name, spec in self._builtins.items()}
        for name, point in self._points().items():
            found.setdefault(name, Entry(name, "package", point.value))
        found |= {name: Entry(name, "project", at) for name, (_, at) in self._project.items()}
        found |= {name: Entry(name, "code", at) for name, (_, at) in self._code.items()}
        return sorted(found.values(), key=lambda entry: entry.name)

    def _add(self, name: str, factory: F, *, override: bool) -> None:
        if not isinstance(name, str) or not name or ":" in name:
            raise UsageError(f"{name!r} cannot name a {self.noun}: it is empty or holds a colon")
        if not callable(factory):
            raise UsageError(f'the factory of {self.noun} "{name}" is not callable: {factory!r}')
        if (name in self._builtins or name in self._aliases) and not override:
            raise UsageError(
                f'"{name}" is a built-in {self.noun}; register it with override=True to replace it'
            )
        loading = _loading.get()
        if loading is not None:
            self._receive(name, factory, loading, override=override)
            return
        if name in self._code and not override and self._code[name][0] is not factory:
            raise UsageError(
                f'{self.noun} "{name}" is registered already; override=True replaces it'
            )
        module = getattr(factory, "__module__", "") or ""
        self._code[name] = (factory, f"{module}:{getattr(factory, '__qualname__', name)}")

    def _receive(self, name: str, factory: F, loading: _Loading, *, override: bool) -> None:
        if loading.base is not self:
            raise UsageError(
                f'a file in .muster/{loading.base.group} cannot register the {self.noun} "{name}"; '
                f"it belongs into a file in .muster/{self.group}"
            )
        taken = loading.scoped._project.get(name)
        same_folder = taken is not None and Path(taken[1]).parent == loading.path.parent
        if not override and (same_folder or name in loading.received):
            where = taken[1] if taken is not None else loading.path
            raise UsageError(f'{self.noun} "{name}" is registered already, by {where}')
        loading.received[name] = factory

    def _load_project_file(self, path: Path, scoped: Registry[F]) -> None:
        digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
        loading = _Loading(self, scoped, path)
        token = _loading.set(loading)
        try:
            module = import_file(path, name=f"_muster_{self.group}_{digest}_{path.stem}")
        except CodeError as error:
            scoped.failures.append(str(error))
            return
        finally:
            _loading.reset(token)
        if not loading.received:
            plain = None
            if self._of_plain_file is not None:
                plain = load_object(self._of_plain_file)(module)
            if plain is not None:
                loading.received[path.stem] = plain
            else:
                scoped.failures.append(self._nothing_in(path))
        for name, factory in loading.received.items():
            taken = scoped._project.get(name)
            if taken is None or Path(taken[1]).parent == path.parent:  # else a nearer folder has it
                scoped._project[name] = (factory, str(path))

    def _nothing_in(self, path: Path) -> str:
        calls = {"graders": "register_grader", "queues": "register_queue"}
        call = calls.get(self.group, "register")
        text = f'{path}: registers no {self.noun}; it should call muster.{call}("name", factory)'
        return text if self._of_plain_file is None else f"{text}, or define a function `grade`"

    def _find(self, name: str, search: Path | None) -> tuple[F, Entry]:
        for table, source in ((self._code, "code"), (self._project, "project")):
            if name in table:
                factory, where = table[name]
                return factory, Entry(name, source, where)
        canonical = self._aliases.get(name, name)
        if canonical in self._builtins:
            spec = self._builtins[canonical]
            return load_object(spec), Entry(canonical, "built-in", spec)
        if ":" in name:
            if self.safe:
                raise MusterError(f'--safe refuses the {self.noun} "{name}": it would run code')
            return load_object(name, search=search), Entry(name, "dotted path", name)
        if not self.safe and (point := self._points().get(name)) is not None:
            try:
                return point.load(), Entry(name, "package", point.value)
            except (Exception, SystemExit) as error:
                package = point.dist.name if point.dist is not None else point.value
                raise CodeError(
                    f'{self.noun} "{name}" of the package {package} fails to import: '
                    f"{describe_failure(error)}"
                ) from error
        raise UnknownName(self._unknown(name))

    def _unknown(self, name: str) -> str:
        known = [entry.name for entry in self.entries()]
        near = nearest(name, [*known, *self._aliases])
        hints = [f"near: {', '.join(near)}"] if near else []
        hints.append(f"known: {', '.join(known)}")
        text = f'unknown {self.noun} "{name}" — did you register it? ({"; ".join(hints)})'
        if self.failures:
            text += "\nnot loaded:\n" + "\n".join(f"  {failure}" for failure in self.failures)
        return text

    def _points(self) -> Mapping[str, Any]:
        if self._entry_points is None:
            from importlib.metadata import entry_points

            found = entry_points(group=f"muster.{self.group}")
            self._entry_points = {point.name: point for point in found}
        return self._entry_points

"""From the entries of an `assertions` list to graders that are ready to judge.

Everything that is wrong is told at once, with file, line and column.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from pydantic import BaseModel, ValidationError

from muster.config.document import Document, Location
from muster.config.validation import problems_of
from muster.errors import ConfigError, MusterError, Problem, nearest
from muster.evals.graders.agentv_files import program_called
from muster.evals.graders.base import BoundGrader, GraderFactory, GraderSpec, SettingError
from muster.evals.graders.entries import (
    COMMON_FIELDS,
    Common,
    EntryPlace,
    automatic_name,
    field_names,
    read_common,
    shown,
    with_more,
)
from muster.evals.graders.foreign import instead_of, is_foreign
from muster.evals.graders.functions import grader_of, name_of
from muster.evals.graders.templates import TemplateFiles
from muster.importing import describe_failure
from muster.registry import Registry, UnknownName

__all__ = ("bind_graders",)

MAX_DEPTH = 3
"""How many templates may include one another."""

MAX_NESTED = 10
"""How deep sets may stand within sets."""

_OLD_TYPES = {"llm-judge": "llm-grader"}
"""Types that are warned of."""

_COMMON = frozenset(COMMON_FIELDS)
_DEFAULTS = Common()
_MODEL = type(BaseModel)


def bind_graders(
    entries: object,
    *,
    document: Document,
    location: Location,
    base_dir: Path,
    project_root: Path,
    registry: Registry[GraderFactory],
    safe: bool = False,
    substitute: Callable[[object], object] | None = None,
    warnings: list[str] | None = None,
    templates: TemplateFiles | None = None,
) -> tuple[BoundGrader, ...]:
    """The graders that `entries`, a list at `location` in `document`, describe, in order.

    `substitute` fills a test's variables into each text of the settings. Remarks about old
    spellings are added to `warnings`. `templates`, kept over many calls, saves reading an included
    file again and again; it also tells which files were read.

    Raises:
        ConfigError: with one problem for each mistake.
    """
    if entries is None:
        return ()
    files = TemplateFiles() if templates is None else templates
    place = EntryPlace(document, location, base_dir)
    binder = _Binder(place, registry, project_root, safe, substitute, warnings, files)
    binder.add_list(entries, place)
    if binder.problems:
        raise ConfigError(binder.problems)
    return tuple(binder.bound)


class _Type(msgspec.Struct):
    """What an entry's `type` stands for."""

    name: str
    """Canonical."""
    factory: GraderFactory
    negated: bool = False
    """It was written with `not-`."""

    @property
    def settings(self) -> type[BaseModel] | None:
        """The model of its settings, if it has one."""
        model = getattr(self.factory, "Settings", None)
        return model if isinstance(model, _MODEL) else None


class _Binder(msgspec.Struct):
    place: EntryPlace
    """The list that the graders are asked for; templates lead to others."""
    registry: Registry[GraderFactory]
    project_root: Path
    safe: bool
    substitute: Callable[[object], object] | None
    warnings: list[str] | None
    templates: TemplateFiles
    bound: list[BoundGrader] = msgspec.field(default_factory=list)
    problems: list[Problem] = msgspec.field(default_factory=list)
    depth: int = 0
    """Sets around the list."""

    def add_list(self, entries: object, place: EntryPlace) -> None:
        if not isinstance(entries, list | tuple):
            text = f"expected a list of assertions, found {shown(entries)}"
            self.problems.append(place.problem(text))
            return
        document, location, base_dir, chain = place
        texts = [number for number, entry in enumerate(entries) if isinstance(entry, str)]
        for number, entry in enumerate(entries):
            at = EntryPlace(document, (*location, number), base_dir, chain)
            if isinstance(entry, str):
                if number == texts[0]:
                    self._add_texts(entries, texts, place)
            elif callable(entry):
                self._add({"type": "python", "name": name_of(entry), "value": entry}, at)
            elif not isinstance(entry, Mapping):
                self.problems.append(at.problem(_not_an_entry(entry)))
            elif "include" in entry:
                self._include(entry, at)
            else:
                self._add(entry, at)

    def _add_texts(self, entries: Sequence[Any], numbers: Sequence[int], place: EntryPlace) -> None:
        """The texts of a list are criteria of one rubric, which weighs as much as they are many."""
        document, location, base_dir, chain = place
        empty = [number for number in numbers if not entries[number].strip()]
        for number in empty:
            text = "an empty text is no criterion; say what must hold of the answer"
            self.problems.append(place.problem(text, number))
        if empty:
            return
        entry = {
            "type": "rubrics",
            "name": "rubrics",
            "weight": len(numbers),
            "rubrics": [entries[number] for number in numbers],
        }
        self._add(entry, EntryPlace(document, (*location, numbers[0]), base_dir, chain))

    def _add(self, entry: Mapping[str, Any], place: EntryPlace) -> None:
        found = self._type(entry, place)
        if found is None:
            return
        config = {key: value for key, value in entry.items() if key not in _COMMON}
        before = len(self.problems)
        if len(config) + 1 == len(entry):
            common = _DEFAULTS
        else:
            common = read_common(entry, place, self.problems, self.warnings)
        if found.settings is not None:
            if getattr(found.factory, "takes_more", False):
                config = with_more(config, found.settings)
            self._check_fields(config, found.settings, found.name, place)
        if found.negated and common.negate:
            text = f'"not-{found.name}" and negate: true cancel out; write one of them'
            self.problems.append(place.problem(text, "negate"))
        if len(self.problems) > before:
            return
        name = common.name
        if self.substitute is not None:
            own = getattr(found.factory, "own_templates", ())
            config = {
                key: value if key in own else self._filled(value) for key, value in config.items()
            }
            name = None if name is None else str(self._filled(name))
        binding = _Binding(self, place)
        negate = common.negate or found.negated
        grade = self._build(found, config, binding, common.min_score, negate)
        if grade is not None and len(self.problems) == before:
            automatic = "not-" * found.negated + automatic_name(found.name, config)
            self.bound.append(
                BoundGrader(
                    name=name or automatic,
                    type=found.name,
                    grade=grade,
                    weight=common.weight,
                    required=common.required,
                    min_score=_min_score(common, grade),
                    negate=negate and not getattr(grade, "negated", False),
                    judges=tuple(binding.judges),
                )
            )

    def _build(
        self,
        found: _Type,
        config: Mapping[str, Any],
        binding: _Binding,
        min_score: float | None = None,
        negate: bool = False,
    ) -> Callable[..., Any] | None:
        """The grader, built; `None` after telling a problem."""
        place = binding.place
        spec = GraderSpec(
            type=found.name,
            config=config,
            base_dir=place.base_dir,
            project_root=self.project_root,
            safe=self.safe,
            min_score=min_score,
            negate=negate,
            binding=binding,
        )
        try:
            grade = found.factory(spec)
        except ValidationError as error:
            model = found.settings or BaseModel
            self.problems += problems_of(error, model, place.document, place.location)
        except SettingError as error:
            self.problems.append(place.problem(str(error), error.setting, *error.steps))
        except (ValueError, MusterError) as error:
            self.problems.append(place.problem(str(error)))
        except Exception as error:
            text = f'grader "{found.name}" cannot be built: {describe_failure(error)}'
            self.problems.append(place.problem(text, "type"))
        else:
            if callable(grade):
                return grade
            text = (
                f'the factory of grader "{found.name}" returned {shown(grade)}; it takes the '
                "settings and returns a function that judges an answer"
            )
            self.problems.append(place.problem(text, "type"))
        return None

    def _type(self, entry: Mapping[str, Any], place: EntryPlace) -> _Type | None:
        """What the entry's type stands for; `None` after telling a problem."""
        written = entry.get("type")
        if not isinstance(written, str) or not written:
            if written is None:
                text = '"type" is required, such as type: contains'
            else:
                text = f"expected the name of a grader, found {shown(written)}"
            self.problems.append(place.problem(text, *(["type"] if "type" in entry else [])))
            return None
        if (new := _OLD_TYPES.get(written.replace("_", "-"))) is not None:
            if self.warnings is not None:
                text = f'"{written}" is an old name; write "{new}"'
                self.warnings.append(str(place.problem(text, "type")))
            written = new
        try:
            found = self._look_up(written, place.base_dir)
            if found.name == "python" and callable(function := entry.get("value")):
                return _Type("python", grader_of(function), found.negated)
            return found
        except MusterError as error:
            text = str(error)
            if self.safe and isinstance(error, UnknownName):
                text += "; --safe loads no graders but the built-in ones"
            self.problems.append(place.problem(text, "type"))
            return None

    def _look_up(self, written: str, base_dir: Path) -> _Type:
        """The grader that a type means: `snake_case` is read as `kebab-case`, and `not-` in front
        negates. Raises `MusterError` when it is unknown, foreign, or fails to import."""
        kind = written if ":" in written else written.replace("_", "-")
        plain = kind.removeprefix("not-")
        if plain.startswith("trajectory:"):
            plain = plain.replace("_", "-")
        if self.registry.is_builtin(plain):
            return _Type(plain, self.registry.get(plain), kind.startswith("not-"))
        # A project's grader may have underscores in its name, or begin with `not-`.
        spellings = dict.fromkeys((kind, written))
        candidates = [(name, False) for name in spellings]
        candidates += [(name[4:], True) for name in spellings if name.startswith("not-")]
        unknown: UnknownName | None = None
        for name, negated in candidates:
            try:
                if not (":" in name and is_foreign(plain)):
                    factory = self.registry.get(name, search=self.project_root)
                    return _Type(name, factory, negated)
            except UnknownName as error:
                unknown = unknown or error
        for name, negated in candidates:
            program = program_called(name, base_dir, self.project_root)
            if program is not None:
                return _Type(name, program, negated)
        if is_foreign(plain):
            if (near := instead_of(plain)) is not None:
                raise UnknownName(f'"{written}" is not supported; write {near}')
            known = ", ".join(entry.name for entry in self.registry.entries())
            raise UnknownName(f'"{written}" is not supported (supported: {known})')
        raise unknown or UnknownName(written)

    def _check_fields(
        self, config: Mapping[str, Any], model: type[BaseModel], kind: str, place: EntryPlace
    ) -> None:
        names = field_names(model)
        for key in config:
            if key in names:
                continue
            known = [*sorted(names), *COMMON_FIELDS]
            near = nearest(str(key), known)
            hint = f'did you mean "{near[0]}"?' if near else f"known: {', '.join(known)}"
            text = f'"{kind}" has no field "{key}" ({hint})'
            self.problems.append(place.problem(text, key, of_key=True))

    def _filled(self, value: object) -> object:
        if isinstance(value, str):
            return self.substitute(value) if self.substitute and "{" in value else value
        if isinstance(value, Mapping):
            return {key: self._filled(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._filled(item) for item in value]
        return value

    def _include(self, entry: Mapping[str, Any], place: EntryPlace) -> None:
        name = entry["include"]
        if len(entry) > 1:
            others = ", ".join(str(key) for key in entry if key != "include")
            self.problems.append(place.problem(f"include stands alone, not beside {others}"))
            return
        if not isinstance(name, str) or not name:
            text = f"expected the name or path of a template, found {shown(name)}"
            self.problems.append(place.problem(text, "include"))
            return
        try:
            path = self.templates.find(name, place.base_dir, self.project_root)
            chain = self._extended(place, name, path)
        except MusterError as error:
            self.problems.append(place.problem(str(error), "include"))
            return
        try:
            document, key = self.templates.read(path)
        except ConfigError as error:
            self.problems += error.problems
            return
        self.add_list(document.data[key], EntryPlace(document, (key,), path.parent, chain))

    def _extended(self, place: EntryPlace, name: str, path: Path) -> tuple[tuple[str, Path], ...]:
        """The chain of templates with one more.

        Raises:
            MusterError: it closes a circle, or is too long.
        """
        chain = (*place.chain, (name, path))
        told = " -> ".join(link[0] for link in chain)
        if any(link[1] == path for link in place.chain):
            test = self.place.test_id
            raise MusterError(f"Assertion template cycle detected in '{test}': {told}")
        if len(chain) > MAX_DEPTH:
            raise MusterError(f"templates include one another deeper than {MAX_DEPTH}: {told}")
        return chain


class _Binding:
    """What the factory of the entry at `place` may ask for."""

    def __init__(self, binder: _Binder, place: EntryPlace) -> None:
        self._binder = binder
        self.place = place
        self.judges: dict[str | None, None] = {}

    def nested(self, entries: object, *keys: str | int) -> tuple[BoundGrader, ...]:
        outer = self._binder
        if outer.depth == MAX_NESTED:
            raise ValueError(f"sets of assertions stand deeper than {MAX_NESTED} in one another")
        inner = msgspec.structs.replace(outer, bound=[], problems=[], depth=outer.depth + 1)
        document, location, base_dir, chain = self.place
        inner.add_list(entries, EntryPlace(document, (*location, *keys), base_dir, chain))
        outer.problems += inner.problems
        for grader in inner.bound:
            self.judges |= dict.fromkeys(grader.judges)
        return tuple(inner.bound)

    def asks_judge(self, name: str | None) -> None:
        self.judges[name] = None

    def reads(self, path: Path) -> None:
        self._binder.templates.note(path)

    def remark(self, text: str, *keys: str | int) -> None:
        if self._binder.warnings is not None:
            self._binder.warnings.append(str(self.place.problem(text, *keys)))


def _min_score(common: Common, grade: object) -> float | None:
    """The entry's, else what the grader itself says that it passes from."""
    if common.min_score is not None:
        return common.min_score
    own: float | None = getattr(grade, "min_score", None)
    return own


def _not_an_entry(entry: object) -> str:
    return f"expected a mapping with type, or a criterion as text, found {shown(entry)}"

"""What a suite says for all its tests, and where its tests are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from muster.config.document import Location, Place, read_yaml
from muster.config.environment import load_environment
from muster.config.interpolation import fill
from muster.config.validation import validate
from muster.errors import ConfigError
from muster.evals.graders.base import GraderFactory
from muster.evals.suites.files import RawSuite
from muster.evals.suites.layers import Binder, Layer, SuiteSettings, layer_of, over
from muster.evals.suites.messages import FileFinder
from muster.evals.suites.models import DefaultTest, SuiteFile
from muster.evals.suites.names import DEFAULT_TEST, SUITE, tidy
from muster.evals.suites.normalize import NO_STRATEGY
from muster.evals.suites.notes import Notes
from muster.evals.suites.prompts import Prompt, read_prompts
from muster.evals.suites.targets import SuiteTargets
from muster.evals.suites.tests import CasesInMemory, References, TestList, scenarios_of
from muster.registry import Registry

__all__ = ("SuiteReader",)

_V5_KEYS = frozenset(("prompts", "providers", "default_test", "evaluate_options", "scenarios"))
_TESTS = frozenset(("tests", "scenarios", "eval_cases", "evalcases", "evalCases", "cases"))


class SuiteReader:
    """Reads one suite: `read`, then `settings`, `tests` and the rest are there."""

    def __init__(
        self,
        raw: RawSuite,
        *,
        base_dir: Path,
        root: Path,
        env: Mapping[str, str] | None,
        registry: Registry[GraderFactory],
        safe: bool,
        allow_outside: bool,
    ) -> None:
        self.raw = raw
        self.base_dir = base_dir
        self.env = env
        self.notes = Notes()
        self.files = FileFinder(base_dir, None if allow_outside else root)
        self.binder = Binder(
            registry,
            base_dir=base_dir,
            project_root=root,
            safe=safe,
            notes=self.notes,
        )
        self.references = References(base_dir, root, safe, allow_outside)
        self.targets = SuiteTargets(self.files)
        self.paths: list[Path] = list(raw.paths)
        self.tests: TestList | CasesInMemory
        self.entry: SuiteFile
        self.place: Place
        self.settings: SuiteSettings

    # --- what the suite says --------------------------------------------------------------------

    def read(
        self,
        *,
        default_name: str,
        category: str | None,
        in_memory: CasesInMemory | None = None,
    ) -> None:
        """Read everything but the cases."""
        for note in self.raw.notes:
            self.notes(note)
        env = self.env if self.env is not None else load_environment(self.base_dir)
        own = {key: value for key, value in self.raw.data.items() if key not in _TESTS}
        filled = fill(own, env, self._missing, coerce=True) if self.raw.paths else own
        tests = {key: value for key, value in self.raw.data.items() if key in _TESTS}
        tidied = tidy({**filled, **tests}, self.raw.place, SUITE, self.notes.old_name)
        self.place = tidied.place
        self.entry = entry = validate(
            SuiteFile, tidied.data, self.place.document, self.place.location
        )
        self._remark()
        v5 = not self.raw.promptfoo and not _V5_KEYS.isdisjoint(tidied.data)
        self.settings = SuiteSettings(
            name=(entry.name or "").strip() or default_name,
            base_dir=self.base_dir,
            layer=self._layer(v5),
            category=entry.category or category,
            input=entry.input,
            input_place=self.place.at("input"),
            input_files=tuple(entry.input_files or ()),
            input_files_place=self.place.at("input_files"),
            prompts=self._prompts(),
            cluster_by=entry.cluster_by,
            files_in_vars=v5,
            env=env,
        )
        self.tests = in_memory if in_memory is not None else self._tests(v5)
        for line in self.tests.warnings:
            self.notes(line)

    def _missing(self, name: str, location: Location) -> None:
        text = f"the variable {name} is not set; it is filled in as nothing"
        self.notes.at(self.raw.place.at(*location), text, key=("environment", name))

    def _remark(self) -> None:
        """Say what is read and not used, where that changes no result."""
        entry, place = self.entry, self.place
        options, execution = entry.evaluate_options, entry.execution
        if options is not None:
            here = place.at("evaluate_options")
            if options.delay:
                text = "not used; give the target `requests_per_minute` instead"
                self.notes.at(here.at("delay"), text)
            if options.generate_suggestions:
                self.notes.at(here.at("generate_suggestions"), "not used")
        if execution is not None:
            here = place.at("execution")
            if execution.cache_path:
                self.notes.at(here.at("cache_path"), "not used; say --cache-path")
            if execution.trials is not None and execution.trials.strategy is not None:
                self.notes.at(here.at("trials", "strategy"), NO_STRATEGY)
        if entry.evaluator is not None:
            text = "not used; every assertion names its type"
            self.notes.at(place.at("evaluator"), text)

    def _layer(self, v5: bool) -> Layer:
        """What every test inherits: `default_test` over the suite's own settings."""
        entry, place = self.entry, self.place
        execution, options = entry.execution, entry.evaluate_options
        entries, where = entry.assertions, place.at("assertions")
        if execution is not None and execution.assertions is not None:
            if entries is not None:
                text = "the suite has `assertions` beside `execution` as well; keep one"
                raise ConfigError(place.at("execution", "assertions").problem(text, of_key=True))
            entries, where = execution.assertions, place.at("execution", "assertions")
        repeat = entry.repeat
        if repeat is None and options is not None:
            repeat = options.repeat
        if repeat is None and execution is not None and execution.trials is not None:
            repeat = execution.trials.count
        timeout = entry.timeout_seconds
        if timeout is None and options is not None and options.timeout_ms is not None:
            timeout = options.timeout_ms / 1000
        own = Layer(
            graders=(self.binder.listed(entries, where),) if entries else (),
            metadata=self.metadata(),
            tags=self._tags(),
            threshold=self.threshold(),
            repeat=repeat,
            timeout_seconds=timeout,
            response_schema=entry.response_schema,
            judge_target=entry.judge_target,
        )
        if not entry.default_test:
            return own
        data, where = entry.default_test, place.at("default_test")
        if isinstance(data, str):
            data, where = self._default_test_file(data, where)
        return over(self._layer_at(data, where, v5), own)

    def _default_test_file(self, name: str, place: Place) -> tuple[Any, Place]:
        if name.startswith("ref://"):
            raise ConfigError(place.problem("references are not supported; name a file://"))
        path = self.files.find(name, place)
        self.paths.append(path)
        document = read_yaml(path)
        return document.data, Place(document)

    def _layer_at(self, data: Any, place: Place, v5: bool) -> Layer:
        """The layer of a `default_test` or a scenario's configuration at `place`."""
        if not isinstance(data, dict):
            raise ConfigError(place.problem("expected a mapping, such as {assertions: […]}"))
        tidied = tidy(data, place, DEFAULT_TEST, self.notes.old_name)
        where = tidied.place
        entry = validate(DefaultTest, tidied.data, where.document, where.location)
        return layer_of(
            entry, where, self.binder, targets=self.targets, files=self.files, files_in_vars=v5
        )

    def metadata(self) -> Mapping[str, Any]:
        """What every test is given as metadata."""
        metadata = dict(self.entry.metadata or {})
        if isinstance(self.entry.tags, dict):
            metadata["tags"] = self.entry.tags
        if self.entry.governance is not None:
            metadata["governance"] = self.entry.governance
        return metadata

    def _tags(self) -> tuple[str, ...]:
        tags = self.entry.tags
        if isinstance(tags, dict):
            return tuple(f"{key}={value}" for key, value in tags.items())
        return tuple(tags or ())

    def threshold(self) -> float | None:
        """The score from which tests pass, if the suite says."""
        if self.entry.threshold is not None:
            return self.entry.threshold
        return self.entry.execution.threshold if self.entry.execution is not None else None

    def _prompts(self) -> tuple[Prompt, ...]:
        if self.entry.prompts is None:
            return ()
        prompts = read_prompts(self.entry.prompts, self.place.at("prompts"), self.files)
        self.paths += (prompt.file for prompt in prompts if prompt.file is not None)
        return prompts

    def _tests(self, v5: bool) -> TestList:
        raw, entry, place = self.raw, self.entry, self.place
        if raw.rows is not None:
            return TestList.of(raw.rows)
        if raw.tests is not None:
            return TestList(self.references.parts(raw.tests, raw.place))
        if entry.tests is None and entry.scenarios is None:
            raise ConfigError(place.problem("has no tests; add `tests`, a list or a file of them"))
        parts = []
        if entry.tests is not None:
            parts += self.references.parts(entry.tests, place.at("tests"))
        if entry.scenarios is not None:
            parts += scenarios_of(
                entry.scenarios,
                place.at("scenarios"),
                self.references,
                layer_at=lambda data, where: self._layer_at(data, where, v5),
                notes=self.notes,
            )
        return TestList(parts)

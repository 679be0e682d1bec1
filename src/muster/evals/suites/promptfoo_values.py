"""What promptfoo's files hold, as Muster's values: tests, assertions, variables.

`Translator` turns the values of one document and remembers where each came from, so that a message
about the result still names the line, the column and the field that the user wrote.
"""

from __future__ import annotations

import glob
import itertools
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from muster.config.document import Document, Location, read_text, read_yaml
from muster.errors import ConfigError, Problem
from muster.evals.case import DEFAULT_THRESHOLD
from muster.evals.suites.dataset import OnProblem, Row, RowSource, find_file
from muster.evals.suites.expected_dsl import threshold_field
from muster.evals.suites.moved import MovedDocument

__all__ = ("PromptfooRows", "Translator")

_UNUSED_OPTIONS = {
    "disableVarExpansion": None,
    "disableDefaultAsserts": None,
    "disableConversationVar": "every test is a conversation of its own",
    "runSerially": "tests do not depend on one another; to order them, use depends_on",
}
"""Options of a test that are not passed on; a text says why they make no difference."""

_USUAL_THRESHOLDS = {"bleu": 0.5, "gleu": 0.5, "similar": 0.75}
"""Of measures, the score from which they pass in promptfoo when nothing is said."""

_VERDICTS = {
    "javascript": sys.float_info.epsilon,
    "llm-rubric": DEFAULT_THRESHOLD,
    "python": sys.float_info.epsilon,
    "webhook": sys.float_info.epsilon,
}
"""Of kinds whose verdict counts in promptfoo where a test has no threshold, and not their score:
the score from which they pass when nothing is said."""

_CODE_KINDS = ("javascript", "python", "ruby", "webhook")
_UNREADABLE = (".js", ".cjs", ".mjs", ".ts", ".py", ".pdf")
_DATA_FILES = (".json", ".yaml", ".yml")


class Translator(msgspec.Struct):
    """Translates values of `document`. A value's place is given twice: `old`, where it stands, and
    `new`, where it goes to in the result."""

    document: Document
    base_dir: Path
    root: Path | None
    moved: dict[Location, Location] = msgspec.field(default_factory=dict)
    """What stands elsewhere in the result: new locations by which old ones."""
    problems: list[Problem] = msgspec.field(default_factory=list)
    notes: list[str] = msgspec.field(default_factory=list)
    by_score: bool = False
    """`defaultTest` has a threshold: scores count in every test."""

    def complain(self, old: Location, message: str, *, of_key: bool = False) -> None:
        """Note a mistake at `old`."""
        self.problems.append(self.document.problem(old, message, of_key=of_key))

    def note(self, old: Location, message: str) -> None:
        """Note something that is read and not used."""
        text = str(self.document.problem(old, message, of_key=True))
        if text not in self.notes:
            self.notes.append(text)

    def move(self, old: Location, new: Location) -> None:
        """Remember that what stands at `old` goes to `new`."""
        if old != new:
            self.moved[new] = old

    def load(self, ref: str, old: Location) -> Path | None:
        """The file that `ref`, which stands at `old`, names."""
        try:
            return find_file(self.base_dir / ref.removeprefix("file://"), self.root)
        except ConfigError as error:
            self.problems += [
                self.document.problem(old, f"{problem.path}: {problem.message}")
                for problem in error.problems
            ]
            return None

    def resolved(self, value: Any, old: Location) -> tuple[Any, Location]:
        """`value`, or what its `$ref` stands for, and where that is."""
        for _ in range(10):
            if not (isinstance(value, dict) and isinstance(value.get("$ref"), str)):
                return value, old
            ref = value["$ref"]
            steps = tuple(ref.removeprefix("#/").split("/"))
            target: Any = self.document.data if ref.startswith("#/") else None
            for step in steps:
                target = target.get(step) if isinstance(target, dict) else None
            if target is None:
                self.complain((*old, "$ref"), f'nothing is called "{ref}" in this file')
                return None, old
            others = {key: item for key, item in value.items() if key != "$ref"}
            if others and isinstance(target, dict):
                return {**target, **others}, old
            value, old = target, steps
        self.complain(old, "a $ref that leads to itself")
        return None, old

    # --- tests ------------------------------------------------------------------------------------

    def tests(self, test: Any, old: Location) -> Iterator[tuple[Any, Location]]:
        """The tests that one entry stands for, each with the location that it came from: several
        if variables are lists, as promptfoo has it."""
        test, old = self.resolved(test, old)
        if not isinstance(test, dict):
            yield test, old
            return
        options = test.get("options")
        spread = not (isinstance(options, dict) and options.get("disableVarExpansion"))
        variables = self.variables(test.get("vars"), (*old, "vars"))
        if not isinstance(variables, dict):
            yield test, old
            return
        lists = {name: value for name, value in variables.items() if isinstance(value, list)}
        for name in [name for name, value in lists.items() if not value and spread]:
            self.complain((*old, "vars", name), "an empty list gives no test; leave it out")
            del lists[name]
        if not (lists and spread):
            yield ({**test, "vars": variables} if "vars" in test else test), old
            return
        for number, values in enumerate(itertools.product(*lists.values()), 1):
            one = {**test, "vars": {**variables, **dict(zip(lists, values, strict=True))}}
            for name in ("id", "description"):
                if name in test:  # several tests must not share a name
                    one[name] = f"{test[name]}-{number}"
            yield one, old

    def test(self, test: Any, old: Location, new: Location) -> Any:
        """A test, or `defaultTest`, as a suite may have it."""
        self.move(old, new)
        if not isinstance(test, dict):
            return test
        made = dict(test)
        if "assert" in test:
            by_score, self.by_score = self.by_score, self.by_score or "threshold" in test
            made["assert"] = self.assertions(test["assert"], (*old, "assert"), (*new, "assert"))
            self.by_score = by_score
        options = test.get("options")
        if isinstance(options, dict) and options.keys() & _UNUSED_OPTIONS.keys():
            made["options"] = {
                key: value for key, value in options.items() if key not in _UNUSED_OPTIONS
            }
            for key in options:
                if reason := _UNUSED_OPTIONS.get(key):
                    self.note((*old, "options", key), f"has no effect: {reason}")
            if options.get("disableDefaultAsserts"):
                made["execution"] = {"skip_defaults": True}
        return made

    def variables(self, variables: Any, old: Location) -> Any:
        """`vars`, the files that they name read: as data, or as text without its outer blanks."""
        if isinstance(variables, str):
            variables = self.data_file(variables, old)
        if not isinstance(variables, dict):
            return {} if variables is None else variables
        return {name: self._variable(value, (*old, name)) for name, value in variables.items()}

    def _variable(self, value: Any, old: Location) -> Any:
        if isinstance(value, list):
            return [self._variable(item, (*old, number)) for number, item in enumerate(value)]
        if not (isinstance(value, str) and value.startswith("file://")):
            return value
        if not glob.has_magic(value):
            return self._file(value, old)
        pattern = os.path.join(glob.escape(str(self.base_dir)), value.removeprefix("file://"))
        found = sorted(glob.glob(pattern, recursive=True))
        if not found:
            self.complain(old, f"no file matches {value}")
        return [self._file(path, old) for path in found]

    def _file(self, ref: str, old: Location) -> Any:
        if Path(ref).suffix.lower() in _UNREADABLE:
            self.complain(old, f"cannot read {ref}; give text, YAML or JSON")
            return None
        if Path(ref).suffix.lower() in _DATA_FILES:
            return self.data_file(ref, old)
        path = self.load(ref, old)
        return self._read(path, old) if path is not None else None

    def _read(self, path: Path, old: Location) -> str | None:
        try:
            return read_text(path).strip()
        except ConfigError as error:
            self.complain(old, str(error))
            return None

    def data_file(self, ref: str, old: Location) -> Any:
        path = self.load(ref, old)
        try:
            return read_yaml(path).data if path is not None else None
        except ConfigError as error:
            self.problems += error.problems
            return None

    # --- assertions -------------------------------------------------------------------------------

    def assertions(self, entries: Any, old: Location, new: Location) -> Any:
        """The entries of `assert`."""
        if not isinstance(entries, list):
            return entries
        made = []
        for number, entry in enumerate(entries):
            value, where = self.resolved(entry, (*old, number))
            made.append(self.assertion(value, where, (*new, number)))
        return made

    def assertion(self, entry: Any, old: Location, new: Location) -> Any:
        """One assertion, with what it refers to in its place. A kind that Muster does not know
        keeps its name, to be reported where graders are looked up."""
        self.move(old, new)
        if not (isinstance(entry, dict) and isinstance(entry.get("type"), str)):
            return entry
        made = dict(entry)
        kind = entry["type"].removeprefix("not-")
        if "threshold" in made and threshold_field(kind) == "min_score":
            made["min_score"] = made.pop("threshold")
            self.move((*old, "threshold"), (*new, "min_score"))
        if kind == "assert-set" and "assert" in made:
            by_score, self.by_score = self.by_score, "threshold" in made
            made["assert"] = self.assertions(made["assert"], (*old, "assert"), (*new, "assert"))
            self.by_score = by_score
        if kind in _USUAL_THRESHOLDS:
            made["threshold"] = _own_threshold(kind, made.get("threshold"))
        elif kind in _VERDICTS and not self.by_score and "min_score" not in made:
            made.setdefault("threshold", _VERDICTS[kind])
        value = made.get("value")
        if isinstance(value, str) and kind in ("contains-json", "is-json"):
            made["value"] = self._schema(value, (*old, "value"))
        elif isinstance(value, str) and value.startswith("file://") and kind not in _CODE_KINDS:
            made["value"] = self._file(value, (*old, "value"))
        return made

    def _schema(self, value: str, old: Location) -> Any:
        """A schema written as JSON within text; else the path of a file, which stays."""
        if not value.lstrip().startswith("{"):
            return value
        try:
            return json.loads(value)
        except ValueError as error:
            self.complain(old, f"the schema is not valid JSON: {error}")
            return {}


def _own_threshold(kind: str, given: Any) -> Any:
    """A measure's threshold as it is here: promptfoo compares a cosine c itself, and here it is
    (1 + c) / 2."""
    given = _USUAL_THRESHOLDS[kind] if given is None else given
    is_number = isinstance(given, int | float) and not isinstance(given, bool)
    return (1 + given) / 2 if kind == "similar" and is_number else given


class PromptfooRows(msgspec.Struct, frozen=True):
    """The rows of a data set that a promptfoo configuration names, translated one by one."""

    source: RowSource
    base_dir: Path
    root: Path | None

    @property
    def paths(self) -> tuple[Path, ...]:
        """The data set's files."""
        return self.source.paths

    @property
    def warnings(self) -> tuple[str, ...]:
        """The data set's."""
        return self.source.warnings

    def __iter__(self) -> Iterator[Row]:
        return self.read()

    def read(self, on_problem: OnProblem | None = None) -> Iterator[Row]:
        """A fresh pass; see `RowSource`."""
        for row in self.source.read(on_problem):
            translator = Translator(row.document, self.base_dir, self.root)
            tests = [
                translator.test(test, old, (number,))
                for number, (test, old) in enumerate(translator.tests(row.data, row.location))
            ]
            if translator.problems:
                if on_problem is None:
                    raise ConfigError(translator.problems)
                for problem in translator.problems:
                    on_problem(problem)
                continue
            document = MovedDocument(tests, row.document, translator.moved)
            for number, test in enumerate(tests):
                yield Row(test, document, (number,), row.line)

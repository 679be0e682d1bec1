"""What kinds of files are suites, and what stands in them before anything is interpreted.

`.yaml`, `.yml` and `.json` hold a suite, a bare list of tests, or the `evals` of Agent Skills.
`.jsonl` and `.csv` hold tests alone; the suite's settings may stand in a YAML file of the same name
beside them. `file.py:name` makes tests. `promptfooconfig.yaml` is read as it is.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec

from muster.config.document import Document, Place, read_yaml
from muster.errors import ConfigError, Problem
from muster.evals.suites.agent_skills import agent_skills
from muster.evals.suites.dataset import RowSource, rows_of
from muster.evals.suites.dataset_json import read_json

__all__ = ("RawSuite", "SuiteFileKind", "read_suite_file", "suite_stem")

_GENERATOR = re.compile(r"(?P<file>.+\.py)(?::(?P<function>\w[\w.]*))?\Z")
_LINES = re.compile(r"\.(jsonl|ndjson|csv|tsv)(\.gz)?\Z", re.IGNORECASE)
_SUITES = (".yaml", ".yml", ".json")
_SCRIPTS = (".ts", ".mts", ".cts", ".js", ".mjs", ".cjs")

SuiteFileKind = "YAML, JSON, JSONL, CSV, file.py:function or promptfooconfig.yaml"
"""The kinds there are, for messages."""


class RawSuite(msgspec.Struct, frozen=True, kw_only=True):
    """A suite's file: its mapping as written, and the tests where they are not in it."""

    data: dict[str, Any] = msgspec.field(default_factory=dict)
    place: Place
    rows: RowSource | None = None
    tests: list[Any] | None = None
    """Tests of a file that is a bare list; they stand at `place`."""
    paths: tuple[Path, ...]
    """The files it was read from."""
    promptfoo: bool = False
    notes: tuple[str, ...] = ()


def suite_stem(path: Path) -> str:
    """The file's name without what only says that it is a suite: `a.eval.yaml` is `a`."""
    name = path.name.split(".py:")[0]
    name = re.sub(r"(\.eval)?\.(ya?ml|json|jsonl|ndjson|csv|tsv|py)(\.gz)?\Z", "", name, flags=re.I)
    return name or "eval"


def read_suite_file(path: Path, *, project_root: Path, safe: bool, allow_outside: bool) -> RawSuite:
    """The suite at `path`.

    Raises:
        ConfigError: it cannot be read, or is no suite.
        MusterError: it would run code (`safe`), or the code fails.
    """
    generator = _GENERATOR.fullmatch(path.name)
    if generator is not None:
        reference = path.name
        path = path.with_name(generator["file"])
    elif _LINES.search(path.name):
        reference = path.name
    elif path.suffix.lower() in _SUITES:
        return _read_mapping(path, project_root, allow_outside)
    else:
        hint = "JavaScript is not run here; " if path.suffix.lower() in _SCRIPTS else ""
        raise ConfigError(Problem(f"{hint}a suite is {SuiteFileKind}", path))
    rows = rows_of(
        f"./{reference}",
        base_dir=path.parent,
        project_root=project_root,
        safe=safe,
        allow_outside=allow_outside,
    )
    if generator is not None:
        return RawSuite(place=Place(Document({}, path)), rows=rows, paths=())
    return _with_sidecar(path, rows)


def _read_mapping(path: Path, project_root: Path, allow_outside: bool) -> RawSuite:
    if "promptfooconfig" in path.name:
        from muster.evals.suites.promptfoo import read_promptfoo

        found = read_promptfoo(path, project_root=project_root, allow_outside=allow_outside)
        return RawSuite(
            data=found.data,
            place=Place(found),
            paths=(path,),
            promptfoo=True,
            notes=tuple(found.notes),
        )
    document = read_json(path) if path.suffix.lower() == ".json" else read_yaml(path)
    data, place = document.data, Place(document)
    if isinstance(data, list):
        return RawSuite(place=place, tests=data, paths=(path,))
    if not isinstance(data, dict):
        raise ConfigError(place.problem("expected a suite: a mapping with `tests`"))
    if "evals" in data and "tests" not in data:
        return RawSuite(**agent_skills(document), paths=(path,))
    return RawSuite(data=data, place=place, paths=(path,))


def _with_sidecar(path: Path, rows: RowSource) -> RawSuite:
    """The tests of a JSONL or CSV file with the settings of the YAML file beside it."""
    stem = _LINES.sub("", path.name)
    for name in (f"{stem}.yaml", f"{stem}.yml"):
        beside = path.with_name(name)
        if not beside.is_file():
            continue
        document = read_yaml(beside)
        data, place = document.data, Place(document)
        if not isinstance(data, dict):
            raise ConfigError(place.problem(f"expected a mapping, the settings of {path.name}"))
        if data.keys() & {"tests", "scenarios", "eval_cases", "evalcases"}:
            note = f"{beside}: is a suite of its own; its settings are not used for {path.name}"
            return RawSuite(place=Place(Document({}, path)), rows=rows, paths=(), notes=(note,))
        return RawSuite(data=data, place=place, rows=rows, paths=(beside,))
    return RawSuite(place=Place(Document({}, path)), rows=rows, paths=())

"""A suite from its file: read, checked case by case, and streamed.

The first pass over the tests builds every case, so that a mistake stops the run before any call is
made; it keeps the ids, and the cases themselves only if they are few. Later passes build the cases
again from the files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from muster.config.document import Document, Place
from muster.config.project import Project, find_project
from muster.errors import ConfigError
from muster.evals.case import Case, Suite
from muster.evals.graders import graders
from muster.evals.graders.base import GraderFactory
from muster.evals.stopping import rule_of
from muster.evals.suites.check import check_cases
from muster.evals.suites.files import RawSuite, read_suite_file, suite_stem
from muster.evals.suites.normalize import CaseBuilder
from muster.evals.suites.reading import SuiteReader
from muster.evals.suites.tests import CasesInMemory, said
from muster.registry import Registry

__all__ = ("load_suite", "suite_from_cases")


def load_suite(
    path: str | Path,
    *,
    env: Mapping[str, str] | None = None,
    registry: Registry[GraderFactory] | None = None,
    safe: bool = False,
    skip_invalid: bool = False,
    project_root: Path | None = None,
    allow_outside: bool = False,
) -> Suite:
    """The suite in the file at `path`, every case of it checked.

    Args:
        env: for `${{ NAME }}`; by default the process's environment and the `.env` files.
        registry: the graders to choose from; by default the built-in and registered ones, and
            those of the project's `.muster/graders`.
        safe: no Python of the project is run, and no file outside it is read.
        skip_invalid: leave tests with mistakes out, and say so in `Suite.skipped`.
        project_root: the folder that files must lie in; by default the project of `path`.
        allow_outside: files may lie anywhere.

    Raises:
        ConfigError: with a problem for each mistake, up to 20.
        MusterError: a Python file that the suite uses fails, or is refused.
    """
    path = Path(path)
    project = find_project(path.parent)
    root = project_root or project.root
    outside = allow_outside and not safe
    raw = read_suite_file(path, project_root=root, safe=safe, allow_outside=outside)
    reader = SuiteReader(
        raw,
        base_dir=path.resolve().parent,
        root=root,
        env=env,
        registry=registry or _project_graders(project, safe),
        safe=safe,
        allow_outside=outside,
    )
    reader.read(default_name=suite_stem(path), category=_category(path, root))
    return _checked(reader, path, skip_invalid=skip_invalid)


def suite_from_cases(
    name: str,
    cases: Iterable[Mapping[str, Any] | Case],
    *,
    assertions: Sequence[Any] = (),
    settings: Mapping[str, Any] | None = None,
    base_dir: Path | None = None,
    env: Mapping[str, str] | None = None,
    registry: Registry[GraderFactory] | None = None,
    safe: bool = False,
    skip_invalid: bool = False,
    project_root: Path | None = None,
    allow_outside: bool = False,
) -> Suite:
    """A suite of `cases` in memory: mappings as in a suite's `tests`, or finished `Case`s.

    Args:
        assertions: judge every case that is a mapping, after its own.
        settings: further fields of a suite, such as `threshold` and `input`.
        base_dir: where relative paths start; by default the working directory.

    The other arguments are those of `load_suite`, and so is what it raises.
    """
    folder = (base_dir or Path.cwd()).resolve()
    project = find_project(folder)
    items = [dict(item) if isinstance(item, Mapping) else item for item in cases]
    document = Document({"cases": items})
    data: dict[str, Any] = {**(settings or {}), "name": name}
    if assertions:
        data["assertions"] = [
            dict(entry) if isinstance(entry, Mapping) else entry for entry in assertions
        ]
    reader = SuiteReader(
        RawSuite(data=data, place=Place(document), paths=()),
        base_dir=folder,
        root=project_root or project.root,
        env=env,
        registry=registry or _project_graders(project, safe),
        safe=safe,
        allow_outside=allow_outside and not safe,
    )
    in_memory = CasesInMemory(items, Place(document, ("cases",)))
    reader.read(default_name=name, category=None, in_memory=in_memory)
    return _checked(reader, None, skip_invalid=skip_invalid)


def _project_graders(project: Project, safe: bool) -> Registry[GraderFactory]:
    """The graders there are in a project; files that fail are told of when a name is unknown."""
    return graders.for_project(project.grader_folders, safe=safe)


def _checked(reader: SuiteReader, path: Path | None, *, skip_invalid: bool) -> Suite:
    """The suite, after a first pass over its cases."""
    entry, execution, options = reader.entry, reader.entry.execution, reader.entry.evaluate_options
    targets = reader.targets.of(entry, reader.place)
    builder = CaseBuilder(
        reader.settings,
        files=reader.files,
        binder=reader.binder,
        notes=reader.notes,
        targets=reader.targets,
    )
    checked = check_cases(reader.tests, builder, skip_invalid=skip_invalid)
    if not checked.count and not checked.skipped:
        raise ConfigError(reader.place.problem("holds no test"))
    return Suite(
        name=reader.settings.name,
        path=path,
        base_dir=reader.base_dir,
        cases=checked.cases,
        count=checked.count,
        repeats=checked.repeats,
        content_hash=_hash(reader),
        targets=targets,
        case_targets=tuple(checked.targets),
        has_turns=checked.has_turns,
        description=entry.description,
        category=reader.settings.category,
        tags=reader.settings.layer.tags,
        metadata=reader.metadata(),
        threshold=reader.threshold(),
        max_concurrency=_first(
            entry.workers,
            entry.max_concurrency,
            execution and execution.workers,
            options and options.max_concurrency,
        ),
        budget_usd=_first(
            entry.budget_usd,
            execution and execution.budget_usd,
            options and options.budget_usd,
        ),
        fail_on_error=bool(_first(entry.fail_on_error, execution and execution.fail_on_error)),
        skipped=checked.skipped,
        warnings=reader.notes.lines,
        cache=_asks_for_cache(execution and execution.cache, options and options.cache),
        stop_when=_stop_when(reader),
        has_clusters=checked.has_clusters,
        dependencies=checked.dependencies,
        judges=frozenset(checked.judges),
        inline_targets=reader.targets.inline,
    )


def _asks_for_cache(*written: object) -> bool:
    """`true`, or a mapping that is not switched off."""
    for value in written:
        if value is not None:
            return value.get("enabled", True) is True if isinstance(value, dict) else value is True
    return False


def _stop_when(reader: SuiteReader) -> dict[str, Any] | None:
    """The suite's rule. Raises `ConfigError` when it cannot be."""
    if reader.entry.stop_when is None:
        return None
    data: dict[str, Any] = reader.entry.stop_when.model_dump(exclude_none=True)
    try:
        rule_of(data)
    except ValueError as error:
        raise ConfigError(reader.place.at("stop_when").problem(str(error))) from None
    return data


def _hash(reader: SuiteReader) -> str:
    """SHA-256 over the files that the suite is made of, or over what was given in memory."""
    digest = hashlib.sha256()
    if isinstance(reader.tests, CasesInMemory):
        reader.tests.add_to(digest.update)
        digest.update(said(sorted(reader.raw.data.items())))
    for path in dict.fromkeys((*reader.paths, *reader.tests.paths, *reader.binder.templates.paths)):
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        digest.update(b"\0")
    return digest.hexdigest()


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


_GENERIC_NAMES = frozenset(("eval", "evals", "suite", "promptfooconfig"))


def _category(path: Path, root: Path) -> str:
    """Where the suite stands in its project: `evals/security/network.eval.yaml` is
    `security/network`."""
    folder = path.resolve().parent
    parts: tuple[str, ...] = ()
    if folder.is_relative_to(root.resolve()):
        parts = folder.relative_to(root.resolve()).parts
    kept = [part for part in parts if part != "evals" and not part.startswith(".")]
    stem = suite_stem(path)
    if stem not in _GENERIC_NAMES:
        kept.append(stem)
    return "/".join(kept) or "Uncategorized"

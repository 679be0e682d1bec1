"""Scaffolds: from a name and a template to files that pass their own tests at once.

The templates are the files under `scaffolds/`, written for a thing called `sample-name`; its
spellings (`sample_name`, `SampleName`) become those of the real name.
"""

from __future__ import annotations

import keyword
import os
import re
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import msgspec

from muster import __version__
from muster.config.dialects import FILE_NAMES
from muster.errors import UsageError

__all__ = (
    "Names",
    "Scaffold",
    "package_of",
    "project_files",
    "simple_files",
    "suite_package",
    "targets_entry",
    "write_files",
)

_TEMPLATES = Path(__file__).parent / "scaffolds"
_NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
MAX_NAME = 40


class Names(msgspec.Struct, frozen=True):
    """The spellings of one name."""

    name: str
    """As it is registered: `my-model`."""
    kind: str

    @property
    def module(self) -> str:
        """`my_model`."""
        return self.name.replace("-", "_")

    @property
    def class_(self) -> str:
        """`MyModelProvider`; the kind keeps it apart from the other classes of the template."""
        parts = (*re.split("[-_]", self.name), self.kind)
        return "".join(part.capitalize() for part in parts)

    @property
    def distribution(self) -> str:
        """`muster-my-model`."""
        return "muster-" + self.name.replace("_", "-")

    @classmethod
    def checked(cls, name: str, kind: str) -> Names:
        """The spellings of `name`.

        Raises:
            UsageError: no file, class and package can be called so.
        """
        if not _NAME.fullmatch(name) or len(name) > MAX_NAME:
            shown = name if len(name) <= MAX_NAME else f"{name[:MAX_NAME]}…"
            near = re.sub("[^a-z0-9]+", "-", name.lower()).lstrip("-0123456789")[:MAX_NAME]
            near = near.strip("-")
            hint = f'; "{near}" would do' if near and near != name else ""
            raise UsageError(
                f'"{shown}" cannot name a {kind}: expected lower-case letters and digits, words '
                f"joined by - or _, at most {MAX_NAME} characters, a letter first{hint}"
            )
        return cls(name, kind)

    def file_stem(self, folder: Path) -> str:
        """What its file in a project is called: as the module, or `json_provider` where a module
        of this name can be imported, which the file would hide from the others beside it."""
        return f"{self.module}_{self.kind}" if _is_module(self.module, folder) else self.module

    def no_keyword(self) -> None:
        """Raise `UsageError` when no function can be called so."""
        if keyword.iskeyword(self.module):
            raise UsageError(f'"{self.name}" cannot name a {self.kind}: it is a word of Python\'s')

    def importable(self, folder: Path) -> None:
        """Raise `UsageError` when the user's module of this name would hide another."""
        if _is_module(self.module, folder):
            why = f"its file would hide the module {self.module}"
            raise UsageError(f'"{self.name}" cannot name a {self.kind}: {why}')

    def fill(self, text: str) -> str:
        """A template's text, for this name."""
        return (
            text.replace("muster-sample-name", self.distribution)
            .replace("sample-name", self.name)
            .replace("sample_name", self.module)
            .replace("SampleName", self.class_)
        )


class Scaffold(msgspec.Struct, frozen=True):
    """What a kind of thing is made of."""

    kind: str
    """`provider`, `grader`, `queue`, `tool` or `team`."""
    code: str
    """The template of its code, and `test_…` of its tests."""
    place: str
    """Where its file is in a project."""
    group: str | None
    """The entry points of packages that offer some; `None`: they are found by their dotted path."""
    object: str = "SampleName"
    """What the code defines, and the tests import."""
    data: Mapping[str, str] = {}
    """What a package holds besides code: templates by the names of the files."""

    @property
    def registration(self) -> str:
        """The line that makes it known in a project; a package has its entry point for that."""
        calls = {"provider": "register", "grader": "register_grader", "queue": "register_queue"}
        register = calls.get(self.kind)
        return f'\n\nmuster.{register}("sample-name", SampleName)\n' if register else "\0"


def project_files(scaffold: Scaffold, names: Names, folder: Path) -> dict[str, str]:
    """The code and its tests, as files of the project in `folder`."""
    place = f"{scaffold.place}/{names.file_stem(folder)}.py".removeprefix("./")
    tests = _template(scaffold.kind, f"test_{scaffold.code}.py")
    return {
        place: names.fill(_template(scaffold.kind, f"{scaffold.code}.py")),
        f"tests/test_{names.module}_{scaffold.kind}.py": names.fill(
            _of_project(tests, scaffold, place)
        ),
    }


def package_of(scaffold: Scaffold, names: Names) -> dict[str, str]:
    """The files of a package that offers it to every project where it is installed."""
    package = f"{names.distribution}/src/muster_{names.module}"
    code = _template(scaffold.kind, f"{scaffold.code}.py").replace(scaffold.registration, "")
    tests = _template(scaffold.kind, f"test_{scaffold.code}.py")
    project = _template("package", "pyproject.toml")
    said = {
        "SAMPLE_WHAT": names.fill(f"The {scaffold.kind} sample-name for Muster."),
        "SAMPLE_VERSION": __version__,
        "SAMPLE_KIND": scaffold.kind,
        "SAMPLE_GROUP": str(scaffold.group),
        "SAMPLE_USE": _template(scaffold.kind, "use.md"),
        "SampleName": names.fill(scaffold.object),
    }
    files = {
        f"{package}/__init__.py": _template("package", "init.py"),
        f"{package}/{scaffold.kind}.py": code,
        f"{package}/py.typed": "",
        **{
            f"{package}/{names.fill(at)}": _template(scaffold.kind, name)
            for at, name in scaffold.data.items()
        },
        f"{names.distribution}/tests/test_{scaffold.kind}.py": tests,
        f"{names.distribution}/pyproject.toml": project,
        f"{names.distribution}/README.md": _template("package", "README.md"),
        f"{names.distribution}/.github/workflows/test.yml": _template("package", "test.yml"),
        f"{names.distribution}/.gitignore": _template("package", "gitignore"),
    }
    if scaffold.group is None:
        without = re.sub(r"\[project\.entry-points.*?\n\n", "", project, flags=re.DOTALL)
        files[f"{names.distribution}/pyproject.toml"] = without
    else:
        files[f"{names.distribution}/tests/test_package.py"] = _template(
            "package", "test_package.py"
        )
    return {place: names.fill(_replaced(text, said)) for place, text in files.items()}


def suite_package(names: Names) -> dict[str, str]:
    """The files of a package that offers a suite, and no code, to every project."""
    home = names.distribution
    package = f"{home}/src/muster_{names.module}"
    said = {
        "SAMPLE_WHAT": names.fill("The suite sample-name for Muster."),
        "SAMPLE_VERSION": __version__,
        "SAMPLE_GROUP": "suites",
        "SAMPLE_USE": _template("suite", "use.md"),
        "muster_sample_name:SampleName": "muster_sample_name",
        ', "pydantic>=2.10,<3"': "",
    }
    files = {
        f"{package}/__init__.py": _template("suite", "init.py"),
        f"{package}/{names.name}.eval.yaml": _template("suite", "suite.eval.yaml"),
        f"{home}/tests/test_suite.py": _template("suite", "test_suite.py"),
        f"{home}/tests/test_package.py": _template("suite", "test_package.py"),
        f"{home}/pyproject.toml": _template("package", "pyproject.toml"),
        f"{home}/README.md": _template("package", "README.md"),
        f"{home}/.github/workflows/test.yml": _template("package", "test.yml"),
        f"{home}/.gitignore": _template("package", "gitignore"),
    }
    return {place: names.fill(_replaced(text, said)) for place, text in files.items()}


def simple_files(kind: str, places: Mapping[str, str], names: Names) -> dict[str, str]:
    """Templates of a kind without code, by their places."""
    return {
        names.fill(place): names.fill(_template(kind, template))
        for place, template in places.items()
    }


def targets_entry(folders: Sequence[Path], names: Names) -> tuple[dict[str, str], str | None]:
    """A targets file for a project that has none; else what to add to the one that is there."""
    entry = names.fill("  - name: sample-name\n    provider: sample-name\n")
    for folder in folders:
        for name in FILE_NAMES:
            if (folder / name).exists():
                return {}, f"To {folder / name}, below `targets:`, add\n\n{entry}"
    return {".muster/targets.yaml": f"targets:\n{entry}"}, None


def write_files(folder: Path, files: Mapping[str, str], *, force: bool) -> list[Path]:
    """Write `files` below `folder`; all or none.

    Raises:
        UsageError: some are there already, and `force` is not given.
    """
    places = {folder / name: text for name, text in files.items()}
    taken = [str(place) for place in places if os.path.lexists(place)]
    if taken and not force:
        raise UsageError(f"already there: {', '.join(taken)}; nothing was written (--force does)")
    for place, text in places.items():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
    return list(places)


def _is_module(name: str, folder: Path) -> bool:
    """True when a module outside `folder` is called so; nothing is imported."""
    if name in sys.stdlib_module_names:
        return True
    try:
        found = find_spec(name)
    except (ImportError, ValueError):
        return False
    origin = found.origin if found is not None else None
    return origin is not None and not Path(origin).is_relative_to(folder.resolve())


def _template(kind: str, name: str) -> str:
    return (_TEMPLATES / kind / f"{name}.txt").read_text(encoding="utf-8")


def _replaced(text: str, said: Mapping[str, str]) -> str:
    for word, meaning in said.items():
        text = text.replace(word, meaning)
    return text


def _of_project(tests: str, scaffold: Scaffold, place: str) -> str:
    """The tests of a package, made to run the file of a project: it is no module, so that it may
    have any name."""
    if scaffold.group is None:
        there = 'path="muster_sample_name:sample_name"'
        here = 'path="sample_name:sample_name", search=Path(__file__).parents[1]'
        return _with_imports(tests.replace(there, here), [])
    ran = f'CODE = Path(__file__).parents[1] / "{place}"\n'
    ran += 'SampleName = runpy.run_path(str(CODE))["SampleName"]'
    tests = tests.replace(
        "\nfrom muster_sample_name import SampleName\n",
        f"\n{ran}\n",
    )
    if scaffold.kind == "grader":  # the file has registered it
        line = 'muster.register_grader("sample-name", SampleName, override=True)\n'
        tests = tests.replace(f"\n{line}", "")
    return _with_imports(tests, ["import runpy"])


def _with_imports(tests: str, more: list[str]) -> str:
    """With imports of `pathlib` and `more` among those of the standard library."""
    opening, block, rest = tests.split("\n\n", 2)
    lines = {*block.splitlines(), *more, "from pathlib import Path"}
    ordered = sorted(lines, key=lambda line: (line.startswith("from"), line))
    return "\n\n".join((opening, "\n".join(ordered), rest))

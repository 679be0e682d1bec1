"""The grader `file-changes`: what an agent changed in the folder that it worked in."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from muster.config.validation import FileModel
from muster.evals.graders.base import Assertion, GradeContext, GraderError, GraderSpec, Score
from muster.evals.graders.text import clip

__all__ = ("FileChanges",)


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


_Texts = Annotated[
    list[Annotated[str, Field(min_length=1)]], Field(min_length=1), BeforeValidator(_as_list)
]
_STATUSES = ("added", "modified", "deleted")


class _Settings(FileModel):
    changed: _Texts | None = None
    """Files that are changed in any way; `*` and `?` stay in a folder, `**` crosses them."""
    added: _Texts | None = None
    """Files that are new."""
    modified: _Texts | None = None
    """Files that are other than they were."""
    deleted: _Texts | None = None
    """Files that are gone."""
    only: _Texts | None = None
    """No file but these is changed."""
    untouched: _Texts | None = None
    """None of these files is changed."""
    min_files: Annotated[int, Field(ge=0)] | None = None
    """How many files are changed at least."""
    max_files: Annotated[int, Field(ge=0)] | None = None
    """How many files are changed at most."""
    max_lines: Annotated[int, Field(ge=0)] | None = None
    """How many lines are added and removed at most, together."""
    adds: _Texts | None = None
    """Texts that some added line has."""
    adds_none_of: _Texts | None = None
    """Texts that no added line has."""

    @model_validator(mode="after")
    def _has_a_check(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("needs at least one check, such as changed: src/**")
        return self


class FileChanges:
    """The share of the checks that hold. Without a folder to look at, an error."""

    Settings = _Settings
    __slots__ = ("_settings",)

    def __init__(self, spec: GraderSpec) -> None:
        self._settings = _Settings.model_validate(spec.config)

    def __call__(self, context: GradeContext) -> Score:
        workspace = context.workspace
        if workspace is None or not isinstance(workspace.get("files"), list | tuple):
            raise GraderError(
                "what was changed is not known: the target has no `workspace`, in which its files "
                "are compared"
            )
        if workspace.get("note"):
            raise GraderError(f"not all files could be compared: {clip(str(workspace['note']))}")
        files = {str(one["path"]): str(one["status"]) for one in workspace["files"]}
        said = [*self._files(files), *self._lines(files, workspace)]
        details = {"files": len(files)}
        return Score(sum(one.passed for one in said) / len(said), tuple(said), details)

    def _files(self, files: Mapping[str, str]) -> Iterator[Assertion]:
        settings = self._settings
        for word in ("changed", *_STATUSES):
            for glob in getattr(settings, word) or ():
                found = [
                    path
                    for path, status in files.items()
                    if word in ("changed", status) and matches_path(path, glob)
                ]
                says = "is" if found else "is not"
                yield Assertion(f"{glob} {says} {word}", bool(found), _list(found))
        if settings.only is not None:
            others = [path for path in files if not _any_matches(path, settings.only)]
            text = "nothing else is changed" if not others else "something else is changed"
            yield Assertion(text, not others, _list(others))
        for glob in settings.untouched or ():
            found = [path for path in files if matches_path(path, glob)]
            says = "is not" if not found else "is"
            yield Assertion(f"{glob} {says} changed", not found, _list(found))
        count = len(files)
        for word, bound, holds in (
            ("at least", settings.min_files, count >= (settings.min_files or 0)),
            ("at most", settings.max_files, count <= (settings.max_files or 0)),
        ):
            if bound is not None:
                yield Assertion(f"{count} files are changed, wanted {word} {bound}", holds)

    def _lines(self, files: Mapping[str, str], workspace: Mapping[str, Any]) -> Iterator[Assertion]:
        settings = self._settings
        if settings.adds is None and settings.adds_none_of is None and settings.max_lines is None:
            return
        diff = workspace.get("diff")
        cut = bool(workspace.get("truncated"))
        if not isinstance(diff, str) or (files and not diff and not cut):
            raise GraderError("the diff is not known")
        lines = list(_changed_lines(diff))
        added = [text for sign, text in lines if sign == "+"]
        for wanted in settings.adds or ():
            found = next((text for text in added if wanted in text), None)
            if found is None and cut:
                raise _too_long(f'whether "{clip(wanted, 60)}" is added')
            says = "is" if found is not None else "is not"
            yield Assertion(f'"{clip(wanted)}" {says} added', found is not None)
        for unwanted in settings.adds_none_of or ():
            found = next((text for text in added if unwanted in text), None)
            if found is None and cut:
                raise _too_long(f'whether "{clip(unwanted, 60)}" is added')
            says = "is not" if found is None else "is"
            told = None if found is None else clip(found)
            yield Assertion(f'"{clip(unwanted)}" {says} added', found is None, told)
        if settings.max_lines is not None:
            count = len(lines)
            if cut and count <= settings.max_lines:
                raise _too_long("how many lines are changed")
            text = f"{count} lines are changed, wanted at most {settings.max_lines}"
            yield Assertion(text, count <= settings.max_lines)


def _too_long(what: str) -> GraderError:
    return GraderError(f"{what} is not known: the diff is cut short by the target's max_diff_bytes")


def _changed_lines(diff: str) -> Iterator[tuple[str, str]]:
    """The added (`+`) and removed (`-`) lines of a unified diff, without its headers."""
    within = False
    for line in diff.split("\n"):
        if line.startswith("diff --git "):
            within = False
        elif line.startswith("@@"):
            within = True
        elif within and line[:1] in {"+", "-"}:
            yield line[0], line[1:]


def matches_path(path: str, glob: str) -> bool:
    """Whether `path` is one that `glob` means: `*` and `?` stay in a folder, `**` crosses them, and
    a folder's name with `/` behind it is all in it."""
    return _compiled(glob).fullmatch(path) is not None


def _any_matches(path: str, globs: list[str]) -> bool:
    return any(matches_path(path, glob) for glob in globs)


@lru_cache(maxsize=1024)
def _compiled(glob: str) -> re.Pattern[str]:
    glob = glob.removeprefix("./") + ("**" if glob.endswith("/") else "")
    made = ""
    for part in re.split(r"(\*\*/|\*\*|\*|\?)", glob):
        made += {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(
            part, re.escape(part)
        )
    return re.compile(made, re.DOTALL)


def _list(paths: list[str]) -> str | None:
    return clip(", ".join(paths), 500) if paths else None

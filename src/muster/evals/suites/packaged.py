"""Suites that installed packages offer, by name.

    [project.entry-points."muster.suites"]
    arithmetic = "muster_arithmetic"

`arithmetic` stands for all suites in the folder of that package, `arithmetic:sums` for the one in
`sums.eval.yaml`. The package is not imported: what is needed of it is its folder.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from muster.errors import UsageError, nearest
from muster.evals.suites.discovery import find_suites, is_there

__all__ = ("GROUP", "NamedSuite", "packaged_suites", "suites_named")

GROUP = "muster.suites"
_NAME = re.compile(r"(?P<name>[A-Za-z]\w*(?:[-.]\w+)*)(?::(?P<suite>[\w./-]+))?\Z")
_ENDS = ("", ".eval.yaml", ".eval.yml", ".yaml", "/eval.yaml")


class NamedSuite(NamedTuple):
    """A suite's file."""

    path: Path
    label: str | None = None
    """`arithmetic:sums.eval.yaml`, for one of a package: it belongs to the project that measures,
    wherever its file is."""
    folder: Path | None = None
    """The package's folder: its files may be read."""


def suites_named(arguments: Sequence[str | Path], here: Path) -> list[NamedSuite]:
    """The suites that `arguments` name: files, folders and globs as `find_suites` takes them, and
    names that packages offer. What is there as a file or a folder goes before such a name.

    Raises:
        UsageError: an argument matches nothing, or nothing is left.
    """
    packaged: list[NamedSuite] = []
    files: list[str | Path] = []
    for argument in arguments:
        found = None if is_there(str(argument), here) else packaged_suites(str(argument))
        if found is None:
            files.append(argument)
        else:
            packaged += [suite for suite in found if suite not in packaged]
    if packaged and all(str(argument).startswith("!") for argument in files):
        return packaged
    return [*(NamedSuite(path) for path in find_suites(files, here)), *packaged]


def packaged_suites(argument: str) -> list[NamedSuite] | None:
    """What a package offers as `argument`, `NAME` or `NAME:SUITE`; `None` if none does.

    Raises:
        UsageError: the package is not there, or has no such suite.
    """
    written = _NAME.fullmatch(argument)
    if written is None:
        return None
    points = {point.name: point for point in entry_points(group=GROUP)}
    point = points.get(written["name"])
    if point is None:
        if near := nearest(written["name"], points):
            raise UsageError(
                f"no such file or folder: {argument}, and no package offers suites by this name "
                f"(near: {near[0]})"
            )
        return None
    folder = _folder_of(point)
    found = [
        NamedSuite(path, f"{point.name}:{path.relative_to(folder).as_posix()}", folder)
        for path in find_suites([folder])
    ]
    if written["suite"] is None:
        return found
    wanted = {f"{point.name}:{written['suite']}{end}" for end in _ENDS}
    chosen = [suite for suite in found if suite.label in wanted]
    if chosen:
        return chosen
    there = [str(suite.label) for suite in found]
    near = nearest(argument, there)
    hint = f"near: {near[0]}; " if near else ""
    raise UsageError(f'no suite "{argument}" in the package ({hint}it has {", ".join(there)})')


def _folder_of(point: EntryPoint) -> Path:
    """The folder of the package that is named; nothing of it is run."""
    package, *below = point.module.split(".")
    spec = find_spec(package)
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    folders = [folder for place in places if (folder := Path(place, *below)).is_dir()]
    if not folders:
        raise UsageError(f'the suites "{point.name}": no package {point.module} with a folder')
    return folders[0].resolve()

"""`python`: a function, by its dotted path or in a file; or code that is given as text."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from muster.config.validation import FileModel
from muster.errors import MusterError, nearest
from muster.evals.graders.base import GradeContext, GraderError, GraderSpec, Score, SettingError
from muster.evals.graders.inline import (
    InlineSettings,
    file_and_function,
    in_process_of_its_own,
    score_of,
)
from muster.evals.graders.programs import case_context
from muster.evals.graders.thresholds import bar_of, held_to, own_bar
from muster.importing import CodeError, import_file, load_object
from muster.providers.threads import Threads

__all__ = ("PythonGrader",)

_DOTTED = re.compile(r"\s*[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*\s*")
_FILE = re.compile(r"\s*[\w./-]+\.py(:[^\W\d]\w*)?\s*")
_USUAL = ("grade", "get_assert")
"""What the function of a file is called, when nobody says."""

_threads = Threads(name="muster-grader")


class _Settings(InlineSettings):
    thread: bool = False
    """For a synchronous function: it is called on a thread, so that others do not wait for it."""


class PythonGrader:
    """Calls a function with the context, or with the output and the context as a mapping."""

    Settings: ClassVar[type[FileModel]] = _Settings
    own_templates: ClassVar[tuple[str, ...]] = ("value",)

    def __init__(self, spec: GraderSpec, call: Callable[..., Any] | None = None) -> None:
        settings = _Settings.model_validate(spec.config)
        if spec.safe:
            raise ValueError("--safe runs no code of a suite")
        self._settings = settings
        self._threshold = own_bar(settings.threshold, spec)
        self._bar = spec.min_score if self._threshold is None else self._threshold
        self._inline = None
        self._call = call
        value = settings.value
        if call is not None:
            pass
        elif value.startswith("file://"):
            self._call = _function_in(*file_and_function(value, spec), spec)
        elif _FILE.fullmatch(value):
            self._call = _function_in(*_project_file(value.strip(), spec), spec)
        elif _DOTTED.fullmatch(value):
            try:
                self._call = load_object(value.strip(), search=spec.base_dir)
            except CodeError as error:
                raise SettingError("value", str(error)) from None
        elif settings.thread:
            text = "code that is given as text has a process of its own, and needs no thread"
            raise SettingError("thread", text)
        else:
            self._inline = in_process_of_its_own(spec, settings)
        if self._call is not None:
            self._takes_two = _takes_two(self._call)

    def __call__(self, context: GradeContext) -> Any:
        if self._inline is not None:
            return self._inline(context)
        assert self._call is not None
        given: tuple[Any, ...] = (context,)
        if self._takes_two:
            given = (context.output, case_context(context, self._settings.config))
        if self._settings.thread or _is_async(self._call):
            return self._wait(given, context)
        value = self._call(*given)
        if inspect.isawaitable(value):
            return self._wait(given, context, value)
        return self._score(value, context)

    async def _wait(
        self, given: tuple[Any, ...], context: GradeContext, value: Any = None
    ) -> Score:
        call, seconds = self._call, self._settings.timeout_seconds
        assert call is not None
        try:
            async with asyncio.timeout(seconds) as limit:
                if value is None:
                    if _is_async(call):
                        value = call(*given)
                    else:
                        value = await _threads.run(lambda _: call(*given))
                if inspect.isawaitable(value):
                    value = await value
        except TimeoutError:
            if limit.expired():
                raise GraderError(f"it took more than {seconds:g} s") from None
            raise
        return self._score(value, context)

    def _score(self, value: Any, context: GradeContext) -> Score:
        if not isinstance(value, Score):
            value = score_of(value, bar_of(self._bar, context))
        return held_to(value, self._threshold)


def grader_of_module(module: ModuleType) -> Callable[[GraderSpec], PythonGrader] | None:
    """A project file that registers nothing as a grader: its function `grade` (or `get_assert`) is
    called, and the entry's fields are the `config` of its context. `None` without a function that
    could be one."""
    own = [
        name
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__
    ]
    usual = next((name for name in _USUAL if name in own), None)
    if not own:
        return None

    def make(spec: GraderSpec) -> PythonGrader:
        if usual is None:
            raise ValueError(f"{module.__file__} has no function {' or '.join(_USUAL)}")
        config = {"value": str(module.__file__), "config": spec.config}
        return PythonGrader(replace(spec, config=config), getattr(module, usual))

    return make


def _is_async(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - an object's own, if it is async
    )


def _takes_two(function: Any) -> bool:
    """Whether it is one of promptfoo's, `(output, context)`.

    Raises:
        SettingError: it can be called in neither way.
    """
    if not callable(function):
        raise SettingError("value", f"it names {function!r}, which is no function")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return False
    for count in (1, 2):
        try:
            signature.bind(*[None] * count)
        except TypeError:
            continue
        return count == 2
    raise SettingError(
        "value", f"it is called as (context) or as (output, context), but takes {signature}"
    )


def _project_file(value: str, spec: GraderSpec) -> tuple[Path, str | None]:
    """A file seen from the suite's folder, or of the nearest `.muster/graders`.

    Raises:
        SettingError: there is none.
    """
    try:
        return file_and_function(value, spec)
    except SettingError as error:
        text, _, name = value.partition(".py")
        root = (spec.project_root or spec.base_dir).resolve()
        for folder in (spec.base_dir.resolve(), *spec.base_dir.resolve().parents):
            path = folder / ".muster" / "graders" / f"{text}.py"
            if "/" not in text and path.is_file():
                return path, name.removeprefix(":") or None
            if folder == root:
                break
        raise SettingError("value", f"{error}, nor one in .muster/graders") from None


_loaded: dict[Path, tuple[tuple[int, int], Any]] = {}
"""Files that were run, as they were then: the graders of each case are built anew."""


def _function_in(path: Path, name: str | None, spec: GraderSpec) -> Callable[..., Any]:
    spec.reads(path)
    try:
        stat = path.stat()
        stamp = (stat.st_mtime_ns, stat.st_size)
        known = _loaded.get(path)
        if known is None or known[0] != stamp:
            digest = hashlib.sha256(str(path).encode()).hexdigest()[:12]
            known = stamp, import_file(path, name=f"_muster_grader_{digest}_{path.stem}")
            _loaded[path] = known
    except (MusterError, OSError) as error:
        raise SettingError("value", str(error)) from None
    module = known[1]
    names = _USUAL if name is None else (name,)
    for wanted in names:
        found: Callable[..., Any] | None = getattr(module, wanted, None)
        if found is not None:
            return found
    near = nearest(names[0], [item for item in vars(module) if not item.startswith("_")])
    hint = f" (near: {near[0]})" if near else ""
    raise SettingError("value", f"{path} has no function {' or '.join(names)}{hint}")

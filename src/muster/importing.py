"""Objects by dotted path, and Python files by path, with errors that name the place."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from muster.errors import MusterError, nearest

__all__ = ("CodeError", "import_file", "load_object")


class CodeError(MusterError):
    """A user's Python code could not be imported, or does not have what was named."""


def load_object(spec: str, *, search: Path | None = None) -> Any:
    """`package.module:attribute` as an object; modules in the folder `search` come first, even
    before a module of the same name that was imported from somewhere else.

    Raises:
        CodeError: no such module or attribute, or the module fails while it is imported.
    """
    module_name, _, attribute = spec.partition(":")
    if not module_name or not attribute:
        raise CodeError(f'"{spec}" is not of the form package.module:name')
    try:
        value: Any = _module(module_name, search)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(error.name + ".")):
            beside = f" (looked in {search} and the Python path)" if search else ""
            raise CodeError(f'no module "{module_name}" for "{spec}"{beside}') from error
        raise CodeError(f'"{spec}" fails to import: {describe_failure(error)}') from error
    except CodeError as error:
        raise CodeError(f'"{spec}" fails to import: {error}') from error
    except (Exception, SystemExit) as error:
        raise CodeError(f'"{spec}" fails to import: {describe_failure(error)}') from error
    for name in attribute.split("."):
        try:
            value = getattr(value, name)
        except AttributeError:
            near = nearest(name, [item for item in dir(value) if not item.startswith("_")])
            hint = f" (near: {near[0]})" if near else ""
            raise CodeError(f'module "{module_name}" has no "{name}"{hint}') from None
    return value


def import_file(path: Path, *, name: str) -> ModuleType:
    """Run the Python file at `path` as the module `name`; its folder is importable meanwhile.

    Raises:
        CodeError: the file fails; the message names file, line and error.
    """
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise CodeError(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with _importable(path.parent):
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise CodeError(describe_failure(error, path=path)) from error
    return module


def _module(name: str, search: Path | None) -> ModuleType:
    if search is None:
        return importlib.import_module(name)
    entry = str(search)
    if entry in sys.path:
        sys.path.remove(entry)
    sys.path.insert(0, entry)
    own = search.joinpath(*name.split(".")).with_suffix(".py")
    there = getattr(sys.modules.get(name), "__file__", None)
    is_there = there is not None and os.path.realpath(there) == os.path.realpath(own)
    if name not in sys.modules or not own.is_file() or is_there:
        return importlib.import_module(name)
    # Another folder's module, or the standard library's, has the name: this one gets its own.
    digest = hashlib.sha256(str(own.resolve()).encode()).hexdigest()[:12]
    alias = f"_muster_{digest}_{name.replace('.', '_')}"
    return sys.modules.get(alias) or import_file(own, name=alias)


def describe_failure(error: BaseException, *, path: Path | None = None) -> str:
    """`file:line: ErrorType: message`, the line being the last one in `path` if that is given."""
    own = os.path.abspath(path) if path is not None else None
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}: {type(error).__name__}: {error.msg}"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if own is None or frame.filename == own
    ]
    if frames and path is not None:
        return f"{path}:{frames[-1].lineno}: {text}"
    outside = [frame for frame in frames if not frame.filename.startswith("<frozen")]
    if outside and outside[-1].filename != __file__:
        return f"{outside[-1].filename}:{outside[-1].lineno}: {text}"
    return f"{path}: {text}" if path is not None else text


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    entry = str(folder)
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        sys.path.remove(entry)

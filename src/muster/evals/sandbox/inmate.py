"""What runs the code, shut in: it puts the program together, runs it and its tests, and says how
that went. Standard library only; it is forked, not started."""

from __future__ import annotations

import io
import json
import os
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

_SHOWN = 500

_FILE = "answer.py"


def run(spec: dict[str, Any], tell: int) -> None:
    """Run it, and write a line of JSON to the descriptor `tell` for each thing that is known."""
    space: dict[str, Any] = {"__name__": "answer", "__builtins__": __builtins__}
    mark = spec.pop("mark")
    say = _teller(tell)
    sys.stdin = io.StringIO("")
    sys.argv = [_FILE]
    try:
        tests = [compile(test, "test.py", "exec") for test in spec["tests"]]
    except (SyntaxError, ValueError) as error:
        say({"broken": _told(error)})
        return
    say({"running": True})  # from here on, what is said may be the code's own
    try:
        program = _program(spec)
    except (SyntaxError, ValueError) as error:
        say({"failed": "compile", "reason": _told(error)})
        return
    except (RecursionError, MemoryError) as error:
        say({"failed": "compile", "reason": f"{type(error).__name__}: it cannot be compiled"})
        return
    if not _guarded(lambda: exec(program, space), "code", say):  # noqa: S102 - that is its job
        return
    entry = spec.get("entry_point")
    if entry and not callable(space.get(entry)):
        say({"failed": "code", "reason": f'it defines no function "{entry}"'})
        return
    for number, test in enumerate(tests):
        space.pop("check", None)

        def whole(test: Any = test) -> None:
            exec(test, space)  # noqa: S102
            check = space.get("check")
            if entry and callable(check):
                check(space[entry])

        if _guarded(whole, f"test {number + 1}", say):
            say({"passed": number})
    say({"mark": mark})


def _guarded(work: Callable[[], None], name: str, say: Callable[[Any], None]) -> bool:
    try:
        work()
    except BaseException as error:
        say({"failed": name, "reason": _told(error)})
        return False
    return True


def _program(spec: dict[str, Any]) -> Any:
    """The program that the answer is, or that it completes.

    Raises:
        SyntaxError: it is none.
    """
    answer, prompt, entry = spec["code"], spec.get("prompt") or "", spec.get("entry_point")
    if not prompt:
        return compile(answer, _FILE, "exec")
    first: Exception | None = None
    for text in _candidates(answer, prompt, entry):
        try:
            return compile(text, _FILE, "exec")
        except (SyntaxError, ValueError) as error:
            first = first or error
    assert first is not None
    raise first


def _candidates(answer: str, prompt: str, entry: str | None) -> Iterator[str]:
    """A whole program stands after the prompt, which may have what it needs; what goes on from the
    prompt's last line may have lost its indentation, or that of its first line."""
    if _defines(answer, entry):
        yield f"{prompt.rstrip()}\n\n\n{answer}"
        yield answer
        return
    yield prompt + answer
    if not prompt.endswith("\n"):
        yield f"{prompt}\n{answer}"
    bare = answer.lstrip("\n")
    yield f"{prompt.rstrip()}\n    {bare.lstrip()}"
    yield f"{prompt.rstrip()}\n{textwrap.indent(bare, '    ')}"


def _defines(answer: str, entry: str | None) -> bool:
    import ast

    try:
        tree = ast.parse(answer)
    except (SyntaxError, ValueError):
        return False
    if entry is None:
        return True
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    names = {node.name for node in tree.body if isinstance(node, kinds)}
    names |= {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    return entry in names


def _told(error: BaseException) -> str:
    """The error in a line, with the place in the answer or in the test that it came from."""
    kind = type(error).__name__
    try:
        said = str(error)
    except BaseException:
        said = ""
    where = ""
    if isinstance(error, SyntaxError):
        said, where = error.msg, f"{error.filename}:{error.lineno}: "
    else:
        trace = error.__traceback__
        while trace is not None:
            name = trace.tb_frame.f_code.co_filename
            if name in (_FILE, "test.py"):
                where = f"{name}:{trace.tb_lineno}: "
            trace = trace.tb_next
    text = f"{where}{kind}: {said}" if said else f"{where}{kind}"
    return text[:_SHOWN]


def _teller(descriptor: int) -> Callable[[Any], None]:
    # What the code may have put in their place later must not be asked.
    write, dumps, number, getpid = os.write, json.dumps, os.getpid(), os.getpid

    def say(value: Any) -> None:
        if getpid() != number:
            return  # the code has forked, and this is not the one that counts
        data = dumps(value).encode("utf-8", "replace") + b"\n"
        while data:
            data = data[write(descriptor, data) :]

    return say

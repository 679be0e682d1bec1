"""Templates of prompts for judges: Jinja2 in its sandbox, with bounds on time and memory.

Two things differ from the usual sandbox. A template cannot run on or grow without end: loops are
counted, and what multiplies text is refused or limited. And what others wrote (the answer, above
all) cannot pose as a part of the prompt: wherever an expression uses it, the result is put between
marks that do not occur in it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from functools import lru_cache, wraps
from typing import Any, cast

from jinja2 import (
    Environment,
    StrictUndefined,
    TemplateError,
    TemplateSyntaxError,
    Undefined,
    meta,
    nodes,
)
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from muster.evals.suites.variables import as_text

__all__ = ("PromptError", "PromptTemplate", "compile_prompt", "mark_for", "marked")

MAX_LENGTH = 2_000_000
"""Characters that a prompt may have."""

MAX_STEPS = 100_000
"""Rounds of all loops of a template, and values that filters go through, together."""

_FILTERS = (
    "abs", "capitalize", "count", "d", "default", "dictsort", "first", "float", "int", "items",
    "last", "length", "list", "lower", "map", "max", "min", "reject", "rejectattr", "reverse",
    "round", "select", "selectattr", "sort", "string", "sum", "title", "trim", "truncate",
    "unique", "upper", "wordcount",
)  # fmt: skip
_METHODS = frozenset(
    (
        "capitalize", "count", "endswith", "find", "get", "index", "isdigit", "items", "keys",
        "lower", "lstrip", "removeprefix", "removesuffix", "rsplit", "rstrip", "split",
        "splitlines", "startswith", "strip", "title", "upper", "values",
    )
)  # fmt: skip
_MARK, _TICK = "_muster_marked", "_muster_tick"


class PromptError(ValueError):
    """A template is wrong, or cannot be filled in with these values."""


def mark_for(texts: Iterable[str]) -> str:
    """Digits that occur in none of the texts, and are the same for the same texts: prompts that
    ask the same are the same."""
    known = [text for text in texts if text]
    seed = hashlib.sha256("\0".join(known).encode("utf-8", "surrogatepass"))
    while True:
        number = str(int.from_bytes(seed.digest()[:8], "big")).zfill(20)
        if not any(number in text for text in known):
            return number
        seed.update(b"again")


def marked(text: str, mark: str) -> str:
    """`text` between marks that it cannot end."""
    return f"<data-{mark}>\n{text}\n</data-{mark}>"


class PromptTemplate:
    """A compiled template; `names` are the variables that it uses."""

    def __init__(self, source: str, untrusted: frozenset[str]) -> None:
        environment = _Environment(untrusted)
        try:
            self.names = frozenset(meta.find_undeclared_variables(_Environment().parse(source)))
            self._template = environment.from_string(source)
        except TemplateSyntaxError as error:
            raise PromptError(f"line {error.lineno}: {error.message}") from None
        except PromptError:
            raise
        except (TemplateError, RecursionError) as error:
            raise PromptError(f"{error}" or "nested too deeply") from None

    def render(self, variables: Mapping[str, Any], mark: str) -> str:
        """The prompt. Raises `PromptError`."""
        steps = _Steps()
        pieces: list[str] = []
        size = 0
        token = _current.set(steps)
        given = {**variables, _TICK: steps.take, _MARK: mark, "range": steps.range}
        try:
            for piece in self._template.generate(given):
                size += len(piece)
                if size > MAX_LENGTH:
                    raise PromptError(f"comes to more than {MAX_LENGTH:,} characters")
                pieces.append(piece)
        except PromptError:
            raise
        except RecursionError:
            raise PromptError("nested too deeply") from None
        except Exception as error:  # whatever a template's expressions may raise
            raise PromptError(str(error) or type(error).__name__) from None
        finally:
            _current.reset(token)
        return "".join(pieces)


_current: ContextVar[_Steps | None] = ContextVar("_current", default=None)
"""Of the template that is being filled in."""


@lru_cache(maxsize=256)
def compile_prompt(source: str, untrusted: frozenset[str]) -> PromptTemplate:
    """The template `source`; what uses one of the names `untrusted` is put between marks.

    Raises:
        PromptError: a syntax error, with its line.
    """
    return PromptTemplate(source, untrusted)


_PER_STEP = 8
"""Characters or items that a filter goes through in one step."""


class _Steps:
    def __init__(self) -> None:
        self.left = MAX_STEPS

    def take(self, number: int = 1) -> None:
        self.left -= number
        if self.left < 0:
            raise PromptError(f"takes more than {MAX_STEPS:,} steps")

    def range(self, *bounds: int) -> range:
        found = range(*bounds)
        self.take(len(found))
        return found


_REFUSED: tuple[tuple[type[nodes.Node], str], ...] = (
    (nodes.Macro, "macro"),
    (nodes.CallBlock, "call"),
    (nodes.AssignBlock, "a block of set"),
    (nodes.FilterBlock, "filter"),
    (nodes.Block, "block"),
    (nodes.Extends, "extends"),
    (nodes.Include, "include"),
    (nodes.Import, "import"),
    (nodes.FromImport, "import"),
)
"""Statements that a prompt does without; some of them make texts of any length at once."""


class _Joined(NodeTransformer):
    """`a ~ b` by our own `join`, which knows a bound."""

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802 - Jinja's name
        items = nodes.List([self.visit(item) for item in node.nodes])
        return nodes.Filter(items, "join", [], [], None, None)


def _guarded(
    template: nodes.Template, untrusted: frozenset[str], environment: Environment
) -> nodes.Template:
    """The template with its loops counted, and what uses untrusted names between marks."""
    for kind, name in _REFUSED:
        for found in template.find_all(kind):
            raise PromptError(f"line {found.lineno}: `{name}` is not available in prompts")
    tainted = _tainted(template, untrusted)
    template = _Joined().visit(template)
    for loop in template.find_all(nodes.For):
        tick = nodes.Call(nodes.Name(_TICK, "load"), [], [], None, None)
        loop.body.insert(0, nodes.ExprStmt(tick))
    for output in template.find_all(nodes.Output):
        output.nodes = [
            nodes.Filter(node, _MARK, [nodes.Name(_MARK, "load")], [], None, None)
            if not isinstance(node, nodes.TemplateData) and _uses(node, tainted)
            else node
            for node in output.nodes
        ]
    return cast("nodes.Template", template.set_environment(environment))


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(("*", "**", "%", "+"))

    def __init__(self, untrusted: frozenset[str] | None = None) -> None:
        super().__init__(
            undefined=StrictUndefined,
            finalize=_shown,
            keep_trailing_newline=True,
            trim_blocks=True,
            lstrip_blocks=True,
            autoescape=False,
        )
        self._untrusted = untrusted
        self.globals = {}
        known = {name: self.filters[name] for name in _FILTERS}
        known |= {"dump": _json, "tojson": _json, "safe": as_text, "join": _join}
        known["replace"] = _replace
        self.filters = {name: _counted(function) for name, function in known.items()}
        self.filters[_MARK] = lambda value, mark: marked(as_text(_present(value)), mark)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        template = super()._parse(source, name, filename)
        if self._untrusted is not None:
            return _guarded(template, self._untrusted, self)
        return template

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, Mapping) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if callable(value) and attr not in _METHODS and not isinstance(obj, Mapping):
            return False
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Any:
        if getattr(value, "__name__", "") in ("format", "format_map"):
            raise SecurityError("`format` is not available in prompts")
        return None

    def call(self, context: Any, function: Any, *args: Any, **named: Any) -> Any:
        _take(getattr(function, "__self__", None))
        return super().call(context, function, *args, **named)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if not all(_is_small_number(value) for value in (left, right)):
            if operator != "+":
                raise SecurityError(f"`{operator}` takes numbers up to a million here")
            if _size(left) + _size(right) > MAX_LENGTH:
                raise SecurityError("`+` makes a text that is too long")
        elif operator == "**" and abs(right) > 64:
            raise SecurityError("`**` takes exponents up to 64 here")
        return super().call_binop(context, operator, left, right)


def _is_small_number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) <= 1_000_000


def _size(value: Any) -> int:
    return len(value) if isinstance(value, str | list | tuple | dict) else 0


def _take(value: Any) -> None:
    """Count work on `value` among the steps of the template that is being filled in."""
    steps = _current.get()
    if steps is not None:
        steps.take(1 + _size(value) // _PER_STEP)


def _counted(function: Any) -> Any:
    """The filter, its work counted."""
    at = 1 if hasattr(function, "jinja_pass_arg") else 0

    @wraps(function)
    def counted(*args: Any, **named: Any) -> Any:
        _take(args[at])
        return function(*args, **named)

    return counted


def _json(value: Any) -> str:
    return json.dumps(_present(value), ensure_ascii=False, default=str)


def _present(value: Any) -> Any:
    if isinstance(value, Undefined):
        str(value)  # raises, and says what is not there
    return value


def _shown(value: Any) -> Any:
    return value if isinstance(value, Undefined) else as_text(value)


def _join(value: Iterable[Any], separator: str = "", attribute: str | None = None) -> str:
    items = [as_text(item[attribute] if attribute is not None else item) for item in value]
    if sum(map(len, items)) + len(items) * len(separator) > MAX_LENGTH:
        raise SecurityError("join makes a text that is too long")
    return str(separator).join(items)


def _replace(value: Any, old: str, new: str, count: int = -1) -> str:
    text = as_text(value)
    if not old:
        raise SecurityError("replace needs something to look for")
    if len(text) + text.count(old) * len(new) > MAX_LENGTH:
        raise SecurityError("replace makes a text that is too long")
    return text.replace(old, new, count)


def _uses(node: nodes.Node, names: set[str]) -> bool:
    if isinstance(node, nodes.Name):
        return node.name in names
    return any(found.name in names for found in node.find_all(nodes.Name))


def _tainted(template: nodes.Template, untrusted: frozenset[str]) -> set[str]:
    """The names that hold something of the untrusted ones: those that are set from them, or run
    through them."""
    names = set(untrusted)
    steps: list[tuple[nodes.Node, nodes.Node]] = [
        *((loop.target, loop.iter) for loop in template.find_all(nodes.For)),
        *((made.target, made.node) for made in template.find_all(nodes.Assign)),
    ]
    for block in template.find_all(nodes.With):
        steps += zip(block.targets, block.values, strict=True)
    while True:
        before = len(names)
        for target, source in steps:
            if _uses(source, names):
                names |= {name.name for name in target.find_all(nodes.Name)}
                if isinstance(target, nodes.Name):
                    names.add(target.name)
        if len(names) == before:
            return names

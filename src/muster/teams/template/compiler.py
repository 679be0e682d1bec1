"""Nodes to closures.

An expression becomes `(frame, dot) -> value`, a statement `(frame, dot) -> signal`, where the
signal is `None`, or that a loop is to be left or to go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from muster.teams.template.effort import NODE, effort_of, size_of_body, size_of_value
from muster.teams.template.errors import Failure, FunctionError
from muster.teams.template.functions import FUNCTIONS, Function
from muster.teams.template.nodes import (
    Action,
    Body,
    Break,
    Call,
    Chain,
    Constant,
    Continue,
    Dot,
    Expression,
    Field,
    If,
    Invoke,
    Parsed,
    Pipeline,
    Range,
    Statement,
    Text,
    Variable,
    With,
)
from muster.teams.template.runtime import MAX_DEPTH, Frame, Sought, follow, missing
from muster.teams.template.standard import NoKey, no_key
from muster.teams.template.values import (
    Int,
    Missing,
    is_number,
    is_true,
    kind,
    show,
    sorted_items,
)

__all__ = ("Evaluate", "Execute", "compile_template")

Evaluate: TypeAlias = Callable[[Frame, Any], Any]
Execute: TypeAlias = Callable[[Frame, Any], object]

_BREAK, _CONTINUE = object(), object()


_SCALARS = frozenset({type(None), bool, int, float, Int})
"""Whose work is always the same."""


def compile_template(parsed: Parsed, source: str) -> tuple[Execute, Evaluate | None]:
    """What renders the main template; and the value of its only action, if it has but one."""
    compiler = _Compiler(parsed, source)
    main = compiler.body(parsed.main)
    for name, body in parsed.bodies.items():
        if name:
            compiler.named[name] = (compiler.body(body), parsed.slots[name], size_of_body(body))
    actions = [
        node for node in parsed.main if not (isinstance(node, Text) and not node.text.strip())
    ]
    if len(actions) == 1 and isinstance(actions[0], Action) and not actions[0].pipeline.slots:
        return main, compiler.present(actions[0].pipeline.expression)
    return main, None


class _Compiler:
    def __init__(self, parsed: Parsed, source: str) -> None:
        self.parsed = parsed
        self.source = source
        self.named: dict[str, tuple[Execute, int, int]] = {}

    def shown(self, node: Expression) -> str:
        return self.source[node.start : node.end]

    # --- statements -----------------------------------------------------------------------------

    def body(self, body: Body) -> Execute:
        statements = tuple(self.statement(node) for node in body)
        if not statements:
            return _nothing
        if len(statements) == 1:
            return statements[0]

        def execute(frame: Frame, dot: Any) -> object:
            for statement in statements:
                signal = statement(frame, dot)
                if signal is not None:
                    return signal
            return None

        return execute

    def statement(self, node: Statement) -> Execute:
        if isinstance(node, Text):
            text = node.text
            return lambda frame, dot: frame.run.write(text, 0)
        if isinstance(node, Action):
            return self.action(node)
        if isinstance(node, If):
            return self.conditional(node, moves_dot=False)
        if isinstance(node, With):
            return self.conditional(node, moves_dot=True)
        if isinstance(node, Range):
            return self.loop(node)
        if isinstance(node, Invoke):
            return self.invoke(node)
        signal = _BREAK if isinstance(node, Break) else _CONTINUE
        assert isinstance(node, Break | Continue)
        return lambda frame, dot: signal

    def action(self, node: Action) -> Execute:
        if node.pipeline.slots:
            assign = self.pipeline(node.pipeline)

            def execute(frame: Frame, dot: Any) -> object:
                assign(frame, dot)
                return None

            return execute
        evaluate = self.present(node.pipeline.expression)
        offset = node.pipeline.expression.start
        shown = self.shown(node.pipeline.expression)

        def write(frame: Frame, dot: Any) -> object:
            value = evaluate(frame, dot)
            if type(value) is not str:
                if isinstance(value, Mapping | list | tuple):
                    frame.run.charge(size_of_value(value, frame.run.steps), offset)
                value = _no_value(frame, shown, offset) if value is None else _shown(value, offset)
            frame.run.write(value, offset)
            return None

        return write

    def present(self, node: Expression) -> Evaluate:
        """The expression's value, which must not be missing."""
        evaluate = self.expression(node)

        def checked(frame: Frame, dot: Any) -> Any:
            value = evaluate(frame, dot)
            if type(value) is Missing:
                raise Failure(value.explain(), value.offset)
            return value

        return checked

    def pipeline(self, node: Pipeline) -> Evaluate:
        """The value, assigned to the pipeline's variable if it has one."""
        evaluate = self.expression(node.expression)
        if not node.slots:
            return evaluate
        slot = node.slots[0]

        def assign(frame: Frame, dot: Any) -> Any:
            value = frame.variables[slot] = evaluate(frame, dot)
            return value

        return assign

    def conditional(self, node: If | With, *, moves_dot: bool) -> Execute:
        branches = tuple(
            (self.pipeline(pipeline), self.body(body)) for pipeline, body in node.branches
        )
        otherwise = self.body(node.otherwise)

        def execute(frame: Frame, dot: Any) -> object:
            for condition, body in branches:
                value = condition(frame, dot)
                if value and type(value) is not Missing:
                    return body(frame, value if moves_dot else dot)
            return otherwise(frame, dot)

        return execute

    def loop(self, node: Range) -> Execute:
        evaluate = self.expression(node.pipeline.expression)
        slots = node.pipeline.slots
        body, otherwise = self.body(node.body), self.body(node.otherwise)
        steps, offset = size_of_body(node.body), node.start
        shown = self.shown(node.pipeline.expression)

        def execute(frame: Frame, dot: Any) -> object:
            run, variables = frame.run, frame.variables
            value = evaluate(frame, dot)
            if isinstance(value, Mapping):  # it is sorted
                run.charge(len(value) * 3 * NODE, offset)
            empty = True
            for key, item in _entries(value, shown, offset):
                empty = False
                run.iterate(steps, offset)
                if slots:
                    variables[slots[-1]] = item
                    if len(slots) == 2:
                        variables[slots[0]] = key
                if body(frame, item) is _BREAK:
                    break
            return otherwise(frame, dot) if empty else None

        return execute

    def invoke(self, node: Invoke) -> Execute:
        evaluate = self.pipeline(node.pipeline) if node.pipeline else _null
        named, name, offset = self.named, node.name, node.start

        def execute(frame: Frame, dot: Any) -> object:
            run = frame.run
            body, slots, steps = named[name]
            value = evaluate(frame, dot)
            run.iterate(steps, offset)
            if run.depth >= MAX_DEPTH:
                raise Failure(f"templates use each other more than {MAX_DEPTH} levels deep", offset)
            run.depth += 1
            body(Frame(run, value, slots), value)
            run.depth -= 1
            return None

        return execute

    # --- expressions ----------------------------------------------------------------------------

    def expression(self, node: Expression) -> Evaluate:
        if isinstance(node, Constant):
            value = node.value
            return lambda frame, dot: value
        if isinstance(node, Dot):
            return lambda frame, dot: dot
        if isinstance(node, Field):
            return self.fields(_dot, node.names, "", node.start)
        if isinstance(node, Variable):
            slot = node.slot
            if not node.names:
                return lambda frame, dot: frame.variables[slot]
            base = self.shown(node).partition(".")[0]
            base = "" if base == "$" else base
            return self.fields(
                lambda frame, dot: frame.variables[slot], node.names, base, node.start
            )
        if isinstance(node, Chain):
            shown = self.shown(node).removesuffix("." + ".".join(node.names))
            return self.fields(self.expression(node.base), node.names, shown, node.start)
        if node.name in {"and", "or"}:
            return self.shortcut(node)
        if node.name == "index":
            return self.index(node)
        return self.call(node, FUNCTIONS[node.name])

    def fields(
        self, evaluate: Evaluate, names: tuple[str, ...], base: str, offset: int
    ) -> Evaluate:
        """`evaluate`'s value, and from there along the names."""

        def look_up(frame: Frame, dot: Any) -> Any:
            start = value = evaluate(frame, dot)
            try:
                for name in names:
                    value = value[name]
            except (LookupError, TypeError):
                return follow(frame.run, start, names, base, offset)
            return value

        return look_up

    def shortcut(self, node: Call) -> Evaluate:
        """`and` and `or` evaluate no more than they need, and give the deciding value."""
        arguments = tuple(self.expression(argument) for argument in node.arguments)
        wanted = node.name == "or"

        def evaluate(frame: Frame, dot: Any) -> Any:
            value: Any = None
            for argument in arguments:
                value = argument(frame, dot)
                if is_true(value) is wanted:
                    break
            return value

        return evaluate

    def index(self, node: Call) -> Evaluate:
        """`index` gives a missing value where a path would."""
        call = self.call(node, FUNCTIONS["index"])
        path, base = self.shown(node), self.shown(node.arguments[0])
        middle = [self.shown(argument) for argument in node.arguments[1:-1]]
        container = f"index {base} {' '.join(middle)}" if middle else base
        offset = node.start

        def evaluate(frame: Frame, dot: Any) -> Any:
            try:
                return call(frame, dot)
            except NoKey as error:
                if error.is_last:
                    sought = Sought(path, container, offset)
                    return missing(frame.run, error.container, error.key, sought)
                reason = no_key(base, error.container, error.key)
                raise Failure(f"{path}: {reason}", offset) from None

        return evaluate

    def call(self, node: Call, function: Function) -> Evaluate:
        arguments = tuple(self.expression(argument) for argument in node.arguments)
        name, offset, perform = node.name, node.start, function.call
        effort = effort_of(name)
        if function.timed:
            perform = _timed(perform)

        def evaluate(frame: Frame, dot: Any) -> Any:
            values = [argument(frame, dot) for argument in arguments]
            for value in values:
                if type(value) not in _SCALARS:
                    if type(value) is Missing:
                        if not function.takes_missing:
                            raise Failure(value.explain(), value.offset)
                    elif effort is not None:
                        run = frame.run
                        run.charge(effort.of(value, run.steps), offset)
            try:
                result = perform(frame, *values) if function.timed else perform(*values)
            except NoKey:
                raise
            except FunctionError as error:
                raise Failure(f"{name}: {error}", offset) from None
            if type(result) is str:
                frame.run.charge(len(result) // 4, offset)
            return result

        return evaluate


def _timed(call: Callable[..., Any]) -> Callable[..., Any]:
    """All searches of one rendering share its seconds."""

    def perform(frame: Frame, *values: Any) -> Any:
        run = frame.run
        if run.pattern_seconds <= 0:
            raise FunctionError("the patterns take too long")
        started = time.monotonic()
        try:
            return call(*values, timeout=run.pattern_seconds)
        finally:
            run.pattern_seconds -= time.monotonic() - started

    return perform


def _nothing(_frame: Frame, _dot: Any) -> object:
    return None


def _null(_frame: Frame, _dot: Any) -> Any:
    return None


def _dot(_frame: Frame, dot: Any) -> Any:
    return dot


def _no_value(frame: Frame, shown: str, offset: int) -> str:
    """What stands for null in the output."""
    if frame.run.lenient:
        return "<no value>"
    argument = f"({shown})" if " " in shown else shown
    raise Failure(f'{shown} is null; default "…" {argument} gives it a text', offset)


def _shown(value: Any, offset: int) -> str:
    try:
        return show(value)
    except FunctionError as error:
        raise Failure(str(error), offset) from None


def _entries(value: Any, shown: str, offset: int) -> Iterable[tuple[Any, Any]]:
    """What `range` goes over, as keys and items."""
    if isinstance(value, list | tuple):
        return ((Int(index), item) for index, item in enumerate(value))
    if isinstance(value, Mapping):
        return sorted_items(value)
    if value is None:
        return ()
    if isinstance(value, Missing):
        raise Failure(value.explain(), value.offset)
    if is_number(value) and value == value // 1:
        return ((Int(index), Int(index)) for index in range(int(value)))
    hint = "; splitList or fromJson makes a list of it" if isinstance(value, str) else ""
    raise Failure(f"range goes over lists and mappings, but {shown} is {kind(value)}{hint}", offset)

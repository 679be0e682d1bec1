"""The inner half of the parser: pipelines, commands, operands."""

from __future__ import annotations

from muster.errors import nearest
from muster.teams.template import literals
from muster.teams.template.errors import Failure
from muster.teams.template.functions import FUNCTIONS
from muster.teams.template.lexer import Token, tokenize
from muster.teams.template.nodes import (
    Call,
    Chain,
    Constant,
    Dot,
    Expression,
    Field,
    Pipeline,
    Variable,
)

__all__ = ("KEYWORDS", "MAX_NESTING", "PipelineParser", "Scope")

MAX_NESTING = 40
"""Blocks within blocks, and parentheses within parentheses."""

KEYWORDS = frozenset(
    {"block", "break", "continue", "define", "else", "end", "if", "range", "template", "with"}
)

_ROOTS = frozenset({"input", "steps", "pipeline", "item", "trigger"})
"""Names at the top of the data; a word among them lacks its dot."""

_OPERANDS = frozenset(
    {"word", "field", "variable", "number", "char", "string", "raw", "dot", "open"}
)

_WORDS: dict[str, object] = {"true": True, "false": False, "nil": None}


class Scope:
    """The variables of one named template."""

    def __init__(self) -> None:
        self.names = ["$"]
        self.visible = [("$", 0)]

    def declare(self, name: str) -> int:
        self.names.append(name)
        self.visible.append((name, len(self.names) - 1))
        return len(self.names) - 1

    def slot(self, token: Token) -> int:
        for name, slot in reversed(self.visible):
            if name == token.text:
                return slot
        near = nearest(token.text, (name for name, _ in self.visible if name != "$"))
        hint = f"; did you mean {near[0]}?" if near else ""
        raise Failure(f"undefined variable {token.text}{hint}", token.start)


class PipelineParser:
    """A cursor over the tokens of `source`, and what it reads within an action."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.tokens = tokenize(source)
        self.at = 0
        self.scope = Scope()
        self.depth = 0

    # --- tokens ---------------------------------------------------------------------------------

    @property
    def token(self) -> Token:
        return self.tokens[self.at]

    def take(self) -> Token:
        token = self.tokens[self.at]
        if token.kind != "end":
            self.at += 1
        return token

    def take_if(self, kind: str, text: str | None = None) -> Token | None:
        token = self.token
        if token.kind == kind and (text is None or token.text == text):
            return self.take()
        return None

    def close_action(self, context: str) -> None:
        token = self.take()
        if token.kind != "right":
            raise Failure(f"unexpected {token.text!r} in {context}", token.start)

    def deeper(self, offset: int) -> None:
        self.depth += 1
        if self.depth > MAX_NESTING:
            raise Failure(f"nested more than {MAX_NESTING} levels deep", offset)

    # --- pipelines ------------------------------------------------------------------------------

    def pipeline(self, context: str, *, declares: bool = False, most_targets: int = 1) -> Pipeline:
        targets, is_new = self.targets(most_targets) if declares else ([], False)
        expression = self.stages(context)
        if is_new:
            return Pipeline(expression, tuple(self.scope.declare(t.text) for t in targets))
        return Pipeline(expression, tuple(self.scope.slot(target) for target in targets))

    def targets(self, most: int) -> tuple[list[Token], bool]:
        """The variables before `:=` or `=`, if there are any, and whether they are new."""
        start = self.at
        found: list[Token] = []
        while len(found) < most and self.token.kind == "variable":
            found.append(self.take())
            operator = self.take_if("declare") or self.take_if("assign")
            if operator is not None:
                dollar = next((token for token in found if token.text == "$"), None)
                if dollar is not None:
                    raise Failure("$ itself cannot be assigned", dollar.start)
                return found, operator.kind == "declare"
            if not self.take_if("comma"):
                break
        self.at = start
        return [], False

    def stages(self, context: str) -> Expression:
        """`a | f x | g`: each stage is the last argument of the next."""
        value = self.command(context, None)
        count = 1
        while pipe := self.take_if("pipe"):
            count += 1
            if count > MAX_NESTING:
                raise Failure(f"a pipeline of more than {MAX_NESTING} stages", pipe.start)
            value = self.command(context, value)
        return value

    def command(self, context: str, piped: Expression | None) -> Expression:
        first = self.token
        if first.kind not in _OPERANDS:
            if first.kind in {"right", "close", "pipe"}:
                raise Failure(f"missing value for {context}", first.start)
            raise Failure(f"unexpected {first.text!r} in {context}", first.start)
        is_function = first.kind == "word" and first.text not in {"true", "false", "nil"}
        if is_function:
            self.take()
            self.no_field_of_function(first)
            arguments = self.arguments()
            if piped is not None:
                arguments.append(piped)
            end = self.tokens[self.at - 1].end
            return self.call(first, arguments, end)
        operand = self.operand()
        if piped is not None:
            raise Failure("a value cannot be piped into what is not a function", first.start)
        if isinstance(operand, Constant) and operand.value is None:
            raise Failure("nil is not a command", first.start)
        if self.token.kind in _OPERANDS:
            shown = self.source[operand.start : operand.end]
            raise Failure(f"{shown} is not a function, so it takes no arguments", first.start)
        return operand

    def arguments(self) -> list[Expression]:
        found: list[Expression] = []
        while self.token.kind in _OPERANDS:
            if not self.token.spaced:
                raise Failure(f"a space is missing before {self.token.text}", self.token.start)
            found.append(self.operand())
        return found

    def no_field_of_function(self, word: Token) -> None:
        following = self.token
        if following.kind != "field" or following.spaced:
            return
        if word.text in FUNCTIONS:
            raise Failure(
                f"fields of a function's result need parentheses: ({word.text} …){following.text}",
                word.start,
            )
        raise Failure(self.unknown_function(word, following.text), word.start)

    def call(self, word: Token, arguments: list[Expression], end: int) -> Call:
        function = FUNCTIONS.get(word.text)
        if function is None:
            raise Failure(self.unknown_function(word), word.start)
        wrong = function.wrong_count(len(arguments))
        if wrong is not None:
            raise Failure(f"{word.text} takes {wrong}; it is given {len(arguments)}", word.start)
        return Call(word.text, tuple(arguments), word.start, end)

    def unknown_function(self, word: Token, following: str = "") -> str:
        message = f'function "{word.text}" not defined'
        if word.text in _ROOTS:
            return f"{message}; data begins with a dot: .{word.text}{following}"
        if word.text in KEYWORDS:
            return f"{message}: {word.text} is a keyword"
        near = nearest(word.text, FUNCTIONS)
        return f'{message}; did you mean "{near[0]}"?' if near else message

    def operand(self) -> Expression:
        opening = self.token
        term = self.term()
        token = self.token
        if token.kind != "field" or token.spaced:
            return term
        if opening.kind == "open":
            names = self.names()
            return Chain(term, names, opening.start, self.tokens[self.at - 1].end)
        if isinstance(term, Constant):
            raise Failure(f"unexpected {token.text} after a literal", token.start)
        names = self.names()
        end = self.tokens[self.at - 1].end
        if isinstance(term, Field):
            return Field((*term.names, *names), term.start, end)
        if isinstance(term, Variable):
            return Variable(term.slot, (*term.names, *names), term.start, end)
        raise Failure(f"unexpected {token.text}", token.start)

    def names(self) -> tuple[str, ...]:
        found: list[str] = []
        while self.token.kind == "field" and not self.token.spaced:
            found.append(self.take().text[1:])
        return tuple(found)

    def term(self) -> Expression:
        token = self.take()
        start, end = token.start, token.end
        if token.kind == "field":
            return Field((token.text[1:],), start, end)
        if token.kind == "variable":
            return Variable(self.scope.slot(token), (), start, end)
        if token.kind == "dot":
            return Dot(start, end)
        if token.kind == "word":
            if token.text in _WORDS:
                return Constant(_WORDS[token.text], start, end)
            self.no_field_of_function(token)
            return self.call(token, [], end)
        if token.kind == "open":
            return self.parenthesis(token)
        return Constant(self.literal(token), start, end)

    def parenthesis(self, opening: Token) -> Expression:
        self.deeper(opening.start)
        inner = self.stages("parentheses")
        if not self.take_if("close"):
            token = self.token
            if token.kind == "right":
                raise Failure("this parenthesis is never closed", opening.start)
            raise Failure(f"unexpected {token.text!r} in parentheses", token.start)
        self.depth -= 1
        return inner

    def text_of(self, token: Token) -> str:
        value = self.literal(token)
        return value if isinstance(value, str) else ""

    def literal(self, token: Token) -> object:
        try:
            if token.kind == "number":
                return literals.number(token.text)
            if token.kind == "char":
                return literals.character(token.text)
            if token.kind == "string":
                return literals.quoted(token.text)
        except ValueError as error:
            raise Failure(str(error), token.start) from None
        return token.text[1:-1].replace("\r", "")

"""Tokens to nodes. What the names of functions and templates mean is known here as well, so a
wrong name or a wrong number of arguments is found before anything runs."""

from __future__ import annotations

from muster.errors import nearest
from muster.teams.template.errors import Failure
from muster.teams.template.lexer import Token
from muster.teams.template.nodes import (
    Action,
    Body,
    Break,
    Continue,
    If,
    Invoke,
    Parsed,
    Pipeline,
    Range,
    Statement,
    Text,
    With,
)
from muster.teams.template.pipelines import KEYWORDS, PipelineParser, Scope

__all__ = ("parse",)


def parse(source: str) -> Parsed:
    """The nodes of `source`. Raises `Failure`."""
    return _Parser(source).parse()


class _Parser(PipelineParser):
    def __init__(self, source: str) -> None:
        super().__init__(source)
        self.loops = 0
        self.bodies: dict[str, Body] = {}
        self.slots: dict[str, int] = {}
        self.invoked: list[Invoke] = []

    # --- statements -----------------------------------------------------------------------------

    def parse(self) -> Parsed:
        body = self.body(top=True)
        ending = self.take()
        if ending.kind != "end":
            raise Failure(f"unexpected {{{{ {ending.text} }}}}: no block is open", ending.start)
        self.bodies[""] = body
        self.slots[""] = len(self.scope.names)
        for invoke in self.invoked:
            if invoke.name not in self.bodies or not invoke.name:
                known = [name for name in self.bodies if name]
                near = nearest(invoke.name, known)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise Failure(f"template {invoke.name!r} is not defined{hint}", invoke.start)
        return Parsed(self.bodies, self.slots)

    def body(self, *, top: bool = False) -> Body:
        """Statements up to an `end`, an `else` or the end of the source, which is taken next."""
        statements: list[Statement] = []
        while self.token.kind != "end":
            token = self.take()
            if token.kind == "text":
                statements.append(Text(token.text))
                continue
            if self.token.kind == "word" and self.token.text in {"end", "else"}:
                break
            statement = self.statement(top)
            if statement is not None:
                statements.append(statement)
        return tuple(statements)

    def statement(self, top: bool) -> Statement | None:
        token = self.token
        if token.kind != "word" or token.text not in KEYWORDS:
            pipeline = self.pipeline("command", declares=True)
            self.close_action("command")
            return Action(pipeline)
        self.take()
        if token.text in {"if", "with"}:
            return self.conditional(token)
        if token.text == "range":
            return self.range_loop(token)
        if token.text == "template":
            return self.invoke(token)
        if token.text == "block":
            return self.block(token)
        if token.text == "define":
            if not top:
                raise Failure("define stands only at the top of a template", token.start)
            self.define(token)
            return None
        self.close_action(token.text)
        if not self.loops:
            raise Failure(f"{{{{{token.text}}}}} outside {{{{range}}}}", token.start)
        return Break() if token.text == "break" else Continue()

    def conditional(self, opening: Token) -> If | With:
        self.deeper(opening.start)
        visible = len(self.scope.visible)
        branches = [self.branch(opening)]
        otherwise: Body = ()
        while (ending := self.take()).text == "else":
            if self.take_if("word", opening.text):
                branches.append(self.branch(opening))
                continue
            self.close_action("else")
            otherwise = self.body()
            ending = self.take()
            break
        self.end(opening, ending)
        self.depth -= 1
        del self.scope.visible[visible:]
        kind = If if opening.text == "if" else With
        return kind(tuple(branches), otherwise)

    def branch(self, opening: Token) -> tuple[Pipeline, Body]:
        pipeline = self.pipeline(opening.text, declares=True)
        self.close_action(opening.text)
        return pipeline, self.body()

    def end(self, opening: Token, ending: Token) -> None:
        """`ending` must be the `end` of what `opening` opened."""
        if ending.kind == "end":
            raise Failure(f"{{{{ {opening.text} }}}} is never closed with end", opening.start)
        if ending.text != "end":
            raise Failure("a second else", ending.start)
        self.close_action("end")

    def range_loop(self, opening: Token) -> Range:
        self.deeper(opening.start)
        visible = len(self.scope.visible)
        pipeline = self.pipeline("range", declares=True, most_targets=2)
        self.close_action("range")
        self.loops += 1
        body, ending = self.body(), self.take()
        self.loops -= 1
        otherwise: Body = ()
        if ending.text == "else":
            self.close_action("else")
            otherwise, ending = self.body(), self.take()
        self.end(opening, ending)
        self.depth -= 1
        del self.scope.visible[visible:]
        return Range(pipeline, body, otherwise, opening.start)

    def template_name(self, opening: Token) -> str:
        token = self.take()
        if token.kind not in {"string", "raw"}:
            raise Failure(f'{opening.text} takes a name in quotes: "name"', token.start)
        return self.text_of(token)

    def invoke(self, opening: Token) -> Invoke:
        name = self.template_name(opening)
        pipeline = None
        if self.token.kind != "right":
            pipeline = self.pipeline("template")
        self.close_action("template")
        invoke = Invoke(name, pipeline, opening.start)
        self.invoked.append(invoke)
        return invoke

    def block(self, opening: Token) -> Invoke:
        name = self.template_name(opening)
        pipeline = self.pipeline("block")
        self.close_action("block")
        self.named_body(opening, name)
        return Invoke(name, pipeline, opening.start)

    def define(self, opening: Token) -> None:
        name = self.template_name(opening)
        self.close_action("define")
        self.named_body(opening, name)

    def named_body(self, opening: Token, name: str) -> None:
        if not name:
            raise Failure(f"{opening.text} takes a name that is not empty", opening.start)
        self.deeper(opening.start)
        outer_scope, self.scope = self.scope, Scope()
        outer_loops, self.loops = self.loops, 0
        body, ending = self.body(), self.take()
        if ending.text == "else":
            raise Failure(f"unexpected else in {opening.text}", ending.start)
        self.end(opening, ending)
        if not _is_blank(self.bodies.get(name, ())) and not _is_blank(body):
            raise Failure(f"template {name!r} is defined twice", opening.start)
        if name not in self.bodies or not _is_blank(body):
            self.bodies[name] = body
            self.slots[name] = len(self.scope.names)
        self.scope, self.loops = outer_scope, outer_loops
        self.depth -= 1


def _is_blank(body: Body) -> bool:
    """Whether it is empty but for white space; a template so defined may be defined again."""
    return all(isinstance(node, Text) and not node.text.strip() for node in body)

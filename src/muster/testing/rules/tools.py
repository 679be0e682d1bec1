"""Rules of the tool loop."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from muster.provider import Tool
from muster.testing.outcome import Broken, NotApplicable, Rule
from muster.testing.script import Answer, Asked, Call, Reply
from muster.testing.trial import Trial, quoted, word

__all__ = ("TOOLS", "TOOLS_OF_RULES", "asking", "offers_tools")

NUMBERS = {"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "number"}}}
TOOLS_OF_RULES = (
    Tool("add", "Add two numbers.", NUMBERS),
    Tool("multiply", "Multiply two numbers.", NUMBERS),
)


def asking(tool: str, *, id: str = "call_1", **arguments: Any) -> Asked:
    """A call that the model makes."""
    return Asked(tool, arguments, id)


async def offers_tools(trial: Trial) -> None:
    """Not applicable when the service is offered no tools."""
    trial.need_calls()

    async def call_tool(name: str, arguments: Mapping[str, Any]) -> str:
        return "5"

    before = len(trial.calls)
    await trial.ask(tools=TOOLS_OF_RULES, call_tool=call_tool)
    if any(call.tools for call in trial.calls[before:]):
        return
    if trial.capabilities.tools and trial.way == "itself":
        raise Broken("it declares `tools`, but offered none to the service")
    raise NotApplicable("it offers no tools to the service")


class _Loop:
    """A tool loop: the model asks for `asked`, and says `final` once results are there.

    A provider that calls nobody can be written to do the same: the request's `eval_case_id` is
    the rule's id.
    """

    def __init__(self, trial: Trial, *asked: Asked) -> None:
        self.trial = trial
        self.asked = asked
        self.called: list[tuple[str, object]] = []
        self.final = f"The result is {word()}."
        trial.environment.script = self.script

    def script(self, call: Call) -> Answer:
        return Reply(self.final) if call.tool_results else Reply(asked=self.asked)

    async def call_tool(self, name: str, arguments: Mapping[str, Any]) -> str:
        self.called.append((name, arguments))
        return f"result of {name}"

    async def results(self, **fields: Any) -> list[tuple[str, str]]:
        """What the model was told in its second turn; the final answer must be the model's."""
        before = len(self.trial.calls)
        given = {"tools": TOOLS_OF_RULES, "call_tool": self.call_tool, **fields}
        response = await self.trial.ask("What is it?", **given)
        if not self.trial.served:
            told = [
                (str(message.tool_call_id), message.text)
                for message in response.output
                if message.role == "tool"
            ]
            if not told:
                raise NotApplicable("it calls no service, and no tool")
            return told
        turns = [call.tool_results for call in self.trial.calls[before:] if call.tool_results]
        if not turns:
            raise Broken("the model asked for a tool, and was never told a result")
        if response.text != self.final:
            raise Broken(
                f"after the tool the model said {quoted(self.final)}; the answer was "
                f"{quoted(response.text)}"
            )
        return list(turns[-1])


async def _loop(trial: Trial, *asked: Asked) -> _Loop:
    if trial.served:
        await offers_tools(trial)
    return _Loop(trial, *asked)


async def _round_trip(trial: Trial) -> str | None:
    for streamed in (False, True):
        loop = await _loop(trial, asking("add", a=2, b=3))
        results = await loop.results(**({"on_chunk": lambda text: None} if streamed else {}))
        way = "in a stream, " if streamed else ""
        if loop.called != [("add", {"a": 2, "b": 3})]:
            raise Broken(f"{way}the model asked for add(a=2, b=3); called was {loop.called}")
        if results != [("call_1", "result of add")]:
            raise Broken(
                f'{way}the result of call_1 was "result of add"; the model was told {results}'
            )
    return None


async def _parallel(trial: Trial) -> str | None:
    order = ("add", "multiply", "add")
    asked = [asking(name, id=f"call_{n}", a=n, b=n) for n, name in enumerate(order)]
    loop = await _loop(trial, *asked)

    async def call_tool(name: str, arguments: Mapping[str, Any]) -> str:
        # The first to be called is the last to be ready.
        await asyncio.sleep(0.02 * (3 - arguments["a"]))
        return f"result {arguments['a']}"

    results = await loop.results(call_tool=call_tool)
    expected = [(f"call_{n}", f"result {n}") for n in range(3)]
    if results != expected:
        raise Broken(f"three calls at once; the model was told {results}, not {expected}")
    return None


async def _failing(trial: Trial) -> str | None:
    loop = await _loop(trial, asking("add", a=1, b=1))

    async def call_tool(name: str, arguments: Mapping[str, Any]) -> str:
        raise RuntimeError("the disk is full")

    text = (await loop.results(call_tool=call_tool))[0][1]
    if not text.startswith("error:") or "the disk is full" not in text:
        raise Broken(
            f'the tool raised "the disk is full"; the model was told {quoted(text)}, not '
            '"error: the disk is full"'
        )
    return None


async def _unknown(trial: Trial) -> str | None:
    loop = await _loop(trial, asking("subtract", a=1, b=1))
    text = (await loop.results())[0][1]
    if loop.called:
        raise Broken("a tool that was not offered was called all the same")
    if not text.startswith("error:"):
        raise Broken(f'a tool that there is not; the model was told {quoted(text)}, not "error: …"')
    return None


TOOLS = (
    Rule(
        id="tool-calls-round-trip",
        title="Tool calls round-trip: arguments to the tool, its result to the model",
        why="It is what agents do.",
        mend="Offer `request.tools`, call `request.call_tool(name, arguments)` with the parsed "
        "arguments, and send the result back with the call's id; a chat model gets all of it "
        "from `ChatProvider`.",
        run=_round_trip,
    ),
    Rule(
        id="parallel-tool-calls-in-order",
        title="Results of tools that were called at once go back in the order of the calls",
        why="Models and APIs tell results apart by order or by id; both must be right.",
        mend="Run them together and keep their order, as `asyncio.gather` does.",
        run=_parallel,
    ),
    Rule(
        id="failing-tool-is-told",
        title="A tool that fails becomes `error: …` for the model",
        why="The model can try something else; the request need not fail with the tool.",
        mend="Catch what `call_tool` raises, and send `error: ` and its message as the result.",
        run=_failing,
    ),
    Rule(
        id="unknown-tool-is-told",
        title="A tool that there is not becomes `error: …` for the model, and is not called",
        why="Models invent tools.",
        mend="Compare the name with `request.tools` before calling.",
        run=_unknown,
    ),
)

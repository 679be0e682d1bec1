"""Python functions as tools."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from muster.importing import CodeError
from muster.tools.base import Toolbox, ToolFailed
from muster.tools.definitions import PythonTool
from muster.tools.python import bind_python

SOURCE = '''
import asyncio, threading, time
from dataclasses import dataclass
from typing import Literal
from muster.tools.base import ToolFailed

@dataclass
class Place:
    city: str
    zip: int = 0

def weather(city: str, days: int = 3, unit: Literal["C", "F"] = "C") -> str:
    """Tell the weather.

    For up to ten days.

    Args:
        city: Name of the city,
            in English.
        days (int): How many.

    Returns:
        A sentence.
    """
    return f"{city} {days} {unit}"

async def on(thread: bool = True, /, *, x=1): ...
async def place(where: Place, *, schema: str = "s", **more: int):
    """:param where: The place."""
    return {"zip": where.zip + 1, "schema": schema, "more": more}

def thread_name(): return threading.current_thread().name
def nothing(): return None
def raw(): return b"1234"
def whole(): return object
def refuses(): raise ToolFailed("not today")
def breaks(): return {}["key"]
def decodes(): return __import__("json").loads("")
def exits(): raise SystemExit(3)
def times_out(): raise TimeoutError("upstream")
def sleeps(): time.sleep(0.5)
async def waits(): await asyncio.sleep(30)
def untyped(a, b=2): return [a, b]
def star(*args): ...
def odd(a: "Nowhere"): ...
def strange(a: threading.Thread): ...
constant = 7
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("code")
    (path / "my_agent_tools.py").write_text(SOURCE)
    return path


def tool(folder: Path, function: str, **more: Any) -> Toolbox:
    path = f"my_agent_tools:{function}"
    return Toolbox([bind_python(PythonTool(path=path, search=folder, **more))])


async def failure(box: Toolbox, arguments: dict[str, Any]) -> str:
    with pytest.raises(ToolFailed) as caught:
        await box.call(box.tools[0].name, arguments)
    return str(caught.value)


def test_schema_from_hints_and_docstring(folder: Path) -> None:
    (made,) = tool(folder, "weather").tools
    assert (made.name, made.description) == (
        "weather",
        "Tell the weather.\n\nFor up to ten days.",
    )
    assert made.parameters == {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "Name of the city, in English."},
            "days": {"type": "integer", "default": 3, "description": "How many."},
            "unit": {"type": "string", "enum": ["C", "F"], "default": "C"},
        },
        "required": ["city"],
        "additionalProperties": False,
    }
    (named,) = tool(folder, "weather", name="w", description="Short.").tools
    assert (named.name, named.description) == ("w", "Short.")


async def test_call(folder: Path) -> None:
    box = tool(folder, "weather")
    assert await box.call("weather", {"city": "Rome"}) == "Rome 3 C"
    assert await box.call("weather", {"city": "Rome", "days": "5", "unit": "F"}) == "Rome 5 F"


async def test_arguments_of_other_types(folder: Path) -> None:
    box = tool(folder, "place")
    assert box.tools[0].parameters["properties"]["where"]["description"] == "The place."
    assert box.tools[0].parameters["additionalProperties"] is True
    result = json.loads(await box.call("place", {"where": {"city": "X", "zip": 7}, "extra": 1}))
    assert result == {"zip": 8, "schema": "s", "more": {"extra": 1}}
    assert json.loads(await tool(folder, "untyped").call("untyped", {"a": None})) == [None, 2]


async def test_wrong_arguments_are_all_told(folder: Path) -> None:
    said = await failure(tool(folder, "weather"), {"days": "many", "unit": "K", "town": "Rome"})
    assert said.startswith("wrong arguments: city is missing; days: ")
    assert "found 'many'" in said
    assert "unit: Input should be 'C' or 'F', found 'K'" in said
    assert said.endswith("there is no argument town")


@pytest.mark.parametrize(
    ("function", "result"),
    [("nothing", ""), ("raw", "[binary data, 4 bytes]"), ("whole", "<class 'object'>")],
)
async def test_results(folder: Path, function: str, result: str) -> None:
    assert await tool(folder, function).call(function, {}) == result


async def test_synchronous_functions_run_on_threads(folder: Path) -> None:
    assert await tool(folder, "thread_name").call("thread_name", {}) == "muster-tool"


@pytest.mark.parametrize(
    ("function", "told"),
    [
        ("refuses", "not today"),
        ("breaks", "my_agent_tools.py:{line}: KeyError: 'key'"),
        ("decodes", "my_agent_tools.py:{line}: JSONDecodeError: Expecting value: line 1"),
        ("exits", "my_agent_tools.py:{line}: SystemExit: 3"),
        ("times_out", "my_agent_tools.py:{line}: TimeoutError: upstream"),
    ],
)
async def test_failures_name_the_line_and_no_folder(folder: Path, function: str, told: str) -> None:
    said = await failure(tool(folder, function), {})
    defined = [f"def {function}()" in line for line in SOURCE.splitlines()]
    assert said.startswith(told.format(line=defined.index(True) + 1))


@pytest.mark.parametrize("function", ["sleeps", "waits"])
async def test_time_is_bounded(folder: Path, function: str) -> None:
    start = time.monotonic()
    said = await failure(tool(folder, function, timeout_seconds=0.1), {})
    assert said == f'the tool "{function}" took more than 0.1 s'
    assert time.monotonic() - start < 0.4


async def test_calls_run_at_the_same_time(folder: Path) -> None:
    box = tool(folder, "sleeps")
    start = time.monotonic()
    await asyncio.gather(*(box.call("sleeps", {}) for _ in range(4)))
    assert time.monotonic() - start < 1.5


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("wether", 'has no "wether" (near: weather)'),
        ("constant", '"my_agent_tools:constant" is a int, not a function'),
        ("star", 'the parameter "args" cannot be given by name'),
        ("on", 'the parameter "thread" cannot be given by name'),
        ("odd", "its parameters cannot be told: name 'Nowhere' is not defined"),
        ("strange", "the type hints make no JSON Schema"),
    ],
)
def test_what_makes_no_tool(folder: Path, function: str, message: str) -> None:
    with pytest.raises(CodeError) as caught:
        tool(folder, function)
    assert message in str(caught.value)

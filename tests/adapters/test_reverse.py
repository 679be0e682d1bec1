"""A target as a model of PydanticAI's and of Inspect's; and asked through both adapters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import muster
from muster.config.targets import load_catalog
from muster.providers import providers
from muster.targets import TargetPool
from muster.testing.environment import Environment
from muster.testing.script import Asked, Call, Reply, Status

TARGETS = """
targets:
  - name: chat
    provider: openai
    base_url: {url}/v1
    api_key: a-key
    model: gpt-4o-mini
    max_retries: 0
  - name: agent
    provider: mock
    default: {{text: from the mock}}
"""
ADD = Asked("add", {"a": 2, "b": 3}, "call_7")


def adding(call: Call) -> Reply:
    """Asks for a tool, and says what came of it."""
    if call.tool_results:
        return Reply(f"It is {call.tool_results[-1][1]}.")
    return Reply(asked=(ADD,)) if call.tools else Reply("No tool, no sum.")


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    with Environment() as found:
        (tmp_path / "targets.yaml").write_text(TARGETS.format(url=found.url), encoding="utf-8")
        monkeypatch.chdir(tmp_path)
        yield found


# --- PydanticAI ----------------------------------------------------------------------------------


async def test_pydantic_ai_agent_with_a_tool(environment: Environment) -> None:
    pytest.importorskip("pydantic_ai", reason="make test-adapters")
    from pydantic_ai import Agent

    from muster.adapters.pydantic_ai_model import MusterModel

    environment.script = adding
    model = MusterModel("chat")
    agent = Agent(model, instructions="Add with care.")

    @agent.tool_plain
    def add(a: int, b: int) -> int:
        return a + b

    result = await agent.run("2 + 3?")
    assert result.output == "It is 5."
    assert (result.usage.input_tokens, result.usage.output_tokens) == (40, 10)
    first, second = environment.calls
    assert first.tools == ("add",)
    assert first.text.startswith("Add with care.")
    assert second.tool_results == (("call_7", "5"),)
    again = await agent.run("And 2 + 3 again?", message_history=result.all_messages())
    assert again.output == "It is 5."
    await model.aclose()


async def test_pydantic_ai_streams(environment: Environment) -> None:
    pytest.importorskip("pydantic_ai", reason="make test-adapters")
    from pydantic_ai import Agent

    from muster.adapters.pydantic_ai_model import MusterModel

    environment.script = lambda call: Reply("one two three")
    model = MusterModel("chat")
    async with Agent(model).run_stream("Count.") as result:
        pieces = [piece async for piece in result.stream_text(delta=True, debounce_by=None)]
        usage = result.usage
    assert pieces == ["one ", "two ", "three"]
    assert (usage.input_tokens, usage.output_tokens) == (20, 5)
    assert environment.calls[0].stream
    await model.aclose()


async def test_pydantic_ai_gets_errors_of_its_own(environment: Environment) -> None:
    pytest.importorskip("pydantic_ai", reason="make test-adapters")
    from pydantic_ai import Agent
    from pydantic_ai.exceptions import ModelAPIError, ModelHTTPError

    from muster.adapters.pydantic_ai_model import MusterModel

    environment.script = lambda call: Status(429, "slow down", "rate_limit_error")
    model = MusterModel("chat")
    with pytest.raises(ModelHTTPError) as caught:
        await Agent(model).run("?")
    assert caught.value.status_code == 429
    with_tools = Agent(MusterModel("agent"), tools=[_nothing])
    with pytest.raises(ModelAPIError, match='"agent" is an agent with tools of its own'):
        await with_tools.run("?")
    assert (await Agent(MusterModel("agent")).run("?")).output == "from the mock"
    await model.aclose()


def _nothing() -> str:
    return ""


# --- Inspect -------------------------------------------------------------------------------------


async def test_inspect_finds_it_by_name(environment: Environment) -> None:
    pytest.importorskip("inspect_ai", reason="make test-adapters")
    from inspect_ai.model import ChatMessageSystem, ChatMessageTool, ChatMessageUser, get_model
    from inspect_ai.tool import ToolInfo, ToolParams

    environment.script = adding
    model = get_model("muster/chat", memoize=False)
    tool = ToolInfo(name="add", description="Add.", parameters=ToolParams())
    asked: list[Any] = [ChatMessageSystem(content="Be brief."), ChatMessageUser(content="2 + 3?")]
    output = await model.generate(asked, tools=[tool])
    assert output.stop_reason == "tool_calls"
    (call,) = output.message.tool_calls or ()
    assert (call.id, call.function, call.arguments) == ("call_7", "add", {"a": 2, "b": 3})
    assert output.usage is not None
    assert (output.usage.input_tokens, output.usage.output_tokens) == (20, 5)
    result = ChatMessageTool(content="5", tool_call_id="call_7", function="add")
    output = await model.generate([*asked, output.message, result], tools=[tool])
    assert output.completion == "It is 5."
    assert environment.calls[1].tool_results == (("call_7", "5"),)
    await model.api.aclose()


async def test_inspect_tells_what_it_cannot_do(environment: Environment) -> None:
    pytest.importorskip("inspect_ai", reason="make test-adapters")
    from inspect_ai.model import get_model
    from inspect_ai.tool import ToolInfo, ToolParams

    model = get_model("muster/agent", memoize=False)
    assert (await model.generate("?")).completion == "from the mock"
    tool = ToolInfo(name="add", description="Add.", parameters=ToolParams())
    with pytest.raises(Exception, match='"agent" is an agent with tools of its own'):
        await model.generate("?", tools=[tool])
    with pytest.raises(muster.UsageError, match="near: chat"):
        get_model("muster/caht", memoize=False)


async def test_there_and_back(environment: Environment, tmp_path: Path) -> None:
    """Muster asks Inspect, which asks Muster, which asks the environment."""
    pytest.importorskip("inspect_ai", reason="make test-adapters")
    environment.script = adding
    file = tmp_path / "around.json"
    around = {"name": "around", "provider": "inspect", "model": "muster/chat"}
    file.write_text(json.dumps({"targets": [around]}), encoding="utf-8")
    pool = TargetPool(load_catalog(tmp_path, explicit=file, env={}), providers)

    async def call_tool(name: str, arguments: Any) -> str:
        return str(arguments["a"] + arguments["b"])

    request = muster.ProviderRequest(
        question="2 + 3?", tools=(muster.Tool("add"),), call_tool=call_tool
    )
    response = await pool.open("around").provider.invoke(request)
    assert response.text == "It is 5."
    assert response.token_usage == muster.TokenUsage(40, 10)
    await pool.aclose()

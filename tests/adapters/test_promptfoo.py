"""Python providers of promptfoo's as targets, and targets as Python providers of promptfoo's."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path

import pytest

from muster.adapters.promptfoo_provider import call_api
from muster.errors import MusterError, UsageError
from muster.importing import CodeError
from muster.provider import (
    BadProviderOutput,
    LimitExceeded,
    Limits,
    Message,
    Provider,
    ProviderFailed,
    ProviderRequest,
    TokenUsage,
)
from muster.providers import providers
from muster.providers.create import create_provider
from muster.target import ResolvedTarget
from muster.testing.running import check_provider
from muster.testing.subject import Subject


def made(folder: Path, code: str, *, safe: bool = False, **config: object) -> Provider:
    file = folder / "own.py"
    if not file.exists() or file.read_text(encoding="utf-8") != code:
        file.write_text(code, encoding="utf-8")
    target = ResolvedTarget(
        name="own",
        provider="promptfoo",
        config={"file": "own.py", **config},
        base_dir=folder,
        safe=safe,
    )
    return create_provider(target, providers)


async def test_question_options_and_accounting(tmp_path: Path) -> None:
    code = """
def call_api(prompt, options, context):
    usage = {"total": 12, "prompt": 9, "completion": 3, "cached": 4}
    text = f"{prompt} {options['config']['mark']} {context['vars']} {context['test']}"
    return {"output": text, "tokenUsage": usage, "cost": 0.5, "finishReason": "stop"}
"""
    provider = made(tmp_path, code, options={"mark": "!"})
    request = ProviderRequest(question="Hi", eval_case_id="one", metadata={"city": "Rome"})
    response = await provider.invoke(request)
    assert response.text == "Hi ! {'city': 'Rome'} {'description': 'one'}"
    assert response.token_usage == TokenUsage(9, 3, cached=4)
    assert (response.cost_usd, response.finish_reason) == (0.5, "stop")


async def test_a_conversation_is_json(tmp_path: Path) -> None:
    code = "async def call_api(prompt, options, context):\n    return {'output': prompt}\n"
    provider = made(tmp_path, code)
    earlier = (Message("user", "One?"), Message("assistant", "One."))
    request = ProviderRequest(question="Two?", system_prompt="Count.", messages=earlier)
    assert json.loads((await provider.invoke(request)).text) == [
        {"role": "system", "content": "Count."},
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "One."},
        {"role": "user", "content": "Two?"},
    ]


@pytest.mark.parametrize(
    ("returned", "kind", "said"),
    [
        ("{'error': 'no more paper'}", ProviderFailed, "own: no more paper"),
        ("{}", BadProviderOutput, "own: returned neither `output` nor `error`"),
        ("'text'", BadProviderOutput, "own: returned str, not a mapping"),
        (
            "{'output': 'x', 'cost': float('nan')}",
            BadProviderOutput,
            "own: `cost` must be a number from 0 up, not nan",
        ),
        (
            "{'output': 'x', 'tokenUsage': {'prompt': -1, 'completion': 2}}",
            BadProviderOutput,
            "own: token usage: input must be a whole number from 0 up, not -1",
        ),
    ],
)
async def test_what_is_no_answer_is_an_error(
    tmp_path: Path, returned: str, kind: type[Exception], said: str
) -> None:
    provider = made(tmp_path, f"def call_api(prompt, options, context):\n    return {returned}\n")
    with pytest.raises(kind) as caught:
        await provider.invoke(ProviderRequest(question="?"))
    assert str(caught.value) == said


async def test_what_it_raises_names_its_line(tmp_path: Path) -> None:
    provider = made(tmp_path, "def call_api(prompt, options, context):\n    return {}['x']\n")
    with pytest.raises(ProviderFailed, match=r"own: .*own\.py:2: KeyError: 'x'"):
        await provider.invoke(ProviderRequest(question="?"))


async def test_a_total_alone_is_no_count(tmp_path: Path) -> None:
    code = "def call_api(p, o, c):\n    return {'output': 'x', 'tokenUsage': {'total': 5}}\n"
    response = await made(tmp_path, code).invoke(ProviderRequest(question="?"))
    assert response.token_usage is None


async def test_synchronous_functions_run_at_once_on_threads(tmp_path: Path) -> None:
    code = """
import threading
both = threading.Barrier(2)
def call_api(prompt, options, context):
    both.wait(10)
    return {"output": threading.current_thread().name}
"""
    provider = made(tmp_path, code)
    two = await asyncio.gather(*(provider.invoke(ProviderRequest(question="?")) for _ in "12"))
    assert {response.text for response in two} == {"own"}
    assert threading.current_thread().name != "own"


async def test_seconds_are_bounded(tmp_path: Path) -> None:
    code = """
import asyncio
async def call_api(prompt, options, context):
    await asyncio.Event().wait()
"""
    request = ProviderRequest(question="?", limits=Limits(max_seconds=0.05))
    with pytest.raises(LimitExceeded):
        await made(tmp_path, code).invoke(request)


def test_the_ways_to_name_a_function(tmp_path: Path) -> None:
    code = "def other(prompt, options, context):\n    return {'output': 'other'}\n"
    for config in (
        {"file": "file://own.py:other"},
        {"file": "python:own.py", "function": "other"},
    ):
        provider = made(tmp_path, code, **config)
        assert asyncio.run(provider.invoke(ProviderRequest(question="?"))).text == "other"


def test_mistakes_are_told(tmp_path: Path) -> None:
    code = "def call_apy(prompt, options, context):\n    return {}\n"
    with pytest.raises(CodeError, match=r'has no function "call_api" \(near: call_apy\)'):
        made(tmp_path, code)
    with pytest.raises(UsageError, match=r"file: there is no .*other\.py"):
        made(tmp_path, code, file="other.py")
    with pytest.raises(MusterError, match="--safe refuses"):
        made(tmp_path, code, safe=True)


def test_it_keeps_the_rules(tmp_path: Path) -> None:
    """With something behind it that asks the environment, in plain Python."""
    code = """
import json, urllib.error, urllib.request

def call_api(prompt, options, context):
    body = json.dumps({"prompt": prompt}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(options["config"]["url"], body, headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            data = answer.read(2**20)
    except OSError as error:
        return {"error": str(error)}
    try:
        found = json.loads(data)
        usage = found.get("token_usage")
        text = found["text"]
    except (ValueError, KeyError) as error:
        return {"error": f"no answer: {error}"}
    counts = usage and {"prompt": usage["input"], "completion": usage["output"]}
    return {"output": text, "tokenUsage": counts}
"""
    (tmp_path / "own.py").write_text(code, encoding="utf-8")
    subject = Subject(
        name="promptfoo",
        factory=lambda environment: made(tmp_path, code, options={"url": f"{environment.url}/a"}),
        way="behind",
    )
    run = check_provider(subject)
    failed = {result.rule.id: result.outcome.text for result in run.failed}
    # Nobody can stop a thread: the call ends with its answer.
    assert failed.keys() == {"cancelled-leaks-nothing"}, failed
    assert run.count("passed") >= 28


# --- the reverse ---------------------------------------------------------------------------------

TARGETS = """
targets:
  - name: canned
    provider: mock
    replies:
      - {contains: fail, error: {kind: rate_limited, message: slow down}}
    default: {text: Paris, usage: {input: 8, output: 1, cached: 2}, cost_usd: 0.25}
  - {name: echo, provider: echo}
"""


@pytest.fixture
def config(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "targets.yaml").write_text(TARGETS, encoding="utf-8")
    return {"basePath": str(tmp_path), "target": "canned"}


def test_an_answer_in_promptfoos_words(config: dict[str, str]) -> None:
    assert call_api("The capital of France?", {"config": config}, {}) == {
        "output": "Paris",
        "tokenUsage": {"total": 9, "prompt": 8, "completion": 1, "cached": 2},
        "cost": 0.25,
        "finishReason": "stop",
        "metadata": {},
    }


def test_errors_are_promptfoos(config: dict[str, str]) -> None:
    config["target"] = "canne"
    said = call_api("?", {"config": config}, {})["error"]
    assert said.startswith('target "canne" not found')
    assert "near: canned" in said
    assert call_api("?", {"config": {"targte": "x"}})["error"].startswith('unknown config "targte"')
    assert (
        call_api("?", {})["error"] == "config needs `target`, the name of a target of targets.yaml"
    )


def test_a_chat_prompt_is_a_conversation(config: dict[str, str]) -> None:
    config["target"] = "echo"
    rows = [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}]
    assert call_api(json.dumps(rows), {"config": config}, {})["output"] == "Q"
    # What only looks like a conversation is a question.
    assert call_api("[1, 2]", {"config": config}, {})["output"] == "[1, 2]"


def test_it_is_called_within_a_running_loop_and_from_threads(config: dict[str, str]) -> None:
    async def within() -> str:
        return str(call_api("Q", {"config": config}, {})["output"])

    assert asyncio.run(within()) == asyncio.run(within()) == "Paris"

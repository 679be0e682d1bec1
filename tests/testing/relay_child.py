"""A child of `provider: stdio` that has a model behind it: the environment's Chat Completions."""

import asyncio
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "stdio" / "python"))

from muster_stdio import ProviderError, serve

URL = os.environ["ENVIRONMENT_URL"]


async def answer(call):
    messages, tools = conversation(call.params), call.params.get("tools") or []
    body = {"messages": messages, "tools": [{"type": "function", "function": t} for t in tools]}
    body["max_tokens"] = (call.params.get("limits") or {}).get("max_output_tokens")
    total, known = {"input": 0, "output": 0}, True
    for _ in range((call.params.get("limits") or {}).get("max_turns") or 50):
        check_budget(call.params, total)
        said = await completed(body)
        message, usage = said["choices"][0]["message"], said.get("usage")
        known = known and usage is not None
        if usage is not None:
            total["input"] += usage["prompt_tokens"]
            total["output"] += usage["completion_tokens"]
        if not message.get("tool_calls"):
            text = message["content"]
            for piece in (text[: len(text) // 2], text[len(text) // 2 :]):
                call.chunk(piece)
            return {"text": text, **({"token_usage": total} if known else {})}
        messages.append(message)
        messages += await asyncio.gather(*(result(call, asked) for asked in message["tool_calls"]))
    raise ProviderError("the turns are used up", "limit_exceeded")


def conversation(params):
    system = "\n".join(params[name] for name in ("system_prompt", "guidelines") if name in params)
    files = "".join(Path(path).read_text() for path in params.get("input_files") or ())
    earlier = [{"role": m["role"], "content": m["content"]} for m in params.get("messages") or ()]
    return [
        *([{"role": "system", "content": system}] if system else []),
        *earlier,
        {"role": "user", "content": files + params["question"]},
    ]


def check_budget(params, used):
    budget = (params.get("limits") or {}).get("max_total_tokens")
    if budget is not None and used["input"] + used["output"] >= budget:
        raise ProviderError("the tokens are used up", "budget_exceeded")


async def result(call, asked):
    function = asked["function"]
    output = await call.tool(function["name"], json.loads(function["arguments"]))
    return {"role": "tool", "tool_call_id": asked["id"], "content": output}


async def completed(body):
    data = json.dumps(body).encode()
    host, _, port = URL.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(data)}"
        writer.write(head.encode() + b"\r\nContent-Type: application/json\r\n\r\n" + data)
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.partition(b":")[2])
            for line in head.lower().split(b"\r\n")
            if line.startswith(b"content-length:")
        )
        answer = await reader.readexactly(length)
    finally:
        writer.close()
    status = int(head.split(b" ", 2)[1])
    if status != 200:
        raise ProviderError(f"HTTP {status}", "provider_unavailable", status=status)
    return json.loads(answer)


serve(answer, name="relay_child", capabilities={"streaming": True, "tools": True})

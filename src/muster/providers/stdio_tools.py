"""What a child wants of the one who asked: a tool called, a piece of the answer heard."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from muster.importing import describe_failure
from muster.provider import (
    BudgetExceeded,
    ProviderError,
    ProviderFailed,
    ProviderRequest,
    ToolCall,
)
from muster.providers.chat import refused_call

__all__ = ("called", "heard")


def heard(request: ProviderRequest, text: str) -> None:
    """Hand on a piece of the answer. What the listener raises is a `ProviderError`."""
    assert request.on_chunk is not None
    try:
        request.on_chunk(text)
    except ProviderError:
        raise
    except Exception as error:
        raise ProviderFailed(f"on_chunk: {describe_failure(error)}") from error


async def called(request: ProviderRequest, name: str, arguments: object) -> ToolCall:
    """The call with what came of it; failures are `error: …`, as the tool loop tells them.

    Raises:
        BudgetExceeded: the tool has used up the budget, so the request must end.
    """
    begun = time.perf_counter()
    status = "error"
    try:
        output = await _output(request, name, arguments)
        status = "ok"
    except BudgetExceeded:
        raise
    except TimeoutError as error:
        status, output = "timeout", f"error: {str(error) or 'the tool took too long'}"
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # The tool cancelled itself; nobody asked this request to stop.
        status, output = "cancelled", "error: the tool was cancelled"
    except Exception as error:
        output = f"error: {str(error) or type(error).__name__}"
    took = round((time.perf_counter() - begun) * 1e3, 3)
    return ToolCall(name, arguments, output=output, status=status, duration_ms=took)


async def _output(request: ProviderRequest, name: str, arguments: Any) -> str:
    if request.call_tool is None:
        raise ValueError("this request has no tools")
    if request.watch is None:  # else it refuses them itself
        refusal = refused_call(name, arguments, request.tools)
        if refusal is not None:
            raise ValueError(refusal)
    output: object = await request.call_tool(name, arguments)
    return output if isinstance(output, str) else json.dumps(output, default=str)

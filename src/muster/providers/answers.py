"""What a function or a file answers with, as a `ProviderResponse`.

| value | becomes |
| --- | --- |
| `ProviderResponse` | itself |
| text | one assistant message |
| `Message`, a mapping with `role`, a list of these | the messages of the answer |
| a mapping with `text`, `output` or `error` | an answer with its accounting (`token_usage`, …) |
| any other mapping or list | one assistant message: that value as JSON |
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from muster.errors import nearest
from muster.provider import (
    BadProviderOutput,
    Message,
    ProviderFailed,
    ProviderResponse,
    TokenUsage,
)

__all__ = ("as_response", "check_accounting", "is_amount")

ACCOUNTING = (
    "token_usage",
    "cost_usd",
    "duration_ms",
    "raw",
    "finish_reason",
    "model",
)
ANSWER = ("output", "text", "error")
_AMOUNTS = ("cost_usd", "duration_ms")


def is_amount(value: object) -> bool:
    """True for numbers from 0 up; NaN and infinity would spoil every sum that they get into."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def as_response(value: object, who: str) -> ProviderResponse:
    """`value` as a response; `who` begins the messages of errors.

    Raises:
        BadProviderOutput: it is nothing that can be an answer; a retry is not offered, because the
            code would do the same again.
        ProviderFailed: the value is a mapping with an `error`.
    """
    if isinstance(value, ProviderResponse):
        check_accounting(value.token_usage, value.cost_usd, who, duration_ms=value.duration_ms)
        return value
    if isinstance(value, str | Message):
        return ProviderResponse(value)
    try:
        if isinstance(value, Mapping):
            return _from_mapping(value, who)
        if isinstance(value, list | tuple):
            if value and all(_is_message(item) for item in value):
                return ProviderResponse(value)
            return _json_answer(list(value))
    except (TypeError, ValueError) as error:
        raise _bad(f"{who}: {error}") from error
    raise _bad(
        f"{who}: answered with {_described(value)}; expected text, a ProviderResponse, a Message, "
        "a mapping or a list"
    )


def check_accounting(
    usage: TokenUsage | None, cost_usd: float | None, who: str, *, duration_ms: float | None = None
) -> None:
    """Refuse what would spoil every sum that it gets into: NaN, numbers below 0, what is none.

    Raises:
        BadProviderOutput: naming the first of them.
    """
    for name, amount in (("cost_usd", cost_usd), ("duration_ms", duration_ms)):
        if amount is not None and not is_amount(amount):
            raise _bad(f"{who}: {_wrong_amount(name, amount)}")
    if usage is None:
        return
    if not isinstance(usage, TokenUsage):
        raise _bad(f"{who}: `token_usage` must be a TokenUsage, not {_described(usage)}")
    for count in (usage.input, usage.output, usage.cached, usage.reasoning):
        if count is not None and (type(count) is not int or count < 0):
            try:
                TokenUsage.from_mapping(usage.to_dict())
            except ValueError as error:
                raise _bad(f"{who}: {error}") from None


def _from_mapping(value: Mapping[Any, Any], who: str) -> ProviderResponse:
    if "role" in value:
        return ProviderResponse(Message.from_mapping(value))
    if not any(name in value for name in ANSWER):
        return _json_answer(dict(value))
    unknown = [str(name) for name in value if name not in ANSWER and name not in ACCOUNTING]
    if unknown:
        known = (*ANSWER, *ACCOUNTING)
        near = nearest(unknown[0], known)
        hint = f'did you mean "{near[0]}"?' if near else f"known: {', '.join(known)}"
        raise ValueError(f'the answer has the unknown field "{unknown[0]}" ({hint})')
    error = value.get("error")
    accounting = {name: value[name] for name in ACCOUNTING if value.get(name) is not None}
    for name in _AMOUNTS:
        amount = accounting.get(name, 0)
        if not is_amount(amount):
            raise ValueError(_wrong_amount(name, amount))
    answer = value.get("output")
    if answer is None:
        answer = value.get("text")
    if isinstance(answer, Mapping) and "role" not in answer:
        answer = _json_answer(dict(answer)).output
    elif isinstance(answer, Mapping):
        answer = [answer]
    response = ProviderResponse("" if answer is None else answer, **accounting)
    if error:
        raise ProviderFailed(
            f"{who}: {error if isinstance(error, str) else json.dumps(error, default=str)}",
            token_usage=response.token_usage,
            cost_usd=response.cost_usd,
        )
    if answer is None:
        raise ValueError("the answer has neither `output` nor `text`")
    return response


def _wrong_amount(name: str, amount: object) -> str:
    return f"`{name}` must be a number from 0 up, not {amount!r}"


def _json_answer(value: Any) -> ProviderResponse:
    # What cannot be written down is no answer: better said now than in a report. A list within a
    # message would be taken for its parts.
    text = json.dumps(value, ensure_ascii=False)
    return ProviderResponse((Message("assistant", value if isinstance(value, dict) else text),))


def _is_message(item: object) -> bool:
    return isinstance(item, Message) or (isinstance(item, Mapping) and "role" in item)


def _bad(message: str) -> BadProviderOutput:
    return BadProviderOutput(message, retryable=False)


def _described(value: object) -> str:
    if value is None:
        return "None"
    shown = repr(value)
    return f"{type(value).__name__} ({shown if len(shown) <= 60 else shown[:57] + '…'})"

"""What an HTTP status, or an error object inside an answer, means: one table for all providers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from muster.provider import (
    AuthenticationFailed,
    BadProviderOutput,
    BadRequest,
    ProviderError,
    ProviderTimeout,
    ProviderUnavailable,
    QuotaExhausted,
    RateLimited,
)

__all__ = ("error_for_payload", "error_for_status", "excerpt", "origin_of")

EXCERPT = 300
"""Characters of the server's own words that go into a message."""

QUOTA_CODES = frozenset(
    {
        "insufficient_quota",
        "billing_error",
        "billing_hard_limit_reached",
        "billing_not_active",
        "insufficient_balance",
        "insufficient_credits",
        "credit_balance_too_low",
        "payment_required",
    }
)
# Some servers give no code of their own for it. "You exceeded your current quota" is not among
# these: Gemini says so of a limit per minute.
QUOTA_WORDS = re.compile(
    r"insufficient[ _](?:quota|balance|credit|funds)|credit balance is too low|out of credits|"
    r"billing (?:hard limit|is not active)|requires? more credits",
    re.IGNORECASE,
)

# What error objects call themselves (`type` or `code`), as the status the server would have used.
STATUS_OF_TYPE: Mapping[str, int] = {
    "invalid_request_error": 400,
    "invalid_request": 400,
    "invalid_prompt": 400,
    "context_length_exceeded": 400,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "model_not_found": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "too_many_requests": 429,
    "insufficient_quota": 429,
    "api_error": 500,
    "server_error": 500,
    "internal_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}


def error_for_status(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    who: str,
    secrets: Iterable[str] = (),
) -> ProviderError:
    """The error that an answer with this `status` (not 2xx) means, ready to be raised.

    `who` begins the message, e.g. the target's name. `secrets` are masked should the server repeat
    them. `retry_after` is in seconds, from `Retry-After` or `retry-after-ms`.
    """
    data = _json_or_none(body)
    codes, words = _codes_and_words(data)
    said = _mask(excerpt(words) if words else _summary(headers, body), secrets)
    if 300 <= status < 400:
        place = origin_of(headers.get("Location", "")) or "another place"
        return BadRequest(
            f"{who}: HTTP {status}: redirected to {place}, which is not followed", status=status
        )
    message = f"{who}: HTTP {status}" + (f": {said}" if said else "")
    kind = _kind_of(status)
    out_of_quota = not QUOTA_CODES.isdisjoint(codes) or QUOTA_WORDS.search(words)
    if status == 402 or (status in (400, 403, 429) and out_of_quota):
        kind = QuotaExhausted
    after = None
    if kind in (RateLimited, ProviderUnavailable, ProviderTimeout):
        after = _retry_after(headers)
    return kind(message, status=status, retry_after=after)


def error_for_payload(error: Any, *, who: str, secrets: Iterable[str] = ()) -> ProviderError:
    """The error that an error object inside a 200 answer or a stream means.

    `error` is the object as decoded: `{"type", "code", "message"}`, or a string.
    """
    codes, words = _codes_and_words({"error": error})
    status = next((STATUS_OF_TYPE[code] for code in codes if code in STATUS_OF_TYPE), None)
    if status is None:
        status = next((int(code) for code in codes if re.fullmatch("[45]\\d\\d", code)), 500)
    body = json.dumps({"error": error}, default=str).encode()
    found = error_for_status(status, {}, body, who=who, secrets=secrets)
    said = _mask(excerpt(words), secrets) or ", ".join(codes) or "no reason given"
    kind = next((code for code in codes if code in STATUS_OF_TYPE), "error")
    return type(found)(f"{who}: the server broke off with {kind}: {said}", status=status)


def excerpt(text: str) -> str:
    """The first `EXCERPT` characters, on one line."""
    text = " ".join(text.split())
    return text if len(text) <= EXCERPT else text[: EXCERPT - 1] + "…"


def origin_of(url: str) -> str:
    """`scheme://host[:port]`, with no user, path or query, any of which may carry a secret."""
    try:
        parts = urlsplit(str(url))
        port = parts.port
    except ValueError:
        return "the URL"
    if not parts.scheme or not parts.hostname:
        return "" if not parts.netloc else "the URL"
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{port}" if port else "")


def _kind_of(status: int) -> type[ProviderError]:
    if status in (401, 403):
        return AuthenticationFailed
    if status in (408, 504):
        return ProviderTimeout
    if status == 429:
        return RateLimited
    if status in (409, 425) or status >= 500:
        return ProviderUnavailable
    return BadRequest if 400 <= status < 500 else BadProviderOutput


def _json_or_none(body: bytes) -> Any:
    if len(body) > 2**20:
        return None
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _codes_and_words(data: Any) -> tuple[list[str], str]:
    """The codes and the message of an error body, in the shapes that servers use."""
    if isinstance(data, list) and data:
        data = data[0]
    if isinstance(data, str):
        return [], data
    if not isinstance(data, Mapping):
        return [], ""
    inner = data.get("error")
    if isinstance(inner, Mapping):
        data = inner
    elif isinstance(inner, str):
        return [], inner
    codes = [str(data[key]) for key in ("code", "type", "status") if data.get(key) is not None]
    for key in ("message", "detail", "error_description", "title"):
        words = data.get(key)
        if words:
            return codes, words if isinstance(words, str) else json.dumps(words, default=str)
    return codes, ""


def _summary(headers: Mapping[str, str], body: bytes) -> str:
    """What can be said of a body that has no message in it."""
    start = body[:4096].decode("utf-8", "replace").strip()
    if "html" in headers.get("Content-Type", "").lower() or start[:15].lower().startswith(
        ("<!doctype", "<html")
    ):
        title = re.search(r"<title[^>]*>([^<]*)", start, re.IGNORECASE)
        return "an HTML page" + (f" (“{excerpt(title[1])}”)" if title and title[1].strip() else "")
    return excerpt(start)


def _mask(text: str, secrets: Iterable[str]) -> str:
    for secret in secrets:
        if secret:
            text = text.replace(str(secret), "**********")
    return text


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait: `retry-after-ms`, or `Retry-After` in seconds or as an HTTP date."""
    for name, scale in (("retry-after-ms", 1000.0), ("Retry-After", 1.0)):
        text = headers.get(name)
        if text is None:
            continue
        try:
            seconds = float(text) / scale
        except ValueError:
            seconds = _seconds_until(text) if scale == 1.0 else -1.0
        if 0 <= seconds < float("inf"):
            return seconds
    return None


def _seconds_until(date: str) -> float:
    """Seconds until an HTTP date, 0 when it is past; -1 when it is not a date."""
    from datetime import UTC, datetime
    from email.utils import parsedate_to_datetime

    try:
        moment = parsedate_to_datetime(date)
    except ValueError:
        return -1.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())

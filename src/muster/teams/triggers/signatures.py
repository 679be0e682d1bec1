"""Whether a webhook's body comes from who has the key."""

from __future__ import annotations

import hashlib
import hmac
import re

from muster.teams.definition import Signature

__all__ = ("header_of", "is_signed", "same_secret", "signed_at")

_HEADERS = {"github": "X-Hub-Signature-256", "stripe": "Stripe-Signature"}


def header_of(signature: Signature) -> str:
    """The header in which the signature stands."""
    return _HEADERS[signature.scheme]


def same_secret(given: str, wanted: str) -> bool:
    """Compared in a time that does not depend on where they differ."""
    return hmac.compare_digest(
        given.encode("utf-8", "surrogatepass"), wanted.encode("utf-8", "surrogatepass")
    )


def is_signed(signature: Signature, given: str, body: bytes, now: float) -> bool:
    """Whether `given`, the header's text, signs the body; of `stripe`, not too long ago."""
    if not signature.key:
        return False
    if signature.scheme == "github":
        wanted = _hex(signature.key, body)
        return given.startswith("sha256=") and same_secret(given.removeprefix("sha256="), wanted)
    moment = signed_at(given)
    if moment is None or abs(now - int(moment)) > signature.tolerance_seconds:
        return False
    wanted = _hex(signature.key, moment.encode() + b"." + body)
    return any(same_secret(value, wanted) for name, value in _parts(given) if name == "v1")


def signed_at(given: str) -> str | None:
    """The time in a header of `stripe`, as it was signed; `None` if there is not just one."""
    times = [value for name, value in _parts(given) if name == "t"]
    if len(times) != 1 or re.fullmatch(r"\d{1,12}", times[0], re.ASCII) is None:
        return None
    return times[0]


def _parts(given: str) -> list[tuple[str, str]]:
    cut = [part.strip().partition("=") for part in given.split(",")]
    return [(name, value) for name, _, value in cut]


def _hex(key: str, data: bytes) -> str:
    return hmac.new(key.encode(), data, hashlib.sha256).hexdigest()

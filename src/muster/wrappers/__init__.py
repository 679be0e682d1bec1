"""What can stand around any provider: each a `Provider -> Provider`, in a class of its own.

From the outside in, as `muster.targets` puts them (those with nothing to do are left out):

    Fallback          another target when all tries failed
    CapabilityCheck   refuses what the target says that it does not have
    Retry             tries again; holds no place in a limit while it waits
    RateLimit         requests and tokens a minute
    ConcurrencyLimit  calls at a time; or AdaptiveLimit, which finds out how many
    Timeout           bounds one try
"""

from __future__ import annotations

from muster.wrappers.adaptive import AdaptiveLimit
from muster.wrappers.capability import CapabilityCheck
from muster.wrappers.fallback import Fallback
from muster.wrappers.limit import ConcurrencyLimit
from muster.wrappers.rate import RateLimit
from muster.wrappers.retry import Retry
from muster.wrappers.timeout import Timeout

__all__ = (
    "AdaptiveLimit",
    "CapabilityCheck",
    "ConcurrencyLimit",
    "Fallback",
    "RateLimit",
    "Retry",
    "Timeout",
)

"""Muster: one socket for every model, agent, command and service.

`register` makes a provider known by name, as a call or as a decorator; `evaluate` measures a
target on a suite, `aevaluate` is its awaitable form; `open_target` gives a target to ask.
Everything is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from muster.api import Evaluation as Evaluation
    from muster.api import aevaluate as aevaluate
    from muster.api import evaluate as evaluate
    from muster.api import register as register
    from muster.api import register_grader as register_grader
    from muster.api import register_queue as register_queue
    from muster.errors import ConfigError as ConfigError
    from muster.errors import MusterError as MusterError
    from muster.errors import UsageError as UsageError
    from muster.evals.case import Case as Case
    from muster.evals.graders.base import Assertion as Assertion
    from muster.evals.graders.base import GradeContext as GradeContext
    from muster.evals.graders.base import GraderError as GraderError
    from muster.evals.graders.base import GraderSpec as GraderSpec
    from muster.evals.graders.base import Score as Score
    from muster.evals.results import CaseResult as CaseResult
    from muster.provider import AuthenticationFailed as AuthenticationFailed
    from muster.provider import BadProviderOutput as BadProviderOutput
    from muster.provider import BadRequest as BadRequest
    from muster.provider import BudgetExceeded as BudgetExceeded
    from muster.provider import CallTool as CallTool
    from muster.provider import FilePart as FilePart
    from muster.provider import ImagePart as ImagePart
    from muster.provider import LimitExceeded as LimitExceeded
    from muster.provider import Limits as Limits
    from muster.provider import Message as Message
    from muster.provider import Provider as Provider
    from muster.provider import ProviderError as ProviderError
    from muster.provider import ProviderFailed as ProviderFailed
    from muster.provider import ProviderRequest as ProviderRequest
    from muster.provider import ProviderResponse as ProviderResponse
    from muster.provider import ProviderTimeout as ProviderTimeout
    from muster.provider import ProviderUnavailable as ProviderUnavailable
    from muster.provider import QuotaExhausted as QuotaExhausted
    from muster.provider import RateLimited as RateLimited
    from muster.provider import TextPart as TextPart
    from muster.provider import TokenUsage as TokenUsage
    from muster.provider import Tool as Tool
    from muster.provider import ToolCall as ToolCall
    from muster.providers.chat import ChatModel as ChatModel
    from muster.providers.chat import ChatProvider as ChatProvider
    from muster.providers.chat import ChatReply as ChatReply
    from muster.providers.chat import ChatTurn as ChatTurn
    from muster.target import ResolvedTarget as ResolvedTarget
    from muster.targets import Target as Target
    from muster.targets import open_target as open_target
    from muster.tools.artifacts import artifact_dir as artifact_dir

__version__ = "0.1.0"

_HOMES = {
    "muster.api": (
        "Evaluation",
        "aevaluate",
        "evaluate",
        "register",
        "register_grader",
        "register_queue",
    ),
    "muster.errors": ("ConfigError", "MusterError", "UsageError"),
    "muster.evals.case": ("Case",),
    "muster.evals.graders.base": (
        "Assertion",
        "GradeContext",
        "GraderError",
        "GraderSpec",
        "Score",
    ),
    "muster.evals.results": ("CaseResult",),
    "muster.provider": (
        "AuthenticationFailed",
        "BadProviderOutput",
        "BadRequest",
        "BudgetExceeded",
        "CallTool",
        "FilePart",
        "ImagePart",
        "LimitExceeded",
        "Limits",
        "Message",
        "Provider",
        "ProviderError",
        "ProviderFailed",
        "ProviderRequest",
        "ProviderResponse",
        "ProviderTimeout",
        "ProviderUnavailable",
        "QuotaExhausted",
        "RateLimited",
        "TextPart",
        "TokenUsage",
        "Tool",
        "ToolCall",
    ),
    "muster.providers.chat": ("ChatModel", "ChatProvider", "ChatReply", "ChatTurn"),
    "muster.target": ("ResolvedTarget",),
    "muster.targets": ("Target", "open_target"),
    "muster.tools.artifacts": ("artifact_dir",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = (  # noqa: PLE0604 - the names are strings
    "__version__",
    *sorted(_HOME_OF),
)


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'muster' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})

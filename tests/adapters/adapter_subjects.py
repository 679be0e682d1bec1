"""The adapters as subjects of the conformance suite, each with the rules that its library breaks.

The libraries are extras; `make test-adapters` installs them. `at_PORT` of the modules that
`objects()` makes is an agent or a chain that asks the environment at that port.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from muster.provider import Provider
from muster.providers import providers
from muster.providers.create import create_provider
from muster.target import ResolvedTarget, Secret
from muster.testing.environment import Environment
from muster.testing.subject import Subject

MODEL = "gpt-4o-mini"
HUGE = {"huge-body": "the library's HTTP client reads an answer to its end, however long"}
GROWING = {"usage-monotonic": "the library adds up counts that a stream reports as it grows"}
OWNER = {
    "aclose-closes": "the connections belong to the object that was given",
    "second-event-loop": "the object's connections belong to the event loop that made them",
}
TURNS = frozenset(
    {
        "rate-limited-with-retry-after",
        "rate-limited-without-retry-after",
        "server-error-500",
        "unavailable-503",
        "key-refused-401",
        "bad-request-400",
        "quota-spent",
        "connection-refused",
        "connection-reset",
        "service-stalls",
        "cut-amid-answer",
        "stream-ends-early",
        "error-event-in-stream",
        "invalid-json",
    }
)
"""The rules about types of errors, which hold for agents that call the service by HTTP too."""

LLM = {
    "usage-absent-when-unknown": "the plug-in fails on an answer without counts",
    "aclose-closes": "the plug-in leaves its connections to the garbage collector",
    "cancelled-leaks-nothing": "connections go with the garbage collector, threads at their end",
    "no-hidden-retries": "the plug-in's client tries three times",
    "rate-limited-with-retry-after": "the plug-in's client waits as long as it is told to",
}


def model(provider: str, name: str) -> Callable[[Environment], Provider]:
    """A kind whose target names a model and a base URL."""

    def make(environment: Environment) -> Provider:
        config: dict[str, Any] = {
            "base_url": f"{environment.url}/v1",
            "api_key": Secret(environment.key),
            "model": name,
        }
        if environment.read_timeout is not None:
            config["read_timeout_seconds"] = environment.read_timeout
        return made(provider, config)

    return make


def own(
    provider: str, setting: str, build: Callable[..., Any]
) -> Callable[[Environment], Provider]:
    """A kind whose target names an object of the user's."""
    module = ModuleType(f"objects_of_{provider.replace('-', '_')}_{build.__name__}")
    sys.modules[module.__name__] = module

    def make(environment: Environment) -> Provider:
        name = f"at_{environment.url.rpartition(':')[2]}"
        timeout = environment.read_timeout or 10.0
        setattr(module, name, build(f"{environment.url}/v1", environment.key, timeout))
        return made(provider, {setting: f"{module.__name__}:{name}"})

    return make


def made(provider: str, config: dict[str, Any]) -> Provider:
    here = Path(__file__).parent
    target = ResolvedTarget(name=provider, provider=provider, config=config, base_dir=here)
    return create_provider(target, providers)


def client(url: str, key: str, timeout: float) -> Any:
    from openai import AsyncOpenAI

    return AsyncOpenAI(base_url=url, api_key=key, max_retries=0, timeout=timeout)


def pydantic_agent(url: str, key: str, timeout: float) -> Any:
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    provider = OpenAIProvider(openai_client=client(url, key, timeout))
    return Agent(OpenAIChatModel(MODEL, provider=provider))


def openai_agent(url: str, key: str, timeout: float) -> Any:
    from agents import Agent, OpenAIChatCompletionsModel

    asked = OpenAIChatCompletionsModel(MODEL, client(url, key, timeout))
    return Agent(name="answering", model=asked)


def chat_model(url: str, key: str, timeout: float) -> Any:
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(
        model=MODEL, base_url=url, api_key=key, max_retries=0, timeout=timeout, stream_usage=True
    )


def chain(url: str, key: str, timeout: float) -> Any:
    from langchain_core.output_parsers import StrOutputParser

    return chat_model(url, key, timeout) | StrOutputParser()


class LLMModels:
    """A plug-in of `llm`'s with a model for each environment."""

    def __init__(self, *, awaits: bool) -> None:
        import llm
        from llm.plugins import pm

        self.environments: list[str] = []
        self.awaits = awaits
        llm.get_models()  # the other plug-ins come first
        pm.register(self)

    def __call__(self, environment: Environment) -> Provider:
        self.environments.append(environment.url)
        config = {"model": self._name(environment.url), "api_key": Secret(environment.key)}
        return made("llm", config)

    def _name(self, url: str) -> str:
        return f"{'awaiting' if self.awaits else 'waiting'}-{url.rpartition(':')[2]}"

    def register_models(self, register: Any) -> None:
        from llm.default_plugins.openai_models import AsyncChat, Chat

        for url in self.environments:
            known = {"model_name": MODEL, "api_base": f"{url}/v1", "supports_tools": True}
            name = self._name(url)
            register(Chat(name, **known), AsyncChat(name, **known) if self.awaits else None)


def llm_models(*, awaits: bool) -> LLMModels:
    from llm import hookimpl

    LLMModels.register_models = hookimpl(LLMModels.register_models)  # type: ignore[method-assign]
    return LLMModels(awaits=awaits)


Made = Callable[[], Subject]

KINDS: dict[str, tuple[str, Made, dict[str, str]]] = {
    "litellm": (
        "litellm",
        lambda: Subject(
            name="litellm", factory=model("litellm", f"openai/{MODEL}"), price_as="openai"
        ),
        HUGE | {"aclose-closes": "LiteLLM keeps its connections for the whole process"},
    ),
    "pydantic-ai, a model": (
        "pydantic_ai",
        lambda: Subject(
            name="pydantic-ai",
            factory=model("pydantic-ai", f"openai-chat:{MODEL}"),
            price_as="openai",
        ),
        HUGE | GROWING,
    ),
    "pydantic-ai, an agent": (
        "pydantic_ai",
        lambda: Subject(
            name="agent", factory=own("pydantic-ai", "agent", pydantic_agent), way="behind"
        ),
        HUGE
        | GROWING
        | OWNER
        | {"unknown-tool-is-told": "the library tells the model so in words of its own"},
    ),
    "openai-agents": (
        "agents",
        lambda: Subject(
            name="agent",
            factory=own("openai-agents", "agent", openai_agent),
            way="behind",
            price_as="openai",
        ),
        HUGE
        | OWNER
        | {"cost-agrees": "the SDK does not say which model answered: the one asked is priced"},
    ),
    "langchain, a chat model": (
        "langchain_openai",
        lambda: Subject(
            name="langchain",
            factory=own("langchain", "runnable", chat_model),
            way="behind",
            price_as="openai",
        ),
        HUGE | GROWING | OWNER,
    ),
    "langchain, a chain": (
        "langchain_openai",
        lambda: Subject(
            name="chain",
            factory=own("langchain", "runnable", chain),
            way="behind",
            price_as="openai",
        ),
        HUGE | GROWING | OWNER,
    ),
    "inspect": (
        "inspect_ai",
        lambda: Subject(
            name="inspect", factory=model("inspect", f"openai/{MODEL}"), price_as="openai"
        ),
        HUGE,
    ),
    "llm, an asynchronous model": (
        "llm",
        lambda: Subject(
            name="llm", factory=llm_models(awaits=True), way="itself", price_as="openai"
        ),
        HUGE | LLM,
    ),
    "llm, a synchronous model": (
        "llm",
        lambda: Subject(
            name="llm", factory=llm_models(awaits=False), way="itself", price_as="openai"
        ),
        HUGE | LLM,
    ),
}
"""By name: the module that must be there, the subject, the rules that are broken and why."""

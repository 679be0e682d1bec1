"""Services that speak OpenAI's protocol, as data: where they are, which key, what differs.

A target says `provider: groq`; `muster.providers.openai` serves all of them. A service that is not
here needs no code either: `provider: openai` with its `base_url`.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ("ALIASES", "PRESETS", "Preset", "preset_for")


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """What is particular about a service. Variables are tried in order."""

    base_url: str | None
    """Without the path of the call; `None`: the target must say it."""
    key_variables: tuple[str, ...]
    key_required: bool = True
    """False: a server of one's own, which may have no key."""
    base_url_variables: tuple[str, ...] = ()
    model_variables: tuple[str, ...] = ("AGENT_MODEL",)
    default_model: str | None = None
    auth_header: str = "Authorization"
    """`Authorization` gets `Bearer KEY`, any other header the bare key."""
    max_tokens_field: str = "max_tokens"
    """How Chat Completions calls the bound on an answer's tokens."""
    stream_usage: bool = True
    """Streams are asked for usage (`stream_options`); False: the service refuses to be asked."""
    json_schema: bool = True
    """Schemas go into `response_format`; False: the service knows only `json_object`."""
    structured: bool | None = True
    """Answers are bound by a schema; `None`: as far as the model keeps to it."""
    sees: bool | None = None
    """Images, and files that are no text, are taken as parts of messages; `None`: it depends on
    the model, or is not known, and is tried."""
    embeds: bool | None = None
    """There is `embeddings`; `None`: not known, and tried."""
    price_as: str | None = None
    """The name of the seller in the price list; `None`: nobody is paid."""


PRESETS: dict[str, Preset] = {
    "openai": Preset(
        base_url="https://api.openai.com/v1",
        key_variables=("OPENAI_API_KEY",),
        base_url_variables=("OPENAI_BASE_URL",),
        model_variables=("OPENAI_MODEL", "AGENT_MODEL"),
        sees=True,
        embeds=True,
        price_as="openai",
    ),
    "azure": Preset(
        base_url=None,
        key_variables=("AZURE_OPENAI_API_KEY",),
        base_url_variables=("AZURE_OPENAI_ENDPOINT",),
        model_variables=("AZURE_OPENAI_DEPLOYMENT", "AZURE_DEPLOYMENT_NAME", "AGENT_MODEL"),
        auth_header="api-key",
        max_tokens_field="max_completion_tokens",
        sees=True,
        embeds=True,
        price_as="azure",
    ),
    "openrouter": Preset(
        base_url="https://openrouter.ai/api/v1",
        key_variables=("OPENROUTER_API_KEY",),
        model_variables=("OPENROUTER_MODEL", "AGENT_MODEL"),
        price_as="openrouter",
    ),
    "gemini": Preset(
        base_url="https://generativelanguage.googleapis.com/v1beta/openai",
        key_variables=("GEMINI_API_KEY", "GOOGLE_API_KEY", "GOOGLE_GENERATIVE_AI_API_KEY"),
        model_variables=("GEMINI_MODEL", "AGENT_MODEL"),
        default_model="gemini-2.5-flash",
        sees=True,
        embeds=True,
        price_as="google",
    ),
    "groq": Preset(
        base_url="https://api.groq.com/openai/v1",
        key_variables=("GROQ_API_KEY",),
        price_as="groq",
    ),
    "mistral": Preset(
        base_url="https://api.mistral.ai/v1",
        key_variables=("MISTRAL_API_KEY",),
        stream_usage=False,
        embeds=True,
        price_as="mistral",
    ),
    "deepseek": Preset(
        base_url="https://api.deepseek.com/v1",
        key_variables=("DEEPSEEK_API_KEY",),
        json_schema=False,
        structured=None,
        price_as="deepseek",
    ),
    "together": Preset(
        base_url="https://api.together.xyz/v1",
        key_variables=("TOGETHER_API_KEY", "TOGETHER_AI_API_KEY"),
        embeds=True,
        price_as="together",
    ),
    "fireworks": Preset(
        base_url="https://api.fireworks.ai/inference/v1",
        key_variables=("FIREWORKS_API_KEY",),
        price_as="fireworks",
    ),
    "xai": Preset(base_url="https://api.x.ai/v1", key_variables=("XAI_API_KEY",), price_as="x-ai"),
    "cerebras": Preset(
        base_url="https://api.cerebras.ai/v1",
        key_variables=("CEREBRAS_API_KEY",),
        price_as="cerebras",
    ),
    "perplexity": Preset(
        base_url="https://api.perplexity.ai",
        key_variables=("PERPLEXITY_API_KEY",),
        stream_usage=False,
        price_as="perplexity",
    ),
    "cohere": Preset(
        base_url="https://api.cohere.ai/compatibility/v1",
        key_variables=("COHERE_API_KEY", "CO_API_KEY"),
        embeds=True,
        price_as="cohere",
    ),
    "moonshot": Preset(
        base_url="https://api.moonshot.ai/v1",
        key_variables=("MOONSHOT_API_KEY",),
        price_as="moonshotai",
    ),
    "huggingface": Preset(base_url="https://router.huggingface.co/v1", key_variables=("HF_TOKEN",)),
    "github": Preset(
        base_url="https://models.github.ai/inference", key_variables=("GITHUB_TOKEN",)
    ),
    "nvidia": Preset(
        base_url="https://integrate.api.nvidia.com/v1", key_variables=("NVIDIA_API_KEY",)
    ),
    "ollama": Preset(
        base_url="http://localhost:11434/v1",
        key_variables=("OLLAMA_API_KEY",),
        key_required=False,
        base_url_variables=("OLLAMA_BASE_URL",),
        embeds=True,
    ),
    "vllm": Preset(
        base_url="http://localhost:8000/v1",
        key_variables=("VLLM_API_KEY",),
        key_required=False,
        base_url_variables=("VLLM_BASE_URL",),
    ),
    "lmstudio": Preset(
        base_url="http://localhost:1234/v1",
        key_variables=("LMSTUDIO_API_KEY",),
        key_required=False,
        base_url_variables=("LMSTUDIO_BASE_URL",),
        embeds=True,
    ),
    "llamacpp": Preset(
        base_url="http://localhost:8080/v1",
        key_variables=("LLAMACPP_API_KEY",),
        key_required=False,
        base_url_variables=("LLAMACPP_BASE_URL",),
    ),
    "litellm": Preset(
        base_url="http://localhost:4000/v1",
        key_variables=("LITELLM_API_KEY", "LITELLM_MASTER_KEY"),
        key_required=False,
        base_url_variables=("LITELLM_BASE_URL", "LITELLM_PROXY_URL"),
        price_as="litellm",
    ),
}

ALIASES: dict[str, str] = {
    "azure-openai": "azure",
    "google": "gemini",
    "google-gemini": "gemini",
    "grok": "xai",
    "lm-studio": "lmstudio",
    "llama.cpp": "llamacpp",
    "hf": "huggingface",
}


def preset_for(provider: str) -> tuple[str, Preset]:
    """The name and the preset of a provider; `openai` for names that are none."""
    name = ALIASES.get(provider, provider)
    preset = PRESETS.get(name)
    return ("openai", PRESETS["openai"]) if preset is None else (name, preset)

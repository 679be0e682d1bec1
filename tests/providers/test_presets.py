"""Where the services of the OpenAI family are called, with which key: all of it is data."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest
from pydantic import ValidationError

from muster.errors import MusterError, UsageError
from muster.provider import AuthenticationFailed
from muster.providers.openai import OpenAIProvider
from muster.providers.presets import ALIASES, PRESETS, preset_for
from muster.target import ResolvedTarget, Secret


def endpoint(
    provider: str = "openai", env: dict[str, str] | None = None, safe: bool = False, **config: Any
):
    config.setdefault("model", "m")
    config = {name: value for name, value in config.items() if value is not None}
    target = ResolvedTarget(name="t", provider=provider, config=config, env=env or {}, safe=safe)
    return OpenAIProvider(target).endpoint


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_is_complete(name: str) -> None:
    preset = PRESETS[name]
    if preset.base_url is not None:
        parts = urlsplit(preset.base_url)
        assert parts.hostname
        assert parts.scheme == ("http" if parts.hostname == "localhost" else "https")
        assert not preset.base_url.endswith("/")
    assert preset.key_variables
    resource = "r" if name == "azure" else None
    found = endpoint(name, {preset.key_variables[-1]: "key"}, resource=resource)
    assert found.url("chat/completions").endswith("/chat/completions")
    key = found.key()
    assert key == "key"
    expected = "Bearer key" if preset.auth_header == "Authorization" else "key"
    assert found.headers(key)[preset.auth_header] == expected


def test_aliases_lead_to_presets() -> None:
    assert set(ALIASES.values()) <= set(PRESETS)
    assert preset_for("google")[0] == "gemini"
    assert preset_for("my.package:Thing") == ("openai", PRESETS["openai"])


@pytest.mark.parametrize(
    ("base_url", "expected"),
    [
        ("http://h:1", "http://h:1/v1/chat/completions"),
        ("http://h:1/", "http://h:1/v1/chat/completions"),
        ("http://h:1/v1/", "http://h:1/v1/chat/completions"),
        ("http://h/api/v2", "http://h/api/v2/chat/completions"),
        ("http://h/v1/chat/completions", "http://h/v1/chat/completions"),
        ("http://h/v1/responses", "http://h/v1/chat/completions"),
    ],
)
@pytest.mark.parametrize("field", ["base_url", "endpoint"])
def test_base_urls(base_url: str, expected: str, field: str) -> None:
    assert endpoint(**{field: base_url}).url("chat/completions") == expected


@pytest.mark.parametrize(
    ("config", "path", "expected"),
    [
        (
            {"resource": "res"},
            "chat/completions",
            "https://res.openai.azure.com/openai/v1/chat/completions",
        ),
        (
            {"endpoint": "https://res.openai.azure.com/"},
            "responses",
            "https://res.openai.azure.com/openai/v1/responses",
        ),
        (
            {"endpoint": "https://res.openai.azure.com/openai", "version": "v1"},
            "responses",
            "https://res.openai.azure.com/openai/v1/responses",
        ),
        (
            {"endpoint": "https://res.openai.azure.com", "version": "2024-10-21"},
            "chat/completions",
            "https://res.openai.azure.com/openai/deployments/dep/chat/completions"
            "?api-version=2024-10-21",
        ),
        (
            {"endpoint": "https://res.openai.azure.com", "api_version": "2025-04-01-preview"},
            "responses",
            "https://res.openai.azure.com/openai/responses?api-version=2025-04-01-preview",
        ),
        (
            {"endpoint": "https://res.openai.azure.com/openai/deployments/other"},
            "chat/completions",
            "https://res.openai.azure.com/openai/deployments/other/chat/completions"
            "?api-version=2024-10-21",
        ),
    ],
)
def test_azure_urls(config: dict[str, Any], path: str, expected: str) -> None:
    found = endpoint("azure-openai", model=None, deployment="dep", **config)
    assert found.url(path) == expected
    assert found.model == "dep"
    assert found.headers("k") == {"api-key": "k"}
    assert found.max_tokens_field == "max_completion_tokens"


def test_the_environment_completes_a_target() -> None:
    env = {
        "OPENAI_BASE_URL": "https://gateway.example.com/v1",
        "OPENAI_API_KEY": "key",
        "OPENAI_ORG_ID": "org",
        "AGENT_MODEL": "agents",
    }
    found = endpoint(env=env, model=None)
    assert (found.base_url, found.model, found.key()) == (env["OPENAI_BASE_URL"], "agents", "key")
    assert found.headers("key")["OpenAI-Organization"] == "org"
    assert endpoint(env={**env, "OPENAI_MODEL": "mine"}, model=None).model == "mine"
    # The target's own words win.
    own = endpoint(env=env, model="said", base_url="http://h/v1", api_key=Secret("own"))
    assert (own.base_url, own.model, own.key()) == ("http://h/v1", "said", "own")
    assert "OpenAI-Organization" not in own.headers("own")


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROQ_API_KEY", "from-process")
    target = ResolvedTarget(name="t", provider="groq", config={"model": "m"})
    assert OpenAIProvider(target).endpoint.key() == "from-process"


def test_openai_itself_has_renamed_a_field() -> None:
    assert endpoint().max_tokens_field == "max_completion_tokens"
    assert endpoint(base_url="http://h/v1").max_tokens_field == "max_tokens"
    assert endpoint("groq").max_tokens_field == "max_tokens"


def test_default_model() -> None:
    assert endpoint("gemini", model=None).model == "gemini-2.5-flash"


@pytest.mark.parametrize(
    ("provider", "config", "said"),
    [
        ("openai", {"model": None}, "no model (set `model`, or OPENAI_MODEL or AGENT_MODEL)"),
        ("azure", {}, "no base_url (set it, or AZURE_OPENAI_ENDPOINT)"),
        ("openai", {"resource": "r"}, "`resource` is for the azure provider only"),
        ("openai", {"base_url": "localhost:8000"}, "expected http(s)://"),
        ("openai", {"base_url": "ftp://h/v1"}, "expected http(s)://"),
    ],
)
def test_mistakes(provider: str, config: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        endpoint(provider, **config)
    assert str(caught.value).startswith('target "t": ')
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [
        {"temprature": 1},
        {"temperature": -1},
        {"api_format": "completions"},
        {"max_output_tokens": 0},
    ],
)
def test_settings_are_checked(config: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(config))):
        endpoint(**config)


@pytest.mark.parametrize("provider", ["ollama", "vllm", "lmstudio", "llamacpp", "litellm"])
def test_servers_of_ones_own_need_no_key(provider: str) -> None:
    assert endpoint(provider, base_url="https://gpu.example.com/v1").key() is None


def test_a_missing_key_names_its_variable() -> None:
    with pytest.raises(AuthenticationFailed, match="GROQ_API_KEY is not set"):
        endpoint("groq").key()


def test_a_file_of_others_sends_no_key_of_mine_elsewhere() -> None:
    env = {"OPENAI_API_KEY": "mine"}
    with pytest.raises(MusterError, match="--safe refuses"):
        endpoint(env=env, safe=True, base_url="https://thief.example.com/v1").key()
    assert endpoint(env=env, safe=True).key() == "mine"
    assert endpoint(env=env, safe=True, base_url="https://api.openai.com/v1").key() == "mine"
    assert endpoint(env=env, base_url="https://gateway.example.com/v1").key() == "mine"

from __future__ import annotations

import asyncio
import json

import pytest
from pydantic import BaseModel

from muster.config.targets import load_catalog
from muster.errors import ConfigError, UsageError
from muster.provider import (
    ProviderFailed,
    ProviderRequest,
    ProviderResponse,
    ProviderTimeout,
    ProviderUnavailable,
    RateLimited,
)
from muster.providers import providers
from muster.registry import Registry
from muster.targets import CloseError, Overrides, TargetPool, settings_for
from muster.wrappers import (
    AdaptiveLimit,
    ConcurrencyLimit,
    Fallback,
    RateLimit,
    Timeout,
)

ASK = ProviderRequest(question="?")


class Service:
    """A provider whose target says what it does; remembers what became of it."""

    made: dict[str, list[Service]]

    def __init__(self, target):
        self.target = target
        self.calls = self.closed = 0
        self.made.setdefault(target.name, []).append(self)

    async def invoke(self, request):
        self.calls += 1
        does = self.target.config.get("does", "answer")
        if does == "hang":
            await asyncio.sleep(60)
        if does == "refuse" or (does == "recover" and self.calls == 1):
            raise ProviderUnavailable(f"{self.target.name} is down")
        return ProviderResponse(f"from {self.target.name}")

    async def aclose(self):
        self.closed += 1
        if self.target.config.get("closes") == "badly":
            raise ZeroDivisionError("at the end")
        if self.target.config.get("closes") == "never":
            await asyncio.sleep(60)


@pytest.fixture
def project(tmp_path):
    """`project(yaml, **options)` is a pool for a targets file; `.made` are its services."""

    def make(text, *, env=None, **overrides):
        (tmp_path / "targets.yaml").write_text(text)
        registry = Registry("provider", builtins=dict(providers._builtins))
        service = type("Service", (Service,), {"made": {}})
        registry.register("service", service)
        catalog = load_catalog(tmp_path, env=env or {})
        pool = TargetPool(catalog, registry, Overrides(**overrides))
        pool.made = service.made
        return pool

    return make


def layers(provider):
    """The names of the wrappers, from the outside in."""
    names = []
    while type(provider).__module__.startswith("muster.wrappers."):
        names.append(type(provider).__name__)
        provider = provider.targets[0][1] if isinstance(provider, Fallback) else provider.provider
    return names


# --- assembly -----------------------------------------------------------------------------------


def test_all_layers_in_their_order(project):
    pool = project("""
targets:
  - name: a
    provider: service
    workers: 3
    timeout_seconds: 7
    max_retries: 4
    retry_initial_delay_ms: 250
    requests_per_minute: 60
    fallback_targets: [b]
  - name: b
    provider: service
    adaptive: true
""")
    opened = pool.open("a")
    assert layers(opened.provider) == [
        "Fallback",
        "Retry",
        "RateLimit",
        "ConcurrencyLimit",
        "Timeout",
    ]
    retry = opened.provider.targets[0][1]
    assert (retry.max_retries, retry.policy.initial_delay) == (4, 0.25)
    assert isinstance(retry.provider, RateLimit)
    assert isinstance(retry.provider.provider, ConcurrencyLimit)
    assert retry.provider.provider.maximum == 3
    assert isinstance(retry.provider.provider.provider, Timeout)
    assert retry.provider.provider.provider.seconds == 7
    assert (opened.name, opened.workers, opened.resolved.provider) == ("a", 3, "service")
    assert layers(pool.open("b").provider) == ["Retry", "AdaptiveLimit"]


def test_a_function_costs_nothing_extra(project, tmp_path):
    (tmp_path / "own_function_for_targets.py").write_text(
        "async def f(question):\n    return '!'\n"
    )
    pool = project("""
targets:
  - {name: f, provider: function, function: "own_function_for_targets:f"}
""")
    assert layers(pool.open("f").provider) == []


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("provider: echo", []),
        ("provider: mock", ["Retry"]),
        ("provider: service", ["Retry"]),
        ("provider: mock, max_retries: 0", []),
        ("provider: echo, max_retries: 2", ["Retry"]),
        ("provider: cli, command: 'true'", ["CapabilityCheck"]),
        ("provider: cli, command: 'true', timeout_seconds: 3", ["CapabilityCheck"]),
        ("provider: cli, command: 'true', workers: 2", ["CapabilityCheck", "ConcurrencyLimit"]),
        ("provider: echo, timeout_seconds: 3", ["Timeout"]),
        ("provider: echo, tokens_per_minute: 3", ["RateLimit"]),
        ("provider: echo, adaptive: true, workers: 9", ["AdaptiveLimit"]),
    ],
)
def test_only_layers_with_something_to_do(project, entry, expected):
    if "cli" in entry:
        pytest.importorskip("muster.providers.cli")
    pool = project(f"targets:\n  - {{name: t, {entry}}}\n")
    assert layers(pool.open("t").provider) == expected


def test_a_cli_that_is_not_the_built_in_gets_a_timeout(project):
    pool = project("targets:\n  - {name: t, provider: cli, timeout_seconds: 3}\n")
    pool._registry.register("cli", Service, override=True)
    Service.made = {}
    assert layers(pool.open("t").provider) == ["Retry", "Timeout"]


def test_an_adaptive_limit_begins_with_the_workers(project):
    pool = project("""
targets:
  - {name: a, provider: echo, adaptive: true, workers: 9, retry_max_delay_ms: 300000}
  - {name: b, provider: echo, adaptive: true}
""")
    first, second = pool.open("a").provider, pool.open("b").provider
    assert isinstance(first, AdaptiveLimit)
    assert (first.maximum, first.longest_wait) == (9, 300)
    assert (second.maximum, second.longest_wait) == (64, 120)


def test_the_command_line_overrides(project):
    pool = project(
        "targets:\n  - {name: t, provider: service, workers: 2, max_retries: 5}\n",
        workers=20,
        max_retries=1,
        timeout=9.0,
    )
    opened = pool.open("t")
    assert opened.workers == opened.resolved.workers == 20
    assert opened.resolved.retry.max_retries == 1
    assert opened.resolved.timeout_seconds == 9
    assert layers(opened.provider) == ["Retry", "ConcurrencyLimit", "Timeout"]
    assert pool.made["t"][0].target == opened.resolved  # what the factory was told


def test_no_retries_by_the_command_line(project):
    pool = project("targets:\n  - {name: t, provider: service, max_retries: 5}\n", max_retries=0)
    assert layers(pool.open("t").provider) == []


def test_one_instance_a_target(project):
    pool = project("targets:\n  - {name: t, provider: service}\n")
    assert pool.open("t") is pool.open("t")
    assert len(pool.made["t"]) == 1


# --- at work ------------------------------------------------------------------------------------


async def test_retries_and_timeouts_work_through_the_pool(project):
    pool = project("""
targets:
  - {name: recovers, provider: service, does: recover, retry_initial_delay_ms: 1}
  - {name: hangs, provider: service, does: hang, timeout_seconds: 0.05, max_retries: 0}
""")
    response = await pool.open("recovers").provider.invoke(ASK)
    assert (response.text, response.attempts) == ("from recovers", 2)
    with pytest.raises(ProviderTimeout, match=r"no answer within 0\.05 s"):
        await pool.open("hangs").provider.invoke(ASK)
    await pool.aclose()


FALLBACKS = """
targets:
  - {name: a, provider: service, does: refuse, max_retries: 1, retry_initial_delay_ms: 1,
     fallback_targets: [a, b, c]}
  - {name: b, provider: service, does: refuse, max_retries: 0, fallback_targets: [a]}
  - {name: c, provider: service}
"""


async def test_fallback_targets_are_made_when_they_are_asked_and_shared(project):
    pool = project(FALLBACKS)
    opened = pool.open("a")
    assert list(pool.made) == ["a"]
    assert [target.name for target in pool.resolved] == ["a", "b", "c"]
    response = await opened.provider.invoke(ASK)
    assert (response.text, response.target_used, response.attempts) == ("from c", "c", 4)
    direct = await pool.open("c").provider.invoke(ASK)
    assert direct.target_used is None
    assert [service.calls for service in pool.made["c"]] == [2]
    await pool.aclose()
    assert {name: [s.closed for s in made] for name, made in pool.made.items()} == {
        "a": [1],
        "b": [1],
        "c": [1],
    }


async def test_targets_that_fall_back_on_each_other_end(project):
    pool = project(FALLBACKS.replace("[a, b, c]", "b"))
    with pytest.raises(
        ProviderUnavailable, match=r"no target answered: a: a is down; b: b is down"
    ) as caught:
        await pool.open("a").provider.invoke(ASK)
    assert (caught.value.target, caught.value.attempts) == ("b", 3)
    await pool.aclose()


async def test_a_fallback_that_cannot_be_made_is_one_more_failure(project):
    pool = project("""
targets:
  - {name: a, provider: service, does: refuse, max_retries: 0, fallback_targets: [b]}
  - {name: b, provider: servise}
""")
    with pytest.raises(
        ProviderFailed, match=r"a: a is down; b: .*targets\.yaml:4.*unknown provider"
    ):
        await pool.open("a").provider.invoke(ASK)
    await pool.aclose()


async def test_a_scripted_mock_is_retried_by_default(project):
    script = json.dumps(
        [
            {"attempt": 0, "error": {"kind": "rate_limited", "retry_after": 0}},
            {"text": "second time"},
        ]
    )
    pool = project(
        f"targets:\n  - {{name: m, provider: mock, retry_initial_delay_ms: 1, replies: {script}}}\n"
    )
    response = await pool.open("m").provider.invoke(ASK)
    assert (response.text, response.attempts) == ("second time", 2)
    await pool.aclose()


async def test_workers_bound_a_target_whoever_asks(project):
    pool = project("targets:\n  - {name: t, provider: mock, delay: 0.01, workers: 2}\n")
    asked = [pool.open("t").provider.invoke(ASK) for _ in range(6)]
    start = asyncio.get_running_loop().time()
    await asyncio.gather(*asked)
    assert asyncio.get_running_loop().time() - start >= 0.03
    await pool.aclose()


# --- mistakes -----------------------------------------------------------------------------------


def test_mistakes_are_told_before_the_first_call(project):
    pool = project("""
targets:
  - {name: typo, provider: servise}
  - {name: bad, provider: mock, replys: []}
  - {name: leads_to_bad, provider: service, fallback_targets: [needs]}
  - {name: needs, provider: service, api_key: "${{ NOT_SET_ANYWHERE }}"}
""")
    with pytest.raises(ConfigError, match=r'targets\.yaml:3:.*unknown provider "servise".*near: s'):
        pool.open("typo")
    with pytest.raises(ConfigError, match=r'targets\.yaml:4:.*"replys".*did you mean "replies"'):
        pool.open("bad")
    with pytest.raises(ConfigError, match=r"targets\.yaml:6:.*NOT_SET_ANYWHERE"):
        pool.open("leads_to_bad")
    with pytest.raises(UsageError, match=r'target "typ" not found.*near: typo'):
        pool.open("typ")


async def test_closing_goes_on_after_a_failure(project):
    pool = project("""
targets:
  - {name: a, provider: service, closes: badly}
  - {name: b, provider: service}
""")
    pool.open("a")
    pool.open("b")
    with pytest.raises(CloseError, match=r'target "a" failed to close: .*at the end'):
        await pool.aclose()
    assert pool.made["b"][0].closed == 1
    await pool.aclose()  # nothing is closed twice
    assert pool.made["a"][0].closed == 1


async def test_closing_does_not_wait_for_ever(project, monkeypatch):
    monkeypatch.setattr("muster.targets.CLOSE_SECONDS", 0.02)
    pool = project("targets:\n  - {name: t, provider: service, closes: never}\n")
    pool.open("t")
    with pytest.raises(CloseError, match=r'"t" did not close within 0\.02 s'):
        await pool.aclose()


# --- settings -----------------------------------------------------------------------------------


def test_settings_of_a_kind(tmp_path):
    from muster.providers.mock import MockProvider

    class Own:
        class Settings(BaseModel):
            url: str

    registry = providers.for_project([])
    assert settings_for(registry, "mock") is MockProvider.Settings
    assert settings_for(registry, "no-such") is None
    assert settings_for(registry, "some.module:Thing") is None

    fresh = Registry("provider", builtins={"gone": "no_such_module:x"})
    fresh.register("own", Own)
    fresh.register("plain", lambda target: None)
    assert settings_for(fresh, "own") is Own.Settings
    assert settings_for(fresh, "plain") is None
    assert settings_for(fresh, "gone") is None


def test_the_errors_class_survives_the_layers(project):
    """`RateLimited` to the runner, so that it can count errors by kind."""
    pool = project("""
targets:
  - {name: m, provider: mock, max_retries: 1, retry_initial_delay_ms: 0, workers: 1,
     timeout_seconds: 5, replies: [{error: {kind: rate_limited, status: 429}}]}
""")

    async def main():
        with pytest.raises(RateLimited) as caught:
            await pool.open("m").provider.invoke(ASK)
        assert (caught.value.status, caught.value.attempts) == (429, 2)
        await pool.aclose()

    asyncio.run(main())

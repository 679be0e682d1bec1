"""The forms that targets are written in, and the one form that they become."""

from __future__ import annotations

from pathlib import Path

import pytest

from muster.config.dialects import (
    CatalogFile,
    Parts,
    parse_spec,
    read_catalog,
    read_entry,
    snake_case,
)
from muster.config.document import Place, parse_yaml
from muster.errors import ConfigError, Problem

KINDS = {"openai", "anthropic", "azure", "gemini", "openrouter", "ollama", "cli", "mock", "echo"}
KINDS |= {"replay", "function"}


@pytest.mark.parametrize(
    ("spec", "kind", "settings"),
    [
        ("openai", "openai", {}),
        ("openai:gpt-4o", "openai", {"model": "gpt-4o"}),
        ("openai:chat:gpt-4o", "openai", {"model": "gpt-4o", "api_format": "chat"}),
        ("openai:responses:o3", "openai", {"model": "o3", "api_format": "responses"}),
        ("openai:ft:gpt-4o:org::id", "openai", {"model": "ft:gpt-4o:org::id"}),
        ("anthropic:claude-x", "anthropic", {"model": "claude-x"}),
        ("anthropic:messages:claude-x", "anthropic", {"model": "claude-x"}),
        ("azure:my-deployment", "azure", {"model": "my-deployment"}),
        ("azure:chat:d", "azure", {"model": "d"}),
        ("gemini:gemini-2.5-flash", "gemini", {"model": "gemini-2.5-flash"}),
        ("openrouter:meta/llama", "openrouter", {"model": "meta/llama"}),
        ("ollama:llama3:8b", "ollama", {"model": "llama3:8b"}),
        ("exec:python agent.py: now", "exec", {"command": "python agent.py: now"}),
        ("cli:./run.sh", "cli", {"command": "./run.sh"}),
        ("replay:answers.jsonl", "replay", {"file": "answers.jsonl"}),
        ("function:pkg.mod:answer", "function", {"function": "pkg.mod:answer"}),
        ("mock", "mock", {}),
        ("echo", "echo", {}),
        ("codex-sdk", "codex-sdk", {}),
        ("openai:codex-sdk:gpt-5", "codex-sdk", {}),
        ("agentv:openai:gpt", "agentv", {}),
        ("google:gemini-pro", "google", {"model": "gemini-pro"}),
    ],
)
def test_specs(spec: str, kind: str, settings: dict[str, str]) -> None:
    assert parse_spec(spec, KINDS.__contains__) == (kind, settings)


@pytest.mark.parametrize("text", ["opnai:gpt", "fast", "package.module:Factory", "", ":x"])
def test_other_texts_are_no_specs(text: str) -> None:
    assert parse_spec(text, KINDS.__contains__) is None


@pytest.mark.parametrize(
    ("name", "snake"),
    [("baseUrl", "base_url"), ("base_url", "base_url"), ("maxRetries", "max_retries")],
)
def test_snake_case(name: str, snake: str) -> None:
    assert snake_case(name) == snake


def load(tmp_path: Path, text: str, name: str = "targets.yaml") -> CatalogFile:
    (path := tmp_path / name).write_text(text)
    file = read_catalog(path, tmp_path)
    assert file is not None
    return file


def mistakes(tmp_path: Path, text: str, name: str = "targets.yaml") -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, name)
    return [line.removeprefix(f"{tmp_path}/") for line in str(caught.value).splitlines()]


def test_the_form_of_v4(tmp_path: Path) -> None:
    file = load(tmp_path, "$schema: agentv-targets-v2.2\ntargets:\n  - name: a\n  - name: b\n")
    assert [entry.name for entry in file.entries] == ["a", "b"]
    assert file.entries[1].place.location == ("targets", 1)
    assert file.entries[1].base_dir == tmp_path


V5 = """
providers:
  - openai:gpt-4o
  - id: openai:gpt-4o-mini
    label: mini
  - anthropic:messages:claude:
      label: claude
      config: {temperature: 0}
  - mock
defaults: {provider: mini, grader: claude}
"""


def test_the_form_of_v5(tmp_path: Path) -> None:
    file = load(tmp_path, V5, "providers.yaml")
    assert [entry.name for entry in file.entries] == ["openai:gpt-4o", "mini", "claude", "mock"]
    assert (file.default_provider, file.default_grader) == ("mini", "claude")
    assert file.entries[2].value == {
        "id": "anthropic:messages:claude",
        "label": "claude",
        "config": {"temperature": 0},
    }


def test_a_bare_list_and_a_map(tmp_path: Path) -> None:
    assert [e.name for e in load(tmp_path, "- mock\n- {id: echo, label: e}\n").entries] == [
        "mock",
        "e",
    ]
    by_spec = load(tmp_path, "providers:\n  openai:a: {label: x}\n  mock:\n")
    assert [e.name for e in by_spec.entries] == ["x", "mock"]


def test_a_configuration_without_targets_has_none(tmp_path: Path) -> None:
    (path := tmp_path / "config.yaml").write_text("execution: {verbose: true}\n")
    assert read_catalog(path, tmp_path) is None


def test_a_configuration_may_hold_other_things(tmp_path: Path) -> None:
    file = load(tmp_path, "execution: {}\nproviders: [mock]\n", "config.yaml")
    assert [entry.name for entry in file.entries] == ["mock"]


def test_providers_in_a_file_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text("- {id: mock, label: inner}\n")
    file = load(tmp_path, "providers: file://list.yaml\n", "config.yaml")
    (entry,) = file.entries
    assert entry.name == "inner"
    assert str(entry.place.problem("here")).startswith(f"{tmp_path}/list.yaml:1:3: [0]")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", 'targets.yaml:1:1: expected "targets:", a list of targets'),
        ("tragets: []", 'targets.yaml:1:1: expected "targets:", a list of targets'),
        ("targets: [{name: a}]\ndefault: a", 'did you mean "defaults"?'),
        ("targets:", "targets.yaml:1:9: targets: expected a list of targets"),
        ("targets: {a: {provider: mock}}", "1:10: targets: expected a list of targets"),
        ("targets: [3]", "1:11: targets[0]: expected a target: a mapping with name and provider"),
        ("targets: [{provider: mock}]", '1:11: targets[0]: "name" is required'),
        ("targets: [{nmae: x, provider: mock}]", '"name" is required (did you mean it by "nmae"?)'),
        ("targets: [{name: 3}]", "1:18: targets[0].name: expected text (a number goes in quotes)"),
        ("targets: [{name: ''}]", "targets[0].name: expected text"),
        (
            "targets:\n  - name: a\n  - name: a\n",
            '3:5: targets[1]: a second target is called "a" (the first is in line 2)',
        ),
        ("providers: file://../x.yaml", '../x.yaml" is outside the project'),
        ("providers: file://none.yaml", "no such file: "),
        ("providers: file://targets.yaml", "includes itself"),
    ],
)
def test_mistakes_have_their_places(tmp_path: Path, text: str, message: str) -> None:
    assert any(message in line for line in mistakes(tmp_path, text))


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    assert len(mistakes(tmp_path, "targets: [3, {provider: x}, {name: a}, {name: a}]\nx: 1\n")) == 4


def parts(text: str) -> tuple[Parts, list[Problem], list[Problem]]:
    document = parse_yaml(text)
    problems: list[Problem] = []
    warnings: list[Problem] = []
    entry = read_entry(document.data, Place(document), Path())
    return Parts.of(entry, problems, warnings.append), problems, warnings


def test_what_every_target_has_is_told_from_the_providers_own() -> None:
    found, problems, warnings = parts(
        "{name: a, provider: cli, command: x, workers: 2, grader_target: g, config: {cwd: y}}"
    )
    assert {name: w.value for name, w in found.fields.items()} == {
        "provider": "cli",
        "workers": 2,
        "judge_target": "g",
    }
    assert {name: w.value for name, w in found.settings.items()} == {"command": "x", "cwd": "y"}
    assert found.nested == {"cwd"}
    assert not problems
    assert not warnings


def test_camel_case_is_read_with_a_warning() -> None:
    found, problems, warnings = parts("{name: a, provider: x, maxRetries: 3, someThing: 1}")
    assert found.fields["max_retries"].value == 3
    assert "someThing" in found.settings  # whose it is depends on the provider
    assert not problems
    assert [str(w) for w in warnings] == ['line 1:24: maxRetries: write "max_retries" instead']


def test_a_setting_twice_is_a_mistake() -> None:
    for text in (
        "{name: a, provider: x, model: m, config: {model: n}}",
        "{name: a, provider: x, judge_target: m, grader_target: n}",
        "{name: a, provider: x, maxRetries: 1, max_retries: 1}",
    ):
        assert len(parts(text)[1]) == 1


def test_fields_without_effect_are_warned_about() -> None:
    found, problems, warnings = parts("{name: a, provider: cli, provider_batching: true}")
    assert not problems
    assert not found.settings
    assert "has no effect" in str(warnings[0])


def test_what_v5_has_and_muster_has_not() -> None:
    assert not parts("{id: mock, runtime: host}")[1]
    found, problems, _ = parts("{id: mock, transform: output.text, runtime: sandbox}")
    assert found.fields["provider"].value == "mock"
    assert [p.message for p in problems] == [
        'Muster does not support "transform" of a provider',
        'Muster does not support "runtime" of a provider',
    ]
    # A custom provider of v4's form may have settings of these names.
    assert not parts("{name: a, provider: x, transform: y}")[1]


def test_config_must_be_a_mapping() -> None:
    assert "expected a mapping of settings" in str(parts("{name: a, provider: x, config: 3}")[1][0])

"""Targets found, resolved and told about: what the command line and the suites rely on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import BaseModel, ConfigDict, Field

from muster.config.document import Place, parse_yaml
from muster.config.secrets import Masker, masked_config, secret_values
from muster.config.targets import TargetCatalog, load_catalog, targets_schema
from muster.errors import ConfigError, MusterError, UsageError
from muster.importing import CodeError
from muster.registry import UnknownName
from muster.target import RateLimits, RetryPolicy, Secret


class ModelApi(BaseModel):
    model_config = ConfigDict(extra="forbid")
    model: str
    base_url: str | None = None
    api_key: str | None = None
    api_format: str = "chat"
    temperature: float = 1.0
    headers: dict[str, str] = Field(default_factory=dict)


class Command(BaseModel):
    model_config = ConfigDict(extra="forbid")
    command: str | list[str]
    files_format: str = "{path}"
    verbose: bool = False
    timeout_seconds: float | None = None
    env: list[str] | dict[str, str] | None = None


class Mock(BaseModel):
    model_config = ConfigDict(extra="forbid")
    replies: list[dict[str, Any]] = Field(default_factory=list)


SETTINGS: Mapping[str, type[BaseModel]] = {"openai": ModelApi, "cli": Command, "mock": Mock}


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / ".git").mkdir()
    return tmp_path


def catalog(root: Path, text: str | None = None, **env: str) -> TargetCatalog:
    if text is not None:
        write(root / ".muster" / "targets.yaml", text)
    return load_catalog(root, env=env, settings_for=SETTINGS.get)


def mistakes(found: TargetCatalog, name: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        found.resolve(name)
    place = f"{found.path}:"
    return [line.removeprefix(place) for line in str(caught.value).splitlines()]


# --- finding --------------------------------------------------------------------------------------

FILES = [
    ".muster/targets.yaml",
    ".muster/targets.yml",
    ".agentv/targets.yaml",
    "targets.yaml",
    ".muster/config.yaml",
    ".agentv/config.yaml",
    ".agentv/providers.yaml",
    "providers.yaml",
]


@pytest.mark.parametrize("name", FILES)
def test_targets_are_found_by_walking_up(root: Path, name: str) -> None:
    start = root / "evals" / "deep"
    start.mkdir(parents=True)
    text = "targets: [{name: a, provider: mock}]" if "targets" in name else "providers: [mock]"
    path = write(root / name, text)
    assert load_catalog(start, env={}).path == path


def test_the_nearest_folder_and_the_first_name_count(root: Path) -> None:
    for number, name in enumerate(FILES):
        write(root / name, f"- {{id: mock, label: n{number}}}")
    near = write(root / "evals" / "targets.yaml", "targets: [{name: near, provider: mock}]")
    assert load_catalog(root / "evals", env={}).path == near
    assert load_catalog(root, env={}).names == ("n0",)


def test_configurations_without_targets_are_passed_by(root: Path) -> None:
    write(root / "evals" / ".agentv" / "config.yaml", "execution: {verbose: true}")
    path = write(root / "targets.yaml", "targets: [{name: a, provider: mock}]")
    assert load_catalog(root / "evals", env={}).path == path


def test_the_walk_ends_at_the_repository(root: Path) -> None:
    write(root / "targets.yaml", "targets: [{name: a, provider: mock}]")
    (root / "inner" / ".git").mkdir(parents=True)
    found = load_catalog(root / "inner", env={})
    assert found.path is None
    assert found.names == ()


def test_a_file_or_a_folder_can_be_named(root: Path) -> None:
    write(root / ".muster" / "targets.yaml", "targets: [{name: a, provider: mock}]")
    other = write(root / "other" / "mine.yml", "targets: [{name: b, provider: mock}]")
    assert load_catalog(root, explicit=other, env={}).names == ("b",)
    assert load_catalog(root / "other", explicit=root, env={}).names == ("a",)
    assert load_catalog(root / "other", explicit=root / ".muster", env={}).names == ("a",)
    with pytest.raises(UsageError, match="no such file or folder of targets"):
        load_catalog(root, explicit=root / "none.yaml", env={})
    with pytest.raises(UsageError, match="no targets in"):
        load_catalog(root, explicit=root / "other", env={})


# --- resolving ------------------------------------------------------------------------------------

FULL = """
targets:
  - name: full
    provider: openai
    judge_target: judge
    workers: 4
    timeout_seconds: 1.5
    max_retries: 5
    retry_initial_delay_ms: 250
    retry_max_delay_ms: 4000
    retry_backoff_factor: 3
    retry_status_codes: [429, 503]
    requests_per_minute: 60
    tokens_per_minute: 1000
    adaptive: true
    fallback_targets: [plain]
    model: gpt-4o
    config:
      temperature: 0
  - {name: plain, provider: openai, model: m}
"""


def test_every_field_arrives(root: Path) -> None:
    found = catalog(root, FULL)
    target = found.resolve("full")
    assert target.config == {"model": "gpt-4o", "temperature": 0}
    assert (target.provider, target.kind, target.judge_target) == ("openai", "openai", "judge")
    assert (target.workers, target.timeout_seconds) == (4, 1.5)
    assert target.retry == RetryPolicy(
        max_retries=5,
        initial_delay=0.25,
        max_delay=4.0,
        backoff_factor=3.0,
        status_codes=frozenset({429, 503}),
    )
    assert target.rate_limits == RateLimits(
        requests_per_minute=60, tokens_per_minute=1000, adaptive=True
    )
    assert target.fallback_targets == ("plain",)
    assert target.base_dir == root / ".muster"
    assert found.resolve("full") is target
    assert found.resolve("plain").retry == RetryPolicy()
    assert found.warnings == ()


def test_the_example_of_a_custom_provider_is_read_as_it_is(root: Path) -> None:
    found = catalog(
        root,
        """
targets:
  - name: my_http_agent
    provider: http-agent
    judge_target: azure_base
    baseUrl: http://localhost:9000
    nested: {apiToken: abc, other: 1}
""",
    )
    target = found.resolve("my_http_agent")
    assert (target.provider, target.judge_target) == ("http-agent", "azure_base")
    assert target.config == {
        "baseUrl": "http://localhost:9000",
        "nested": {"apiToken": "abc", "other": 1},
    }


def test_wrong_values_have_their_places(root: Path) -> None:
    found = catalog(
        root,
        "targets:\n  - name: a\n    provider: mock\n    workers: 0\n    timeoutSeconds: soon\n"
        "    retry_status_codes: [200, 9]\n",
    )
    assert mistakes(found, "a") == [
        "4:14: targets[0].workers: expected greater than or equal to 1, found 0",
        '5:21: targets[0].timeoutSeconds: expected number, found "soon"',
        "6:31: targets[0].retry_status_codes[1]: expected greater than or equal to 100, found 9",
    ]


def test_unknown_settings_name_the_nearest(root: Path) -> None:
    found = catalog(
        root,
        "targets:\n  - name: a\n    provider: openai\n    modle: x\n    wrokers: 2\n"
        "    config: {zzz: 1}\n",
    )
    assert mistakes(found, "a") == [
        '4:5: targets[0].modle: unknown field "modle" for provider "openai" '
        '(did you mean "model"?)',
        '5:5: targets[0].wrokers: unknown field "wrokers" for provider "openai" '
        '(did you mean "workers"?)',
        '6:14: targets[0].config.zzz: unknown field "zzz" for provider "openai" (it knows: '
        "api_format, api_key, base_url, headers, model, temperature)",
    ]


def test_old_and_camel_case_names_are_read_with_one_warning_each(root: Path) -> None:
    found = catalog(
        root,
        "targets:\n  - name: a\n    provider: cli\n    command: x\n"
        "    attachmentsFormat: '{path}'\n    cliVerbose: true\n    judgeTarget: j\n"
        "  - {name: b, provider: openai, deployment: d, endpoint: http://h}\n",
    )
    for _ in range(2):
        assert found.resolve("a").config == {
            "command": "x",
            "files_format": "{path}",
            "verbose": True,
        }
    assert found.resolve("a").judge_target == "j"
    assert found.resolve("b").config == {"model": "d", "base_url": "http://h"}
    told = [warning.removeprefix(f"{found.path}:") for warning in found.warnings]
    assert sorted(told) == [
        '5:5: targets[0].attachmentsFormat: write "files_format" instead',
        '6:5: targets[0].cliVerbose: write "verbose" instead',
        '7:5: targets[0].judgeTarget: write "judge_target" instead',
        '8:33: targets[1].deployment: write "model" instead',
        '8:48: targets[1].endpoint: write "base_url" instead',
    ]


def test_a_setting_under_two_names_is_a_mistake(root: Path) -> None:
    found = catalog(root, "targets: [{name: a, provider: openai, model: m, deployment: d}]")
    assert mistakes(found, "a") == [
        '1:49: targets[0].deployment: "deployment" says again what "model" says'
    ]


def test_the_provider_is_required_or_comes_from_the_environment(root: Path) -> None:
    text = "targets: [{name: a, command: run}]"
    assert mistakes(catalog(root, text), "a") == [
        '1:11: targets[0]: "provider" is required, or set AGENT_PROVIDER'
    ]
    assert catalog(root, text, AGENT_PROVIDER="cli").resolve("a").provider == "cli"
    assert catalog(root, text, AGENT_PROVIDER="cli").outline("a") == {
        "name": "a",
        "provider": "cli",
        "judge_target": None,
        "note": "by AGENT_PROVIDER",
    }


def test_the_form_of_v5_resolves_as_that_of_v4(root: Path) -> None:
    found = catalog(
        root,
        """
providers:
  - id: openai:responses:o3
    label: thinker
    config: {temperature: 0, max_retries: 7}
  - id: cli
    label: agent
    config:
      command: [python, agent.py]
      timeout_seconds: 9
    env: {A: "${{ B }}"}
  - exec:./run.sh
defaults: {provider: agent, grader: thinker}
""",
        B="b",
    )
    thinker, agent = found.resolve("thinker"), found.resolve("agent")
    assert thinker.provider == "openai"
    assert thinker.config == {"model": "o3", "api_format": "responses", "temperature": 0}
    assert thinker.retry.max_retries == 7
    assert agent.judge_target == "thinker"
    assert agent.config["command"] == ["python", "agent.py"]
    assert agent.config["timeout_seconds"] == 9
    assert agent.config["env"] == {"A": "b"}  # this provider has a setting of that name
    assert found.resolve("exec:./run.sh").config == {"command": "./run.sh"}
    assert found.resolve("exec:./run.sh").provider == "cli"
    assert found.resolve("openai:responses:o3").name == "thinker"  # the id finds it too
    assert found.default_target() == "agent"
    assert found.warnings == ()


def test_variables_of_a_target_of_its_own(root: Path) -> None:
    found = catalog(
        root,
        "targets: [{name: a, provider: openai, model: '${{ M }}', env: {M: 'x-${{ N }}'}}]",
        N="n",
        M="outer",
    )
    target = found.resolve("a")
    assert target.config == {"model": "x-n"}
    assert target.env == {"N": "n", "M": "x-n"}
    assert found.env["M"] == "outer"


def test_specs_and_kinds_stand_for_themselves(root: Path) -> None:
    found = catalog(root, "targets: [{name: mock, provider: openai, model: m}]")
    assert found.resolve("mock").provider == "openai"  # an entry goes before a kind
    assert found.resolve("openai:gpt-4o").config == {"model": "gpt-4o"}
    assert found.resolve("openai:gpt-4o").base_dir == root
    assert found.resolve("my.module:Factory").provider == "my.module:Factory"
    found.is_provider = {"custom"}.__contains__
    assert found.resolve("custom").provider == "custom"


def test_a_target_that_is_not_there(root: Path) -> None:
    found = catalog(root, FULL)
    with pytest.raises(UsageError) as caught:
        found.resolve("ful")
    assert str(caught.value) == (
        f'target "ful" not found in {found.path} (near: full; available: full, plain)'
    )


def test_no_file_at_all(root: Path) -> None:
    found = catalog(root)
    assert found.names == ()
    assert found.resolve("mock").config == {}
    with pytest.raises(UsageError, match=r'"x" not found: there is no \.muster/targets\.yaml'):
        found.resolve("x")
    with pytest.raises(UsageError, match=r"no target is named, and there is no \.muster"):
        found.default_target()


# --- use_target, fallbacks, the default -----------------------------------------------------------


def test_use_target_leads_on_and_what_is_given_again_wins(root: Path) -> None:
    found = catalog(
        root,
        """
targets:
  - {name: default, use_target: "${{ WHICH }}", workers: 9, temperature: 0.5}
  - {name: b, use_target: c, judge_target: j}
  - {name: c, provider: openai, model: m, workers: 1, judge_target: other}
""",
        WHICH="b",
    )
    target = found.resolve(found.default_target())
    assert (target.name, target.provider) == ("default", "openai")
    assert target.config == {"model": "m", "temperature": 0.5}
    assert (target.workers, target.judge_target) == (9, "j")


def test_a_cycle_is_told(root: Path) -> None:
    found = catalog(
        root, "targets:\n  - {name: a, use_target: b}\n  - name: b\n    use_target: a\n"
    )
    assert mistakes(found, "a") == [
        "4:17: targets[1].use_target: Circular use_target reference detected: a -> b -> a"
    ]


def test_a_chain_has_an_end(root: Path) -> None:
    text = "targets:\n" + "".join(f"  - {{name: t{n}, use_target: t{n + 1}}}\n" for n in range(12))
    (message,) = mistakes(catalog(root, text + "  - {name: t12, provider: mock}\n"), "t0")
    assert "use_target leads through more than 10 targets: t0 -> t1" in message
    assert catalog(root, text + "  - {name: t12, provider: mock}\n").resolve("t3").name == "t3"


def test_references_to_nothing_have_their_places(root: Path) -> None:
    found = catalog(
        root,
        "targets:\n  - {name: a, use_target: bb}\n"
        "  - {name: b, provider: mock, fallback_targets: [a, cc]}\n",
    )
    assert mistakes(found, "a")[0].startswith(
        f'2:27: targets[0].use_target: target "bb" not found in {found.path} (near: '
    )
    assert mistakes(found, "b")[0].startswith(
        '3:53: targets[1].fallback_targets[1]: target "cc" not found'
    )


def test_the_default_target(root: Path) -> None:
    two = "targets: [{name: a, provider: mock}, {name: b, provider: mock}]"
    with pytest.raises(UsageError, match=r"say --target NAME \(available: a, b\)"):
        catalog(root, two).default_target()
    found = catalog(root, two, AGENT_PROVIDER="cli")
    assert found.resolve(found.default_target()).provider == "cli"
    assert found.names == ("a", "b")
    only = "targets: [{name: a, provider: mock}]"
    assert catalog(root, only).default_target() == "a"
    assert catalog(root, only, AGENT_PROVIDER="").default_target() == "a"
    named = "targets: [{name: a, provider: mock}, {name: default, provider: mock}]"
    assert catalog(root, named).default_target() == "default"


def test_agent_provider_is_a_provider_even_if_a_target_has_its_name(root: Path) -> None:
    found = catalog(
        root, "targets: [{name: mock, provider: openai, model: m}]", AGENT_PROVIDER="mock"
    )
    name = found.default_target()
    assert found.resolve(name).provider == "mock"
    assert found.resolve("mock").provider == "openai"


def test_targets_that_a_suite_defines(root: Path, tmp_path: Path) -> None:
    found = catalog(root, "targets: [{name: a, provider: mock}]")
    document = parse_yaml(
        "providers:\n  - id: openai:m\n    config: {temprature: 0}\n", Path("s.yaml")
    )
    raw = document.data["providers"][0]
    found.add_inline("mine", raw, tmp_path / "evals", Place(document, ("providers", 0)))
    with pytest.raises(ConfigError) as caught:
        found.resolve("mine")
    assert str(caught.value).startswith("s.yaml:3:14: providers[0].config.temprature: unknown")
    found.add_inline("a", {"provider": "openai", "model": "m"}, tmp_path / "evals")
    assert found.resolve("a").provider == "openai"
    assert found.resolve("a").base_dir == tmp_path / "evals"
    found.add_inline("spec", "openai:gpt", tmp_path)
    assert found.resolve("spec").config == {"model": "gpt"}
    with pytest.raises(ConfigError, match="expected a target"):
        found.add_inline("bad", 3, tmp_path)  # type: ignore[arg-type]


# --- variables and secrets ------------------------------------------------------------------------

SECRETS = """
targets:
  - name: a
    provider: openai
    model: ${{ MODEL:-gpt }}
    base_url: https://${{ HOST }}/v1
    api_key: ${{ KEY }}
    headers: {X-Trace: on, Authorization: "Bearer {{ env.TOKEN }}"}
  - name: unset
    provider: openai
    model: m
    api_key: ${{ OPENAI_API_KEY }}
    headers: {X: "${{ KEZ }}"}
  - {name: literal, provider: openai, model: m, api_key: sk-in-the-file}
"""


def test_variables_are_filled_in_and_secrets_marked(root: Path) -> None:
    found = catalog(root, SECRETS, HOST="h", KEY="sk-12345", TOKEN="tok-6789")
    target = found.resolve("a")
    assert target.config == {
        "model": "gpt",
        "base_url": "https://h/v1",
        "api_key": "sk-12345",
        "headers": {"X-Trace": "on", "Authorization": "Bearer tok-6789"},
    }
    assert type(target.config["api_key"]) is Secret
    assert type(target.config["headers"]["Authorization"]) is Secret
    assert type(target.config["base_url"]) is str
    assert found.warnings == ()
    shown = json.dumps(masked_config(target)) + repr(target.config)
    assert "sk-12345" not in shown
    assert "tok-6789" not in shown
    assert "tok-6789" not in Masker(secret_values(target.config)).mask("curl -H tok-6789")


def test_unset_variables_name_target_field_and_place(root: Path) -> None:
    found = catalog(root, SECRETS, KEY="k")
    assert mistakes(found, "unset") == [
        '12:14: targets[1].api_key: target "unset" needs the environment variable '
        "OPENAI_API_KEY, which is not set",
        '13:18: targets[1].headers.X: target "unset" needs the environment variable KEZ, '
        "which is not set (near: KEY)",
    ]
    assert "which is empty" in mistakes(catalog(root, SECRETS, OPENAI_API_KEY=""), "unset")[0]


def test_a_literal_secret_is_read_with_a_warning(root: Path) -> None:
    found = catalog(root, SECRETS)
    assert type(found.resolve("literal").config["api_key"]) is Secret
    assert found.warnings == (
        f"{found.path}:14:58: targets[2].api_key: a secret is written in the file; "
        "better ${{ LITERAL_API_KEY }}",
    )
    assert "sk-in-the-file" not in "".join(found.warnings)


def test_secret_variables_are_secrets_wherever_they_stand(root: Path) -> None:
    found = catalog(
        root,
        "targets: [{name: a, provider: cli, command: [run, --key, '${{ MY_API_KEY }}']}]",
        MY_API_KEY="abcdef",
    )
    assert type(found.resolve("a").config["command"][2]) is Secret


def test_names_within_scripted_replies_are_no_secrets(root: Path) -> None:
    found = catalog(root, "targets: [{name: a, provider: mock, replies: [{text: hi, token: abc}]}]")
    assert type(found.resolve("a").config["replies"][0]["token"]) is str
    assert found.warnings == ()


def test_what_is_nearly_a_variable_is_warned_about(root: Path) -> None:
    found = catalog(root, "targets: [{name: a, provider: openai, model: '${{ MY-MODEL }}'}]")
    assert found.resolve("a").config == {"model": "${{ MY-MODEL }}"}
    assert '"${{ MY-MODEL }}" stays as it is' in found.warnings[0]


# --- what a factory has against a target ----------------------------------------------------------


def test_settings_are_told_with_their_places(root: Path) -> None:
    found = catalog(
        root,
        "targets:\n  - name: a\n    provider: openai\n    deployment: [x]\n"
        "    config:\n      temperature: hot\n      headers: {X: 1}\n      api_key: ${{ KEY }}\n",
        KEY="12345678",
    )
    target = found.resolve("a")
    with pytest.raises(ConfigError) as caught:
        found.validate_settings(target, ModelApi)
    assert [line.removeprefix(f"{found.path}:") for line in str(caught.value).splitlines()] == [
        "4:17: targets[0].deployment: expected string, found a list",
        '6:20: targets[0].config.temperature: expected number, found "hot"',
        "7:20: targets[0].config.headers.X: expected string, found 1",
    ]


def test_a_required_setting_that_is_missing(root: Path) -> None:
    found = catalog(root, "targets:\n  - {name: a, provider: openai}\n")
    with pytest.raises(ConfigError) as caught:
        found.validate_settings(found.resolve("a"), ModelApi)
    assert str(caught.value) == f'{found.path}:2:5: targets[0].model: "model" is required'
    with pytest.raises(ConfigError) as caught:
        found.validate_settings(found.resolve("openai"), ModelApi)
    assert str(caught.value) == 'model: target "openai": "model" is required'


def test_good_settings_are_returned(root: Path) -> None:
    found = catalog(root, FULL)
    assert found.validate_settings(found.resolve("full"), ModelApi).temperature == 0


def test_secrets_do_not_come_out_in_messages(root: Path) -> None:
    class Picky(BaseModel):
        api_key: int

    found = catalog(
        root, "targets: [{name: a, provider: x, api_key: '${{ KEY }}'}]", KEY="sk-12345"
    )
    target = found.resolve("a")
    with pytest.raises(ConfigError) as caught:
        found.validate_settings(target, Picky)
    assert "found a secret" in str(caught.value)
    with pytest.raises(ConfigError) as caught, found.locating(target):
        raise MusterError("cannot use sk-12345")
    assert str(caught.value).endswith("targets[0]: cannot use **********")


def test_unknown_providers_are_told_with_their_places(root: Path) -> None:
    found = catalog(
        root, "targets:\n  - name: a\n    provider: openia\n  - {name: b, provider: codex-sdk}\n"
    )
    with pytest.raises(ConfigError) as caught, found.locating(found.resolve("a")):
        raise UnknownName('unknown provider "openia"')
    assert str(caught.value) == (
        f'{found.path}:3:15: targets[0].provider: unknown provider "openia"'
    )
    with pytest.raises(ConfigError) as caught, found.locating(found.resolve("b")):
        raise UnknownName('unknown provider "codex-sdk"')
    assert '"codex-sdk" is a kind of AgentV\'s that Muster does not have' in str(caught.value)
    with (
        pytest.raises(ConfigError, match=r":2:5: targets\[0\]: broken"),
        found.locating(found.resolve("a")),
    ):
        raise CodeError("broken")
    found.add_inline("c", {"provider": "pkg.mod:Factory"}, root, Place(parse_yaml("{}", Path("s"))))
    with (
        pytest.raises(ConfigError, match=r"^s:1:1: provider: broken"),
        found.locating(found.resolve("c")),
    ):
        raise CodeError("broken")


def test_what_no_file_says_is_told_as_it_is(root: Path) -> None:
    found = catalog(root, AGENT_PROVIDER="myprovider")
    target = found.resolve(found.default_target())
    with (
        pytest.raises(UnknownName, match=r'^unknown provider "myprovider"$'),
        found.locating(target),
    ):
        raise UnknownName('unknown provider "myprovider"')


# --- the schema -----------------------------------------------------------------------------------


def schema_errors(text: str) -> list[str]:
    schema = targets_schema(SETTINGS)
    for made in (schema, targets_schema()):
        jsonschema.Draft202012Validator.check_schema(made)
    validator = jsonschema.Draft202012Validator(schema)
    return [error.message for error in validator.iter_errors(parse_yaml(text).data)]


@pytest.mark.parametrize(
    "text",
    [
        FULL,
        SECRETS,
        "targets: [{name: a, provider: custom, anything: 1, workers: '${{ N }}'}]",
        "- {id: openai:m, label: x}\n- mock\n- openai:gpt: {config: {}}",
        "providers: file://x.yaml",
    ],
)
def test_the_schema_accepts_what_is_good(text: str) -> None:
    assert schema_errors(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "target: []",
        "targets: [{provider: mock}]",
        "targets: [{name: a, provider: mock, workers: 0}]",
        "targets: [{name: a, provider: openai, temperature: hot}]",
        "targets: [{name: a, provider: openai, config: {temperature: hot}}]",
    ],
)
def test_the_schema_refuses_what_is_not(text: str) -> None:
    assert schema_errors(text)

"""What counts as a secret, and that it does not come out."""

from __future__ import annotations

import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.config.secrets import (
    MASK,
    Masker,
    environment_secrets,
    is_secret_name,
    is_secret_variable,
    masked_config,
    secret_values,
)
from muster.target import ResolvedTarget, Secret


@pytest.mark.parametrize("name", ["api_key", "apiKey", "API_KEY", "x-api-key", "password"])
@pytest.mark.parametrize("prefix", ["", "db_", "my-"])
def test_secret_names(prefix: str, name: str) -> None:
    assert is_secret_name(prefix + name)


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("Authorization", True),
        ("Proxy-Authorization", True),
        ("githubToken", True),
        ("bearer_token", True),
        ("AWS_SECRET_ACCESS_KEY", True),
        ("client_secret", True),
        ("Ocp-Apim-Subscription-Key", True),
        ("cookie", True),
        ("key", False),
        ("max_output_tokens", False),
        ("tokens_per_minute", False),
        ("token_usage", False),
        ("api_key_env", False),
        ("keyboard", False),
        ("author", False),
        ("secretary", False),
    ],
)
def test_names(name: str, secret: bool) -> None:
    assert is_secret_name(name) is secret


def test_variables_called_key_are_secrets() -> None:
    assert is_secret_variable("OPENAI_KEY")
    variables = {"OPENAI_KEY": "abcd-efgh", "PATH": "/usr/bin:/bin", "DB_PASSWORD": "true"}
    assert environment_secrets(variables) == {"abcd-efgh"}


def test_the_working_folder_is_no_secret() -> None:
    """The shell's `PWD` is called like a password, and stands in every message about a file."""
    assert environment_secrets({"PWD": "/home/ada/project", "OLDPWD": "/home/ada/old"}) == set()
    assert is_secret_name("pwd")


def test_texts_are_masked() -> None:
    masker = Masker(["sk-12345", "sk-12345-longer", 'q"uo te/ü'])
    assert masker.mask("a sk-12345-longer b sk-12345.") == f"a {MASK} b {MASK}."


@given(st.text(min_size=4).filter(lambda value: len(value.strip()) >= 4))
def test_escaped_forms_are_masked_too(secret: str) -> None:
    secret = secret.strip()
    masker = Masker([secret])
    for form in (
        secret,
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        *([quote(secret, safe=""), quote_plus(secret)] if _encodes(secret) else []),
    ):
        assert masker.mask(f"<{form}>") == f"<{MASK}>" or not masker
        if _encodes(secret):
            assert masker.found_in(f"<{form}>".encode()) or not masker


def _encodes(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def test_with_nothing_to_mask_the_same_object_comes_back() -> None:
    text = "nothing here"
    assert Masker([]).mask(text) is text
    assert Masker(["sk-12345"]).mask(text) is text
    assert not Masker([])


@pytest.mark.parametrize("value", ["", "abc", "none", "Dummy", "ollama"])
def test_short_values_and_placeholders_are_left_alone(value: str) -> None:
    assert Masker([value]).mask(f"the {value} model") == f"the {value} model"


def test_secrets_of_a_configuration() -> None:
    config = {
        "api_key": Secret("sk-12345"),
        "headers": {"Authorization": Secret("Bearer tok-6789")},
        "argv": ["run", Secret("pw-abcde")],
        "model": "gpt",
        "retries": 3,
    }
    assert secret_values(config) == {"sk-12345", "Bearer tok-6789", "tok-6789", "pw-abcde"}
    target = ResolvedTarget(name="t", provider="p", config=config)
    assert masked_config(target) == {
        "api_key": MASK,
        "headers": {"Authorization": MASK},
        "argv": ["run", MASK],
        "model": "gpt",
        "retries": 3,
    }
    assert "sk-12345" not in repr(target)


def test_secrets_may_be_learned_later() -> None:
    masker = Masker(())
    assert not masker
    assert masker.mask("the first-secret") == "the first-secret"
    masker.add(["first-secret"])
    masker.add(["first-secret-and-more"])
    assert masker.mask("a first-secret, a first-secret-and-more") == f"a {MASK}, a {MASK}"
    assert masker.found_in(b"first-secret")

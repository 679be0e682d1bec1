"""Pydantic's findings, told with places and the nearest names."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from pydantic import AliasChoices, Field

from muster.config.document import Place, parse_yaml
from muster.config.validation import FileModel, field_names, problems_at, validate
from muster.errors import ConfigError
from muster.target import Secret


class Inner(FileModel):
    size: int = 1
    kind: Literal["small", "large"] = "small"


class Outer(FileModel):
    name: str
    inner: Inner = Inner()
    many: list[Inner] = Field(default_factory=list)
    either: int | list[str] = 0
    url: str | None = Field(None, validation_alias=AliasChoices("url", "endpoint"))


class Aliased(FileModel):
    inner_: Inner = Field(Inner(), alias="as")
    deeper: list[Inner] = Field(default_factory=list, alias="if")


def messages(text: str) -> list[str]:
    document = parse_yaml(text, Path("f.yaml"))
    with pytest.raises(ConfigError) as caught:
        validate(Outer, document.data["it"], document, ("it",))
    return str(caught.value).splitlines()


def test_unknown_fields_name_the_nearest() -> None:
    assert messages("it:\n  nmae: x\n  name: x\n") == [
        'f.yaml:2:3: it.nmae: unknown field "nmae" (did you mean "name"?)'
    ]


def test_unknown_fields_within_lists_know_their_own_model() -> None:
    assert messages("it:\n  name: x\n  many:\n    - size: 1\n    - sise: 2\n") == [
        'f.yaml:5:7: it.many[1].sise: unknown field "sise" (did you mean "size"?)'
    ]


def test_unknown_fields_within_fields_of_another_name() -> None:
    document = parse_yaml("as: {knid: small}\nif: [{sise: 1}]\n")
    with pytest.raises(ConfigError) as caught:
        validate(Aliased, document.data, document)
    assert str(caught.value).splitlines() == [
        'line 1:6: as.knid: unknown field "knid" (did you mean "kind"?)',
        'line 2:7: if[0].sise: unknown field "sise" (did you mean "size"?)',
    ]


def test_with_nothing_near_all_are_told() -> None:
    (message,) = messages("it: {name: x, inner: {zzz: 1}}")
    assert message.endswith('unknown field "zzz" (known: kind, size)')


def test_every_mistake_is_told_with_its_place() -> None:
    assert messages("it:\n  inner: {size: many, kind: huge}\n  either: {}\n") == [
        'f.yaml:2:3: it.name: "name" is required',
        'f.yaml:2:17: it.inner.size: expected integer, found "many"',
        "f.yaml:2:29: it.inner.kind: expected 'small' or 'large', found \"huge\"",
        "f.yaml:3:11: it.either: expected integer or a list, found a mapping",
    ]


class Odd(FileModel):
    mapping: dict[str, int] = Field(default_factory=dict)
    model: Inner = Inner()
    words: list[str] = Field(default_factory=list, min_length=1, max_length=2)
    pair: tuple[int, int] = (0, 0)
    flag: bool = False
    whole: int = 0
    number: float = 0
    code: str = Field("ab", min_length=2, max_length=3, pattern="[a-z]+")
    none: None = None
    share: float = Field(0, ge=0, lt=1)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("mapping: 1", "mapping: expected a mapping, found 1"),
        ("model: text", 'model: expected a mapping, found "text"'),
        ("model:", "model: expected a mapping, found nothing"),
        ("words: {}", "words: expected a list, found a mapping"),
        ("words: []", "words: expected at least 1 item, found 0"),
        ("words: [a, b, c]", "words: expected at most 2 items, found 3"),
        ("pair: [1]", 'pair[1]: "1" is required'),
        ("flag: 3", "flag: expected true or false, found 3"),
        ("flag: maybe", 'flag: expected true or false, found "maybe"'),
        ("whole: 1.5", "whole: expected integer, found 1.5"),
        ("number: much", 'number: expected number, found "much"'),
        ("code: a", 'code: expected at least 2 characters, found "a"'),
        ("code: abcd", 'code: expected at most 3 characters, found "abcd"'),
        ("code: '77'", 'code: expected a text that matches [a-z]+, found "77"'),
        ("none: 1", "none: expected nothing, found 1"),
        ("share: 1", "share: expected less than 1, found 1"),
        ("share: -1", "share: expected greater than or equal to 0, found -1"),
    ],
)
def test_what_was_expected_is_said_in_words_of_people(text: str, told: str) -> None:
    document = parse_yaml(text)
    with pytest.raises(ConfigError) as caught:
        validate(Odd, document.data, document)
    message = str(caught.value)
    assert message.partition(": ")[2] == told


def test_what_is_good_is_returned() -> None:
    document = parse_yaml("name: x\nendpoint: u\n")
    assert validate(Outer, document.data, document) == Outer(name="x", url="u")


def test_names_and_aliases_are_known() -> None:
    assert field_names(Outer) == {"name", "inner", "many", "either", "url", "endpoint"}


def test_secrets_are_not_shown() -> None:
    document = parse_yaml("size: '{}'")
    with pytest.raises(ConfigError) as caught:
        validate(Inner, {"size": Secret("hush-hush")}, document)
    assert str(caught.value) == "line 1:7: size: expected integer, found a secret"


def test_data_gathered_from_several_places() -> None:
    first, second = parse_yaml("a: {size: x}", Path("1")), parse_yaml("b: y", Path("2"))
    places = {"size": Place(first, ("a", "size")), "kind": Place(second, ("b",))}
    try:
        Inner.model_validate({"size": "x", "kind": "y"})
    except ValueError as error:
        found = problems_at(error, Inner, lambda loc: (places[str(loc[0])], loc[1:]))  # type: ignore[arg-type]
    assert [(str(p.path), p.line, p.field) for p in found] == [("1", 1, "a.size"), ("2", 1, "b")]

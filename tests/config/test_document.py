"""YAML and JSON with places: what is read, what is refused, and where it is said to stand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.config.document import (
    Mark,
    Place,
    parse_documents,
    parse_yaml,
    read_text,
    read_yaml,
    read_yaml_documents,
)
from muster.errors import ConfigError


def problem(text: str, path: Path | None = Path("f.yaml")) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("False", False),
        ("yes", "yes"),
        ("off", "off"),
        ("y", "y"),
        ("~", None),
        ("", None),
        ("12", 12),
        ("-0.5e3", -500.0),
        ("1e-6", 1e-6),
        ("6.", 6.0),
        ("0x1F", 31),
        ("0o17", 15),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("2024-01-02", "2024-01-02"),
        (".inf", math.inf),
        ("'12'", "12"),
        ("!!str 12", "12"),
        ("!!int '12'", 12),
        ("'<<'", "<<"),
        ("=", "="),
        ("|\n  true\n", "true\n"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    assert parse_yaml(f"a: {text}").data == {"a": value}


def test_keys_stay_text() -> None:
    assert parse_yaml("1: a\non: b\nnull: c\ntrue: d").data == {
        "1": "a",
        "on": "b",
        "null": "c",
        "true": "d",
    }


def test_a_syntax_error_has_file_line_and_column() -> None:
    assert problem("a: 1\nb: [1, 2\nc: 3\n").startswith("f.yaml:3:2: not valid YAML: ")


def test_a_tab_is_called_a_tab() -> None:
    message = problem("a:\n\tb: 1\n")
    assert message.startswith("f.yaml:2:1: ")
    assert "a tab is used to indent" in message


def test_duplicate_keys_are_told_all_at_once() -> None:
    assert problem("a: 1\nb: {c: 1, c: 2}\na: 3\n").splitlines() == [
        'f.yaml:2:11: duplicate key "c"',
        'f.yaml:3:1: duplicate key "a"',
    ]


def test_keys_that_are_lists_are_refused() -> None:
    assert problem("? [a, b]\n: 1\n") == "f.yaml:1:3: a key must be text"


def test_two_documents_are_refused() -> None:
    assert "f.yaml:2:1" in problem("a: 1\n---\nb: 2\n")


def test_merge_keys_give_way_to_what_is_written() -> None:
    document = parse_yaml(
        "base: &b {x: 1, y: 2}\nuse:\n  <<: *b\n  y: 3\nboth:\n  <<: [*b, {z: 4}]\n"
    )
    assert document.data["use"] == {"x": 1, "y": 3}
    assert document.data["both"] == {"x": 1, "y": 2, "z": 4}
    assert document.mark(("use", "x")) == Mark(1, 14)
    assert document.mark(("use", "y")) == Mark(4, 6)


def test_merging_what_is_no_mapping_is_refused() -> None:
    assert "takes a mapping" in problem("a: &a [1]\nb:\n  <<: *a\n")


def test_billion_laughs_are_stopped() -> None:
    lines = [f"a0: &a0 [{', '.join(['lol'] * 10)}]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert "aliases unfold to more than" in problem("\n".join(lines))


def test_an_anchor_within_itself_is_refused() -> None:
    assert "an anchor that contains itself" in problem("a: &a [*a]")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 101 + "]" * 101,
        "[" * 200_000 + "]" * 200_000,
        '{"a":' * 5_000 + "1" + "}" * 5_000,
        "- " * 50_000 + "a",
        "\n".join(" " * n + "a:" for n in range(150)),
    ],
    ids=["one too many", "flow", "mappings", "one line", "indented"],
)
def test_bottomless_nesting_is_refused(text: str) -> None:
    assert problem(text).endswith("nested more than 100 levels deep")


def test_many_brackets_in_texts_are_no_nesting() -> None:
    text = "".join(f'- "[{{ number {n} (["\n' for n in range(8_000))
    assert len(parse_yaml(text).data) == 8_000


def test_a_hundred_levels_are_read() -> None:
    value = parse_yaml("[" * 100 + "]" * 100).data
    for _ in range(99):
        (value,) = value
    assert value == []


def test_tags_run_nothing() -> None:
    assert parse_yaml("!!python/object/apply:os.system [echo]").data == ["echo"]


def test_files_with_bom_and_crlf(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: x\r\n")
    document = read_yaml(path)
    assert document.data == {"a": 1, "b": "x"}
    assert document.mark(("b",)) == Mark(2, 4)


def test_files_that_are_not_utf8_say_the_line(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"a: 1\nb: caf\xe9\n")
    with pytest.raises(ConfigError, match=r"a\.yaml:2: not UTF-8 text"):
        read_yaml(path)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read_text(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_text(tmp_path)


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(10**15), 10**15)
        | st.text(st.characters(exclude_categories=["Cs", "Cc"]))
        | st.just("😀\t\n\\ud83d"),
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(st.text("ab😀", max_size=3), inner)
        ),
        max_leaves=12,
    ),
    st.sampled_from([None, 2, "\t"]),
    st.booleans(),
)
def test_json_files_are_read_as_json(
    tmp_path_factory: pytest.TempPathFactory,
    value: object,
    indent: int | str | None,
    ascii_only: bool,
) -> None:
    path = tmp_path_factory.mktemp("json") / "a.json"
    path.write_text(json.dumps(value, indent=indent, ensure_ascii=ascii_only), encoding="utf-8")
    assert read_yaml(path).data == value


def test_places_stop_at_what_is_there() -> None:
    document = parse_yaml("a:\n  - b: 1\n    c: 2\n", Path("f.yaml"), line_offset=10)
    assert document.mark(("a", 0, "c")) == Mark(13, 8)
    assert document.mark(("a", 0, "c"), of_key=True) == Mark(13, 5)
    assert document.mark(("a", 0, "missing", "deep")) == Mark(12, 5)
    problem = Place(document, ("a",)).at(0, "b").problem("is odd")
    assert str(problem) == "f.yaml:12:8: a[0].b: is odd"


def test_data_without_a_file_has_no_place() -> None:
    problem = Place(parse_yaml("")).at("a").problem("is odd")
    assert str(problem) == "a: is odd"


# --- several documents --------------------------------------------------------------------------


def test_documents_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_text("# begins\n---\na: 1\n---\n---\n# nothing\n--- {b: [2,\n  x]}\n...\n")
    first, second = read_yaml_documents(path)
    assert (first.data, second.data) == ({"a": 1}, {"b": [2, "x"]})
    assert first.mark(["a"]) == Mark(3, 4)
    assert second.mark(["b", 1]) == Mark(8, 3)
    assert str(second.problem(["b"], "no")) == f"{path}:7:9: b: no"


def test_documents_of_a_json_file(tmp_path: Path) -> None:
    path = tmp_path / "f.json"
    path.write_text('{\n\t"a": "\\ud83d\\ude00"}')
    (only,) = read_yaml_documents(path)
    assert only.data == {"a": "\U0001f600"}


def test_no_documents() -> None:
    assert parse_documents("") == []
    assert parse_documents("---\n---\n") == []


def test_what_is_wrong_with_a_later_document() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_documents("a: 1\n---\nb: 1\nb: 2\n", Path("f.yaml"))
    assert str(caught.value) == 'f.yaml:4:1: duplicate key "b"'
    with pytest.raises(ConfigError) as caught:
        parse_documents("a: 1\n---\nb: ]\n", Path("f.yaml"))
    assert str(caught.value).startswith("f.yaml:3:4: not valid YAML: ")


def test_anchors_belong_to_their_document() -> None:
    with pytest.raises(ConfigError, match="undefined alias"):
        parse_documents("a: &x 1\n---\nb: *x\n", Path("f.yaml"))

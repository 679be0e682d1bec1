"""The functions beyond Go's own."""

from __future__ import annotations

import pytest

from muster.teams.template import TemplateError

from .data import render

DATA = {
    "n": 7,
    "f": 2.5,
    "t": "a b",
    "l": ["b", "a", "b", 1, 1.0, None],
    "m": {"z": 1, "a": {"x": 1}},
    "e": {},
}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("upper .t", "A B"),
        ('lower "ÄB"', "äb"),
        ('title "don\'t go_on élan"', "Don'T Go_on Élan"),
        ('trim "  a "', "a"),
        ('trimAll "$" "$5$"', "5"),
        ('trimPrefix "-" "--a"', "-a"),
        ('trimSuffix "a" "aa"', "a"),
        ('nospace "a b\\n c"', "abc"),
        ('replace "a" "bb" "aXa"', "bbXbb"),
        ('"aXa" | replace "a" ""', "X"),
        ('contains "b" .t', "true"),
        ('hasPrefix "a" .t', "true"),
        ('hasSuffix "a" .t', "false"),
        ('(split "$" "foo$bar")._1', "bar"),
        ('splitList "," "a,b,"', "[a b ]"),
        ('splitList "" "añ"', "[a ñ]"),
        ('join "-" .l', "b-a-b-1-1"),
        ('join "-" "solo"', "solo"),
        ("repeat 3 .t", "a ba ba b"),
        ('substr 1 3 "hello"', "el"),
        ('substr -1 3 "hello"', "hel"),
        ('substr 3 -1 "hello"', "lo"),
        ('trunc 2 "héllo"', "hé"),
        ('trunc -2 "hello"', "lo"),
        ('trunc 9 "hello"', "hello"),
        ('abbrev 6 "hello world"', "hel..."),
        ('abbrev 3 "hello"', "hello"),
        ('quote "a\\"b" 1 nil', '"a\\"b" "1"'),
        ('squote "a" 1.5', "'a' '1.5'"),
        ('cat "a" 1 nil true', "a 1 true"),
        ('indent 2 "a\\nb"', "  a\n  b"),
        ('nindent 2 "a\\nb"', "\n  a\n  b"),
        ('b64enc "hé"', "aMOp"),
        ('b64dec "aMOp"', "hé"),
        ('sha256sum ""', "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        ('regexMatch "^a.b$" .t', "true"),
        ('regexFind "[0-9]+" "a12b3"', "12"),
        ('regexFind "x" "a"', ""),
        ('regexReplaceAll "(?P<x>a)(b)?" "abxa" "<${x}$2$$$9>"', "<ab$>x<a$>"),
        ("list 1 .f .t", "[1 2.5 a b]"),
        ("first .l", "b"),
        ("last (initial .l)", "1"),
        ("rest (list 1 2 3)", "[2 3]"),
        ("initial (list 1 2 3)", "[1 2]"),
        ("append (list 1) 2", "[1 2]"),
        ("prepend (list 1) 2", "[2 1]"),
        ("concat (list 1) (list) (list 2 3)", "[1 2 3]"),
        ("uniq .l", "[b a 1 <nil>]"),
        ('uniq (list (dict "a" 1 "b" 2) (dict "b" 2.0 "a" 1.0) true 1)', "[map[a:1 b:2] true 1]"),
        ("has 1 .l", "true"),
        ('has "1" .l', "false"),
        ("has 1 nil", "false"),
        ('without .l "b" nil', "[a 1 1]"),
        ("reverse (list 1 2 3)", "[3 2 1]"),
        ('sortAlpha (list "b" "a" 10 9)', "[10 9 a b]"),
        ('dict "b" 1 "a" (list)', "map[a:[] b:1]"),
        ('get .m "z"', "1"),
        ('get .m "q"', ""),
        ('hasKey .m "q"', "false"),
        ("keys .m .e", "[a z]"),
        ("values .m", "[map[x:1] 1]"),
        ('pick .m "z" "q"', "map[z:1]"),
        ('omit .m "z"', "map[a:map[x:1]]"),
        (
            'merge (dict "z" 0) .m (dict "a" (dict "x" 5 "y" 6))',
            "map[a:map[x:1 y:6] z:0]",
        ),
        ("int .f", "2"),
        ('int " 42 "', "42"),
        ('int "2.9"', "2"),
        ("int -2.9", "-2"),
        ("int true", "1"),
        ("int 12345678901.0", "12345678901"),
        ("int64 .n", "7"),
        ('float64 "2.5"', "2.5"),
        ("float64 3", "3"),
        ("add .n 1", "8"),
        ("add 1 2 3", "6"),
        ("add .f 1", "3.5"),
        ("add 999999 1", "1000000"),
        ("sub .n 10", "-3"),
        ("mul 2 3 4", "24"),
        ("div .n 2", "3"),
        ("div -7 2", "-3"),
        ("div .f 2", "1.25"),
        ("mod -7 2", "-1"),
        ("max 1 .n 3", "7"),
        ("min 1 .n .f", "1"),
        ("round .f", "3"),
        ("round -2.5", "-3"),
        ("round 3.14159 2", "3.14"),
        ("round 1.005 2", "1.01"),
        ("round 1234.0 -2", "1200"),
        ("floor -1.5", "-2"),
        ("ceil 1.2", "2"),
        ("toString 1.5", "1.5"),
        (
            'toJson (dict "b" 3.0 "a" (list nil true "<é>" 0.1))',
            '{"a":[null,true,"<é>",0.1],"b":3}',
        ),
        ("json .m", '{"a":{"x":1},"z":1}'),
        ('toPrettyJson (dict "a" 1)', '{\n  "a": 1\n}'),
        ('(fromJson `{"a": [1, 2]}`).a', "[1 2]"),
        ('default "d" ""', "d"),
        ('default "d" 0', "d"),
        ('default "d"', "d"),
        ('default "d" false', "d"),
        ("empty .e", "true"),
        ('coalesce 0 "" "c"', "c"),
        ('ternary "y" "n" true', "y"),
        ('true | ternary "y" "n"', "y"),
    ],
)
def test_function(source: str, expected: str) -> None:
    assert render(f"{{{{ {source} }}}}", DATA) == expected


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("upper 3", "upper: the text must be text, not a number; write toString or toJson first"),
        ("upper .m", "upper: the text must be text, not a mapping"),
        ("repeat -1 .t", "repeat: the count is -1, below zero"),
        ("repeat 1.5 .t", "repeat: the count must be a whole number, not 1.5"),
        ('int "x1"', 'int: "x1" is not a number'),
        ("int .m", "int: a mapping is not a number"),
        ("add 1 .t", "add: an operand must be a number, not text; write int or float64 first"),
        ("add 1 true", "add: an operand must be a number, not a boolean"),
        ("div 1 0", "div: division by zero"),
        ("mod 1.5 0", "mod: division by zero"),
        ('dict "a"', "dict: takes a value for every key; the last key has none"),
        ("dict 1 2", "dict: a key must be text, not a number"),
        ('set .m "k" 1', "set: the data cannot be changed, only what the template made; use merge"),
        ("first .t", "first: the list must be a list, not text"),
        ("keys .l", "keys: the mapping must be a mapping, not a list"),
        ('fromJson "{"', "fromJson: this is not JSON: Expecting property name"),
        ('fromJson "NaN"', "fromJson: this is not JSON: NaN is no value of JSON"),
        ('b64dec "*"', "b64dec: this is not text in Base64"),
        ('regexMatch "(" .t', "regexMatch: '(' is not a pattern: missing )"),
        ("printf 3", "printf: the format must be text, not a number"),
        ("first (list)", "first (list) is null"),
    ],
)
def test_what_a_function_cannot_do(source: str, message: str) -> None:
    with pytest.raises(TemplateError) as error:
        render(f"{{{{ {source} }}}}", DATA)
    assert str(error.value).startswith(f"line 1:4: {message}")


def test_set_changes_what_the_template_made() -> None:
    source = '{{ $d := dict "a" 1 }}{{ $_ := set $d "b" 2 }}{{ $d }}'
    assert render(source) == "map[a:1 b:2]"
    source = '{{ $d := fromJson "{}" }}{{ $_ := set $d "b" 2 }}{{ $d }}'
    assert render(source) == "map[b:2]"


def test_functions_that_need_a_clock_or_chance_are_not_there() -> None:
    from muster.errors import ConfigError
    from muster.teams.template import Template

    for name in ("now", "date", "env", "randAlpha", "uuidv4", "genPrivateKey", "getHostByName"):
        with pytest.raises(ConfigError, match=f'function "{name}" not defined'):
            Template.compile(f"{{{{ {name} }}}}")

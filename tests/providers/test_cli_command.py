import os
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muster.providers.cli_command import Command, check_files_format

VALUES = {
    "PROMPT": "what?",
    "PROMPT_FILE": "/tmp/x/prompt.txt",
    "OUTPUT_FILE": "/tmp/x/output.json",
    "EVAL_ID": "a/b c'$(touch x)'",
    "ATTEMPT": "2",
}


def argv(command, files=(), files_format="{path}", **values) -> list[str]:
    made = Command(command, files_format)
    known = {**VALUES, **values}
    return made.argv({name: known[name] for name in made.uses if name != "FILES"}, files)


def said(command, files=(), files_format="{path}", **values) -> list[str]:
    """The lines that running it prints."""
    done = subprocess.run(
        argv(command, files, files_format, **values), capture_output=True, check=True
    )
    return os.fsdecode(done.stdout).split("\n")[:-1]


def test_text_that_starts_one_program_needs_no_shell():
    assert argv("cp  {PROMPT_FILE}\t{OUTPUT_FILE}\n") == [
        "cp",
        "/tmp/x/prompt.txt",
        "/tmp/x/output.json",
    ]
    assert argv("agent --id={EVAL_ID} --try={ATTEMPT}/3 x") == [
        "agent",
        f"--id={VALUES['EVAL_ID']}",
        "--try=2/3",
        "x",
    ]
    assert argv("agent {PROMPT}", PROMPT="") == ["agent", ""]


@pytest.mark.parametrize(
    "command",
    [
        "a | b",
        "a; b",
        "a && b",
        "a > {OUTPUT_FILE}",
        "a $HOME",
        "a *",
        "a ~",
        "a 'b'",
        "a # b",
        "a\nb",
        "X=1 a",
        "cd a",
        "exec a",
        "if a",
        ". a",
        "echo a",
        "{PROMPT_FILE} a",
        "a {FILES}",
        "a {b,c}",
        "a \\b",
        "a !b",
    ],
)
def test_text_with_anything_for_a_shell_gets_one(command):
    assert argv(command)[:2] == ["/bin/sh", "-c"]
    assert Command(command).needs_shell


def test_a_list_is_taken_as_it_stands():
    assert argv(["a", "$HOME; {PROMPT}", "{EVAL_ID}", "", "*"]) == [
        "a",
        "$HOME; what?",
        VALUES["EVAL_ID"],
        "",
        "*",
    ]


NASTY = [
    "plain",
    "a b",
    "",
    "'",
    '"',
    "$(touch x)",
    "`touch x`",
    "a\nb",
    "\\",
    "*",
    "; touch x",
    "~",
]


@pytest.mark.parametrize("value", NASTY)
@pytest.mark.parametrize(
    "command",
    [
        "printf '<%s>' {PROMPT}; echo",
        "f() { printf '<%s>' {PROMPT}; }; f other; echo",
        "echo \"$(printf '<%s>' {PROMPT})\"",
        "echo `printf '<%s>' {PROMPT}` | cat",
        ["printf", "<%s>\n", "{PROMPT}"],
        "env printf <%s> {PROMPT}".replace("<%s>", "%s"),
    ],
)
def test_no_value_can_be_executed(command, value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = subprocess.run(argv(command, PROMPT=value), capture_output=True, check=True).stdout
    if "echo `" not in command:  # an unquoted substitution is split by the shell, as it should be
        assert os.fsencode(value) in out
    assert list(tmp_path.iterdir()) == []


def test_not_even_in_a_here_document(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert said("cat <<END\n{PROMPT}\nEND\n", PROMPT="`touch x` $(touch y)") == [
        '"`touch x` $(touch y)"'
    ]
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40))
def test_any_text_arrives_unchanged(text):
    done = subprocess.run(
        argv("printf '%s|%s' {PROMPT} x{EVAL_ID}", PROMPT=text, EVAL_ID=text),
        capture_output=True,
        check=True,
    )
    assert done.stdout.decode() == f"{text}|x{text}"


def test_files_each_path_quoted():
    files = ["/a/one two.txt", "/b/it's.md"]
    assert said("printf '%s\\n' {FILES}", files) == files
    assert said("printf '%s\\n' --file={FILES}", files) == [f"--file={files[0]}", files[1]]
    assert said("printf '%s\\n' none {FILES}") == ["none"]
    shown = said("printf '%s\\n' {FILES}", files, "--file {path}:{basename}")
    assert shown == [
        "--file",
        "/a/one two.txt:one two.txt",
        "--file",
        "/b/it's.md:it's.md",
    ]


def test_files_in_a_list():
    files = ["/a/one two.txt", "/b/{basename}.md"]
    assert argv(["a", "{FILES}", "z"], files) == ["a", *files, "z"]
    assert argv(["a", "{FILES}"], files, "--file {path}") == [
        "a",
        "--file",
        files[0],
        "--file",
        files[1],
    ]
    assert argv(["a", "{FILES}"]) == ["a"]
    assert argv(["a", "all: {FILES}"], files) == ["a", f"all: {files[0]} {files[1]}"]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("{{PROMPT}}", "{PROMPT}"),
        ("{{{ATTEMPT}}}", "{2}"),
        ('{{"a": {{"b": {ATTEMPT}}}}}', '{"a": {"b": 2}}'),
        ("{{{{.Names}}}}", "{{.Names}}"),
        ("${HOME}", "${HOME}"),
        ("${NAME:-{ATTEMPT}}", "${NAME:-2}"),
        ("{a,b} {} {x} { y }", "{a,b} {} {x} { y }"),
        ("awk {if(x){y}}", "awk {if(x){y}}"),
        ('{"a":{"b":1}}', '{"a":{"b":1}}'),
        ('{"a":{"b":{ATTEMPT}}}', '{"a":{"b":2}}'),
        ("{{open", "{{open"),
    ],
)
def test_braces(written, meant):
    assert argv(["run", written]) == ["run", meant]
    assert argv(f"run {written}")[-1].removeprefix("run ") == meant


@pytest.mark.parametrize("wrap", [lambda text: text, lambda text: ["run", text]])
def test_unknown_placeholders_are_told_with_neighbours_and_the_escape(wrap):
    with pytest.raises(ValueError, match="unknown placeholder") as caught:
        Command(wrap("a {PROMT} b"))
    assert str(caught.value) == (
        "unknown placeholder {PROMT} (did you mean {PROMPT}? known: {PROMPT}, {PROMPT_FILE}, "
        "{OUTPUT_FILE}, {FILES}, {EVAL_ID}, {ATTEMPT}); for literal braces write {{PROMT}}"
    )
    with pytest.raises(
        ValueError, match=r"\$\{PROMPT\} is a variable of the shell; write \{PROMPT\}"
    ):
        Command(wrap("a ${PROMPT}"))


@pytest.mark.parametrize("command", ["", "  \n", [], [""]])
def test_an_empty_command(command):
    with pytest.raises(ValueError, match="the command is empty"):
        Command(command)


@pytest.mark.parametrize(
    "command",
    [
        'a "{PROMPT}"',
        "a '{PROMPT}'",
        "bash -c 'agent {EVAL_ID}'",
        'a "x\\" {FILES}"',
        'a "$(b)" "{PROMPT}"',
        "a 'it' 's {PROMPT}'",
        'a "$(b "{PROMPT}")"',
    ],
)
def test_a_case_may_not_stand_in_quotes(command):
    with pytest.raises(ValueError, match="take it out of the quotes"):
        Command(command)


@pytest.mark.parametrize(
    "command",
    [
        "a \"x\" {PROMPT} 'y'",
        'a "$(b {PROMPT})"',
        "a \\\" {PROMPT} \\'",
        "a # don't\nb {PROMPT}",
        "bash -c 'cat {PROMPT_FILE} > {OUTPUT_FILE}'",
        "python -c \"open('{OUTPUT_FILE}')\"",
        "bash -c 'agent \"$1\"' bash {PROMPT}",
    ],
)
def test_but_beside_quotes_and_our_own_files_anywhere(command):
    Command(command)


def test_files_format():
    check_files_format("--file {path}")
    with pytest.raises(ValueError, match=r"needs \{path\} or \{basename\}"):
        check_files_format("--file")
    with pytest.raises(ValueError, match="out of the quotes"):
        check_files_format('--file "{path}"')

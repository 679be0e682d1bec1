import asyncio
import logging
import os
import stat
import sys
import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from children import all_gone, pids_in
from muster.errors import MusterError
from muster.provider import (
    BadProviderOutput,
    BadRequest,
    LimitExceeded,
    Limits,
    Message,
    ProviderError,
    ProviderFailed,
    ProviderRequest,
    ProviderTimeout,
    TokenUsage,
)
from muster.providers import providers
from muster.providers.cli import CliProvider
from muster.providers.create import create_provider
from muster.target import ResolvedTarget, Secret


@pytest.fixture(autouse=True)
def temp(tmp_path, monkeypatch):
    """The folder for temporary files; nothing may be left in it."""
    folder = tmp_path / "temp"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    yield folder
    assert list(folder.glob("*")) == []


@pytest.fixture
def make(tmp_path):
    """Makes a provider whose targets file stands in `tmp_path`."""

    def make(command, **options) -> CliProvider:
        names = ("timeout_seconds", "env", "safe")
        target = {
            name: options.pop(f"target_{name}") for name in names if f"target_{name}" in options
        }
        return CliProvider(
            ResolvedTarget(
                name="agent",
                provider="cli",
                config={"command": command, **options},
                base_dir=tmp_path,
                **target,
            )
        )

    return make


@pytest.fixture
def ask(make):
    """Makes a provider and asks it one question."""

    async def ask(command, question="hello", *, request=None, **options):
        fields = request or {}
        return await make(command, **options).invoke(ProviderRequest(question=question, **fields))

    return ask


# --- what the command is told --------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        "cp {PROMPT_FILE} {OUTPUT_FILE}",
        ["cp", "{PROMPT_FILE}", "{OUTPUT_FILE}"],
        "cat < {PROMPT_FILE} > {OUTPUT_FILE}",
        "printf %s {PROMPT} > {OUTPUT_FILE}",
        "cat {PROMPT_FILE}",
        ["printf", "%s", "{PROMPT}"],
    ],
)
async def test_the_question_goes_in_and_the_answer_comes_out(ask, command):
    response = await ask(command, "Größe: 'x' $(touch y)?\nZweite Zeile")
    assert response.text == "Größe: 'x' $(touch y)?\nZweite Zeile"
    assert response.token_usage is None
    assert response.cost_usd is None
    assert response.duration_ms is not None
    assert response.duration_ms > 0


async def test_the_whole_conversation_is_rendered(ask):
    request = {"system_prompt": "Be brief.", "messages": (Message("user", "Hi"),)}
    response = await ask("cat {PROMPT_FILE}", "And now?", request=request)
    assert response.text == "@[System]:\nBe brief.\n\n@[User]:\nHi\n\n@[User]:\nAnd now?"


@pytest.mark.parametrize("case_id", ["a/b c'$(touch x)'", "../../up", "ümlaut\n", "", "x" * 500])
@pytest.mark.parametrize(
    "command", ["printf %s {EVAL_ID} > {OUTPUT_FILE}", ["printf", "%s", "{EVAL_ID}x"]]
)
async def test_case_ids_of_any_characters(ask, tmp_path, command, case_id):
    response = await ask(command, request={"eval_case_id": case_id})
    assert response.text.rstrip("x\n") == case_id.rstrip("x\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["temp"]


async def test_attempt_and_files(ask, tmp_path):
    files = (tmp_path / "one two.txt", tmp_path / "it's.md")
    command = "printf '%s\\n' {ATTEMPT} {FILES} > {OUTPUT_FILE}"
    request = {"attempt": 2, "input_files": files}
    response = await ask(command, request=request, files_format="-f {basename}")
    assert response.text.split("\n") == ["2", "-f", "one two.txt", "-f", "it's.md"]


async def test_files_are_absolute(ask, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    response = await ask(["echo", "{FILES}"], request={"input_files": (Path("a.txt"),)})
    assert response.text == str(tmp_path / "a.txt")


async def test_the_prompt_on_standard_input(ask, caplog):
    prompt = "--version \u00e9 " + "x" * 300_000
    assert (await ask("cat", prompt, prompt_on_stdin=True)).text == prompt
    assert (await ask(["cat"], prompt, prompt_on_stdin=True)).text == prompt
    assert caplog.text == "", "it was told that the command never sees the question"
    with pytest.raises(BadRequest, match="not valid Unicode"):
        await ask("cat", "\ud800", prompt_on_stdin=True)


async def test_working_folder(ask, tmp_path):
    (tmp_path / "sub").mkdir()
    command = "pwd; : {PROMPT}"
    assert (await ask(command)).text == str(tmp_path)
    assert (await ask(command, cwd="sub")).text == str(tmp_path / "sub")
    assert (await ask(command, cwd="sub", request={"cwd": tmp_path})).text == str(tmp_path)
    assert (await ask(command, request={"cwd": Path("sub")})).text == str(tmp_path / "sub")


async def test_a_program_is_found_relative_to_the_working_folder(ask, tmp_path):
    script = tmp_path / "agent.sh"
    script.write_text('echo "script says $1"')  # no `#!` line: only a shell can run it
    script.chmod(0o755)
    assert (await ask("./agent.sh {PROMPT}")).text == "script says hello"
    with pytest.raises(ProviderFailed, match=r"cannot be started: Exec format error"):
        await ask(["./agent.sh", "{PROMPT}"])


async def test_environment(ask, monkeypatch):
    monkeypatch.setenv("AROUND", "around")
    monkeypatch.setenv("ALSO", "also")
    command = 'echo "$AROUND-$ALSO-$MADE-${PATH:+path}"; : {PROMPT}'
    made = {"MADE": 7}
    assert (await ask(command)).text == "around-also--path"
    assert (await ask(command, env=made)).text == "around-also-7-path"
    assert (await ask(command, env=made, inherit_env=False)).text == "--7-path"
    assert (await ask(command, env=["AROUND", "UNSET"], inherit_env=False)).text == "around---path"
    around = {"PATH": os.environ["PATH"], "ALSO": "from .env"}
    assert (await ask(command, target_env=around)).text == "-from .env--path"


async def test_no_login_shell(ask, tmp_path):
    (tmp_path / ".profile").write_text("echo profile\n")
    env = {"HOME": str(tmp_path), "PATH": f"/only/here:{os.environ['PATH']}"}
    response = await ask('echo "$0 $PATH"; : {PROMPT}', env=env)
    assert response.text == f"/bin/sh /only/here:{os.environ['PATH']}"


async def test_the_folder_is_private_and_each_call_has_its_own(make, temp):
    provider = make(
        "cd $(dirname {OUTPUT_FILE}); ls -a; stat -c %a .; pwd; touch more; : {PROMPT_FILE}"
    )
    requests = [ProviderRequest(question="x") for _ in range(5)]
    texts = [response.text for response in await asyncio.gather(*map(provider.invoke, requests))]
    folders = set()
    for text in texts:
        *listed, mode, folder = text.split("\n")
        assert (listed, mode) == ([".", "..", "prompt.txt"], "700")
        folders.add(folder)
    assert len(folders) == 5


async def test_only_needed_files_are_made(ask):
    response = await ask("ls $(dirname {OUTPUT_FILE}); : {PROMPT}; echo end")
    assert response.text == "end"


async def test_keep_temp_files(ask, temp):
    response = await ask("cp {PROMPT_FILE} {OUTPUT_FILE}", keep_temp_files=True)
    folder = Path(response.raw["files"])
    assert folder.parent == temp
    assert (folder / "prompt.txt").read_text() == (folder / "output.json").read_text() == "hello"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    with pytest.raises(ProviderFailed, match=r"exit code 3.*\nfiles kept in /") as caught:
        await ask("cat {PROMPT_FILE}; exit 3", keep_temp_files=True)
    assert str(caught.value) == caught.value.message
    for kept in temp.iterdir():
        for file in kept.iterdir():
            file.unlink()
        kept.rmdir()


async def test_chunks(ask):
    chunks: list[str] = []
    await ask("cat {PROMPT_FILE}", request={"on_chunk": chunks.append})
    assert chunks == ["hello"]


# --- what it answers ------------------------------------------------------------------------------


async def test_json_in_the_output_file(ask):
    row = (
        '{{"text": "Paris", "token_usage": {{"input": 5, "output": 1}}, '
        '"cost_usd": 0.5, "duration_ms": 7, "x": 1}}'
    )
    response = await ask(f"echo ignored; echo '{row}' > {{OUTPUT_FILE}}; : {{PROMPT}}")
    assert response.output == (Message("assistant", "Paris"),)
    assert response.token_usage == TokenUsage(5, 1)
    assert (response.cost_usd, response.duration_ms) == (0.5, 7)
    assert response.raw["source"] == "the output file"
    assert response.raw["response"]["x"] == 1


async def test_stdout_when_the_file_was_never_written(ask):
    response = await ask('echo \'{{"text": "Paris"}}\'; echo log >&2; : {OUTPUT_FILE} {PROMPT}')
    assert response.text == "Paris"
    assert response.raw == {
        "source": "standard output",
        "note": "the command never wrote {OUTPUT_FILE}",
        "stderr": "log\n",
        "response": {"text": "Paris"},
    }


async def test_an_empty_file_is_an_empty_answer(ask):
    response = await ask("echo log; : > {OUTPUT_FILE}; : {PROMPT}")
    assert (response.text, response.raw["source"]) == ("", "the output file")


async def test_an_error_in_the_output(ask):
    row = '{{"error": "no quota", "token_usage": {{"input": 5, "output": 0}}, "cost_usd": 0.1}}'
    with pytest.raises(ProviderFailed, match="the command reports: no quota") as caught:
        await ask(f"echo '{row}' > {{OUTPUT_FILE}}; : {{PROMPT}}")
    assert caught.value.token_usage == TokenUsage(5, 0)
    assert caught.value.cost_usd == 0.1


async def test_warnings_are_in_raw_and_logged_once(make, caplog):
    provider = make("echo '{{\"outptu\": 1}}' > {OUTPUT_FILE}; : {PROMPT}")
    with caplog.at_level(logging.WARNING):
        first = await provider.invoke(ProviderRequest(question="x"))
        await provider.invoke(ProviderRequest(question="x"))
    assert first.text == '{"outptu": 1}'
    assert first.raw["warnings"] == [
        'the output file is taken as plain text: unknown field "outptu" (did you mean "output"?)'
    ]
    assert [record.getMessage() for record in caplog.records] == [
        f'target "agent": {first.raw["warnings"][0]}'
    ]


# --- bad input ------------------------------------------------------------------------------------


async def test_exit_code_and_the_end_of_stderr(ask):
    with pytest.raises(ProviderFailed) as caught:
        await ask("echo partial; echo boom >&2; exit 3; : {PROMPT}")
    assert caught.value.message == (
        "exit code 3 from the command: echo partial; echo boom >&2; exit 3; : {PROMPT}; "
        "stderr: boom"
    )
    with pytest.raises(ProviderFailed, match=r"; stdout ends:\none\ntwo$"):
        await ask("echo one; echo two; exit 3; : {PROMPT}")
    with pytest.raises(ProviderFailed) as caught:
        await ask("yes 'a long line' | head -n 10000 >&2; echo last >&2; exit 1; : {PROMPT}")
    assert caught.value.message.endswith("a long line\nlast")
    assert len(caught.value.message) < 2500


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("kill -SEGV $$", "signal SIGSEGV"),
        ("sh -c 'kill -KILL $$'; exit $?", r"exit code 137 \(SIGKILL\)"),
        (
            "no-such-command-here | cat >&2; no-such-command-here",
            r"exit code 127 \(command not found\)",
        ),
        ("/etc/passwd; exit $?", r"exit code 126 \(not executable\)"),
    ],
)
async def test_endings_have_names(ask, script, words):
    with pytest.raises(ProviderFailed, match=words):
        await ask(
            f"{script}; : {{PROMPT}}" if "kill -SEGV" in script else f": {{PROMPT}}; {script}"
        )


async def test_what_a_retry_may_help(ask):
    for script in ("exit 3", "kill -SEGV $$", 'echo \'{{"error": "busy"}}\'', "printf '\\377'", ""):
        with pytest.raises(ProviderError) as caught:
            await ask(f": {{PROMPT}}\n{script}")
        assert caught.value.retryable, script
    for script in ("no-such-command-here; exit $?", "head -c 2000 /dev/zero"):
        with pytest.raises(ProviderError) as caught:
            await ask(f": {{PROMPT}}\n{script}", max_output_bytes=1000)
        assert not caught.value.retryable, script


@pytest.mark.parametrize(
    "command", ["no-such-command-here {PROMPT}", ["no-such-command-here", "{PROMPT}"]]
)
async def test_command_not_found(ask, command):
    with pytest.raises(ProviderFailed, match='command not found: "no-such-command-here"'):
        await ask(command)
    with pytest.raises(ProviderFailed, match='"/etc/passwd" may not be executed'):
        await ask(["/etc/passwd", "{PROMPT}"])
    with pytest.raises(ProviderFailed, match=r"the working folder /\S*/gone is not there"):
        await ask("pwd; : {PROMPT}", cwd="gone")


async def test_hangs_with_grandchildren(ask, tmp_path):
    pids = tmp_path / "pids"
    command = (
        f"(sleep 60 & echo $! >>{pids}; sleep 61) & echo $! $$ >>{pids}; "
        "echo stuck >&2; wait; : {PROMPT}"
    )
    with pytest.raises(ProviderTimeout) as caught:
        await ask(command, target_timeout_seconds=0.5)
    assert caught.value.message.startswith("timed out after 0.5 s: (sleep 60 &")
    assert caught.value.message.endswith("; stderr: stuck")
    assert not caught.value.retryable
    assert await all_gone(await pids_in(pids, 3))


async def test_the_requests_own_limit_of_seconds(ask):
    request = {"limits": Limits(max_seconds=0.2)}
    with pytest.raises(LimitExceeded, match=r"timed out after 0\.2 s"):
        await ask("sleep 60; : {PROMPT}", target_timeout_seconds=30, request=request)


async def test_cancellation(make, tmp_path):
    pids = tmp_path / "pids"
    provider = make(f"sleep 60 & echo $! $$ >>{pids}; wait; : {{PROMPT_FILE}}")
    call = asyncio.create_task(provider.invoke(ProviderRequest(question="x")))
    found = await pids_in(pids, 2)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await all_gone(found)


@pytest.mark.parametrize("where", ["> {OUTPUT_FILE}", ""])
async def test_invalid_utf8(ask, where):
    with pytest.raises(BadProviderOutput, match="not UTF-8 text: byte 0xff at offset 2"):
        await ask(f"printf 'ab\\377' {where}; : {{PROMPT}}")


async def test_invalid_json_is_text(ask):
    response = await ask('printf \'{"text": "cut\' > {OUTPUT_FILE}; : {PROMPT}')
    assert response.text == '{"text": "cut'


async def test_nothing_at_all(ask):
    with pytest.raises(BadProviderOutput) as caught:
        await ask("echo why >&2; : {PROMPT} {OUTPUT_FILE}")
    assert caught.value.message == (
        "the command wrote neither the output file nor standard output "
        "(echo why >&2; : {PROMPT} {OUTPUT_FILE}); stderr: why"
    )
    with pytest.raises(BadProviderOutput, match="wrote nothing to standard output"):
        await ask("true {PROMPT}")


async def test_a_gigabyte_to_stdout(ask):
    started = time.monotonic()
    with pytest.raises(
        BadProviderOutput, match=r"more than max_output_bytes \(10,485,760\) to standard output"
    ):
        await ask("head -c 1000000000 /dev/zero; : {PROMPT}")
    assert time.monotonic() - started < 10


async def test_a_gigabyte_in_the_file(ask):
    with pytest.raises(
        BadProviderOutput, match=r"holds 1,000,000,000 bytes, more than max_output_bytes"
    ):
        await ask("truncate -s 1000000000 {OUTPUT_FILE}; : {PROMPT}")
    response = await ask(
        "head -c 1000 /dev/zero > {OUTPUT_FILE}; : {PROMPT}", max_output_bytes=1000
    )
    assert len(response.text) == 1000
    with pytest.raises(
        BadProviderOutput, match=r"1,001 bytes, more than max_output_bytes \(1,000\)"
    ):
        await ask("head -c 1001 /dev/zero > {OUTPUT_FILE}; : {PROMPT}", max_output_bytes=1000)


@pytest.mark.parametrize("make_it", ["mkfifo", "mkdir"])
async def test_something_else_than_a_file(ask, make_it):
    with pytest.raises(BadProviderOutput, match="something else than a file"):
        await ask(f"{make_it} {{OUTPUT_FILE}}; : {{PROMPT}}")


async def test_what_no_command_line_can_carry(ask):
    with pytest.raises(BadRequest, match=r"null byte; \{PROMPT_FILE\} takes everything"):
        await ask("echo {PROMPT} x", "a\0b")
    with pytest.raises(BadRequest, match=r"too long for a command line; use \{PROMPT_FILE\}"):
        await ask("echo {PROMPT};", "x" * 3_000_000)
    assert (await ask("wc -c < {PROMPT_FILE}", "a\0" * 2_000_000)).text.strip() == "4000000"
    for command in ("cat {PROMPT_FILE}", "cat {PROMPT}", "cat; : {PROMPT}"):
        with pytest.raises(BadRequest, match="surrogates not allowed"):
            await ask(command, "a\ud800b")


async def test_other_calls_are_unaffected(make):
    provider = make("if [ {PROMPT} = 3 ]; then exit 3; fi; echo {PROMPT} > {OUTPUT_FILE}")
    requests = [ProviderRequest(question=str(number)) for number in range(8)]
    answers = await asyncio.gather(*map(provider.invoke, requests), return_exceptions=True)
    assert [getattr(answer, "text", "failed") for answer in answers] == [
        "0",
        "1",
        "2",
        "failed",
        "4",
        "5",
        "6",
        "7",
    ]


def test_a_second_event_loop(make):
    provider = make("cp {PROMPT_FILE} {OUTPUT_FILE}")
    for question in ("one", "two"):
        assert asyncio.run(provider.invoke(ProviderRequest(question=question))).text == question


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "command"),
        ({"command": ""}, "the command is empty"),
        ({"command": "a {PROMT}"}, r"unknown placeholder \{PROMT\} \(did you mean \{PROMPT\}\?"),
        ({"command": "a {PROMPT}", "files_format": "x"}, "files_format"),
        ({"command": "a {PROMPT}", "max_output_bytes": 0}, "greater than 0"),
        ({"command": "a {PROMPT}", "env": {"A=B": "c"}}, "'A=B' cannot name a variable"),
        ({"command": "a {PROMPT}", "colour": 1}, "colour"),
        ({"command": "a {PROMPT}", "healthcheck": {}}, "either url or command"),
        ({"command": "a {PROMPT}", "healthcheck": {"url": "localhost"}}, "http://"),
        ({"command": "a {PROMPT}", "healthcheck": {"command": "a {PROMPT}"}}, "no case yet"),
    ],
)
def test_wrong_settings(settings, words, tmp_path):
    target = ResolvedTarget(name="agent", provider="cli", config=settings, base_dir=tmp_path)
    with pytest.raises(ValidationError, match=words):
        create_provider(target, providers)


def test_safe_refuses_a_command(make):
    with pytest.raises(MusterError, match='--safe refuses the target "agent": it runs a command'):
        make("echo {PROMPT}", target_safe=True)


def test_a_command_that_never_sees_the_question_is_warned_of(make, caplog):
    make("date > {OUTPUT_FILE}")
    assert "uses neither {PROMPT} nor {PROMPT_FILE}" in caplog.text


async def test_secrets_are_masked(ask, capfd):
    secret = Secret("s3cret-value")
    with pytest.raises(ProviderFailed) as caught:
        await ask(
            Secret("echo $KEY >&2; exit 1; : s3cret-value {PROMPT}"),
            env={"KEY": secret},
            verbose=True,
        )
    assert "s3cret-value" not in caught.value.message
    assert "stderr: **********" in caught.value.message
    response = await ask("echo $KEY >&2; echo done; : {PROMPT}", env={"KEY": secret})
    assert response.raw["stderr"] == "**********\n"
    assert "s3cret-value" not in capfd.readouterr().err


async def test_verbose(ask, capfd):
    await ask(
        [sys.executable, "-c", "print(1); import sys; print('log', file=sys.stderr)", "{PROMPT}"],
        verbose=True,
    )
    started, ended = capfd.readouterr().err.splitlines()
    assert started.startswith(f"[agent] $ {sys.executable} -c 'print(1);")
    assert started.endswith(" hello")
    assert ended.startswith("[agent] exit code 0 after ")
    assert ended.endswith(" ms; stderr: log")

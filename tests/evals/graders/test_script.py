"""Programs that judge: the protocols, and what is an error."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from children import all_gone, pids_in
from judge_parts import Scripted
from muster.errors import ConfigError
from muster.evals.graders.base import Assertion
from muster.evals.scope import RunScope
from muster.provider import Message, ProviderResponse, TokenUsage, ToolCall
from program_parts import ask, bound, python_program


def says(folder: Path, answer: str, before: str = "") -> dict[str, object]:
    source = f"import sys\nsys.stdin.read()\n{before}\nprint({answer!r})\n"
    return {"type": "script", "command": python_program(folder, source)}


@pytest.mark.parametrize(
    ("answer", "score", "assertions"),
    [
        ({"score": 0.25}, 0.25, []),
        (
            {
                "assertions": [
                    {"text": "a", "passed": True, "evidence": "e"},
                    {"text": "b", "passed": False},
                ]
            },
            0.5,
            [Assertion("a", True, "e"), Assertion("b", False)],
        ),
        ({"pass": True, "reason": "good"}, 1.0, [Assertion("good", True)]),
        ({"pass": False, "score": 0.9, "reason": "no"}, 0.0, [Assertion("no", False)]),
        (
            {"checks": [{"text": "a", "pass": True, "score": 0.5, "reason": "r"}]},
            0.5,
            [Assertion("a", True, "r")],
        ),
        ({"pass": True, "checks": [{"text": "a", "pass": False}]}, 1.0, [Assertion("a", False)]),
        ({"score": 1, "extra": {"is": "left alone"}}, 1.0, []),
    ],
)
async def test_both_shapes_of_answers(answer, score, assertions, tmp_path):
    graded = await ask(says(tmp_path, json.dumps(answer)), tmp_path)
    assert (graded.error, graded.score) == (None, score)
    assert list(graded.rows[0].assertions) == assertions


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("", "wrote nothing to standard output; a JSON object is expected"),
        ("well, good", "did not answer with JSON alone"),
        ('{"score": ', "did not answer with JSON alone"),
        ('log\n{"score": 1}', "did not answer with JSON alone"),
        ("[1]", "answered with list, not with a JSON object"),
        ("{}", "it says no verdict"),
        ('{"details": {}}', "it says no verdict"),
        ('{"score": 11}', "score is 11; it is a number from 0 to 1"),
        ('{"score": NaN}', "score is NaN"),
        ('{"score": "1"}', 'score is "1"'),
        ('{"pass": "yes"}', 'pass is "yes"; it is true or false'),
        ('{"checks": [{"text": "a"}]}', "says not whether it passed"),
        ('{"assertions": [1]}', "expected an object with text and pass"),
        ("[" * 100_000, "did not answer with JSON alone"),
    ],
)
async def test_what_is_no_verdict_is_an_error(answer, message, tmp_path):
    graded = await ask(says(tmp_path, answer, "print('why', file=sys.stderr)"), tmp_path)
    assert message in graded.error
    assert graded.error.endswith("its standard error ends:\nwhy")
    assert graded.rows[0].verdict == "skip"


async def test_a_crash_is_an_error_with_the_end_of_its_standard_error(tmp_path):
    source = "print('{\"score\": 1}', flush=True)\nraise ValueError('broken ' + 'x' * 5000 + 'end')"
    entry = {"type": "code-grader", "command": python_program(tmp_path, source)}
    graded = await ask(entry, tmp_path)
    assert "ended with exit code 1" in graded.error
    assert graded.error.endswith("xxxend")
    assert len(graded.error) < 2300


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["no-such-interpreter", "x.py"], "no-such-interpreter: not found"),
        ("no-such-interpreter x.py", "ended with exit code 127"),
        ("kill -9 $$", "ended with signal 9"),
    ],
)
async def test_a_missing_interpreter_is_an_error(command, message, tmp_path):
    graded = await ask({"type": "script", "command": command}, tmp_path)
    assert message in graded.error


async def test_a_missing_folder_is_told(tmp_path):
    entry = {"type": "script", "command": ["true"], "cwd": "nowhere"}
    assert "there is no folder" in (await ask(entry, tmp_path)).error


async def test_a_script_that_forks_and_sleeps_ends_with_its_group(tmp_path):
    source = """
import os, time
child = os.fork()
if child:
    with open("pids", "w") as file:
        file.write(f"{os.getpid()} {child}")
time.sleep(60)
"""
    entry = {
        "type": "script",
        "command": python_program(tmp_path, source),
        "timeout_seconds": 0.5,
    }
    graded = await ask(entry, tmp_path)
    assert "took more than 0.5 s" in graded.error
    assert await all_gone(await pids_in(tmp_path / "pids", 2))


async def test_a_hundred_megabytes_are_not_read(tmp_path):
    source = "import os\nfor _ in range(100):\n    os.write(1, bytes(1_000_000))"
    graded = await ask({"type": "script", "command": python_program(tmp_path, source)}, tmp_path)
    assert "wrote more than 10 MB to standard output" in graded.error


async def test_what_it_is_told(tmp_path):
    source = (
        "import sys, json\njson.dump({'score': 1, 'details': json.load(sys.stdin)}, sys.stdout)"
    )
    entry = {
        "type": "script",
        "command": python_program(tmp_path, source),
        "config": {"limit": 3},
    }
    call = ToolCall("search", {"q": "x"}, duration_ms=5.0)
    response = ProviderResponse(
        [Message("assistant", "Done.", tool_calls=(call,))],
        token_usage=TokenUsage(3, 4),
        cost_usd=0.5,
    )
    graded = await ask(
        entry,
        tmp_path,
        "Done.",
        expected="Ready.",
        response=response,
        criteria="is short",
        metadata={"k": 1},
        vars={"v": 2},
    )
    told = graded.rows[0].details
    assert told["criteria"] == "is short"
    assert told["input"] == [{"role": "user", "content": "Why?"}]
    assert told["expected_output"] == [{"role": "assistant", "content": "Ready."}]
    assert (told["output"], told["output_path"]) == ("Done.", None)
    assert told["messages"][0]["tool_calls"][0]["tool"] == "search"
    assert told["trace_summary"] == {
        "event_count": 1,
        "tool_calls": {"search": 1},
        "error_count": 0,
        "tool_durations": {"search": [5.0]},
        "llm_call_count": 1,
    }
    assert told["token_usage"] == {"input": 3, "output": 4}
    assert (told["cost_usd"], told["config"], told["metadata"]) == (0.5, {"limit": 3}, {"k": 1})
    assert (told["vars"], told["test_id"], told["target"]) == ({"v": 2}, "c", "t")


async def test_a_large_output_is_a_file_meanwhile(tmp_path):
    source = """
import json, sys
told = json.load(sys.stdin)
text = json.load(open(told["output_path"]))
print(json.dumps({"pass": told["output"] is None and len(text) == 60_000,
                  "details": {"path": told["output_path"]}}))
"""
    entry = {"type": "script", "command": python_program(tmp_path, source)}
    graded = await ask(entry, tmp_path, "x" * 60_000)
    assert graded.score == 1
    assert not os.path.exists(graded.rows[0].details["path"])


async def test_exit_codes_judge_if_asked_for(tmp_path):
    for code, score in ((0, 1.0), (1, 0.0)):
        entry = {"type": "script", "command": f"echo seen; exit {code}", "protocol": "exit"}
        graded = await ask(entry, tmp_path)
        assert (graded.error, graded.score) == (None, score)
        assert graded.rows[0].assertions[0].evidence == "seen"
    entry = {"type": "script", "command": "exit 2", "protocol": "exit"}
    assert "exit code 2" in (await ask(entry, tmp_path)).error


def test_safe_refuses(tmp_path):
    for entry in (
        {"type": "script", "command": ["true"]},
        {"type": "python", "value": "True"},
        {"type": "webhook", "url": "http://example.org"},
        {"type": "javascript", "value": "true"},
    ):
        with pytest.raises(ConfigError, match="--safe"):
            bound(entry, tmp_path, safe=True)


def test_variables_are_not_filled_into_commands(tmp_path):
    grader = bound(
        {"type": "script", "command": "echo {{ x }}"},
        tmp_path,
        substitute=lambda text: text.replace("{{ x }}", "; rm -rf /"),
    )
    assert grader.grade._argv == ["/bin/sh", "-c", "echo {{ x }}"]


# --- programs that stay ---------------------------------------------------------------------------

STAYING = """
import json, os, sys, time
with open("pids", "a") as file:
    file.write(f"{os.getpid()} ")
for number, line in enumerate(sys.stdin):
    told = json.loads(line)
    said = told["output"]
    if said == "die":
        sys.exit("that is it")
    if said == "die once":
        if not os.path.exists("died"):
            open("died", "w").close()
            sys.exit(3)
    if said == "hang":
        time.sleep(60)
    if said == "fork":
        if os.fork() == 0:
            time.sleep(60)
    answer = {"id": told["id"], "score": 1 if said == "good" else 0, "details": {"n": number}}
    if said == "no id":
        del answer["id"]
    if said == "chat":
        print("I think that")
    if said == "large":
        answer["reason"] = "x" * 11_000_000
    print(json.dumps(answer), flush=True)
"""


def staying(folder: Path, **more: object) -> dict[str, object]:
    command = python_program(folder, STAYING)
    return {"type": "script", "protocol": "jsonl", "command": command, **more}


def started(folder: Path) -> list[int]:
    return [int(pid) for pid in (folder / "pids").read_text().split()]


async def test_a_program_that_stays_is_started_once(tmp_path):
    scope = RunScope()
    entry = staying(tmp_path)
    rows = []
    for output in ("good", "bad", "good"):
        graded = await ask(entry, tmp_path, output, scope=scope)
        rows.append((graded.score, graded.rows[0].details["n"]))
    assert rows == [(1.0, 0), (0.0, 1), (1.0, 2)]
    pids = started(tmp_path)
    assert len(pids) == 1
    await scope.aclose()
    assert await all_gone(pids)


async def test_as_many_processes_as_cases_at_once(tmp_path):
    scope = RunScope()
    entry = staying(tmp_path)
    for _ in range(3):
        await asyncio.gather(*(ask(entry, tmp_path, "good", scope=scope) for _ in range(2)))
    assert len(started(tmp_path)) == 2
    await scope.aclose()


async def test_after_a_crash_it_is_started_anew(tmp_path):
    scope = RunScope()
    entry = staying(tmp_path)
    graded = await ask(entry, tmp_path, "die", scope=scope)
    assert "it ended with exit code 1 instead of an answer" in graded.error
    assert graded.error.endswith("that is it")
    assert (await ask(entry, tmp_path, "good", scope=scope)).score == 1
    # One that has answered others may have died of those: the case is put to a fresh one.
    assert (await ask(entry, tmp_path, "die once", scope=scope)).error is None
    assert len(started(tmp_path)) == 3
    assert "exit code" in (await ask(entry, tmp_path, "die", scope=scope)).error
    await scope.aclose()
    assert await all_gone(started(tmp_path))


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("hang", "no answer within 0.5 s"),
        ("no id", "the answer does not repeat the id 1 of the case"),
        ("chat", "did not answer with JSON alone"),
        ("large", "its answer is longer than 10 MB"),
    ],
)
async def test_what_breaks_the_protocol_is_an_error_of_that_case_alone(output, message, tmp_path):
    scope = RunScope()
    entry = staying(tmp_path, timeout_seconds=5 if output == "large" else 0.5)
    assert message in (await ask(entry, tmp_path, output, scope=scope)).error
    assert (await ask(entry, tmp_path, "good", scope=scope)).score == 1
    await scope.aclose()
    assert await all_gone(started(tmp_path))


async def test_a_line_too_many_is_never_the_next_verdict(tmp_path):
    source = """
import json, sys
for line in sys.stdin:
    told = json.loads(line)
    print(json.dumps({"id": told["id"], "score": 1}) + "\\n" + '{"score": 1}', flush=True)
"""
    entry = staying(tmp_path) | {"command": python_program(tmp_path, source)}
    scope = RunScope()
    first = await ask(entry, tmp_path, scope=scope)
    await asyncio.sleep(0.05)
    second = await ask(entry, tmp_path, scope=scope)
    await scope.aclose()
    errors = [graded.error for graded in (first, second) if graded.error is not None]
    assert errors
    assert all("it wrote a line that answers no case" in e or "repeat the id" in e for e in errors)


async def test_what_it_has_forked_ends_with_it(tmp_path):
    scope = RunScope()
    await ask(staying(tmp_path), tmp_path, "fork", scope=scope)
    [pid] = started(tmp_path)
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    children = [int(child) for child in text.split()]
    assert len(children) == 1
    await scope.aclose()
    assert await all_gone([pid, *children])


async def test_without_a_run_nothing_stays(tmp_path):
    assert (await ask(staying(tmp_path), tmp_path, "good")).score == 1
    assert await all_gone(started(tmp_path))


# --- asking the judge -----------------------------------------------------------------------------

ASKING = """
import json, os, sys, urllib.request, urllib.error

def call(path, body=None, token=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data)
    request.add_header("Authorization", "Bearer " + (secret if token is None else token))
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)["error"]["message"]

told = json.load(sys.stdin)
url, secret = os.environ["MUSTER_PROVIDER_PROXY_URL"], os.environ["MUSTER_PROVIDER_PROXY_TOKEN"]
assert os.environ["AGENTV_TARGET_PROXY_URL"] == os.environ["AGENTV_PROVIDER_PROXY_URL"] == url
print(json.dumps({"score": 1, "details": {"said": [CALLS]}}))
"""


def asking(folder: Path, calls: str, **more: object) -> dict[str, object]:
    source = ASKING.replace("CALLS", calls)
    return {"type": "script", "command": python_program(folder, source), "provider": True, **more}


async def test_a_script_asks_the_judge_at_the_judges_cost(tmp_path):
    judge = Scripted(lambda request: f"{request.system_prompt}: {request.question}")
    scope = RunScope()
    entry = asking(
        tmp_path,
        """call("/invoke", {"question": "q", "systemPrompt": "s"}), call("/info"),
        call("/invokeBatch", {"requests": [{"question": "a"}, {"question": ""}]})""",
    )
    grader = bound(entry, tmp_path)
    from program_parts import context_of

    context = context_of(judge=judge, scope=scope)
    score = await grader.grade(context)
    single, info, batch = score.details["said"]
    assert single["rawText"] == "s: q"
    assert single["costUsd"] == 0.25
    assert info == {
        "targetName": "judge", "availableTargets": ["judge"], "maxCalls": 50, "callCount": 1,
    }  # fmt: skip
    good, bad = batch["responses"]
    assert good["rawText"] == "None: a"
    assert bad["error"]["message"] == "question is a text that is not empty"
    assert (context.judges.calls, context.judges.cost_usd) == (2, 0.5)
    assert grader.judges == (None,)
    await scope.aclose()


async def test_its_calls_are_counted_and_the_token_is_asked_for(tmp_path):
    entry = asking(
        tmp_path,
        """call("/invoke", {"question": "q"}), call("/invoke", {"question": "q"}),
        call("/invoke", {"question": "q"}, "wrong"), call("/invoke", {"question": "q",
        "target": "other"}), call("/elsewhere")""",
        provider={"max_calls": 1},
    )
    graded = await ask(entry, tmp_path, judge=Scripted("yes"))
    first, second, wrong, other, elsewhere = graded.rows[0].details["said"]
    assert first["rawText"] == "yes"
    assert second == [429, "max_calls: 1 calls for one case are used up"]
    assert wrong[0] == 401
    assert other == [403, 'only "judge" may be asked here']
    assert elsewhere[0] == 404


async def test_a_failing_judge_is_told_to_the_script(tmp_path):
    judge = Scripted(ValueError("out of order"))
    entry = asking(tmp_path, 'call("/invoke", {"question": "q"})')
    graded = await ask(entry, tmp_path, judge=judge)
    code, _ = graded.rows[0].details["said"][0]
    assert code in (500, 502)


async def test_a_program_that_stays_gets_its_access_with_each_case(tmp_path):
    source = (
        ASKING.split("told =", maxsplit=1)[0]
        + """
for line in sys.stdin:
    told = json.loads(line)
    url, secret = told["provider_proxy"]["url"], told["provider_proxy"]["token"]
    said = call("/invoke", {"question": told["test_id"]})
    print(json.dumps({"id": told["id"], "score": 1, "details": {"said": said}}), flush=True)
"""
    )
    entry = asking(tmp_path, "") | {"command": python_program(tmp_path, source)}
    entry["protocol"] = "jsonl"
    scope = RunScope()
    judge = Scripted(lambda request: f"about {request.question}")
    for name in ("one", "two"):
        graded = await ask(entry, tmp_path, judge=judge, scope=scope, id=name)
        assert graded.rows[0].details["said"]["rawText"] == f"about {name}"
    await scope.aclose()


async def test_a_token_ends_with_its_case(tmp_path):
    scope = RunScope()
    source = """
import json, os
print(json.dumps({"score": 1, "details": {
    "url": os.environ["MUSTER_PROVIDER_PROXY_URL"],
    "token": os.environ["MUSTER_PROVIDER_PROXY_TOKEN"]}}))
"""
    entry = {"type": "script", "command": python_program(tmp_path, source), "target": True}
    judge = Scripted("yes")
    graded = await ask(entry, tmp_path, judge=judge, scope=scope)
    import aiohttp

    access = graded.rows[0].details
    headers = {"Authorization": f"Bearer {access['token']}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.get(f"{access['url']}/info") as answer,
    ):
        assert answer.status == 401
    await scope.aclose()
    assert judge.requests == []


def test_settings_that_are_wrong(tmp_path):
    for more, message in (
        ({}, "command"),
        ({"command": []}, "command"),
        ({"command": ["x"], "protocol": "xml"}, "protocol"),
        ({"command": ["x"], "comand": 1}, "did you mean"),
        ({"command": ["x"], "provider": {"max_calls": 0}}, "max_calls"),
    ):
        with pytest.raises(ConfigError, match=message):
            bound({"type": "script", **more}, tmp_path)


# --- fields for the program -----------------------------------------------------------------------


async def test_other_fields_of_the_entry_are_for_the_program(tmp_path):
    source = (
        "import json, sys\ncase = json.load(sys.stdin)\n"
        "print(json.dumps({'score': 1, 'details': case['config']}))\n"
    )
    command = python_program(tmp_path, source)
    entry = {"type": "code-grader", "command": command, "expected_tools": ["a"], "rules": 1}
    graded = await ask({**entry, "config": {"rules": 2, "own": 3}}, tmp_path)
    assert graded.rows[0].details == {"expected_tools": ["a"], "rules": 2, "own": 3}


@pytest.mark.parametrize("slip", ["comand", "timeout", "timeout_ms", "preprocessors"])
def test_slips_and_what_cannot_be_done_are_no_fields_for_the_program(tmp_path, slip):
    with pytest.raises(ConfigError, match=f'"script" has no field "{slip}"'):
        bound({"type": "script", "command": ["true"], slip: 3}, tmp_path)

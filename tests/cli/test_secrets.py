"""Keys appear nowhere: not in what is shown, not in what is kept, however they got there."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path

import pytest
from muster_project import Ended, Project, serving

from raw_server import Request, reply

KEY = "sk-9fGh2/Kq+7w=TvX"
MASK = "**********"

SUITE = """
assertions: [{type: equals, value: nothing of the kind}]
tests:
  - {id: answer, input: say it}
  - {id: failure, input: please fail}
"""


def nowhere(project: Project, *all_ended: Ended, secret: str = KEY) -> None:
    """Neither as it is, nor quoted for JSON or a URL."""
    forms = {secret, json.dumps(secret)[1:-1], secret.replace("/", "%2F")}
    for ended in all_ended:
        assert not [form for form in forms if form in ended.text]
    for path in (project.root / "run").iterdir():
        text = path.read_text()
        assert not [form for form in forms if form in text], path.name


AGENT = """
import json
import os
import sys

key = os.environ["SHOP_KEY"]
if "fail" in sys.argv[1]:
    print("refused: " + key, file=sys.stderr)
    sys.exit(3)
print("the key is " + key + " and " + json.dumps({"key": key}))
"""


@pytest.mark.parametrize("source", ["process", "dotenv", "literal", "target-env"])
def test_a_command_that_prints_its_key(project: Project, source: str) -> None:
    project.write("agent.py", AGENT)
    project.write("a.eval.yaml", SUITE)
    given = {
        "process": "",
        "dotenv": "    env: {SHOP_KEY: '${{ SHOP_KEY }}'}\n",
        "literal": f"    env: {{SHOP_KEY: '{KEY}'}}\n",
        "target-env": "    env: {SHOP_KEY: '${{ OTHER_KEY }}'}\n",
    }[source]
    project.write(
        ".muster/targets.yaml",
        "targets:\n  - name: default\n    provider: cli\n"
        f"    command: python3 ../agent.py {{PROMPT}}\n{given}",
    )
    env = {}
    if source == "dotenv":
        project.write(".env", f"SHOP_KEY='{KEY}'\n")
    elif source != "literal":
        env = {"SHOP_KEY" if source == "process" else "OTHER_KEY": KEY}
    ended = project.eval("a.eval.yaml", "--verbose", env=env)
    shown = project.run("targets", "show", "default", env=env)
    assert (ended.code, shown.code) == (1, 0)
    nowhere(project, ended, shown)
    rows = project.by_id()
    assert rows["answer"]["output"] == f'the key is {MASK} and {{"key": "{MASK}"}}'
    assert f"refused: {MASK}" in rows["failure"]["error"]


@pytest.mark.parametrize("prompt", ["say it", "please fail"])
def test_targets_check_masks_too(project: Project, prompt: str) -> None:
    project.write("agent.py", AGENT)
    project.write(
        ".muster/targets.yaml",
        "targets: [{name: default, provider: cli, command: 'python3 ../agent.py {PROMPT}'}]\n",
    )
    ended = project.run("targets", "check", "--prompt", prompt, env={"SHOP_KEY": KEY})
    assert ended.code == (1 if "fail" in prompt else 0)
    assert KEY not in ended.text
    assert MASK in ended.out


HTTP_TARGET = """
targets:
  - name: default
    provider: http
    url: URL/ask?key=${{ SHOP_KEY }}
    headers: {Authorization: "Bearer ${{ SHOP_KEY }}", X-Extra: literal-9f8e7d6c}
    body: {q: "{{ question }}"}
    response: {text: echoed}
    max_retries: 0
"""


async def echo_everything(request: Request, writer: asyncio.StreamWriter) -> None:
    told = {"path": request.path, "headers": request.headers}
    failing = b"fail" in request.body
    body = {"error": json.dumps(told)} if failing else {"echoed": json.dumps(told)}
    writer.write(reply(body, status=401 if failing else 200))
    await writer.drain()


def test_a_server_that_echoes_the_request(project: Project) -> None:
    project.write("a.eval.yaml", SUITE)
    with serving(echo_everything) as server:
        project.write(".muster/targets.yaml", HTTP_TARGET.replace("URL", server.url))
        env = {"SHOP_KEY": KEY}
        ended = project.eval("a.eval.yaml", "--verbose", env=env)
        shown = project.run("targets", "show", "default", env=env)
    nowhere(project, ended, shown)
    rows = project.by_id()
    assert rows["failure"]["error_kind"] == "authentication_failed"
    assert MASK in rows["answer"]["output"]
    assert shown.json()["config"]["headers"]["Authorization"] == MASK
    assert MASK in shown.json()["config"]["url"]


def test_a_model_server_that_echoes_the_key(project: Project) -> None:
    async def refuse(request: Request, writer: asyncio.StreamWriter) -> None:
        key = request.headers["authorization"].removeprefix("Bearer ")
        message = f"Incorrect API key provided: {key}"
        writer.write(reply({"error": {"message": message}}, status=401))
        await writer.drain()

    project.write("a.eval.yaml", SUITE)
    with serving(refuse) as server:
        project.write(
            ".muster/targets.yaml",
            "targets:\n  - name: default\n    provider: openai\n    model: m\n"
            f"    base_url: {server.url}\n    api_key: {KEY}\n",
        )
        ended = project.eval("a.eval.yaml")
        shown = project.run("targets", "show", "default")
    nowhere(project, ended, shown)
    assert f"key provided: {MASK}" in project.by_id()["answer"]["error"]
    assert shown.json()["config"]["api_key"] == MASK
    for warned in (ended, shown):
        where = f"{project.root / '.muster' / 'targets.yaml'}:6:14: targets[0].api_key: "
        assert (
            f"warning: {where}a secret is written in the file; better ${{{{ DEFAULT_API_KEY }}}}"
            in warned.err
        )


def test_a_mistake_beside_a_key_does_not_tell_it(project: Project) -> None:
    project.write("a.eval.yaml", SUITE)
    project.write(
        ".muster/targets.yaml",
        "targets:\n  - name: default\n    provider: openai\n    model: m\n"
        "    api_key: ${{ SHOP_KEY }}\n    temperature: ${{ SHOP_KEY }}\n",
    )
    ended = project.eval("a.eval.yaml", env={"SHOP_KEY": KEY})
    validated = project.run("validate", env={"SHOP_KEY": KEY})
    assert (ended.code, validated.code) == (2, 2)
    assert "temperature" in ended.err
    assert KEY not in ended.text + validated.text


def test_keys_in_a_suite_and_in_options(project: Project) -> None:
    """A suite may fill a key into an input; then it is in the answer, and in the case itself."""
    project.write(".muster/targets.yaml", "targets: [{name: default, provider: echo}]\n")
    project.write(
        "a.eval.yaml",
        """
        assertions: [{type: equals, value: "${{ SHOP_KEY }}"}]
        tests: [{id: a, input: "${{ SHOP_KEY }}", metadata: {key: "${{ SHOP_KEY }}"}}]
        """,
    )
    ended = project.eval("a.eval.yaml", "--verbose", env={"SHOP_KEY": KEY})
    assert ended.code == 0
    nowhere(project, ended)


def test_words_that_only_look_like_keys_stay(project: Project) -> None:
    project.write(
        ".muster/targets.yaml",
        "targets:\n  - {name: default, provider: mock, response: 'a test of none'}\n",
    )
    project.write("a.eval.yaml", SUITE)
    env = {"SOME_API_KEY": "test", "OTHER_TOKEN": "none", "SHORT_KEY": "of"}
    project.eval("a.eval.yaml", env=env)
    assert {row["output"] for row in project.rows()} == {"a test of none"}


def test_the_folder_holds_no_environment(project: Project) -> None:
    """What happens to be set around the run is not the run's business."""
    project.write(".muster/targets.yaml", "targets: [{name: default, provider: echo}]\n")
    project.write("a.eval.yaml", SUITE)
    value = base64.b16encode(b"not for the record").decode()
    project.eval("a.eval.yaml", env={"UNRELATED": value})
    written = "".join(path.read_text() for path in Path(project.root / "run").iterdir())
    assert value not in written

"""Files that steps leave: a fresh folder for each, and the step fails if one is missing."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from pathlib import Path

import pytest
from team_parts import Ran, Script, run, run_async, write_team

import muster
from muster.errors import ConfigError, UsageError
from muster.provider import ProviderRequest

STEPS = """
roles: [{name: a, provider: scripted, model: m, systemPrompt: x}]
pipeline:
  - name: draw
    role: a
    inputs: {task: draw}
    artifacts: [{name: chart.svg, description: the chart}, notes.txt]
  - name: look
    role: a
    dependsOn: [draw]
    inputs: {at: '{{ index .steps.draw.artifacts "chart.svg" }}'}
"""


def leaves(*names: str) -> Script:
    def script(request: ProviderRequest) -> str:
        folder = request.metadata.get("artifact_dir")
        for name in names if folder is not None else ():
            Path(folder or "", name).write_text(name)
        return "ok"

    return script


def do(folder: Path, script: Script, steps: str = STEPS, **more: object) -> Ran:
    return run(write_team(folder, steps, agents=""), script, **more)


def test_a_later_step_gets_the_path_of_the_stored_file(tmp_path: Path) -> None:
    ran = do(tmp_path, leaves("chart.svg", "notes.txt"))
    kept = tmp_path / ".muster" / "artifacts" / ran.id / "draw"
    assert ran.end == ("succeeded", "Succeeded", None)
    assert ran.prompts[1] == f"at: {kept}/chart.svg\n"
    assert sorted(os.listdir(kept)) == ["chart.svg", "notes.txt"]
    assert stat.S_IMODE(kept.stat().st_mode) == 0o700
    assert ran.prompts[0] == (
        f"task: draw\n\nLeave these files in the folder {kept}:\n"
        "- chart.svg: the chart\n- notes.txt\n"
    )
    assert "artifact_dir" not in ran.asked[1].metadata


def test_a_missing_file_fails_the_step_and_is_named(tmp_path: Path) -> None:
    ran = do(tmp_path, leaves("notes.txt"))
    assert ran.statuses == {"draw": "failed", "look": "pending"}
    told = 'left no "chart.svg" in its folder for artifacts ($AGENT_ARTIFACT_DIR)'
    assert (ran.step("draw").error, ran.step("draw").error_kind) == (told, "missing_artifact")


def test_a_link_is_no_artifact(tmp_path: Path) -> None:
    def script(request: ProviderRequest) -> str:
        folder = Path(request.metadata["artifact_dir"])
        (folder / "notes.txt").write_text("x")
        (folder / "chart.svg").symlink_to("/etc/hostname")
        return "ok"

    assert 'left no "chart.svg"' in (do(tmp_path, script).step("draw").error or "")


def test_a_retry_begins_with_an_empty_folder(tmp_path: Path) -> None:
    seen: list[list[str]] = []

    def script(request: ProviderRequest) -> str:
        if "artifact_dir" not in request.metadata:
            return "ok"
        folder = Path(request.metadata["artifact_dir"])
        seen.append(os.listdir(folder))
        names = ("chart.svg", "notes.txt") if request.attempt else ("notes.txt",)
        for name in names:
            (folder / name).write_text(name)
        return "ok"

    ran = do(tmp_path, script, STEPS.replace("artifacts:", "retry: 1\n    artifacts:"))
    assert ran.end == ("succeeded", "Succeeded", None)
    assert seen == [[], []]


def test_each_item_and_each_round_has_a_folder_of_its_own(tmp_path: Path) -> None:
    steps = """
    roles: [{name: a, provider: scripted, model: m, systemPrompt: x}]
    pipeline:
      - name: each
        role: a
        forEach: {items: '["x", "y"]'}
        loop: {condition: "true", maxIterations: 1}
        inputs: {task: "{{ .item }}"}
        artifacts: [out]
    output: "{{ toJson .steps.each.artifacts.out }}"
    """
    ran = do(tmp_path, leaves("out"), steps)
    assert ran.end == ("succeeded", "Succeeded", None)
    base = tmp_path / ".muster" / "artifacts" / ran.id
    assert sorted(os.listdir(base)) == ["each@1[0]", "each@1[1]", "each[0]", "each[1]"]
    assert ran.output == f'["{base}/each@1[0]/out","{base}/each@1[1]/out"]'


def test_the_name_of_a_step_leads_nowhere_else(tmp_path: Path) -> None:
    steps = """
    roles: [{name: a, provider: scripted, model: m, systemPrompt: x}]
    pipeline: [{name: ../up, role: a, inputs: {task: x}, artifacts: [out]}]
    """
    ran = do(tmp_path, leaves("out"), steps)
    assert ran.statuses == {"../up": "succeeded"}
    assert os.listdir(tmp_path / ".muster" / "artifacts" / ran.id) == ["%2E.%2Fup"]


def test_a_run_that_goes_on_still_has_its_artifacts(tmp_path: Path) -> None:
    file = write_team(tmp_path, STEPS, agents="")
    made = leaves("chart.svg", "notes.txt")

    def breaks(request: ProviderRequest) -> str:
        if request.metadata["step"] == "look":
            raise RuntimeError("no")
        made(request)
        return "ok"

    first = run(file, breaks)
    again = run(file, made, resume=first.id)
    assert again.end == ("succeeded", "Succeeded", None)
    kept = tmp_path / ".muster" / "artifacts" / first.id / "draw"
    assert again.prompts == [f"at: {kept}/chart.svg\n"]


# --- who is told of the folder ------------------------------------------------------------------


def test_a_command_finds_the_folder_in_its_environment(tmp_path: Path) -> None:
    steps = STEPS.replace("{name: a, provider: scripted, model: m", "{name: a, target: tool")
    file = write_team(tmp_path, steps, agents="")
    code = "import os, pathlib; d = os.environ.get('AGENT_ARTIFACT_DIR'); print(d); " + (
        "[pathlib.Path(d, n).write_text('x') for n in ('chart.svg', 'notes.txt') if d]"
    )
    (tmp_path / ".muster" / "targets.yaml").write_text(
        f"targets:\n  - name: tool\n    provider: cli\n    command: [{sys.executable}, -c, "
        f"\"{code}\", '{{PROMPT}}']\n"
    )
    ran = asyncio.run(run_async(file))
    assert ran.end == ("succeeded", "Succeeded", None)
    assert ran.step("draw").output.strip() == str(
        tmp_path / ".muster" / "artifacts" / ran.id / "draw"
    )
    assert ran.step("look").output.strip() == "None"


TOOL = """
import muster


def draw() -> str:
    for name in ("chart.svg", "notes.txt"):
        (muster.artifact_dir() / name).write_text(name)
    return "drawn"
"""


def test_a_python_tool_asks_for_the_folder(tmp_path: Path) -> None:
    (tmp_path / "drawing_of_test.py").write_text(TOOL)
    steps = STEPS.replace(
        "systemPrompt: x}", "systemPrompt: x, pythonTools: ['drawing_of_test:draw']}"
    )

    async def script(request: ProviderRequest) -> str:
        assert request.call_tool is not None
        if request.metadata["step"] == "draw":
            return await request.call_tool("draw", {})
        with pytest.raises(Exception, match="the step declares none"):
            await request.call_tool("draw", {})
        return "ok"

    ran = asyncio.run(run_async(write_team(tmp_path, steps, agents=""), script))
    assert ran.end == ("succeeded", "Succeeded", None)
    assert ran.step("draw").output == "drawn"


def test_there_is_no_folder_outside_of_steps() -> None:
    with pytest.raises(UsageError, match="there is no folder for artifacts here"):
        muster.artifact_dir()


# --- where they are kept ------------------------------------------------------------------------


def test_a_local_store_may_be_elsewhere_in_the_project(tmp_path: Path) -> None:
    steps = STEPS + "artifactStore: {type: local, local: {path: kept}}\n"
    ran = do(tmp_path, leaves("chart.svg", "notes.txt"), steps)
    assert ran.prompts[1] == f"at: {tmp_path}/kept/{ran.id}/draw/chart.svg\n"


@pytest.mark.parametrize(
    ("store", "told"),
    [
        ("{type: s3, s3: {bucket: b}}", 'this machine only: expected local, found "s3"'),
        ("{type: local, bucket: b}", 'unknown field "bucket"'),
        ("{type: local, local: {path: ../../elsewhere}}", "is outside the project"),
    ],
)
def test_other_stores_are_refused_when_the_file_is_read(
    tmp_path: Path, store: str, told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        do(tmp_path, leaves(), STEPS + f"artifactStore: {store}\n")

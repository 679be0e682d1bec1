"""A manifest that changes while it is served."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from up_parts import SECRET, TOKEN, Up, event, manifest

from muster.teams.preparing import LaunchOptions


def hook(name: str, more: str = "") -> str:
    targets = '{team: t, input: {say: "{{ .trigger.body.say }}"}}'
    return event(name, "{type: webhook}", targets, more)


async def test_a_run_under_way_ends_with_the_agents_it_began_with(tmp_path: Path) -> None:
    async with Up(tmp_path, manifest(hook("hook"))) as up:
        _, told = await up.post("hook", {"say": "hold on"})
        (held,) = told["runs"]
        up.file.write_text(manifest(hook("hook"), more="  output: again\n"))
        await up.line("reloaded")
        await up.line("serving", 2, event="hook")
        status, answer = await up.post("hook", {"say": "quick"}, query="?mode=sync")
        assert (status, answer["output"]) == (200, "again")
        up.gate.set()
        await up.line("succeeded", run=held)
    outputs = {run.id: run.output for run in up.runs()}
    assert outputs == {held: "HOLD ON", answer["run"]: "again"}
    assert len({run.definition_hash for run in up.runs()}) == 2


async def test_rules_count_the_runs_from_before_the_change(tmp_path: Path) -> None:
    forbid = "concurrencyPolicy: Forbid"
    async with Up(tmp_path, manifest(hook("hook", forbid))) as up:
        await up.post("hook", {"say": "hold"})
        up.file.write_text(manifest(hook("hook", forbid), hook("more", forbid)))
        await up.line("serving", event="more")
        status, told = await up.post("hook", {"say": "x"})
        assert (status, told["fired"]) == (409, False)


async def test_an_event_that_is_gone_and_one_with_a_new_token(tmp_path: Path) -> None:
    async with Up(tmp_path, manifest(hook("hook"), event("old", "{type: webhook}"))) as up:
        old = (tmp_path / ".muster" / "tokens" / "old").read_text().strip()
        assert (await up.post("old", {}, token=old))[0] == 202
        secret = "another-token-of-the-test"
        text = manifest(hook("hook")).replace(SECRET, SECRET.replace(TOKEN, secret))
        up.file.write_text(text)
        await up.line("reloaded")
        await up.line("serving", 2, event="hook")
        assert (await up.post("old", {}, token=old))[0] == 401
        assert (await up.post("hook", {"say": "x"}))[0] == 401
        status, told = await up.post(
            "hook", {"say": f"it is {secret}"}, token=secret, query="?mode=sync"
        )
    assert status == 200
    # The journal was opened before the token was known, and masks it all the same.
    (run,) = (run for run in up.runs() if run.id == told["run"])
    assert run.input == {"say": "it is **********"}
    assert secret not in str(up.lines)


async def test_a_bad_file_is_told_once_and_tried_again_when_it_changes(tmp_path: Path) -> None:
    async with Up(tmp_path, manifest(hook("hook"))) as up:
        up.file.write_text("kind: [")
        told = await up.line("not reloaded")
        assert told["text"].startswith(f"as before: {up.file}:2:1: not valid YAML")
        assert (await up.post("hook", {"say": "x"}, query="?mode=sync"))[0] == 200
        up.file.unlink()
        assert "no such file" in (await up.line("not reloaded", 2))["text"]
        up.file.write_text(manifest(hook("hook")))
        await up.line("reloaded")
    assert len(up.found("not reloaded")) == 2


async def test_what_the_manifest_names_is_watched_too(tmp_path: Path) -> None:
    by_file = "systemPromptRef: {fileRef: {path: prompt.md}}"
    text = manifest(hook("hook")).replace("systemPrompt: Say it.", by_file)
    prompt, targets = tmp_path / "prompt.md", tmp_path / "targets.yaml"
    prompt.write_text("Say it softly.")
    async with Up(tmp_path, text) as up:
        prompt.write_text("Say it loudly.")
        await up.line("reloaded")
        up.file.write_text(text.replace("prompt.md", "other.md"))
        assert 'no such file: "other.md"' in (await up.line("not reloaded"))["text"]
        (tmp_path / "other.md").write_text("Say it now.")
        await up.line("reloaded", 2)
        targets.write_text("targets: [")
        assert f"{targets}:" in (await up.line("not reloaded", 2))["text"]
        targets.write_text("targets: []")
        await up.line("reloaded", 3)
        assert (await up.post("hook", {"say": "x"}, query="?mode=sync"))[0] == 200


async def test_values_are_watched_at_any_depth(tmp_path: Path) -> None:
    (tmp_path / "values" / "words").mkdir(parents=True)
    word = tmp_path / "values" / "words" / "prompt"
    word.write_text("Say it softly.")
    by_key = "systemPromptRef: {configMapKeyRef: {name: words, key: prompt}}"
    text = manifest(hook("hook")).replace("systemPrompt: Say it.", by_key)
    launch = LaunchOptions(file=tmp_path / "team.yaml", values=tmp_path / "values")
    up = Up(tmp_path, text)
    up.options = replace(up.options, launch=launch)
    async with up:
        word.write_text("Say it loudly.")
        await up.line("reloaded")

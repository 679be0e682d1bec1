"""`muster.open_target`: a target for a program."""

from __future__ import annotations

from pathlib import Path

import pytest

import muster

TARGETS = """
targets:
  - name: main
    provider: mock
    replies: [{contains: fail, error: {kind: provider_unavailable, message: gone}, times: 1}]
    default: {text: "the answer to {{ question }}"}
    retry_initial_delay_ms: 0
  - name: spare
    provider: echo
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / ".git").mkdir()
    (tmp_path / "targets.yaml").write_text(TARGETS, encoding="utf-8")
    below = tmp_path / "src" / "deep"
    below.mkdir(parents=True)
    return below


async def test_the_nearest_file_counts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    async with muster.open_target("spare") as target:
        assert (target.name, repr(target)) == ("spare", "<Target spare: echo>")
        assert not target.one_turn
        request = muster.ProviderRequest(question="one")
        assert (await target.invoke(request)).text == "one"
        assert (await target.invoke("two")).text == "two"


async def test_a_folder_or_a_file_can_be_named(folder: Path, tmp_path: Path) -> None:
    async with muster.open_target("spare", folder=folder) as target:
        assert (await target.invoke("one")).text == "one"
    other = tmp_path / "other.yaml"
    other.write_text("targets: [{name: other, provider: echo}]", encoding="utf-8")
    async with muster.open_target("other", targets_file=other) as target:
        assert (await target.invoke("one")).text == "one"


async def test_it_retries_as_it_is_told(folder: Path) -> None:
    async with muster.open_target("main", folder=folder, max_retries=0) as target:
        with pytest.raises(muster.ProviderError):
            await target.invoke("fail")
    async with muster.open_target("main", folder=folder, max_retries=1) as target:
        assert (await target.invoke("fail")).attempts == 2


def test_mistakes_are_told_at_once(folder: Path) -> None:
    with pytest.raises(muster.UsageError, match=r'target "spar" not found .*near: spare'):
        muster.open_target("spar", folder=folder)
    (folder / "targets.yaml").write_text("targets: [{name: x, provider: echo, modle: y}]")
    with pytest.raises(muster.ConfigError, match='unknown field "modle"'):
        muster.open_target("x", folder=folder)


def test_safe_runs_no_code(folder: Path) -> None:
    (folder / "targets.yaml").write_text("targets: [{name: x, provider: cli, command: 'true'}]")
    muster.open_target("x", folder=folder)
    with pytest.raises(muster.MusterError, match="--safe refuses"):
        muster.open_target("x", folder=folder, safe=True)


async def test_one_turn_can_be_asked_of_chat_models(folder: Path) -> None:
    (folder / "targets.yaml").write_text(
        "targets: [{name: x, provider: ollama, model: y, api_key: z}]"
    )
    async with muster.open_target("x", folder=folder) as target:
        assert target.one_turn

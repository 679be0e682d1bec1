"""Commands in folders of their own: made, compared, kept and removed; and in containers."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from muster.provider import (
    BadRequest,
    Message,
    ProviderFailed,
    ProviderRequest,
    ProviderTimeout,
)
from muster.providers.cli import CliProvider
from muster.target import ResolvedTarget

Make = Callable[..., CliProvider]


@pytest.fixture
def cli(tmp_path: Path) -> Make:
    """A `cli` provider with a workspace from `template`, its folders in `work`."""
    (tmp_path / "template" / "sub").mkdir(parents=True)
    (tmp_path / "template" / "a.txt").write_text("one\n")
    (tmp_path / "template" / "sub" / "b.txt").write_text("two\n")

    def make(command: str, *, timeout: float | None = None, **settings: Any) -> CliProvider:
        workspace = {"template": "template", "folder": "work", **settings.pop("workspace", {})}
        if "git" in workspace:
            del workspace["template"]
        config = {"command": command, "workspace": workspace, **settings}
        return CliProvider(
            ResolvedTarget(
                name="t", provider="cli", config=config, base_dir=tmp_path, timeout_seconds=timeout
            )
        )

    return make


def ask(question: str = "hi", **more: Any) -> ProviderRequest:
    return ProviderRequest(question=question, **more)


def work(tmp_path: Path) -> list[str]:
    """What is left in the folder of the workspaces."""
    return sorted(
        str(path.relative_to(tmp_path / "work")) for path in (tmp_path / "work").iterdir()
    )


async def test_what_a_command_changed(cli: Make, tmp_path: Path) -> None:
    provider = cli("cat a.txt; echo ONE > a.txt; rm sub/b.txt; echo new > c.txt # {EVAL_ID}")
    response = await provider.invoke(ask())
    assert response.text == "one"
    assert isinstance(response.raw, dict)
    found = response.raw["workspace"]
    assert found["files"] == [
        {"path": "a.txt", "status": "modified"},
        {"path": "c.txt", "status": "added"},
        {"path": "sub/b.txt", "status": "deleted"},
    ]
    assert "-one\n+ONE\n" in found["diff"]
    assert "+new\n" in found["diff"]
    assert found["truncated"] is False
    assert response.output[-1].metadata == {"workspace": found}
    assert (tmp_path / "template" / "a.txt").read_text() == "one\n"
    again = await provider.invoke(ask())
    assert again.text == "one"  # nothing of the first call is left
    await provider.aclose()
    assert work(tmp_path) == []


async def test_a_command_that_changes_nothing(cli: Make) -> None:
    provider = cli("pwd # {EVAL_ID}")
    response = await provider.invoke(ask())
    assert isinstance(response.raw, dict)
    assert response.raw["workspace"] == {"diff": "", "files": [], "truncated": False}
    assert not Path(response.text).exists()
    await provider.aclose()


async def test_calls_at_once_do_not_meet(cli: Make) -> None:
    provider = cli("cat {PROMPT_FILE} > mine.txt; ls; cat mine.txt")
    many = await asyncio.gather(*(provider.invoke(ask(f"q{number}")) for number in range(6)))
    assert [answer.text for answer in many] == [f"a.txt\nmine.txt\nsub\nq{n}" for n in range(6)]
    await provider.aclose()


@pytest.mark.parametrize(("keep", "stays"), [("never", False), ("on_error", True)])
async def test_what_is_kept_of_a_failure(cli: Make, tmp_path: Path, keep: str, stays: bool) -> None:
    provider = cli("echo x > c.txt; exit 3 # {EVAL_ID}", workspace={"keep": keep})
    with pytest.raises(ProviderFailed) as caught:
        await provider.invoke(ask())
    await provider.aclose()
    assert ("workspace kept in" in str(caught.value)) is stays
    kept = list((tmp_path / "work").glob("*/work-*/c.txt"))
    assert len(kept) == stays
    if stays:
        assert str(kept[0].parent) in str(caught.value)


async def test_what_is_kept_of_a_success(cli: Make) -> None:
    provider = cli("echo x > c.txt; pwd # {EVAL_ID}", workspace={"keep": "always"})
    response = await provider.invoke(ask())
    await provider.aclose()
    assert isinstance(response.raw, dict)
    assert response.raw["workspace"]["path"] == response.text
    assert (Path(response.text) / "c.txt").read_text() == "x\n"


async def test_the_turns_of_a_case_share_a_folder_and_attempts_do_not(
    cli: Make, tmp_path: Path
) -> None:
    provider = cli("echo x >> log; wc -l < log # {EVAL_ID}", workspace={"scope": "case"})
    earlier = (Message("user", "first"), Message("assistant", "1"))

    async def lines(**more: Any) -> str:
        return (await provider.invoke(ask(eval_case_id="c", **more))).text.strip()

    assert await lines() == "1"
    assert await lines(messages=earlier) == "2"
    assert await lines(messages=earlier, attempt=1) == "1"
    assert await lines() == "1"
    assert await lines(metadata={"repeat": "1"}) == "1"
    await provider.aclose()
    assert work(tmp_path) == []


async def test_a_revision_of_a_repository(cli: Make, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()

    def git(*arguments: str) -> str:
        who = ["-c", "user.name=n", "-c", "user.email=e@example.com"]
        done = subprocess.run(
            ["git", *who, *arguments], cwd=source, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    git("init", "--quiet")
    for version in ("1", "2"):
        (source / "v.txt").write_text(version)
        git("add", ".")
        git("commit", "--quiet", "-m", version)
        git("tag", f"v{version}")
    command = "cat v.txt; echo; git remote; git log --oneline | wc -l; echo 3 > v.txt # {EVAL_ID}"
    provider = cli(command, workspace={"git": "source", "revision": "v1"})
    response = await provider.invoke(ask())
    assert response.text.split() == ["1", "1"]
    assert isinstance(response.raw, dict)
    assert response.raw["workspace"]["files"] == [{"path": "v.txt", "status": "modified"}]
    await provider.aclose()
    assert (source / "v.txt").read_text() == "2"
    assert git("status", "--porcelain") == ""
    wrong = cli(command, workspace={"git": "source", "revision": "v9"})
    with pytest.raises(BadRequest, match='revision "v9" of source cannot be checked out'):
        await wrong.invoke(ask())
    await wrong.aclose()
    assert work(tmp_path) == []


async def test_a_large_diff_is_cut(cli: Make) -> None:
    provider = cli("seq 100000 > big; echo ok # {EVAL_ID}", workspace={"max_diff_bytes": 1000})
    response = await provider.invoke(ask())
    await provider.aclose()
    assert isinstance(response.raw, dict)
    found = response.raw["workspace"]
    assert found["truncated"] is True
    assert len(found["diff"].encode()) <= 1000
    assert found["files"] == [{"path": "big", "status": "added"}]


async def test_hostile_work_is_compared_and_removed(cli: Make, tmp_path: Path) -> None:
    """Its own git settings run nothing, and odd modes do not keep a folder."""
    command = (
        "git init -q . ; git config core.fsmonitor 'touch ../../owned; false'; "
        "git config diff.external 'touch ../../owned'; echo '* diff=x filter=x' > .gitattributes; "
        "git config filter.x.clean 'touch ../../owned'; mkdir -p deep/er; touch deep/er/f; "
        "mkfifo pipe; ln -s /etc/passwd link; chmod 000 deep; echo ok # {EVAL_ID}"
    )
    provider = cli(command)
    response = await provider.invoke(ask())
    await provider.aclose()
    assert response.text == "ok"
    assert isinstance(response.raw, dict)
    changed = [row["path"] for row in response.raw["workspace"]["files"]]
    assert ".gitattributes" in changed
    assert "link" in changed
    assert "root:" not in response.raw["workspace"]["diff"]
    assert list(tmp_path.rglob("owned")) == []
    assert work(tmp_path) == []


async def test_a_cancelled_call_leaves_no_folder(cli: Make, tmp_path: Path) -> None:
    provider = cli("touch ../../started; sleep 60 # {EVAL_ID}")
    task = asyncio.ensure_future(provider.invoke(ask()))
    async with asyncio.timeout(10):
        while not list(tmp_path.rglob("started")):
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list(tmp_path.glob("work/*/work-*")) == []
    await provider.aclose()


async def test_a_template_that_is_not_there(cli: Make, tmp_path: Path) -> None:
    provider = cli("pwd # {EVAL_ID}", workspace={"template": "nowhere"})
    with pytest.raises(BadRequest, match=r"the template .*/nowhere is not a folder"):
        await provider.invoke(ask())
    await provider.aclose()
    assert work(tmp_path) == []


@pytest.mark.parametrize(
    ("workspace", "told"),
    [
        ({}, "either `template` or `git`"),
        ({"template": "a", "git": "b"}, "either `template` or `git`"),
        ({"template": "a", "revision": "v1"}, "`revision` is for `git`"),
        ({"git": "--upload-pack=x"}, "names no repository"),
        ({"git": "ext::sh -c x"}, "names no repository"),
        ({"git": "a", "revision": "-x"}, "names no repository or revision"),
        ({"template": "a", "scope": "suite"}, "'call' or 'case'"),
    ],
)
def test_settings_that_make_no_sense(tmp_path: Path, workspace: dict[str, str], told: str) -> None:
    config = {"command": "echo {PROMPT}", "workspace": workspace}
    target = ResolvedTarget(name="t", provider="cli", config=config, base_dir=tmp_path)
    with pytest.raises(ValidationError, match=told):
        CliProvider(target)


# --- containers -------------------------------------------------------------------------------

ENGINE = """\
#!/bin/sh
echo "$@" >> {log}
if [ "$1" = rm ]; then exit 0; fi
trap '' TERM
touch {log}.running
exec sleep 60
"""


def contained(tmp_path: Path, engine: str, **more: Any) -> CliProvider:
    program = tmp_path / "engine"
    program.write_text(engine.replace("{log}", str(tmp_path / "log")))
    program.chmod(0o755)
    docker = {"image": "python:3.12", "engine": str(program), **more.pop("docker", {})}
    timeout = more.pop("timeout", None)
    config = {"command": "agent {PROMPT_FILE}", "runtime": "docker", "docker": docker, **more}
    return CliProvider(
        ResolvedTarget(
            name="t", provider="cli", config=config, base_dir=tmp_path, timeout_seconds=timeout
        )
    )


async def test_the_prefix_of_a_container(tmp_path: Path) -> None:
    provider = contained(
        tmp_path,
        '#!/bin/sh\nprintf "%s\\n" "$@"\n',
        docker={
            "network": "models",
            "user": "1:2",
            "memory": "2g",
            "pids": None,
            "mounts": ["data:/data:ro"],
            "args": ["--read-only"],
        },
        env={"TOKEN": "sk-secret-value"},
    )
    files = (Path("/srv/a.txt"), tmp_path / "b.txt")
    given = (await provider.invoke(ask(input_files=files))).text.splitlines()
    folder = Path(given[-1]).parent
    assert given == [
        *("run", "--rm", "--init", given[3], "--network=models", "--user=1:2"),
        *("--cap-drop=ALL", "--security-opt=no-new-privileges", "--memory=2g"),
        *("--volume", f"{tmp_path}/data:/data:ro", "--env", "TOKEN"),
        *("--volume", f"{tmp_path}:{tmp_path}", "--volume", "/srv/a.txt:/srv/a.txt:ro"),
        *("--volume", f"{folder}:{folder}"),
        *(f"--workdir={tmp_path}", "--read-only", "python:3.12", "agent", f"{folder}/prompt.txt"),
    ]


async def test_the_user_is_who_runs_it(tmp_path: Path) -> None:
    provider = contained(tmp_path, '#!/bin/sh\nprintf "%s\\n" "$@"\n')
    given = (await provider.invoke(ask())).text
    assert f"--user={os.getuid()}:{os.getgid()}\n" in given
    assert "--network=none\n" in given


async def test_a_cancelled_container_is_removed(tmp_path: Path) -> None:
    provider = contained(tmp_path, ENGINE)
    task = asyncio.ensure_future(provider.invoke(ask()))
    async with asyncio.timeout(10):
        while not (tmp_path / "log.running").exists():
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()  # the second one kills at once
    with pytest.raises(asyncio.CancelledError):
        await task
    started, removed = (tmp_path / "log").read_text().splitlines()
    name = started.split("--name=")[1].split()[0]
    assert removed == f"rm --force {name}"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"runtime": "docker"}, "needs `docker:` with an `image`"),
        ({"docker": {"image": "a"}}, "`docker:` is for `runtime: docker`"),
        ({"runtime": "docker", "docker": {"image": "--privileged"}}, "not the name of an image"),
        ({"runtime": "docker", "docker": {"image": "a", "env": ["A=b"]}}, "values go into `env:`"),
        ({"runtime": "docker", "docker": {"image": "a", "mounts": ["x"]}}, 'expected "outside:'),
    ],
)
def test_containers_that_make_no_sense(tmp_path: Path, settings: dict[str, Any], told: str) -> None:
    target = ResolvedTarget(
        name="t", provider="cli", config={"command": "a {PROMPT}", **settings}, base_dir=tmp_path
    )
    with pytest.raises(ValidationError, match=told):
        CliProvider(target)


async def test_a_container_that_takes_too_long_is_removed(tmp_path: Path) -> None:
    engine = ENGINE.replace("trap '' TERM\n", "")
    provider = contained(tmp_path, engine, timeout=0.3)
    with pytest.raises(ProviderTimeout):
        await provider.invoke(ask())
    assert (tmp_path / "log").read_text().splitlines()[1].startswith("rm --force muster-")

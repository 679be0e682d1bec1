from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import muster
from muster.evals.provenance import git_commit, versions

A, B = "a" * 40, "b1" * 20


def git_folder(root: Path, head: str = "ref: refs/heads/main\n", **files: str) -> Path:
    """`root/.git` as git lays it out; the names of `files` have `/` for `__`."""
    folder = root / ".git"
    (folder / "refs" / "heads").mkdir(parents=True)
    (folder / "HEAD").write_text(head)
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("packed_refs", "packed-refs")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_versions() -> None:
    assert versions() == {
        "muster": muster.__version__,
        "python": platform.python_version(),
        "platform": f"{sys.platform}-{platform.machine()}",
    }


def test_a_branch(tmp_path: Path) -> None:
    git_folder(tmp_path, refs__heads__main=f"{A}\n", refs__heads__other=f"{B}\n")
    assert git_commit(tmp_path) == A
    deep = tmp_path / "x" / "y"
    deep.mkdir(parents=True)
    assert git_commit(deep) == A


def test_a_branch_with_a_slash(tmp_path: Path) -> None:
    git_folder(tmp_path, "ref: refs/heads/fix/it\n", refs__heads__fix__it=f"{A}\n")
    assert git_commit(tmp_path) == A


def test_a_detached_head(tmp_path: Path) -> None:
    git_folder(tmp_path, f"{B}\n", refs__heads__main=f"{A}\n")
    assert git_commit(tmp_path) == B


def test_a_commit_by_sha256(tmp_path: Path) -> None:
    git_folder(tmp_path, "c" * 64)
    assert git_commit(tmp_path) == "c" * 64


PACKED = f"""# pack-refs with: peeled fully-peeled sorted
{B} refs/heads/maintenance
{A} refs/heads/main
{B} refs/tags/v1
^{A}
"""


def test_packed_refs(tmp_path: Path) -> None:
    git_folder(tmp_path, packed_refs=PACKED)
    assert git_commit(tmp_path) == A


def test_a_loose_ref_is_newer_than_the_packed_one(tmp_path: Path) -> None:
    git_folder(tmp_path, packed_refs=PACKED, refs__heads__main=f"{B}\n")
    assert git_commit(tmp_path) == B


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("absolute", [False, True])
def test_a_worktree(tmp_path: Path, absolute: bool, packed: bool) -> None:
    files = {"packed_refs": PACKED} if packed else {"refs__heads__main": A}
    main = git_folder(tmp_path / "main", "ref: refs/heads/other\n", **files)
    own = main / "worktrees" / "tree"
    own.mkdir(parents=True)
    (own / "HEAD").write_text("ref: refs/heads/main\n")
    (own / "commondir").write_text("../..\n")
    tree = tmp_path / "tree"
    tree.mkdir()
    there = own if absolute else Path("../main/.git/worktrees/tree")
    (tree / ".git").write_text(f"gitdir: {there}\n")
    assert git_commit(tree) == A


def test_before_the_first_commit(tmp_path: Path) -> None:
    git_folder(tmp_path)
    assert git_commit(tmp_path) is None


@pytest.mark.parametrize("head", ["", "nonsense\n", "ref: \n", "a" * 39, "A" * 40])
def test_a_head_that_says_nothing(tmp_path: Path, head: str) -> None:
    git_folder(tmp_path, head)
    assert git_commit(tmp_path) is None


def test_a_broken_repository_is_none(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    assert git_commit(tmp_path) is None
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / ".git").write_bytes(b"\xff\xfe\x00")
    assert git_commit(tmp_path / "tree") is None


def test_outside_a_repository(tmp_path: Path) -> None:
    if any((folder / ".git").exists() for folder in tmp_path.parents):
        pytest.skip("the folder for temporary files is in a repository")
    assert git_commit(tmp_path) is None


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_as_git_itself_has_it(tmp_path: Path) -> None:
    def git(*arguments: str, cwd: Path = tmp_path) -> str:
        own = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null", "HOME": "/"}
        for who in ("AUTHOR", "COMMITTER"):
            own |= {f"GIT_{who}_NAME": "x", f"GIT_{who}_EMAIL": "x@y"}
        done = subprocess.run(
            ["git", *arguments], cwd=cwd, env=own | {"PATH": "/usr/bin:/bin:/usr/local/bin"},
            check=True, capture_output=True, text=True, timeout=30,
        )  # fmt: skip
        return done.stdout.strip()

    git("init", "-q", "-b", "main")
    git("commit", "-q", "--allow-empty", "-m", "one")
    first = git("rev-parse", "HEAD")
    assert git_commit(tmp_path) == first
    git("worktree", "add", "-q", "-b", "side/branch", "tree")
    git("commit", "-q", "--allow-empty", "-m", "two", cwd=tmp_path / "tree")
    second = git("rev-parse", "HEAD", cwd=tmp_path / "tree")
    git("pack-refs", "--all")
    assert (git_commit(tmp_path), git_commit(tmp_path / "tree")) == (first, second)
    git("checkout", "-q", "--detach", second)
    assert git_commit(tmp_path) == second

"""Where a project begins and ends, and which files are inside."""

from __future__ import annotations

from pathlib import Path

import pytest

from muster.config.project import OutsideProject, find_project, resolve_inside


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))


def make(root: Path, *folders: str) -> Path:
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
    return root / folders[0]


def test_the_nearest_repository_is_the_root(tmp_path: Path) -> None:
    start = make(tmp_path, "repo/evals/deep", "repo/.git", ".git", ".muster")
    project = find_project(start)
    assert project.folders == (start, start.parent, tmp_path / "repo")
    assert project.start == start
    assert project.results_dir == tmp_path / "repo" / ".muster" / "results"


def test_a_git_file_counts_as_a_repository(tmp_path: Path) -> None:
    start = make(tmp_path, "tree/evals")
    (tmp_path / "tree" / ".git").write_text("gitdir: elsewhere\n")
    assert find_project(start).root == tmp_path / "tree"


def test_without_a_repository_the_highest_marked_folder_is(tmp_path: Path) -> None:
    start = make(tmp_path, "p/a/b", "p/.muster", "p/a/b/.muster/graders")
    assert find_project(start).root == tmp_path / "p"


def test_without_either_the_folder_stands_alone(tmp_path: Path) -> None:
    start = make(tmp_path, "p/a")
    assert find_project(start).folders == (start,)


def test_a_suite_stands_in_its_folder(tmp_path: Path) -> None:
    (suite := tmp_path / "suite.yaml").write_text("")
    assert find_project(suite).start == tmp_path


def test_the_walk_ends_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = make(tmp_path, "home/p", "home/.agentv", ".muster")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert find_project(start).root == start
    (tmp_path / "home" / ".muster").mkdir()
    assert find_project(start).root == tmp_path / "home"


def test_folders_where_anybody_writes_are_not_entered(tmp_path: Path) -> None:
    start = make(tmp_path, "shared/p", "shared/.muster/providers", "shared/.git")
    (tmp_path / "shared").chmod(0o1777)
    project = find_project(start)
    assert project.root == start
    assert project.provider_folders == []
    assert find_project(tmp_path / "shared").root == tmp_path / "shared"


def test_project_folders_are_found_nearest_first(tmp_path: Path) -> None:
    start = make(
        tmp_path, "a/b", ".git", ".muster/providers", "a/.muster/providers", "a/.muster/graders"
    )
    project = find_project(start)
    assert project.provider_folders == [
        tmp_path / "a" / ".muster" / "providers",
        tmp_path / ".muster" / "providers",
    ]
    assert project.grader_folders == [tmp_path / "a" / ".muster" / "graders"]
    assert project.find_all(".git") == [tmp_path / ".git"]


def test_files_inside_are_resolved(tmp_path: Path) -> None:
    base = make(tmp_path, "p/evals")
    root = tmp_path / "p"
    assert resolve_inside(base, "../data/x.csv", root) == root / "data" / "x.csv"
    assert resolve_inside(base, root / "y", root) == root / "y"


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "link/x", "../../p2/x", "a\0b"])
def test_files_outside_are_refused(tmp_path: Path, name: str) -> None:
    base = make(tmp_path, "p/evals", "p2")
    (base / "link").symlink_to(tmp_path / "p2")
    with pytest.raises(OutsideProject):
        resolve_inside(base, name, tmp_path / "p")

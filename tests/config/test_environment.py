"""`.env` files up the tree, and the process's own variables over them."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from muster.config.environment import load_environment
from muster.errors import ConfigError


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    (tmp_path / ".git").mkdir()
    (tmp_path / "a" / "b").mkdir(parents=True)
    return tmp_path


def test_nearer_files_win_and_the_process_wins_over_all(repo: Path) -> None:
    (repo / ".env").write_text("FAR=root\nBOTH=root\nPROCESS=root\n")
    (repo / "a" / ".env").write_text("BOTH=a\nexport NEAR='a b'\n# note\nBARE\n")
    env = load_environment(repo / "a" / "b", {"PROCESS": "mine"})
    assert (env["FAR"], env["BOTH"], env["NEAR"], env["PROCESS"]) == ("root", "a", "a b", "mine")
    assert "BARE" not in env


def test_files_above_the_repository_are_not_read(repo: Path) -> None:
    (repo / "a" / ".git").mkdir()
    (repo / ".env").write_text("FAR=root\n")
    assert "FAR" not in load_environment(repo / "a" / "b", {})


def test_nothing_is_expanded_or_run(repo: Path) -> None:
    (repo / ".env").write_text("A=1\nB=${A}-$(id)-`id`\n")
    assert load_environment(repo, {})["B"] == "${A}-$(id)-`id`"


def test_the_process_environment_is_left_alone(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUSTER_TEST_SET", "process")
    (repo / ".env").write_text("MUSTER_TEST_SET=file\nMUSTER_TEST_NEW=file\n")
    env = load_environment(repo)
    assert (env["MUSTER_TEST_SET"], env["MUSTER_TEST_NEW"]) == ("process", "file")
    assert "MUSTER_TEST_NEW" not in os.environ


def test_the_project_root_is_a_variable(repo: Path) -> None:
    env = load_environment(repo / "a", {"AGENTV_REPO_ROOT": "/mine"})
    assert env["MUSTER_PROJECT_ROOT"] == str(repo)
    assert env["AGENTV_REPO_ROOT"] == "/mine"


def test_a_broken_line_is_left_out_and_told(repo: Path, caplog: pytest.LogCaptureFixture) -> None:
    (repo / ".env").write_text("A=1\n=oops\nB=2\n")
    with caplog.at_level(logging.WARNING):
        env = load_environment(repo, {})
    assert (env["A"], env["B"]) == ("1", "2")
    assert f"{repo / '.env'}:2: not of the form NAME=value" in caplog.text


def test_a_folder_called_env_is_passed_by(repo: Path) -> None:
    (repo / ".env").mkdir()
    assert load_environment(repo, {"A": "1"})["A"] == "1"


def test_a_file_that_is_not_utf8_is_named(repo: Path) -> None:
    (repo / ".env").write_bytes(b"A=caf\xe9\n")
    with pytest.raises(ConfigError, match=r"\.env:1: not UTF-8 text"):
        load_environment(repo, {})
